//! The virtio-net header before each frame of a packet socket with `PACKET_VNET_HDR`.

use crate::ParseError;
use crate::bytes::array;

/// Length in bytes.
pub const HEADER_LEN: usize = 10;

/// Flag: the checksum at `csum_start + csum_offset` is unfinished.
pub const VIRTIO_NET_HDR_F_NEEDS_CSUM: u8 = 1;
/// Flag: the checksum was verified.
pub const VIRTIO_NET_HDR_F_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// How a frame is to be cut, or was put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GsoType {
    /// One packet.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// Something else (UDP).
    Other(u8),
}

/// A virtio-net header. Numbers are in the machine's byte order, as packet sockets have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// How the frame is cut.
    pub gso_type: GsoType,
    /// The TCP segments have their CWR bit on the first only.
    pub ecn: bool,
    /// Length of all headers, Ethernet to TCP, bytes.
    pub hdr_len: u16,
    /// Payload of each packet, bytes.
    pub gso_size: u16,
    /// Where the checksum begins, bytes from the start of the frame.
    pub csum_start: u16,
    /// Where its field is, bytes from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Reads the header in front of a frame.
    ///
    /// # Errors
    /// [`ParseError::VnetTruncated`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let b = bytes
            .first_chunk::<HEADER_LEN>()
            .ok_or(ParseError::VnetTruncated)?;
        let ne16 = |at| u16::from_ne_bytes(array(b, at));
        let gso_type = match b[1] & !GSO_ECN {
            GSO_NONE => GsoType::None,
            GSO_TCPV4 => GsoType::TcpV4,
            GSO_TCPV6 => GsoType::TcpV6,
            other => GsoType::Other(other),
        };
        Ok(Self {
            flags: b[0],
            gso_type,
            ecn: b[1] & GSO_ECN != 0,
            hdr_len: ne16(2),
            gso_size: ne16(4),
            csum_start: ne16(6),
            csum_offset: ne16(8),
        })
    }

    /// Writes [`HEADER_LEN`] bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let b = out.first_chunk_mut::<HEADER_LEN>()?;
        let gso_type = match self.gso_type {
            GsoType::None => GSO_NONE,
            GsoType::TcpV4 => GSO_TCPV4,
            GsoType::TcpV6 => GSO_TCPV6,
            GsoType::Other(other) => other,
        };
        b[0] = self.flags;
        b[1] = gso_type | if self.ecn { GSO_ECN } else { 0 };
        b[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        b[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        b[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        b[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        Some(HEADER_LEN)
    }

    /// Must the receiver verify the checksum itself? Neither an unfinished nor a verified one
    /// needs that.
    #[inline]
    pub fn needs_verification(&self) -> bool {
        self.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gso_types_have_the_numbers_of_the_standard() {
        let mut out = [0; HEADER_LEN];
        let cases = [
            (GsoType::None, false, 0),
            (GsoType::TcpV4, false, 1),
            (GsoType::TcpV6, true, 0x84),
            (GsoType::Other(3), false, 3),
        ];
        for (gso_type, ecn, number) in cases {
            let header = VnetHeader {
                gso_type,
                ecn,
                ..VnetHeader::default()
            };
            header.emit(&mut out).unwrap();
            assert_eq!(out[1], number);
            assert_eq!(VnetHeader::parse(&out), Ok(header));
        }
    }

    #[test]
    fn short_input_and_output_are_refused() {
        assert_eq!(VnetHeader::parse(&[0; 9]), Err(ParseError::VnetTruncated));
        assert_eq!(VnetHeader::default().emit(&mut [0; 9]), None);
    }

    #[test]
    fn only_unvouched_checksums_are_verified() {
        let header = |flags| VnetHeader {
            flags,
            ..VnetHeader::default()
        };
        assert!(header(0).needs_verification());
        assert!(!header(VIRTIO_NET_HDR_F_NEEDS_CSUM).needs_verification());
        assert!(!header(VIRTIO_NET_HDR_F_DATA_VALID).needs_verification());
    }

    proptest! {
        #[test]
        fn any_header_comes_back(bytes in any::<[u8; HEADER_LEN]>()) {
            let mut out = [0; HEADER_LEN];
            VnetHeader::parse(&bytes).unwrap().emit(&mut out).unwrap();
            prop_assert_eq!(out, bytes);
        }
    }
}
