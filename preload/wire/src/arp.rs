//! ARP for IPv4 over Ethernet (RFC 826).

use crate::ParseError;
use crate::bytes::{array, be16, put};
use crate::ethernet::{ETH_P_IP, MacAddr};
use core::net::Ipv4Addr;

/// Length of the packet in bytes.
pub const PACKET_LEN: usize = 28;

const HTYPE_ETHERNET: u16 = 1;

/// What an ARP packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// Request or reply.
    pub operation: ArpOperation,
    /// Hardware address of the sender.
    pub sender_mac: MacAddr,
    /// IPv4 address of the sender, unspecified in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Hardware address of the target, zero in a request.
    pub target_mac: MacAddr,
    /// IPv4 address of the target.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// Reads the payload of an Ethernet frame of type ARP; padding is ignored.
    ///
    /// # Errors
    /// [`ParseError::ArpTruncated`], [`ParseError::ArpFormat`].
    pub fn parse(packet: &[u8]) -> Result<Self, ParseError> {
        let b = packet
            .first_chunk::<PACKET_LEN>()
            .ok_or(ParseError::ArpTruncated)?;
        if be16(b, 0) != HTYPE_ETHERNET || be16(b, 2) != ETH_P_IP || b[4] != 6 || b[5] != 4 {
            return Err(ParseError::ArpFormat);
        }
        let operation = match be16(b, 6) {
            1 => ArpOperation::Request,
            2 => ArpOperation::Reply,
            _ => return Err(ParseError::ArpFormat),
        };
        Ok(Self {
            operation,
            sender_mac: MacAddr(array(b, 8)),
            sender_ip: Ipv4Addr::from(array::<4, _>(b, 14)),
            target_mac: MacAddr(array(b, 18)),
            target_ip: Ipv4Addr::from(array::<4, _>(b, 24)),
        })
    }

    /// Writes [`PACKET_LEN`] bytes.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let b = out.first_chunk_mut::<PACKET_LEN>()?;
        put(b, 0, HTYPE_ETHERNET.to_be_bytes());
        put(b, 2, ETH_P_IP.to_be_bytes());
        put(b, 4, [6, 4]);
        let operation: u16 = match self.operation {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
        };
        put(b, 6, operation.to_be_bytes());
        put(b, 8, self.sender_mac.0);
        put(b, 14, self.sender_ip.octets());
        put(b, 18, self.target_mac.0);
        put(b, 24, self.target_ip.octets());
        Some(PACKET_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: ArpPacket = ArpPacket {
        operation: ArpOperation::Reply,
        sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        sender_ip: Ipv4Addr::new(192, 0, 2, 1),
        target_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        target_ip: Ipv4Addr::new(192, 0, 2, 2),
    };

    #[test]
    fn round_trip() {
        let mut out = [0; 46];
        for operation in [ArpOperation::Request, ArpOperation::Reply] {
            let packet = ArpPacket { operation, ..REPLY };
            assert_eq!(packet.emit(&mut out), Some(PACKET_LEN));
            assert_eq!(ArpPacket::parse(&out), Ok(packet));
        }
    }

    #[test]
    fn other_hardware_and_operations_are_refused() {
        let mut out = [0; PACKET_LEN];
        REPLY.emit(&mut out).unwrap();
        assert_eq!(ArpPacket::parse(&out[..27]), Err(ParseError::ArpTruncated));
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3)] {
            let mut bad = out;
            bad[at] = value;
            assert_eq!(
                ArpPacket::parse(&bad),
                Err(ParseError::ArpFormat),
                "byte {at}"
            );
        }
    }
}
