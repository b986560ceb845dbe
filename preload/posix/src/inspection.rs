//! A door for whoever looks at this process from outside: a socket in a directory of its user's, at which the pump hands out
//! a [`Report`] in a memory file. Nothing is counted, kept or paid for while nobody knocks.
//!
//! The directory is `/run/user/UID/sidewire`, else `/tmp/sidewire-UID`, for its owner alone, with the number that he has
//! outside of a user namespace: so that he finds his process from there, and root inside does not meet root outside. The socket in it is
//! `PID-NAMESPACE.sock`, by the number of the process in its pid namespace and the inode of that: processes of several
//! namespaces may share the directory.

use core::ffi::{c_int, c_void};
use core::mem::{offset_of, zeroed};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use libc::sockaddr_un;
use sidewire_link::Errno;
use sidewire_link::fd::{Fd, move_high};
use sidewire_link::file_limit;
use syscalls::{Sysno, syscall};

use crate::report::Report;
use crate::stack::monotonic_ns;
use crate::{config, reuseport, syscall};

/// Visitors that wait.
const BACKLOG: c_int = 8;

/// The process whose door is open; 0 for none.
static OPEN: AtomicI32 = AtomicI32::new(0);

/// Its pid namespace, as in the name of the door.
static NAMESPACE: AtomicU64 = AtomicU64::new(0);

/// Who has no number in our user namespace, as the kernel shows him (`overflowuid`).
const OVERFLOW_UID: u32 = 65534;

/// The number that a user of this user namespace has in the one around it.
fn outside(uid: u32) -> u32 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    mapped(&map, uid).unwrap_or(uid)
}

/// By a uid_map: lines of first number inside, first number outside, and length.
fn mapped(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let (first, outside, length) = (next()?, next()?, next()?);
        let at = uid.checked_sub(first).filter(|at| *at < length)?;
        outside.checked_add(at)
    })
}

/// Where the sockets of a user's processes are, in the order in which they are tried.
#[must_use]
pub fn directories(uid: u32) -> [PathBuf; 2] {
    let uid = outside(uid);
    [
        PathBuf::from(format!("/run/user/{uid}/sidewire")),
        PathBuf::from(format!("/tmp/sidewire-{uid}")),
    ]
}

/// The name of a process's socket in one of [`directories`].
fn socket_name(pid: i32, namespace: u64) -> String {
    format!("{pid}-{namespace}.sock")
}

/// The process that a file in one of [`directories`] is of, if it is a door's: its number, and its pid namespace.
#[must_use]
pub fn parse_socket_name(name: &str) -> Option<(i32, u64)> {
    let (pid, namespace) = name.strip_suffix(".sock")?.split_once('-')?;
    Some((pid.parse().ok()?, namespace.parse().ok()?))
}

/// The inode of this process's pid namespace. Without /proc it is the time instead, which is no namespace's and nobody
/// else's.
#[must_use]
pub fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or_else(|_| monotonic_ns(), |m| m.ino())
}

/// The number, in our own pid namespace, of the process that listens behind a connected socket; `None` when it has none
/// there.
///
/// # Errors
/// What getsockopt says.
pub fn listener_of(visitor: impl AsFd) -> Result<Option<i32>, Errno> {
    let credentials = syscall::peer_credentials(visitor.as_fd().as_raw_fd())?;
    Ok((credentials.pid > 0).then_some(credentials.pid))
}

/// The door.
pub(crate) struct Inspection(Fd);

/// Makes the directory if need be; says no to one that others may write to.
fn usable(directory: &Path, uid: u32) -> bool {
    let made = DirBuilder::new().mode(0o700).create(directory);
    if made.is_err_and(|e| e.kind() != io::ErrorKind::AlreadyExists) {
        return false;
    }
    fs::symlink_metadata(directory)
        .is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o077 == 0)
}

/// An AF_UNIX address, and its length.
pub(crate) fn address(name: &[u8]) -> Result<(sockaddr_un, u32), Errno> {
    // SAFETY: made of integers; all zero is valid.
    let mut address: sockaddr_un = unsafe { zeroed() };
    if name.len() >= address.sun_path.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let len = offset_of!(sockaddr_un, sun_path) + name.len();
    Ok((address, len as u32))
}

/// A socket that listens at `path`. It gets this name when it listens: a visitor takes one that is there and listens not
/// for what is left of a dead process, and removes it.
fn bind(path: &Path) -> Result<Fd, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let fd = move_high(Fd::from_raw(syscall::socket(libc::AF_UNIX, kind, 0)?))?;
    let unborn = path.with_extension("new");
    let (name, len) = address(unborn.as_os_str().as_bytes())?;
    // One of a dead process that had the same number in the same namespace, or in a dead one.
    let _ = fs::remove_file(&unborn);
    let at = (&raw const name).cast::<c_void>();
    syscall::bind(fd.as_raw_fd(), at, len)?;
    syscall::listen(fd.as_raw_fd(), BACKLOG)?;
    fs::rename(&unborn, path).map_err(|e| Errno::from_io_error(e).unwrap_or(Errno::EIO))?;
    Ok(fd)
}

impl Inspection {
    /// Opens the door unless it is open, or the settings want it shut, or there is no place for it.
    pub(crate) fn open() -> Option<Inspection> {
        let pid = syscall::getpid();
        if !config::get().inspect || OPEN.swap(pid, Ordering::Relaxed) == pid {
            return None;
        }
        // SAFETY: no arguments.
        let uid = unsafe { libc::geteuid() };
        let namespace = pid_namespace();
        NAMESPACE.store(namespace, Ordering::Relaxed);
        let name = socket_name(pid, namespace);
        let places = directories(uid);
        let mut usable = places.iter().filter(|d| usable(d, uid));
        usable
            .find_map(|d| bind(&d.join(&name)).ok())
            .map(Inspection)
    }

    pub(crate) fn fd(&self) -> c_int {
        self.0.as_raw_fd()
    }

    /// Lets in who waits, if it is this user or root, and hands out a report, or does what is asked; waits for no visitor. False when nobody can
    /// be let in (no descriptor is left): the door would stay readable for ever, and is to be shut.
    #[must_use]
    pub(crate) fn answer(&self) -> bool {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        loop {
            match syscall::accept4(self.fd(), flags) {
                Ok(visitor) => {
                    let visitor = Fd::from_raw(visitor);
                    if may_look(visitor.as_raw_fd()) && !reuseport::answer(visitor.as_raw_fd()) {
                        // Whoever goes before the answer has come gets none.
                        let _ = hand_out(visitor.as_raw_fd());
                    }
                }
                Err(syscall::Errno::EAGAIN) => return true,
                Err(syscall::Errno::ECONNABORTED | syscall::Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Whether it is our user or root. Root outside of our user namespace has no number in it; nobody else without one can
/// enter the directory.
fn may_look(visitor: c_int) -> bool {
    // SAFETY: no arguments.
    let uid = unsafe { libc::geteuid() };
    let from_outside = |visitor: u32| visitor == OVERFLOW_UID && outside(uid) != uid;
    let credentials = syscall::peer_credentials(visitor);
    credentials.is_ok_and(|c| c.uid == 0 || c.uid == uid || from_outside(c.uid))
}

fn hand_out(visitor: c_int) -> Result<(), Errno> {
    let Ok(text) = serde_json::to_vec(&Report::collect()) else {
        return Ok(());
    };
    let name = c"sidewire-report";
    // SAFETY: a live string.
    let memory = unsafe { syscall!(Sysno::memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) }?;
    let memory = Fd::from_raw(memory as c_int);
    let mut rest = &text[..];
    while !rest.is_empty() {
        // SAFETY: a live slice.
        let write =
            || unsafe { syscall!(Sysno::write, memory.as_raw_fd(), rest.as_ptr(), rest.len()) };
        let n = file_limit::within(write)?;
        rest = &rest[n..];
    }
    syscall::send_descriptor(visitor, memory.as_raw_fd())
}

/// The process ends, or becomes another program: nobody answers any more.
pub(crate) fn close() {
    let pid = syscall::getpid();
    if OPEN.load(Ordering::Relaxed) != pid {
        return;
    }
    // SAFETY: no arguments.
    let uid = unsafe { libc::geteuid() };
    let name = socket_name(pid, NAMESPACE.load(Ordering::Relaxed));
    for directory in directories(uid) {
        let _ = fs::remove_file(directory.join(&name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Visitors that remove what does not listen never meet a door that is about to.
    #[test]
    fn a_door_is_not_taken_for_a_dead_one() {
        use std::os::unix::net::UnixStream;
        use std::sync::atomic::AtomicBool;

        let directory = std::env::temp_dir().join(format!("door-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = |n: i32| directory.join(socket_name(n, 1));
        let (next, done) = (AtomicI32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let path = path(next.load(Ordering::Relaxed));
                    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
                    if UnixStream::connect(&path).is_err_and(refused) {
                        let _ = fs::remove_file(&path);
                    }
                }
            });
            let lost = (1..2000).any(|n| {
                next.store(n, Ordering::Relaxed);
                let door = bind(&path(n)).unwrap();
                let found = path(n).exists();
                drop(door);
                !found
            });
            done.store(true, Ordering::Relaxed);
            assert!(!lost);
        });
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn numbers_are_those_outside() {
        let all = "         0          0 4294967295\n";
        assert_eq!(mapped(all, 1000), Some(1000));
        let container = "0 1000 1\n1 100000 65536\n";
        for (inside, outside) in [
            (0, Some(1000)),
            (1, Some(100_000)),
            (33, Some(100_032)),
            (65_537, None),
        ] {
            assert_eq!(mapped(container, inside), outside, "{inside}");
        }
        assert_eq!(mapped("0 rubbish", 0), None);
    }
}
