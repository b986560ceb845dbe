//! Threads of the library's own.

use std::io;

use crate::{company, signals};

/// Starts a thread with all signals blocked: they are the program's.
///
/// # Errors
/// RLIMIT_NPROC, or no memory for the stack.
pub(crate) fn spawn(
    name: &str,
    stack_size: usize,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let before = signals::mask(libc::SIG_SETMASK, Some(!0));
    let spawned = std::thread::Builder::new()
        .name(name.into())
        .stack_size(stack_size)
        .spawn(|| {
            company::enroll();
            body();
            company::leave();
        });
    signals::mask(libc::SIG_SETMASK, Some(before));
    spawned.map(drop)
}
