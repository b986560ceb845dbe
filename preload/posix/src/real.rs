//! The real libc functions behind the hooks.
//!
//! The shim's constructor calls [`resolve`], which looks up every symbol at once with
//! `dlsym(RTLD_NEXT)`; a lazy look-up would re-enter hooks from dlsym's own allocations. Before
//! that (another library's constructor, an allocator that starts early), and where the libc lacks
//! a symbol, the functions make the system call directly; what is no system call looks its symbol
//! up on demand.
//!
//! Variadic functions are declared with fixed arity: on x86-64 and AArch64 Linux the calling
//! conventions agree for integer and pointer arguments.

use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use libc::{
    FILE, epoll_event, fd_set, iovec, mmsghdr, mode_t, msghdr, nfds_t, off_t, pid_t, pollfd,
    posix_spawn_file_actions_t, posix_spawnattr_t, sigaction as sigaction_t, sighandler_t,
    sigset_t, size_t, sockaddr, socklen_t, ssize_t, timespec, timeval,
};
use syscalls::Sysno;

use crate::raw;

fn next(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string; RTLD_NEXT is resolved relative to this object.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

/// What a function does that could not be found: it does not exist here.
fn missing() -> isize {
    raw::set_errno(libc::ENOSYS);
    -1
}

macro_rules! kernel {
    ($nr:ident $(, $arg:expr)*) => {{
        let given: &[usize] = &[$($arg as usize),*];
        let mut args = [0usize; 6];
        args[..given.len()].copy_from_slice(given);
        // SAFETY: same arguments as the libc function, whose contract the caller keeps.
        unsafe { raw::libc_call(Sysno::$nr, args) as _ }
    }};
}

macro_rules! real {
    ($( $(#[$safe:ident])? fn $name:ident( $($arg:ident: $ty:ty),* ) -> $ret:ty $(= $fallback:expr)?; )*) => {
        #[allow(non_snake_case)]
        struct Table { $( $name: AtomicPtr<c_void>, )* }

        static TABLE: Table = Table { $( $name: AtomicPtr::new(null_mut()), )* };

        /// Looks up every function. Called once by the shim's constructor; again is harmless.
        pub fn resolve() {
            $( TABLE.$name.store(next(symbol!($name)), Ordering::Relaxed); )*
        }

        $( real_one! { $(#[$safe])? $name ( $($arg: $ty),* ) -> $ret, $($fallback)? } )*
    };
}

macro_rules! symbol {
    ($name:ident) => {{
        const NAME: &str = concat!(stringify!($name), "\0");
        match CStr::from_bytes_with_nul(NAME.as_bytes()) {
            Ok(name) => name,
            Err(_) => unreachable!(),
        }
    }};
}

macro_rules! real_one {
    (#[safe] $name:ident ( $($arg:ident: $ty:ty),* ) -> $ret:ty, $fallback:expr) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        #[inline]
        pub fn $name( $($arg: $ty),* ) -> $ret {
            let f = TABLE.$name.load(Ordering::Relaxed);
            if f.is_null() {
                return $fallback;
            }
            // SAFETY: the pointer is libc's function of this name and type; it takes no pointers.
            unsafe { transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) -> $ret>(f)($($arg),*) }
        }
    };
    ($name:ident ( $($arg:ident: $ty:ty),* ) -> $ret:ty, $fallback:expr) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The contract of the C function.
        #[inline]
        #[allow(non_snake_case)]
        pub unsafe fn $name( $($arg: $ty),* ) -> $ret {
            let f = TABLE.$name.load(Ordering::Relaxed);
            if f.is_null() {
                return $fallback;
            }
            // SAFETY: the pointer is libc's function of this name and type; the caller keeps its contract.
            unsafe { transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) -> $ret>(f)($($arg),*) }
        }
    };
    ($name:ident ( $($arg:ident: $ty:ty),* ) -> $ret:ty,) => {
        #[doc = concat!("libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// The contract of the C function.
        #[inline]
        pub unsafe fn $name( $($arg: $ty),* ) -> $ret {
            let mut f = TABLE.$name.load(Ordering::Relaxed);
            if f.is_null() {
                f = next(symbol!($name));
                if f.is_null() {
                    return <$ret as Missing>::MISSING.report();
                }
                TABLE.$name.store(f, Ordering::Relaxed);
            }
            // SAFETY: the pointer is libc's function of this name and type; the caller keeps its contract.
            unsafe { transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) -> $ret>(f)($($arg),*) }
        }
    };
}

/// The value that says "failed" in the return type of a libc function.
trait Missing: Sized {
    const MISSING: Self;
    fn report(self) -> Self {
        missing();
        self
    }
}

impl Missing for c_int {
    const MISSING: Self = -1;
}
impl Missing for sighandler_t {
    const MISSING: Self = libc::SIG_ERR;
}
impl<T> Missing for *mut T {
    const MISSING: Self = null_mut();
}
impl Missing for () {
    const MISSING: Self = ();
}

/// `fn(*mut c_void) -> c_int`, the entry of a `clone`.
pub type CloneFn = extern "C" fn(*mut c_void) -> c_int;

real! {
    // Sockets.
    #[safe] fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int
        = kernel!(socket, domain, kind, protocol);
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut c_int) -> c_int
        = kernel!(socketpair, domain, kind, protocol, fds);
    fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = kernel!(bind, fd, addr, len);
    #[safe] fn listen(fd: c_int, backlog: c_int) -> c_int = kernel!(listen, fd, backlog);
    fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int
        = kernel!(accept4, fd, addr, len, 0);
    fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int
        = kernel!(accept4, fd, addr, len, flags);
    fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int
        = kernel!(connect, fd, addr, len);
    #[safe] fn shutdown(fd: c_int, how: c_int) -> c_int = kernel!(shutdown, fd, how);
    fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int
        = kernel!(getsockname, fd, addr, len);
    fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int
        = kernel!(getpeername, fd, addr, len);
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int
        = kernel!(getsockopt, fd, level, name, value, len);
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int
        = kernel!(setsockopt, fd, level, name, value, len);

    // Bytes in and out.
    fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t = kernel!(read, fd, buf, len);
    fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t = kernel!(write, fd, buf, len);
    fn readv(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t = kernel!(readv, fd, iov, n);
    fn writev(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t = kernel!(writev, fd, iov, n);
    fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t
        = kernel!(recvfrom, fd, buf, len, flags, 0, 0);
    fn recvfrom(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, addr: *mut sockaddr, alen: *mut socklen_t) -> ssize_t
        = kernel!(recvfrom, fd, buf, len, flags, addr, alen);
    fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t = kernel!(recvmsg, fd, msg, flags);
    fn recvmmsg(fd: c_int, msgs: *mut mmsghdr, n: c_uint, flags: c_int, timeout: *mut timespec) -> c_int
        = kernel!(recvmmsg, fd, msgs, n, flags, timeout);
    fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t
        = kernel!(sendto, fd, buf, len, flags, 0, 0);
    fn sendto(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr, alen: socklen_t) -> ssize_t
        = kernel!(sendto, fd, buf, len, flags, addr, alen);
    fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t = kernel!(sendmsg, fd, msg, flags);
    fn sendmmsg(fd: c_int, msgs: *mut mmsghdr, n: c_uint, flags: c_int) -> c_int
        = kernel!(sendmmsg, fd, msgs, n, flags);
    fn pread(fd: c_int, buf: *mut c_void, len: size_t, offset: off_t) -> ssize_t
        = kernel!(pread64, fd, buf, len, offset);
    fn pwrite(fd: c_int, buf: *const c_void, len: size_t, offset: off_t) -> ssize_t
        = kernel!(pwrite64, fd, buf, len, offset);
    fn preadv(fd: c_int, iov: *const iovec, n: c_int, offset: off_t) -> ssize_t
        = kernel!(preadv, fd, iov, n, offset, 0);
    fn pwritev(fd: c_int, iov: *const iovec, n: c_int, offset: off_t) -> ssize_t
        = kernel!(pwritev, fd, iov, n, offset, 0);
    fn preadv2(fd: c_int, iov: *const iovec, n: c_int, offset: off_t, flags: c_int) -> ssize_t
        = kernel!(preadv2, fd, iov, n, offset, 0, flags);
    fn pwritev2(fd: c_int, iov: *const iovec, n: c_int, offset: off_t, flags: c_int) -> ssize_t
        = kernel!(pwritev2, fd, iov, n, offset, 0, flags);
    fn sendfile(out: c_int, input: c_int, offset: *mut off_t, count: size_t) -> ssize_t
        = kernel!(sendfile, out, input, offset, count);
    fn splice(input: c_int, off_in: *mut i64, out: c_int, off_out: *mut i64, len: size_t, flags: c_uint) -> ssize_t
        = kernel!(splice, input, off_in, out, off_out, len, flags);
    fn vmsplice(fd: c_int, iov: *const iovec, n: size_t, flags: c_uint) -> ssize_t
        = kernel!(vmsplice, fd, iov, n, flags);
    #[safe] fn tee(input: c_int, out: c_int, len: size_t, flags: c_uint) -> ssize_t
        = kernel!(tee, input, out, len, flags);
    fn copy_file_range(input: c_int, off_in: *mut i64, out: c_int, off_out: *mut i64, len: size_t, flags: c_uint) -> ssize_t
        = kernel!(copy_file_range, input, off_in, out, off_out, len, flags);

    // Control.
    fn fcntl(fd: c_int, cmd: c_int, arg: usize) -> c_int = kernel!(fcntl, fd, cmd, arg);
    fn ioctl(fd: c_int, request: usize, arg: usize) -> c_int = kernel!(ioctl, fd, request, arg);
    #[safe] fn sockatmark(fd: c_int) -> c_int = {
        let mut flag: c_int = 0;
        let r: c_int = kernel!(ioctl, fd, sidewire_uapi::ioctl::SIOCATMARK, &raw mut flag);
        if r < 0 { r } else { flag }
    };

    // Readiness.
    fn poll(fds: *mut pollfd, n: nfds_t, timeout: c_int) -> c_int = {
        let mut ts = timespec { tv_sec: (timeout / 1000).into(), tv_nsec: c_long::from(timeout % 1000) * 1_000_000 };
        let at = if timeout < 0 { null_mut() } else { &raw mut ts };
        kernel!(ppoll, fds, n, at, 0, 8)
    };
    fn ppoll(fds: *mut pollfd, n: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int = {
        // SAFETY: the caller passes null or a valid timespec; the kernel writes to its copy.
        let mut ts = unsafe { timeout.as_ref().copied() };
        let at = ts.as_mut().map_or(null_mut(), |t| &raw mut *t);
        kernel!(ppoll, fds, n, at, mask, 8)
    };
    fn select(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *mut timeval) -> c_int = {
        // SAFETY: the caller passes null or a valid timeval.
        match unsafe { timeout.as_mut() } {
            None => kernel!(pselect6, n, r, w, e, 0, 0),
            Some(tv) => {
                let mut ts = timespec { tv_sec: tv.tv_sec, tv_nsec: tv.tv_usec * 1000 };
                let got = kernel!(pselect6, n, r, w, e, &raw mut ts, 0);
                *tv = timeval { tv_sec: ts.tv_sec, tv_usec: ts.tv_nsec / 1000 };
                got
            }
        }
    };
    fn pselect(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int = {
        // SAFETY: the caller passes null or a valid timespec; the kernel writes to its copy.
        let mut ts = unsafe { timeout.as_ref().copied() };
        let at = ts.as_mut().map_or(null_mut(), |t| &raw mut *t);
        let data = [mask as usize, 8];
        kernel!(pselect6, n, r, w, e, at, data.as_ptr())
    };
    #[safe] fn epoll_create(size: c_int) -> c_int
        = if size <= 0 { kernel!(epoll_create1, c_int::MAX) } else { kernel!(epoll_create1, 0) };
    #[safe] fn epoll_create1(flags: c_int) -> c_int = kernel!(epoll_create1, flags);
    fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int
        = kernel!(epoll_ctl, epfd, op, fd, event);
    fn epoll_wait(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int
        = kernel!(epoll_pwait, epfd, events, max, timeout, 0, 8);
    fn epoll_pwait(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int, mask: *const sigset_t) -> c_int
        = kernel!(epoll_pwait, epfd, events, max, timeout, mask, 8);
    fn epoll_pwait2(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int
        = kernel!(epoll_pwait2, epfd, events, max, timeout, mask, 8);

    // The end of a descriptor.
    #[safe] fn close(fd: c_int) -> c_int = kernel!(close, fd);
    #[safe] fn closefrom(first: c_int) -> () = { let _: isize = kernel!(close_range, first, c_uint::MAX, 0); };
    #[safe] fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int = kernel!(close_range, first, last, flags);
    #[safe] fn dup(fd: c_int) -> c_int = kernel!(dup, fd);
    #[safe] fn dup2(fd: c_int, new: c_int) -> c_int = if fd == new {
        let flags: c_int = kernel!(fcntl, fd, libc::F_GETFD, 0);
        if flags < 0 { -1 } else { new }
    } else {
        let got: c_int = kernel!(dup3, fd, new, 0);
        got
    };
    #[safe] fn dup3(fd: c_int, new: c_int, flags: c_int) -> c_int = kernel!(dup3, fd, new, flags);
    fn fclose(stream: *mut FILE) -> c_int;
    fn fcloseall() -> c_int;
    fn fileno(stream: *mut FILE) -> c_int;
    fn fileno_unlocked(stream: *mut FILE) -> c_int;
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE;
    fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE;
    fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE;
    fn vdprintf(fd: c_int, format: *const c_char, args: *mut c_void) -> c_int;
    fn __vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, args: *mut c_void) -> c_int;
    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE;
    fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE;

    // The birth of a descriptor.
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = kernel!(openat, libc::AT_FDCWD, path, flags, mode);
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = kernel!(openat, libc::AT_FDCWD, path, flags, mode);
    fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = kernel!(openat, dir, path, flags, mode);
    fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int
        = kernel!(openat, dir, path, flags, mode);
    fn __open_2(path: *const c_char, flags: c_int) -> c_int
        = kernel!(openat, libc::AT_FDCWD, path, flags, 0);
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int
        = kernel!(openat, libc::AT_FDCWD, path, flags, 0);
    fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int
        = kernel!(openat, dir, path, flags, 0);
    fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int
        = kernel!(openat, dir, path, flags, 0);
    fn creat(path: *const c_char, mode: mode_t) -> c_int
        = kernel!(openat, libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode);
    fn creat64(path: *const c_char, mode: mode_t) -> c_int
        = kernel!(openat, libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode);
    fn pipe(fds: *mut c_int) -> c_int = kernel!(pipe2, fds, 0);
    fn pipe2(fds: *mut c_int, flags: c_int) -> c_int = kernel!(pipe2, fds, flags);
    #[safe] fn eventfd(initial: c_uint, flags: c_int) -> c_int = kernel!(eventfd2, initial, flags);
    fn signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int
        = kernel!(signalfd4, fd, mask, 8, flags);
    #[safe] fn timerfd_create(clock: c_int, flags: c_int) -> c_int = kernel!(timerfd_create, clock, flags);
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int = kernel!(memfd_create, name, flags);
    #[safe] fn inotify_init() -> c_int = kernel!(inotify_init1, 0);
    #[safe] fn inotify_init1(flags: c_int) -> c_int = kernel!(inotify_init1, flags);

    // Processes.
    fn fork() -> pid_t;
    fn _Fork() -> pid_t = kernel!(clone, libc::SIGCHLD, 0, 0, 0, 0);
    fn daemon(nochdir: c_int, noclose: c_int) -> c_int;
    fn clone(f: Option<CloneFn>, stack: *mut c_void, flags: c_int, arg: *mut c_void, a: usize, b: usize, c: usize) -> c_int;
    fn posix_spawn(pid: *mut pid_t, path: *const c_char, actions: *const posix_spawn_file_actions_t,
        attr: *const posix_spawnattr_t, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int;
    fn posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t,
        attr: *const posix_spawnattr_t, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int;
    fn system(command: *const c_char) -> c_int;
    fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE;
    #[safe] fn unshare(flags: c_int) -> c_int = kernel!(unshare, flags);
    #[safe] fn pidfd_getfd(pidfd: c_int, fd: c_int, flags: c_uint) -> c_int = kernel!(pidfd_getfd, pidfd, fd, flags);
    fn posix_spawn_file_actions_adddup2(actions: *mut posix_spawn_file_actions_t, fd: c_int, new: c_int) -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int
        = kernel!(execve, path, argv, envp);
    fn execv(path: *const c_char, argv: *const *const c_char) -> c_int;
    fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int;
    fn execvpe(file: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
    fn fexecve(fd: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
    fn execveat(dir: c_int, path: *const c_char, argv: *const *const c_char, envp: *const *const c_char, flags: c_int) -> c_int
        = kernel!(execveat, dir, path, argv, envp, flags);
    fn exit(status: c_int) -> ();
    fn _exit(status: c_int) -> () = { let _: isize = kernel!(exit_group, status); };
    fn quick_exit(status: c_int) -> ();

    // System calls by number.
    fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long
        = match Sysno::new(number as usize) {
            // SAFETY: same arguments as the caller's.
            Some(nr) => unsafe { raw::libc_call(nr, [a, b, c, d, e, f]) as c_long },
            None => missing() as c_long,
        };

    // Signals.
    fn sigaction(signum: c_int, act: *const sigaction_t, old: *mut sigaction_t) -> c_int;
    fn signal(signum: c_int, handler: sighandler_t) -> sighandler_t;
    fn sysv_signal(signum: c_int, handler: sighandler_t) -> sighandler_t;
    fn sigset(signum: c_int, handler: sighandler_t) -> sighandler_t;
    fn siginterrupt(signum: c_int, flag: c_int) -> c_int;
    fn raise(signum: c_int) -> c_int;
    fn pthread_cancel(thread: libc::pthread_t) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_before_and_after_resolving() {
        let mut fds = [-1; 2];
        for round in 0..2 {
            if round == 1 {
                resolve();
                assert!(!TABLE.send.load(Ordering::Relaxed).is_null());
            }
            // SAFETY: plain calls on descriptors made here, with buffers of the stated size.
            unsafe {
                assert_eq!(
                    socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()),
                    0
                );
                assert_eq!(send(fds[0], c"hello".as_ptr().cast(), 5, 0), 5);
                let mut pfd = pollfd {
                    fd: fds[1],
                    events: libc::POLLIN,
                    revents: 0,
                };
                assert_eq!(poll(&raw mut pfd, 1, 1000), 1);
                let mut buf = [0u8; 8];
                assert_eq!(read(fds[1], buf.as_mut_ptr().cast(), 8), 5);
                assert_eq!(poll(&raw mut pfd, 1, 0), 0);
            }
            assert_eq!(close(fds[0]), 0);
            assert_eq!(close(fds[1]), 0);
            // Not one of these again: by now the number may be another test's.
            assert_eq!(close(-1), -1);
            assert_eq!(raw::errno(), libc::EBADF);
        }
    }
}
