//! Descriptor numbers as they come and go: what the calls on sockets, the epoll records and the kernel each have to know.

use core::ffi::{c_int, c_uint};

use libc::{iovec, off_t, ssize_t};
use once_cell::race::OnceBool;
use sidewire_link::fd::{inherited, is_internal};
use syscalls::{Errno, Sysno};

use crate::calls::socket;
use crate::readiness::epoll;
use crate::signals::cancel;
use crate::{calls, fdtable, process, raw, real, signals, syscall, vfork};

/// No descriptor of our own has a higher number.
const LAST: c_uint = 65535;

/// A number that the kernel has just given out, for something that is not a socket of ours: whatever was known of it was
/// closed behind our back.
#[inline]
pub fn fresh(fd: c_int) -> c_int {
    if fd >= 0 && !signals::in_vfork() {
        epoll::forget(fd);
        socket::forget_stale(fd);
    }
    fd
}

/// In a vfork child: refuses what would take a descriptor away that the program is to have which the child becomes.
fn refuses(fd: c_int) -> bool {
    let refused = inherited().contains(&fd);
    if refused {
        raw::set_errno(libc::EBADF);
    }
    refused
}

/// `close`.
pub fn close(fd: c_int) -> c_int {
    if signals::in_vfork() {
        return if refuses(fd) { -1 } else { real::close(fd) };
    }
    epoll::keep_for_users(fd);
    epoll::forget(fd);
    calls::close(fd)
}

/// `dup`.
pub fn dup(fd: c_int) -> c_int {
    if signals::in_vfork() {
        vfork::pass_on(fd);
        return real::dup(fd);
    }
    let new = calls::dup(fd);
    epoll::duplicated(fd, new);
    new
}

/// `dup2`.
pub fn dup2(fd: c_int, new: c_int) -> c_int {
    if signals::in_vfork() {
        if refuses(new) {
            return -1;
        }
        vfork::pass_on(fd);
        return real::dup2(fd, new);
    }
    let got = calls::dup2(fd, new);
    epoll::duplicated(fd, got);
    got
}

/// `dup3`.
pub fn dup3(fd: c_int, new: c_int, flags: c_int) -> c_int {
    if signals::in_vfork() {
        if refuses(new) {
            return -1;
        }
        vfork::pass_on(fd);
        return real::dup3(fd, new, flags);
    }
    let got = calls::dup3(fd, new, flags);
    epoll::duplicated(fd, got);
    got
}

/// `fcntl`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn fcntl(fd: c_int, cmd: c_int, arg: usize) -> c_int {
    let duplicates = matches!(cmd, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC);
    if duplicates && signals::in_vfork() {
        vfork::pass_on(fd);
        // SAFETY: the program's call.
        return unsafe { real::fcntl(fd, cmd, arg) };
    }
    // SAFETY: the program's call.
    let got = unsafe { calls::fcntl(fd, cmd, arg) };
    if duplicates {
        epoll::duplicated(fd, got);
    }
    got
}

/// Calls `f` for every run of numbers in `first..=last` without one of our own descriptors in it. The first failure ends it.
pub(crate) fn around_internal(
    first: c_uint,
    last: c_uint,
    mut f: impl FnMut(c_uint, c_uint) -> c_int,
) -> c_int {
    let mut start = first;
    for fd in first..=last.min(LAST) {
        if is_internal(fd as c_int) {
            if start < fd {
                let done = f(start, fd - 1);
                if done != 0 {
                    return done;
                }
            }
            start = fd + 1;
        }
    }
    if start <= last { f(start, last) } else { 0 }
}

/// The kernel's close_range for all but the descriptors that executed programs are to have.
fn around_inherited(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let kept = inherited();
    let (start, end) = (kept.start as c_uint, kept.end as c_uint);
    if kept.is_empty() || last < start || first >= end {
        return real::close_range(first, last, flags);
    }
    if first < start {
        let done = real::close_range(first, start - 1, flags);
        if done != 0 {
            return done;
        }
    }
    if end <= last {
        return real::close_range(end, last, flags);
    }
    0
}

/// `close_range`. Our own descriptors are not in any range of the program's.
pub fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if signals::in_vfork() {
        return around_inherited(first, last, flags);
    }
    if first > last {
        raw::set_errno(libc::EINVAL);
        return -1;
    }
    let cloexec = libc::CLOSE_RANGE_CLOEXEC as c_int;
    if flags & cloexec != 0 {
        // They are close-on-exec already, or never, and stay open.
        return around_inherited(first, last, flags);
    }
    // Unknown flags fail before anything is closed.
    if flags & !(libc::CLOSE_RANGE_UNSHARE as c_int) != 0 {
        return real::close_range(first, last, flags);
    }
    if flags & libc::CLOSE_RANGE_UNSHARE as c_int != 0 && unshare(libc::CLONE_FILES) != 0 {
        return -1;
    }
    let _inside = signals::enter();
    epoll::keep_range_for_users(first, last);
    epoll::forget_range(first, last);
    if signals::held::any() {
        signals::held::bury();
    }
    let mut files = Vec::new();
    fdtable::for_each(|fd| {
        if (first..=last).contains(&(fd as c_uint)) {
            files.extend(fdtable::remove(fd));
        }
    });
    let r = around_internal(first, last, |a, b| real::close_range(a, b, 0));
    // What lingers does so when the numbers are free: others may have them meanwhile.
    drop(files);
    r
}

/// `unshare`.
pub fn unshare(flags: c_int) -> c_int {
    // Of an only thread the kernel takes them, and does nothing.
    const THREADS: c_int =
        libc::CLONE_FILES | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    if flags & THREADS != 0 && process::alone_with_library() {
        return real::unshare(flags & !THREADS);
    }
    if flags & libc::CLONE_FILES != 0 {
        process::part();
    }
    real::unshare(flags)
}

/// `pidfd_getfd`: the descriptor of one's own process is duplicated.
pub fn pidfd_getfd(pidfd: c_int, fd: c_int, flags: c_uint) -> c_int {
    if fdtable::is_ours(fd) && is_this_process(pidfd) {
        process::share_one(fd);
    }
    fresh(real::pidfd_getfd(pidfd, fd, flags))
}

/// By what /proc says of the descriptor.
fn is_this_process(pidfd: c_int) -> bool {
    let _inside = signals::enter();
    let _whole = cancel::Off::new();
    let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{pidfd}")) else {
        return false;
    };
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    pid.is_some_and(|pid| pid.trim().parse() == Ok(syscall::getpid()))
}

/// `closefrom`.
pub fn closefrom(first: c_int) {
    let _ = close_range(first.max(0) as c_uint, c_uint::MAX, 0);
}

/// `preadv2`. With the offset -1 it is readv with flags, which sockets know.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn preadv2(
    fd: c_int,
    iov: *const iovec,
    n: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    if !sockets_know(fd, offset, flags) {
        // SAFETY: the program's call.
        return unsafe { real::preadv2(fd, iov, n, offset, flags) };
    }
    // SAFETY: the program's vector.
    unsafe { calls::readv_with(fd, iov, n, message_flags(flags)) }
}

/// `pwritev2`. With the offset -1 it is writev with flags, which sockets know.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn pwritev2(
    fd: c_int,
    iov: *const iovec,
    n: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    if !sockets_know(fd, offset, flags) {
        // SAFETY: the program's call.
        return unsafe { real::pwritev2(fd, iov, n, offset, flags) };
    }
    // SAFETY: the program's vector.
    unsafe { calls::writev_with("pwritev2", fd, iov, n, message_flags(flags)) }
}

/// The flags that mean nothing to a socket: RWF_HIPRI, DSYNC, SYNC, APPEND and NOAPPEND.
const IGNORED: c_int = 0x37;

fn sockets_know(fd: c_int, offset: off_t, flags: c_int) -> bool {
    // Both: EINVAL.
    const APPEND_AND_NOT: c_int = 0x30;
    offset == -1
        && flags & !(libc::RWF_NOWAIT | RWF_NOSIGNAL | IGNORED) == 0
        && flags & APPEND_AND_NOT != APPEND_AND_NOT
        && !signals::in_vfork()
        && fdtable::is_ours(fd)
        && (flags & RWF_NOSIGNAL == 0 || kernel_knows_nosignal(fd))
}

/// Since Linux 6.18.
const RWF_NOSIGNAL: c_int = 0x100;

/// Whether the kernel has that flag: its own socket behind `fd`, from which nothing can be read, says so.
fn kernel_knows_nosignal(fd: c_int) -> bool {
    static KNOWS: OnceBool = OnceBool::new();
    KNOWS.get_or_init(|| {
        let mut byte = 0u8;
        let iov = iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        let flags = libc::RWF_NOWAIT | RWF_NOSIGNAL;
        // SAFETY: a live byte.
        let got =
            unsafe { syscalls::syscall!(Sysno::preadv2, fd, &raw const iov, 1, -1isize, 0, flags) };
        got != Err(Errno::EOPNOTSUPP)
    })
}

fn message_flags(flags: c_int) -> c_int {
    let pairs = [
        (libc::RWF_NOWAIT, libc::MSG_DONTWAIT),
        (RWF_NOSIGNAL, libc::MSG_NOSIGNAL),
    ];
    pairs
        .iter()
        .filter(|(asked, _)| flags & asked != 0)
        .fold(0, |all, (_, flag)| all | flag)
}
