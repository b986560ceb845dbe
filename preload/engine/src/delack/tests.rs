//! When acks go out (RV-37 to RV-46), and the window that they announce (TM-30, TM-31).

use sidewire_uapi::socket::MSG_TRUNC;
use sidewire_wire::tcp::TcpOptions;

use crate::rcvbuf::RX_SKB_OVERHEAD;
use crate::sysctl::Sysctl;
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};

fn data(at: u32, len: u32) -> Seg {
    Seg {
        seq: PEER_ISN + 1 + at,
        len,
        ..SEND
    }
}

/// RV-38: the first small segments are acked at once, the later ones after 40 ms.
#[test]
fn quick_then_delayed() {
    let mut peer = Peer::established();
    let mut quick = 0;
    for n in 0..30 {
        peer.send(data(n * 10, 10));
        let acked = !peer.sent().is_empty();
        if !acked {
            break;
        }
        quick += 1;
        peer.pass_ms(1);
    }
    assert!((14..=17).contains(&quick), "{quick}");
    peer.pass_ms(39);
    assert_eq!(peer.sent(), []);
    peer.pass_ms(2);
    assert_eq!(peer.sent().len(), 1);
}

/// RV-37: every second full segment, once a batch.
#[test]
fn one_ack_a_batch() {
    let mut peer = Peer::established();
    peer.sk().ack.quick = 0;
    peer.sk().ack.ato_ns = super::TCP_DELACK_MIN_NS;
    for n in 0..10 {
        peer.send_in_batch(data(n * 1460, 1460));
    }
    peer.send(data(14_600, 1460));
    assert_eq!(peer.only().ack, PEER_ISN + 1 + 16_060);
}

/// RV-46: a read that empties the buffer sends what was delayed.
#[test]
fn reading_acks() {
    let mut peer = Peer::established();
    peer.sk().ack.quick = 0;
    peer.sk().ack.ato_ns = super::TCP_DELACK_MIN_NS;
    peer.send(data(0, 10));
    assert_eq!(peer.sent(), []);
    assert_eq!(peer.recv(0, 100), Ok(10));
    assert_eq!(peer.only().ack, PEER_ISN + 11);
}

/// A connection of a peer with window scale `wscale`.
fn scaled(wscale: Option<u8>) -> Peer {
    let mut peer = Peer::with_sysctl(Sysctl {
        tcp_rmem: [4096, 131_072, 33_554_432],
        ..Sysctl::default()
    });
    peer.bed
        .with(|stack, io, id| stack.listen(io, id, 5))
        .expect("listen");
    peer.listener = Some(peer.bed.id);
    peer.syn(TcpOptions {
        wscale,
        ..TcpOptions::default()
    });
    peer.send(SEND);
    peer.accept();
    peer.sent();
    peer
}

/// TM-30, TM-31: 1400-byte segments close the window of a 131072 buffer at 78400 unread bytes, its right edge never moves
/// back, and reading 30000 of them opens it again by 29400.
#[test]
fn a_full_buffer_closes_the_window() {
    let mut peer = scaled(None);
    let mut sent = 0;
    let mut window = 64_240;
    let mut edge = 0;
    while window > 0 && sent < 131_072 {
        let len = window.min(1400);
        peer.send(data(sent, len));
        sent += len;
        peer.pass_ms(50);
        let ack = peer.sent().pop().expect("an ack");
        assert_eq!(ack.ack, PEER_ISN + 1 + sent);
        window = u32::from(ack.window);
        assert!(sent + window >= edge, "the right edge moved back");
        edge = sent + window;
    }
    assert_eq!(sent, 78_400);
    assert_eq!(peer.recv(0, 30_000), Ok(30_000));
    assert_eq!(peer.only().window, 29_400);
}

/// TM-25: a reader that keeps up gets a larger buffer, round trip by round trip.
#[test]
fn autotuning() {
    let mut peer = scaled(Some(7));
    let before = peer.sk().rcvbuf;
    let mut at = 0;
    // A sender that fills the window in a round trip of ten milliseconds.
    for _ in 0..16 {
        let sk = peer.sk();
        let round = sk.receive_window() / 10;
        for _ in 0..10 {
            for _ in 0..round / 1460 {
                peer.send_in_batch(data(at, 1460));
                at += 1460;
            }
            peer.send(SEND);
            peer.recv(MSG_TRUNC, 1 << 20).expect("data");
            peer.pass_ms(1);
        }
    }
    let sk = peer.sk();
    assert!(sk.rcvbuf > 8 * before, "{} after {before}", sk.rcvbuf);
    assert!(sk.rcvbuf <= 33_554_432);
    assert!(sk.receive_window() > 1 << 20);
}

/// TM-25: the buffer runs ahead of a rate that grows, and follows one that does not (the numbers are Linux 6.18's).
#[test]
fn autotuning_runs_ahead() {
    let mut peer = scaled(Some(7));
    let mut grown = |space| {
        let crate::stack::Stack { socks, sh, .. } = &mut peer.bed.stack;
        let sk = &mut socks[peer.bed.id];
        sk.scaling_ratio = 229;
        crate::rcvbuf::tcp_rcvbuf_grow(sk, sh, space);
        sk.rcvbuf
    };
    assert_eq!(grown(14_480), 131_072);
    assert_eq!(grown(49_152), 636_172);
    assert_eq!(grown(196_608), 3_077_043);
    assert_eq!(grown(196_608), 3_077_043);
}

/// SO_RCVBUF ends autotuning.
#[test]
fn a_fixed_buffer_stays() {
    let mut peer = scaled(Some(7));
    peer.sk().opts.buf_lock_rcv = true;
    let before = peer.sk().rcvbuf;
    let mut at = 0;
    for _ in 0..30 {
        for _ in 0..20 {
            peer.send_in_batch(data(at, 1460));
            at += 1460;
        }
        peer.send(SEND);
        peer.recv(MSG_TRUNC, 1 << 20).expect("data");
        peer.pass_ms(20);
    }
    assert_eq!(peer.sk().rcvbuf, before);
}

/// A peer that sends beyond the buffer is not believed: memory stays bounded.
#[test]
fn memory_is_bounded() {
    let mut peer = Peer::established_sack();
    peer.sk().opts.buf_lock_rcv = true;
    for n in 0..20_000 {
        peer.send(data(n * 3, 1));
    }
    let bound = peer.sk().rcvbuf + 2 * RX_SKB_OVERHEAD;
    assert!(peer.sk().rmem_alloc <= bound);
    peer.sent();
}
