//! IPv6 (RFC 8200).

use crate::bytes::{array, be16, be32, put};
use crate::{ParseError, checksum};
use core::net::Ipv6Addr;

/// Length of the fixed header, bytes.
pub const HEADER_LEN: usize = 40;
/// Most extension headers that are skipped before the packet is refused.
pub const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// A received packet, its extension headers skipped.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6View<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
    extensions_len: usize,
    payload_len: usize,
    protocol: u8,
}

impl<'a> Ipv6View<'a> {
    /// Checks a packet that is all there. Bytes after the payload length (padding) are cut off.
    ///
    /// # Errors
    /// The `Ipv6*` reasons of [`ParseError`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_prefix(packet, packet.len())
    }

    /// Checks a packet of `packet_len` bytes of which `bytes` is the beginning. All extension
    /// headers must be there.
    ///
    /// # Errors
    /// The `Ipv6*` reasons of [`ParseError`].
    pub fn parse_prefix(bytes: &'a [u8], packet_len: usize) -> Result<Self, ParseError> {
        let view = Self::parse_embedded(bytes)?;
        let length_field = usize::from(be16(view.header, 4));
        if HEADER_LEN + length_field > packet_len || view.extensions_len > length_field {
            return Err(ParseError::Ipv6PayloadLen);
        }
        let payload = view.payload.get(..view.payload_len).unwrap_or(view.payload);
        Ok(Self { payload, ..view })
    }

    /// Reads the headers that an ICMPv6 error quotes: the payload length is that of the original
    /// packet and not trusted.
    ///
    /// # Errors
    /// All `Ipv6*` reasons but `Ipv6PayloadLen`.
    pub fn parse_embedded(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ParseError::Ipv6Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(ParseError::Ipv6Version);
        }
        let (protocol, extensions_len) = skip_extensions(header[6], rest)?;
        let payload = rest
            .get(extensions_len..)
            .ok_or(ParseError::Ipv6Truncated)?;
        let payload_len = usize::from(be16(header, 4)).saturating_sub(extensions_len);
        Ok(Self {
            header,
            payload,
            extensions_len,
            payload_len,
            protocol,
        })
    }

    /// Length of the fixed header and the extension headers, bytes.
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.extensions_len
    }

    /// Length of the payload after the extension headers, bytes, whether at hand or not.
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// The payload after the extension headers, as far as it is at hand.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Traffic class, the two low bits are ECN.
    pub fn traffic_class(&self) -> u8 {
        (be16(self.header, 0) >> 4) as u8
    }

    /// Flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        be32(self.header, 0) & 0xf_ffff
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// Protocol of the payload after the extension headers.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Source address.
    pub fn src(&self) -> Ipv6Addr {
        Ipv6Addr::from(array::<16, _>(self.header, 8))
    }

    /// Destination address.
    pub fn dst(&self) -> Ipv6Addr {
        Ipv6Addr::from(array::<16, _>(self.header, 24))
    }

    /// Sum of the pseudo header for the payload.
    pub fn pseudo_header(&self) -> u16 {
        let len = self.payload_len as u32;
        checksum::pseudo_header_v6(self.src(), self.dst(), self.protocol, len)
    }
}

/// The protocol after the extension headers, and their length.
fn skip_extensions(first: u8, bytes: &[u8]) -> Result<(u8, usize), ParseError> {
    let mut protocol = first;
    let mut len = 0;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if !matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            return Ok((protocol, len));
        }
        let header = bytes
            .get(len..)
            .and_then(<[u8]>::first_chunk::<8>)
            .ok_or(ParseError::Ipv6Truncated)?;
        match protocol {
            // A fragment that is the whole packet is legal (RFC 6946), others are not put together.
            FRAGMENT if be16(header, 2) & !0x6 != 0 => return Err(ParseError::Ipv6Fragment),
            // Segments left: another node should have it.
            ROUTING if header[3] != 0 => return Err(ParseError::Ipv6ExtensionHeader),
            // Options before all else, once (RFC 8200 §4.1).
            HOP_BY_HOP if len != 0 => return Err(ParseError::Ipv6ExtensionHeader),
            _ => {}
        }
        len += if protocol == FRAGMENT {
            8
        } else {
            8 * (usize::from(header[1]) + 1)
        };
        protocol = header[0];
    }
    Err(ParseError::Ipv6ExtensionHeader)
}

/// Fields of an IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Traffic class with ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Bytes after this header.
    pub payload_len: u16,
    /// Protocol of the payload.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
}

impl Ipv6Header {
    /// Writes [`HEADER_LEN`] bytes.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let b = out.first_chunk_mut::<HEADER_LEN>()?;
        let class = u32::from(self.traffic_class) << 20;
        put(
            b,
            0,
            (6 << 28 | class | self.flow_label & 0xf_ffff).to_be_bytes(),
        );
        put(b, 4, self.payload_len.to_be_bytes());
        put(b, 6, [self.next_header, self.hop_limit]);
        put(b, 8, self.src.octets());
        put(b, 24, self.dst.octets());
        Some(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let header = Ipv6Header {
            traffic_class: 0xa5,
            flow_label: 0x12345,
            payload_len: payload.len() as u16,
            next_header,
            hop_limit: 255,
            src: Ipv6Addr::new(0xfd91, 0, 0, 0, 0, 0, 0, 1),
            dst: Ipv6Addr::new(0xfd91, 0, 0, 0, 0, 0, 0, 2),
        };
        let mut out = std::vec![0; HEADER_LEN];
        assert_eq!(header.emit(&mut out), Some(HEADER_LEN));
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn fields_come_back() {
        let mut out = packet(6, &[1, 2, 3]);
        out.push(0);
        let view = Ipv6View::parse(&out).unwrap();
        assert_eq!((view.traffic_class(), view.flow_label()), (0xa5, 0x12345));
        assert_eq!((view.protocol(), view.hop_limit()), (6, 255));
        assert_eq!(view.src(), Ipv6Addr::new(0xfd91, 0, 0, 0, 0, 0, 0, 1));
        assert_eq!(view.dst(), Ipv6Addr::new(0xfd91, 0, 0, 0, 0, 0, 0, 2));
        assert_eq!((view.payload(), view.payload_len()), (&[1, 2, 3][..], 3));
    }

    #[test]
    fn extension_headers_are_skipped() {
        let mut payload = std::vec![DESTINATION, 1];
        payload.extend_from_slice(&[0; 14]);
        payload.extend_from_slice(&[FRAGMENT, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend_from_slice(&[6, 99, 0, 0, 1, 2, 3, 4]);
        payload.extend_from_slice(&[8, 8]);
        let out = packet(HOP_BY_HOP, &payload);
        let view = Ipv6View::parse(&out).unwrap();
        assert_eq!((view.protocol(), view.payload()), (6, &[8, 8][..]));
        assert_eq!((view.header_len(), view.payload_len()), (72, 2));
    }

    #[test]
    fn each_flaw_has_its_reason() {
        let reason = |packet: &[u8]| Ipv6View::parse(packet).map(|_| ()).unwrap_err();
        let good = packet(6, &[0; 4]);
        assert_eq!(reason(&good[..39]), ParseError::Ipv6Truncated);
        assert_eq!(reason(&good[..43]), ParseError::Ipv6PayloadLen);
        let mut v4 = good.clone();
        v4[0] = 0x45;
        assert_eq!(reason(&v4), ParseError::Ipv6Version);
        assert_eq!(
            reason(&packet(DESTINATION, &[6, 0, 0])),
            ParseError::Ipv6Truncated
        );
        assert_eq!(
            reason(&packet(DESTINATION, &[6, 9, 0, 0, 0, 0, 0, 0])),
            ParseError::Ipv6Truncated
        );
        assert_eq!(
            reason(&packet(FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 0])),
            ParseError::Ipv6Fragment
        );
        let routed = packet(ROUTING, &[6, 0, 4, 1, 0, 0, 0, 0]);
        assert_eq!(reason(&routed), ParseError::Ipv6ExtensionHeader);
        let endless = packet(DESTINATION, &[DESTINATION, 0, 0, 0, 0, 0, 0, 0].repeat(20));
        assert_eq!(reason(&endless), ParseError::Ipv6ExtensionHeader);
        let mut lying = packet(DESTINATION, &[6, 0, 0, 0, 0, 0, 0, 0]);
        lying[5] = 7;
        assert_eq!(reason(&lying), ParseError::Ipv6PayloadLen);
    }
}
