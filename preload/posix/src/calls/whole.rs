//! Calls that are no cancellation points of libc's, sendfile among them: a thread that is cancelled meanwhile has their result.

use core::ffi::c_int;

use super::MOVED;
use crate::fdtable;
use crate::file::FileRef;
use crate::signals::cancel::Off;
use crate::signals::held::Lent;
use crate::signals::{self, ERESTARTSYS};

/// [`signals::call`] for such a call. Handlers run between as there, and with the thread's own state.
///
/// # Errors
/// As there.
pub(super) fn call<T>(
    file: &FileRef,
    mut body: impl FnMut() -> Result<T, c_int>,
) -> Result<T, c_int> {
    loop {
        let inside = signals::enter();
        let result = {
            let _whole = Off::new();
            // One that is due waits for the next cancellation point: no sleep ends by it.
            signals::test_cancel(None);
            body()
        };
        let again = signals::restartable();
        let lent = signals::handler_pending().then(|| Lent::new(file));
        drop(inside);
        drop(lent);
        match result {
            Err(ERESTARTSYS) if again => {
                if fdtable::number_of(file.record()).is_none() {
                    return Err(MOVED);
                }
            }
            Err(ERESTARTSYS) => return Err(libc::EINTR),
            result => return result,
        }
    }
}
