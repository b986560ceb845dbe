use super::*;
use crate::mss::{tcp_bound_to_half_wnd, tcp_send_mss};
use crate::testbench::{Bench, MSS};

/// D4.
#[test]
fn size_goal_is_whole_segments_in_half_a_window() {
    for (window, mss, goal) in [(20_000, 1_460, 8_760), (65_535, 536, 32_696)] {
        let mut b = Bench::new();
        b.sk.max_window = window;
        b.sk.mss_cache = mss;
        b.sk.pmtu_cookie = MSS + 40;
        assert_eq!(b.with(|sk, cx| tcp_send_mss(sk, cx, 0)), (mss, goal));
    }
    let mut b = Bench::new();
    assert_eq!(b.with(|sk, cx| tcp_send_mss(sk, cx, 0)), (MSS, 65_160));
    assert_eq!(
        b.with(|sk, cx| tcp_send_mss(sk, cx, 1)),
        (MSS, MSS),
        "MSG_OOB"
    );
}

/// D3.
#[test]
fn half_window_bound() {
    let mut b = Bench::new();
    for (window, bound) in [(2_000, 1_000), (1_000, 500), (300, 300)] {
        b.sk.max_window = window;
        assert_eq!(tcp_bound_to_half_wnd(&b.sk, 1_460), bound);
    }
}

fn split(b: &Bench, segs: u32, nonagle: u8) -> u32 {
    tcp_mss_split_point(&b.sk, MSS, segs, nonagle)
}

#[test]
fn split_points() {
    let mut b = Bench::new();
    b.queue(5 * MSS + 100);
    assert_eq!(split(&b, 3, 0), 3 * MSS, "quota");
    assert_eq!(split(&b, 5, 0), 5 * MSS);
    assert_eq!(split(&b, 6, 0), 5 * MSS + 100, "nothing small is in flight");
    assert_eq!(split(&b, 6, nagle::CORK), 5 * MSS, "SP-3");
    b.sk.snd_wnd = 2 * MSS + 50;
    assert_eq!(split(&b, 6, nagle::CORK), 2 * MSS);
    assert_eq!(split(&b, 6, nagle::OFF), 2 * MSS + 50);
}

/// SP-6, SP-7, SP-9.
#[test]
fn minshall_lets_one_small_segment_be_in_flight() {
    let mut b = Bench::new();
    assert_eq!(b.write_with(MSS, 0).len(), 1);
    assert_eq!(
        b.write_with(100, 0).len(),
        1,
        "only a full one is in flight"
    );
    assert!(b.write_with(100, 0).is_empty());
    b.queue(MSS);
    b.with(crate::output::tcp_push_pending_frames);
    let sent = b.sent();
    assert_eq!(
        b.ranges(&sent),
        [(MSS + 100, 2 * MSS + 100)],
        "full ones go"
    );
    let sent = b.ack(MSS + 100, &[]);
    assert_eq!(b.ranges(&sent), [(2 * MSS + 100, 2 * MSS + 200)]);
}

#[test]
fn cutting_keeps_flags_with_the_last_byte() {
    let mut b = Bench::new();
    b.queue(3 * MSS + 7);
    let skb = b.sk.write_queue.front_mut().expect("queued");
    skb.tcp_flags |= tcphdr::PSH | tcphdr::FIN;
    skb.end_seq += 1;
    skb.eor = true;
    skb.tx_flags = TxFlags::ACK_TSTAMP;
    skb.tskey = skb.end_seq - 2;
    b.sk.write_seq += 1;
    assert!(b.with(|sk, cx| tcp_fragment(sk, cx, Queue::Write, 0, 2 * MSS, MSS)));
    let (head, tail) = (&b.sk.write_queue[0], &b.sk.write_queue[1]);
    assert_eq!((head.len, head.pcount(), head.gso_size), (2 * MSS, 2, MSS));
    assert_eq!((tail.len, tail.pcount()), (MSS + 7, 2));
    assert_eq!(head.tcp_flags, tcphdr::ACK);
    assert_eq!(tail.tcp_flags, tcphdr::ACK | tcphdr::PSH | tcphdr::FIN);
    assert!(!head.eor && tail.eor);
    assert!(head.tx_flags.is_empty());
    assert_eq!(tail.tx_flags, TxFlags::ACK_TSTAMP);
    assert_eq!(head.end_seq, tail.seq);
    assert_eq!(b.sk.wmem_queued, 2 * SKB_TRUESIZE + 3 * MSS + 7);
}

#[test]
fn a_cut_outside_is_refused() {
    let mut b = Bench::new();
    b.queue(100);
    for at in [0, 100, 200] {
        assert!(!b.with(|sk, cx| tcp_fragment(sk, cx, Queue::Write, 0, at, MSS)));
    }
}

#[test]
fn small_buffers_grow_at_the_cost_of_the_next() {
    let mut b = Bench::new();
    for _ in 0..6 {
        b.queue(1_000);
    }
    b.with(crate::output::tcp_push_pending_frames);
    let sent = b.sent();
    // Each takes its successor in; the small end of the last waits by Nagle's rule.
    assert_eq!(
        b.ranges(&sent),
        [(0, 2_000), (2_000, 4_000), (4_000, 5_448)]
    );
    assert_eq!(b.sk.rtx_queue.len(), 3);
    assert_eq!(b.sk.packets_out, 5);
}

#[test]
fn eor_keeps_buffers_apart() {
    let mut b = Bench::new();
    b.queue(10);
    b.sk.write_queue[0].eor = true;
    b.queue(20);
    b.sk.nonagle = nagle::OFF;
    b.with(crate::output::tcp_push_pending_frames);
    let sent = b.sent();
    assert_eq!(b.ranges(&sent), [(0, 10), (10, 30)]);
}

/// G6: a third of the window is worth a frame, less waits for the ack that is on its way.
#[test]
fn a_small_rest_of_the_window_waits_for_the_ack() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 30;
    b.sk.srtt_us = 8 * 1_000;
    b.write(28 * MSS);
    b.sk.snd_cwnd = 32;
    // The ack is expected in 0.4 ms.
    b.now = b.now + 600_000;
    b.queue(40 * MSS);
    b.with(crate::output::tcp_push_pending_frames);
    assert!(b.sent().is_empty(), "four of 32 segments are left");
    b.after_ms(2);
    b.with(crate::output::tcp_push_pending_frames);
    assert_eq!(
        b.sent().iter().map(|s| s.len).sum::<u32>(),
        4 * MSS,
        "it did not come"
    );
}
