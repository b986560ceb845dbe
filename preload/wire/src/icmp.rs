//! ICMP and ICMPv6 errors about TCP segments.

use crate::bytes::{be16, be32, put};
use crate::ipv4::Ipv4View;
use crate::ipv6::Ipv6View;
use crate::{ParseError, checksum};
use core::net::IpAddr;
use sidewire_uapi::socket::IPPROTO_TCP;

/// Length of the fixed part of an error message, bytes; the offending packet follows.
pub const HEADER_LEN: usize = 8;
/// Most bytes of the offending packet that [`emit_v4_error`] quotes (RFC 1812 §4.3.2.3: the
/// message stays within 576 bytes).
pub const MAX_QUOTE_LEN: usize = 576 - 20 - HEADER_LEN;

const V4_UNREACHABLE: u8 = 3;
const V4_TIME_EXCEEDED: u8 = 11;
const V4_PARAMETER_PROBLEM: u8 = 12;
const V4_CODE_FRAG_NEEDED: u8 = 4;
const V6_UNREACHABLE: u8 = 1;
const V6_PACKET_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;

/// Codes of destination unreachable, ICMP.
pub mod v4_unreachable {
    /// No route to the network.
    pub const NET: u8 = 0;
    /// The host does not answer.
    pub const HOST: u8 = 1;
    /// Nobody speaks the protocol.
    pub const PROTOCOL: u8 = 2;
    /// Nobody is at the port.
    pub const PORT: u8 = 3;
    /// Filtered.
    pub const ADMIN_PROHIBITED: u8 = 13;
}

/// Codes of destination unreachable, ICMPv6.
pub mod v6_unreachable {
    /// No route.
    pub const NO_ROUTE: u8 = 0;
    /// Filtered.
    pub const ADMIN_PROHIBITED: u8 = 1;
    /// The host does not answer.
    pub const ADDRESS: u8 = 3;
    /// Nobody is at the port.
    pub const PORT: u8 = 4;
}

/// What went wrong with a packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// It did not arrive, with the code of its family.
    Unreachable(u8),
    /// It was larger than the link's MTU in bytes; 0 from routers that do not tell (RFC 1191 §5).
    PacketTooBig(u32),
    /// Its hops ran out, with the code of its family.
    TimeExceeded(u8),
    /// Its header was not understood, with the code of its family.
    ParameterProblem(u8),
}

/// The beginning of a TCP segment that an error quotes: the 64 bits that every router returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedTcp {
    /// Source address: ours.
    pub src: IpAddr,
    /// Destination address: the peer's.
    pub dst: IpAddr,
    /// Source port: ours.
    pub src_port: u16,
    /// Destination port: the peer's.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
}

/// An ICMP or ICMPv6 error about a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// What went wrong.
    pub kind: IcmpErrorKind,
    /// Type as in the message, for the error queue.
    pub icmp_type: u8,
    /// Code as in the message, for the error queue.
    pub icmp_code: u8,
    /// Which byte a parameter problem is about, 0 for the others: for the error queue.
    pub info: u32,
    /// Where in the message the quoted segment begins, bytes.
    pub segment_at: usize,
    /// With which segment.
    pub quoted: QuotedTcp,
}

impl IcmpError {
    /// Reads the payload of an IPv4 packet of protocol ICMP.
    ///
    /// # Errors
    /// The `Icmp*` reasons of [`ParseError`].
    pub fn parse_v4(message: &[u8]) -> Result<Self, ParseError> {
        let (header, quote) = message
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ParseError::IcmpTruncated)?;
        if !checksum::is_valid(checksum::sum(message)) {
            return Err(ParseError::IcmpChecksum);
        }
        let [icmp_type, icmp_code, ..] = *header;
        let kind = match (icmp_type, icmp_code) {
            (V4_UNREACHABLE, V4_CODE_FRAG_NEEDED) => {
                IcmpErrorKind::PacketTooBig(be16(header, 6).into())
            }
            (V4_UNREACHABLE, code) => IcmpErrorKind::Unreachable(code),
            (V4_TIME_EXCEEDED, code) => IcmpErrorKind::TimeExceeded(code),
            (V4_PARAMETER_PROBLEM, code) => IcmpErrorKind::ParameterProblem(code),
            _ => return Err(ParseError::IcmpType),
        };
        let ip = Ipv4View::parse_embedded(quote).map_err(|_| ParseError::IcmpEmbedded)?;
        if ip.protocol() != IPPROTO_TCP || ip.is_fragment() {
            return Err(ParseError::IcmpEmbedded);
        }
        let quoted = quoted_tcp(ip.src().into(), ip.dst().into(), ip.payload())?;
        let info = match kind {
            IcmpErrorKind::ParameterProblem(_) => header[4].into(),
            _ => 0,
        };
        Ok(Self {
            kind,
            icmp_type,
            icmp_code,
            info,
            segment_at: HEADER_LEN + ip.header_len(),
            quoted,
        })
    }

    /// Reads the payload of an IPv6 packet of protocol ICMPv6, whose pseudo header's sum is
    /// `pseudo_header`.
    ///
    /// # Errors
    /// The `Icmp*` reasons of [`ParseError`].
    pub fn parse_v6(message: &[u8], pseudo_header: u16) -> Result<Self, ParseError> {
        let (header, quote) = message
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ParseError::IcmpTruncated)?;
        if !checksum::is_valid(checksum::add(pseudo_header, checksum::sum(message))) {
            return Err(ParseError::IcmpChecksum);
        }
        let [icmp_type, icmp_code, ..] = *header;
        let kind = match icmp_type {
            V6_UNREACHABLE => IcmpErrorKind::Unreachable(icmp_code),
            V6_PACKET_TOO_BIG => IcmpErrorKind::PacketTooBig(be32(header, 4)),
            V6_TIME_EXCEEDED => IcmpErrorKind::TimeExceeded(icmp_code),
            V6_PARAMETER_PROBLEM => IcmpErrorKind::ParameterProblem(icmp_code),
            _ => return Err(ParseError::IcmpType),
        };
        let ip = Ipv6View::parse_embedded(quote).map_err(|_| ParseError::IcmpEmbedded)?;
        if ip.protocol() != IPPROTO_TCP {
            return Err(ParseError::IcmpEmbedded);
        }
        let quoted = quoted_tcp(ip.src().into(), ip.dst().into(), ip.payload())?;
        let info = match kind {
            IcmpErrorKind::ParameterProblem(_) => be32(header, 4),
            _ => 0,
        };
        Ok(Self {
            kind,
            icmp_type,
            icmp_code,
            info,
            segment_at: HEADER_LEN + (quote.len() - ip.payload().len()),
            quoted,
        })
    }
}

fn quoted_tcp(src: IpAddr, dst: IpAddr, segment: &[u8]) -> Result<QuotedTcp, ParseError> {
    let b = segment.first_chunk::<8>().ok_or(ParseError::IcmpEmbedded)?;
    Ok(QuotedTcp {
        src,
        dst,
        src_port: be16(b, 0),
        dst_port: be16(b, 2),
        seq: be32(b, 4),
    })
}

/// Writes an ICMP error of `kind` that quotes the IPv4 packet `offending`, as much as fits into
/// [`MAX_QUOTE_LEN`].
pub fn emit_v4_error(kind: IcmpErrorKind, offending: &[u8], out: &mut [u8]) -> Option<usize> {
    let (icmp_type, code, rest) = match kind {
        IcmpErrorKind::Unreachable(code) => (V4_UNREACHABLE, code, 0),
        // The MTU has 16 bits here; a larger one would not have been an obstacle.
        IcmpErrorKind::PacketTooBig(mtu) => (V4_UNREACHABLE, V4_CODE_FRAG_NEEDED, mtu.min(0xffff)),
        IcmpErrorKind::TimeExceeded(code) => (V4_TIME_EXCEEDED, code, 0),
        IcmpErrorKind::ParameterProblem(code) => (V4_PARAMETER_PROBLEM, code, 0),
    };
    emit(icmp_type, code, rest, offending, 0, out)
}

/// Writes an ICMPv6 error of `kind` that quotes the IPv6 packet `offending`, as much as fits into
/// [`MAX_QUOTE_LEN`]. `pseudo_header` is [`checksum::pseudo_header_v6`] for the length of the
/// message, `HEADER_LEN + min(offending, MAX_QUOTE_LEN)`.
pub fn emit_v6_error(
    kind: IcmpErrorKind,
    offending: &[u8],
    pseudo_header: u16,
    out: &mut [u8],
) -> Option<usize> {
    let (icmp_type, code, rest) = match kind {
        IcmpErrorKind::Unreachable(code) => (V6_UNREACHABLE, code, 0),
        IcmpErrorKind::PacketTooBig(mtu) => (V6_PACKET_TOO_BIG, 0, mtu),
        IcmpErrorKind::TimeExceeded(code) => (V6_TIME_EXCEEDED, code, 0),
        IcmpErrorKind::ParameterProblem(code) => (V6_PARAMETER_PROBLEM, code, 0),
    };
    emit(icmp_type, code, rest, offending, pseudo_header, out)
}

fn emit(
    icmp_type: u8,
    code: u8,
    rest: u32,
    offending: &[u8],
    pseudo_header: u16,
    out: &mut [u8],
) -> Option<usize> {
    let quote = offending.get(..MAX_QUOTE_LEN).unwrap_or(offending);
    let out = out.get_mut(..HEADER_LEN + quote.len())?;
    let (header, place) = out.split_first_chunk_mut::<HEADER_LEN>()?;
    put(header, 0, [icmp_type, code, 0, 0]);
    put(header, 4, rest.to_be_bytes());
    place.copy_from_slice(quote);
    let sum = checksum::add(checksum::sum(header), checksum::sum(place));
    put(
        header,
        2,
        checksum::finish(checksum::add(sum, pseudo_header)).to_be_bytes(),
    );
    Some(out.len())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::ipv4::Ipv4Header;
    use crate::ipv6::Ipv6Header;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    const KINDS: [IcmpErrorKind; 4] = [
        IcmpErrorKind::Unreachable(1),
        IcmpErrorKind::PacketTooBig(1400),
        IcmpErrorKind::TimeExceeded(0),
        IcmpErrorKind::ParameterProblem(0),
    ];

    fn segment(protocol: u8, len: usize) -> Vec<u8> {
        let ip = Ipv4Header {
            tos: 0,
            total_len: 1500,
            id: 1,
            dont_fragment: true,
            ttl: 64,
            protocol,
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(192, 0, 2, 2),
        };
        let mut out = std::vec![0; 20];
        ip.emit(&mut out).unwrap();
        out.extend_from_slice(&[0x13, 0x88, 0, 80, 1, 2, 3, 4]);
        out.resize(len.max(28), 0);
        out
    }

    #[test]
    fn v4_round_trip() {
        let mut out = [0; 600];
        for kind in KINDS {
            for len in [28, 1500] {
                let len = emit_v4_error(kind, &segment(IPPROTO_TCP, len), &mut out).unwrap();
                let error = IcmpError::parse_v4(&out[..len]).unwrap();
                assert_eq!(error.kind, kind);
                assert_eq!((error.quoted.src_port, error.quoted.dst_port), (5000, 80));
                assert_eq!(error.quoted.seq, 0x0102_0304);
                assert_eq!(error.quoted.src, IpAddr::from([192, 0, 2, 1]));
                assert_eq!(out[error.segment_at..][..4], [0x13, 0x88, 0, 80]);
            }
        }
    }

    #[test]
    fn v6_round_trip() {
        let (src, dst) = (
            Ipv6Addr::new(0xfd91, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::LOCALHOST,
        );
        let ip = Ipv6Header {
            traffic_class: 0,
            flow_label: 0,
            payload_len: 1440,
            next_header: IPPROTO_TCP,
            hop_limit: 64,
            src,
            dst,
        };
        let mut offending = [0; 48];
        ip.emit(&mut offending).unwrap();
        offending[40..].copy_from_slice(&[0x13, 0x88, 0, 80, 1, 2, 3, 4]);
        let mut out = [0; 600];
        let pseudo_header = checksum::pseudo_header_v6(dst, src, 58, 56);
        for kind in KINDS {
            let len = emit_v6_error(kind, &offending, pseudo_header, &mut out).unwrap();
            let error = IcmpError::parse_v6(&out[..len], pseudo_header).unwrap();
            assert_eq!((error.kind, error.quoted.dst), (kind, IpAddr::from(dst)));
            let wrong = checksum::add(pseudo_header, 1);
            let result = IcmpError::parse_v6(&out[..len], wrong);
            assert_eq!(result, Err(ParseError::IcmpChecksum));
        }
    }

    #[test]
    fn each_flaw_has_its_reason() {
        let mut out = [0; 600];
        let kind = IcmpErrorKind::Unreachable(3);
        assert_eq!(IcmpError::parse_v4(&[3; 7]), Err(ParseError::IcmpTruncated));
        let len = emit_v4_error(kind, &segment(17, 28), &mut out).unwrap();
        assert_eq!(
            IcmpError::parse_v4(&out[..len]),
            Err(ParseError::IcmpEmbedded)
        );
        let len = emit_v4_error(kind, &segment(IPPROTO_TCP, 28)[..27], &mut out).unwrap();
        assert_eq!(
            IcmpError::parse_v4(&out[..len]),
            Err(ParseError::IcmpEmbedded)
        );
        let len = emit_v4_error(kind, &segment(IPPROTO_TCP, 28), &mut out).unwrap();
        out[0] = 8;
        assert_eq!(
            IcmpError::parse_v4(&out[..len]),
            Err(ParseError::IcmpChecksum)
        );
        out[2..4].fill(0);
        let field = checksum::finish(checksum::sum(&out[..len]));
        out[2..4].copy_from_slice(&field.to_be_bytes());
        assert_eq!(IcmpError::parse_v4(&out[..len]), Err(ParseError::IcmpType));
    }
}
