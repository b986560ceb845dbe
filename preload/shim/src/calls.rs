//! What the hooks call.

pub(crate) use sidewire_posix::calls::{
    accept, accept4, bind, close, connect, dup, dup2, dup3, fcntl, getpeername, getsockname,
    getsockopt, ioctl, listen, read, readv, recv, recvfrom, recvmmsg, recvmsg, send, sendfile,
    sendmmsg, sendmsg, sendto, setsockopt, shutdown, sockatmark, socket, splice, write, writev,
};
pub(crate) use sidewire_posix::process::{before_exec, before_exit};
pub(crate) use sidewire_posix::real::*;
pub(crate) use sidewire_posix::signals::{sigaction, siginterrupt, signal, sigset, sysv_signal};

pub(crate) fn fresh(fd: core::ffi::c_int) -> core::ffi::c_int {
    fd
}
