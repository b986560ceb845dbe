//! Bytes in and out.
//!
//! The positioned calls (pread, pwrite, preadv, pwritev) are not hooked: the visible descriptor is a kernel socket, and
//! the kernel says ESPIPE. So it does for tee, vmsplice and copy_file_range, which take no socket.

use core::ffi::{c_int, c_uint, c_void};

use libc::{iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t, timespec};

use crate::calls;

unsafe extern "C" {
    fn __chk_fail() -> !;
}

/// `_FORTIFY_SOURCE`: a length above what the compiler knows of the buffer ends the program.
fn check(len: size_t, room: size_t) {
    if len > room {
        // SAFETY: no arguments; does not return.
        unsafe { __chk_fail() }
    }
}

unsafe fn read_checked(fd: c_int, buf: *mut c_void, len: size_t, room: size_t) -> ssize_t {
    check(len, room);
    // SAFETY: the program's call.
    unsafe { calls::read(fd, buf, len) }
}

unsafe fn recv_checked(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    check(len, room);
    // SAFETY: the program's call.
    unsafe { calls::recv(fd, buf, len, flags) }
}

unsafe fn recvfrom_checked(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    alen: *mut socklen_t,
) -> ssize_t {
    check(len, room);
    // SAFETY: the program's call.
    unsafe { calls::recvfrom(fd, buf, len, flags, addr, alen) }
}

hooks! {
    read __read: (fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t = calls::read;
    write __write: (fd: c_int, buf: *const c_void, len: size_t) -> ssize_t = calls::write;
    readv: (fd: c_int, iov: *const iovec, n: c_int) -> ssize_t = calls::readv;
    writev: (fd: c_int, iov: *const iovec, n: c_int) -> ssize_t = calls::writev;
    preadv2 preadv64v2: (fd: c_int, iov: *const iovec, n: c_int, offset: off_t, flags: c_int)
        -> ssize_t = calls::preadv2;
    pwritev2 pwritev64v2: (fd: c_int, iov: *const iovec, n: c_int, offset: off_t, flags: c_int)
        -> ssize_t = calls::pwritev2;
    recv: (fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t = calls::recv;
    recvfrom: (fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, addr: *mut sockaddr, alen: *mut socklen_t)
        -> ssize_t = calls::recvfrom;
    recvmsg: (fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t = calls::recvmsg;
    recvmmsg: (fd: c_int, msgs: *mut mmsghdr, n: c_uint, flags: c_int, timeout: *mut timespec) -> c_int
        = calls::recvmmsg;
    send __send: (fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t = calls::send;
    sendto: (fd: c_int, buf: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr, alen: socklen_t)
        -> ssize_t = calls::sendto;
    sendmsg: (fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t = calls::sendmsg;
    sendmmsg: (fd: c_int, msgs: *mut mmsghdr, n: c_uint, flags: c_int) -> c_int
        = calls::sendmmsg;
    sendfile sendfile64: (out: c_int, input: c_int, offset: *mut off_t, count: size_t) -> ssize_t
        = calls::sendfile;
    splice: (input: c_int, off_in: *mut i64, out: c_int, off_out: *mut i64, len: size_t, flags: c_uint)
        -> ssize_t = calls::splice;

    __read_chk: (fd: c_int, buf: *mut c_void, len: size_t, room: size_t) -> ssize_t = super::read_checked;
    __recv_chk: (fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t
        = super::recv_checked;
    __recvfrom_chk: (fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int, addr: *mut sockaddr,
        alen: *mut socklen_t) -> ssize_t = super::recvfrom_checked;
}
