//! ICMP errors (ER-17 to ER-19; RFC 5927).

use alloc::vec;
use core::net::{IpAddr, Ipv4Addr};

use sidewire_uapi::TcpState;
use sidewire_uapi::ip::{IP_PMTUDISC_DO, IP_RECVERR};
use sidewire_uapi::poll::POLLERR;
use sidewire_uapi::socket::{MSG_ERRQUEUE, SOL_IP};
use sidewire_wire::icmp::{IcmpError, IcmpErrorKind, QuotedTcp, v4_unreachable};

use crate::calls::{RecvCall, RecvCmsg};
use crate::error::Error;
use crate::errqueue::IcmpPacket;
use crate::header::ip_dont_fragment;
use crate::icmp::tcp_ld_rto_revert;
use crate::mib::Counter;
use crate::testbed::{Iter, NOBODY};
use crate::testbench::{Bench, MSS};
use crate::testpeer::{Peer, SEND};
use crate::time::NSEC_PER_USEC;
use crate::timers::Timer;

const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));
const PACKET: IcmpPacket = IcmpPacket {
    saddr: ROUTER,
    daddr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    iif: 7,
    ttl: 63,
    tos: 0xc0,
};

fn icmp(peer: &mut Peer, kind: IcmpErrorKind, seq: u32) {
    let quoted = QuotedTcp {
        src: peer.tuple.local.ip(),
        dst: peer.tuple.remote.ip(),
        src_port: peer.tuple.local.port(),
        dst_port: peer.tuple.remote.port(),
        seq,
    };
    let err = IcmpError {
        kind,
        icmp_type: 3,
        icmp_code: 1,
        info: 0,
        segment_at: 28,
        quoted,
    };
    peer.bed
        .with(|stack, io, _| stack.icmp(io, &err, &PACKET, b"the segment"));
}

#[test]
fn unreachable_in_syn_sent() {
    for (code, err) in [
        (v4_unreachable::HOST, Error::HostUnreach),
        (v4_unreachable::NET, Error::NetUnreach),
        (v4_unreachable::PORT, Error::ConnRefused),
        (5, Error::OpNotSupp),
        (7, Error::HostDown),
        (8, Error::NoNet),
    ] {
        let mut peer = Peer::syn_sent();
        let seq = peer.isn;
        icmp(&mut peer, IcmpErrorKind::Unreachable(code), seq);
        assert_eq!(peer.state(), TcpState::Close);
        assert_eq!(peer.sk().sk_err, Some(err));
    }
}

fn read(peer: &mut Peer) -> Result<RecvCall, Error> {
    let mut iter = Iter::new(&peer.bed, vec![(vec![0; 100], true)]);
    let mut call = RecvCall::new(MSG_ERRQUEUE, true);
    let n = peer
        .bed
        .with(|stack, io, id| stack.recv_errqueue(io, id, &mut call, &mut iter))?;
    assert_eq!(n, 11);
    Ok(call)
}

/// With and without IP_RECVERR.
#[test]
fn the_error_queue_tells_who_refused_the_handshake() {
    for ip_recverr in [false, true] {
        let mut peer = Peer::syn_sent();
        peer.sk().opts.ip_recverr = ip_recverr;
        let seq = peer.isn;
        icmp(
            &mut peer,
            IcmpErrorKind::Unreachable(v4_unreachable::HOST),
            seq,
        );
        let id = peer.bed.id;
        assert_ne!(peer.bed.stack.poll(id) & POLLERR, 0);
        // A blocking connect ends like this; what it left can still be read.
        peer.bed.with(|stack, io, id| stack.disconnect_sock(io, id));
        let call = read(&mut peer).unwrap();
        assert_eq!(call.name, Some(peer.tuple.remote));
        assert_eq!(peer.sk().rmem_alloc, 0);
        let [header, RecvCmsg::RecvErr { ee, offender }] = call.cmsgs.as_slice() else {
            panic!("{:?}", call.cmsgs);
        };
        let told = RecvCmsg::IpHeader {
            ifindex: PACKET.iif,
            spec_dst: Ipv4Addr::UNSPECIFIED,
            daddr: [10, 0, 0, 1].into(),
            ttl: PACKET.ttl,
            tos: PACKET.tos,
            port: peer.tuple.remote.port(),
        };
        assert_eq!(*header, told);
        assert_eq!((ee.ee_errno, ee.ee_origin), (113, 2));
        assert_eq!((ee.ee_type, ee.ee_code), (3, 1));
        assert_eq!(offender.map(|a| a.ip()), Some(ROUTER));
        // Who read it knows.
        assert_eq!(peer.sk().sk_err, None);
        assert_eq!(read(&mut peer).err(), Some(Error::Again));
    }
}

#[test]
fn no_ip_recverr_drops_the_errors_that_are_queued() {
    let mut peer = Peer::syn_sent();
    let seq = peer.isn;
    icmp(
        &mut peer,
        IcmpErrorKind::Unreachable(v4_unreachable::HOST),
        seq,
    );
    peer.bed.set(SOL_IP, IP_RECVERR, 0, NOBODY).unwrap();
    assert_eq!(read(&mut peer).err(), Some(Error::Again));
    assert_eq!(peer.sk().rmem_alloc, 0);
}

#[test]
fn an_established_connection_queues_nothing() {
    let mut peer = Peer::established();
    let seq = peer.isn.wrapping_add(1);
    for ip_recverr in [false, true] {
        peer.sk().opts.ip_recverr = ip_recverr;
        icmp(
            &mut peer,
            IcmpErrorKind::Unreachable(v4_unreachable::HOST),
            seq,
        );
        assert_eq!(read(&mut peer).err(), Some(Error::Again));
    }
}

#[test]
fn fragments_that_were_not_put_together_are_no_error() {
    let mut peer = Peer::syn_sent();
    let seq = peer.isn;
    icmp(&mut peer, IcmpErrorKind::TimeExceeded(1), seq);
    assert_eq!(peer.state(), TcpState::SynSent);
    icmp(&mut peer, IcmpErrorKind::TimeExceeded(0), seq);
    assert_eq!(peer.sk().sk_err, Some(Error::HostUnreach));
}

#[test]
fn unreachable_in_established_is_soft() {
    let mut peer = Peer::established();
    let seq = peer.isn.wrapping_add(1);
    icmp(
        &mut peer,
        IcmpErrorKind::Unreachable(v4_unreachable::HOST),
        seq,
    );
    assert_eq!(peer.state(), TcpState::Established);
    assert_eq!(peer.sk().sk_err, None);
    assert_eq!(peer.sk().sk_err_soft, Some(Error::HostUnreach));
    // IP_RECVERR: told at once, and the connection lives.
    peer.sk().opts.ip_recverr = true;
    icmp(
        &mut peer,
        IcmpErrorKind::Unreachable(v4_unreachable::HOST),
        seq,
    );
    assert_eq!(peer.sk().sk_err, Some(Error::HostUnreach));
    assert_eq!(peer.state(), TcpState::Established);
}

/// Who does not see our segments cannot name their numbers.
#[test]
fn a_foreign_sequence_number_is_ignored() {
    let mut peer = Peer::syn_sent();
    let seq = peer.isn.wrapping_add(1_000_000);
    icmp(
        &mut peer,
        IcmpErrorKind::Unreachable(v4_unreachable::PORT),
        seq,
    );
    assert_eq!(peer.state(), TcpState::SynSent);
    assert_eq!(peer.bed.stack.mib().get(Counter::OutOfWindowIcmps), 1);
}

/// ER-19.
#[test]
fn a_smaller_mtu() {
    let mut peer = Peer::established();
    assert_eq!(peer.sk().mss_cache, 1460);
    let seq = peer.isn.wrapping_add(1);
    icmp(&mut peer, IcmpErrorKind::PacketTooBig(1000), seq);
    assert_eq!(peer.sk().mss_cache, 960);
    assert_eq!(peer.sk().sk_err, None);
    assert!(ip_dont_fragment(peer.sk()));
    // Never larger.
    icmp(&mut peer, IcmpErrorKind::PacketTooBig(9000), seq);
    assert_eq!(peer.sk().mss_cache, 960);
}

/// Linux `ip_rt_min_pmtu`: below it, and where a router does not tell, packets may be cut.
#[test]
fn a_tiny_path_mtu() {
    for told in [0, 68, super::MIN_PMTU - 1] {
        let mut peer = Peer::established();
        let seq = peer.isn.wrapping_add(1);
        icmp(&mut peer, IcmpErrorKind::PacketTooBig(told), seq);
        assert_eq!(peer.sk().mss_cache, super::MIN_PMTU - 40);
        assert!(!ip_dont_fragment(peer.sk()));
        assert_eq!(peer.sk().sk_err_soft, None);
        // Locked.
        icmp(&mut peer, IcmpErrorKind::PacketTooBig(552), seq);
        assert!(!ip_dont_fragment(peer.sk()));
    }
    let mut peer = Peer::established();
    peer.sk().opts.ip_mtu_discover = IP_PMTUDISC_DO as u8;
    let seq = peer.isn.wrapping_add(1);
    icmp(&mut peer, IcmpErrorKind::PacketTooBig(68), seq);
    assert!(ip_dont_fragment(peer.sk()));
    assert_eq!(peer.sk().sk_err_soft, Some(Error::MsgSize));
}

/// Linux `tcp_advertise_mss`.
#[test]
fn a_path_mtu_told_while_connecting() {
    let mut peer = Peer::syn_sent();
    let seq = peer.isn;
    icmp(&mut peer, IcmpErrorKind::PacketTooBig(600), seq);
    peer.pass_ms(1_100);
    assert_eq!(peer.only().opts.mss, Some(560));
    assert_eq!(peer.sk().advmss, 560);
}

#[test]
fn a_handshake_ends_by_an_error_about_its_answer() {
    let mut peer = Peer::syn_received();
    let kind = IcmpErrorKind::Unreachable(v4_unreachable::HOST);
    icmp(&mut peer, kind, 1);
    assert_eq!(peer.bed.stack.ehash.len(), 1);
    let seq = peer.isn;
    icmp(&mut peer, kind, seq);
    assert_eq!(peer.bed.stack.ehash.len(), 0);
    peer.send(SEND);
}

#[test]
fn a_router_without_a_way_takes_a_doubling_back() {
    let mut b = Bench::new();
    b.write(2 * MSS);
    // The tail's probe, and two timeouts.
    for _ in 0..3 {
        b.fire();
    }
    let rto = b.sk.rto_us;
    assert_eq!(b.sk.backoff, 2);
    let head = b.sk.snd_una;
    b.with(|sk, cx| tcp_ld_rto_revert(sk, cx, head + 1));
    assert_eq!((b.sk.backoff, b.sk.rto_us), (2, rto));
    b.with(|sk, cx| tcp_ld_rto_revert(sk, cx, head));
    assert_eq!((b.sk.backoff, b.sk.rto_us), (1, rto / 2));
    let left = b.sk.timers.at(Timer::Retransmit).since(b.now) / NSEC_PER_USEC;
    assert_eq!(left, u64::from(rto / 2));
    // The shorter one is over already.
    b.now = b.now + u64::from(rto / 2) * NSEC_PER_USEC;
    b.with(|sk, cx| tcp_ld_rto_revert(sk, cx, head));
    assert_eq!(b.sk.timers.at(Timer::Retransmit), b.now);
    b.with(|sk, cx| tcp_ld_rto_revert(sk, cx, head));
    assert_eq!((b.sk.backoff, b.sk.rto_us), (0, rto / 4));
}
