//! From frames to vnet headers and back: what a TCP frame asks of the device, and what the kernel says of one.

use crate::frame::Checksum;
use sidewire_wire::tcp::TcpFlags;
use sidewire_wire::vnet::{
    GsoType, HEADER_LEN, VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VnetHeader,
};

/// Bytes of the header.
pub const VNET_HDR_LEN: usize = HEADER_LEN;

/// Offset of the checksum, and of the flags, within the TCP header.
const TCP_CHECK_OFFSET: u16 = 16;
const TCP_FLAGS_OFFSET: usize = 13;

/// What a received vnet header says: payload bytes per merged segment (0 for a frame that was not merged), and the
/// state of the checksum.
pub fn offload(bytes: &[u8]) -> (u16, Checksum) {
    let Ok(hdr) = VnetHeader::parse(bytes) else {
        return (0, Checksum::Unknown);
    };
    let csum = if hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
        Checksum::NotReady
    } else if hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID != 0 {
        Checksum::Valid
    } else {
        Checksum::Unknown
    };
    (
        if hdr.gso_type == GsoType::None {
            0
        } else {
            hdr.gso_size
        },
        csum,
    )
}

/// The header of a TCP frame whose checksum the device finishes: `l2` bytes of link-layer header in front of
/// `headers` (IP and TCP), `gso_size` payload bytes per segment or 0. None when `headers` is not IPv4 or IPv6 with
/// TCP right behind.
pub fn for_tcp(headers: &[u8], l2: usize, gso_size: u16) -> Option<VnetHeader> {
    let (l3, gso_type) = match headers.first()? >> 4 {
        4 => (usize::from(headers[0] & 15) * 4, GsoType::TcpV4),
        6 => (40, GsoType::TcpV6),
        _ => return None,
    };
    let flags = TcpFlags::from_bits_retain(*headers.get(l3 + TCP_FLAGS_OFFSET)?);
    Some(VnetHeader {
        flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
        gso_type: if gso_size == 0 {
            GsoType::None
        } else {
            gso_type
        },
        // Tells the cutter to leave CWR on the first segment only (RFC 3168 §6.1.2).
        ecn: gso_size != 0 && flags.contains(TcpFlags::CWR),
        hdr_len: (l2 + headers.len()) as u16,
        gso_size,
        csum_start: (l2 + l3) as u16,
        csum_offset: TCP_CHECK_OFFSET,
    })
}

/// Payload bytes from which on [`aligned`] counts: two such frames are too long for a receiver to merge (GRO), and a
/// frame with payload beside its headers would merge the slower way.
const ALIGNED_MIN: usize = 32 * 1024;
/// Copies whose two sides lie alike within so many bytes are the fastest.
const CACHE_LINE: usize = 64;

/// How many bytes of payload are to stand beside the headers: `hdr_len` says how long the contiguous part of the kernel's
/// frame is, and what comes after that is copied to the beginning of pages of its own. With these many the longest part
/// of the payload lies there as it lies here, within a cache line. Where it does not, the copy takes a fifth longer, and
/// more than twice as long where it comes to lie up to 15 bytes further into its page (measured, `rep movsb` of AMD's Zen 4).
pub fn aligned(payload: &[libc::iovec]) -> u16 {
    let mut len = 0;
    let mut longest = (0, 0, 0);
    for part in payload {
        if part.iov_len > longest.0 {
            longest = (part.iov_len, len, part.iov_base.addr());
        }
        len += part.iov_len;
    }
    if len < ALIGNED_MIN {
        return 0;
    }
    let (_, offset, address) = longest;
    (offset.wrapping_sub(address) % CACHE_LINE) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(address: usize, iov_len: usize) -> libc::iovec {
        libc::iovec {
            iov_base: core::ptr::without_provenance_mut(address),
            iov_len,
        }
    }

    #[test]
    fn the_longest_part_lies_in_the_frame_as_in_memory() {
        assert_eq!(aligned(&[part(4096, 65160)]), 0);
        assert_eq!(aligned(&[part(4096 + 8, 65160)]), 56);
        // 100 bytes come first, of which 36 stand beside the headers.
        assert_eq!(aligned(&[part(7, 100), part(8192, 65000)]), 36);
        // Both sides lie alike, whichever the address.
        for address in 4096..4200 {
            let beside = usize::from(aligned(&[part(3, 77), part(address, 40000)]));
            assert_eq!((77 - beside as isize).rem_euclid(64) as usize, address % 64);
        }
    }

    #[test]
    fn short_frames_are_left_alone() {
        assert_eq!(aligned(&[part(4096 + 8, ALIGNED_MIN - 1)]), 0);
        assert_eq!(aligned(&[]), 0);
    }

    fn headers() -> [u8; 40] {
        let mut h = [0u8; 40];
        h[0] = 0x45;
        h[32] = 0x50;
        h
    }

    #[test]
    fn single_segment_asks_for_the_checksum_only() {
        let h = for_tcp(&headers(), 14, 0).unwrap();
        assert_eq!((h.gso_type, h.gso_size, h.ecn), (GsoType::None, 0, false));
        assert_eq!((h.hdr_len, h.csum_start, h.csum_offset), (54, 34, 16));
    }

    #[test]
    fn super_frame_with_cwr_is_marked_ecn() {
        let mut frame = headers();
        frame[33] = TcpFlags::CWR.bits();
        let h = for_tcp(&frame, 0, 1448).unwrap();
        assert_eq!(
            (h.gso_type, h.gso_size, h.ecn),
            (GsoType::TcpV4, 1448, true)
        );
        let mut bytes = [0; VNET_HDR_LEN];
        h.emit(&mut bytes).unwrap();
        assert_eq!(offload(&bytes), (1448, Checksum::NotReady));
    }

    #[test]
    fn other_protocols_are_refused() {
        assert!(for_tcp(&[0x50; 40], 14, 0).is_none());
        assert!(for_tcp(&[0x45; 20], 14, 0).is_none());
        assert!(for_tcp(&[], 14, 0).is_none());
    }
}
