//! SO_REUSEPORT groups of several processes. The kernel divides clients among the members of a group, and a holder of ours is
//! none: who wants to join asks the processes of its user, at their doors ([`crate::inspection`]), and the one whose listener
//! is there gives it to the kernel.
//!
//! The question is the name from which the door is knocked at, so that it is there when the knock is. The answer is a byte.

use core::ffi::{c_int, c_void};
use core::mem::{offset_of, zeroed};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::sockaddr_un;
use sidewire_link::Errno;
use sidewire_link::fd::Fd;
use syscalls::{Sysno, syscall};

use crate::calls::give_group;
use crate::inspection::{address, directories, parse_socket_name, pid_namespace};
use crate::signals::cancel;
use crate::stack::monotonic_ns;
use crate::syscall;

/// What the name begins with; port, network namespace and process follow. It is abstract (unix(7)).
const QUESTION: &str = "sidewire-reuseport";
/// The listener was given to the kernel.
const GIVEN: u8 = b'g';
/// There is none.
const NONE: u8 = b'n';
/// How long all answers may take, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// Asks the other processes of this user for the listener on a port, of the network namespace with this cookie. True when one
/// has given it to the kernel.
pub(crate) fn ask(netns: u64, port: u16) -> bool {
    let _whole = cancel::Off::new();
    // SAFETY: no arguments.
    let uid = unsafe { libc::geteuid() };
    let me = (syscall::getpid(), pid_namespace());
    let until = monotonic_ns() + PATIENCE;
    let mut given = false;
    for directory in directories(uid) {
        for door in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = door.file_name();
            let other = name.to_str().and_then(parse_socket_name);
            if other.is_some_and(|other| other != me) {
                given |= knock(&door.path(), netns, port, until).unwrap_or(false);
            }
        }
    }
    given
}

fn knock(door: &Path, netns: u64, port: u16, until: u64) -> Result<bool, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let fd = Fd::from_raw(syscall::socket(libc::AF_UNIX, kind, 0)?);
    let question = format!("\0{QUESTION} {port} {netns} {}", syscall::gettid());
    let (from, len) = address(question.as_bytes())?;
    syscall::bind(fd.as_raw_fd(), (&raw const from).cast::<c_void>(), len)?;
    let (to, len) = address(door.as_os_str().as_bytes())?;
    // SAFETY: a live name of that length.
    unsafe { syscall!(Sysno::connect, fd.as_raw_fd(), &raw const to, len) }?;
    let mut answered = [libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    syscall::ppoll(&mut answered, until.saturating_sub(monotonic_ns()), None)?;
    let mut answer = NONE;
    // SAFETY: a live byte. A descriptor that comes with it, from a door that knows no questions, is not taken.
    unsafe { syscall!(Sysno::recvfrom, fd.as_raw_fd(), &raw mut answer, 1, 0, 0, 0) }?;
    Ok(answer == GIVEN)
}

/// Answers a visitor who knocked with a question; false when it was another one.
pub(crate) fn answer(visitor: c_int) -> bool {
    let Some((port, netns)) = question(visitor) else {
        return false;
    };
    let byte = if give_group(netns, port) { GIVEN } else { NONE };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: a live byte.
    let _ = unsafe { syscall!(Sysno::sendto, visitor, &raw const byte, 1, flags, 0, 0) };
    true
}

/// Port and namespace by the visitor's name.
fn question(visitor: c_int) -> Option<(u16, u64)> {
    // SAFETY: made of integers; all zero is valid.
    let mut from: sockaddr_un = unsafe { zeroed() };
    let mut len = size_of::<sockaddr_un>() as u32;
    // SAFETY: the kernel writes `len` bytes at most.
    unsafe { syscall!(Sysno::getpeername, visitor, &raw mut from, &raw mut len) }.ok()?;
    let len = (len as usize).checked_sub(offset_of!(sockaddr_un, sun_path))?;
    let name: Vec<u8> = from.sun_path.iter().take(len).map(|c| *c as u8).collect();
    let text = core::str::from_utf8(name.strip_prefix(b"\0")?).ok()?;
    let mut words = text.strip_prefix(QUESTION)?.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
