//! IPv4 (RFC 791).

use crate::bytes::{array, be16, put};
use crate::{ParseError, checksum};
use core::net::Ipv4Addr;

/// Length of the header without options, bytes.
pub const HEADER_LEN: usize = 20;
/// Longest header, bytes.
pub const MAX_HEADER_LEN: usize = 60;
/// Offset of the checksum field in the header.
pub const CHECKSUM_OFFSET: usize = 10;

const FLAG_DF: u16 = 0x4000;
const FLAG_MF: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// A received packet. Options are checked for their length only.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4View<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
    total_len: usize,
}

impl<'a> Ipv4View<'a> {
    /// Checks a packet that is all there. Bytes after the total length (padding) are cut off.
    ///
    /// # Errors
    /// The `Ipv4*` reasons of [`ParseError`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_prefix(packet, packet.len())
    }

    /// Checks a packet of `packet_len` bytes of which `bytes` is the beginning. The header must
    /// be there with its options.
    ///
    /// # Errors
    /// The `Ipv4*` reasons of [`ParseError`].
    #[inline]
    pub fn parse_prefix(bytes: &'a [u8], packet_len: usize) -> Result<Self, ParseError> {
        let view = Self::parse_embedded(bytes)?;
        if view.total_len < view.header_len() || view.total_len > packet_len {
            return Err(ParseError::Ipv4TotalLen);
        }
        let sum = checksum::add(checksum::sum(view.header), checksum::sum(view.options));
        if !checksum::is_valid(sum) {
            return Err(ParseError::Ipv4Checksum);
        }
        let payload_len = view.total_len - view.header_len();
        let payload = view.payload.get(..payload_len).unwrap_or(view.payload);
        Ok(Self { payload, ..view })
    }

    /// Reads the header that an ICMP error quotes: the total length is that of the original
    /// packet, and neither it nor the checksum is trusted.
    ///
    /// # Errors
    /// `Ipv4Truncated`, `Ipv4Version`, `Ipv4HeaderLen`.
    #[inline]
    pub fn parse_embedded(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ParseError::Ipv4Truncated)?;
        if header[0] >> 4 != 4 {
            return Err(ParseError::Ipv4Version);
        }
        let header_len = usize::from(header[0] & 0xf) * 4;
        let options_len = header_len
            .checked_sub(HEADER_LEN)
            .ok_or(ParseError::Ipv4HeaderLen)?;
        let (options, payload) = rest
            .split_at_checked(options_len)
            .ok_or(ParseError::Ipv4Truncated)?;
        let total_len = usize::from(be16(header, 2));
        Ok(Self {
            header,
            options,
            payload,
            total_len,
        })
    }

    /// Header length with options, 20..=60 bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Length of the packet, bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.total_len
    }

    /// Length of the payload, bytes, whether at hand or not.
    #[inline]
    pub fn payload_len(&self) -> usize {
        self.total_len.saturating_sub(self.header_len())
    }

    /// The payload as far as it is at hand.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The options.
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// Type of service, the two low bits are ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Identification.
    pub fn id(&self) -> u16 {
        be16(self.header, 4)
    }

    /// Is the don't-fragment bit set?
    pub fn dont_fragment(&self) -> bool {
        be16(self.header, 6) & FLAG_DF != 0
    }

    /// Is this a part of a packet only?
    #[inline]
    pub fn is_fragment(&self) -> bool {
        be16(self.header, 6) & (FLAG_MF | OFFSET_MASK) != 0
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// Protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Ipv4Addr {
        Ipv4Addr::from(array::<4, _>(self.header, 12))
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Ipv4Addr {
        Ipv4Addr::from(array::<4, _>(self.header, 16))
    }

    /// Sum of the pseudo header for the payload.
    #[inline]
    pub fn pseudo_header(&self) -> u16 {
        let len = self.payload_len() as u32;
        checksum::pseudo_header_v4(self.src(), self.dst(), self.protocol(), len)
    }
}

/// Fields of an IPv4 header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Type of service with ECN.
    pub tos: u8,
    /// Length of the packet, bytes.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// The don't-fragment bit.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
}

impl Ipv4Header {
    /// Writes [`HEADER_LEN`] bytes, checksum included.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let b = out.first_chunk_mut::<HEADER_LEN>()?;
        put(b, 0, [0x45, self.tos]);
        put(b, 2, self.total_len.to_be_bytes());
        put(b, 4, self.id.to_be_bytes());
        let flags = if self.dont_fragment { FLAG_DF } else { 0 };
        put(b, 6, flags.to_be_bytes());
        put(b, 8, [self.ttl, self.protocol, 0, 0]);
        put(b, 12, self.src.octets());
        put(b, 16, self.dst.octets());
        let field = checksum::finish(checksum::sum(b));
        put(b, CHECKSUM_OFFSET, field.to_be_bytes());
        Some(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> [u8; 40] {
        let header = Ipv4Header {
            tos: 0x10,
            total_len: 30,
            id: 0xbeef,
            dont_fragment: true,
            ttl: 64,
            protocol: 6,
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(192, 0, 2, 2),
        };
        let mut out = [7; 40];
        assert_eq!(header.emit(&mut out), Some(HEADER_LEN));
        out
    }

    fn with_checksum(mut packet: [u8; 40]) -> [u8; 40] {
        let header_len = usize::from(packet[0] & 0xf) * 4;
        packet[10..12].fill(0);
        let field = checksum::finish(checksum::sum(&packet[..header_len]));
        packet[10..12].copy_from_slice(&field.to_be_bytes());
        packet
    }

    #[test]
    fn fields_come_back() {
        let out = packet();
        let view = Ipv4View::parse(&out).unwrap();
        assert_eq!(
            (view.tos(), view.id(), view.ttl(), view.protocol()),
            (0x10, 0xbeef, 64, 6)
        );
        assert_eq!(view.src(), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(view.dst(), Ipv4Addr::new(192, 0, 2, 2));
        assert!(view.dont_fragment() && !view.is_fragment());
        assert_eq!(
            (view.header_len(), view.total_len(), view.payload_len()),
            (20, 30, 10)
        );
        assert_eq!(view.payload(), [7; 10], "padding is cut off");
    }

    #[test]
    fn a_prefix_keeps_the_lengths_of_the_whole() {
        let out = packet();
        let view = Ipv4View::parse_prefix(&out[..24], 40).unwrap();
        assert_eq!((view.payload_len(), view.payload().len()), (10, 4));
        assert_eq!(
            Ipv4View::parse_prefix(&out[..24], 29).unwrap_err(),
            ParseError::Ipv4TotalLen
        );
    }

    #[test]
    fn options_are_skipped() {
        let mut out = packet();
        out[0] = 0x46;
        let out = with_checksum(out);
        let view = Ipv4View::parse(&out).unwrap();
        assert_eq!(
            (view.header_len(), view.options(), view.payload_len()),
            (24, &[7; 4][..], 6)
        );
    }

    #[test]
    fn each_flaw_has_its_reason() {
        let reason = |change: fn(&mut [u8; 40])| {
            let mut out = packet();
            change(&mut out);
            Ipv4View::parse(&with_checksum(out))
                .map(|_| ())
                .unwrap_err()
        };
        assert_eq!(
            Ipv4View::parse(&packet()[..19]).unwrap_err(),
            ParseError::Ipv4Truncated
        );
        assert_eq!(reason(|p| p[0] = 0x65), ParseError::Ipv4Version);
        assert_eq!(reason(|p| p[0] = 0x44), ParseError::Ipv4HeaderLen);
        assert_eq!(reason(|p| p[3] = 19), ParseError::Ipv4TotalLen);
        assert_eq!(reason(|p| p[3] = 41), ParseError::Ipv4TotalLen);
        let mut out = packet();
        out[8] ^= 1;
        assert_eq!(Ipv4View::parse(&out).unwrap_err(), ParseError::Ipv4Checksum);
        let mut out = packet();
        out[0] = 0x4f;
        assert_eq!(
            Ipv4View::parse(&out).unwrap_err(),
            ParseError::Ipv4Truncated
        );
    }

    #[test]
    fn fragments_are_seen() {
        for bits in [0x2000u16, 0x0001, 0x1fff] {
            let mut out = packet();
            out[6..8].copy_from_slice(&bits.to_be_bytes());
            assert!(Ipv4View::parse(&with_checksum(out)).unwrap().is_fragment());
        }
    }
}
