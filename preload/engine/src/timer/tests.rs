use super::*;
use crate::sock::nagle;
use crate::testbench::{Bench, MSS};

/// TM-10, TM-11: the probe comes after two round trips, the timeout from then on.
#[test]
fn a_tail_loss_probe_sends_the_last_segment() {
    let mut b = Bench::new();
    b.write(3 * MSS);
    assert_eq!(b.sk.icsk_pending, IcskPending::LossProbe);
    assert_eq!(b.due_ms(), 44);
    let (_, sent) = b.fire();
    assert_eq!(b.ranges(&sent), [(2 * MSS, 3 * MSS)]);
    assert_eq!(b.sk.icsk_pending, IcskPending::Retrans);
    assert_eq!(b.due_ms(), u64::from(b.sk.rto_us) / 1_000);
    // The ack of both copies: no loss.
    b.after_ms(20);
    b.ack(3 * MSS, &[]);
    b.ack(3 * MSS, &[(2 * MSS, 3 * MSS)]);
    assert_eq!((b.sk.tlp_high_seq, b.sk.snd_cwnd), (0, 10));
}

/// TM-10, measured on a short way.
#[test]
fn a_tail_loss_probe_waits_for_an_ack_that_is_a_little_late() {
    let mut b = Bench::new();
    b.sk.srtt_us = 8 * 100;
    b.write(2 * MSS);
    assert_eq!(b.sk.icsk_pending, IcskPending::LossProbe);
    assert_eq!(b.due_ms(), 8);
}

#[test]
fn a_probe_that_repaired_a_loss_counts_as_congestion() {
    let mut b = Bench::new();
    b.write(3 * MSS);
    b.fire();
    b.write(MSS);
    b.after_ms(20);
    b.ack(4 * MSS, &[]);
    assert_eq!(b.sk.tlp_high_seq, 0);
    assert_eq!(b.sk.snd_ssthresh, 7);
}

#[test]
fn a_probe_prefers_new_data() {
    let mut b = Bench::new();
    b.write(12 * MSS);
    let (_, sent) = b.fire();
    assert_eq!(b.ranges(&sent), [(10 * MSS, 11 * MSS)]);
}

/// TM-7: doubling.
#[test]
fn retransmissions_back_off() {
    let mut b = Bench::reno();
    b.write(MSS);
    let rto = u64::from(b.sk.rto_us) / 1_000;
    for n in 0..4 {
        assert_eq!(b.due_ms(), rto << n);
        let (out, sent) = b.fire();
        assert_eq!(out, TimerOutcome::Alive);
        assert_eq!(sent.len(), 1);
    }
    assert_eq!(b.sk.backoff, 4);
    // A fresh sample ends the backoff.
    b.write(MSS);
    b.after_ms(20);
    b.ack(MSS, &[]);
    b.ack(2 * MSS, &[]);
    assert_eq!(b.sk.backoff, 0);
}

/// TM-8: fifteen retries, about 924 s.
#[test]
fn data_gives_up_after_retries2() {
    let mut b = Bench::reno();
    b.write(MSS);
    let start = b.now;
    let mut retries = 0;
    loop {
        match b.fire().0 {
            TimerOutcome::Alive => retries += 1,
            out => {
                assert_eq!(out, TimerOutcome::Dead);
                break;
            }
        }
    }
    assert_eq!(b.sk.sk_err, Some(Error::TimedOut));
    let s = b.now.since(start) / NSEC_PER_SEC;
    assert!((920..1_100).contains(&s), "{s} s");
    assert!((14..=16).contains(&retries), "{retries}");
    assert_eq!(b.sk.wmem_queued, 0);
}

/// TM-9.
#[test]
fn user_timeout_ends_at_the_first_tick_after_it() {
    let mut b = Bench::reno();
    b.sk.opts.user_timeout_ms = 1_000;
    b.write(MSS);
    let start = b.now;
    while b.fire().0 == TimerOutcome::Alive {}
    let ms = b.now.since(start) / NSEC_PER_MSEC;
    assert!((1_000..1_300).contains(&ms), "{ms} ms");
    assert_eq!(b.sk.sk_err, Some(Error::TimedOut));
}

/// TM-15: probes carry nothing and stand below the window; they double.
#[test]
fn a_closed_window_is_probed() {
    let mut b = Bench::new();
    b.write(MSS);
    b.after_ms(20);
    b.ack_window(MSS, &[], 0);
    b.write(10 * MSS);
    assert_eq!(b.sk.icsk_pending, IcskPending::Probe0);
    let rto = u64::from(b.sk.rto_us) / 1_000;
    for n in 0..4 {
        assert_eq!(b.due_ms(), rto << n);
        let (_, sent) = b.fire();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].seq, sent[0].len), (b.sk.snd_una - 1, 0));
    }
    // The window opens: everything goes, and the backoff is over.
    let sent = b.ack_window(MSS, &[], 7_000);
    assert!(!sent.is_empty());
    assert_eq!(b.sk.backoff, 0);
}

/// TM-17: a window too small for a segment gets a partial one from the probe timer.
#[test]
fn a_small_window_gets_a_small_segment() {
    let mut b = Bench::new();
    b.sk.snd_wscale = 0;
    b.write(MSS);
    b.after_ms(20);
    b.ack_window(MSS, &[], 300);
    assert!(b.write(MSS).is_empty());
    let (_, sent) = b.fire();
    assert_eq!(sent[0].len, 300);
    assert!(sent[0].flags.contains(sidewire_wire::tcp::TcpFlags::PSH));
}

/// TM-16, SP-14.
#[test]
fn corked_data_goes_after_200_ms() {
    let mut b = Bench::new();
    assert!(b.write_with(100, nagle::CORK).is_empty());
    b.sk.nonagle = nagle::CORK;
    let due = b.due_ms();
    assert!((200..=260).contains(&due), "{due}");
    let (_, sent) = b.fire();
    assert_eq!(sent[0].len, 100);
}

/// TM-19, TM-20.
#[test]
fn keepalive_probes_and_resets() {
    let mut b = Bench::new();
    b.sk.opts.keepalive = true;
    b.sk.opts.keepidle_s = 1;
    b.sk.opts.keepintvl_s = 1;
    b.sk.opts.keepcnt = 2;
    b.sk.rcv_tstamp = b.now;
    b.sk.ack.lrcvtime = b.now;
    b.with(|sk, cx| {
        let idle = keepalive_time_when(sk, cx);
        tcp_reset_keepalive_timer(sk, cx, idle);
    });
    for _ in 0..2 {
        assert_eq!(b.due_ms(), 1_000);
        let (_, sent) = b.fire();
        assert_eq!((sent[0].seq, sent[0].len), (b.sk.snd_nxt - 1, 0));
    }
    let (out, sent) = b.fire();
    assert_eq!(out, TimerOutcome::Dead);
    assert!(sent[0].flags.contains(sidewire_wire::tcp::TcpFlags::RST));
    assert_eq!(b.sk.sk_err, Some(Error::TimedOut));
}

#[test]
fn an_orphan_gives_up_early() {
    let mut b = Bench::reno();
    b.write(MSS);
    b.sk.orphan = true;
    let mut retries = 0;
    while b.fire().0 == TimerOutcome::Alive {
        retries += 1;
    }
    assert!((7..=9).contains(&retries), "{retries}");
}

#[test]
fn a_delayed_ack_that_was_in_vain_doubles_the_wait() {
    let mut b = Bench::new();
    b.sk.ack.pending = icsk_ack::SCHED | icsk_ack::TIMER;
    b.sk.ack.ato_ns = 40 * NSEC_PER_MSEC;
    b.sk.timers.set(Timer::DelAck, b.now);
    let (_, sent) = b.fire();
    assert_eq!(sent.len(), 1);
    assert_eq!(b.sk.ack.ato_ns, 80 * NSEC_PER_MSEC);
    assert_eq!(b.sk.ack.pending, 0);
}

#[test]
fn pacing_holds_frames_back() {
    let mut b = Bench::new();
    b.sk.opts.pacing_needed = true;
    b.sk.opts.max_pacing_rate = 1_000_000;
    b.sk.pacing_rate = 1_000_000;
    b.sk.info.data_segs_out = 10;
    let sent = b.write(8 * MSS);
    // 1 MB/s: two segments are the smallest super-frame, 2.9 ms.
    assert_eq!(sent.iter().map(|s| s.len).sum::<u32>(), 2 * MSS);
    let mut total = 2 * MSS;
    while total < 8 * MSS {
        let before = b.now;
        let (_, sent) = b.fire();
        assert!(b.now > before);
        total += sent.iter().map(|s| s.len).sum::<u32>();
    }
    assert_eq!(b.sk.snd_nxt, b.base + 8 * MSS);
}

#[test]
fn model_of_exponential_backoff() {
    let b = Bench::new();
    // RFC 1122: 15 retries from 200 ms, 120 s at most.
    assert_eq!(tcp_model_timeout_ms(&b.sk, 15, 200_000), 924_600);
    assert_eq!(tcp_model_timeout_ms(&b.sk, 6, 1_000_000), 127_000);
    assert_eq!(tcp_model_timeout_ms(&b.sk, 1, 1_000_000), 3_000);
}

#[test]
fn a_full_local_queue_is_no_reason_to_back_off() {
    use crate::net::TxVerdict;
    for verdict in [TxVerdict::Dropped, TxVerdict::NoSpace] {
        let mut b = Bench::reno();
        b.write(MSS);
        let rto = b.sk.rto_us;
        b.verdict(verdict);
        b.fire();
        assert_eq!((b.due_ms(), b.sk.rto_us), (500, rto));
    }
}

/// TM-26.
#[test]
fn the_send_buffer_grows_with_the_window() {
    let mut b = Bench::new();
    b.sk.sndbuf = 16_384;
    b.with(tcp_init_transfer_snd);
    assert_eq!(b.sk.sndbuf, 46_080);
    b.sk.snd_cwnd = 10_000;
    b.with(|sk, cx| crate::sndbuf::tcp_sndbuf_expand(sk, cx));
    assert_eq!(b.sk.sndbuf, 4_194_304);
    b.sk.opts.buf_lock_snd = true;
    b.sk.sndbuf = 5_000;
    b.with(tcp_init_transfer_snd);
    assert_eq!(b.sk.sndbuf, 5_000);
}

/// Linux `tcp_write_queue_purge` leaves what `tcp_info` tells of lost and repeated segments.
#[test]
fn what_was_lost_is_told_of_a_connection_that_died() {
    let mut bed = crate::testbed::Bed::established();
    bed.sk().lost_out = 4;
    bed.sk().retrans_out = 1;
    bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).unwrap();
        assert!(matches!(tcp_write_err(sk, &mut cx), TimerOutcome::Dead));
    });
    assert_eq!((bed.sk().lost_out, bed.sk().retrans_out), (4, 1));
}
