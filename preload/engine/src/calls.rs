//! The arguments of calls that may sleep: what a call was given, how far it came, and what it hands back.
//!
//! The caller makes one per system call and passes the same one again after every [`crate::Step::Wait`].

use alloc::boxed::Box;
use core::net::{Ipv4Addr, SocketAddr};

use arrayvec::ArrayVec;
use sidewire_uapi::errqueue::SockExtendedErr;

use crate::time::{Instant, JIFFY_NS};

/// Control messages of one receive call: timestamps (two), bytes left, and those of the error queue.
pub const MAX_RECV_CMSGS: usize = 6;

/// The latest deadline that is one.
const LAST_DEADLINE: Instant = Instant(Instant::NEVER.0 - 1);

/// When a sleep of a call ends by itself: fixed at the first wait, so that the budget is per call and not per sleep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeo {
    deadline: Option<Instant>,
}

impl Timeo {
    /// The call's deadline, fixed at the first use: `now` when it may not wait (`nonblock`, or a timeout of 0), `NEVER`
    /// when there is no `timeout`, which is in jiffies.
    pub fn deadline(&mut self, now: Instant, nonblock: bool, timeout: Option<u64>) -> Instant {
        *self.deadline.get_or_insert(match (nonblock, timeout) {
            (true, _) => now,
            // One of centuries is a timeout all the same: a signal does not restart the call (H5).
            (false, Some(n)) => (now + n.saturating_mul(JIFFY_NS)).min(LAST_DEADLINE),
            (false, None) => Instant::NEVER,
        })
    }
}

/// `accept`.
#[derive(Debug, Default)]
pub struct AcceptCall {
    /// A signal is pending: do not sleep again, answer `Intr`. Set by the caller.
    pub signal: bool,
    pub(crate) timeo: Timeo,
}

/// `connect`.
#[derive(Debug, Default)]
pub struct ConnectCall {
    /// A signal is pending: do not sleep again, answer `Intr`. The handshake goes on (ER-39).
    pub signal: bool,
    pub(crate) timeo: Timeo,
    pub(crate) begun: bool,
    /// What the call answers when it may not wait: EINPROGRESS when it made the attempt itself, else EALREADY.
    pub(crate) pending_error: Option<crate::error::Error>,
    /// `disconnects` of the socket when the sleep began.
    pub(crate) disconnects: Option<u32>,
    /// The call is a fast open's send, not connect(2).
    pub(crate) sendmsg: bool,
}

/// `close`.
#[derive(Debug, Default)]
pub struct CloseCall {
    /// A signal is pending: end the lingering.
    pub signal: bool,
    pub(crate) timeo: Timeo,
    pub(crate) begun: bool,
}

/// A control message of a receive call; the caller encodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecvCmsg {
    /// SOL_TCP, TCP_CM_INQ: bytes left after this read.
    Inq(i32),
    /// SOL_SOCKET, SCM_TIMESTAMP: a `timeval`.
    Timestamp {
        /// CLOCK_REALTIME nanoseconds.
        ns: u64,
        /// The *_NEW layout and type.
        new: bool,
    },
    /// SOL_SOCKET, SCM_TIMESTAMPNS: a `timespec`.
    TimestampNs {
        /// CLOCK_REALTIME nanoseconds.
        ns: u64,
        /// The *_NEW layout and type.
        new: bool,
    },
    /// SOL_SOCKET, SCM_TIMESTAMPING: software, 0, hardware.
    Timestamping {
        /// CLOCK_REALTIME nanoseconds each, 0 when absent.
        ns: [u64; 3],
        /// The *_NEW layout and type.
        new: bool,
    },
    /// What IP_PKTINFO, IP_RECVTTL, IP_RECVTOS and IP_RECVORIGDSTADDR tell of a stamped frame or of an ICMP error: the
    /// caller knows which of them are on (TS-50).
    IpHeader {
        /// `ipi_ifindex`: the device that it went by.
        ifindex: u32,
        /// `ipi_spec_dst`.
        spec_dst: Ipv4Addr,
        /// `ipi_addr`: its destination.
        daddr: Ipv4Addr,
        /// Time to live.
        ttl: u8,
        /// Type of service.
        tos: u8,
        /// The second port of the TCP header that follows.
        port: u16,
    },
    /// IP_RECVERR or IPV6_RECVERR: an entry of the error queue.
    RecvErr {
        /// The entry.
        ee: SockExtendedErr,
        /// SO_EE_OFFENDER; `None` writes AF_UNSPEC.
        offender: Option<SocketAddr>,
    },
    /// SOL_SOCKET, SCM_TIMESTAMPING_OPT_STATS: netlink attributes.
    OptStats(Box<[u8]>),
}

/// `recv`, `recvfrom`, `recvmsg`, `read`, `readv`.
#[derive(Debug, Default)]
pub struct RecvCall {
    /// MSG_* flags of the call.
    pub flags: i32,
    /// O_NONBLOCK or MSG_DONTWAIT.
    pub nonblock: bool,
    /// A signal is pending: do not sleep again, answer what was copied or `Intr`. Set by the caller.
    pub signal: bool,
    /// MSG_* flags for `msg_flags`.
    pub msg_flags: i32,
    /// `msg_name`: where the packet was going that an ICMP error of the error queue is about.
    pub name: Option<SocketAddr>,
    /// Control messages to hand out.
    pub cmsgs: ArrayVec<RecvCmsg, MAX_RECV_CMSGS>,
    pub(crate) timeo: Timeo,
    pub(crate) begun: bool,
    /// SO_PEEK_OFF neither counts nor moves.
    pub(crate) of_splice: bool,
    /// Bytes handed out (or skipped, MSG_TRUNC) by earlier rounds of this call.
    pub(crate) copied: usize,
    /// Bytes that satisfy a blocking call.
    pub(crate) target: usize,
    /// `disconnects` of the socket when the call began.
    pub(crate) disconnects: u32,
    /// `wakes` of the socket when the sleep began.
    pub(crate) wakes: u32,
    /// It sleeps.
    pub(crate) sleeps: bool,
    /// Where MSG_PEEK reads next.
    pub(crate) peek_seq: u32,
    /// Wall-clock arrival of the last byte handed out.
    pub(crate) tstamp_ns: u64,
}

impl RecvCall {
    /// A call with `flags`; `nonblock` is O_NONBLOCK (MSG_DONTWAIT is seen in `flags`).
    #[must_use]
    pub fn new(flags: i32, nonblock: bool) -> Self {
        Self {
            flags,
            nonblock: nonblock || flags & sidewire_uapi::socket::MSG_DONTWAIT != 0,
            ..Self::default()
        }
    }

    /// A call by which splice reads (Linux `tcp_read_sock`).
    #[must_use]
    pub fn of_splice(flags: i32, nonblock: bool) -> Self {
        Self {
            of_splice: true,
            ..Self::new(flags, nonblock)
        }
    }

    /// Bytes handed out so far, by a call that has not ended.
    #[must_use]
    pub fn copied(&self) -> usize {
        self.copied
    }
}
