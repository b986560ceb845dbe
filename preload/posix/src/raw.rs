//! System calls without libc: they cannot come back through a hook, and need no symbol resolved.

use libc::c_int;
use sidewire_link::file_limit;
use syscalls::{Errno, Sysno, syscall, syscall6};

/// Sets the calling thread's `errno`.
pub fn set_errno(errno: c_int) {
    // SAFETY: libc returns a valid pointer to the thread's own errno.
    unsafe { *libc::__errno_location() = errno }
}

/// The calling thread's `errno`.
pub fn errno() -> c_int {
    // SAFETY: libc returns a valid pointer to the thread's own errno.
    unsafe { *libc::__errno_location() }
}

/// Makes a system call. `Err` holds the (positive) errno; the thread's own `errno` stays as it is.
///
/// # Safety
/// The arguments must be what the call expects, and what it does must not break Rust's rules.
pub unsafe fn call(number: Sysno, args: [usize; 6]) -> Result<usize, c_int> {
    // SAFETY: the caller vouches for the arguments.
    unsafe { syscall6(number, args[0], args[1], args[2], args[3], args[4], args[5]) }
        .map_err(|e| e.into_raw())
}

/// Makes a system call the way libc wraps one: -1 and `errno` on failure.
///
/// # Safety
/// As for [`call`].
pub unsafe fn libc_call(number: Sysno, args: [usize; 6]) -> isize {
    // SAFETY: the caller vouches for the arguments.
    match unsafe { call(number, args) } {
        Ok(value) => value as isize,
        Err(e) => {
            set_errno(e);
            -1
        }
    }
}

/// Whether descriptor 2 is a place for lines that the program does not write: not a connection of its own, as a server has it
/// there that inetd started or that forks as if, and nothing without a reader, which would end the program by SIGPIPE.
fn stderr_takes_lines() -> bool {
    let mut domain: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    let mut poll = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let socket = [
        libc::STDERR_FILENO as usize,
        libc::SOL_SOCKET as usize,
        libc::SO_DOMAIN as usize,
        (&raw mut domain).addr(),
        (&raw mut len).addr(),
        0,
    ];
    let ready = [(&raw mut poll).addr(), 1, (&raw const now).addr(), 0, 0, 0];
    // SAFETY: the kernel reads and fills live locals.
    let (socket, ready) = unsafe { (call(Sysno::getsockopt, socket), call(Sysno::ppoll, ready)) };
    let foreign = socket.is_ok() && domain != libc::AF_UNIX;
    let broken = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
    !foreign && (ready.is_err() || poll.revents & broken == 0)
}

/// Writes all of `bytes` to standard error, best effort, from any context (a signal handler, a
/// panic, the atfork child).
pub fn write_stderr(bytes: &[u8]) {
    if !stderr_takes_lines() {
        return;
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the slice is valid for its length; write(2) only reads it.
        let write = || unsafe { syscall!(Sysno::write, 2, rest.as_ptr(), rest.len()) };
        match file_limit::within(write) {
            Ok(n) if n > 0 => rest = &rest[n.min(rest.len())..],
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}
