//! Reassembly: whatever the order, overlap and repetition of segments, the stream comes out.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use sidewire_wire::tcp_options::Signature;

use crate::data_queue::tcp_data_queue;
use crate::memory::{Frag, MemRef, Memory};
use crate::net::Tuple;
use crate::segment::Segment;
use crate::seq::{after, before};
use crate::skb::tcphdr;
use crate::sock::SackBlock;
use crate::testbed::Bed;
use crate::testpeer::{PEER_ISN, Peer, SEND, Seg};

/// Longest stream of these tests: one page of the test's memory holds it.
const STREAM: usize = 16_000;

fn byte(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}

/// A connection whose peer's stream begins at `isn`, and a page that holds the stream.
fn open(isn: u32) -> (Bed, MemRef) {
    let mut bed = Bed::established();
    let sk = bed.sk();
    sk.rcv_nxt = isn;
    sk.copied_seq = isn;
    sk.rcv_wup = isn;
    sk.rcv_wnd = 1 << 16;
    sk.window_clamp = 1 << 16;
    sk.rcv_ssthresh = 1 << 16;
    sk.rcvbuf = 1 << 24;
    sk.advmss = 1460;
    sk.sack_ok = true;
    let page = bed.mem.alloc_page_frag().expect("a page");
    let stream: Vec<u8> = (0..STREAM).map(byte).collect();
    bed.mem.write(&page, 0, &stream);
    (bed, page)
}

/// The segment of `[at, at + len)`.
fn segment(isn: u32, page: &MemRef, at: usize, len: usize, fin: bool) -> Segment {
    let seq = isn.wrapping_add(at as u32);
    Segment {
        tuple: Tuple {
            local: ([10, 0, 0, 1], 1000).into(),
            remote: ([10, 0, 0, 2], 1000).into(),
        },
        seq,
        end_seq: seq.wrapping_add(len as u32 + u32::from(fin)),
        ack_seq: 1000,
        flags: tcphdr::ACK | if fin { tcphdr::FIN } else { 0 },
        window: 65_535,
        urg_ptr: 0,
        opts: Default::default(),
        signature: Signature::None,
        opt_len: 0,
        payload: (len > 0).then(|| Frag {
            mem: page.clone(),
            off: at as u32,
            len: len as u32,
        }),
        len: len as u32,
        gso_segs: 1,
        gso_size: 0,
        tos: 0,
        ttl: 64,
        iif: 2,
        tstamp_ns: 0,
        headers: None,
    }
}

fn receive(bed: &mut Bed, mut seg: Segment) {
    bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).expect("the socket");
        tcp_data_queue(sk, &mut cx, &mut seg);
        sk.check();
    });
}

fn stream_of(bed: &mut Bed) -> Vec<u8> {
    let frags: Vec<Frag> = bed
        .sk()
        .receive_queue
        .iter()
        .map(|s| s.frag.clone())
        .collect();
    frags.iter().flat_map(|f| bed.mem.bytes(f)).collect()
}

/// Every block tells of data that is there, and the queue is sorted and disjoint.
fn check_blocks(bed: &mut Bed) {
    let sk = bed.sk();
    for pair in sk.ofo_queue.iter().zip(sk.ofo_queue.iter().skip(1)) {
        assert!(!after(pair.0.end_seq, pair.1.seq), "the queue overlaps");
    }
    for block in &sk.selective_acks[..usize::from(sk.num_sacks)] {
        let mut at = block.start_seq;
        for skb in &sk.ofo_queue {
            if skb.seq == at {
                at = skb.end_seq;
            }
        }
        assert!(before(block.start_seq, block.end_seq));
        assert!(after(block.start_seq, sk.rcv_nxt), "a block below rcv_nxt");
    }
}

proptest! {
    #[test]
    fn any_order_gives_the_stream(
        isn in any::<u32>(),
        total in 1..STREAM,
        noise in proptest::collection::vec((0..STREAM, 1..3000usize), 0..60),
        piece in 100..2000usize,
        fin in any::<bool>(),
        order in any::<u64>(),
    ) {
        let (mut bed, page) = open(isn);
        for (at, len) in noise {
            let at = at % total;
            let len = len.min(total - at);
            receive(&mut bed, segment(isn, &page, at, len, fin && at + len == total));
            check_blocks(&mut bed);
        }
        // Then everything once more, in pieces and in some order: nothing may be missing.
        let mut pieces: Vec<usize> = (0..total).step_by(piece).collect();
        let mut seed = order | 1;
        for i in (1..pieces.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            pieces.swap(i, (seed >> 33) as usize % (i + 1));
        }
        for at in pieces {
            let len = piece.min(total - at);
            receive(&mut bed, segment(isn, &page, at, len, fin && at + len == total));
            check_blocks(&mut bed);
        }
        let expected: Vec<u8> = (0..total).map(byte).collect();
        prop_assert_eq!(stream_of(&mut bed), expected);
        let sk = bed.sk();
        prop_assert!(sk.ofo_queue.is_empty());
        prop_assert_eq!(sk.num_sacks, 0);
        prop_assert_eq!(sk.rcv_nxt, isn.wrapping_add(total as u32 + u32::from(fin)));
        prop_assert_eq!(sk.sock_done, fin);
        let charged: u32 = sk.receive_queue.iter().map(|s| s.truesize).sum();
        prop_assert_eq!(sk.rmem_alloc, charged);
    }
}

/// RFC 2018 §4: the block that the last segment belongs to comes first, the others by age.
#[test]
fn the_newest_block_comes_first() {
    let (mut bed, page) = open(0);
    for at in [1000, 3000, 5000] {
        receive(&mut bed, segment(0, &page, at, 500, false));
    }
    let block = |start_seq, end_seq| SackBlock { start_seq, end_seq };
    assert_eq!(
        bed.sk().selective_acks[..3],
        [block(5000, 5500), block(3000, 3500), block(1000, 1500)]
    );
    receive(&mut bed, segment(0, &page, 1500, 500, false));
    assert_eq!(
        bed.sk().selective_acks[..3],
        [block(1000, 2000), block(5000, 5500), block(3000, 3500)]
    );
    // Filling between two blocks makes them one.
    receive(&mut bed, segment(0, &page, 2000, 1000, false));
    assert_eq!(bed.sk().num_sacks, 2);
    assert_eq!(
        bed.sk().selective_acks[..2],
        [block(1000, 3500), block(5000, 5500)]
    );
}

#[test]
fn a_fifth_block_pushes_the_oldest_out() {
    let (mut bed, page) = open(0);
    for at in [1000, 3000, 5000, 7000, 9000] {
        receive(&mut bed, segment(0, &page, at, 500, false));
    }
    let sk = bed.sk();
    assert_eq!(sk.num_sacks, 4);
    let starts: Vec<u32> = sk.selective_acks.iter().map(|b| b.start_seq).collect();
    assert_eq!(starts, vec![9000, 7000, 5000, 3000]);
}

/// RFC 2883 §4: old data, data that is queued, and the overlap of both are reported.
#[test]
fn duplicates_are_told() {
    let (mut bed, page) = open(0);
    let dsack = |bed: &mut Bed| bed.sk().duplicate_sack.map(|b| (b.start_seq, b.end_seq));
    receive(&mut bed, segment(0, &page, 0, 1000, false));
    assert_eq!(dsack(&mut bed), None);
    receive(&mut bed, segment(0, &page, 500, 400, false));
    assert_eq!(dsack(&mut bed), Some((500, 900)));
    receive(&mut bed, segment(0, &page, 2000, 1000, false));
    receive(&mut bed, segment(0, &page, 2200, 100, false));
    assert_eq!(dsack(&mut bed), Some((2200, 2300)));
    receive(&mut bed, segment(0, &page, 2800, 400, false));
    assert_eq!(dsack(&mut bed), Some((2800, 3000)));
    // Partly old, partly new.
    receive(&mut bed, segment(0, &page, 900, 300, false));
    assert_eq!(dsack(&mut bed), Some((900, 1000)));
    assert_eq!(bed.sk().rcv_nxt, 1200);
}

/// A run that two queued ones cover between them adds nothing.
#[test]
fn covered_by_two_together() {
    let (mut bed, page) = open(0);
    receive(&mut bed, segment(0, &page, 1, 578, false));
    receive(&mut bed, segment(0, &page, 2, 995, false));
    receive(&mut bed, segment(0, &page, 431, 431, false));
    let runs: Vec<_> = bed
        .sk()
        .ofo_queue
        .iter()
        .map(|s| (s.seq, s.end_seq))
        .collect();
    assert_eq!(runs, vec![(1, 579), (579, 997)]);
    assert_eq!(
        bed.sk().duplicate_sack,
        Some(SackBlock {
            start_seq: 431,
            end_seq: 862
        })
    );
}

/// Small segments in a full buffer are packed together before anything is dropped.
#[test]
fn a_full_buffer_is_collapsed() {
    let (mut bed, page) = open(0);
    bed.sk().opts.buf_lock_rcv = true;
    bed.sk().rcvbuf = 40_000;
    for at in (0..2000).step_by(20) {
        receive(&mut bed, segment(0, &page, at, 20, false));
    }
    assert_eq!(bed.sk().rcv_nxt, 2000);
    let expected: Vec<u8> = (0..2000).map(byte).collect();
    assert_eq!(stream_of(&mut bed), expected);
    assert!(bed.sk().rmem_alloc <= 41_000);
}

/// Out-of-order data goes first when the buffer is full; in-order data finds room.
#[test]
fn a_full_buffer_drops_what_is_out_of_order() {
    let (mut bed, page) = open(0);
    bed.sk().opts.buf_lock_rcv = true;
    bed.sk().rcvbuf = 10_000;
    for at in (2000..14_000).step_by(1500) {
        receive(&mut bed, segment(0, &page, at, 1000, false));
    }
    assert!(bed.sk().rmem_alloc <= 10_000 + 1000 + crate::rcvbuf::RX_SKB_OVERHEAD);
    receive(&mut bed, segment(0, &page, 0, 1000, false));
    assert_eq!(bed.sk().rcv_nxt, 1000);
}

/// A hole that this batch opened shows until the batch ends with an ack, or the hole is filled; later segments behind it
/// change nothing.
#[test]
fn a_batch_shows_the_hole_that_it_opened() {
    let data = |at: u32| Seg {
        seq: PEER_ISN + 1 + at,
        len: 100,
        ..SEND
    };
    let mut peer = Peer::established_sack();
    peer.send_in_batch(data(0));
    assert!(!peer.bed.stack.batch_opened_hole());
    peer.send_in_batch(data(200));
    assert!(peer.bed.stack.batch_opened_hole());
    peer.send_in_batch(data(100));
    assert!(!peer.bed.stack.batch_opened_hole());
    peer.send_in_batch(data(400));
    assert!(peer.bed.stack.batch_opened_hole());
    peer.send(SEND);
    peer.send_in_batch(data(500));
    assert!(!peer.bed.stack.batch_opened_hole());
}
