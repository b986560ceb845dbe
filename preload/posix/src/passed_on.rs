//! Segments that came while a connection was being given to the kernel, when neither it nor the engine heard them: they are in
//! the ring all the same, and come to the kernel by the loopback device, under the peer's name.

use core::net::SocketAddr;

use sidewire_engine::net::{Tuple, TxVerdict};
use sidewire_link::frame::{Checksum, FrameSource, Rest, TxFrame};
use sidewire_uapi::socket::IPPROTO_TCP;
use sidewire_wire::checksum;
use sidewire_wire::ethernet::MacAddr;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpView, set_checksum};

use crate::given::Had;
use crate::net::LinkNet;
use crate::receive::{Head, ip_total_len};
use crate::stack::{Inner, monotonic_ns};

/// Every namespace's `lo`.
pub(crate) const LOOPBACK_IFINDEX: u32 = 1;

/// The connection of a segment that begins with these headers, seen from here.
fn tuple_of(headers: &[u8]) -> Option<Tuple> {
    let len = headers.len().max(ip_total_len(headers));
    let ip = Ipv4View::parse_prefix(headers, len).ok()?;
    let tcp = TcpView::parse_prefix(&headers[ip.header_len()..], ip.payload_len()).ok()?;
    Some(Tuple {
        local: SocketAddr::new(ip.dst().into(), tcp.dst_port()),
        remote: SocketAddr::new(ip.src().into(), tcp.src_port()),
    })
}

/// Lets the TCP checksum of a whole IPv4 packet be that of the pseudo header, as where a device is to finish it; false when it
/// was `unknown` and is wrong.
fn unfinish_checksum(packet: &mut [u8], unknown: bool) -> bool {
    let Ok(ip) = Ipv4View::parse(packet) else {
        return false;
    };
    let l4 = ip.header_len();
    let len = (ip.total_len() - l4) as u32;
    let pseudo = checksum::pseudo_header_v4(ip.src(), ip.dst(), IPPROTO_TCP, len);
    let segment = &mut packet[l4..];
    if unknown && !checksum::is_valid(checksum::add(pseudo, checksum::sum(segment))) {
        return false;
    }
    set_checksum(segment, pseudo)
}

impl LinkNet {
    /// Sends an IPv4 packet with an unfinished TCP checksum to this host's kernel. Nothing comes of it where `lo` is down or
    /// `rp_filter` strict.
    pub(crate) fn by_loopback(&mut self, packet: &[u8]) -> TxVerdict {
        let headers = Ipv4View::parse(packet).ok().and_then(|ip| {
            let tcp = TcpView::parse(ip.payload()).ok()?;
            Some(ip.header_len() + tcp.header_len())
        });
        let Some((headers, payload)) = headers.and_then(|at| packet.split_at_checked(at)) else {
            return TxVerdict::Dropped;
        };
        let payload = [libc::iovec {
            iov_base: payload.as_ptr().cast_mut().cast(),
            iov_len: payload.len(),
        }];
        self.hand_over(&TxFrame {
            ifindex: LOOPBACK_IFINDEX,
            dst_mac: Some(MacAddr([0; 6])),
            src_mac: MacAddr([0; 6]),
            headers,
            frags: if payload[0].iov_len > 0 {
                &payload
            } else {
                &[]
            },
            gso_size: 0,
            mark: 0,
            priority: 0,
            tstamp: None,
            txtime: None,
        })
    }
}

impl Inner {
    /// Takes the peeked segment when it is the kernel's and that has not had it; true when it did.
    #[cold]
    pub(crate) fn pass_on(&mut self, head: &Head) -> bool {
        let Some(tuple) = tuple_of(&head.bytes[..head.len]) else {
            return false;
        };
        let had = (self.net.given).had(&tuple, head.meta.stamp, monotonic_ns());
        if had == Had::Yes {
            return false;
        }
        let Some(packet) = self.take_packet(head) else {
            return true;
        };
        if had == Had::NotYet {
            self.net.given.keep(&tuple, packet);
        } else {
            self.net.by_loopback(&packet);
        }
        true
    }

    /// The peeked segment as a whole; None when a part of it is lost or its checksum is wrong.
    fn take_packet(&mut self, head: &Head) -> Option<Box<[u8]>> {
        let mut packet = vec![0; head.len + head.payload].into_boxed_slice();
        let (headers, payload) = packet.split_at_mut(head.len);
        headers.copy_from_slice(&head.bytes[..head.len]);
        if payload.is_empty() {
            self.release();
        } else {
            self.make_oldest(head.rest);
            let into = [libc::iovec {
                iov_base: payload.as_mut_ptr().cast(),
                iov_len: payload.len(),
            }];
            // SAFETY: the packet's own bytes.
            let taken = unsafe { self.source.take(head.len, &into) };
            if head.rest == Rest::Lost || taken != Ok(payload.len()) {
                return None;
            }
        }
        unfinish_checksum(&mut packet, head.meta.csum == Checksum::Unknown).then_some(packet)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use sidewire_wire::ipv4::{HEADER_LEN, Ipv4Header};
    use sidewire_wire::tcp::{TcpFlags, TcpHeader};
    use sidewire_wire::tcp_options::TcpOptions;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1));
        let mut out = [0; 100];
        let tcp = TcpHeader {
            src_port: 4000,
            dst_port: 80,
            seq: 1,
            ack_seq: 2,
            flags: TcpFlags::ACK,
            window: 3,
            urg_ptr: 0,
        };
        let headers = tcp
            .emit(&TcpOptions::default(), &mut out[HEADER_LEN..])
            .unwrap();
        let tcp_len = headers + payload.len();
        out[HEADER_LEN + headers..][..payload.len()].copy_from_slice(payload);
        let ip = Ipv4Header {
            tos: 0,
            total_len: (HEADER_LEN + tcp_len) as u16,
            id: 0,
            dont_fragment: true,
            ttl: 64,
            protocol: IPPROTO_TCP,
            src,
            dst,
        };
        ip.emit(&mut out).unwrap();
        let pseudo = checksum::pseudo_header_v4(src, dst, IPPROTO_TCP, tcp_len as u32);
        let segment = &mut out[HEADER_LEN..][..tcp_len];
        let sum = checksum::add(pseudo, checksum::sum(segment));
        set_checksum(segment, checksum::finish(sum));
        out[..HEADER_LEN + tcp_len].to_vec()
    }

    #[test]
    fn whose_it_is() {
        let tuple = tuple_of(&packet(b"bytes")[..40]).unwrap();
        assert_eq!(tuple.local, ([10, 0, 0, 1], 80).into());
        assert_eq!(tuple.remote, ([10, 0, 0, 2], 4000).into());
        assert_eq!(tuple_of(&[0; 40]), None);
    }

    #[test]
    fn a_checksum_is_looked_at_before_it_is_replaced() {
        let mut good = packet(b"bytes");
        assert!(unfinish_checksum(&mut good, true));
        let ip = Ipv4View::parse(&good).unwrap();
        let pseudo = ip.pseudo_header();
        assert_eq!(good[HEADER_LEN + 16..][..2], pseudo.to_be_bytes());
        let mut bad = packet(b"bytes");
        bad[42] ^= 1;
        assert!(!unfinish_checksum(&mut bad.clone(), true));
        // Whose sender left it to the device is right.
        assert!(unfinish_checksum(&mut bad, false));
    }
}
