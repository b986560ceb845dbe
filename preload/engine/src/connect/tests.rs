//! `connect`, row by row (ER-20 to ER-40).

use core::net::SocketAddr;

use sidewire_uapi::TcpState;

use crate::calls::ConnectCall;
use crate::error::Error;
use crate::init_sock::TCP_DEFAULT_SCALING_RATIO;
use crate::skb::tcphdr;
use crate::sock::ecn;
use crate::stack::{Step, WaitReason};
use crate::testpeer::{LOCAL, PEER_ISN, Peer, REMOTE, SEND, Seg};
use crate::time::{HZ, Instant, NSEC_PER_SEC};

const SYN_ACK: Seg = Seg {
    flags: tcphdr::SYN | tcphdr::ACK,
    seq: PEER_ISN,
    ..SEND
};

fn fails(peer: &mut Peer, err: Error) {
    assert_eq!(peer.connect(), Step::Ready(Err(err)));
}

fn refuse(peer: &mut Peer) {
    peer.send(Seg {
        flags: tcphdr::RST | tcphdr::ACK,
        seq: 0,
        ..SEND
    });
}

/// ER-29 to ER-31, ER-27.
#[test]
fn a_non_blocking_attempt() {
    let mut peer = Peer::syn_sent();
    fails(&mut peer, Error::Already);
    assert!(!peer.bed.stack.connect_is_fresh(peer.bed.id));
    assert_eq!(
        peer.bed.stack.peer(peer.bed.id),
        Err(Error::NotConn),
        "ER-4"
    );
    peer.send(SYN_ACK);
    assert_eq!(peer.connect(), Step::Ready(Ok(())), "once");
    fails(&mut peer, Error::IsConn);
    assert_eq!(peer.bed.stack.peer(peer.bed.id), Ok(REMOTE.into()));
}

/// ER-32, ER-37.
#[test]
fn a_refused_attempt() {
    let mut peer = Peer::syn_sent();
    refuse(&mut peer);
    fails(&mut peer, Error::ConnRefused);
    assert!(peer.bed.stack.connect_is_fresh(peer.bed.id));
    assert_eq!(
        peer.bed.stack.local(peer.bed.id),
        Some(LOCAL.into()),
        "bound"
    );
    fails(&mut peer, Error::InProgress);
    assert_eq!(peer.sent().pop().expect("a SYN").flags, tcphdr::SYN);
}

/// ER-23: the error was read by SO_ERROR.
#[test]
fn aborted_when_the_error_was_read() {
    let mut peer = Peer::syn_sent();
    refuse(&mut peer);
    assert_eq!(peer.sk().sk_err.take(), Some(Error::ConnRefused));
    fails(&mut peer, Error::ConnAborted);
    fails(&mut peer, Error::InProgress);
}

/// ER-33.
#[test]
fn established_and_reset_before_it_was_collected() {
    let mut peer = Peer::syn_sent();
    peer.send(SYN_ACK);
    peer.send(Seg {
        flags: tcphdr::RST,
        ..SEND
    });
    fails(&mut peer, Error::ConnReset);
}

/// ER-28.
#[test]
fn a_listener_does_not_connect() {
    let mut peer = Peer::listening(1);
    assert!(!peer.bed.stack.connect_is_fresh(peer.bed.id));
    fails(&mut peer, Error::IsConn);
}

/// ER-38, ER-39.
#[test]
fn a_blocking_attempt_waits() {
    let mut peer = Peer::closed();
    peer.sk().opts.sndtimeo = Some(2 * HZ);
    let deadline = peer.now() + 2 * NSEC_PER_SEC;
    let mut call = ConnectCall::default();
    let again = |peer: &mut Peer, call: &mut ConnectCall| {
        let remote: SocketAddr = REMOTE.into();
        peer.bed
            .with(|stack, io, id| stack.connect(io, id, remote, false, call))
    };
    let wait = |deadline| Step::Wait {
        reason: WaitReason::Connect,
        deadline,
    };
    assert_eq!(again(&mut peer, &mut call), wait(deadline));
    peer.pass_ms(500);
    assert_eq!(again(&mut peer, &mut call), wait(deadline));
    peer.pass_ms(1_500);
    assert_eq!(
        again(&mut peer, &mut call),
        Step::Ready(Err(Error::InProgress))
    );
    assert_eq!(peer.state(), TcpState::SynSent, "the handshake goes on");

    let mut peer = Peer::closed();
    let mut call = ConnectCall::default();
    assert_eq!(again(&mut peer, &mut call), wait(Instant::NEVER));
    peer.isn = peer.only().seq;
    call.signal = true;
    assert_eq!(again(&mut peer, &mut call), Step::Ready(Err(Error::Intr)));
    fails(&mut peer, Error::Already);
    peer.send(SYN_ACK);
    assert_eq!(peer.connect(), Step::Ready(Ok(())));
}

/// ER-35.
#[test]
fn nowhere_to_go() {
    for ip in [[224, 0, 0, 1], [255, 255, 255, 255]] {
        let mut peer = Peer::closed();
        let step = peer.bed.with(|stack, io, id| {
            stack.connect(io, id, (ip, 80).into(), true, &mut ConnectCall::default())
        });
        assert_eq!(step, Step::Ready(Err(Error::NetUnreach)));
        assert_eq!(peer.released(), 1, "the holder may go");
        assert!(peer.bed.stack.connect_is_fresh(peer.bed.id));
    }
}

/// ER-40.
#[test]
fn the_tuple_is_in_use() {
    let mut peer = Peer::syn_sent();
    peer.bed.id = peer.bed.stack.socket(false, 8);
    let id = peer.bed.id;
    peer.bed.stack.bound(id, LOCAL.into());
    fails(&mut peer, Error::AddrNotAvail);
    assert_eq!(peer.released(), 0, "it is the other's");
}

/// ER-20, ER-25.
#[test]
fn disconnect() {
    let mut peer = Peer::closed();
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    assert_eq!(peer.sk().sk_err, None);
    let sk = peer.sk();
    assert_eq!(sk.write_seq.wrapping_sub(sk.snd_una), 2, "RD-40");

    let mut peer = Peer::established();
    peer.send(Seg { len: 5, ..SEND });
    peer.sent();
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    assert_eq!(peer.only().flags, tcphdr::RST | tcphdr::ACK);
    assert_eq!(peer.sk().sk_err, Some(Error::ConnReset));
    assert_eq!(peer.state(), TcpState::Close);
    assert_eq!(peer.sk().shutdown, 0);
    assert!(peer.sk().receive_queue.is_empty());
    assert_eq!(peer.released(), 1);
}

/// Linux `tcp_disconnect` leaves `icsk_retransmits` to the next connect, and lets that pass for a fast open like the last one:
/// TCP_INFO shows TCPI_OPT_SYN_DATA again.
#[test]
fn disconnect_leaves_some_behind() {
    let mut peer = Peer::syn_sent();
    peer.pass_ms(1500);
    assert_eq!(peer.sent().len(), 1, "the SYN again");
    peer.sk().syn_fastopen = true;
    peer.sk().syn_data = true;
    peer.sk().syn_data_acked = true;
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    assert_eq!(peer.sk().retransmits, 1);
    assert!(!peer.sk().syn_data_acked);
    peer.sk().sk_err = None;
    fails(&mut peer, Error::InProgress);
    peer.isn = peer.only().seq;
    assert_eq!(peer.sk().retransmits, 0);
    peer.send(SYN_ACK);
    assert_eq!(peer.state(), TcpState::Established);
    assert!(peer.sk().syn_data_acked);
}

/// Linux `tcp_disconnect` leaves `scaling_ratio`: the next SYN's window is of what the peer's segments have taught.
#[test]
fn disconnect_leaves_the_scaling_ratio() {
    let mut peer = Peer::established();
    peer.send(Seg { len: 1448, ..SEND });
    peer.sent();
    let ratio = peer.sk().scaling_ratio;
    assert_ne!(ratio, TCP_DEFAULT_SCALING_RATIO);
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    peer.sent();
    assert_eq!(peer.sk().scaling_ratio, ratio);
    peer.sk().sk_err = None;
    fails(&mut peer, Error::InProgress);
    assert_eq!(peer.only().window, 65535);
}

/// And TCPI_OPT_ECN of the last connection.
#[test]
fn disconnect_leaves_ecn() {
    let mut peer = Peer::established();
    peer.sk().ecn_flags = ecn::OK | ecn::SEEN;
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    peer.sent();
    assert_eq!(peer.sk().ecn_flags, ecn::OK | ecn::SEEN);
    peer.sk().sk_err = None;
    fails(&mut peer, Error::InProgress);
    assert_eq!(peer.sk().ecn_flags, 0);
}

/// And what TCP_TIMESTAMP was set to: it reads so until the next connect.
#[test]
fn disconnect_leaves_the_timestamp_clock() {
    let mut peer = Peer::established();
    peer.sk().tsoffset = 77;
    peer.sk().tcp_usec_ts = true;
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    peer.sent();
    assert_eq!((peer.sk().tsoffset, peer.sk().tcp_usec_ts), (77, true));
    peer.sk().sk_err = None;
    fails(&mut peer, Error::InProgress);
    assert!(!peer.sk().tcp_usec_ts);
}

/// A socket that was connected goes on as a fresh one.
#[test]
fn connect_after_disconnect() {
    let mut peer = Peer::syn_sent();
    peer.send(SYN_ACK);
    let first = peer.isn;
    peer.sent();
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    peer.sent();
    peer.sk().sk_err = None;
    fails(&mut peer, Error::InProgress);
    peer.isn = peer.only().seq;
    assert_ne!(peer.isn, first);
    peer.send(SYN_ACK);
    assert_eq!(peer.connect(), Step::Ready(Ok(())));
    peer.send(Seg { len: 7, ..SEND });
    assert_eq!(peer.recv(0, 100), Ok(7));
}

/// Linux `tcp_disconnect`: how often the SYN went again stays to be seen until the next connect.
#[test]
fn what_an_attempt_took_is_shown_afterwards() {
    let mut peer = Peer::syn_sent();
    peer.pass_ms(1_100);
    assert_eq!(peer.sk().retransmits, 1);
    peer.bed.with(|stack, io, id| stack.disconnect(io, id));
    assert_eq!(peer.sk().retransmits, 1);
    let _ = peer.connect();
    assert_eq!(peer.sk().retransmits, 0);
}
