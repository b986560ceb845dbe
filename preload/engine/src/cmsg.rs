//! Control messages: what a send reads (Linux's `sock_cmsg_send`, spec/cmsg.md) and what a receive delivers.

use core::net::IpAddr;

use alloc::boxed::Box;
use arrayvec::ArrayVec;
use sidewire_uapi::errqueue::SockExtendedErr;
use sidewire_uapi::ip::{IP_RECVERR, IPV6_RECVERR};
use sidewire_uapi::socket as so;
use sidewire_uapi::tcp::TCP_CM_INQ;
use sidewire_uapi::timestamping::SOF_TIMESTAMPING_TX_RECORD_MASK;

use crate::error::Error;
use crate::opts::SockOpts;
use crate::stack::Caps;

/// `sizeof(struct cmsghdr)`: length (8), level (4), type (4).
pub const CMSG_HDR_LEN: usize = 16;
/// Control messages are aligned to this.
pub const CMSG_ALIGN: usize = 8;
/// Most control messages that one receive delivers.
pub const RECV_CMSG_MAX: usize = 6;

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

/// A point of CLOCK_REALTIME: seconds and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, 0..=999_999_999.
    pub nsec: i64,
}

impl Timespec {
    /// From nanoseconds since the epoch.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self {
            sec: (ns / 1_000_000_000) as i64,
            nsec: (ns % 1_000_000_000) as i64,
        }
    }
}

/// A control message that a receive delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecvCmsg {
    /// SO_TIMESTAMP (29), or 63 when `new`: microseconds.
    Timestamp {
        /// The *_NEW type number.
        new: bool,
        /// When.
        at: Timespec,
    },
    /// SO_TIMESTAMPNS (35), or 64 when `new`: nanoseconds.
    TimestampNs {
        /// The *_NEW type number.
        new: bool,
        /// When.
        at: Timespec,
    },
    /// SCM_TIMESTAMPING (37), or 65 when `new`: software, 0, hardware.
    Timestamping {
        /// The *_NEW type number.
        new: bool,
        /// Software stamp, nothing, hardware stamp (spec/timestamping.md TS-45).
        at: [Timespec; 3],
    },
    /// SCM_TIMESTAMPING_OPT_STATS: netlink attributes.
    OptStats(Box<[u8]>),
    /// IP_RECVERR or IPV6_RECVERR.
    RecvErr {
        /// The socket is an IPv6 one.
        v6: bool,
        /// What happened.
        ee: SockExtendedErr,
        /// The offender; all zero when `None`.
        offender: Option<IpAddr>,
    },
    /// TCP_CM_INQ: bytes left in the receive queue.
    Inq(i32),
}

/// The control messages of one receive, in Linux's order.
pub type RecvCmsgs = ArrayVec<RecvCmsg, RECV_CMSG_MAX>;

/// Longest fixed-size payload: `sock_extended_err` and a `sockaddr_in6`.
const CMSG_DATA_MAX: usize = 64;

impl RecvCmsg {
    /// `cmsg_level` and `cmsg_type`.
    #[must_use]
    pub const fn level_and_type(&self) -> (i32, i32) {
        match self {
            Self::Timestamp { new: false, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMP),
            Self::Timestamp { new: true, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMP_NEW),
            Self::TimestampNs { new: false, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMPNS),
            Self::TimestampNs { new: true, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMPNS_NEW),
            Self::Timestamping { new: false, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMPING),
            Self::Timestamping { new: true, .. } => (so::SOL_SOCKET, so::SO_TIMESTAMPING_NEW),
            Self::OptStats(_) => (so::SOL_SOCKET, so::SCM_TIMESTAMPING_OPT_STATS),
            Self::RecvErr { v6: false, .. } => (so::SOL_IP, IP_RECVERR),
            Self::RecvErr { v6: true, .. } => (so::SOL_IPV6, IPV6_RECVERR),
            Self::Inq(_) => (so::SOL_TCP, TCP_CM_INQ),
        }
    }

    /// The payload's bytes in this machine's order.
    fn with_data<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let mut buf = ArrayVec::<u8, CMSG_DATA_MAX>::new();
        let mut put = |b: &[u8]| buf.extend(b.iter().copied());
        match self {
            Self::Timestamp { at, .. } => {
                put(&at.sec.to_ne_bytes());
                put(&(at.nsec / 1000).to_ne_bytes());
            }
            Self::TimestampNs { at, .. } => {
                put(&at.sec.to_ne_bytes());
                put(&at.nsec.to_ne_bytes());
            }
            Self::Timestamping { at, .. } => {
                for t in at {
                    put(&t.sec.to_ne_bytes());
                    put(&t.nsec.to_ne_bytes());
                }
            }
            Self::OptStats(bytes) => return f(bytes),
            Self::RecvErr { v6, ee, offender } => {
                put(&ee.to_bytes());
                put(&sockaddr_bytes(*v6, *offender)[..if *v6 { 28 } else { 16 }]);
            }
            Self::Inq(n) => put(&n.to_ne_bytes()),
        }
        f(&buf)
    }
}

/// `sockaddr_in` or `sockaddr_in6` of an offender, port 0; zero when there is none (TS-48).
fn sockaddr_bytes(v6: bool, addr: Option<IpAddr>) -> [u8; 28] {
    let mut out = [0; 28];
    match addr {
        Some(IpAddr::V4(a)) if !v6 => {
            out[..2].copy_from_slice(&so::AF_INET.to_ne_bytes());
            out[4..8].copy_from_slice(&a.octets());
        }
        Some(a) if v6 => {
            let a = match a {
                IpAddr::V4(a) => a.to_ipv6_mapped(),
                IpAddr::V6(a) => a,
            };
            out[..2].copy_from_slice(&so::AF_INET6.to_ne_bytes());
            out[8..24].copy_from_slice(&a.octets());
        }
        _ => {}
    }
    out
}

/// Writes `msgs` to the program's control buffer (Linux `put_cmsg`).
///
/// Returns the bytes used (`msg_controllen`) and whether something did not fit (MSG_CTRUNC, spec ZC-48, TS-82).
pub fn put_cmsgs(msgs: &[RecvCmsg], control: &mut [u8]) -> (usize, bool) {
    let mut used = 0;
    let mut ctrunc = false;
    for m in msgs {
        let room = control.len() - used;
        if room < CMSG_HDR_LEN {
            ctrunc = true;
            continue;
        }
        let (level, ty) = m.level_and_type();
        m.with_data(|data| {
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
