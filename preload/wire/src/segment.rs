//! Segmentation of a TCP super-frame in software, for devices that refuse to do it.

use crate::ipv4::{self, Ipv4View};
use crate::ipv6::{self, Ipv6View};
use crate::tcp::{self, TcpFlags, TcpView};
use crate::{ParseError, checksum};
use core::net::{Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use sidewire_uapi::socket::IPPROTO_TCP;

#[derive(Clone, Copy, Debug)]
enum Network {
    V4 {
        src: Ipv4Addr,
        dst: Ipv4Addr,
        id: u16,
    },
    V6 {
        src: Ipv6Addr,
        dst: Ipv6Addr,
    },
}

/// A super-frame's headers, from the network header to the end of the TCP options, and how its
/// payload is cut. Iterates over the [`Segment`]s.
#[derive(Clone, Debug)]
pub struct Segmenter<'a> {
    headers: &'a [u8],
    network: Network,
    tcp_offset: usize,
    seq: u32,
    flags: TcpFlags,
    payload_len: usize,
    gso_size: usize,
    next: usize,
    count: u16,
}

/// One packet of a super-frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where its payload begins in that of the super-frame, bytes.
    pub offset: usize,
    /// Length of its payload, bytes.
    pub len: usize,
    /// Sequence number.
    pub seq: u32,
    /// Control bits: FIN and PSH on the last segment only, CWR on the first only.
    pub flags: TcpFlags,
    /// Position in the super-frame, from 0; added to the IPv4 identification.
    pub index: u16,
}

impl<'a> Segmenter<'a> {
    /// Prepares to cut `payload_len` bytes into packets of `gso_size`. `headers` holds the IP
    /// header and the TCP header with options, no more; lengths and checksums in them need not
    /// be right.
    ///
    /// # Errors
    /// [`ParseError::SegmentHeaders`] when `headers` is something else.
    pub fn new(
        headers: &'a [u8],
        payload_len: usize,
        gso_size: NonZeroU16,
    ) -> Result<Self, ParseError> {
        let wrong = |_| ParseError::SegmentHeaders;
        let (network, tcp_offset, protocol) = match headers.first().map(|b| b >> 4) {
            Some(4) => {
                let ip = Ipv4View::parse_embedded(headers).map_err(wrong)?;
                let network = Network::V4 {
                    src: ip.src(),
                    dst: ip.dst(),
                    id: ip.id(),
                };
                (network, ip.header_len(), ip.protocol())
            }
            Some(6) => {
                let ip = Ipv6View::parse_embedded(headers).map_err(wrong)?;
                (
                    Network::V6 {
                        src: ip.src(),
                        dst: ip.dst(),
                    },
                    ip.header_len(),
                    ip.protocol(),
                )
            }
            _ => return Err(ParseError::SegmentHeaders),
        };
        let tcp = headers
            .get(tcp_offset..)
            .ok_or(ParseError::SegmentHeaders)?;
        let tcp = TcpView::parse(tcp).map_err(wrong)?;
        if protocol != IPPROTO_TCP || tcp.payload_len() != 0 {
            return Err(ParseError::SegmentHeaders);
        }
        Ok(Self {
            headers,
            network,
            tcp_offset,
            seq: tcp.seq(),
            flags: tcp.flags(),
            payload_len,
            gso_size: usize::from(gso_size.get()),
            next: 0,
            count: 0,
        })
    }

    /// Writes the headers of `segment`, as many bytes as the super-frame's are, with all lengths
    /// and checksums right. `payload_sum` is [`checksum::sum`] of the segment's payload. `None`
    /// when `out` is too short or the packet would exceed 65535 bytes.
    pub fn emit(&self, segment: &Segment, payload_sum: u16, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..self.headers.len())?;
        out.copy_from_slice(self.headers);
        let segment_len = u16::try_from(out.len() - self.tcp_offset + segment.len).ok()?;
        let (ip, tcp) = out.split_at_mut_checked(self.tcp_offset)?;
        let pseudo_header = match self.network {
            Network::V4 { src, dst, id } => {
                let total_len = u16::try_from(ip.len() + usize::from(segment_len)).ok()?;
                put(ip, 2, total_len)?;
                put(ip, 4, id.wrapping_add(segment.index))?;
                put(ip, ipv4::CHECKSUM_OFFSET, 0)?;
                let field = checksum::finish(checksum::sum(ip));
                put(ip, ipv4::CHECKSUM_OFFSET, field)?;
                checksum::pseudo_header_v4(src, dst, IPPROTO_TCP, segment_len.into())
            }
            Network::V6 { src, dst } => {
                let extensions_len = (ip.len() - ipv6::HEADER_LEN) as u16;
                put(ip, 4, segment_len.checked_add(extensions_len)?)?;
                checksum::pseudo_header_v6(src, dst, IPPROTO_TCP, segment_len.into())
            }
        };
        let header = tcp.first_chunk_mut::<{ tcp::HEADER_LEN }>()?;
        header[4..8].copy_from_slice(&segment.seq.to_be_bytes());
        header[13] = segment.flags.bits();
        tcp::set_checksum(tcp, 0);
        let sum = checksum::add(pseudo_header, checksum::sum(tcp));
        let field = checksum::finish(checksum::add(sum, payload_sum));
        tcp::set_checksum(tcp, field);
        Some(out.len())
    }
}

impl Iterator for Segmenter<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        // A frame without payload is one segment.
        if self.next >= self.payload_len && (self.next, self.count) != (0, 0) {
            return None;
        }
        let offset = self.next;
        let len = self.gso_size.min(self.payload_len - offset);
        let mut flags = self.flags;
        if offset > 0 {
            flags.remove(TcpFlags::CWR);
        }
        if offset + len < self.payload_len {
            flags.remove(TcpFlags::FIN | TcpFlags::PSH);
        }
        let segment = Segment {
            offset,
            len,
            seq: self.seq.wrapping_add(offset as u32),
            flags,
            index: self.count,
        };
        self.next = offset + len;
        self.count = self.count.wrapping_add(1);
        Some(segment)
    }
}

fn put(header: &mut [u8], at: usize, value: u16) -> Option<()> {
    header
        .get_mut(at..at + 2)?
        .copy_from_slice(&value.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::ipv4::Ipv4Header;
    use crate::ipv6::Ipv6Header;
    use crate::tcp::TcpHeader;
    use crate::tcp_options::TcpOptions;
    use std::vec::Vec;

    const TCP: TcpHeader = TcpHeader {
        src_port: 1,
        dst_port: 2,
        seq: u32::MAX - 99,
        ack_seq: 7,
        flags: TcpFlags::ACK
            .union(TcpFlags::PSH)
            .union(TcpFlags::FIN)
            .union(TcpFlags::CWR),
        window: 500,
        urg_ptr: 0,
    };

    fn v4_headers() -> Vec<u8> {
        let mut out = std::vec![0; 80];
        let ip = Ipv4Header {
            tos: 0,
            total_len: 0,
            id: 0xffff,
            dont_fragment: true,
            ttl: 64,
            protocol: IPPROTO_TCP,
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(192, 0, 2, 2),
        };
        let at = ip.emit(&mut out).unwrap();
        let options = TcpOptions {
            timestamps: Some((3, 4)),
            ..TcpOptions::default()
        };
        let len = at + TCP.emit(&options, &mut out[at..]).unwrap();
        out.truncate(len);
        out
    }

    fn v6_headers() -> Vec<u8> {
        let mut out = std::vec![0; 100];
        let ip = Ipv6Header {
            traffic_class: 0,
            flow_label: 5,
            payload_len: 0,
            next_header: IPPROTO_TCP,
            hop_limit: 64,
            src: Ipv6Addr::LOCALHOST,
            dst: Ipv6Addr::new(0xfd91, 0, 0, 0, 0, 0, 0, 2),
        };
        let at = ip.emit(&mut out).unwrap();
        let len = at + TCP.emit(&TcpOptions::default(), &mut out[at..]).unwrap();
        out.truncate(len);
        out
    }

    fn cut(headers: &[u8], payload: &[u8], gso_size: u16) -> Vec<Vec<u8>> {
        let segmenter =
            Segmenter::new(headers, payload.len(), NonZeroU16::new(gso_size).unwrap()).unwrap();
        segmenter
            .clone()
            .map(|segment| {
                let data = &payload[segment.offset..segment.offset + segment.len];
                let mut packet = std::vec![0; headers.len()];
                let len = segmenter.emit(&segment, checksum::sum(data), &mut packet);
                assert_eq!(len, Some(headers.len()));
                packet.extend_from_slice(data);
                packet
            })
            .collect()
    }

    #[test]
    fn ipv4_packets_are_right_and_whole() {
        let payload: Vec<u8> = (0..2501u32).map(|n| n as u8).collect();
        let packets = cut(&v4_headers(), &payload, 1000);
        assert_eq!(packets.len(), 3);
        let mut stream = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let ip = Ipv4View::parse(packet).unwrap();
            assert_eq!(ip.total_len(), packet.len());
            assert_eq!(ip.id(), 0xffffu16.wrapping_add(n as u16));
            let tcp = TcpView::parse(ip.payload()).unwrap();
            assert!(tcp.checksum_ok(ip.pseudo_header()));
            assert_eq!(tcp.seq(), TCP.seq.wrapping_add(stream.len() as u32));
            assert_eq!(tcp.flags().contains(TcpFlags::CWR), n == 0);
            assert_eq!(tcp.flags().contains(TcpFlags::PSH | TcpFlags::FIN), n == 2);
            assert_eq!(
                tcp.flags().intersects(TcpFlags::PSH | TcpFlags::FIN),
                n == 2
            );
            assert_eq!(
                TcpOptions::parse(tcp.options(), false).timestamps,
                Some((3, 4))
            );
            stream.extend_from_slice(tcp.payload());
        }
        assert_eq!(stream, payload);
    }

    #[test]
    fn ipv6_packets_are_right_and_whole() {
        let payload = [3; 200];
        let packets = cut(&v6_headers(), &payload, 100);
        assert_eq!(packets.len(), 2);
        for packet in packets {
            let ip = Ipv6View::parse(&packet).unwrap();
            assert_eq!(ip.header_len() + ip.payload_len(), packet.len());
            let tcp = TcpView::parse(ip.payload()).unwrap();
            assert!(tcp.checksum_ok(ip.pseudo_header()));
            assert_eq!(tcp.payload(), [3; 100]);
        }
    }

    #[test]
    fn no_payload_is_one_packet() {
        let packets = cut(&v4_headers(), &[], 1000);
        assert_eq!(packets.len(), 1);
        let ip = Ipv4View::parse(&packets[0]).unwrap();
        assert_eq!(TcpView::parse(ip.payload()).unwrap().flags(), TCP.flags);
    }

    #[test]
    fn other_headers_are_refused() {
        let size = NonZeroU16::new(100).unwrap();
        let refused = |headers: &[u8]| {
            assert_eq!(
                Segmenter::new(headers, 9, size).unwrap_err(),
                ParseError::SegmentHeaders
            );
        };
        let mut headers = v4_headers();
        refused(&[]);
        refused(&headers[..51]);
        headers.push(0);
        refused(&headers);
        headers.pop();
        headers[9] = 17;
        refused(&headers);
        headers[0] = 0x55;
        refused(&headers);
    }
}
