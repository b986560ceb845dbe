//! Whatever arrives, parsing ends with a view or a reason.

use proptest::prelude::*;
use sidewire_wire::arp::ArpPacket;
use sidewire_wire::ethernet::EthernetView;
use sidewire_wire::icmp::IcmpError;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::ipv6::Ipv6View;
use sidewire_wire::ndp::NdpMessage;
use sidewire_wire::segment::Segmenter;
use sidewire_wire::tcp::TcpView;
use sidewire_wire::tcp_options::TcpOptions;
use sidewire_wire::vnet::VnetHeader;
use sidewire_wire::{ParseError, checksum};

/// Runs every parser over `bytes` as a frame or packet of which only a prefix may be there.
fn read_all(bytes: &[u8], whole: usize) {
    if let Ok(eth) = EthernetView::parse(bytes) {
        let _ = (
            eth.src(),
            eth.dst(),
            eth.ethertype(),
            ArpPacket::parse(eth.payload()),
        );
    }
    if let Ok(ip) = Ipv4View::parse_prefix(bytes, whole) {
        assert!(ip.payload().len() <= ip.payload_len());
        let _ = (ip.pseudo_header(), IcmpError::parse_v4(ip.payload()));
        read_tcp(ip.payload(), ip.payload_len());
    }
    if let Ok(ip) = Ipv6View::parse_prefix(bytes, whole) {
        assert!(ip.payload().len() <= ip.payload_len());
        let sum = ip.pseudo_header();
        let _ = (
            IcmpError::parse_v6(ip.payload(), sum),
            NdpMessage::parse(ip.payload(), sum),
        );
        read_tcp(ip.payload(), ip.payload_len());
    }
    let _ = (
        Ipv4View::parse_embedded(bytes),
        Ipv6View::parse_embedded(bytes),
    );
    let _ = (VnetHeader::parse(bytes), ArpPacket::parse(bytes));
    read_tcp(bytes, whole);
    let size = 100.try_into().unwrap();
    if let Ok(segmenter) = Segmenter::new(bytes, whole, size) {
        let mut out = [0; 200];
        for segment in segmenter.clone() {
            let _ = segmenter.emit(&segment, 0, &mut out);
        }
    }
}

fn read_tcp(bytes: &[u8], whole: usize) {
    if let Ok(tcp) = TcpView::parse_prefix(bytes, whole) {
        assert!(tcp.payload().len() <= tcp.payload_len());
        let options = TcpOptions::parse(tcp.options(), true);
        let _ = (tcp.end_seq(), tcp.checksum_ok(0), options.emitted_len());
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), more in 0usize..2000) {
        read_all(&bytes, bytes.len());
        read_all(&bytes, bytes.len() + more);
        read_all(&bytes, more);
    }

    /// Bytes that look enough like headers to come far.
    #[test]
    fn plausible_bytes(
        mut bytes in prop::collection::vec(any::<u8>(), 60..200),
        version in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x65]),
        protocol in prop::sample::select(vec![0u8, 1, 6, 43, 44, 58, 60]),
        icmp_type in prop::sample::select(vec![1u8, 2, 3, 11, 135, 136]),
        at in prop::sample::select(vec![20usize, 24, 40, 48]),
    ) {
        bytes[0] = version;
        bytes[6] = protocol;
        bytes[9] = protocol;
        bytes[at] = icmp_type;
        let len = bytes.len() as u16;
        let field = if version >> 4 == 4 { len } else { len - 40 };
        let place = if version >> 4 == 4 { 2 } else { 4 };
        bytes[place..place + 2].copy_from_slice(&field.to_be_bytes());
        bytes[10..12].fill(0);
        let header_len = usize::from(version & 0xf).max(5) * 4;
        let sum = checksum::finish(checksum::sum(&bytes[..header_len]));
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        read_all(&bytes, bytes.len());
    }
}

#[test]
fn the_reasons_tell_themselves_apart() {
    let mut texts: Vec<_> = ParseError::ALL.iter().map(|r| r.as_str()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), ParseError::COUNT);
}
