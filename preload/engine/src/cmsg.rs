//! Control messages: what a send reads (Linux's `sock_cmsg_send`, spec/cmsg.md) and what a receive delivers.

use core::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use sidewire_uapi::ip::{IP_RECVERR, IPV6_RECVERR};
use sidewire_uapi::socket as so;
use sidewire_uapi::tcp::TCP_CM_INQ;
use sidewire_uapi::timestamping::SOF_TIMESTAMPING_TX_RECORD_MASK;

use crate::calls::RecvCmsg;
use crate::error::Error;
use crate::opts::SockOpts;
use crate::stack::Caps;
use crate::time::NSEC_PER_SEC;

/// `sizeof(struct cmsghdr)`: length (8), level (4), type (4).
pub const CMSG_HDR_LEN: usize = 16;
/// Control messages are aligned to this.
pub const CMSG_ALIGN: usize = 8;

/// What the control messages of one send ask for: Linux's `struct sockcm_cookie`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SockcmCookie {
    /// SO_TIMESTAMPING flags for this call, seeded from the socket (step B1).
    pub tsflags: u32,
    /// SO_MARK; Linux's TCP parses it and lets the socket's mark rule.
    pub mark: Option<u32>,
    /// SO_PRIORITY; the same.
    pub priority: Option<u32>,
    /// SCM_TXTIME in nanoseconds of the SO_TXTIME clock; no effect on a TCP stream.
    pub transmit_time: u64,
    /// SCM_DEVMEM_DMABUF: the binding whose offsets the iovecs are; 0 is none.
    pub dmabuf_id: u32,
}

/// May a thread with `caps` give packets this priority (Linux `sk_set_prio_allowed`)?
#[must_use]
pub const fn prio_allowed(priority: u32, caps: Caps) -> bool {
    priority <= 6 || caps.net_raw || caps.net_admin
}

fn ne_u32(data: &[u8]) -> Result<u32, Error> {
    Ok(u32::from_ne_bytes(
        data.try_into().map_err(|_| Error::Inval)?,
    ))
}

impl SockcmCookie {
    /// A cookie as a call without control messages has it (step B1).
    #[must_use]
    pub fn seeded(tsflags: u32) -> Self {
        Self {
            tsflags,
            ..Self::default()
        }
    }

    /// Walks `control` in Linux's order (CM-1..CM-9). What stood before the first error has taken effect.
    ///
    /// # Errors
    /// `Inval` or `Perm` of the first message that is wrong; later ones are not looked at.
    pub fn parse(&mut self, control: &[u8], opts: &SockOpts, caps: Caps) -> Result<(), Error> {
        let mut at = 0;
        while at + CMSG_HDR_LEN <= control.len() {
            let msg = &control[at..];
            let len = u64::from_ne_bytes(msg[..8].try_into().unwrap_or_default());
            if len < CMSG_HDR_LEN as u64 || len > msg.len() as u64 {
                return Err(Error::Inval); // CM-2, CM-3, CM-4
            }
            let len = len as usize;
            let level = i32::from_ne_bytes(msg[8..12].try_into().unwrap_or_default());
            let ty = i32::from_ne_bytes(msg[12..16].try_into().unwrap_or_default());
            if level == so::SOL_SOCKET {
                self.take(ty, &msg[CMSG_HDR_LEN..len], opts, caps)?;
            }
            at += len.next_multiple_of(CMSG_ALIGN);
        }
        Ok(())
    }

    /// One message of level SOL_SOCKET (CM-12..CM-25, Linux `__sock_cmsg_send`).
    fn take(&mut self, ty: i32, data: &[u8], opts: &SockOpts, caps: Caps) -> Result<(), Error> {
        match ty {
            so::SCM_RIGHTS | so::SCM_CREDENTIALS => {}
            so::SO_MARK => {
                // CM-18: the capability comes before the length.
                if !caps.net_raw && !caps.net_admin {
                    return Err(Error::Perm);
                }
                self.mark = Some(ne_u32(data)?);
            }
            so::SO_PRIORITY => {
                let priority = ne_u32(data)?;
                if !prio_allowed(priority, caps) {
                    return Err(Error::Perm);
                }
                self.priority = Some(priority);
            }
            so::SO_TIMESTAMPING | so::SO_TIMESTAMPING_NEW => {
                let flags = ne_u32(data)?;
                if flags & !SOF_TIMESTAMPING_TX_RECORD_MASK != 0 {
                    return Err(Error::Inval);
                }
                self.tsflags = (self.tsflags & !SOF_TIMESTAMPING_TX_RECORD_MASK) | flags;
            }
            so::SCM_TXTIME => {
                if opts.txtime.is_none() {
                    return Err(Error::Inval);
                }
                self.transmit_time = u64::from_ne_bytes(data.try_into().map_err(|_| Error::Inval)?);
            }
            so::SCM_DEVMEM_DMABUF => self.dmabuf_id = ne_u32(data)?,
            // CM-24 included: SCM_TS_OPT_ID is for datagrams.
            _ => return Err(Error::Inval),
        }
        Ok(())
    }
}

/// Longest fixed-size payload: `sock_extended_err` and a `sockaddr_in6`.
const CMSG_DATA_MAX: usize = 64;

/// `cmsg_level` and `cmsg_type` on a socket of the given family.
const fn level_and_type(msg: &RecvCmsg, v6: bool) -> (i32, i32) {
    match msg {
        RecvCmsg::Timestamp { new: false, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMP),
        RecvCmsg::Timestamp { new: true, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMP_NEW),
        RecvCmsg::TimestampNs { new: false, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMPNS),
        RecvCmsg::TimestampNs { new: true, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMPNS_NEW),
        RecvCmsg::Timestamping { new: false, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMPING),
        RecvCmsg::Timestamping { new: true, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMPING_NEW),
        RecvCmsg::OptStats(_) => (so::SOL_SOCKET, so::SCM_TIMESTAMPING_OPT_STATS),
        RecvCmsg::RecvErr { .. } if v6 => (so::SOL_IPV6, IPV6_RECVERR),
        RecvCmsg::RecvErr { .. } => (so::SOL_IP, IP_RECVERR),
        RecvCmsg::Inq(_) => (so::SOL_TCP, TCP_CM_INQ),
    }
}

/// Seconds, and the rest divided by `unit` (1 = nanoseconds, 1000 = microseconds), as two 64-bit words.
fn time_bytes(ns: u64, unit: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&(ns / NSEC_PER_SEC).to_ne_bytes());
    out[8..].copy_from_slice(&(ns % NSEC_PER_SEC / unit).to_ne_bytes());
    out
}

/// The payload's bytes in this machine's order.
fn with_data<R>(msg: &RecvCmsg, v6: bool, f: impl FnOnce(&[u8]) -> R) -> R {
    let mut buf = ArrayVec::<u8, CMSG_DATA_MAX>::new();
    let mut put = |b: &[u8]| buf.extend(b.iter().copied());
    match msg {
        RecvCmsg::Timestamp { ns, .. } => put(&time_bytes(*ns, 1000)),
        RecvCmsg::TimestampNs { ns, .. } => put(&time_bytes(*ns, 1)),
        RecvCmsg::Timestamping { ns, .. } => ns.iter().for_each(|t| put(&time_bytes(*t, 1))),
        RecvCmsg::OptStats(bytes) => return f(bytes),
        RecvCmsg::RecvErr { ee, offender } => {
            put(&ee.to_bytes());
            put(&sockaddr_bytes(v6, *offender)[..if v6 { 28 } else { 16 }]);
        }
        RecvCmsg::Inq(n) => put(&n.to_ne_bytes()),
    }
    f(&buf)
}

/// `sockaddr_in` or `sockaddr_in6` of an offender; zero when there is none (TS-48).
fn sockaddr_bytes(v6: bool, addr: Option<SocketAddr>) -> [u8; 28] {
    let mut out = [0; 28];
    let Some(addr) = addr else {
        return out;
    };
    out[2..4].copy_from_slice(&addr.port().to_be_bytes());
    match addr.ip() {
        IpAddr::V4(a) if !v6 => {
            out[..2].copy_from_slice(&so::AF_INET.to_ne_bytes());
            out[4..8].copy_from_slice(&a.octets());
        }
        ip => {
            let a = match ip {
                IpAddr::V4(a) => a.to_ipv6_mapped(),
                IpAddr::V6(a) => a,
            };
            out[..2].copy_from_slice(&so::AF_INET6.to_ne_bytes());
            out[8..24].copy_from_slice(&a.octets());
        }
    }
    out
}

/// Writes `msgs` to the program's control buffer (Linux `put_cmsg`); `v6` is the socket's family.
///
/// Returns the bytes used (`msg_controllen`) and whether something did not fit (MSG_CTRUNC, spec ZC-48, TS-82).
pub fn put_cmsgs(msgs: &[RecvCmsg], v6: bool, control: &mut [u8]) -> (usize, bool) {
    let mut used = 0;
    let mut ctrunc = false;
    for m in msgs {
        let room = control.len() - used;
        if room < CMSG_HDR_LEN {
            ctrunc = true;
            continue;
        }
        let (level, ty) = level_and_type(m, v6);
        with_data(m, v6, |data| {
            let mut len = CMSG_HDR_LEN + data.len();
            if room < len {
                ctrunc = true;
                len = room;
            }
            let out = &mut control[used..];
            out[..8].copy_from_slice(&(len as u64).to_ne_bytes());
            out[8..12].copy_from_slice(&level.to_ne_bytes());
            out[12..16].copy_from_slice(&ty.to_ne_bytes());
            out[CMSG_HDR_LEN..len].copy_from_slice(&data[..len - CMSG_HDR_LEN]);
            let space = (CMSG_HDR_LEN + data.len()).next_multiple_of(CMSG_ALIGN);
            used += space.min(room);
        });
    }
    (used, ctrunc)
}

#[cfg(test)]
mod tests;
