//! What a remnant answers (RFC 1122 §4.2.2.13, RFC 1337, RFC 6191).

use sidewire_uapi::TcpState;
use sidewire_wire::tcp::TcpOptions;

use super::tcp_in_window;
use crate::error::Error;
use crate::mib::Counter;
use crate::skb::tcphdr;
use crate::stack::Step;
use crate::sysctl::Sysctl;
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};

fn remnants(peer: &Peer) -> usize {
    peer.bed.stack.timewait_count()
}

#[test]
fn a_repeated_fin_is_acked_and_restarts_the_time() {
    let mut peer = Peer::time_wait();
    peer.pass_ms(50_000);
    peer.send(Seg {
        flags: tcphdr::FIN | tcphdr::ACK,
        ..peer.ack_of(2)
    });
    let ack = peer.only();
    assert_eq!((ack.flags, ack.ack), (tcphdr::ACK, PEER_ISN + 2));
    assert_eq!(ack.seq, peer.isn.wrapping_add(2));
    peer.pass_ms(50_000);
    assert_eq!(remnants(&peer), 1);
    peer.pass_ms(11_000);
    assert_eq!(remnants(&peer), 0);
}

/// RFC 1337: by default Linux lets a RST end it; told otherwise, not.
#[test]
fn assassination() {
    let rst = Seg {
        flags: tcphdr::RST,
        seq: PEER_ISN + 2,
        ..SEND
    };
    let mut peer = Peer::time_wait();
    peer.send(rst);
    assert_eq!(remnants(&peer), 0);
    let mut peer = Peer::time_wait();
    peer.bed.stack.sh.sysctl.tcp_rfc1337 = true;
    peer.send(rst);
    assert_eq!(remnants(&peer), 1);
}

#[test]
fn a_newer_syn_opens_anew() {
    let mut peer = Peer::time_wait();
    let old = peer.isn;
    peer.send(Seg {
        flags: tcphdr::SYN,
        seq: PEER_ISN + 100_000,
        ..SEND
    });
    let answer = peer.only();
    assert_eq!(answer.flags, tcphdr::SYN | tcphdr::ACK);
    assert_eq!(answer.seq, old.wrapping_add(2 + 65_535 + 2));
    assert_eq!(remnants(&peer), 0);
    assert_eq!(peer.bed.stack.mib().get(Counter::TWRecycled), 1);
}

#[test]
fn an_older_syn_is_acked() {
    let mut peer = Peer::time_wait();
    peer.send(Seg {
        flags: tcphdr::SYN,
        seq: PEER_ISN.wrapping_sub(1000),
        ..SEND
    });
    assert_eq!(peer.only().flags, tcphdr::ACK);
    assert_eq!(remnants(&peer), 1);
}

/// FIN_WAIT2 of an orphan: the FIN makes TIME_WAIT of it, data a reset.
#[test]
fn fin_wait2_remnants() {
    let mut peer = Peer::fin_wait2();
    peer.close();
    peer.send(Seg {
        flags: tcphdr::FIN | tcphdr::ACK,
        ..peer.ack_of(2)
    });
    assert_eq!(peer.only().ack, PEER_ISN + 2);
    assert_eq!(remnants(&peer), 1);

    let mut peer = Peer::fin_wait2();
    peer.close();
    peer.send(Seg {
        len: 5,
        ..peer.ack_of(2)
    });
    assert_eq!(peer.only().flags & tcphdr::RST, tcphdr::RST);
    assert_eq!(remnants(&peer), 0);
    assert_eq!(peer.released(), 1);
}

#[test]
fn the_table_has_a_bound() {
    let mut peer = Peer::fin_wait2();
    peer.bed.stack.sh.sysctl.tcp_max_tw_buckets = 0;
    peer.close();
    assert_eq!(remnants(&peer), 0);
    assert_eq!(peer.released(), 1);
    assert_eq!(peer.bed.stack.mib().get(Counter::TCPTimeWaitOverflow), 1);
}

/// A client's connection that ended here first two seconds ago, and a fresh socket.
fn with_a_remnant(sysctl: Sysctl, timestamps: bool) -> Peer {
    let mut peer = Peer::with_sysctl(sysctl);
    assert!(matches!(
        peer.connect(),
        Step::Ready(Err(Error::InProgress))
    ));
    let syn = peer.only();
    peer.isn = syn.seq;
    let tsval = syn.opts.timestamps.expect("we offer them").0;
    let opts = |val| {
        timestamps.then(|| TcpOptions {
            timestamps: Some((val, tsval)),
            ..TcpOptions::default()
        })
    };
    peer.send(Seg {
        flags: tcphdr::SYN | tcphdr::ACK,
        seq: PEER_ISN,
        opts: opts(100),
        ..SEND
    });
    peer.shutdown(1).expect("shutdown");
    peer.send(Seg {
        flags: tcphdr::FIN | tcphdr::ACK,
        opts: opts(200),
        ..peer.ack_of(2)
    });
    assert_eq!(remnants(&peer), 1);
    peer.close();
    peer.sent();
    peer.bed.id = peer.bed.stack.socket(false, 8);
    peer.pass_ms(2_000);
    peer.released();
    peer
}

/// ER-40, ER-43: a connect over a remnant needs timestamps.
#[test]
fn connect_over_a_remnant() {
    let connect_again = |timestamps: bool| {
        let mut peer = with_a_remnant(Sysctl::default(), timestamps);
        let (id, local) = (peer.bed.id, peer.tuple.local);
        peer.bed.stack.bound(id, local);
        let step = peer.connect();
        (peer, step)
    };
    let (peer, step) = connect_again(false);
    assert!(matches!(step, Step::Ready(Err(Error::AddrNotAvail))));
    assert_eq!(remnants(&peer), 1);

    let (mut peer, step) = connect_again(true);
    assert!(matches!(step, Step::Ready(Err(Error::InProgress))));
    assert_eq!(remnants(&peer), 0);
    assert_eq!(peer.released(), 0, "the holder goes over");
    assert_eq!(peer.state(), TcpState::SynSent);
    assert_eq!(peer.only().seq, peer.isn.wrapping_add(2 + 65_535 + 2));
}

/// ER-43: a connect that finds no free port looks for a remnant's.
#[test]
fn claiming_a_remnant() {
    let claim = |tcp_tw_reuse: u8, timestamps: bool, ports: core::ops::RangeInclusive<u16>| {
        let sysctl = Sysctl {
            tcp_tw_reuse,
            ..Sysctl::default()
        };
        let mut peer = with_a_remnant(sysctl, timestamps);
        let (id, now, tuple) = (peer.bed.id, peer.bed.now, peer.tuple);
        let stack = &mut peer.bed.stack;
        let claimed = stack.claim_timewait(id, tuple.local.ip(), &ports, tuple.remote, now);
        (peer, claimed)
    };
    let port = claim(1, true, 0..=u16::MAX).0.tuple.local.port();
    assert!(port > 0);
    assert_eq!(
        claim(1, true, port + 1..=u16::MAX).1,
        None,
        "not of this range"
    );
    assert_eq!(claim(1, false, 0..=u16::MAX).1, None, "no timestamps");
    assert_eq!(claim(2, true, 0..=u16::MAX).1, None, "not on loopback");

    let (mut peer, claimed) = claim(1, true, port..=port);
    let (id, local) = (peer.bed.id, peer.tuple.local);
    assert_eq!(claimed, Some(local));
    peer.bed.stack.autobound(id, local);
    assert!(matches!(
        peer.connect(),
        Step::Ready(Err(Error::InProgress))
    ));
    assert_eq!((remnants(&peer), peer.released()), (0, 0));

    // A remnant that ends first leaves the holder to the socket as well.
    let (mut peer, _) = claim(1, true, port..=port);
    peer.pass_ms(61_000);
    assert_eq!((remnants(&peer), peer.released()), (0, 0));
}

#[test]
fn windows() {
    assert!(tcp_in_window(10, 10, 10, 20));
    assert!(tcp_in_window(5, 11, 10, 20));
    assert!(tcp_in_window(19, 30, 10, 20));
    assert!(tcp_in_window(20, 20, 10, 20));
    assert!(!tcp_in_window(20, 21, 10, 20));
    assert!(!tcp_in_window(5, 10, 10, 20));
    assert!(!tcp_in_window(9, 9, 10, 20));
}

#[test]
fn ended_before_their_time() {
    let mut peer = Peer::time_wait();
    peer.bed.stack.end_timewaits(1, |_| true);
    peer.bed.stack.end_timewaits(0, |_| false);
    assert_eq!(remnants(&peer), 1);
    peer.bed.stack.end_timewaits(0, |_| true);
    assert_eq!(remnants(&peer), 0);
    assert_eq!(peer.bed.stack.tuples().count(), 0);
}

/// The rate limit of its answers begins anew (Linux `tw_last_oow_ack_time`).
#[test]
fn the_remnant_answers_at_once() {
    let mut peer = Peer::fin_wait2();
    let behind = Seg {
        seq: PEER_ISN.wrapping_sub(100_000),
        ack: peer.isn.wrapping_add(2),
        ..SEND
    };
    peer.send(behind);
    assert_eq!(peer.only().flags, tcphdr::ACK);
    peer.send(behind);
    assert_eq!(peer.sent(), [], "within half a second");
    peer.send(Seg {
        flags: tcphdr::FIN | tcphdr::ACK,
        ack: peer.isn.wrapping_add(2),
        ..SEND
    });
    peer.sent();
    peer.close();
    peer.send(behind);
    assert_eq!(peer.only().flags, tcphdr::ACK);
    peer.send(behind);
    assert_eq!(peer.sent(), []);
}

/// Linux's control sockets send its acks: IP_TTL is forgotten, IP_TOS is not.
#[test]
fn its_acks_go_by_the_ttl_of_the_route() {
    let mut peer = Peer::fin_wait2();
    peer.sk().opts.ip_ttl = 33;
    peer.sk().opts.ip_tos = 0xb8;
    let fin = Seg {
        flags: tcphdr::FIN | tcphdr::ACK,
        ..peer.ack_of(2)
    };
    peer.send(fin);
    assert_eq!(peer.ip_fields(), (0xb8, 33, true));
    peer.send(fin);
    assert_eq!(peer.ip_fields(), (0xb8, 64, true));
}
