//! Handshakes of listeners (ER-59 to ER-69, TM-4).

use sidewire_uapi::TcpState;
use sidewire_uapi::tcp::info_options;
use sidewire_wire::tcp::TcpOptions;

use crate::calls::AcceptCall;
use crate::error::Error;
use crate::event::Events;
use crate::info::tcp_get_info;
use crate::metrics::{MetricsKey, PeerMetrics};
use crate::mib::Counter;
use crate::skb::tcphdr;
use crate::stack::{Step, WaitReason};
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};

const SYN: Seg = Seg {
    flags: tcphdr::SYN,
    seq: PEER_ISN,
    ..SEND
};

fn count(peer: &Peer, c: Counter) -> u64 {
    peer.bed.stack.mib().get(c)
}

/// Another peer, by its port.
fn from_port(peer: &mut Peer, port: u16) {
    peer.tuple.remote.set_port(port);
}

/// A whole handshake of the peer at `port`; false when the SYN was not answered.
fn handshake(peer: &mut Peer, port: u16) -> bool {
    from_port(peer, port);
    peer.send(SYN);
    let Some(answer) = peer.sent().pop() else {
        return false;
    };
    peer.isn = answer.seq;
    peer.send(SEND);
    true
}

/// TM-4: 1, 2, 4, 8, 16 s, then the end.
#[test]
fn syn_ack_retransmission() {
    let mut peer = Peer::syn_received();
    let mut times = alloc::vec::Vec::new();
    for s in 1..=70 {
        peer.pass_ms(1_000);
        if !peer.sent().is_empty() {
            times.push(s);
        }
    }
    assert_eq!(times, [1, 3, 7, 15, 31]);
    assert!(peer.bed.stack.ehash.is_empty(), "forgotten");
}

/// TM-33: only what the SYN offered.
#[test]
fn options_of_the_answer() {
    let mut peer = Peer::listening(5);
    let bare = peer.syn(TcpOptions::default());
    assert_eq!(
        bare.opts,
        TcpOptions {
            mss: Some(1460),
            ..TcpOptions::default()
        }
    );
    let mut peer = Peer::listening(5);
    let full = peer.syn(TcpOptions {
        sack_permitted: true,
        wscale: Some(3),
        timestamps: Some((77, 0)),
        ..TcpOptions::default()
    });
    assert!(full.opts.sack_permitted);
    assert_eq!(full.opts.wscale, Some(7));
    assert_eq!(full.opts.timestamps.expect("timestamps").1, 77);
}

#[test]
fn a_repeated_syn_is_answered_again() {
    let mut peer = Peer::syn_received();
    peer.pass_ms(600);
    peer.send(SYN);
    let again = peer.only();
    assert_eq!(
        (again.flags, again.seq),
        (tcphdr::SYN | tcphdr::ACK, peer.isn)
    );
    peer.send(SYN);
    assert_eq!(peer.sent(), [], "within half a second");
}

/// Linux `snt_tsval_last`: only SYN-ACKs have timestamps that the third ack may echo.
#[test]
fn a_challenge_ack_is_not_to_be_echoed() {
    let echo = |tsecr| {
        Some(TcpOptions {
            timestamps: Some((78, tsecr)),
            ..TcpOptions::default()
        })
    };
    let mut peer = Peer::listening(5);
    let answer = peer.syn(TcpOptions {
        timestamps: Some((77, 0)),
        ..TcpOptions::default()
    });
    let sent = answer.opts.timestamps.expect("timestamps").0;
    peer.pass_ms(100);
    peer.send(Seg {
        flags: 0,
        seq: PEER_ISN,
        opts: echo(sent),
        ..SEND
    });
    let challenged = peer.only().opts.timestamps.expect("timestamps").0;
    assert_eq!(challenged.wrapping_sub(sent), 100);
    peer.send(Seg {
        opts: echo(challenged),
        ..SEND
    });
    assert_eq!(count(&peer, Counter::TSEcrRejected), 1);
    peer.send(Seg {
        opts: echo(sent),
        ..SEND
    });
    peer.accept();
}

/// Linux `tcp_check_req`: `ts_recent` follows when there is a child.
#[test]
fn a_deferred_ack_leaves_the_timestamp_of_the_syn() {
    let stamped = |tsval, tsecr| {
        Some(TcpOptions {
            timestamps: Some((tsval, tsecr)),
            ..TcpOptions::default()
        })
    };
    let mut peer = Peer::listening(5);
    peer.sk().opts.defer_accept = 3;
    let answer = peer.syn(TcpOptions {
        timestamps: Some((77, 0)),
        ..TcpOptions::default()
    });
    let sent = answer.opts.timestamps.expect("timestamps").0;
    peer.send(Seg {
        opts: stamped(78, sent),
        ..SEND
    });
    peer.send(Seg {
        flags: 0,
        opts: stamped(79, sent),
        seq: PEER_ISN,
        ..SEND
    });
    assert_eq!(peer.only().opts.timestamps.expect("timestamps").1, 77);
    peer.send(Seg {
        len: 10,
        opts: stamped(80, sent),
        ..SEND
    });
    assert_eq!(peer.only().opts.timestamps.expect("timestamps").1, 80);
}

#[test]
fn a_wrong_ack_is_reset_and_the_handshake_lives() {
    let mut peer = Peer::syn_received();
    let wrong = peer.isn.wrapping_add(99);
    peer.send(Seg { ack: wrong, ..SEND });
    let reset = peer.only();
    assert_eq!((reset.flags, reset.seq), (tcphdr::RST, wrong));
    peer.send(SEND);
    peer.accept();
    assert_eq!(peer.state(), TcpState::Established);
}

#[test]
fn a_reset_ends_the_handshake() {
    let mut peer = Peer::syn_received();
    peer.send(Seg {
        flags: tcphdr::RST,
        ..SEND
    });
    assert_eq!(peer.sent(), []);
    assert!(peer.bed.stack.ehash.is_empty());
    assert_eq!(count(&peer, Counter::EmbryonicRsts), 1);
}

/// The third ack may carry data and even FIN.
#[test]
fn data_with_the_third_ack() {
    let mut peer = Peer::syn_received();
    peer.send(Seg {
        flags: tcphdr::ACK | tcphdr::FIN,
        len: 300,
        ..SEND
    });
    peer.accept();
    assert_eq!(peer.state(), TcpState::CloseWait);
    assert_eq!(peer.recv(0, 1000), Ok(300));
    assert_eq!(peer.recv(0, 1000), Ok(0));
}

/// ER-59, ER-64.
#[test]
fn the_accept_queue_holds_one_more_than_the_backlog() {
    let mut peer = Peer::listening(1);
    assert!(handshake(&mut peer, 9001));
    assert!(handshake(&mut peer, 9002));
    // Full: new SYNs are dropped.
    assert!(!handshake(&mut peer, 9003));
    assert_eq!(count(&peer, Counter::ListenOverflows), 1);
    peer.accept();
    assert!(handshake(&mut peer, 9003));
}

/// ER-64: the last ack of a handshake that had begun is not taken, until there is room.
#[test]
fn a_full_queue_keeps_the_handshake() {
    let mut peer = Peer::listening(0);
    from_port(&mut peer, 9002);
    peer.send(SYN);
    let second = peer.only().seq;
    assert!(handshake(&mut peer, 9001));
    from_port(&mut peer, 9002);
    peer.isn = second;
    peer.send(SEND);
    assert_eq!(peer.sent(), []);
    peer.accept();
    // The SYN-ACK comes again, and its ack is taken now.
    peer.pass_ms(1_100);
    assert_eq!(peer.only().flags, tcphdr::SYN | tcphdr::ACK);
    peer.send(SEND);
    peer.accept();
    assert_eq!(peer.state(), TcpState::Established);
}

#[test]
fn abort_on_overflow() {
    let mut peer = Peer::listening(0);
    peer.bed.stack.sh.sysctl.tcp_abort_on_overflow = true;
    from_port(&mut peer, 9002);
    peer.send(SYN);
    let second = peer.only().seq;
    assert!(handshake(&mut peer, 9001));
    from_port(&mut peer, 9002);
    peer.isn = second;
    peer.send(SEND);
    assert_eq!(peer.only().flags & tcphdr::RST, tcphdr::RST);
}

/// A flood of SYNs meets a bound.
#[test]
fn handshakes_are_bounded() {
    let mut peer = Peer::listening(5);
    for port in 10_000..11_000 {
        from_port(&mut peer, port);
        peer.send(SYN);
    }
    let answered = peer.sent().len();
    assert_eq!(answered, super::MIN_SYN_QUEUE as usize);
    assert_eq!(
        count(&peer, Counter::TCPReqQFullDrop),
        1000 - u64::from(super::MIN_SYN_QUEUE)
    );
}

/// The last quarter of `tcp_max_syn_backlog` is for peers that ended a connection well before.
#[test]
fn proven_peers_have_handshakes_in_reserve() {
    let mut peer = Peer::listening(5);
    peer.bed.stack.sh.sysctl.tcp_max_syn_backlog = 8;
    let answered = |peer: &mut Peer, port| {
        from_port(peer, port);
        peer.send(SYN);
        peer.sent().len()
    };
    let first: usize = (9_000..9_020).map(|port| answered(&mut peer, port)).sum();
    assert_eq!(first, 7);
    assert_eq!(count(&peer, Counter::ListenDrops), 13);
    let (key, now) = (MetricsKey::of(&peer.tuple), peer.now());
    let mut known = PeerMetrics {
        stamp: now,
        ..PeerMetrics::default()
    };
    peer.bed.stack.learn(now, &key, &known);
    assert_eq!(answered(&mut peer, 9_100), 0, "of no known RTT");
    known.path.rtt_us = 1;
    peer.bed.stack.learn(now, &key, &known);
    let then: usize = (9_200..9_220).map(|port| answered(&mut peer, port)).sum();
    assert_eq!(then, 20);
}

/// ER-69.
#[test]
fn defer_accept() {
    let mut peer = Peer::listening(5);
    peer.sk().opts.defer_accept = 3;
    peer.syn(TcpOptions::default());
    peer.send(SEND);
    assert!(!peer.events().contains(Events::IN));
    peer.send(Seg { len: 10, ..SEND });
    assert!(peer.events().contains(Events::IN));
    peer.accept();
    assert_eq!(peer.recv(0, 100), Ok(10));
}

/// ER-60, ER-61, ER-67.
#[test]
fn accept_waits() {
    let mut peer = Peer::closed();
    let mut call = AcceptCall::default();
    let accept = |peer: &mut Peer, nonblock, call: &mut AcceptCall| {
        peer.bed
            .with(|stack, io, id| stack.accept(io, id, nonblock, call))
    };
    assert_eq!(
        accept(&mut peer, true, &mut call),
        Step::Ready(Err(Error::Inval))
    );
    let mut peer = Peer::listening(5);
    assert_eq!(
        accept(&mut peer, true, &mut AcceptCall::default()),
        Step::Ready(Err(Error::Again))
    );
    peer.sk().opts.rcvtimeo = Some(crate::time::HZ);
    let deadline = peer.now() + 1_000_000_000;
    let mut call = AcceptCall::default();
    assert_eq!(
        accept(&mut peer, false, &mut call),
        Step::Wait {
            reason: WaitReason::Accept,
            deadline
        }
    );
    peer.pass_ms(1_000);
    assert_eq!(
        accept(&mut peer, false, &mut call),
        Step::Ready(Err(Error::Again))
    );
}

/// A listener that was disconnected and listens again completes what it began.
#[test]
fn a_handshake_outlives_a_disconnect() {
    let disconnect = |peer: &mut Peer| {
        peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    };
    let mut peer = Peer::syn_received();
    disconnect(&mut peer);
    peer.bed
        .with(|stack, io, id| stack.listen(io, id, 5))
        .expect("listen");
    peer.send(SEND);
    assert_eq!(peer.sent(), []);
    peer.accept();
    assert_eq!(peer.state(), TcpState::Established);

    let mut peer = Peer::syn_received();
    disconnect(&mut peer);
    peer.send(SEND);
    assert!(peer.bed.stack.ehash.is_empty());
    assert!(peer.bed.stack.ports.is_empty());
}

/// Where the SYN-ACK was sent again, the echo of its timestamp tells the RTT, if there is one.
#[test]
fn the_rtt_of_a_repeated_syn_ack() {
    // Whole jiffies.
    for (timestamps, srtt_ms, rto_ms) in [(true, 50, 252), (false, 0, 3_000)] {
        let mut peer = Peer::listening(5);
        peer.syn(TcpOptions {
            timestamps: timestamps.then_some((77, 0)),
            ..TcpOptions::default()
        });
        peer.pass_ms(1_000);
        let again = peer.only().opts.timestamps.map_or(0, |t| t.0);
        peer.pass_ms(50);
        let echo = TcpOptions {
            timestamps: timestamps.then_some((78, again)),
            ..TcpOptions::default()
        };
        peer.send(Seg {
            opts: Some(echo),
            ..SEND
        });
        peer.accept();
        assert_eq!(peer.sk().srtt_us >> 3, srtt_ms * 1_000);
        assert_eq!(peer.sk().rto_us, rto_ms * 1_000);
    }
}

/// ER-65: a child that was reset is still returned.
#[test]
fn a_child_that_was_reset() {
    let mut peer = Peer::syn_received();
    peer.send(SEND);
    peer.send(Seg {
        flags: tcphdr::RST,
        ..SEND
    });
    peer.accept();
    assert_eq!(peer.bed.stack.peer(peer.bed.id), Err(Error::NotConn));
    assert_eq!(peer.recv(0, 10), Err(Error::ConnReset));
    assert_eq!(peer.released(), 1);
}

/// ER-66, ER-68.
#[test]
fn closing_the_listener() {
    let mut peer = Peer::listening(5);
    assert!(handshake(&mut peer, 9001));
    from_port(&mut peer, 9002);
    peer.send(SYN);
    peer.sent();
    peer.close();
    let resets = peer.sent();
    assert_eq!(resets.len(), 1, "the child, not the handshake");
    assert_eq!(resets[0].flags & tcphdr::RST, tcphdr::RST);
    assert!(peer.bed.stack.ehash.is_empty());
    assert!(peer.bed.stack.lhash.is_empty());
    assert!(!peer.bed.stack.port_in_use(80));
    assert_eq!(peer.bed.stack.socks.len(), 0);

    // shutdown(RD) stops listening, and a blocked accept sees it.
    let mut peer = Peer::listening(5);
    peer.shutdown(0).expect("shutdown");
    assert_eq!(peer.state(), TcpState::Close);
    let step = peer
        .bed
        .with(|stack, io, id| stack.accept(io, id, false, &mut AcceptCall::default()));
    assert_eq!(step, Step::Ready(Err(Error::Inval)));
}

/// SO_BINDTODEVICE: a SYN by another device is none of this listener's, though the way back leads there.
#[test]
fn a_listener_hears_its_device_only() {
    const THEIRS: u32 = 2;
    for (device, oif, heard) in [
        (0, 7, true),
        (THEIRS, 7, true),
        (7, 7, false),
        // A VRF, whose device it came by.
        (7, THEIRS, true),
    ] {
        let mut peer = Peer::listening(5);
        peer.bed.wire.oif = oif;
        let listener = peer.listener.expect("one that listens");
        peer.bed.stack.socks[listener].opts.bound_dev_if = device;
        from_port(&mut peer, 9001);
        peer.send(SYN);
        assert_eq!(!peer.sent().is_empty(), heard, "{device} {oif}");
    }
}

/// A listener on the specific address comes before the wildcard.
#[test]
fn the_specific_listener_first() {
    let mut peer = Peer::listening(5);
    let wildcard = peer.bed.stack.socket(false, 9);
    peer.bed.stack.bound(wildcard, ([0, 0, 0, 0], 80).into());
    peer.bed
        .with(|stack, io, _| stack.listen(io, wildcard, 5))
        .expect("another address");
    let find = |peer: &Peer, ip| peer.bed.stack.find_listener(&(ip, 80).into());
    assert_eq!(find(&peer, [10, 0, 0, 1]), peer.listener);
    assert_eq!(find(&peer, [10, 0, 0, 9]), Some(wildcard));
    assert_eq!(
        peer.bed.stack.find_listener(&([10, 0, 0, 1], 81).into()),
        None
    );
    // ER-51.
    let twice = peer.bed.stack.socket(false, 10);
    peer.bed.stack.bound(twice, ([0, 0, 0, 0], 80).into());
    let second = peer.bed.with(|stack, io, _| stack.listen(io, twice, 5));
    assert_eq!(second, Err(Error::AddrInUse));
}

/// RFC 3168 §6.1.1: ECN is accepted from who offers it.
#[test]
fn ecn_is_accepted() {
    let mut peer = Peer::listening(5);
    peer.send(Seg {
        flags: tcphdr::SYN | tcphdr::ECE | tcphdr::CWR,
        ..SYN
    });
    let answer = peer.only();
    assert_eq!(answer.flags, tcphdr::SYN | tcphdr::ACK | tcphdr::ECE);
    peer.isn = answer.seq;
    peer.send(SEND);
    peer.accept();
    let now = peer.now();
    let options = tcp_get_info(peer.sk(), now).tcpi_options;
    assert_eq!(options & info_options::ECN, info_options::ECN);
}

/// Linux's control sockets send the acks of what has no socket: no IP_TTL counts, and of the TOS the answered segment's.
/// Nor does the window exceed that of the SYN-ACK.
#[test]
fn an_ack_of_a_handshake_is_none_of_the_listener() {
    let mut peer = Peer::listening(5);
    let listener = peer.sk();
    listener.opts.ip_ttl = 33;
    listener.opts.ip_tos = 0xb8;
    listener.rcvbuf = 1 << 20;
    let wscale = peer
        .syn(TcpOptions {
            wscale: Some(7),
            ..TcpOptions::default()
        })
        .opts
        .wscale
        .expect("a shift");
    assert_eq!(peer.ip_fields(), (0xb8, 33, true));
    peer.send(Seg {
        seq: PEER_ISN + 10_000_000,
        tos: 0x4a,
        ..SYN
    });
    let ack = peer.only();
    assert_eq!((ack.flags, ack.seq), (tcphdr::ACK, peer.isn + 1));
    assert_eq!(ack.window, 65_535 >> wscale);
    assert_eq!(peer.ip_fields(), (0x48, 64, true));
}

/// Linux `ip_build_and_send_pkt`: what fits any way is not to be cut, though the route's `mtu lock` lets routers cut the rest.
#[test]
fn a_syn_ack_is_never_cut() {
    let mut peer = Peer::listening(5);
    peer.bed.wire.mtu_locked = true;
    peer.syn(TcpOptions::default());
    assert!(peer.ip_fields().2);
    peer.send(SEND);
    peer.accept();
    peer.send(Seg {
        len: 10,
        ..peer.ack_of(1)
    });
    peer.pass_ms(250);
    assert!(!peer.ip_fields().2);
}
