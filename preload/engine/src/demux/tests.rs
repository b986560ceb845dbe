//! Whatever comes, in whatever state: no panic, the invariants hold, and nothing stays behind.

use alloc::vec::Vec;

use proptest::prelude::*;
use sidewire_wire::tcp::TcpOptions;

use crate::memory::Frag;
use crate::mib::Counter;
use crate::segment::{Ingress, RxCsum};
use crate::skb::tcphdr;
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};

#[derive(Clone, Debug)]
enum Op {
    /// A segment: flags, offset from what we expect, offset of the ack from what we sent, length, window, urgent pointer.
    Segment(u8, i32, i32, u32, u16, u16),
    Options(u32, u32, Vec<(i32, i32)>),
    Recv(u16),
    Send(u16),
    Shutdown(u8),
    Disconnect,
    Connect,
    Wait(u16),
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![
        Just(0),
        -3..4i32,
        -3000..3000i32,
        -200_000..200_000i32,
        any::<i32>()
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let flags = prop_oneof![
        6 => Just(tcphdr::ACK),
        2 => Just(tcphdr::ACK | tcphdr::FIN),
        1 => Just(tcphdr::SYN),
        1 => any::<u8>(),
    ];
    let segment = (
        flags,
        near(),
        near(),
        0..1500u32,
        any::<u16>(),
        any::<u16>(),
    );
    prop_oneof![
        12 => segment.prop_map(|(f, s, a, l, w, u)| Op::Segment(f, s, a, l, w, u)),
        2 => (any::<u32>(), any::<u32>(), proptest::collection::vec((near(), near()), 0..4))
            .prop_map(|(a, b, s)| Op::Options(a, b, s)),
        2 => (0..4000u16).prop_map(Op::Recv),
        2 => (0..4000u16).prop_map(Op::Send),
        1 => (0..4u8).prop_map(Op::Shutdown),
        1 => Just(Op::Disconnect),
        1 => Just(Op::Connect),
        2 => (0..3000u16).prop_map(Op::Wait),
    ]
}

const STARTS: [fn() -> Peer; 12] = [
    Peer::closed,
    || Peer::listening(2),
    Peer::syn_received,
    Peer::syn_sent,
    Peer::established,
    Peer::established_sack,
    Peer::fin_wait1,
    Peer::fin_wait2,
    Peer::close_wait,
    Peer::last_ack,
    Peer::time_wait,
    || {
        let mut peer = Peer::listening(5);
        peer.syn(TcpOptions {
            timestamps: Some((5, 0)),
            wscale: Some(14),
            sack_permitted: true,
            ..TcpOptions::default()
        });
        peer
    },
];

fn run(peer: &mut Peer, op: Op, opts: &mut Option<TcpOptions>) {
    let (rcv_nxt, snd_nxt) = match peer.bed.stack.sock(peer.bed.id) {
        Some(sk) if sk.rcv_nxt != 0 => (sk.rcv_nxt, sk.snd_nxt),
        _ => (PEER_ISN + 1, peer.isn.wrapping_add(1)),
    };
    match op {
        Op::Segment(flags, seq, ack, len, window, urg_ptr) => peer.send(Seg {
            flags,
            seq: rcv_nxt.wrapping_add_signed(seq),
            ack: snd_nxt.wrapping_add_signed(ack),
            len,
            window,
            urg_ptr,
            tos: 0,
            opts: opts.take(),
        }),
        Op::Options(tsval, tsecr, sack) => {
            *opts = Some(TcpOptions {
                timestamps: Some((tsval, tsecr)),
                sack: sack
                    .iter()
                    .map(|(a, b)| {
                        (
                            snd_nxt.wrapping_add_signed(*a),
                            snd_nxt.wrapping_add_signed(*b),
                        )
                    })
                    .collect(),
                ..TcpOptions::default()
            });
        }
        Op::Recv(len) => {
            if peer.bed.stack.exists(peer.bed.id) {
                let _ = peer.recv(0, usize::from(len));
            }
        }
        Op::Send(len) => {
            if peer.bed.stack.exists(peer.bed.id) {
                let _ = peer.bed.send(0, usize::from(len));
            }
        }
        Op::Shutdown(how) => {
            let _ = peer.shutdown(i32::from(how));
        }
        Op::Disconnect => peer.bed.with(|stack, io, id| stack.disconnect(io, id)),
        Op::Connect => {
            if peer.bed.stack.connect_is_fresh(peer.bed.id) {
                let local = peer.tuple.local;
                let id = peer.bed.id;
                peer.bed.stack.bound(id, local);
                let _ = peer.connect();
            }
        }
        Op::Wait(ms) => peer.pass_ms(u64::from(ms)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_input_in_any_state(
        start in 0..STARTS.len(),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let mut peer = STARTS[start]();
        let mut opts = None;
        for op in ops {
            run(&mut peer, op, &mut opts);
        }
        let ids: Vec<_> = peer.bed.stack.socks.keys().collect();
        for id in ids {
            peer.bed.with(|stack, io, _| stack.abort(io, id));
        }
        peer.pass_ms(400_000);
        prop_assert!(peer.bed.stack.quiescent());
        prop_assert_eq!(peer.bed.stack.socks.len(), 0);
        prop_assert!(peer.bed.stack.ehash.is_empty());
        prop_assert!(peer.bed.stack.lhash.is_empty());
        prop_assert!(peer.bed.stack.ports.is_empty());
        prop_assert_eq!(peer.bed.stack.timewait_count(), 0);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), v4 in any::<bool>()) {
        let mut peer = Peer::established();
        let mut bytes = bytes;
        if v4 && bytes.len() > 40 {
            // As far as the checks let it come.
            bytes[0] = 0x45;
            bytes[9] = 6;
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
        }
        let mut frame = Ingress {
            headers: &bytes,
            payload: None::<Frag>,
            csum: RxCsum::Good,
            gso_segs: 0,
            gso_size: 0,
            iif: 2,
            tstamp_ns: 0,
        };
        peer.bed.with(|stack, io, _| stack.rx(io, &mut frame));
        peer.send(SEND);
    }
}

#[test]
fn a_bad_checksum_is_counted() {
    let mut peer = Peer::established();
    let mut frame = Ingress {
        headers: &[],
        payload: None,
        csum: RxCsum::Bad,
        gso_segs: 1,
        gso_size: 0,
        iif: 2,
        tstamp_ns: 0,
    };
    peer.bed.with(|stack, io, _| stack.rx(io, &mut frame));
    assert_eq!(peer.bed.stack.mib().get(Counter::InCsumErrors), 1);
}

/// Linux CHECKSUM_BREAK.
#[test]
fn a_bad_checksum_is_seen_late() {
    let mut peer = Peer::established();
    let before = peer.sk().info.clone();
    for (opts, len) in [(0, 56), (0, 57), (12, 44), (12, 45)] {
        let opts = TcpOptions {
            timestamps: (opts > 0).then_some((1, 1)),
            ..TcpOptions::default()
        };
        peer.send_broken(Seg {
            len,
            opts: Some(opts),
            ..SEND
        });
    }
    let after = peer.sk().info.clone();
    assert_eq!(after.segs_in - before.segs_in, 2);
    assert_eq!(after.data_segs_in - before.data_segs_in, 2);
    assert_eq!(after.drops - before.drops, 2);
    assert_eq!(after.bytes_received, before.bytes_received);
}

/// ER-79, ER-80: on a port that is ours, and on no other.
#[test]
fn strangers() {
    let mut peer = Peer::established();
    peer.sent();
    peer.tuple.remote.set_port(1);
    peer.bed.with(|stack, io, _| {
        let listener = stack.find_listener(&([10, 0, 0, 1], 80).into());
        stack.abort(io, listener.expect("a listener"));
    });
    peer.send(Seg { ack: 1234, ..SEND });
    let reset = peer.only();
    assert_eq!((reset.flags, reset.seq), (tcphdr::RST, 1234));
    peer.send(Seg {
        flags: tcphdr::SYN,
        seq: 5000,
        ..SEND
    });
    let reset = peer.only();
    assert_eq!(reset.flags, tcphdr::RST | tcphdr::ACK);
    assert_eq!((reset.seq, reset.ack), (0, 5001));
    peer.tuple.local.set_port(81);
    peer.send(SEND);
    assert_eq!(peer.sent(), []);
    assert_eq!(peer.bed.stack.mib().get(Counter::NoSocket), 3);
}

/// A connection of the kernel's beside ours on one port, with and without a listener of ours.
#[test]
fn the_kernels_own_are_no_strangers() {
    let mut peer = Peer::established();
    peer.sent();
    peer.tuple.remote.set_port(1);
    for kernel in [true, false] {
        peer.bed.wire.kernel_answers = kernel;
        peer.send(Seg { ack: 1234, ..SEND });
        assert_eq!(peer.sent().len(), usize::from(!kernel));
    }
    peer.bed.with(|stack, io, _| {
        let listener = stack.find_listener(&([10, 0, 0, 1], 80).into());
        stack.abort(io, listener.expect("a listener"));
    });
    for kernel in [true, false] {
        peer.bed.wire.kernel_answers = kernel;
        peer.send(Seg { ack: 1234, ..SEND });
        assert_eq!(peer.sent().len(), usize::from(!kernel));
    }
}
