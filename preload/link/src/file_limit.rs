//! Writing where RLIMIT_FSIZE ends: an error of ours, without the signal that ends a program (Linux
//! `generic_write_check_limits`).

use crate::{Errno, raw};

/// Makes a call that may write to a file. At the limit it fails with EFBIG, and SIGXFSZ, which is for the calling thread, is
/// taken back. Async-signal-safe.
///
/// # Errors
/// What the call says.
pub fn within<T>(write: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    if !raw::files_are_limited() {
        return write();
    }
    let signal = libc::SIGXFSZ;
    let blocked = raw::block_signal(signal);
    // One that waits already is the program's.
    let waits = blocked && raw::is_pending(signal);
    let done = write();
    if matches!(done, Err(Errno::EFBIG)) && !waits {
        raw::take_signal(signal);
    }
    if !blocked {
        raw::unblock_signal(signal);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Fd;
    use std::os::fd::AsRawFd;

    /// A child process, which the limit is for.
    fn in_child(test: fn()) {
        // SAFETY: the child makes system calls, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            test();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        let mut status = 0;
        // SAFETY: a live integer.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }

    fn limit(bytes: u64) {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: a live structure.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    }

    fn memory() -> Fd {
        // SAFETY: a live string.
        Fd::from_raw(unsafe { libc::memfd_create(c"limited".as_ptr(), 0) })
    }

    fn append(file: &Fd) -> Result<usize, Errno> {
        within(|| raw::write(file.as_raw_fd(), b"12345678"))
    }

    fn expect(right: bool) {
        if !right {
            // SAFETY: ends the child, whose panics nobody would see.
            unsafe { libc::_exit(1) }
        }
    }

    #[test]
    fn the_limit_is_an_error_and_no_signal() {
        in_child(|| {
            let file = memory();
            limit(12);
            let done = [(); 3].map(|()| append(&file));
            expect(done == [Ok(8), Ok(4), Err(Errno::EFBIG)]);
            expect(!raw::is_pending(libc::SIGXFSZ) && !raw::block_signal(libc::SIGXFSZ));
        });
    }

    #[test]
    fn a_signal_of_the_programs_own_goes_on_waiting() {
        in_child(|| {
            let file = memory();
            limit(0);
            raw::block_signal(libc::SIGXFSZ);
            expect(append(&file) == Err(Errno::EFBIG) && !raw::is_pending(libc::SIGXFSZ));
            // SAFETY: a signal for this thread, which is blocked.
            unsafe { libc::raise(libc::SIGXFSZ) };
            expect(append(&file) == Err(Errno::EFBIG) && raw::is_pending(libc::SIGXFSZ));
        });
    }
}
