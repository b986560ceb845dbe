//! Threads of the library's own.

use core::cell::Cell;
use std::io;

use crate::company;
use crate::signals::{self, ending};

thread_local! {
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// True in a thread of the library's own. Such a one opens no descriptor while the program runs, where that can be helped: it
/// would have the lowest free number for a moment, which the program may count on.
pub(crate) fn own() -> bool {
    OWN.get()
}

/// Starts a thread with all signals blocked, but those of libc's: they are the program's.
///
/// # Errors
/// RLIMIT_NPROC, or no memory for the stack.
pub(crate) fn spawn(
    name: &str,
    stack_size: usize,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let before = signals::mask(libc::SIG_SETMASK, Some(!ending::LIBCS));
    let spawned = std::thread::Builder::new()
        .name(name.into())
        .stack_size(stack_size)
        .spawn(|| {
            OWN.set(true);
            company::enroll();
            body();
            company::leave();
        });
    signals::mask(libc::SIG_SETMASK, Some(before));
    spawned.map(drop)
}
