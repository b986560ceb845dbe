//! `syscall()`: the numbers that concern sockets go where the functions go, everything else to the kernel.

use core::ffi::{c_int, c_long, c_uint};

use sidewire_posix::raw;

use crate::{calls, exec, process};

/// Bytes of the kernel's signal masks.
const MASK: usize = 8;

/// `syscall(number, ...)` with six arguments, as many as any call has.
unsafe fn by_number(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let (fd, bi, ci, di) = (a as c_int, b as c_int, c as c_int, d as c_int);
    #[allow(unused_unsafe)]
    // SAFETY: the program's call, with the types of the function of that name.
    unsafe {
        match number {
            libc::SYS_socket => calls::socket(fd, bi, ci).into(),
            libc::SYS_bind => calls::bind(fd, b as _, c as _).into(),
            libc::SYS_listen => calls::listen(fd, bi).into(),
            libc::SYS_accept => calls::accept(fd, b as _, c as _).into(),
            libc::SYS_accept4 => calls::accept4(fd, b as _, c as _, di).into(),
            libc::SYS_connect => calls::connect(fd, b as _, c as _).into(),
            libc::SYS_shutdown => calls::shutdown(fd, bi).into(),
            libc::SYS_getsockname => calls::getsockname(fd, b as _, c as _).into(),
            libc::SYS_getpeername => calls::getpeername(fd, b as _, c as _).into(),
            libc::SYS_getsockopt => calls::getsockopt(fd, bi, ci, d as _, e as _).into(),
            libc::SYS_setsockopt => calls::setsockopt(fd, bi, ci, d as _, e as _).into(),
            libc::SYS_read => calls::read(fd, b as _, c) as c_long,
            libc::SYS_write => calls::write(fd, b as _, c) as c_long,
            libc::SYS_readv => calls::readv(fd, b as _, ci) as c_long,
            libc::SYS_writev => calls::writev(fd, b as _, ci) as c_long,
            // The upper half of the offset, which comes before the flags, is nothing where a long has all of it.
            libc::SYS_preadv2 => calls::preadv2(fd, b as _, ci, d as _, f as c_int) as c_long,
            libc::SYS_pwritev2 => calls::pwritev2(fd, b as _, ci, d as _, f as c_int) as c_long,
            libc::SYS_recvfrom => calls::recvfrom(fd, b as _, c, di, e as _, f as _) as c_long,
            libc::SYS_recvmsg => calls::recvmsg(fd, b as _, ci) as c_long,
            libc::SYS_recvmmsg => calls::recvmmsg(fd, b as _, c as c_uint, di, e as _).into(),
            libc::SYS_sendto => calls::sendto(fd, b as _, c, di, e as _, f as _) as c_long,
            libc::SYS_sendmsg => calls::sendmsg(fd, b as _, ci) as c_long,
            libc::SYS_sendmmsg => calls::sendmmsg(fd, b as _, c as c_uint, di).into(),
            libc::SYS_sendfile => calls::sendfile(fd, bi, c as _, d) as c_long,
            libc::SYS_splice => calls::splice(fd, b as _, ci, d as _, e, f as c_uint) as c_long,
            libc::SYS_fcntl => calls::fcntl(fd, bi, c).into(),
            libc::SYS_ioctl => calls::ioctl(fd, b, c).into(),
            libc::SYS_close => calls::close(fd).into(),
            libc::SYS_close_range => calls::close_range(a as c_uint, b as c_uint, ci).into(),
            libc::SYS_dup => calls::dup(fd).into(),
            libc::SYS_dup3 => calls::dup3(fd, bi, ci).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2 => calls::dup2(fd, bi).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => calls::poll(a as _, b as _, ci).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select => calls::select(fd, b as _, c as _, d as _, e as _).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait => calls::epoll_wait(fd, b as _, ci, di).into(),
            libc::SYS_epoll_ctl => calls::epoll_ctl(fd, bi, ci, d as _).into(),
            // The kernel knows one size of a mask.
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 if e != 0 && f != MASK => {
                raw::set_errno(libc::EINVAL);
                -1
            }
            libc::SYS_epoll_pwait => calls::epoll_pwait(fd, b as _, ci, di, e as _).into(),
            libc::SYS_epoll_pwait2 => calls::epoll_pwait2(fd, b as _, ci, d as _, e as _).into(),
            libc::SYS_ppoll => calls::ppoll_by_number(a as _, b as _, c as _, d as _, e),
            libc::SYS_pselect6 => {
                calls::pselect_by_number(fd, [b as _, c as _, d as _], e as _, f as _)
            }
            // libuv gives its epoll_ctls to a ring, past every hook. It does without one where there is none.
            libc::SYS_io_uring_setup if sidewire_posix::process::enabled() => {
                raw::set_errno(libc::EPERM);
                -1
            }
            libc::SYS_execve => exec::execve_call(a as _, b as _, c as _).into(),
            libc::SYS_execveat => {
                exec::execveat_call(fd, b as _, c as _, d as _, e as c_int).into()
            }
            libc::SYS_unshare => calls::unshare(fd).into(),
            libc::SYS_pidfd_getfd => calls::pidfd_getfd(fd, bi, c as c_uint).into(),
            libc::SYS_exit_group => process::leave(fd),
            libc::SYS_clone | libc::SYS_clone3 => {
                calls::clone_by_number(number, [a, b, c, d, e, f])
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_fork => calls::clone_by_number(number, [a, b, c, d, e, f]),
            _ => calls::syscall(number, a, b, c, d, e, f),
        }
    }
}

hooks! {
    syscall: (number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long
        = super::by_number;
}
