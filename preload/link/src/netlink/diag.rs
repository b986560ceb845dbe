//! Whether the kernel has a connection, or a listener (`NETLINK_SOCK_DIAG`, Linux `inet_diag_find_one_icsk`).

use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::raw;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// TCP_LISTEN: no socket of the connection's own, but one that would take its SYN.
const LISTEN: u8 = 10;
/// `struct nlmsghdr` and `struct inet_diag_req_v2`, in bytes.
const HEADER: usize = 16;
const REQUEST: usize = 56;

/// A TCP socket of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// None: it answers RST.
    Nothing,
    /// One that takes connections from there.
    Listener,
    /// One with exactly these two ends, in TIME_WAIT included.
    Connection,
}

/// A socket that asks. Needs no capability.
#[derive(Debug)]
pub struct SockDiag(Fd);

impl SockDiag {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    /// EPROTONOSUPPORT where the kernel has no sock_diag; EMFILE, ENFILE.
    pub fn open() -> Result<Self, Errno> {
        let ty = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        raw::socket(libc::AF_NETLINK, ty, libc::NETLINK_SOCK_DIAG)
            .and_then(move_high)
            .map(Self)
    }

    /// What the kernel has for a segment from `remote` to `local`.
    ///
    /// # Errors
    /// What netlink says. A kernel that cannot tell has none.
    pub fn find(&self, local: SocketAddrV4, remote: SocketAddrV4) -> Result<Found, Errno> {
        let fd = self.0.as_raw_fd();
        raw::send(fd, &request(local, remote), 0)?;
        // An error repeats the request.
        let mut answer = [0u8; 1024];
        let n = raw::recv(fd, &mut answer, 0)?;
        verdict(&answer[..n])
    }
}

fn request(local: SocketAddrV4, remote: SocketAddrV4) -> [u8; HEADER + REQUEST] {
    let mut m = [0; HEADER + REQUEST];
    let mut put = |at: usize, bytes: &[u8]| m[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &((HEADER + REQUEST) as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    put(HEADER, &[libc::AF_INET as u8, libc::IPPROTO_TCP as u8]);
    // idiag_states: all.
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    put(HEADER + 8, &local.port().to_be_bytes());
    put(HEADER + 10, &remote.port().to_be_bytes());
    put(HEADER + 12, &local.ip().octets());
    put(HEADER + 28, &remote.ip().octets());
    // INET_DIAG_NOCOOKIE.
    put(HEADER + 48, &[0xff; 8]);
    m
}

fn verdict(answer: &[u8]) -> Result<Found, Errno> {
    let kind = answer.get(4..6).ok_or(Errno::EBADMSG)?;
    let body = answer.get(HEADER..).unwrap_or_default();
    if kind == SOCK_DIAG_BY_FAMILY.to_ne_bytes() {
        // The family, then the state.
        return match body.get(1) {
            Some(&LISTEN) => Ok(Found::Listener),
            Some(_) => Ok(Found::Connection),
            None => Err(Errno::EBADMSG),
        };
    }
    let code = body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    match Errno::new(-code) {
        Errno::ENOENT => Ok(Found::Nothing),
        e => Err(e),
    }
}
