//! The ends of a connection (ER-71 to ER-82, ER-1 to ER-11).

use sidewire_uapi::TcpState;

use crate::calls::CloseCall;
use crate::error::Error;
use crate::mib::Counter;
use crate::skb::tcphdr;
use crate::stack::{Step, WaitReason};
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};
use crate::time::NSEC_PER_SEC;

const RST_ACK: u8 = tcphdr::RST | tcphdr::ACK;
const FIN_ACK: u8 = tcphdr::FIN | tcphdr::ACK;

fn close_step(peer: &mut Peer, call: &mut CloseCall) -> Step<()> {
    peer.bed
        .with(|stack, io, id| stack.close(io, id, true, call))
}

/// ER-71, ER-72.
#[test]
fn unread_data_makes_it_a_reset() {
    let mut peer = Peer::established();
    peer.send(Seg { len: 10, ..SEND });
    peer.sent();
    assert_eq!(peer.recv(0, 10), Ok(10));
    peer.close();
    assert_eq!(peer.sent().pop().expect("an end").flags, FIN_ACK);

    let mut peer = Peer::established();
    peer.send(Seg { len: 10, ..SEND });
    peer.sent();
    assert_eq!(peer.recv(0, 9), Ok(9));
    peer.close();
    let reset = peer.only();
    assert_eq!(reset.flags, RST_ACK);
    assert_eq!(reset.ack, PEER_ISN + 11);
    assert!(!peer.bed.stack.exists(peer.bed.id));
    assert_eq!(peer.bed.stack.mib().get(Counter::TCPAbortOnClose), 1);
    assert_eq!(peer.released(), 1);
}

/// A FIN that was not read is no data.
#[test]
fn an_unread_fin_is_no_data() {
    let mut peer = Peer::close_wait();
    peer.close();
    assert_eq!(peer.only().flags, FIN_ACK);
}

/// ER-73.
#[test]
fn linger_0() {
    let mut peer = Peer::established();
    peer.sk().opts.linger = true;
    peer.close();
    assert_eq!(peer.only().flags, RST_ACK);
    assert!(!peer.bed.stack.exists(peer.bed.id));
}

/// ER-74: until all is acked, or the time is over; non-blocking sockets too.
#[test]
fn linger_waits() {
    let start = |peer: &mut Peer, call: &mut CloseCall| {
        peer.sk().opts.linger = true;
        peer.sk().opts.linger_s = 2;
        let deadline = peer.now() + 2 * NSEC_PER_SEC;
        let wait = Step::Wait {
            reason: WaitReason::Linger,
            deadline,
        };
        assert_eq!(close_step(peer, call), wait);
        assert_eq!(peer.only().flags, FIN_ACK);
        wait
    };
    let mut peer = Peer::established();
    let mut call = CloseCall::default();
    let wait = start(&mut peer, &mut call);
    peer.pass_ms(1_000);
    assert_eq!(close_step(&mut peer, &mut call), wait);
    peer.send(peer.ack_of(2));
    assert!(!peer.events().is_empty(), "the sleeper is woken");
    assert_eq!(close_step(&mut peer, &mut call), Step::Ready(()));

    let mut peer = Peer::established();
    let mut call = CloseCall::default();
    start(&mut peer, &mut call);
    peer.pass_ms(2_000);
    assert_eq!(close_step(&mut peer, &mut call), Step::Ready(()));
    assert_eq!(peer.state(), TcpState::FinWait1, "an orphan now");
    assert!(!peer.bed.stack.quiescent());

    // The end of a process does not wait.
    let mut peer = Peer::established();
    peer.sk().opts.linger = true;
    peer.sk().opts.linger_s = 2;
    let mut call = CloseCall {
        signal: true,
        ..CloseCall::default()
    };
    assert_eq!(close_step(&mut peer, &mut call), Step::Ready(()));
}

#[test]
fn close_in_syn_sent_is_silent() {
    let mut peer = Peer::syn_sent();
    peer.close();
    assert_eq!(peer.sent(), []);
    assert!(!peer.bed.stack.exists(peer.bed.id));
    assert!(peer.bed.stack.quiescent());
    assert_eq!(peer.released(), 1);
}

/// Orphans have a bound.
#[test]
fn too_many_orphans() {
    let mut peer = Peer::established();
    peer.bed.stack.sh.sysctl.tcp_max_orphans = 0;
    peer.close();
    let flags: alloc::vec::Vec<u8> = peer.sent().iter().map(|s| s.flags).collect();
    assert_eq!(flags, [FIN_ACK, RST_ACK]);
    assert!(!peer.bed.stack.exists(peer.bed.id));
    assert_eq!(peer.bed.stack.mib().get(Counter::TCPOrphanOverflow), 1);
}

/// ER-1, ER-4, ER-5, ER-7, ER-9, ER-11.
#[test]
fn shutdown_by_state() {
    let mut peer = Peer::closed();
    for how in 0..3 {
        assert_eq!(peer.shutdown(how), Err(Error::NotConn));
    }
    assert_eq!(peer.shutdown(3), Err(Error::Inval));
    assert_eq!(peer.shutdown(-1), Err(Error::Inval));

    let mut peer = Peer::syn_sent();
    assert_eq!(peer.shutdown(0), Ok(()));
    assert_eq!(peer.state(), TcpState::Close);
    assert_eq!(peer.sk().sk_err, Some(Error::ConnReset));
    assert_eq!(peer.released(), 1);

    let mut peer = Peer::fin_wait1();
    assert_eq!(peer.shutdown(1), Ok(()), "a second time");
    assert_eq!(peer.sent(), []);

    let mut peer = Peer::listening(1);
    assert_eq!(peer.shutdown(1), Ok(()));
    assert_eq!(peer.state(), TcpState::Listen);

    let mut peer = Peer::last_ack();
    peer.send(Seg {
        seq: PEER_ISN + 2,
        ..peer.ack_of(2)
    });
    assert_eq!(peer.shutdown(1), Err(Error::NotConn));
}

/// ER-81, RV-19.
#[test]
fn shutdown_rd_is_not_seen_by_the_peer() {
    let mut peer = Peer::established();
    peer.send(Seg { len: 10, ..SEND });
    peer.sent();
    peer.shutdown(0).expect("shutdown");
    assert_eq!(peer.sent(), []);
    assert_eq!(peer.recv(0, 100), Ok(10));
    assert_eq!(peer.recv(0, 100), Ok(0));
    peer.send(Seg {
        seq: PEER_ISN + 11,
        len: 5,
        ..SEND
    });
    assert_eq!(peer.only().ack, PEER_ISN + 16);
    assert_eq!(peer.recv(0, 100), Ok(5));
}

#[test]
fn abort() {
    let mut peer = Peer::established();
    peer.bed.with(|stack, io, id| stack.abort(io, id));
    assert_eq!(peer.only().flags, RST_ACK);
    assert!(!peer.bed.stack.exists(peer.bed.id));
    assert!(peer.bed.stack.quiescent());
    assert_eq!(peer.released(), 1);
}
