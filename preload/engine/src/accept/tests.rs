//! Listeners in whose place the kernel listens.

use alloc::vec::Vec;

use super::UNACCEPTED_NS;
use crate::calls::AcceptCall;
use crate::error::Error;
use crate::net::Tuple;
use crate::skb::tcphdr;
use crate::stack::{SocketId, Step};
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};
use crate::time::NSEC_PER_MSEC;

const SYN: Seg = Seg {
    flags: tcphdr::SYN,
    seq: PEER_ISN,
    ..SEND
};

/// Peers at ports 1 and 2 wait to be accepted, the one at port 3 has not answered yet, and the listener leaves.
fn leaving() -> (Peer, SocketId) {
    let mut peer = Peer::listening(5);
    for port in 1..=3 {
        peer.tuple.remote.set_port(port);
        peer.send(SYN);
        peer.isn = peer.sent().pop().expect("an answer").seq;
        if port < 3 {
            peer.send(SEND);
        }
    }
    let id = peer.bed.with(|stack, io, _| {
        let listener = stack.find_listener(&peer.tuple.local);
        let id = listener.expect("a listener");
        let ports: Vec<_> = stack
            .unaccepted(id)
            .iter()
            .map(|t| t.remote.port())
            .collect();
        assert_eq!(ports, [1, 2, 3]);
        assert!(!stack.has_left(id));
        stack.leave_listening(io, id);
        id
    });
    peer.bed.wire.kernel_answers = true;
    (peer, id)
}

fn accept(peer: &mut Peer, id: SocketId) -> Option<u16> {
    peer.bed.with(|stack, io, _| {
        let step = stack.accept(io, id, true, &mut AcceptCall::default());
        match step {
            Step::Ready(Ok(child)) => stack.sock(child).map(|sk| sk.tuple.remote.port()),
            other => {
                assert_eq!(other, Step::Ready(Err(Error::Again)));
                None
            }
        }
    })
}

fn released(peer: &mut Peer) -> Vec<u16> {
    let mut ports = Vec::new();
    peer.bed
        .stack
        .take_released(|t: Tuple| ports.push(t.remote.port()));
    ports.sort_unstable();
    ports
}

#[test]
fn what_came_in_before_is_accepted() {
    let (mut peer, id) = leaving();
    // The last handshake ends; a new one does not begin.
    peer.send(SEND);
    peer.tuple.remote.set_port(4);
    peer.send(SYN);
    assert_eq!(peer.sent(), []);
    let ports: Vec<_> = core::iter::from_fn(|| accept(&mut peer, id)).collect();
    assert_eq!(ports, [1, 2, 3]);
    assert!(peer.bed.stack.has_left(id));
    assert_eq!(released(&mut peer), []);
}

#[test]
fn a_handshake_that_ends_otherwise_gives_its_holder_back() {
    let (mut peer, id) = leaving();
    peer.send(Seg {
        flags: tcphdr::RST,
        ..SEND
    });
    assert_eq!(released(&mut peer), [3]);
    assert!(accept(&mut peer, id).is_some());
    peer.bed.with(|stack, io, _| stack.abort(io, id));
    assert_eq!(released(&mut peer), [2]);
}

#[test]
fn nobody_waits_for_ever() {
    let (mut peer, id) = leaving();
    peer.pass_ms(UNACCEPTED_NS / NSEC_PER_MSEC - 1);
    peer.sent();
    assert_eq!(accept(&mut peer, id), Some(1));
    peer.pass_ms(UNACCEPTED_NS / NSEC_PER_MSEC - 1);
    peer.sent();
    peer.pass_ms(1);
    let resets = peer.sent();
    assert!(
        resets.iter().any(|r| r.flags & tcphdr::RST != 0),
        "{resets:?}"
    );
    assert_eq!(accept(&mut peer, id), None);
    assert!(released(&mut peer).contains(&2));
}

/// Linux `inet_csk_listen_stop` resets the oldest first; here each has left before the next.
#[test]
fn children_of_a_closed_listener_are_reset_in_their_order() {
    let mut peer = Peer::listening(3);
    for port in 1..=3 {
        peer.tuple.remote.set_port(port);
        peer.send(SYN);
        peer.isn = peer.sent().pop().expect("an answer").seq;
        peer.send(SEND);
    }
    let listener = peer.bed.stack.find_listener(&peer.tuple.local).unwrap();
    let before = peer.bed.wire.sent.len();
    peer.bed.with(|stack, io, _| stack.abort(io, listener));
    let flushed = peer.bed.wire.flushed.iter().map(|n| n - before);
    assert_eq!(flushed.collect::<Vec<_>>(), [1, 2, 3]);
    let resets = peer.bed.wire.sent[before..].iter();
    let ports = resets.map(|(header, _)| u16::from_be_bytes([header[2], header[3]]));
    assert_eq!(ports.collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_queue_more_than_half_full_is_crowded() {
    let mut peer = Peer::listening(3);
    for port in 1..=3 {
        assert!(!peer.bed.stack.accept_queue_crowded());
        peer.tuple.remote.set_port(port);
        peer.send(SYN);
        peer.isn = peer.sent().pop().expect("an answer").seq;
        peer.send(SEND);
    }
    assert!(peer.bed.stack.accept_queue_crowded());
    let listener = peer.bed.stack.find_listener(&peer.tuple.local);
    assert_eq!(accept(&mut peer, listener.expect("a listener")), Some(1));
    assert!(!peer.bed.stack.accept_queue_crowded());
}
