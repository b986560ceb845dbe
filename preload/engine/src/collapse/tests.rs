//! What collapsing keeps and what it saves.

use alloc::vec::Vec;

use super::*;
use crate::memory::{MemRef, Memory};
use crate::testbed::Bed;

/// A connection that has received a page's bytes from 0 on, of which none is read.
fn open() -> (Bed, MemRef) {
    let mut bed = Bed::established();
    let sk = bed.sk();
    (sk.rcv_nxt, sk.copied_seq, sk.scaling_ratio) = (0, 0, 128);
    let page = bed.mem.alloc_page_frag().expect("a page");
    let bytes: Vec<u8> = (0..PAGE_FRAG_SIZE).map(|n| (n % 251) as u8).collect();
    bed.mem.write(&page, 0, &bytes);
    (bed, page)
}

fn buffer(page: &MemRef, seq: u32, len: u32, truesize: u32) -> RxSkb {
    RxSkb {
        seq,
        end_seq: seq + len,
        frag: Frag {
            mem: page.clone(),
            off: seq,
            len,
        },
        truesize,
        tstamp_ns: u64::from(seq),
        fin: false,
    }
}

fn collapse(bed: &mut Bed) {
    let sk = bed.sk();
    sk.rmem_alloc = truesize(&sk.receive_queue) + truesize(&sk.ofo_queue);
    bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).expect("the socket");
        collapse_queues(sk, &mut cx);
    });
    let sk = bed.sk();
    let charged = truesize(&sk.receive_queue) + truesize(&sk.ofo_queue);
    assert_eq!(sk.rmem_alloc, charged);
}

/// (seq, bytes, truesize) of each buffer, after a look at the bytes.
fn shape(bed: &mut Bed, ofo: bool) -> Vec<(u32, u32, u32)> {
    let sk = bed.sk();
    let queue = if ofo {
        &sk.ofo_queue
    } else {
        &sk.receive_queue
    };
    let queue: Vec<RxSkb> = queue.iter().cloned().collect();
    for skb in &queue {
        let mut bytes = alloc::vec![0; skb.frag.len as usize];
        bed.mem.read(&skb.frag, &mut bytes).expect("readable");
        let right = |(n, b): (usize, &u8)| *b == ((skb.seq as usize + n) % 251) as u8;
        assert!(bytes.iter().enumerate().all(right), "at {}", skb.seq);
    }
    let shape = |skb: &RxSkb| (skb.seq, skb.frag.len, skb.truesize);
    queue.iter().map(shape).collect()
}

#[test]
fn small_buffers_become_pages() {
    let (mut bed, page) = open();
    let queue = (0..8)
        .map(|n| buffer(&page, n * 1000, 1000, 2304))
        .collect();
    bed.sk().receive_queue = queue;
    collapse(&mut bed);
    assert_eq!(
        shape(&mut bed, false),
        [(0, 3776, 4352), (3776, 3776, 4352), (7552, 448, 1280)]
    );
}

#[test]
fn what_is_worth_its_memory_stays() {
    let (mut bed, page) = open();
    let full = buffer(&page, 0, 4000, 4800);
    let small = [4000, 4100].map(|seq| buffer(&page, seq, 100, 768));
    bed.sk().receive_queue = [full].into_iter().chain(small).collect();
    collapse(&mut bed);
    assert_eq!(shape(&mut bed, false), [(0, 4000, 4800), (4000, 200, 832)]);
}

#[test]
fn what_is_read_is_left_out_and_a_fin_stays() {
    let (mut bed, page) = open();
    let mut last = buffer(&page, 1200, 100, 768);
    (last.fin, last.end_seq) = (true, last.end_seq + 1);
    let queue = [
        buffer(&page, 0, 600, 1280),
        buffer(&page, 600, 600, 1280),
        last,
    ];
    bed.sk().receive_queue = queue.into();
    bed.sk().copied_seq = 250;
    collapse(&mut bed);
    assert_eq!(shape(&mut bed, false), [(250, 950, 2304), (1200, 100, 768)]);
    assert!(bed.sk().receive_queue.back().is_some_and(|skb| skb.fin));
}

#[test]
fn buffers_out_of_order_are_packed_run_by_run() {
    let (mut bed, page) = open();
    let queue = [(100, 50), (150, 50), (300, 50), (500, 50), (550, 50)];
    let queue = queue.map(|(seq, len)| buffer(&page, seq, len, 768));
    bed.sk().ofo_queue = queue.into();
    collapse(&mut bed);
    assert_eq!(
        shape(&mut bed, true),
        [(100, 100, 832), (300, 50, 768), (500, 100, 832)]
    );
}

#[test]
fn a_charge_that_stands_with_the_last_bytes_is_that_of_all() {
    let (mut bed, page) = open();
    let worth = [buffer(&page, 0, 3000, 0), buffer(&page, 3000, 3000, 7000)];
    let not = [buffer(&page, 6000, 300, 0), buffer(&page, 6300, 300, 2304)];
    bed.sk().receive_queue = worth.into_iter().chain(not).collect();
    collapse(&mut bed);
    assert_eq!(
        shape(&mut bed, false),
        [(0, 3000, 0), (3000, 3000, 7000), (6000, 600, 1280)]
    );
}
