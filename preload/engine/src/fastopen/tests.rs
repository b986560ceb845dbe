//! When fast open is left alone for a while (Linux `tcp_fastopen_active_disable_ofo_check`).

use crate::skb::tcphdr;
use crate::sysctl::Sysctl;
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};

/// A connection that began with a fast open and got these segments; ended by a RST before or after the close. Is fast open
/// off then?
fn off_after(segments: &[Seg], orphan: bool) -> bool {
    let mut peer = Peer::established();
    let sysctl = Sysctl {
        tcp_fastopen_blackhole_timeout_s: 3_600,
        ..Sysctl::default()
    };
    peer.bed.stack.sh.sysctl = sysctl.clone();
    peer.sk().syn_fastopen = true;
    for seg in segments {
        peer.send(Seg {
            ack: peer.ack_of(1).ack,
            ..*seg
        });
    }
    if orphan {
        peer.close();
    }
    let next = peer.ack_of(1);
    peer.send(Seg {
        flags: tcphdr::RST | tcphdr::ACK,
        seq: peer
            .bed
            .stack
            .socks
            .get(peer.bed.id)
            .map_or(next.seq, |sk| sk.rcv_nxt),
        ..next
    });
    if !orphan {
        peer.close();
    }
    let now = peer.now();
    peer.bed.stack.sh.blackhole.disabled(&sysctl, now)
}

fn end_out_of_order() -> Seg {
    Seg {
        flags: tcphdr::FIN | tcphdr::ACK,
        seq: PEER_ISN + 101,
        ..SEND
    }
}

#[test]
fn nothing_but_an_end_out_of_order_turns_it_off() {
    let data = Seg { len: 10, ..SEND };
    for orphan in [false, true] {
        assert!(off_after(&[end_out_of_order()], orphan), "{orphan}");
        assert!(!off_after(&[], orphan), "{orphan}");
        assert!(!off_after(&[data], orphan), "{orphan}");
        assert!(!off_after(&[data, end_out_of_order()], orphan), "{orphan}");
    }
}

#[test]
fn data_after_a_blackhole_is_its_end() {
    let mut peer = Peer::established();
    let (stack, now) = (&mut peer.bed.stack, peer.bed.now);
    stack.sh.sysctl.tcp_fastopen_blackhole_timeout_s = 1;
    stack.sh.blackhole.disable(&stack.sh.sysctl, now);
    peer.sk().syn_fastopen = true;
    peer.sk().syn_fastopen_ch = true;
    peer.send(Seg {
        len: 10,
        ..peer.ack_of(1)
    });
    assert!(peer.bed.stack.sh.blackhole.was_disabled());
    peer.close();
    assert!(!peer.bed.stack.sh.blackhole.was_disabled());
}
