//! RFC 9293 §3.10.7: what each state does with what comes.

use sidewire_uapi::TcpState;

use crate::error::Error;
use crate::event::Events;
use crate::mib::Counter;
use crate::skb::tcphdr;
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};

const FIN: Seg = Seg {
    flags: tcphdr::FIN | tcphdr::ACK,
    ..SEND
};

#[test]
fn active_open() {
    let mut peer = Peer::syn_sent();
    peer.send(Seg {
        flags: tcphdr::SYN | tcphdr::ACK,
        seq: PEER_ISN,
        ..SEND
    });
    assert_eq!(peer.state(), TcpState::Established);
    let ack = peer.only();
    assert_eq!((ack.flags, ack.ack), (tcphdr::ACK, PEER_ISN + 1));
    assert!(peer.events().contains(Events::OUT));
}

/// RFC 9293 §3.10.7.3: the ack of something else is answered with a reset that has its number.
#[test]
fn syn_sent_with_a_foreign_ack() {
    let mut peer = Peer::syn_sent();
    let bad = peer.isn.wrapping_add(77);
    peer.send(Seg { ack: bad, ..SEND });
    let reset = peer.only();
    assert_eq!((reset.flags, reset.seq), (tcphdr::RST, bad));
    assert_eq!(peer.state(), TcpState::SynSent);
}

/// ER-12.
#[test]
fn refused() {
    let mut peer = Peer::syn_sent();
    peer.send(Seg {
        flags: tcphdr::RST | tcphdr::ACK,
        seq: 0,
        ..SEND
    });
    assert_eq!(peer.state(), TcpState::Close);
    assert_eq!(peer.sk().sk_err, Some(Error::ConnRefused));
    assert_eq!(peer.bed.stack.mib().get(Counter::AttemptFails), 1);
    assert_eq!(peer.released(), 1);
}

/// A RST that acks nothing of ours is a guess.
#[test]
fn a_blind_reset_in_syn_sent_is_ignored() {
    let mut peer = Peer::syn_sent();
    peer.send(Seg {
        flags: tcphdr::RST,
        seq: 0,
        ..SEND
    });
    assert_eq!(peer.state(), TcpState::SynSent);
}

/// RFC 9293 §3.5, figure 8.
#[test]
fn simultaneous_open() {
    let mut peer = Peer::syn_sent();
    peer.send(Seg {
        flags: tcphdr::SYN,
        seq: PEER_ISN,
        ..SEND
    });
    assert_eq!(peer.state(), TcpState::SynRecv);
    let answer = peer.only();
    assert_eq!(answer.flags, tcphdr::SYN | tcphdr::ACK);
    assert_eq!((answer.seq, answer.ack), (peer.isn, PEER_ISN + 1));
    peer.send(Seg {
        flags: tcphdr::SYN | tcphdr::ACK,
        seq: PEER_ISN,
        ..SEND
    });
    assert_eq!(peer.state(), TcpState::Established);
}

#[test]
fn passive_close() {
    let mut peer = Peer::established();
    peer.send(FIN);
    assert_eq!(peer.state(), TcpState::CloseWait);
    assert!(peer.events().contains(Events::IN | Events::RDHUP));
    assert_eq!(peer.recv(0, 10), Ok(0));
    peer.close();
    let fin = peer.sent().pop().expect("a FIN");
    assert_eq!(fin.flags & tcphdr::FIN, tcphdr::FIN);
    assert_eq!(peer.state(), TcpState::LastAck);
    peer.send(Seg {
        seq: PEER_ISN + 2,
        ..peer.ack_of(2)
    });
    assert!(!peer.bed.stack.exists(peer.bed.id));
    assert_eq!(peer.released(), 1);
    assert!(peer.bed.stack.quiescent());
}

#[test]
fn active_close_ends_in_time_wait() {
    let mut peer = Peer::time_wait();
    assert!(!peer.bed.stack.exists(peer.bed.id));
    assert_eq!(peer.released(), 0, "the remnant keeps the tuple");
    assert!(peer.bed.stack.quiescent());
    peer.pass_ms(59_000);
    assert_eq!(peer.bed.stack.timewait_count(), 1);
    peer.pass_ms(2_000);
    assert_eq!(peer.bed.stack.timewait_count(), 0);
    assert_eq!(peer.released(), 1);
    assert!(!peer.bed.stack.port_in_use(9));
}

#[test]
fn simultaneous_close() {
    let mut peer = Peer::fin_wait1();
    peer.send(FIN);
    assert_eq!(peer.state(), TcpState::Closing);
    assert_eq!(peer.only().ack, PEER_ISN + 2);
    peer.send(Seg {
        seq: PEER_ISN + 2,
        ..peer.ack_of(2)
    });
    assert_eq!(peer.state(), TcpState::Close, "ER-78");
    assert_eq!(peer.bed.stack.timewait_count(), 1);
}

/// One segment that acks our FIN and carries the peer's.
#[test]
fn fin_wait1_to_time_wait_at_once() {
    let mut peer = Peer::fin_wait1();
    peer.send(Seg {
        flags: tcphdr::FIN | tcphdr::ACK,
        ..peer.ack_of(2)
    });
    assert_eq!(peer.only().ack, PEER_ISN + 2);
    assert_eq!(peer.bed.stack.timewait_count(), 1);
}

/// RFC 9293 §3.10.4: data still comes in after we closed our half.
#[test]
fn half_close_reads_on() {
    let mut peer = Peer::fin_wait2();
    peer.send(Seg {
        len: 500,
        ..peer.ack_of(2)
    });
    assert_eq!(peer.recv(0, 1000), Ok(500));
    peer.send(Seg {
        flags: tcphdr::FIN | tcphdr::ACK,
        seq: PEER_ISN + 501,
        ..peer.ack_of(2)
    });
    assert_eq!(peer.recv(0, 1000), Ok(0));
    assert_eq!(peer.recv(0, 1000), Ok(0), "for ever");
}

/// ER-77, RV-49.
#[test]
fn data_for_an_orphan_is_reset() {
    let mut peer = Peer::established();
    peer.close();
    assert_eq!(peer.only().flags, tcphdr::FIN | tcphdr::ACK);
    assert!(!peer.bed.stack.quiescent(), "an orphan is at work");
    peer.send(Seg { len: 10, ..SEND });
    let reset = peer.sent().pop().expect("a RST");
    assert_eq!(reset.flags & tcphdr::RST, tcphdr::RST);
    assert!(!peer.bed.stack.exists(peer.bed.id));
    assert_eq!(peer.bed.stack.mib().get(Counter::TCPAbortOnData), 1);
    assert!(peer.bed.stack.quiescent());
}

/// ER-76: an orphan in FIN_WAIT2 is a remnant, and goes after `tcp_fin_timeout`.
#[test]
fn fin_wait2_of_an_orphan_ends() {
    let mut peer = Peer::fin_wait2();
    peer.close();
    assert!(!peer.bed.stack.exists(peer.bed.id));
    assert_eq!(peer.bed.stack.timewait_count(), 1);
    peer.pass_ms(61_000);
    assert_eq!(peer.bed.stack.timewait_count(), 0);
    assert_eq!(peer.sent(), []);
}

/// TCP_LINGER2 beyond a minute: the socket itself waits first.
#[test]
fn a_long_linger2_keeps_the_orphan() {
    let mut peer = Peer::fin_wait2();
    peer.sk().opts.linger2 = 100;
    peer.close();
    assert!(peer.bed.stack.exists(peer.bed.id));
    peer.pass_ms(41_000);
    assert_eq!(
        peer.bed.stack.timewait_count(),
        1,
        "the last minute as a remnant"
    );
    peer.pass_ms(61_000);
    assert_eq!(peer.bed.stack.timewait_count(), 0);
}

/// ER-76.
#[test]
fn linger2_minus_one_resets() {
    let mut peer = Peer::fin_wait2();
    peer.sk().opts.linger2 = -1;
    peer.close();
    assert_eq!(peer.only().flags & tcphdr::RST, tcphdr::RST);
    assert!(!peer.bed.stack.exists(peer.bed.id));
}

/// ER-13, ER-14; RV-4 to RV-7.
#[test]
fn resets_by_state() {
    let reset = |peer: &mut Peer, seq| {
        peer.send(Seg {
            flags: tcphdr::RST,
            seq,
            ..SEND
        });
    };
    let mut peer = Peer::established();
    peer.send(Seg { len: 4, ..SEND });
    reset(&mut peer, PEER_ISN + 5);
    assert_eq!(peer.recv(0, 10), Ok(4), "data first");
    assert_eq!(peer.recv(0, 10), Err(Error::ConnReset));
    assert_eq!(peer.recv(0, 10), Ok(0));

    let mut peer = Peer::close_wait();
    reset(&mut peer, PEER_ISN + 2);
    assert_eq!(peer.sk().sk_err, Some(Error::Pipe));
    assert_eq!(peer.recv(0, 10), Ok(0));
}

/// RST is never answered, in no state.
#[test]
fn no_answer_to_a_reset() {
    for make in [
        Peer::syn_received,
        Peer::established,
        Peer::fin_wait1,
        Peer::fin_wait2,
        Peer::close_wait,
        Peer::last_ack,
        Peer::time_wait,
    ] {
        let mut peer = make();
        peer.sent();
        for seq in [PEER_ISN + 1, PEER_ISN + 2, PEER_ISN.wrapping_sub(50_000)] {
            peer.send(Seg {
                flags: tcphdr::RST,
                seq,
                ..SEND
            });
        }
        for sent in peer.sent() {
            assert_eq!(sent.flags & tcphdr::RST, 0, "{sent:?}");
        }
    }
}
