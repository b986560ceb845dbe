//! A received segment, parsed: what the input path works on.

use sidewire_wire::tcp_options::TcpOptions;

use crate::memory::Frag;
use crate::net::Tuple;
use crate::skb::tcphdr;

/// Who vouches for the checksum of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxCsum {
    /// Verified by the device, by the caller, or not needed (a local sender's unfinished checksum).
    Good,
    /// Wrong: count and drop.
    Bad,
}

/// A received frame, from the IP header on.
#[derive(Debug)]
pub struct Ingress<'a> {
    /// IP and TCP headers, options included; everything before the payload.
    pub headers: &'a [u8],
    /// The payload, in one region; `None` when there is none. Trailing link-layer padding is already cut off.
    pub payload: Option<Frag>,
    /// Checksum state.
    pub csum: RxCsum,
    /// Segments that GRO merged, at least 1.
    pub gso_segs: u32,
    /// Payload bytes of each of them, 0 when there is one.
    pub gso_size: u32,
    /// Interface it came in on.
    pub iif: u32,
    /// Wall-clock arrival in nanoseconds, 0 when unknown.
    pub tstamp_ns: u64,
}

/// A received TCP segment.
#[derive(Debug)]
pub struct Segment {
    /// Addresses, local end first.
    pub tuple: Tuple,
    /// Sequence number of the first byte (or of SYN).
    pub seq: u32,
    /// One past the last, SYN and FIN counted.
    pub end_seq: u32,
    /// Acknowledgement number; valid with ACK.
    pub ack_seq: u32,
    /// Flags ([`tcphdr`]).
    pub flags: u8,
    /// Window as in the header, unscaled.
    pub window: u16,
    /// Urgent pointer; valid with URG.
    pub urg_ptr: u16,
    /// Options.
    pub opts: TcpOptions,
    /// Payload.
    pub payload: Option<Frag>,
    /// Payload bytes.
    pub len: u32,
    /// Segments that GRO merged, at least 1.
    pub gso_segs: u32,
    /// Payload bytes of each of them, 0 when there is one.
    pub gso_size: u32,
    /// IPv4 TOS or IPv6 traffic class (the ECN bits are the low two).
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Interface it came in on.
    pub iif: u32,
    /// Wall-clock arrival in nanoseconds, 0 when unknown.
    pub tstamp_ns: u64,
}

impl Segment {
    /// SYN set.
    #[must_use]
    pub const fn syn(&self) -> bool {
        self.flags & tcphdr::SYN != 0
    }
    /// FIN set.
    #[must_use]
    pub const fn fin(&self) -> bool {
        self.flags & tcphdr::FIN != 0
    }
    /// RST set.
    #[must_use]
    pub const fn rst(&self) -> bool {
        self.flags & tcphdr::RST != 0
    }
    /// ACK set.
    #[must_use]
    pub const fn ack(&self) -> bool {
        self.flags & tcphdr::ACK != 0
    }
    /// URG set.
    #[must_use]
    pub const fn urg(&self) -> bool {
        self.flags & tcphdr::URG != 0
    }
}
