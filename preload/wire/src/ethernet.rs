//! Ethernet II frames.

use crate::ParseError;
use crate::bytes::{array, be16, put};
use core::fmt;

/// Length of the header in bytes, without a VLAN tag.
pub const HEADER_LEN: usize = 14;

/// IPv4.
pub const ETH_P_IP: u16 = 0x0800;
/// ARP.
pub const ETH_P_ARP: u16 = 0x0806;
/// A VLAN tag follows.
pub const ETH_P_8021Q: u16 = 0x8100;
/// IPv6.
pub const ETH_P_IPV6: u16 = 0x86dd;
/// A provider VLAN tag follows.
pub const ETH_P_8021AD: u16 = 0x88a8;

/// A hardware address.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// Unknown, as in an ARP request.
    pub const UNSPECIFIED: Self = Self([0; 6]);

    /// Is this a group address (broadcast included)?
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A received frame.
#[derive(Clone, Copy, Debug)]
pub struct EthernetView<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> EthernetView<'a> {
    /// Checks the length.
    ///
    /// # Errors
    /// [`ParseError::FrameTruncated`].
    pub fn parse(frame: &'a [u8]) -> Result<Self, ParseError> {
        let (header, payload) = frame
            .split_first_chunk()
            .ok_or(ParseError::FrameTruncated)?;
        Ok(Self { header, payload })
    }

    /// Who it is for.
    pub fn dst(&self) -> MacAddr {
        MacAddr(array(self.header, 0))
    }

    /// Who sent it.
    pub fn src(&self) -> MacAddr {
        MacAddr(array(self.header, 6))
    }

    /// Protocol of the payload, `ETH_P_*`.
    pub fn ethertype(&self) -> u16 {
        be16(self.header, 12)
    }

    /// Everything after the header, padding included.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Fields of an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader {
    /// Who it is for.
    pub dst: MacAddr,
    /// Who sends it.
    pub src: MacAddr,
    /// Protocol of the payload, `ETH_P_*`.
    pub ethertype: u16,
}

impl EthernetHeader {
    /// Writes [`HEADER_LEN`] bytes.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let out = out.first_chunk_mut::<HEADER_LEN>()?;
        put(out, 0, self.dst.0);
        put(out, 6, self.src.0);
        put(out, 12, self.ethertype.to_be_bytes());
        Some(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn round_trip() {
        let header = EthernetHeader {
            dst: MacAddr([1, 2, 3, 4, 5, 6]),
            src: MacAddr([0xa, 0xb, 0xc, 0xd, 0xe, 0xf]),
            ethertype: ETH_P_IPV6,
        };
        let mut frame = [9; 20];
        assert_eq!(header.emit(&mut frame), Some(HEADER_LEN));
        let view = EthernetView::parse(&frame).unwrap();
        assert_eq!((view.dst(), view.src()), (header.dst, header.src));
        assert_eq!(view.ethertype(), ETH_P_IPV6);
        assert_eq!(view.payload(), [9; 6]);
        assert_eq!(view.src().to_string(), "0a:0b:0c:0d:0e:0f");
        assert!(view.dst().is_multicast());
    }

    #[test]
    fn short_input_and_output_are_refused() {
        let err = EthernetView::parse(&[0; 13]).unwrap_err();
        assert_eq!(err, ParseError::FrameTruncated);
        let header = EthernetHeader {
            dst: MacAddr::BROADCAST,
            src: MacAddr::UNSPECIFIED,
            ethertype: ETH_P_IP,
        };
        assert_eq!(header.emit(&mut [0; 13]), None);
    }
}
