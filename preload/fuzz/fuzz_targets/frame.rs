//! A frame through every parser that a received one meets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_uapi::socket::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP};
use sidewire_wire::arp::ArpPacket;
use sidewire_wire::ethernet::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, EthernetView};
use sidewire_wire::icmp::IcmpError;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::ipv6::Ipv6View;
use sidewire_wire::ndp::NdpMessage;
use sidewire_wire::segment::Segmenter;
use sidewire_wire::tcp::TcpView;
use sidewire_wire::tcp_options::TcpOptions;

// First two bytes: how many bytes of the frame are not at hand.
fuzz_target!(|data: &[u8]| {
    let Some(([high, low], frame)) = data.split_first_chunk() else {
        return;
    };
    let missing = usize::from(u16::from_be_bytes([*high, *low]));
    let Ok(ethernet) = EthernetView::parse(frame) else {
        return;
    };
    let packet = ethernet.payload();
    let whole = packet.len() + missing;
    match ethernet.ethertype() {
        ETH_P_ARP => {
            if let Ok(arp) = ArpPacket::parse(packet) {
                let mut out = [0; 28];
                assert_eq!(arp.emit(&mut out), Some(28));
                assert_eq!(ArpPacket::parse(&out), Ok(arp));
            }
        }
        ETH_P_IP => {
            let Ok(ip) = Ipv4View::parse_prefix(packet, whole) else {
                return;
            };
            assert!(ip.header_len() + ip.payload_len() <= whole);
            match ip.protocol() {
                IPPROTO_TCP => tcp(
                    ip.payload(),
                    ip.payload_len(),
                    ip.pseudo_header(),
                    packet,
                    ip.header_len(),
                ),
                IPPROTO_ICMP => drop(IcmpError::parse_v4(ip.payload())),
                _ => {}
            }
        }
        ETH_P_IPV6 => {
            let Ok(ip) = Ipv6View::parse_prefix(packet, whole) else {
                return;
            };
            assert!(ip.header_len() + ip.payload_len() <= whole);
            let sum = ip.pseudo_header();
            match ip.protocol() {
                IPPROTO_TCP => tcp(ip.payload(), ip.payload_len(), sum, packet, ip.header_len()),
                IPPROTO_ICMPV6 => {
                    let _ = IcmpError::parse_v6(ip.payload(), sum);
                    let _ = NdpMessage::parse(ip.payload(), sum);
                }
                _ => {}
            }
        }
        _ => {}
    }
});

fn tcp(segment: &[u8], len: usize, pseudo_header: u16, packet: &[u8], ip_len: usize) {
    let Ok(tcp) = TcpView::parse_prefix(segment, len) else {
        return;
    };
    assert!(tcp.payload().len() <= tcp.payload_len());
    let _ = (
        tcp.end_seq(),
        tcp.checksum_ok(pseudo_header),
        TcpOptions::parse(tcp.options(), true),
    );
    let Some(headers) = packet.get(..ip_len + tcp.header_len()) else {
        return;
    };
    let size = 1 + (len as u16 & 0xfff);
    let Ok(segmenter) = Segmenter::new(headers, len, size.try_into().expect("not zero")) else {
        return;
    };
    let mut out = [0; 1024];
    let mut end = 0;
    for cut in segmenter.clone() {
        assert_eq!(cut.offset, end);
        end += cut.len;
        let _ = segmenter.emit(&cut, 0, &mut out);
    }
    assert_eq!(end, len);
}
