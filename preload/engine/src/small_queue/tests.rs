use super::*;
use crate::output::tcp_tx_space;
use crate::sock::{CaState, nagle};
use crate::testbench::{Bench, MSS};
use crate::time::Instant;

/// Ten segments are in flight, each sent by itself; the rate gives 600 kB a second.
fn slow() -> Bench {
    let mut b = Bench::new();
    b.gso(MSS + 40, 1);
    b.sk.pacing_rate = 600_000;
    b.sk.opts.max_pacing_rate = 600_000;
    b.sk.snd_cwnd = 10;
    b
}

#[test]
fn two_segments_wait_before_a_slow_device() {
    let mut b = slow();
    let charge = MSS + SKB_TRUESIZE;
    b.write(2 * MSS);
    assert!(b.asked().is_empty());
    b.device_holds(2 * charge);
    b.after_ms(1);
    assert!(b.write(4 * MSS).is_empty());
    assert_eq!(b.asked(), [2 * charge - 1]);
    // One of them is to leave, which takes the rate 3.8 ms.
    let ns = u64::from(charge) * NSEC_PER_SEC / 600_000;
    assert_eq!(b.sk.timers.at(Timer::Pacing), b.now + ns);
    let (_, sent) = b.fire();
    assert!(sent.is_empty(), "nothing has left meanwhile");
    b.device_holds(2 * charge - 1);
    let (_, sent) = b.fire();
    assert_eq!(b.ranges(&sent)[0], (2 * MSS, 3 * MSS));
}

#[test]
fn a_device_that_stands_still_is_looked_at_less_often() {
    let mut b = slow();
    b.write(2 * MSS);
    b.device_holds(3 * (MSS + SKB_TRUESIZE));
    b.sk.pacing_rate = 2_000_000;
    b.after_ms(1);
    assert!(b.write(MSS).is_empty());
    let mut waits = alloc::vec::Vec::new();
    for _ in 0..12 {
        waits.push(b.sk.timers.at(Timer::Pacing).since(b.now) / NSEC_PER_USEC);
        b.fire();
    }
    assert!(waits.is_sorted() && waits[0] == waits[2], "{waits:?}");
    assert!(waits[3].abs_diff(2 * waits[2]) <= 1, "{waits:?}");
    assert_eq!(waits.last(), Some(&10_000));
}

#[test]
fn an_ack_looks_again() {
    let mut b = slow();
    b.write(2 * MSS);
    b.device_holds(u32::MAX);
    assert!(b.write(4 * MSS).is_empty());
    b.device_holds(0);
    let sent = b.ack(MSS, &[]);
    assert_eq!(
        b.ranges(&sent),
        [2, 3, 4, 5].map(|n| (n * MSS, (n + 1) * MSS))
    );
}

#[test]
fn behind_the_last_buffer_in_flight_another_one_goes() {
    let mut b = Bench::new();
    let limit = 5 * MSS;
    b.sk.nonagle = nagle::OFF;
    b.sk.pacing_rate = u64::from(limit) << PACING_SHIFT;
    b.sk.opts.max_pacing_rate = b.sk.pacing_rate;
    b.device_holds(u32::MAX);
    assert_eq!(b.write(5 * MSS).len(), 1);
    // What waits in the host may be somebody else's, and then no ack is on its way.
    assert_eq!(b.write(100).len(), 1);
    assert!(b.asked().is_empty());
    assert_eq!(b.write(100).len(), 0);
    assert_eq!(b.asked(), [limit - 1]);
    assert_eq!(b.ack(5 * MSS, &[]).len(), 1);
}

#[test]
fn a_millisecond_of_a_fast_connection_waits() {
    let mut b = slow();
    b.sk.pacing_rate = 1_000_000_000;
    b.sk.snd_cwnd = 10_000;
    b.device_holds(u32::MAX);
    let rate_gives = (1_000_000_000u32 >> PACING_SHIFT) / (MSS + SKB_TRUESIZE);
    // While no more is in flight than may wait nobody is asked.
    let sent = b.write(600 * MSS).len() as u32;
    assert_eq!((sent, b.asked().len()), (rate_gives + 1, 1));
    assert_eq!(b.sk.timers.at(Timer::Pacing), b.now + LOOK_MAX_NS);
}

#[test]
fn the_setting_bounds_what_is_not_paced() {
    for (paced, bound) in [(false, 20_000), (true, 1 << 20)] {
        let mut b = slow();
        b.stack.sh.sysctl.tcp_limit_output_bytes = 20_000;
        b.sk.pacing_rate = 1 << 30;
        b.sk.opts.max_pacing_rate = 1 << 30;
        b.sk.opts.pacing_needed = paced;
        b.sk.info.data_segs_out = 0;
        b.sk.snd_cwnd = 10_000;
        b.device_holds(u32::MAX);
        for _ in 0..900 {
            b.write(MSS);
            b.sk.tcp_wstamp_ns = Instant(0);
        }
        assert_eq!(b.asked().first(), Some(&(bound - 1)), "paced: {paced}");
    }
}

#[test]
fn a_retransmission_finds_twice_the_room() {
    let mut b = slow();
    let charge = MSS + SKB_TRUESIZE;
    b.write(8 * MSS);
    b.device_holds(4 * charge);
    b.asked();
    let sent = b.ack(0, &[(4 * MSS, 8 * MSS)]);
    assert_eq!((sent.len(), b.asked()), (0, alloc::vec![4 * charge - 1]));
    assert_eq!(b.sk.ca_state, CaState::Recovery);
    b.device_holds(4 * charge - 1);
    let (_, sent) = b.fire();
    assert_eq!(b.ranges(&sent)[0], (0, MSS));
}

#[test]
fn what_waits_in_the_device_is_not_sent_again() {
    let mut b = Bench::new();
    b.queues();
    b.write(2 * MSS);
    b.carry();
    b.device_holds(5_000);
    // The tail's probe, then the timeout of a tail alone.
    let spurious = |b: &Bench| b.stack.sh.mib.get(Counter::TCPSpuriousRtxHostQueues);
    let (_, sent) = b.fire();
    assert_eq!((sent.len(), spurious(&b)), (0, 1));
    assert!(b.sk.timers.armed(Timer::Pacing));
}

/// The bench hands over what waits, some microseconds after it was sent, and the connection goes on.
fn hand_over(b: &mut Bench) -> alloc::vec::Vec<(u32, u32)> {
    b.now = b.now + 30 * NSEC_PER_USEC;
    while b.waits() > 0 {
        b.carry();
    }
    b.with(tcp_tx_space);
    let sent = b.sent();
    b.ranges(&sent)
}

#[test]
fn a_send_that_leaves_in_parts_is_one_send() {
    let mut b = slow();
    b.queues();
    b.sk.snd_cwnd = 6;
    b.sk.snd_cwnd_stamp = Instant(1);
    let began = b.now;
    assert_eq!(b.write(8 * MSS).len(), 2);
    let mut parts = 1;
    while b.sk.packets_out < 6 {
        assert!(!hand_over(&mut b).is_empty());
        parts += 1;
    }
    assert_eq!(parts, 3);
    assert!(b.sk.rtx_queue.iter().all(|skb| skb.skb_mstamp == began));
    // The window is full at the end; what the first part used of it would have halved it, so long after the last use.
    assert!(b.sk.is_cwnd_limited);
    assert_eq!(b.sk.snd_cwnd, 6);
}

#[test]
fn a_send_goes_on_before_retransmissions_until_an_ack_comes() {
    for acked in [false, true] {
        let mut b = slow();
        b.write(4 * MSS);
        while b.sk.ca_state != CaState::Loss {
            b.fire();
        }
        b.sk.snd_cwnd = 10;
        b.queues();
        assert_eq!(b.write(4 * MSS).len(), 2);
        if acked {
            b.sk.info.segs_in += 1;
        }
        let first = if acked {
            (MSS, 2 * MSS)
        } else {
            (6 * MSS, 7 * MSS)
        };
        assert_eq!(hand_over(&mut b)[0], first, "acked: {acked}");
    }
}

#[test]
fn what_an_ack_lets_go_in_parts_has_the_times_of_the_parts() {
    let mut b = slow();
    b.write(2 * MSS);
    b.sk.snd_cwnd = 2;
    b.write(6 * MSS);
    b.queues();
    b.sk.snd_cwnd = 10;
    b.after_ms(20);
    assert_eq!(b.ack(2 * MSS, &[]).len(), 2);
    let began = b.now;
    assert_eq!(hand_over(&mut b).len(), 2);
    let times = |b: &Bench, n: usize| b.sk.rtx_queue[n].skb_mstamp;
    assert_eq!(times(&b, 1), began);
    assert_eq!(times(&b, 2), b.now);
}

#[test]
fn a_paused_send_goes_on_with_what_it_had_chosen() {
    let mut b = slow();
    b.gso(65_536, 64);
    b.write(700);
    b.sk.urg_mode = true;
    b.sk.snd_up = b.base + 700;
    b.after_ms(60);
    b.queues();
    b.write_with(11 * MSS, nagle::CORK);
    while b.sk.xmit_pause.is_some() {
        hand_over(&mut b);
    }
    // The tenth would be deferred, if it had not been cut off with the one before it.
    assert_eq!(b.sk.packets_out, 9);
    assert_eq!(b.sk.write_queue.len(), 1);
}

/// As Linux reads the clock at each (tcp_mstamp_refresh), which RACK makes use of.
#[test]
fn what_is_sent_behind_a_retransmission_is_later() {
    let mut b = Bench::new();
    b.write(20 * MSS);
    b.after_ms(20);
    let sent = b.ack(MSS, &[(4 * MSS, 9 * MSS)]);
    assert_eq!(b.ranges(&sent)[0].0, MSS);
    let again = b.sk.rtx_queue.front().expect("in flight").skb_mstamp;
    let new = b.sk.rtx_queue.back().expect("in flight").skb_mstamp;
    assert!(again == b.now && new > again && sent.len() > 1, "{sent:?}");
}
