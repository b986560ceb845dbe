use super::*;
use crate::testbench::{Bench, MSS};

#[test]
fn acks_of_unsent_or_ancient_data_are_refused() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(5 * MSS, &[]);
    let seg = b.segment(11 * MSS, &[], 7_000);
    assert_eq!(b.take(&seg), AckOutcome::Unsent);
    let seg = b.segment(MSS, &[], 7_000);
    assert_eq!(b.take(&seg), AckOutcome::Old);
    b.sk.max_window = 100;
    assert_eq!(b.take(&seg), AckOutcome::TooOld);
}

/// As Linux 6.18: what an old ack SACKs is marked, and not counted as delivered.
#[test]
fn an_old_ack_sacks() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(5 * MSS, &[]);
    let seg = b.segment(MSS, &[(7 * MSS, 8 * MSS)], 7_000);
    assert_eq!(b.take(&seg), AckOutcome::Old);
    assert_eq!((b.sk.sacked_out, b.sk.delivered), (1, 5));
}

#[test]
fn an_old_segment_does_not_shrink_the_window() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(5 * MSS, &[]);
    let mut seg = b.segment(5 * MSS, &[], 1);
    seg.seq = seg.seq.wrapping_sub(10);
    seg.end_seq = seg.seq;
    b.take(&seg);
    assert_eq!(b.sk.snd_wnd, 7_812 << 7);
}

#[test]
fn the_delivery_rate_is_that_of_the_flight() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(10 * MSS, &[]);
    b.write(20 * MSS);
    b.after_ms(20);
    b.ack(30 * MSS, &[]);
    assert_eq!((b.sk.rate_delivered, b.sk.rate_interval_us), (20, 20_000));
}

#[test]
fn pacing_rate_follows_the_window() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(10 * MSS, &[]);
    // Slow start: twice cwnd * mss / srtt.
    assert_eq!(b.sk.pacing_rate, u64::from(2 * 20 * MSS) * 50);
}

#[test]
fn a_writer_is_woken_when_a_third_is_free() {
    let mut b = Bench::new();
    b.sk.opts.buf_lock_snd = true;
    b.sk.sndbuf = 10_000;
    // RD-35: 6664 <= 6666 queued bytes.
    b.queue(4_000);
    b.queue(5_000);
    b.sk.snd_cwnd = 2;
    b.sk.nospace = true;
    b.with(crate::output::tcp_push_pending_frames);
    b.after_ms(20);
    b.sk.events = crate::event::Events::empty();
    b.sk.nospace = true;
    b.ack(2 * MSS, &[]);
    let room = b.sk.sndbuf - b.sk.wmem_queued;
    assert_eq!(b.sk.nospace, room < b.sk.wmem_queued >> 1);
    b.after_ms(20);
    b.ack(4 * MSS, &[]);
    assert!(!b.sk.nospace);
    assert_eq!(b.sk.events, crate::event::Events::OUT);
}

#[test]
fn slow_start_restarts_after_idle() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 80;
    b.write(80 * MSS);
    b.after_ms(20);
    b.ack(80 * MSS, &[]);
    let cwnd = b.sk.snd_cwnd;
    b.after_ms(2 * u64::from(b.sk.rto_us) / 1_000 + 4);
    b.with(|sk, cx| tcp_slow_start_after_idle_check(sk, cx));
    assert_eq!(b.sk.snd_cwnd, cwnd / 4);
    b.after_ms(60_000);
    b.with(|sk, cx| tcp_slow_start_after_idle_check(sk, cx));
    assert_eq!(b.sk.snd_cwnd, 10);
}

#[test]
fn an_unused_window_does_not_grow() {
    let mut b = Bench::new();
    for n in 1..20 {
        b.write(2 * MSS);
        b.after_ms(20);
        b.ack(2 * n * MSS, &[]);
    }
    assert_eq!(b.sk.snd_cwnd, 10);
}
