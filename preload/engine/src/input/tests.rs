//! The checks before a segment counts: RFC 7323 PAWS, RFC 5961, the window.

use sidewire_uapi::TcpState;
use sidewire_wire::tcp::TcpOptions;

use crate::mib::Counter;
use crate::skb::tcphdr;
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};

const RST: Seg = Seg {
    flags: tcphdr::RST,
    ..SEND
};

fn ts(val: u32) -> TcpOptions {
    TcpOptions {
        timestamps: Some((val, 0)),
        ..TcpOptions::default()
    }
}

/// An open connection with timestamps; the peer's clock stands at `val`.
fn with_timestamps(val: u32) -> Peer {
    let mut peer = Peer::listening(5);
    peer.syn(ts(val));
    peer.send(Seg {
        opts: Some(ts(val)),
        ..SEND
    });
    peer.accept();
    peer
}

fn count(peer: &Peer, c: Counter) -> u64 {
    peer.bed.stack.mib().get(c)
}

/// RV-47.
#[test]
fn only_the_exact_reset_counts() {
    let mut peer = Peer::established();
    peer.send(Seg {
        seq: PEER_ISN + 100,
        ..RST
    });
    assert_eq!(peer.state(), TcpState::Established);
    let challenge = peer.only();
    assert_eq!(
        (challenge.flags, challenge.ack),
        (tcphdr::ACK, PEER_ISN + 1)
    );
    peer.send(Seg {
        seq: PEER_ISN.wrapping_sub(100_000),
        ..RST
    });
    assert_eq!(peer.sent(), [], "out of the window: ignored");
    peer.send(Seg {
        seq: PEER_ISN + 1,
        ..RST
    });
    assert_eq!(peer.state(), TcpState::Close);
}

/// RFC 5961 §3.2, as Linux extends it: the end of what was SACKed is exact too.
#[test]
fn a_reset_behind_sacked_data_counts() {
    let mut peer = Peer::established_sack();
    peer.send(Seg {
        seq: PEER_ISN + 1001,
        len: 500,
        ..SEND
    });
    peer.sent();
    peer.send(Seg {
        seq: PEER_ISN + 1501,
        ..RST
    });
    assert_eq!(peer.state(), TcpState::Close);
}

/// RV-48, TM-23.
#[test]
fn a_syn_is_challenged_once_in_half_a_second() {
    let mut peer = Peer::established();
    let syn = Seg {
        flags: tcphdr::SYN,
        ..SEND
    };
    peer.send(syn);
    assert_eq!(peer.only().flags, tcphdr::ACK);
    peer.send(syn);
    assert_eq!(peer.sent(), []);
    peer.pass_ms(501);
    peer.send(syn);
    assert_eq!(peer.only().flags, tcphdr::ACK);
    assert_eq!(count(&peer, Counter::TCPSYNChallenge), 3);
    assert_eq!(count(&peer, Counter::TCPChallengeACK), 2);
    assert_eq!(peer.state(), TcpState::Established);
}

/// RFC 5961 §7: with a bound for all sockets together.
#[test]
fn challenges_have_a_bound_a_second() {
    let mut peer = Peer::established();
    peer.bed.stack.sh.sysctl.tcp_challenge_ack_limit = 1;
    peer.bed.stack.sh.sysctl.tcp_invalid_ratelimit_ms = 0;
    for _ in 0..10 {
        peer.send(Seg {
            flags: tcphdr::SYN,
            ..SEND
        });
    }
    assert!(peer.sent().len() <= 2);
    // Linux draws from an empty range then.
    peer.bed.stack.sh.sysctl.tcp_challenge_ack_limit = 0;
    for _ in 0..10 {
        peer.send(Seg {
            flags: tcphdr::SYN,
            ..SEND
        });
    }
    assert_eq!(peer.sent().len(), 10);
}

/// RFC 5961 §5.2: an ack older than any that could be on its way.
#[test]
fn an_ack_from_the_past_is_challenged() {
    let mut peer = Peer::established();
    peer.send(Seg {
        ack: peer.isn.wrapping_sub(200_000),
        len: 5,
        ..SEND
    });
    assert_eq!(peer.only().ack, PEER_ISN + 1);
    assert!(peer.sk().receive_queue.is_empty());
}

/// RV-45.
#[test]
fn beyond_the_window() {
    let mut peer = Peer::established();
    let right = PEER_ISN + 1 + peer.sk().receive_window();
    peer.send(Seg {
        seq: right + 1,
        len: 5,
        ..SEND
    });
    assert_eq!(peer.only().ack, PEER_ISN + 1);
    assert!(peer.sk().ofo_queue.is_empty());
    assert_eq!(count(&peer, Counter::OutOfWindow), 1);
    assert_eq!(peer.sk().info.drops, 1);
}

/// RV-44.
#[test]
fn old_data_gets_a_dsack() {
    let mut peer = Peer::established_sack();
    peer.send(Seg { len: 100, ..SEND });
    peer.sent();
    peer.send(Seg { len: 100, ..SEND });
    let ack = peer.only();
    assert_eq!(ack.ack, PEER_ISN + 101);
    assert_eq!(ack.opts.sack.as_slice(), [(PEER_ISN + 1, PEER_ISN + 101)]);
    assert_eq!(count(&peer, Counter::TCPDSACKOldSent), 1);
    assert_eq!(peer.sk().info.drops, 1, "SO_MEMINFO shows it (SO-36)");
}

/// Two duplicates in one batch: two DSACKs.
#[test]
fn each_duplicate_of_a_batch_is_told() {
    let mut peer = Peer::established_sack();
    peer.send(Seg { len: 200, ..SEND });
    peer.sent();
    for at in [0, 100] {
        peer.send_in_batch(Seg {
            seq: PEER_ISN + 1 + at,
            len: 100,
            ..SEND
        });
    }
    peer.send(SEND);
    let blocks: alloc::vec::Vec<_> = peer
        .sent()
        .iter()
        .flat_map(|s| s.opts.sack.as_slice().to_vec())
        .collect();
    assert_eq!(
        blocks,
        [
            (PEER_ISN + 1, PEER_ISN + 101),
            (PEER_ISN + 101, PEER_ISN + 201)
        ]
    );
}

/// Three segments of a batch, behind a hole of 1000 bytes at `start`.
fn leave_a_hole(peer: &mut Peer, start: u32) {
    for at in [1000, 2000, 3000].map(|n| start + n) {
        peer.send_in_batch(Seg {
            seq: PEER_ISN + 1 + at,
            len: 1000,
            ..SEND
        });
    }
}

/// RV-42, RV-43: without SACK each segment out of order is a duplicate ack of its own, in a batch too.
#[test]
fn holes_are_acked_one_by_one() {
    let mut peer = Peer::established();
    leave_a_hole(&mut peer, 0);
    let acks: alloc::vec::Vec<u32> = peer.sent().iter().map(|s| s.ack).collect();
    assert_eq!(acks, [PEER_ISN + 1; 3]);
    peer.send(Seg { len: 1000, ..SEND });
    assert_eq!(peer.only().ack, PEER_ISN + 4001, "the hole is filled");
}

/// With SACK one ack at the end of the batch tells of all of them, and of a hole that the batch fills, nothing.
#[test]
fn a_batch_reports_what_it_leaves() {
    let mut peer = Peer::established_sack();
    leave_a_hole(&mut peer, 0);
    assert_eq!(peer.sent().len(), 0);
    peer.bed.with(|stack, io, _| stack.rx_batch_end(io));
    let ack = peer.only();
    assert_eq!(ack.ack, PEER_ISN + 1);
    assert_eq!(
        ack.opts.sack.as_slice(),
        [(PEER_ISN + 1001, PEER_ISN + 4001)]
    );
    peer.send(Seg { len: 1000, ..SEND });
    assert_eq!(peer.only().ack, PEER_ISN + 4001);

    leave_a_hole(&mut peer, 4000);
    peer.send(Seg {
        seq: PEER_ISN + 4001,
        len: 1000,
        ..SEND
    });
    let ack = peer.only();
    assert_eq!((ack.ack, ack.opts.sack.len()), (PEER_ISN + 8001, 0));
}

/// With SACK the fourth and later wait a little: one ack tells of them all.
#[test]
fn many_holes_are_told_together() {
    let mut peer = Peer::established_sack();
    peer.sk().tuning.rtt_us = 8 * 20_000;
    for n in 1..=10 {
        peer.send(Seg {
            seq: PEER_ISN + 1 + n * 1000,
            len: 500,
            ..SEND
        });
    }
    let early = peer.sent().len();
    assert!((3..10).contains(&early), "{early}");
    peer.pass_ms(2);
    let late = peer.sent();
    assert_eq!(late.last().expect("an ack").opts.sack.len(), 4);
}

#[test]
fn paws() {
    let mut peer = with_timestamps(10_000);
    peer.sent();
    let old_data = Seg {
        len: 10,
        opts: Some(ts(9_000)),
        ..SEND
    };
    peer.send(old_data);
    assert_eq!(peer.only().ack, PEER_ISN + 1, "acked, and dropped");
    assert!(peer.sk().receive_queue.is_empty());
    assert_eq!(count(&peer, Counter::PAWSEstab), 1);
    // An ack that was overtaken says nothing.
    peer.send(Seg {
        len: 10,
        opts: Some(ts(10_005)),
        ..SEND
    });
    peer.sent();
    peer.send(Seg {
        opts: Some(ts(9_000)),
        ..SEND
    });
    assert_eq!(peer.sent(), []);
    assert_eq!(count(&peer, Counter::PAWSOldAck), 1);
    // A reset is excused.
    peer.send(Seg {
        seq: PEER_ISN + 11,
        opts: Some(ts(1)),
        ..RST
    });
    assert_eq!(peer.state(), TcpState::Close);
}

/// RFC 7323 §5.5: after a long idle time the peer's clock may stand anywhere.
#[test]
fn paws_expires() {
    let mut peer = with_timestamps(10_000);
    peer.pass_ms(1_000 * (super::TCP_PAWS_WRAP_S + 2));
    peer.send(Seg {
        len: 10,
        opts: Some(ts(9_000)),
        ..SEND
    });
    assert_eq!(peer.recv(0, 100), Ok(10));
}

/// Timestamps of data in order are echoed.
#[test]
fn the_echo() {
    let mut peer = with_timestamps(10_000);
    peer.send(Seg {
        len: 10,
        opts: Some(ts(10_007)),
        ..SEND
    });
    let ack = peer.only();
    assert_eq!(ack.opts.timestamps.expect("timestamps").1, 10_007);
}

/// Header prediction and the slow way come to the same.
#[test]
fn predicted_or_not() {
    let mut fast = Peer::established();
    let mut slow = Peer::established();
    for n in 0..5 {
        let seg = Seg {
            seq: PEER_ISN + 1 + n * 100,
            len: 100,
            ..SEND
        };
        fast.send(seg);
        // A changed window is nothing for the prediction.
        slow.send(Seg {
            window: 29_000 + n as u16,
            ..seg
        });
    }
    // The first finds no memory put aside.
    assert_eq!(count(&fast, Counter::TCPHPHits), 4);
    assert_eq!(count(&slow, Counter::TCPHPHits), 0);
    assert_eq!(fast.sk().rcv_nxt, slow.sk().rcv_nxt);
    assert_eq!(fast.sk().rmem_alloc, slow.sk().rmem_alloc);
    assert_eq!(fast.sent().len(), slow.sent().len());
}

/// Neither ACK nor RST nor SYN.
#[test]
fn no_flags_no_segment() {
    let mut peer = Peer::established();
    peer.send(Seg {
        flags: 0,
        len: 10,
        ..SEND
    });
    assert_eq!(peer.sent(), []);
    assert_eq!(count(&peer, Counter::BadFlags), 1);
}

/// Data for which memory has to be asked is looked at in full, its ack too: what was told of the path before is over, and
/// windows are judged by its sequence number.
#[test]
fn data_in_an_empty_queue_is_not_predicted() {
    let mut peer = Peer::established();
    let soft = Some(crate::error::Error::NetUnreach);
    peer.sk().sk_err_soft = soft;
    let at = |n| Seg {
        seq: PEER_ISN + 1 + n,
        len: 10,
        ..SEND
    };
    peer.send(at(0));
    assert_eq!(peer.sk().sk_err_soft, None);
    peer.sk().sk_err_soft = soft;
    peer.send(at(10));
    assert_eq!(peer.sk().sk_err_soft, soft, "predicted");
    assert_eq!(peer.recv(0, 100), Ok(20));
    peer.send(at(20));
    assert_eq!(peer.sk().sk_err_soft, None);

    // Seen in the window, not next: no older segment's window counts any more.
    let mut peer = Peer::established();
    peer.send(Seg { len: 0, ..at(1000) });
    peer.send(at(0));
    peer.send(Seg {
        window: 1000,
        len: 0,
        ..at(100)
    });
    assert_eq!(peer.sk().snd_wnd, 30_000);
}

/// Linux `tcp_rcv_established`: no lower bound but RFC 5961's.
#[test]
fn an_overtaken_ack_is_predicted() {
    let mut peer = with_timestamps(10_000);
    peer.bed.send(0, 20).expect("sent");
    peer.send(Seg {
        opts: Some(ts(10_001)),
        ..peer.ack_of(21)
    });
    peer.send(Seg {
        opts: Some(ts(10_002)),
        ..peer.ack_of(6)
    });
    assert_eq!(peer.sk().ts_recent, 10_002);
    peer.sk().max_window = 10;
    peer.send(Seg {
        opts: Some(ts(10_003)),
        ..peer.ack_of(6)
    });
    assert_eq!(peer.sk().ts_recent, 10_002, "too old");
}

/// A segment that is dropped lets nothing out; one that tells of a duplicate takes what may go along.
#[test]
fn a_dropped_segment_lets_no_data_out() {
    use sidewire_uapi::socket::MSG_MORE;
    let mut peer = Peer::established_sack();
    peer.bed.send(MSG_MORE, 10).expect("queued");
    peer.send(Seg {
        seq: PEER_ISN - 4,
        ..SEND
    });
    assert_eq!(peer.only().len, 0);
    peer.send(Seg {
        seq: PEER_ISN,
        len: 1,
        ..SEND
    });
    let told = peer.only();
    assert_eq!((told.len, told.opts.sack.len()), (10, 1));
}

/// Linux 6.18 `tcp_may_update_window`: a window of 0 counts again and again, and so does not excuse an old timestamp.
#[test]
fn an_old_ack_of_a_closed_window_is_answered() {
    let mut peer = with_timestamps(10_000);
    let closed = Seg {
        window: 0,
        opts: Some(ts(10_000)),
        ..SEND
    };
    peer.send(closed);
    peer.sent();
    peer.send(Seg {
        opts: Some(ts(9_950)),
        ..closed
    });
    assert_eq!(peer.only().len, 0);
}
