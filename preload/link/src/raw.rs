//! System calls made directly, never through libc: libsidewire.so interposes libc's symbols, and our own calls must
//! not come back through its hooks.

use crate::Errno;
use crate::fd::Fd;
use std::fmt::Write;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::os::fd::RawFd;
use syscalls::{Sysno, syscall};

pub(crate) fn close(fd: RawFd) {
    // SAFETY: close touches no memory; the caller owns the descriptor.
    // An error leaves nothing to do: Linux frees the number in every case.
    let _ = unsafe { syscall!(Sysno::close, fd) };
}

/// A close-on-exec io_uring, at whatever number the kernel gives.
pub(crate) fn io_uring_setup(entries: u32, params: &mut io_uring::Parameters) -> Result<Fd, Errno> {
    // SAFETY: the kernel reads and writes the live structure.
    let fd = unsafe { syscall!(Sysno::io_uring_setup, entries, std::ptr::from_mut(params)) }?;
    Ok(Fd::from_raw(fd as RawFd))
}

/// Submits so many requests and waits for so many to complete; how many were submitted.
pub(crate) fn io_uring_enter(fd: RawFd, submit: u32, complete: u32) -> Result<usize, Errno> {
    const IORING_ENTER_GETEVENTS: u32 = 1;
    // SAFETY: no pointers; who queued the requests answers for what they name.
    unsafe {
        syscall!(
            Sysno::io_uring_enter,
            fd,
            submit,
            complete,
            IORING_ENTER_GETEVENTS,
            0,
            0
        )
    }
}

/// Makes an empty table of so many registered files (Linux 5.19).
pub(crate) fn io_uring_register_sparse(ring: RawFd, files: u32) -> Result<(), Errno> {
    const IORING_REGISTER_FILES2: u32 = 13;
    const IORING_RSRC_REGISTER_SPARSE: u32 = 1;
    /// Linux `struct io_uring_rsrc_register`.
    #[repr(C)]
    struct Register {
        nr: u32,
        flags: u32,
        resv2: u64,
        data: u64,
        tags: u64,
    }
    let register = Register {
        nr: files,
        flags: IORING_RSRC_REGISTER_SPARSE,
        resv2: 0,
        data: 0,
        tags: 0,
    };
    let len = size_of::<Register>();
    // SAFETY: the kernel reads the live structure.
    unsafe {
        syscall!(
            Sysno::io_uring_register,
            ring,
            IORING_REGISTER_FILES2,
            &raw const register,
            len
        )
    }?;
    Ok(())
}

/// Puts a descriptor's file at a place of that table.
pub(crate) fn io_uring_register_file(ring: RawFd, slot: u32, fd: RawFd) -> Result<(), Errno> {
    const IORING_REGISTER_FILES_UPDATE: u32 = 6;
    /// Linux `struct io_uring_rsrc_update`.
    #[repr(C)]
    struct Update {
        offset: u32,
        resv: u32,
        data: u64,
    }
    let fds = [fd];
    let update = Update {
        offset: slot,
        resv: 0,
        data: fds.as_ptr() as u64,
    };
    // SAFETY: the kernel reads the live structure and the one number that it names.
    unsafe {
        syscall!(
            Sysno::io_uring_register,
            ring,
            IORING_REGISTER_FILES_UPDATE,
            &raw const update,
            1
        )
    }?;
    Ok(())
}

/// A close-on-exec socket, at whatever number the kernel gives.
pub(crate) fn socket(domain: i32, ty: i32, protocol: i32) -> Result<Fd, Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(Sysno::socket, domain, ty | libc::SOCK_CLOEXEC, protocol) }?;
    Ok(Fd::from_raw(fd as RawFd))
}

pub(crate) fn socketpair(domain: i32, ty: i32) -> Result<(Fd, Fd), Errno> {
    let mut fds = [0 as RawFd; 2];
    // SAFETY: the kernel writes two descriptors to `fds`.
    unsafe {
        syscall!(
            Sysno::socketpair,
            domain,
            ty | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr()
        )
    }?;
    Ok((Fd::from_raw(fds[0]), Fd::from_raw(fds[1])))
}

pub(crate) fn dup_cloexec(fd: RawFd, min: RawFd) -> Result<Fd, Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(Sysno::fcntl, fd, libc::F_DUPFD_CLOEXEC, min) }?;
    Ok(Fd::from_raw(fd as RawFd))
}

/// Lets the number `to` mean the file of `from`, close-on-exec.
pub(crate) fn dup3(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { syscall!(Sysno::dup3, from, to, libc::O_CLOEXEC) }?;
    Ok(())
}

/// A close-on-exec epoll instance, at whatever number the kernel gives.
pub(crate) fn epoll_create() -> Result<Fd, Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(Sysno::epoll_create1, libc::EPOLL_CLOEXEC) }?;
    Ok(Fd::from_raw(fd as RawFd))
}

/// `epoll_ctl`.
pub(crate) fn epoll_ctl(
    epfd: RawFd,
    op: i32,
    fd: RawFd,
    mut event: libc::epoll_event,
) -> Result<(), Errno> {
    // SAFETY: the kernel reads a live structure.
    unsafe { syscall!(Sysno::epoll_ctl, epfd, op, fd, &raw mut event) }?;
    Ok(())
}

/// Opens a file anew through /proc: the descriptor has a file description of its own.
pub(crate) fn reopen(fd: RawFd) -> Result<Fd, Errno> {
    let mut path = arrayvec::ArrayString::<32>::new();
    write!(path, "/proc/self/fd/{fd}\0").map_err(|_| Errno::EBADF)?;
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: a live string that ends with a zero.
    let fd = unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) }?;
    Ok(Fd::from_raw(fd as RawFd))
}

/// The number of a file's inode.
pub(crate) fn inode(fd: RawFd) -> Result<u64, Errno> {
    Ok(statx(fd, libc::STATX_INO)?.stx_ino)
}

/// Whose a file is.
pub(crate) fn owner(fd: RawFd) -> Result<u32, Errno> {
    Ok(statx(fd, libc::STATX_UID)?.stx_uid)
}

/// Gives a file to another user.
///
/// # Errors
/// EPERM without CAP_CHOWN.
pub(crate) fn set_owner(fd: RawFd, uid: u32) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { syscall!(Sysno::fchown, fd, uid, libc::gid_t::MAX) }?;
    Ok(())
}

fn statx(fd: RawFd, mask: u32) -> Result<libc::statx, Errno> {
    let mut stat = MaybeUninit::<libc::statx>::uninit();
    // SAFETY: the kernel fills the structure on success, and it is read only then.
    unsafe {
        syscall!(
            Sysno::statx,
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            mask,
            stat.as_mut_ptr()
        )?;
        Ok(stat.assume_init())
    }
}

/// Locks one byte of a file for its file description (F_OFD_SETLK), as long as one of its descriptors is open.
///
/// # Errors
/// EAGAIN when it is locked by another.
pub(crate) fn lock_byte(fd: RawFd, at: i64) -> Result<(), Errno> {
    set_lock(fd, at, libc::F_WRLCK, libc::F_OFD_SETLK)
}

/// The same, and waits for another to unlock it.
///
/// # Errors
/// EINTR.
pub(crate) fn wait_for_byte(fd: RawFd, at: i64) -> Result<(), Errno> {
    set_lock(fd, at, libc::F_WRLCK, libc::F_OFD_SETLKW)
}

pub(crate) fn unlock_byte(fd: RawFd, at: i64) -> Result<(), Errno> {
    set_lock(fd, at, libc::F_UNLCK, libc::F_OFD_SETLK)
}

fn set_lock(fd: RawFd, at: i64, kind: i32, cmd: i32) -> Result<(), Errno> {
    let lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: a live structure.
    unsafe { syscall!(Sysno::fcntl, fd, cmd, &raw const lock) }.map(drop)
}

pub(crate) fn set_cloexec(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { syscall!(Sysno::fcntl, fd, libc::F_SETFD, libc::FD_CLOEXEC) }.map(drop)
}

/// The soft RLIMIT_NOFILE; 1024 if it cannot be read.
pub(crate) fn nofile_limit() -> u64 {
    let mut limit = MaybeUninit::<libc::rlimit64>::uninit();
    // SAFETY: the kernel fills the structure on success, and it is read only then.
    unsafe {
        match syscall!(
            Sysno::prlimit64,
            0,
            libc::RLIMIT_NOFILE,
            0,
            limit.as_mut_ptr()
        ) {
            Ok(_) => limit.assume_init().rlim_cur,
            Err(_) => 1024,
        }
    }
}

/// Sets an option whose value is the plain structure `T`.
pub(crate) fn setsockopt<T>(fd: RawFd, level: i32, name: i32, value: &T) -> Result<(), Errno> {
    // SAFETY: the kernel reads exactly size_of::<T>() bytes of a live reference.
    unsafe {
        syscall!(
            Sysno::setsockopt,
            fd,
            level,
            name,
            value as *const T,
            size_of::<T>()
        )
    }
    .map(drop)
}

/// Sets an option whose value is raw bytes.
pub(crate) fn setsockopt_bytes(
    fd: RawFd,
    level: i32,
    name: i32,
    value: &[u8],
) -> Result<(), Errno> {
    // SAFETY: the kernel reads `value.len()` bytes of a live slice.
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

/// Reads an option whose value is the plain structure `T`, starting from `value` (some options take input).
pub(crate) fn getsockopt<T: Copy>(
    fd: RawFd,
    level: i32,
    name: i32,
    mut value: T,
) -> Result<T, Errno> {
    let mut len = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `len` bytes to `value`, whose T has no invalid bit patterns at the call sites
    // (integers and structures of integers).
    unsafe {
        syscall!(
            Sysno::getsockopt,
            fd,
            level,
            name,
            &mut value as *mut T,
            &mut len as *mut u32
        )
    }?;
    Ok(value)
}

pub(crate) fn bind<T>(fd: RawFd, addr: &T) -> Result<(), Errno> {
    // SAFETY: the kernel reads size_of::<T>() bytes of a live reference.
    unsafe { syscall!(Sysno::bind, fd, addr as *const T, size_of::<T>()) }.map(drop)
}

pub(crate) fn connect<T>(fd: RawFd, addr: &T) -> Result<(), Errno> {
    // SAFETY: the kernel reads size_of::<T>() bytes of a live reference.
    unsafe { syscall!(Sysno::connect, fd, addr as *const T, size_of::<T>()) }.map(drop)
}

pub(crate) fn listen(fd: RawFd, backlog: i32) -> Result<(), Errno> {
    // SAFETY: no pointers.
    unsafe { syscall!(Sysno::listen, fd, backlog) }.map(drop)
}

/// The local name, as `T` (a sockaddr_in, sockaddr_in6 or sockaddr_nl).
pub(crate) fn getsockname<T: Copy>(fd: RawFd, mut name: T) -> Result<T, Errno> {
    let mut len = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `len` bytes to `name`, a structure of integers.
    unsafe {
        syscall!(
            Sysno::getsockname,
            fd,
            &mut name as *mut T,
            &mut len as *mut u32
        )
    }?;
    Ok(name)
}

/// # Safety
/// Control and name pointers of `msg` must be valid for reading. The iovecs need not be: the kernel checks them
/// (EFAULT).
pub(crate) unsafe fn sendmsg(fd: RawFd, msg: &libc::msghdr, flags: i32) -> Result<usize, Errno> {
    // SAFETY: by the caller.
    unsafe { syscall!(Sysno::sendmsg, fd, msg as *const libc::msghdr, flags) }
}

/// # Safety
/// As for [`sendmsg`], for every message.
pub(crate) unsafe fn sendmmsg(
    fd: RawFd,
    msgs: &mut [libc::mmsghdr],
    flags: i32,
) -> Result<usize, Errno> {
    // SAFETY: by the caller.
    unsafe { syscall!(Sysno::sendmmsg, fd, msgs.as_mut_ptr(), msgs.len(), flags) }
}

/// # Safety
/// Name, control and every iovec of `msg` must be memory that may be overwritten now, or not mapped at all (EFAULT).
pub(crate) unsafe fn recvmsg(
    fd: RawFd,
    msg: &mut libc::msghdr,
    flags: i32,
) -> Result<usize, Errno> {
    // SAFETY: by the caller.
    unsafe { syscall!(Sysno::recvmsg, fd, msg as *mut libc::msghdr, flags) }
}

/// # Safety
/// As for [`recvmsg`], for every message.
pub(crate) unsafe fn recvmmsg(
    fd: RawFd,
    msgs: &mut [libc::mmsghdr],
    flags: i32,
) -> Result<usize, Errno> {
    // SAFETY: by the caller.
    unsafe { syscall!(Sysno::recvmmsg, fd, msgs.as_mut_ptr(), msgs.len(), flags, 0) }
}

pub(crate) fn send(fd: RawFd, bytes: &[u8], flags: i32) -> Result<usize, Errno> {
    // SAFETY: the kernel reads a live slice.
    unsafe { syscall!(Sysno::sendto, fd, bytes.as_ptr(), bytes.len(), flags, 0, 0) }
}

pub(crate) fn sendto<T>(fd: RawFd, bytes: &[u8], flags: i32, addr: &T) -> Result<usize, Errno> {
    // SAFETY: the kernel reads a live slice and size_of::<T>() bytes of a live reference.
    unsafe {
        syscall!(
            Sysno::sendto,
            fd,
            bytes.as_ptr(),
            bytes.len(),
            flags,
            addr as *const T,
            size_of_val(addr)
        )
    }
}

/// With MSG_TRUNC in `flags` the true length of a datagram is returned, which may exceed the buffer.
pub(crate) fn recv(fd: RawFd, buf: &mut [u8], flags: i32) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most buf.len() bytes to a live slice.
    unsafe {
        syscall!(
            Sysno::recvfrom,
            fd,
            buf.as_mut_ptr(),
            buf.len(),
            flags,
            0,
            0
        )
    }
}

/// Receives a datagram, without waiting, and its sender as `T`.
pub(crate) fn recvfrom<T>(fd: RawFd, buf: &mut [u8], from: &mut T) -> Result<usize, Errno> {
    let mut len = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most buf.len() bytes to a live slice and `len` bytes to a live reference, whose T is
    // a structure of integers.
    unsafe {
        syscall!(
            Sysno::recvfrom,
            fd,
            buf.as_mut_ptr(),
            buf.len(),
            libc::MSG_DONTWAIT,
            from as *mut T,
            &mut len as *mut u32
        )
    }
}

/// # Safety
/// `request` must read and write no more than the structure `T`, and what pointers inside it name.
pub(crate) unsafe fn ioctl<T>(fd: RawFd, request: u64, arg: &mut T) -> Result<usize, Errno> {
    // SAFETY: by the caller.
    unsafe { syscall!(Sysno::ioctl, fd, request, arg as *mut T) }
}

/// How often the calling thread had to leave the CPU to another.
pub(crate) fn preemptions() -> i64 {
    // SAFETY: integers; all zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the live structure.
    let _ = unsafe { syscall!(Sysno::getrusage, libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nivcsw
}

/// What a socket's send buffer is charged with, in bytes.
pub(crate) fn unsent(fd: RawFd) -> Result<usize, Errno> {
    let mut queued = 0i32;
    // SAFETY: TIOCOUTQ writes an int.
    unsafe { ioctl(fd, libc::TIOCOUTQ, &mut queued) }?;
    Ok(usize::try_from(queued).unwrap_or(0))
}

/// Maps `len` bytes of a descriptor, shared, for reading and writing.
pub(crate) fn mmap_shared(fd: RawFd, len: usize) -> Result<*mut u8, Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
    let at = unsafe { syscall!(Sysno::mmap, 0, len, prot, libc::MAP_SHARED, fd, 0) }?;
    Ok(at as *mut u8)
}

/// # Safety
/// Nothing may refer to the mapping any more.
pub(crate) unsafe fn munmap(at: *mut u8, len: usize) {
    // SAFETY: by the caller. munmap of a range that was mapped as one cannot fail.
    let _ = unsafe { syscall!(Sysno::munmap, at, len) };
}

/// Keeps a mapping from the children of this process.
pub(crate) fn dont_fork(at: *mut u8, len: usize) -> Result<(), Errno> {
    // SAFETY: contents and addresses in this process stay as they are.
    unsafe { syscall!(Sysno::madvise, at, len, libc::MADV_DONTFORK) }.map(drop)
}

/// Copies from this process's memory, at addresses that need not be valid.
///
/// # Errors
/// EFAULT where a range is not readable; ENOSYS or EPERM where a seccomp filter forbids the call.
pub(crate) fn read_own_memory(
    pid: i32,
    from: &[libc::iovec],
    to: &mut [u8],
) -> Result<usize, Errno> {
    let local = libc::iovec {
        iov_base: to.as_mut_ptr().cast(),
        iov_len: to.len(),
    };
    // SAFETY: the kernel writes at most to.len() bytes to a live slice and checks the source addresses itself.
    unsafe {
        syscall!(
            Sysno::process_vm_readv,
            pid,
            &local as *const libc::iovec,
            1,
            from.as_ptr(),
            from.len(),
            0
        )
    }
}

/// `union bpf_attr` as BPF_PROG_LOAD reads it; what is missing counts as zero.
#[repr(C)]
struct BpfProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// Loads an eBPF program. The descriptor is close-on-exec.
pub(crate) fn bpf_prog_load(prog_type: u32, insns: &[u64]) -> Result<Fd, Errno> {
    const BPF_PROG_LOAD: i32 = 5;
    let attr = BpfProgLoad {
        prog_type,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: the kernel reads the structure, `insn_cnt` instructions and a NUL-terminated string, all alive.
    let fd = unsafe {
        syscall!(
            Sysno::bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<BpfProgLoad>()
        )
    }?;
    Ok(Fd::from_raw(fd as RawFd))
}

pub(crate) fn getpid() -> i32 {
    // SAFETY: no pointers; getpid cannot fail.
    unsafe { syscall!(Sysno::getpid) }.unwrap_or(0) as i32
}

/// Opens for appending, created with `mode` when missing.
pub(crate) fn create(path: &std::ffi::CStr, mode: u32) -> Result<Fd, Errno> {
    let how = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: the kernel reads a NUL-terminated string.
    let fd = unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), how, mode) }?;
    Ok(Fd::from_raw(fd as RawFd))
}

pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads a live slice.
    unsafe { syscall!(Sysno::write, fd, bytes.as_ptr(), bytes.len()) }
}

/// Whether RLIMIT_FSIZE holds.
pub(crate) fn files_are_limited() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the kernel fills a live structure.
    let _ = unsafe { syscall!(Sysno::prlimit64, 0, libc::RLIMIT_FSIZE, 0, &raw mut limit) };
    limit.rlim_cur != libc::RLIM_INFINITY
}

fn change_mask(how: libc::c_int, signal: libc::c_int) -> u64 {
    let (set, mut before) = (bit(signal), 0u64);
    // SAFETY: the kernel reads and writes eight bytes each.
    let _ = unsafe {
        syscall!(
            Sysno::rt_sigprocmask,
            how,
            &raw const set,
            &raw mut before,
            8
        )
    };
    before
}

fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

/// Blocks a signal for the calling thread; whether it was.
pub(crate) fn block_signal(signal: libc::c_int) -> bool {
    change_mask(libc::SIG_BLOCK, signal) & bit(signal) != 0
}

pub(crate) fn unblock_signal(signal: libc::c_int) {
    change_mask(libc::SIG_UNBLOCK, signal);
}

/// Whether a blocked signal waits for the calling thread or the process.
pub(crate) fn is_pending(signal: libc::c_int) -> bool {
    let mut set = 0u64;
    // SAFETY: the kernel writes eight bytes.
    let _ = unsafe { syscall!(Sysno::rt_sigpending, &raw mut set, 8) };
    set & bit(signal) != 0
}

/// Takes a blocked signal that waits, if one does.
pub(crate) fn take_signal(signal: libc::c_int) {
    let set = bit(signal);
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel reads live locals.
    let _ = unsafe { syscall!(Sysno::rt_sigtimedwait, &raw const set, 0, &raw const now, 8) };
}
