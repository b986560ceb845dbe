//! What the hooks call.

pub(crate) use sidewire_posix::calls::{
    accept, accept4, bind, close, connect, dup, dup2, dup3, fcntl, getpeername, getsockname,
    getsockopt, ioctl, listen, read, readv, recv, recvfrom, recvmmsg, recvmsg, send, sendfile,
    sendmmsg, sendmsg, sendto, setsockopt, shutdown, sockatmark, socket, splice, write, writev,
};
pub(crate) use sidewire_posix::process::{before_exec, before_exit};
pub(crate) use sidewire_posix::readiness::epoll::{
    epoll_create, epoll_create1, epoll_ctl, epoll_pwait, epoll_pwait2, epoll_wait,
};
pub(crate) use sidewire_posix::readiness::poll::{poll, ppoll};
pub(crate) use sidewire_posix::readiness::select::{pselect, select};
pub(crate) use sidewire_posix::real::*;
pub(crate) use sidewire_posix::signals::{sigaction, siginterrupt, signal, sigset, sysv_signal};

pub(crate) fn fresh(fd: core::ffi::c_int) -> core::ffi::c_int {
    fd
}
