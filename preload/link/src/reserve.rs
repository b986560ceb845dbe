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
//!
//! The sockets themselves stay open in every other process. Whoever is through with a pair takes its frames and its
//! ring away ([`Claim::give_back`]); for those that could not, as they were killed, the next [`take`] does.

use crate::Errno;
use crate::fd::{Fd, duplicate_high, inherit, inherited};
use crate::packet::{PacketSocket, in_use, reset};
use crate::raw;
use sidewire_uapi::socket::SO_NETNS_COOKIE;
use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The variable that tells where the descriptors are: FIRST:SETS:INODE, in decimal.
pub const VARIABLE: &CStr = c"SIDEWIRE_SOCKETS";

/// Pairs that the launcher makes at most: processes of one program that have sockets on the engine at the same time.
pub const SETS: usize = 16;

/// Sockets of a set: one for frames, one for ARP.
pub const SOCKETS: usize = 2;

/// What [`VARIABLE`] says instead when there was no room for any.
pub const NO_ROOM: &str = "no-room";

/// The byte of the memory file that is locked while free pairs are being cleaned.
const CLEANING: i64 = SETS as i64;

/// True after [`NO_ROOM`].
static WITHOUT_ROOM: AtomicBool = AtomicBool::new(false);

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
    pub claim: Claim,
}

/// Says that a pair is ours.
#[derive(Debug)]
pub struct Claim {
    /// The file description that has the lock.
    lock: Fd,
    /// The number of the pair's first socket.
    frames: RawFd,
}

impl AsRawFd for Claim {
    fn as_raw_fd(&self) -> RawFd {
        self.lock.as_raw_fd()
    }
}

impl Claim {
    /// Leaves the pair without frames and without a ring, at the end of the last process that uses it, which has
    /// closed its [`PacketSource`](crate::packet::PacketSource). It stays ours until then.
    pub fn give_back(&self) {
        clean(self.frames);
    }
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing was handed over, or a program on the way has closed it.
    Nothing,
    /// There was no room for them among the numbers of descriptors.
    NoRoom,
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
            Self::NoRoom => f.write_str(
                "no packet socket was handed over, for want of free descriptors below the limit (ulimit -n)",
            ),
            Self::Foreign => f.write_str(
                "the packet sockets handed over belong to another network namespace (sidewire run --capability ambient)",
            ),
            Self::InUse => f.write_str(
                "the packet sockets handed over are all in use (sidewire run --capability ambient)",
            ),
            Self::Claim(e) => write!(
                f,
                "no packet socket that was handed over, as /proc cannot be used: {}",
                std::io::Error::from(*e)
            ),
        }
    }
}

/// First number, number of sets, inode of the memory file.
type Named = (RawFd, usize, u64);

fn parse(value: &[u8]) -> Option<Named> {
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

/// The descriptors that [`VARIABLE`] names, as far as they are there still: what comes behind one that somebody closed
/// could be the program's.
fn open_of(value: &[u8]) -> Option<(Range<RawFd>, Named)> {
    let named = parse(value)?;
    let (first, sets, inode) = named;
    if raw::inode(first) != Ok(inode) {
        return None;
    }
    let sockets = first + 1..first + 1 + (sets * SOCKETS) as RawFd;
    let end = sockets
        .clone()
        .find(|fd| !is_packet_socket(*fd))
        .unwrap_or(sockets.end);
    Some((first..end, named))
}

/// Packet sockets that a launcher before this one has left open to us.
#[derive(Debug)]
pub struct LeftOpen {
    open: Range<RawFd>,
    complete: bool,
}

impl LeftOpen {
    /// What [`VARIABLE`] names, if it is there.
    pub fn find(value: &[u8]) -> Option<LeftOpen> {
        let (open, (_, sets, _)) = open_of(value)?;
        let complete = open.len() == 1 + sets * SOCKETS && sets > 0;
        Some(LeftOpen { open, complete })
    }

    /// True if all are there, and of this thread's network namespace.
    pub fn usable(&self) -> bool {
        let here = raw::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0);
        let cookie = |fd: RawFd| raw::getsockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, 0u64).ok();
        self.complete
            && here.is_ok_and(|here| {
                let here = cookie(here.as_raw_fd());
                here.is_some() && here == cookie(self.open.start + 1)
            })
    }

    /// Closes them.
    pub fn close(self) {
        self.open.for_each(raw::close);
    }
}

/// Hides what [`VARIABLE`] names from the program, so that it finds none of it and cannot close it. Whatever is not
/// there any more, or is another file, is left alone. Before the program's first step; allocates nothing.
pub fn adopt(value: &[u8]) {
    WITHOUT_ROOM.store(value == NO_ROOM.as_bytes(), Ordering::Relaxed);
    if let Some((open, (_, _, inode))) = open_of(value) {
        CLAIMS.store(inode, Ordering::Relaxed);
        inherit(open);
    }
}

fn nothing() -> Refused {
    if WITHOUT_ROOM.load(Ordering::Relaxed) {
        Refused::NoRoom
    } else {
        Refused::Nothing
    }
}

/// Takes a pair that nobody has, if it belongs to the network namespace with this SO_NETNS_COOKIE.
///
/// # Errors
/// See [`Refused`].
pub fn take(cookie: u64) -> Result<Taken, Refused> {
    let all = inherited();
    let mut sockets = all.clone().skip(1);
    let first = sockets.next().ok_or_else(nothing)?;
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
    let pairs = (all.len() - 1) / SOCKETS;
    let lock = claim.as_raw_fd();
    let mut taken = take_one(lock, first, pairs);
    if taken.is_none() {
        // One that is being cleaned looks taken.
        while raw::wait_for_byte(lock, CLEANING) == Err(Errno::EINTR) {}
        let _ = raw::unlock_byte(lock, CLEANING);
        taken = take_one(lock, first, pairs);
    }
    let (set, frames, arp) = taken.ok_or(Refused::InUse)?;
    clean_free(lock, first, (0..pairs).filter(|other| *other != set));
    let claim = Claim {
        lock: claim,
        frames: socket_of(first, set),
    };
    Ok(Taken { frames, arp, claim })
}

/// The number of a pair's first socket.
fn socket_of(first: RawFd, set: usize) -> RawFd {
    first + (set * SOCKETS) as RawFd
}

fn take_one(lock: RawFd, first: RawFd, pairs: usize) -> Option<(usize, PacketSocket, Fd)> {
    for set in 0..pairs {
        let byte = set as i64;
        if raw::lock_byte(lock, byte).is_err() {
            continue;
        }
        // One whose ring is still mapped by somebody is no good yet.
        if let Ok((frames, arp)) = prepare(socket_of(first, set)) {
            return Some((set, frames, arp));
        }
        let _ = raw::unlock_byte(lock, byte);
    }
    None
}

/// Cleans what processes that were killed have left. One process at a time does; those that nobody has used since
/// cost a getsockname each.
fn clean_free(lock: RawFd, first: RawFd, pairs: impl Iterator<Item = usize>) {
    if raw::lock_byte(lock, CLEANING).is_err() {
        return;
    }
    for set in pairs {
        let frames = socket_of(first, set);
        let used = in_use(frames) || in_use(frames + 1);
        if used && raw::lock_byte(lock, set as i64).is_ok() {
            clean(frames);
            let _ = raw::unlock_byte(lock, set as i64);
        }
    }
    let _ = raw::unlock_byte(lock, CLEANING);
}

/// What cannot be cleaned, as its ring is mapped by somebody still, is cleaned by a later [`take`].
fn clean(frames: RawFd) {
    for fd in frames..frames + SOCKETS as RawFd {
        let _ = reset(fd);
    }
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
