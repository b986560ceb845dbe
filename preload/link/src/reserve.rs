//! Packet sockets handed over by the launcher, for processes that may not open their own.
//!
//! The launcher opens [`SETS`] pairs of packet sockets while it has CAP_NET_RAW, drops the capability, and leaves the
//! pairs open to the program at adjacent numbers, behind a memory file. [`VARIABLE`] says where: first number, number of
//! sets, inode of the memory file. Every process that comes of the program inherits all of them, and takes one pair
//! for itself when it first needs one.
//!
//! Whose a pair is, is said by a lock on a byte of the memory file. It is an open-file-description lock on a
//! description of the taker's own: it goes when the last process that shares the description ends, however it ends,
//! and an undertaker's keeps it.

use crate::Errno;
use crate::fd::{Fd, duplicate_high, inherit, inherited};
use crate::packet::{PacketSocket, reset};
use crate::raw;
use sidewire_uapi::socket::SO_NETNS_COOKIE;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that tells where the descriptors are: FIRST:SETS:INODE, in decimal.
pub const VARIABLE: &CStr = c"SIDEWIRE_SOCKETS";

/// Pairs that the launcher makes at most: processes of one program that have sockets on the engine at the same time.
pub const SETS: usize = 16;

/// Sockets of a set: one for frames, one for ARP.
pub const SOCKETS: usize = 2;

/// The inode of the memory file; 0 for none.
static CLAIMS: AtomicU64 = AtomicU64::new(0);

/// The sockets of one process.
#[derive(Debug)]
pub struct Taken {
    /// For the connections' frames.
    pub frames: PacketSocket,
    /// For [`Neighbours::with_arp`](crate::netlink::Neighbours::with_arp).
    pub arp: Fd,
    /// Keeps others from taking the same ones.
    pub claim: Fd,
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing was handed over, or a program on the way has closed it.
    Nothing,
    /// They belong to another network namespace.
    Foreign,
    /// Other processes have them all.
    InUse,
    /// The memory file cannot be opened anew: without /proc, ENOENT.
    Claim(Errno),
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Nothing => f.write_str("no packet socket without CAP_NET_RAW"),
            Self::Foreign => f.write_str(
                "the packet sockets handed over belong to another network namespace (sidewire run --capability ambient)",
            ),
            Self::InUse => f.write_str(
                "the packet sockets handed over are all in use (sidewire run --capability ambient)",
            ),
            Self::Claim(e) => write!(f, "no packet socket that was handed over, as /proc cannot be used: {e}"),
        }
    }
}

fn parse(value: &[u8]) -> Option<(RawFd, usize, u64)> {
    let mut parts = core::str::from_utf8(value).ok()?.split(':');
    let first: RawFd = parts.next()?.parse().ok()?;
    let sets: usize = parts.next()?.parse().ok()?;
    let inode = parts.next()?.parse().ok()?;
    let sane = first > libc::STDERR_FILENO && sets <= SETS && inode != 0 && parts.next().is_none();
    sane.then_some((first, sets, inode))
}

fn is_packet_socket(fd: RawFd) -> bool {
    raw::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, 0i32) == Ok(libc::AF_PACKET)
}

/// Hides what [`VARIABLE`] names from the program, so that it finds none of it and cannot close it. Whatever is not
/// there any more, or is another file, is left alone. Before the program's first step; allocates nothing.
pub fn adopt(value: &[u8]) {
    let Some((first, sets, inode)) = parse(value) else {
        return;
    };
    if raw::inode(first) != Ok(inode) {
        return;
    }
    let sockets = first + 1..first + 1 + (sets * SOCKETS) as RawFd;
    // What comes behind one that somebody closed could be the program's.
    let end = sockets
        .clone()
        .find(|fd| !is_packet_socket(*fd))
        .unwrap_or(sockets.end);
    CLAIMS.store(inode, Ordering::Relaxed);
    inherit(first..end);
}

/// Takes a pair that nobody has, if it belongs to the network namespace with this SO_NETNS_COOKIE.
///
/// # Errors
/// See [`Refused`].
pub fn take(cookie: u64) -> Result<Taken, Refused> {
    let all = inherited();
    let mut sockets = all.clone().skip(1);
    let first = sockets.next().ok_or(Refused::Nothing)?;
    // All are of one namespace.
    if raw::getsockopt(first, libc::SOL_SOCKET, SO_NETNS_COOKIE, 0u64) != Ok(cookie) {
        return Err(Refused::Foreign);
    }
    let claim = raw::reopen(all.start).map_err(Refused::Claim)?;
    // Another file at that number has nothing to say here.
    if raw::inode(claim.as_raw_fd()) != Ok(CLAIMS.load(Ordering::Relaxed)) {
        return Err(Refused::Nothing);
    }
    let claim = crate::fd::move_high(claim).map_err(Refused::Claim)?;
    for set in 0..(all.len() - 1) / SOCKETS {
        let byte = set as i64;
        if raw::lock_byte(claim.as_raw_fd(), byte).is_err() {
            continue;
        }
        let frames = first + (set * SOCKETS) as RawFd;
        // One whose ring is still mapped by a child of its last owner's is no good yet.
        if let Ok((frames, arp)) = prepare(frames) {
            return Ok(Taken { frames, arp, claim });
        }
        let _ = raw::unlock_byte(claim.as_raw_fd(), byte);
    }
    Err(Refused::InUse)
}

fn prepare(frames: RawFd) -> Result<(PacketSocket, Fd), Errno> {
    let (frames, arp) = (duplicate_high(frames)?, duplicate_high(frames + 1)?);
    reset(frames.as_raw_fd())?;
    reset(arp.as_raw_fd())?;
    Ok((PacketSocket::from_fd(frames)?, arp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_not_taken() {
        assert_eq!(parse(b"768:16:12"), Some((768, 16, 12)));
        for wrong in [
            "",
            "768",
            "768:16",
            "768:17:12",
            "0:1:12",
            "-1:1:12",
            "768:1:0",
            "768:1:2:3",
            "a:b:c",
        ] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn another_file_is_left_alone() {
        // Our own program's first free number is no memory file with that inode.
        let file = std::fs::File::open("/dev/null").unwrap();
        adopt(format!("{}:1:1", file.as_raw_fd()).as_bytes());
        assert!(inherited().is_empty());
        assert!(matches!(take(1), Err(Refused::Nothing)));
    }
}
