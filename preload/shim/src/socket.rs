//! Sockets: birth, names, options, end of a direction.

use core::ffi::{c_int, c_void};

use libc::{sockaddr, socklen_t};

use crate::{calls, lifetime};

hooks! {
    socket: (domain: c_int, kind: c_int, protocol: c_int) -> c_int = calls::socket;
    socketpair: (domain: c_int, kind: c_int, protocol: c_int, fds: *mut c_int) -> c_int
        = lifetime::socketpair_fresh;
    bind: (fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = calls::bind;
    listen: (fd: c_int, backlog: c_int) -> c_int = calls::listen;
    accept: (fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = calls::accept;
    accept4: (fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int
        = calls::accept4;
    connect __connect: (fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = calls::connect;
    shutdown: (fd: c_int, how: c_int) -> c_int = calls::shutdown;
    getsockname: (fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = calls::getsockname;
    getpeername: (fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = calls::getpeername;
    getsockopt: (fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t)
        -> c_int = calls::getsockopt;
    setsockopt: (fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t)
        -> c_int = calls::setsockopt;
}
