//! Generic receive offload: segments that arrive together and fit together become one.

use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpFlags, TcpView};

/// Largest super-frame, bytes.
const MAX_LEN: usize = 65_535;

/// Segments that were put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// IP and TCP headers of the first, with the flags of the last.
    pub headers: Vec<u8>,
    /// All payload.
    pub payload: Vec<u8>,
    /// Number of segments.
    pub segs: u32,
    /// Payload of each but the last, bytes.
    pub size: usize,
}

/// Where the control bits stand in a TCP header.
const FLAGS: usize = 13;

/// Takes the run of segments at the head of `packets` that a device would hand over as one, and
/// returns it with their number. `None` when the head is nothing to merge (no payload, other
/// flags, a bad checksum): it goes by itself.
#[must_use]
pub fn merge(packets: &[Vec<u8>]) -> Option<(Merged, usize)> {
    let first = mergeable(packets.first()?)?;
    let (mut next_seq, size) = (first.tcp.end_seq(), first.tcp.payload_len());
    let mut merged = Merged {
        headers: packets[0][..first.header_len].to_vec(),
        payload: first.tcp.payload().to_vec(),
        segs: 1,
        size,
    };
    let l4 = first.l4_offset;
    let mut ended = first.tcp.flags().contains(TcpFlags::PSH);
    for packet in &packets[1..] {
        let Some(next) = mergeable(packet) else { break };
        let len = next.tcp.payload_len();
        let fits = !ended
            && next.tcp.seq() == next_seq
            && len <= size
            && next.same_flow(&first)
            && merged.headers.len() + merged.payload.len() + len <= MAX_LEN;
        if !fits {
            break;
        }
        next_seq = next.tcp.end_seq();
        ended = len < size || next.tcp.flags().contains(TcpFlags::PSH);
        merged.payload.extend_from_slice(next.tcp.payload());
        merged.headers[l4 + FLAGS] |= next.tcp.flags().bits();
        merged.segs += 1;
    }
    let count = merged.segs as usize;
    let total_len = (merged.headers.len() + merged.payload.len()) as u16;
    merged.headers[2..4].copy_from_slice(&total_len.to_be_bytes());
    refresh_checksum(&mut merged.headers[..l4]);
    Some((merged, count))
}

fn refresh_checksum(ip: &mut [u8]) {
    use sidewire_wire::{checksum, ipv4::CHECKSUM_OFFSET};
    ip[CHECKSUM_OFFSET..][..2].fill(0);
    let field = checksum::finish(checksum::sum(ip));
    ip[CHECKSUM_OFFSET..][..2].copy_from_slice(&field.to_be_bytes());
}

struct Candidate<'a> {
    ip: Ipv4View<'a>,
    tcp: TcpView<'a>,
    l4_offset: usize,
    header_len: usize,
}

impl Candidate<'_> {
    fn same_flow(&self, other: &Self) -> bool {
        let key = |c: &Self| {
            let ports = (c.tcp.src_port(), c.tcp.dst_port());
            let acks = (c.tcp.ack_seq(), c.tcp.window());
            (c.ip.src(), c.ip.dst(), c.ip.tos(), ports, acks)
        };
        key(self) == key(other) && self.tcp.options() == other.tcp.options()
    }
}

fn mergeable(packet: &[u8]) -> Option<Candidate<'_>> {
    let ip = Ipv4View::parse(packet).ok()?;
    let tcp = TcpView::parse(ip.payload()).ok()?;
    let plain = tcp.flags() - TcpFlags::PSH == TcpFlags::ACK;
    let good = tcp.payload_len() > 0 && tcp.checksum_ok(ip.pseudo_header());
    let l4_offset = ip.header_len();
    let header_len = l4_offset + tcp.header_len();
    (plain && good).then_some(Candidate {
        ip,
        tcp,
        l4_offset,
        header_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::finish_checksum;
    use sidewire_wire::checksum::pseudo_header_v4;
    use sidewire_wire::ipv4::Ipv4Header;
    use sidewire_wire::tcp::{TcpHeader, TcpOptions};
    use std::net::Ipv4Addr;

    fn packet(seq: u32, len: usize, flags: TcpFlags) -> Vec<u8> {
        let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let tcp = TcpHeader {
            seq,
            flags,
            ..TcpHeader::default()
        };
        let mut segment = vec![0; 20];
        tcp.emit(&TcpOptions::default(), &mut segment).unwrap();
        segment.resize(20 + len, seq as u8);
        let ip = Ipv4Header {
            tos: 0,
            total_len: (20 + segment.len()) as u16,
            id: 0,
            dont_fragment: true,
            ttl: 64,
            protocol: 6,
            src,
            dst,
        };
        let mut packet = vec![0; 20];
        ip.emit(&mut packet).unwrap();
        let pseudo_header = pseudo_header_v4(src, dst, 6, segment.len() as u32);
        finish_checksum(&mut segment, pseudo_header);
        packet.extend_from_slice(&segment);
        packet
    }

    #[test]
    fn a_run_of_equal_segments_becomes_one() {
        let push = TcpFlags::ACK | TcpFlags::PSH;
        let packets = [
            packet(0, 10, TcpFlags::ACK),
            packet(10, 10, TcpFlags::ACK),
            packet(20, 4, push),
        ];
        let (merged, count) = merge(&packets).unwrap();
        assert_eq!((count, merged.segs, merged.size), (3, 3, 10));
        assert_eq!(merged.payload.len(), 24);
        let whole = [merged.headers.clone(), merged.payload].concat();
        let ip = Ipv4View::parse(&whole).unwrap();
        assert_eq!(TcpView::parse(ip.payload()).unwrap().flags(), push);
    }

    #[test]
    fn gaps_short_segments_and_flags_end_it() {
        let ack = TcpFlags::ACK;
        let count = |packets: &[Vec<u8>]| merge(packets).map_or(0, |(_, count)| count);
        assert_eq!(count(&[packet(0, 10, ack), packet(11, 10, ack)]), 1);
        assert_eq!(
            count(&[packet(0, 10, ack), packet(10, 4, ack), packet(14, 4, ack)]),
            2
        );
        assert_eq!(count(&[packet(0, 10, ack), packet(10, 20, ack)]), 1);
        assert_eq!(
            count(&[packet(0, 10, ack | TcpFlags::PSH), packet(10, 10, ack)]),
            1
        );
        assert_eq!(
            count(&[packet(0, 10, ack), packet(10, 10, ack | TcpFlags::FIN)]),
            1
        );
        assert_eq!(count(&[packet(0, 0, ack)]), 0);
        let mut spoilt = packet(10, 10, ack);
        spoilt[45] ^= 1;
        assert_eq!(count(&[packet(0, 10, ack), spoilt]), 1);
    }
}
