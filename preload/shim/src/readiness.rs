//! select, poll and epoll.

use core::ffi::c_int;

use libc::{epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};

use crate::calls;

unsafe extern "C" {
    fn __chk_fail() -> !;
}

fn check(n: nfds_t, room: size_t) {
    if room / size_of::<pollfd>() < n as usize {
        // SAFETY: no arguments; does not return.
        unsafe { __chk_fail() }
    }
}

unsafe fn poll_checked(fds: *mut pollfd, n: nfds_t, timeout: c_int, room: size_t) -> c_int {
    check(n, room);
    // SAFETY: the program's call.
    unsafe { calls::poll(fds, n, timeout) }
}

unsafe fn ppoll_checked(
    fds: *mut pollfd,
    n: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    check(n, room);
    // SAFETY: the program's call.
    unsafe { calls::ppoll(fds, n, timeout, mask) }
}

hooks! {
    select __select: (n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *mut timeval)
        -> c_int = calls::select;
    pselect: (n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *const timespec,
        mask: *const sigset_t) -> c_int = calls::pselect;
    poll __poll: (fds: *mut pollfd, n: nfds_t, timeout: c_int) -> c_int = calls::poll;
    ppoll: (fds: *mut pollfd, n: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int
        = calls::ppoll;
    epoll_create: (size: c_int) -> c_int = calls::epoll_create;
    epoll_create1: (flags: c_int) -> c_int = calls::epoll_create1;
    epoll_ctl: (epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int
        = calls::epoll_ctl;
    epoll_wait: (epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int
        = calls::epoll_wait;
    epoll_pwait: (epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int, mask: *const sigset_t)
        -> c_int = calls::epoll_pwait;
    epoll_pwait2: (epfd: c_int, events: *mut epoll_event, max: c_int, timeout: *const timespec,
        mask: *const sigset_t) -> c_int = calls::epoll_pwait2;
    __poll_chk: (fds: *mut pollfd, n: nfds_t, timeout: c_int, room: size_t) -> c_int
        = super::poll_checked;
    __ppoll_chk: (fds: *mut pollfd, n: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: size_t)
        -> c_int = super::ppoll_checked;
}
