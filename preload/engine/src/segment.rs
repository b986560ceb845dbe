//! A received segment, parsed: what the input path works on.

use alloc::boxed::Box;
use core::net::{IpAddr, SocketAddr};

use sidewire_uapi::socket::IPPROTO_TCP;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::ipv6::Ipv6View;
use sidewire_wire::tcp::{TcpOptions, TcpView};
use sidewire_wire::tcp_options::Signature;

use crate::memory::Frag;
use crate::mib::Counter;
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
    /// Whether it is signed; no socket of the engine's has keys.
    pub signature: Signature,
    /// Bytes of options in the header.
    pub opt_len: u8,
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
    /// IP and TCP headers of a SYN, for TCP_SAVE_SYN; `None` on every other segment.
    pub headers: Option<Box<[u8]>>,
}

impl Segment {
    /// Reads a frame's headers, taking its payload.
    ///
    /// # Errors
    /// The counter of the reason to drop it.
    pub fn parse(frame: &mut Ingress<'_>) -> Result<Self, Counter> {
        let payload_len = frame.payload.as_ref().map_or(0, |p| p.len as usize);
        let packet_len = frame.headers.len() + payload_len;
        let version = frame.headers.first().map_or(0, |b| b >> 4);
        let (src, dst, tos, ttl, protocol, ip_len, l4_len): (IpAddr, IpAddr, _, _, _, _, _) =
            if version == 4 {
                let ip = Ipv4View::parse_prefix(frame.headers, packet_len)
                    .map_err(|_| Counter::InHdrErrors)?;
                if ip.is_fragment() {
                    return Err(Counter::InHdrErrors);
                }
                let (src, dst) = (ip.src(), ip.dst());
                if dst.is_multicast()
                    || dst.is_broadcast()
                    || src.is_multicast()
                    || src.is_broadcast()
                {
                    return Err(Counter::InHdrErrors);
                }
                (
                    src.into(),
                    dst.into(),
                    ip.tos(),
                    ip.ttl(),
                    ip.protocol(),
                    ip.header_len(),
                    ip.payload_len(),
                )
            } else {
                let ip = Ipv6View::parse_prefix(frame.headers, packet_len)
                    .map_err(|_| Counter::InHdrErrors)?;
                if ip.dst().is_multicast() || ip.src().is_multicast() {
                    return Err(Counter::InHdrErrors);
                }
                (
                    ip.src().into(),
                    ip.dst().into(),
                    ip.traffic_class(),
                    ip.hop_limit(),
                    ip.protocol(),
                    ip.header_len(),
                    ip.payload_len(),
                )
            };
        let l4 = frame.headers.get(ip_len..).ok_or(Counter::InHdrErrors)?;
        if protocol != IPPROTO_TCP {
            return Err(Counter::InHdrErrors);
        }
        let tcp = TcpView::parse_prefix(l4, l4_len).map_err(|_| Counter::InHdrErrors)?;
        // What is not header has to be what the payload says.
        if tcp.payload_len() != payload_len || tcp.header_len() != l4.len() {
            return Err(Counter::InHdrErrors);
        }
        let flags = tcp.flags().bits();
        let syn = flags & tcphdr::SYN != 0;
        Ok(Self {
            tuple: Tuple {
                local: SocketAddr::new(dst, tcp.dst_port()),
                remote: SocketAddr::new(src, tcp.src_port()),
            },
            seq: tcp.seq(),
            end_seq: tcp.end_seq(),
            ack_seq: tcp.ack_seq(),
            flags,
            window: tcp.window(),
            urg_ptr: tcp.urg_ptr(),
            opts: TcpOptions::parse(tcp.options(), syn),
            signature: Signature::parse(tcp.options()),
            opt_len: tcp.options().len() as u8,
            len: payload_len as u32,
            payload: frame.payload.take().filter(|p| p.len > 0),
            gso_segs: frame.gso_segs.max(1),
            gso_size: if frame.gso_segs > 1 {
                frame.gso_size
            } else {
                0
            },
            tos,
            ttl,
            iif: frame.iif,
            tstamp_ns: frame.tstamp_ns,
            headers: syn.then(|| frame.headers.into()),
        })
    }

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
