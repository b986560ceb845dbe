use super::*;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::ipv6::Ipv6View;
use sidewire_wire::tcp::{TcpFlags, TcpView};

const TCP: TcpHeader = TcpHeader {
    src_port: 1,
    dst_port: 2,
    seq: 3,
    ack_seq: 4,
    flags: TcpFlags::ACK,
    window: 5,
    urg_ptr: 0,
};

fn tuple(local: IpAddr, remote: IpAddr) -> Tuple {
    Tuple {
        local: SocketAddr::new(local, 1),
        remote: SocketAddr::new(remote, 2),
    }
}

const IP: IpFields = IpFields {
    tos: 0x12,
    ttl: 64,
    id: 77,
    df: true,
};

#[test]
fn ipv4_with_timestamps() {
    let options = TcpOptions {
        timestamps: Some((1, 2)),
        ..TcpOptions::default()
    };
    let t = tuple(
        Ipv4Addr::new(192, 0, 2, 1).into(),
        Ipv4Addr::new(192, 0, 2, 2).into(),
    );
    let h = Headers::build(&t, &IP, &TCP, &options, 60_000).expect("one family");
    assert_eq!((h.bytes().len(), h.l4_offset), (52, 20));
    let ip = Ipv4View::parse_prefix(h.bytes(), 60_052).expect("an IPv4 header");
    assert_eq!((ip.id(), ip.ttl(), ip.tos()), (77, 64, 0x12));
    assert!(ip.dont_fragment());
    let tcp = TcpView::parse(&h.bytes()[20..]).expect("a TCP header");
    // The device finishes the checksum of each segment from the pseudo header's sum.
    assert_eq!(tcp.checksum(), ip.pseudo_header());
}

#[test]
fn ipv6() {
    let t = tuple(
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
    );
    let h = Headers::build(&t, &IP, &TCP, &TcpOptions::default(), 1_000).expect("one family");
    assert_eq!((h.bytes().len(), h.l4_offset), (60, 40));
    let ip = Ipv6View::parse_prefix(h.bytes(), 1_060).expect("an IPv6 header");
    assert_eq!((ip.payload_len(), ip.hop_limit()), (1_020, 64));
    let tcp = TcpView::parse(&h.bytes()[40..]).expect("a TCP header");
    assert_eq!(tcp.checksum(), ip.pseudo_header());
}

#[test]
fn families_do_not_mix() {
    let t = tuple(Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    assert!(Headers::build(&t, &IP, &TCP, &TcpOptions::default(), 0).is_none());
}

#[test]
fn sizes_agree_with_what_is_written() {
    let mut sk = TcpSock::new(false, 0, &Sysctl::default());
    for (tstamp, sacks, dsack) in [
        (false, 0, false),
        (true, 0, false),
        (false, 4, true),
        (true, 4, true),
        (true, 2, true),
        (true, 0, true),
    ] {
        sk.tstamp_ok = tstamp;
        sk.num_sacks = sacks;
        sk.duplicate_sack = dsack.then_some(crate::sock::SackBlock {
            start_seq: 1,
            end_seq: 2,
        });
        let options = tcp_established_options(&sk, Instant(1));
        assert_eq!(
            tcp_established_options_size(&sk) as usize,
            options.emitted_len()
        );
        if dsack {
            assert_eq!(options.sack.as_slice()[0], (1, 2), "a DSACK comes first");
        }
    }
}

/// TM-32: the answer of a simultaneous open offers what the SYN did.
#[test]
fn syn_options() {
    let sysctl = Sysctl::default();
    let mut sk = TcpSock::new(false, 0, &sysctl);
    sk.advmss = 1_460;
    sk.rcv_wscale = 7;
    let syn = tcp_syn_options(&mut sk, &sysctl, tcphdr::SYN, Instant(5_000_000));
    let mut out = [0; 40];
    let n = syn.emit(&mut out).expect("room");
    assert_eq!(n, 20);
    assert_eq!(&out[..8], [2, 4, 0x05, 0xb4, 4, 2, 8, 10]);
    assert_eq!(&out[8..12], [0, 0, 0, 5]);
    assert_eq!(&out[16..20], [1, 3, 3, 7]);
    let answer = tcp_syn_options(&mut sk, &sysctl, tcphdr::SYN | tcphdr::ACK, Instant(0));
    assert_eq!(answer.emitted_len(), 20);
}
