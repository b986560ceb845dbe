//! The system calls that this crate makes for itself, typed. They never go through libc's symbols, which are hooked.

use core::ffi::{CStr, c_int, c_void};
use core::ptr;
use core::sync::atomic::AtomicU32;

use syscalls::{Sysno, syscall};

use sidewire_link::fd::{Fd, move_high};
use std::os::fd::AsRawFd;

pub use syscalls::Errno;

/// Size of the kernel's signal set, in bytes.
const SIGSET_BYTES: usize = 8;

/// Sleeps while `*word == expected`, at most until `deadline_ns` of CLOCK_MONOTONIC (`u64::MAX`: no limit).
///
/// # Errors
/// EAGAIN: the word had another value; EINTR: a signal; ETIMEDOUT.
pub fn futex_wait(word: &AtomicU32, expected: u32, deadline_ns: u64) -> Result<(), Errno> {
    let ts = timespec(deadline_ns);
    let ts_ptr = if deadline_ns == u64::MAX {
        ptr::null()
    } else {
        &raw const ts
    };
    // SAFETY: the word outlives the call; FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time.
    unsafe {
        syscall!(
            Sysno::futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
            expected,
            ts_ptr,
            0,
            u32::MAX
        )
    }
    .map(drop)
}

/// Wakes all threads that sleep on `word`.
pub fn futex_wake_all(word: &AtomicU32) {
    wake(word, i32::MAX);
}

/// Wakes one thread that sleeps on `word`.
pub fn futex_wake(word: *const AtomicU32) {
    wake(word, 1);
}

fn wake(word: *const AtomicU32, threads: i32) {
    // SAFETY: FUTEX_WAKE only hashes the address; it does not read through it.
    let _ = unsafe {
        syscall!(
            Sysno::futex,
            word,
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            threads
        )
    };
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}

/// `ppoll` for at most `timeout_ns` (`u64::MAX`: no limit), with the caller's signal mask or the given one.
///
/// # Errors
/// EINTR and what else the kernel says.
pub fn ppoll(
    fds: &mut [libc::pollfd],
    timeout_ns: u64,
    sigmask: Option<u64>,
) -> Result<usize, Errno> {
    let mut ts = timespec(timeout_ns);
    let ts_ptr = if timeout_ns == u64::MAX {
        ptr::null_mut()
    } else {
        &raw mut ts
    };
    let mask_ptr = sigmask.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: live slice, timespec and mask.
    unsafe {
        syscall!(
            Sysno::ppoll,
            fds.as_mut_ptr(),
            fds.len(),
            ts_ptr,
            mask_ptr,
            SIGSET_BYTES
        )
    }
}

/// A close-on-exec, non-blocking eventfd.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn eventfd() -> Result<c_int, Errno> {
    // SAFETY: no pointers.
    unsafe { syscall!(Sysno::eventfd2, 0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }
        .map(|fd| fd as c_int)
}

/// Adds one to an eventfd. Async-signal-safe.
pub fn eventfd_signal(fd: c_int) {
    let one = 1u64;
    // SAFETY: reads eight bytes of a live local.
    let _ = unsafe { syscall!(Sysno::write, fd, &raw const one, 8) };
}

/// Takes what an eventfd holds.
pub fn eventfd_drain(fd: c_int) {
    let mut n = 0u64;
    // SAFETY: writes eight bytes to a live local.
    let _ = unsafe { syscall!(Sysno::read, fd, &raw mut n, 8) };
}

/// Lets the calling thread's timeouts be so many nanoseconds late.
pub fn timer_slack(ns: u64) {
    // The arguments that it does not have are given all the same: valgrind looks at what is in their registers.
    // SAFETY: no pointers.
    let _ = unsafe { syscall!(Sysno::prctl, libc::PR_SET_TIMERSLACK, ns, 0, 0, 0) };
}

/// Lets all others go before the calling thread.
pub(crate) fn step_back() {
    const LOWEST: i32 = 19;
    // SAFETY: no pointers. It is allowed to everybody.
    let _ = unsafe { syscall!(Sysno::setpriority, libc::PRIO_PROCESS, 0, LOWEST) };
}

/// Waits for events for at most `timeout_ns` (`u64::MAX`: no limit), with the caller's signal mask or the given one; how many
/// there are.
///
/// # Errors
/// As epoll_pwait2(2), and with a limit other than 0 ENOSYS before Linux 5.11.
pub fn epoll_wait(
    epfd: c_int,
    events: &mut [libc::epoll_event],
    timeout_ns: u64,
    sigmask: Option<u64>,
) -> Result<usize, Errno> {
    let mask = sigmask.as_ref().map_or(ptr::null(), ptr::from_ref);
    let (at, room) = (events.as_mut_ptr(), events.len());
    if let 0 | u64::MAX = timeout_ns {
        let ms = if timeout_ns == 0 { 0 } else { usize::MAX };
        // SAFETY: the kernel writes within the live slice and reads a live mask.
        return unsafe { syscall!(Sysno::epoll_pwait, epfd, at, room, ms, mask, SIGSET_BYTES) };
    }
    let ts = timespec(timeout_ns);
    // SAFETY: as above, and a live timespec.
    unsafe {
        syscall!(
            Sysno::epoll_pwait2,
            epfd,
            at,
            room,
            &raw const ts,
            mask,
            SIGSET_BYTES
        )
    }
}

/// `close`.
///
/// # Errors
/// What the kernel says; the number is free in any case.
pub fn close(fd: c_int) -> Result<(), Errno> {
    // SAFETY: no memory is touched.
    unsafe { syscall!(Sysno::close, fd) }.map(drop)
}

/// `socket`.
///
/// # Errors
/// As the system call.
pub fn socket(domain: c_int, ty: c_int, protocol: c_int) -> Result<c_int, Errno> {
    // SAFETY: no pointers.
    unsafe { syscall!(Sysno::socket, domain, ty, protocol) }.map(|fd| fd as c_int)
}

/// `bind`. `addr` is only read by the kernel, which checks it; any pointer will do.
///
/// # Errors
/// As the system call.
pub fn bind(fd: c_int, addr: *const c_void, len: u32) -> Result<(), Errno> {
    // SAFETY: the kernel checks the pointer.
    unsafe { syscall!(Sysno::bind, fd, addr, len) }.map(drop)
}

/// `listen`.
///
/// # Errors
/// As the system call.
pub fn listen(fd: c_int, backlog: c_int) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { syscall!(Sysno::listen, fd, backlog) }.map(drop)
}

/// `accept4` without a name.
///
/// # Errors
/// As the system call.
pub fn accept4(fd: c_int, flags: c_int) -> Result<c_int, Errno> {
    // SAFETY: null pointers are allowed.
    unsafe { syscall!(Sysno::accept4, fd, 0, 0, flags) }.map(|fd| fd as c_int)
}

/// Who is at the other end of an AF_UNIX connection.
///
/// # Errors
/// As getsockopt(2).
pub(crate) fn peer_credentials(fd: c_int) -> Result<libc::ucred, Errno> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of_val(&credentials) as u32;
    // SAFETY: the kernel writes a live structure of that length.
    unsafe {
        syscall!(
            Sysno::getsockopt,
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            &raw mut credentials,
            &raw mut len
        )
    }?;
    Ok(credentials)
}

/// Passes `descriptor` over an AF_UNIX connection, with one byte. Never sleeps.
///
/// # Errors
/// As sendmsg(2).
pub(crate) fn send_descriptor(fd: c_int, descriptor: c_int) -> Result<(), Errno> {
    let mut byte = 0u8;
    let mut iov = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = [0u64; 4];
    // SAFETY: made of integers and pointers; all zero is valid. The buffer has room for one descriptor.
    unsafe {
        let mut msg: libc::msghdr = core::mem::zeroed();
        msg.msg_iov = &raw mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = libc::CMSG_SPACE(size_of::<c_int>() as u32) as usize;
        let c = libc::CMSG_FIRSTHDR(&raw const msg);
        (*c).cmsg_level = libc::SOL_SOCKET;
        (*c).cmsg_type = libc::SCM_RIGHTS;
        (*c).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as usize;
        libc::CMSG_DATA(c)
            .cast::<c_int>()
            .write_unaligned(descriptor);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        syscall!(Sysno::sendmsg, fd, &raw const msg, flags)
    }
    .map(drop)
}

/// `fcntl` with an integer argument.
///
/// # Errors
/// As the system call.
pub fn fcntl(fd: c_int, cmd: c_int, arg: usize) -> Result<c_int, Errno> {
    // SAFETY: used for commands whose argument is a number.
    unsafe { syscall!(Sysno::fcntl, fd, cmd, arg) }.map(|n| n as c_int)
}

/// Linux `access_ok`: could so many bytes be the program's, mapped or not?
#[must_use]
pub fn access_ok(start: *const u8, len: usize) -> bool {
    /// Below this end every address space has them (x86-64 with four levels of page tables; others have more).
    const SURELY: usize = (1 << 47) - PAGE;
    const PAGE: usize = 4096;
    let start = start as usize;
    let in_page = start % PAGE;
    match start.checked_add(len) {
        None => false,
        Some(end) if end <= SURELY => true,
        // mincore(2) looks at the range before it looks at where its answer goes.
        Some(_) => {
            // SAFETY: nothing can be written to the last address.
            let got =
                unsafe { syscall!(Sysno::mincore, start - in_page, len + in_page, usize::MAX) };
            got != Err(Errno::ENOMEM)
        }
    }
}

/// `setsockopt` with a plain value.
///
/// # Errors
/// As the system call.
pub fn setsockopt<T: Copy>(fd: c_int, level: c_int, name: c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: the kernel reads size_of::<T>() bytes of a live reference.
    unsafe {
        syscall!(
            Sysno::setsockopt,
            fd,
            level,
            name,
            ptr::from_ref(value),
            size_of::<T>()
        )
    }
    .map(drop)
}

/// `setsockopt` with a value as a program gave it.
///
/// # Errors
/// As the system call.
pub fn setsockopt_bytes(fd: c_int, level: c_int, name: c_int, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many bytes as the slice has.
    unsafe {
        syscall!(
            Sysno::setsockopt,
            fd,
            level,
            name,
            value.as_ptr(),
            value.len()
        )
    }
    .map(drop)
}

/// `getsockopt` of an integer.
///
/// # Errors
/// As the system call.
pub fn getsockopt_int(fd: c_int, level: c_int, name: c_int) -> Result<c_int, Errno> {
    getsockopt_value::<c_int>(fd, level, name)
}

/// `getsockopt` of a 64-bit number.
///
/// # Errors
/// As the system call.
pub fn getsockopt_u64(fd: c_int, level: c_int, name: c_int) -> Result<u64, Errno> {
    getsockopt_value::<u64>(fd, level, name)
}

fn getsockopt_value<T: Copy + Default>(fd: c_int, level: c_int, name: c_int) -> Result<T, Errno> {
    let mut value = T::default();
    let mut len = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `len` bytes to an integer.
    unsafe {
        syscall!(
            Sysno::getsockopt,
            fd,
            level,
            name,
            &raw mut value,
            &raw mut len
        )
    }?;
    Ok(value)
}

/// The local name of a socket.
///
/// # Errors
/// As the system call.
pub fn getsockname(fd: c_int) -> Result<libc::sockaddr_storage, Errno> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut ss: libc::sockaddr_storage = unsafe { core::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as u32;
    // SAFETY: the kernel writes at most `len` bytes.
    unsafe { syscall!(Sysno::getsockname, fd, &raw mut ss, &raw mut len) }?;
    Ok(ss)
}

/// The device that a socket is bound to.
pub fn bound_device(fd: c_int) -> Option<String> {
    let mut name = [0u8; libc::IFNAMSIZ];
    let mut len = name.len() as u32;
    // SAFETY: the kernel writes at most `len` bytes.
    unsafe {
        syscall!(
            Sysno::getsockopt,
            fd,
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_mut_ptr(),
            &raw mut len
        )
    }
    .ok()?;
    let name = CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Runs `f` while `fd` has SO_REUSEADDR, as a bind next to it needs.
///
/// # Errors
/// Those of `f`.
pub fn lend_reuse<T>(fd: c_int, f: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let before = getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap_or(0);
    let _ = setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32);
    let r = f();
    let _ = setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &before);
    r
}

/// A listening socket for IPv6 clients alone, on every address, at a high number.
///
/// # Errors
/// EADDRINUSE, EMFILE, ENFILE.
pub fn v6_listener(port: u16, backlog: c_int) -> Result<Fd, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = Fd::from_raw(socket(libc::AF_INET6, kind, libc::IPPROTO_TCP)?);
    let raw = fd.as_raw_fd();
    setsockopt(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)?;
    setsockopt(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32)?;
    // SAFETY: a structure of integers; all zero is valid.
    let mut any: libc::sockaddr_in6 = unsafe { core::mem::zeroed() };
    any.sin6_family = libc::AF_INET6 as u16;
    any.sin6_port = port.to_be();
    bind(
        raw,
        (&raw const any).cast(),
        size_of::<libc::sockaddr_in6>() as u32,
    )?;
    listen(raw, backlog)?;
    move_high(fd)
}

/// This process.
pub fn getpid() -> i32 {
    // SAFETY: no arguments.
    unsafe { syscall!(Sysno::getpid) }.unwrap_or(0) as i32
}

/// This thread.
pub fn gettid() -> i32 {
    // SAFETY: no arguments.
    unsafe { syscall!(Sysno::gettid) }.unwrap_or(0) as i32
}

/// A descriptor that is readable once the thread has ended (Linux 6.9).
///
/// # Errors
/// ESRCH for a thread that is gone, EINVAL on older kernels, EMFILE.
pub(crate) fn pidfd_open_thread(tid: i32) -> Result<i32, Errno> {
    const PIDFD_THREAD: c_int = libc::O_EXCL;
    // SAFETY: numbers.
    unsafe { syscall!(Sysno::pidfd_open, tid, PIDFD_THREAD) }.map(|fd| fd as i32)
}

/// RLIMIT_MEMLOCK in bytes, `u64::MAX` for none.
pub(crate) fn memlock_limit() -> u64 {
    soft_limit(libc::RLIMIT_MEMLOCK)
}

/// RLIMIT_DATA in bytes, `u64::MAX` for none.
pub(crate) fn data_limit() -> u64 {
    soft_limit(libc::RLIMIT_DATA)
}

/// RLIMIT_NOFILE, `u64::MAX` for none.
pub(crate) fn nofile_limit() -> u64 {
    soft_limit(libc::RLIMIT_NOFILE)
}

fn soft_limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: writes to a live local.
    let _ = unsafe { syscall!(Sysno::getrlimit, resource, &raw mut limit) };
    limit.rlim_cur
}

/// Sends a signal to a thread of this process.
pub fn tgkill(tid: i32, signal: c_int) {
    // SAFETY: no pointers.
    let _ = unsafe { syscall!(Sysno::tgkill, getpid(), tid, signal) };
}

/// SIGPIPE for the calling thread, with the face that the kernel's has: as by kill(2), of this process.
pub fn raise_sigpipe() {
    // SAFETY: no arguments.
    let (pid, uid) = (getpid(), unsafe { libc::getuid() });
    let mut info = [0u32; 32];
    info[0] = libc::SIGPIPE as u32;
    info[4] = pid as u32;
    info[5] = uid;
    let info = info.as_ptr();
    // SAFETY: a live siginfo; a thread may say of itself what it likes.
    let told = unsafe { syscall!(Sysno::rt_tgsigqueueinfo, pid, gettid(), libc::SIGPIPE, info) };
    if told.is_err() {
        tgkill(gettid(), libc::SIGPIPE);
    }
}

/// True while a thread of this process has that id.
pub fn thread_exists(tid: i32) -> bool {
    // SAFETY: no pointers; signal 0 only asks.
    unsafe { syscall!(Sysno::tgkill, getpid(), tid, 0) }.is_ok()
}

/// Number of CPUs that the process's first thread may run on; at least 1.
pub fn allowed_cpus() -> u32 {
    let mut set = [0u64; 16];
    // SAFETY: the kernel writes at most 128 bytes.
    let n = unsafe {
        syscall!(
            Sysno::sched_getaffinity,
            getpid(),
            size_of_val(&set),
            set.as_mut_ptr()
        )
    };
    match n {
        Ok(_) => set.iter().map(|w| w.count_ones()).sum::<u32>().max(1),
        Err(_) => 1,
    }
}

/// Fills `buf` with random bytes.
pub fn getrandom(buf: &mut [u8]) {
    let mut done = 0;
    while done < buf.len() {
        // SAFETY: the kernel writes to the live rest of the slice.
        match unsafe {
            syscall!(
                Sysno::getrandom,
                buf[done..].as_mut_ptr(),
                buf.len() - done,
                0
            )
        } {
            Ok(n) => done += n,
            Err(Errno::EINTR) => {}
            Err(e) => panic!("getrandom: {e}"),
        }
    }
}

/// Reads the beginning of an open file into `buf`, in one go; the part that was filled.
///
/// # Errors
/// As pread.
pub fn read_beginning(fd: c_int, buf: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: the kernel writes to a live slice.
    let len = unsafe { syscall!(Sysno::pread64, fd, buf.as_mut_ptr(), buf.len(), 0) }?;
    Ok(&buf[..len])
}

/// Reads a small file into `buf`; the part that was filled.
///
/// # Errors
/// As open and read.
pub fn read_file<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    // SAFETY: the kernel reads a NUL-terminated string.
    let fd = unsafe {
        syscall!(
            Sysno::openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
            0
        )
    }? as c_int;
    let mut len = 0;
    let result = loop {
        if len == buf.len() {
            break Ok(());
        }
        // SAFETY: the kernel writes to the live rest of the slice.
        match unsafe { syscall!(Sysno::read, fd, buf[len..].as_mut_ptr(), buf.len() - len) } {
            Ok(0) => break Ok(()),
            Ok(n) => len += n,
            Err(Errno::EINTR) => {}
            Err(e) => break Err(e),
        }
    };
    let _ = close(fd);
    result.map(|()| &buf[..len])
}

/// Anonymous private memory of `len` bytes, zeroed.
///
/// # Errors
/// ENOMEM.
pub fn map_anonymous(len: usize) -> Result<*mut u8, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
    unsafe {
        syscall!(
            Sysno::mmap,
            0,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1isize,
            0
        )
    }
    .map(|at| at as *mut u8)
}

/// Gives advice on mapped memory; a refusal changes nothing.
pub fn madvise(at: *mut u8, len: usize, advice: c_int) -> Result<(), Errno> {
    // SAFETY: used with advice that keeps the contents.
    unsafe { syscall!(Sysno::madvise, at, len, advice) }.map(drop)
}

/// Copies between memory of this process whose addresses the kernel checks; the number of bytes done.
/// `to_program` says which side is the program's.
///
/// # Errors
/// EFAULT when not even one byte can be copied.
pub fn checked_copy(
    program: *const u8,
    own: *const u8,
    len: usize,
    to_program: bool,
) -> Result<usize, Errno> {
    let local = libc::iovec {
        iov_base: own as *mut c_void,
        iov_len: len,
    };
    let remote = libc::iovec {
        iov_base: program as *mut c_void,
        iov_len: len,
    };
    let nr = if to_program {
        Sysno::process_vm_writev
    } else {
        Sysno::process_vm_readv
    };
    // SAFETY: the kernel checks both ranges.
    unsafe { syscall!(nr, getpid(), &raw const local, 1, &raw const remote, 1, 0) }
}
