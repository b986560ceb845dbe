//! Calls that are no cancellation points of libc's, sendfile among them: a thread that is cancelled meanwhile has their result.

use core::ffi::c_int;
use core::ptr::null_mut;

use super::MOVED;
use crate::fdtable;
use crate::file::FileRef;
use crate::signals::held::Lent;
use crate::signals::{self, ERESTARTSYS};

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// While it lives, this thread is not cancelled.
struct Uncancelled(c_int);

impl Uncancelled {
    fn begin() -> Self {
        const PTHREAD_CANCEL_DISABLE: c_int = 1;
        let mut before = 0;
        // SAFETY: a live local.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
        // One that is due waits for the next cancellation point: no sleep ends by it.
        signals::test_cancel(None);
        Self(before)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: null is allowed.
        unsafe { pthread_setcancelstate(self.0, null_mut()) };
    }
}

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
            let _whole = Uncancelled::begin();
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
