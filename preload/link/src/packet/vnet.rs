//! The virtio-net header that stands in front of every frame of a packet socket (VIRTIO 1.2 §5.1.6, the 10-byte
//! form, in the host's byte order as `PACKET_VNET_HDR` has it).

use crate::frame::Checksum;

/// Bytes of the header.
pub const VNET_HDR_LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// Offset of the checksum within the TCP header.
const TCP_CHECK_OFFSET: u16 = 16;

/// TCP's CWR flag, in byte 13 of its header.
const TCP_CWR: u8 = 0x80;

/// What a received vnet header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxOffload {
    /// Payload bytes per merged segment; 0 for a frame that was not merged.
    pub gso_size: u16,
    /// State of the checksum.
    pub csum: Checksum,
}

/// Reads a vnet header.
pub fn parse(hdr: &[u8; VNET_HDR_LEN]) -> RxOffload {
    let csum = if hdr[0] & F_NEEDS_CSUM != 0 {
        Checksum::NotReady
    } else if hdr[0] & F_DATA_VALID != 0 {
        Checksum::Valid
    } else {
        Checksum::Unknown
    };
    let gso_size = if hdr[1] & !GSO_ECN == 0 { 0 } else { u16::from_ne_bytes([hdr[4], hdr[5]]) };
    RxOffload { gso_size, csum }
}

/// The header of a TCP frame whose checksum is to be finished by the device: `l2` bytes of link-layer header in front
/// of `headers` (IP and TCP), `gso_size` payload bytes per segment or 0. None when `headers` is not IPv4 or IPv6 with
/// TCP right behind.
pub fn for_tcp(headers: &[u8], l2: usize, gso_size: u16) -> Option<[u8; VNET_HDR_LEN]> {
    let (l3, gso_type) = match headers.first()? >> 4 {
        4 => (usize::from(headers[0] & 15) * 4, GSO_TCPV4),
        6 => (40, GSO_TCPV6),
        _ => return None,
    };
    let flags = headers.get(l3 + 13)?;
    let mut hdr = [0u8; VNET_HDR_LEN];
    hdr[0] = F_NEEDS_CSUM;
    if gso_size != 0 {
        // ECN tells the cutter to leave CWR on the first segment only (RFC 3168 §6.1.2).
        hdr[1] = gso_type | if flags & TCP_CWR != 0 { GSO_ECN } else { 0 };
        hdr[4..6].copy_from_slice(&gso_size.to_ne_bytes());
    }
    hdr[2..4].copy_from_slice(&((l2 + headers.len()) as u16).to_ne_bytes());
    hdr[6..8].copy_from_slice(&((l2 + l3) as u16).to_ne_bytes());
    hdr[8..10].copy_from_slice(&TCP_CHECK_OFFSET.to_ne_bytes());
    Some(hdr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> [u8; 40] {
        let mut h = [0u8; 40];
        h[0] = 0x45;
        h[32] = 0x50;
        h
    }

    #[test]
    fn single_segment_asks_for_the_checksum_only() {
        let h = for_tcp(&headers(), 14, 0).unwrap();
        assert_eq!(h[0], F_NEEDS_CSUM);
        assert_eq!(h[1], 0);
        assert_eq!(u16::from_ne_bytes([h[2], h[3]]), 54);
        assert_eq!(u16::from_ne_bytes([h[6], h[7]]), 34);
        assert_eq!(u16::from_ne_bytes([h[8], h[9]]), 16);
    }

    #[test]
    fn super_frame_with_cwr_is_marked_ecn() {
        let mut frame = headers();
        frame[33] = TCP_CWR;
        let h = for_tcp(&frame, 0, 1448).unwrap();
        assert_eq!(h[1], GSO_TCPV4 | GSO_ECN);
        assert_eq!(parse(&h), RxOffload { gso_size: 1448, csum: Checksum::NotReady });
    }

    #[test]
    fn other_protocols_are_refused() {
        assert!(for_tcp(&[0x50; 40], 14, 0).is_none());
        assert!(for_tcp(&[0x45; 20], 14, 0).is_none());
        assert!(for_tcp(&[], 14, 0).is_none());
    }
}
