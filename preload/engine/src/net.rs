//! The network as the engine sees it: routes, and a place to put frames.

use alloc::vec::Vec;
use bitflags::bitflags;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU64;
use serde::{Deserialize, Serialize};

use crate::Instant;
use crate::error::Error;
use crate::memory::Frag;
use crate::skb::TxFlags;
use crate::sock::TcpSock;
use crate::stack::SocketId;
use crate::tx_late::TxLate;

/// Longest header of a frame that the engine builds: IPv6 (40) or IPv4 (20), TCP with 40 bytes of options (60).
pub const MAX_HEADER: usize = 100;

/// A connection's four-tuple, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuple {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl Hash for Tuple {
    /// In as few words as it has: each segment is looked up by it.
    fn hash<H: Hasher>(&self, h: &mut H) {
        let pair = |local: u32, remote: u32| u64::from(local) << 32 | u64::from(remote);
        if let (SocketAddr::V4(local), SocketAddr::V4(remote)) = (self.local, self.remote) {
            h.write_u64(pair(local.ip().to_bits(), remote.ip().to_bits()));
        } else {
            (self.local.ip(), self.remote.ip()).hash(h);
        }
        h.write_u64(pair(self.local.port().into(), self.remote.port().into()));
    }
}

/// What a route look-up depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Destination.
    pub daddr: IpAddr,
    /// Source, when it is fixed already.
    pub saddr: Option<IpAddr>,
    /// SO_BINDTODEVICE, 0 for none.
    pub oif: u32,
    /// SO_MARK.
    pub mark: u32,
    /// IP_TOS without its ECN bits.
    pub tos: u8,
}

/// Linux's `dst_entry`: where frames of a connection leave, and how large they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dst {
    /// Egress interface.
    pub oif: u32,
    /// Next hop when it is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// Source address.
    pub saddr: IpAddr,
    /// Path MTU in bytes, IP header included.
    pub mtu: u32,
    /// `advmss` metric of the route, 0 when it has none.
    pub advmss: u32,
    /// Device's gso_max_size in bytes, IP header included (D5).
    pub gso_max_size: u32,
    /// Device's gso_max_segs.
    pub gso_max_segs: u16,
    /// Packets of the route may be scattered. True for every device, since Linux cuts and gathers in software for TCP; not
    /// behind an IPsec transformation (ZC-41).
    pub sg: bool,
    /// What the kernel's own TCP would report as ee_code on this device: packets are copied on their way
    /// (veth, tap, loopback; ZC-39).
    pub zerocopy_copied: bool,
    /// The device does not gather. The kernel copies a super-frame while it cuts it for such a device, and what is copied
    /// then does not count as copied (ZC-42).
    pub copied_in_cutting: bool,
    /// What the route sets for TCP.
    pub metrics: RouteMetrics,
    /// Changes whenever the route table did; a socket whose number differs looks its route up again. Never [`Dst::RESET`]
    /// as it comes from [`Net::route`].
    pub generation: u32,
}

/// What a route sets for TCP (Linux's RTAX_*, `initcwnd 20` in ip-route(8)); 0, false and `None` where it sets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteMetrics {
    /// Largest window to announce, in bytes.
    pub window: u32,
    /// Congestion window to begin with, in segments.
    pub initcwnd: u32,
    /// Window to announce at first, in segments.
    pub initrwnd: u32,
    /// Shortest retransmission timeout, in microseconds.
    pub rto_min_us: u32,
    /// TTL of packets whose socket sets none.
    pub hoplimit: u8,
    /// The path MTU is not to be learned, and routers may cut packets (`mtu lock 1400`).
    pub mtu_locked: bool,
    /// Acks are not delayed.
    pub quickack: bool,
    /// ECN is offered, and accepted, whatever `tcp_ecn` says (RFC 3168 §6.1.1).
    pub ecn: bool,
    /// Our timestamps count microseconds (`features tcp_usec_ts`).
    pub usec_ts: bool,
    /// Data in the SYN needs no cookie.
    pub fastopen_no_cookie: bool,
    /// Name of the congestion control that its connections have; one that we have.
    pub congctl: Option<&'static str>,
    /// TCP_CONGESTION cannot change it.
    pub congctl_locked: bool,
    /// What the metrics of its peers begin with.
    pub path: PathMetrics,
}

/// What is kept of a way between connections, and set by a route (`rtt 300ms` in ip-route(8)); 0 where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathMetrics {
    /// Eight times the round-trip time, in microseconds, as `srtt_us`.
    pub rtt_us: u32,
    /// Four times its deviation, in microseconds, as `mdev_us`.
    pub rttvar_us: u32,
    /// Slow-start threshold, in segments.
    pub ssthresh: u32,
    /// Congestion window, in segments; where it is locked, the largest.
    pub cwnd: u32,
    /// How far segments arrive out of their order.
    pub reordering: u32,
    /// What of these connections do not change.
    pub locked: Locked,
}

impl PathMetrics {
    /// Nothing.
    pub const NONE: Self = Self {
        rtt_us: 0,
        rttvar_us: 0,
        ssthresh: 0,
        cwnd: 0,
        reordering: 0,
        locked: Locked::empty(),
    };
}

bitflags! {
    /// Of the [`PathMetrics`], those with `lock` in ip-route(8).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Locked: u8 {
        /// The round-trip time.
        const RTT = 1;
        /// Its deviation.
        const RTTVAR = 2;
        /// The slow-start threshold.
        const SSTHRESH = 4;
        /// The congestion window.
        const CWND = 8;
        /// The reordering.
        const REORDERING = 16;
    }
}

impl RouteMetrics {
    /// A route that sets nothing.
    pub const NONE: Self = Self {
        window: 0,
        initcwnd: 0,
        initrwnd: 0,
        rto_min_us: 0,
        hoplimit: 0,
        mtu_locked: false,
        quickack: false,
        ecn: false,
        usec_ts: false,
        fastopen_no_cookie: false,
        congctl: None,
        congctl_locked: false,
        path: PathMetrics::NONE,
    };
}

impl Default for RouteMetrics {
    fn default() -> Self {
        Self::NONE
    }
}

impl Dst {
    /// The generation of a route that its socket has let go of: it is there for what is being sent, and not told to the
    /// program any more (SO-77).
    pub const RESET: u32 = 0;
}

/// The transmit timestamps that a frame is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxTstamp {
    /// Which: all but the acknowledgement's, which is the engine's own.
    pub flags: TxFlags,
    /// Sequence number of the stamped byte. It names the stamp, and where a super-frame is cut it says which segment has it
    /// (Linux `skb_shinfo()->tskey`).
    pub tskey: u32,
    /// Whose, for [`crate::Stack::tx_tstamp`].
    pub sock: SocketId,
    /// A stamp of the device's does not replace the software's (SOF_TIMESTAMPING_OPT_TX_SWHW).
    pub swhw: bool,
}

/// When a frame is to leave: SCM_TXTIME, in the terms of SO_TXTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxTime {
    /// Nanoseconds of the clock.
    pub at: u64,
    /// Which clock.
    pub clockid: i32,
    /// `SOF_TXTIME_*`.
    pub flags: u32,
}

/// One (super-)frame from the IP header on.
pub struct Transmit<'a> {
    /// Where to.
    pub dst: &'a Dst,
    /// Final destination: the neighbour to resolve when `dst.gateway` is none.
    pub daddr: IpAddr,
    /// IP and TCP headers. The TCP checksum field holds the pseudo header's sum (CHECKSUM_PARTIAL).
    pub headers: &'a [u8],
    /// Length of the IP header in `headers`: where the TCP header begins.
    pub l4_offset: usize,
    /// Payload.
    pub frags: &'a [Frag],
    /// Payload bytes of each segment on the wire when there is more than one, else 0.
    pub gso_size: u16,
    /// SO_MARK: the socket's, or the message's.
    pub mark: u32,
    /// The socket's SO_PRIORITY.
    pub priority: u32,
    /// Stamps to be told by [`crate::Stack::tx_tstamp`]; the answer is then [`TxVerdict::Stamping`].
    pub tstamp: Option<TxTstamp>,
    /// Not before then.
    pub txtime: Option<TxTime>,
    /// Whose it is, for remarks; none of a request sock or a TIME_WAIT remnant.
    pub sock: Option<&'a TcpSock>,
}

/// Names a frame that waits between the engine and the device, for [`Net::in_host_queue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxTicket(pub NonZeroU64);

/// Where something waits that has not left the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostQueue {
    /// Nowhere; or it is no more than was asked about.
    Clear,
    /// Nowhere, as is found out now: what has come since it left may wait unread. Only from [`Net::in_host_queue`].
    Left,
    /// Before the kernel: [`crate::Stack::tx_space`] is called when that has it.
    Here,
    /// In the device's queue, and so many bytes have to leave it. Nobody tells when they have.
    Device(u32),
}

/// What became of a frame. Known before `snd_nxt` advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxVerdict {
    /// The device has it.
    Sent,
    /// It waits: for somebody to carry it to the device, or for the address of the next hop. It counts as sent; when it does
    /// not leave after all, [`crate::Stack::tx_late`] is told.
    Queued(TxTicket),
    /// The device has it, and its stamps will be told.
    Stamping,
    /// The device has a copy that was made in user space.
    Copied,
    /// The packet socket is full: nothing happened; [`crate::Stack::tx_space`] says when to go on.
    NoSpace,
    /// The queueing discipline threw it away: Linux's local congestion (NET_XMIT_DROP).
    Dropped,
    /// The next hop does not answer: EHOSTUNREACH (ER-21).
    Unreachable,
    /// The program unmapped pages that it had given with MSG_ZEROCOPY.
    Fault,
    /// The interface is gone or down: counts as lost.
    DeviceGone,
}

/// Routes and frames; implemented by posix over link, and by tests.
pub trait Net {
    /// Looks a route up.
    ///
    /// # Errors
    /// `NetUnreach`, `HostUnreach`, `Access`, `Inval`, `AddrNotAvail` as Linux's FIB answers.
    fn route(&mut self, key: &FlowKey) -> Result<Dst, Error>;
    /// The table's present generation ([`Dst::generation`]).
    fn route_generation(&self) -> u32;
    /// Hands a frame to the device, or puts it into a queue before it; never sleeps.
    fn transmit(&mut self, frame: &Transmit<'_>) -> TxVerdict;
    /// What was handed over leaves before what comes, of whatever connections.
    fn flush(&mut self) {}
    /// Nothing is heard of the peer at the end of this route: the address of its next hop may hold no longer (Linux
    /// `dst_negative_advice`).
    fn negative_advice(&mut self, _dst: &Dst, _daddr: IpAddr) {}
    /// A router of the path to `daddr` takes no more than `dst` says now: [`Net::route`] gives no more from now on, until
    /// then (Linux `update_or_create_fnhe`).
    fn pmtu_told(&mut self, _dst: &Dst, _daddr: IpAddr, _until: Instant) {}
    /// Where a frame is that has not left the host (Linux `skb_fclone_busy`).
    fn in_host_queue(&mut self, _ticket: TxTicket) -> HostQueue {
        HostQueue::Clear
    }
    /// Where those frames of a connection are that have not left the host, when they are charged with more than `limit` bytes
    /// (Linux `sk_wmem_alloc`).
    fn small_queue(&mut self, _tuple: &Tuple, _limit: u32) -> HostQueue {
        HostQueue::Clear
    }
    /// As [`Net::small_queue`], for a small tail that could wait for the next bytes; `Clear` is right for who would have to
    /// ask too often.
    fn tail_waits(&mut self, _tuple: &Tuple, _limit: u32) -> HostQueue {
        HostQueue::Clear
    }
    /// Takes frames of a connection back that have not been handed to the device, those with data or FIN from sequence number
    /// `from` on, and answers them in the order of their leaving. Nobody is told of them otherwise.
    fn recall(&mut self, _tuple: &Tuple, _from: u32) -> Vec<TxLate> {
        Vec::new()
    }
    /// True when it is the kernel's TCP that answers what belongs to none of our connections: it has a connection with this
    /// four-tuple, of whatever process, or nothing keeps it silent at that port. Asked before an RST.
    fn kernel_answers(&mut self, _tuple: &Tuple) -> bool {
        false
    }
    /// True when frames are queued until the caller lets go of the stack: a long send pauses ([`crate::WaitReason::Backlog`]),
    /// so that they leave while they are warm and acks come in.
    fn crowded(&self) -> bool {
        false
    }
}
