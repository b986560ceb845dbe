//! Who carries a socket, and why it is the kernel.
//!
//! The reason is kept under the kernel's SO_COOKIE of the socket, which is never used again: a descriptor that is dup'ed
//! shares it, and a number that is opened anew does not inherit it.

use core::ffi::c_int;
use core::sync::atomic::{AtomicU64, Ordering};

use sidewire_uapi::socket::SO_COOKIE;

use crate::calls::socket::Reason;
use crate::{config, fdtable, syscall};

/// Sockets of the kernel's whose reason is remembered; later ones take the place of earlier ones.
const REMEMBERED: usize = 4096;
/// A cookie above these bits, a reason's number plus one in them.
const REASON_BITS: u32 = 8;

static WHY: [AtomicU64; REMEMBERED] = [const { AtomicU64::new(0) }; REMEMBERED];

/// The answer of [`of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The engine.
    Engine,
    /// The kernel: it is not a TCP socket.
    NotTcp,
    /// The kernel: the settings say so.
    Disabled,
    /// The kernel, for this reason.
    Kernel(Reason),
    /// The kernel; the socket came from another process, or it was too long ago.
    Unknown,
}

fn cookie_of(fd: c_int) -> Option<u64> {
    syscall::getsockopt_u64(fd, libc::SOL_SOCKET, SO_COOKIE).ok()
}

fn place(cookie: u64) -> &'static AtomicU64 {
    &WHY[cookie as usize % REMEMBERED]
}

/// Keeps the reason for which the kernel carries the socket behind `fd`.
pub(crate) fn remember(fd: c_int, reason: Reason) {
    if let Some(cookie) = cookie_of(fd) {
        let entry = cookie << REASON_BITS | (reason as u64 + 1);
        place(cookie).store(entry, Ordering::Relaxed);
    }
}

fn recall(fd: c_int) -> Option<Reason> {
    let cookie = cookie_of(fd)?;
    let entry = place(cookie).load(Ordering::Relaxed);
    let number = (entry ^ cookie << REASON_BITS).checked_sub(1)?;
    Reason::ALL.get(usize::try_from(number).ok()?).copied()
}

/// Who carries the socket behind `fd`.
///
/// # Errors
/// EBADF when nothing is open under that number.
pub fn of(fd: c_int) -> Result<Carrier, c_int> {
    if fdtable::is_ours(fd) && fdtable::get(fd).is_some() {
        return Ok(Carrier::Engine);
    }
    let option = |name| syscall::getsockopt_int(fd, libc::SOL_SOCKET, name);
    // A raw socket may have the number, too.
    match (option(libc::SO_TYPE), option(libc::SO_PROTOCOL)) {
        (Ok(libc::SOCK_STREAM), Ok(libc::IPPROTO_TCP)) => {}
        (Err(syscall::Errno::EBADF), _) => return Err(libc::EBADF),
        _ => return Ok(Carrier::NotTcp),
    }
    Ok(match recall(fd) {
        Some(reason) => Carrier::Kernel(reason),
        None if config::get().enabled => Carrier::Unknown,
        None => Carrier::Disabled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_belongs_to_the_socket_not_to_its_number() {
        let tcp = || syscall::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let fd = tcp();
        assert_eq!(of(fd), Ok(Carrier::Unknown));
        for reason in Reason::ALL {
            remember(fd, reason);
            assert_eq!(of(fd), Ok(Carrier::Kernel(reason)));
        }
        let twin = syscall::fcntl(fd, libc::F_DUPFD, 0).unwrap();
        assert_eq!(of(twin), of(fd));
        syscall::close(fd).unwrap();
        syscall::close(twin).unwrap();
        let other = tcp();
        assert_eq!(of(other), Ok(Carrier::Unknown));
        syscall::close(other).unwrap();
    }

    #[test]
    fn what_is_not_tcp() {
        let udp = syscall::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        assert_eq!(of(udp), Ok(Carrier::NotTcp));
        syscall::close(udp).unwrap();
        let event = syscall::eventfd().unwrap();
        assert_eq!(of(event), Ok(Carrier::NotTcp));
        syscall::close(event).unwrap();
        assert_eq!(of(-1), Err(libc::EBADF));
    }
}
