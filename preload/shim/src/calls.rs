//! What the hooks call.

pub(crate) use sidewire_posix::calls::{
    accept, accept4, bind, connect, getpeername, getsockname, getsockopt, ioctl, listen, read,
    readv, recv, recvfrom, recvmmsg, recvmsg, send, sendfile, sendmmsg, sendmsg, sendto,
    setsockopt, shutdown, sockatmark, socket, splice, write, writev,
};
pub(crate) use sidewire_posix::descriptors::{
    close, close_range, closefrom, dup, dup2, dup3, fcntl, fresh, pidfd_getfd, preadv2, pwritev2,
    unshare,
};
pub(crate) use sidewire_posix::process::{
    _Fork, before_exec, before_exit, clone, clone_by_number, daemon, exec_failed, popen,
    posix_spawn, posix_spawn_file_actions_adddup2, posix_spawnp, system,
};
pub(crate) use sidewire_posix::readiness::epoll::{
    epoll_create, epoll_create1, epoll_ctl, epoll_pwait, epoll_pwait2, epoll_wait,
};
pub(crate) use sidewire_posix::readiness::poll::{poll, ppoll, ppoll_by_number};
pub(crate) use sidewire_posix::readiness::select::{pselect, pselect_by_number, select};
pub(crate) use sidewire_posix::real::{
    __open_2, __open64_2, __openat_2, __openat64_2, _exit, creat, creat64, eventfd, execv, execve,
    execveat, execvp, execvpe, fexecve, inotify_init, inotify_init1, memfd_create, open, open64,
    openat, openat64, pipe, pipe2, signalfd, socketpair, syscall, timerfd_create,
};
pub(crate) use sidewire_posix::signals::cancel::pthread_cancel;
pub(crate) use sidewire_posix::signals::{sigaction, siginterrupt, signal, sigset, sysv_signal};
pub(crate) use sidewire_posix::stdio::{
    __vdprintf_chk, fclose, fcloseall, fdopen, fileno, freopen, freopen64, vdprintf,
};
