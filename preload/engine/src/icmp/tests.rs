//! ICMP errors (spec/errors.md ER-17 to ER-19; RFC 5927).

use sidewire_uapi::TcpState;
use sidewire_wire::icmp::{IcmpError, IcmpErrorKind, QuotedTcp, v4_unreachable};

use crate::error::Error;
use crate::mib::Counter;
use crate::testpeer::{Peer, SEND};

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
        icmp_code: 0,
        quoted,
    };
    peer.bed.with(|stack, io, _| stack.icmp(io, &err));
}

#[test]
fn unreachable_in_syn_sent() {
    for (code, err) in [
        (v4_unreachable::HOST, Error::HostUnreach),
        (v4_unreachable::NET, Error::NetUnreach),
        (v4_unreachable::PORT, Error::ConnRefused),
    ] {
        let mut peer = Peer::syn_sent();
        let seq = peer.isn;
        icmp(&mut peer, IcmpErrorKind::Unreachable(code), seq);
        assert_eq!(peer.state(), TcpState::Close);
        assert_eq!(peer.sk().sk_err, Some(err));
    }
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
    // Never below what every host takes.
    icmp(&mut peer, IcmpErrorKind::PacketTooBig(68), seq);
    assert_eq!(peer.sk().mss_cache, super::MIN_PMTU - 40);
    // Never larger.
    icmp(&mut peer, IcmpErrorKind::PacketTooBig(9000), seq);
    assert_eq!(peer.sk().mss_cache, super::MIN_PMTU - 40);
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
