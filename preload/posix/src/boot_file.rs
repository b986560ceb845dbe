//! Files that the processes of a user share until the next boot: small, and not to be had where none can be made.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::ffi::CString;
use std::os::fd::AsRawFd;

use sidewire_link::fd::Fd;
use sidewire_link::file_limit;
use syscalls::{Sysno, syscall};

use crate::syscall;

/// Where they may be: what only root can write to is root's first choice.
const FOR_ROOT: [&str; 2] = ["/run", "/dev/shm"];
const FOR_OTHERS: [&str; 1] = ["/dev/shm"];

/// The file of that kind, made where there is none: `new` makes it at the path that it gets, and readers must never see half
/// of it. `None` where none can be had that is ours alone.
pub(crate) fn open(kind: &str, new: impl Fn(&CStr) -> bool) -> Option<Fd> {
    // SAFETY: no arguments.
    let uid = unsafe { syscall!(Sysno::geteuid) }.ok()?;
    let dirs = if uid == 0 { &FOR_ROOT[..] } else { &FOR_OTHERS };
    dirs.iter().find_map(|dir| {
        let path = path(dir, uid, kind)?;
        open_ours(&path, uid).or_else(|| {
            new(&path);
            open_ours(&path, uid)
        })
    })
}

/// Named after boot and user, so that an old one is never read.
fn path(dir: &str, uid: usize, kind: &str) -> Option<CString> {
    let [high, low] = boot_id()?;
    CString::new(format!("{dir}/sidewire-{uid}-{high:016x}{low:016x}.{kind}")).ok()
}

/// The kernel's random number of this boot, in two halves. It is read once, which is half of what it takes to open a file;
/// two threads that do it at once find the same.
fn boot_id() -> Option<[u64; 2]> {
    static KNOWN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    let known = KNOWN.each_ref().map(|half| half.load(Ordering::Relaxed));
    if !known.contains(&0) {
        return Some(known);
    }
    let mut buf = [0u8; 64];
    let text = syscall::read_file(c"/proc/sys/kernel/random/boot_id", &mut buf).ok()?;
    let text = core::str::from_utf8(text).ok()?.trim().replace('-', "");
    let id = u128::from_str_radix(&text, 16).ok()?;
    let id = [(id >> 64) as u64, id as u64];
    for (half, value) in KNOWN.iter().zip(id) {
        half.store(value, Ordering::Relaxed);
    }
    Some(id)
}

/// Makes an empty file, which must not be there.
pub(crate) fn create(path: &CStr) -> Option<Fd> {
    let how = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: a NUL-terminated string.
    let fd = unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), how, 0o600) }.ok()?;
    Some(Fd::from_raw(fd as i32))
}

/// Opens a file when it is ours alone.
fn open_ours(path: &CStr, uid: usize) -> Option<Fd> {
    let how = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: NUL-terminated string, live structure of integers.
    unsafe {
        let fd = syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), how, 0).ok()?;
        let fd = Fd::from_raw(fd as i32);
        let mut st: libc::stat = core::mem::zeroed();
        let ours = syscall!(Sysno::fstat, fd.as_raw_fd(), &raw mut st).is_ok()
            && st.st_uid as usize == uid
            && st.st_mode & 0o777 == 0o600
            && st.st_mode & libc::S_IFMT == libc::S_IFREG;
        ours.then_some(fd)
    }
}

/// Reads at an offset; how many bytes there are.
pub(crate) fn read_at(fd: &Fd, bytes: &mut [u8], at: u64) -> usize {
    // SAFETY: a live slice.
    unsafe {
        let p = bytes.as_mut_ptr();
        syscall!(Sysno::pread64, fd.as_raw_fd(), p, bytes.len(), at).unwrap_or(0)
    }
}

/// Writes at an offset; true when it was all written.
pub(crate) fn write_at(fd: &Fd, bytes: &[u8], at: u64) -> bool {
    let (p, len) = (bytes.as_ptr(), bytes.len());
    // SAFETY: a live slice.
    file_limit::within(|| unsafe { syscall!(Sysno::pwrite64, fd.as_raw_fd(), p, len, at) })
        == Ok(len)
}
