use sidewire_uapi::socket::MSG_ZEROCOPY;

use sidewire_wire::tcp::TcpFlags;

use super::*;
use crate::testbed::Bed;
use crate::testbench::{Bench, MSS};
use crate::timers::IcskPending;

fn frame(b: &Bench, from: u32, len: u32) -> TxLate {
    TxLate {
        tuple: b.sk.tuple,
        seq: b.base.wrapping_add(from),
        end_seq: b.base.wrapping_add(from + len),
    }
}

/// Unsent and unacknowledged bytes, segments in flight.
fn queues(b: &Bench) -> (u32, u32, u32) {
    let unacked = b.sk.snd_nxt.wrapping_sub(b.sk.snd_una);
    (b.sk.notsent_bytes(), unacked, b.sk.packets_out)
}

#[test]
fn the_newest_frame_becomes_unsent() {
    let mut b = Bench::new();
    b.write(2 * MSS);
    b.write(3 * MSS + 10);
    let late = frame(&b, 2 * MSS, 3 * MSS + 10);
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(queues(&b), (3 * MSS + 10, 2 * MSS, 2));
    assert_eq!((b.sk.ca_state, b.sk.lost_out), (CaState::Cwr, 0));
    b.after_ms(20);
    // The next ack lets it go as new data.
    let again = b.ack(2 * MSS, &[]);
    assert_eq!(b.ranges(&again).first().map(|r| r.0), Some(2 * MSS));
    assert_eq!(b.sk.info.total_retrans, 0);
}

#[test]
fn a_paused_send_does_not_go_on_with_it() {
    let mut b = Bench::new();
    b.gso(MSS + 40, 1);
    b.sk.pacing_rate = 600_000;
    b.sk.opts.max_pacing_rate = 600_000;
    b.queues();
    b.write(4 * MSS);
    let now = b.now;
    let lasts = |b: &Bench| b.sk.xmit_pause.is_some_and(|pause| pause.lasts(&b.sk, now));
    assert!(lasts(&b));
    b.carry();
    let late = b.carry();
    b.with(|sk, cx| dropped(sk, cx, &late));
    // It is the first that is unsent now, not what was chosen.
    assert!(!lasts(&b));
}

#[test]
fn pacing_does_not_count_it() {
    let mut b = Bench::new();
    b.sk.opts.pacing_needed = true;
    b.sk.info.data_segs_out = 100;
    b.sk.pacing_rate = 1_000_000;
    b.sk.opts.max_pacing_rate = 1_000_000;
    b.write(MSS);
    b.after_ms(2);
    let (was, now) = (b.sk.tcp_wstamp_ns, b.now);
    assert!(was < now);
    b.write(3 * MSS);
    assert!(b.sk.timers.armed(Timer::Pacing) && b.sk.tcp_wstamp_ns > now);
    let late = frame(&b, MSS, b.sk.snd_nxt.wrapping_sub(b.base) - MSS);
    b.with(|sk, cx| dropped(sk, cx, &late));
    // As if it had not been tried: the next ack tries again, no timer does.
    assert_eq!(b.sk.tcp_wstamp_ns, now);
    assert!(!b.sk.timers.armed(Timer::Pacing));
}

#[test]
fn alone_it_waits_for_the_probe_timer() {
    let mut b = Bench::new();
    b.write(100);
    let late = frame(&b, 0, 100);
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(queues(&b), (100, 0, 0));
    assert_eq!(b.sk.icsk_pending, IcskPending::Probe0);
    let (_, again) = b.fire();
    assert_eq!(b.ranges(&again), [(0, 100)]);
    assert_eq!((b.sk.info.total_retrans, b.sk.packets_out), (0, 1));
}

#[test]
fn what_waits_behind_it_is_taken_back() {
    let mut b = Bench::new();
    b.queues();
    for _ in 0..4 {
        b.write(2 * MSS);
    }
    b.carry();
    let late = b.carry();
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(queues(&b), (6 * MSS, 2 * MSS, 2));
    assert_eq!(b.sk.lost_out, 0);
    // The dropped frame counts as sent, as in Linux; those behind it were never tried.
    let info = &b.sk.info;
    let counted = (info.bytes_sent, info.data_segs_out, info.segs_out);
    assert_eq!(counted, (4 * u64::from(MSS), 4, 4));
    assert_eq!(b.stack.sh.mib.get(Counter::OutSegs), 4);
    b.after_ms(20);
    b.sent();
    let again = b.ack(2 * MSS, &[]);
    assert_eq!(b.ranges(&again).first().map(|r| r.0), Some(2 * MSS));
}

#[test]
fn an_ack_that_was_taken_back_is_still_due() {
    let due = |received: bool| {
        let mut b = Bench::new();
        b.queues();
        b.write(MSS);
        // The handshake sets it, too.
        b.sk.ack.lrcvtime = b.now;
        b.sk.info.bytes_received = u64::from(received);
        b.write(MSS);
        let late = b.carry();
        b.with(|sk, cx| dropped(sk, cx, &late));
        b.sk.timers.armed(Timer::DelAck)
    };
    assert!(due(true));
    assert!(
        !due(false),
        "nothing was received that could be acknowledged"
    );
}

#[test]
fn a_fin_is_taken_back_with_the_data_before_it() {
    let mut b = Bench::new();
    b.queues();
    b.queue(100);
    b.with(crate::output::tcp_send_fin);
    let late = b.carry();
    assert_eq!(late.end_seq.wrapping_sub(late.seq), 101);
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(b.sk.write_seq.wrapping_sub(b.sk.snd_nxt), 101);
    b.sent();
    let (_, again) = b.fire();
    assert!(again[0].flags.contains(TcpFlags::FIN));
}

#[test]
fn one_behind_which_another_has_left_is_lost() {
    let mut b = Bench::new();
    b.queues();
    b.write(2 * MSS);
    b.write(2 * MSS);
    b.write(MSS);
    let late = b.carry();
    b.carry();
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(queues(&b), (MSS, 4 * MSS, 4));
    assert_eq!((b.sk.lost_out, b.sk.packets_in_flight()), (2, 2));
    b.after_ms(20);
    // The frame behind it arrives: no need to count duplicates.
    b.sent();
    let again = b.ack(0, &[(2 * MSS, 4 * MSS)]);
    assert_eq!(b.ranges(&again).first().map(|r| r.0), Some(0));
}

#[test]
fn a_copy_that_is_dropped_takes_nothing_back() {
    let mut b = Bench::new();
    b.write(2 * MSS);
    b.queues();
    b.after_ms(20);
    let (_, probe) = b.fire();
    assert_eq!(probe.len(), 1);
    let late = b.carry();
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(queues(&b), (0, 2 * MSS, 2));
    assert_eq!(b.sk.lost_out, 1);
}

#[test]
fn without_sack_duplicates_stay_within_what_is_in_flight() {
    let mut b = Bench::reno();
    b.queues();
    for _ in 0..3 {
        b.write(MSS);
    }
    for _ in 0..2 {
        b.carry();
        b.ack(0, &[]);
    }
    let late = b.carry();
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(queues(&b), (MSS, 2 * MSS, 2));
    assert!(b.sk.sacked_out <= b.sk.packets_out);
}

#[test]
fn a_socket_that_waits_for_room_does_not_try_again_at_once() {
    let mut b = Bench::new();
    b.queues();
    b.write(MSS);
    b.verdict(TxVerdict::NoSpace);
    b.write(MSS);
    assert!(b.sk.tx_blocked);
    b.verdict(TxVerdict::Sent);
    let late = b.carry();
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert!(!b.sk.tx_blocked && b.stack.sh.tx_blocked.is_empty());
    assert_eq!(queues(&b), (2 * MSS, 0, 0));
    assert_eq!(b.sk.icsk_pending, IcskPending::Probe0);
}

#[test]
fn what_was_acked_meanwhile_is_not_lost() {
    let mut b = Bench::new();
    b.write(2 * MSS);
    let late = frame(&b, 0, MSS);
    b.after_ms(20);
    b.ack(2 * MSS, &[]);
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(b.sk.lost_out, 0);
    b.with(|sk, cx| fault(sk, cx, &late));
    assert!(!b.sk.tx_fault, "the peer has these bytes");
}

#[test]
fn pages_that_are_gone_end_the_connection() {
    let mut b = Bench::new();
    b.write(MSS);
    let late = frame(&b, 0, MSS);
    b.with(|sk, cx| fault(sk, cx, &late));
    assert!(b.sk.tx_fault);
    assert_eq!(b.sk.timers.earliest(), b.now);
}

#[test]
fn an_ack_that_was_dropped_loses_no_data() {
    let mut b = Bench::new();
    b.write(MSS);
    let late = frame(&b, MSS, 0);
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!((b.sk.ca_state, b.sk.lost_out), (CaState::Cwr, 0));
}

#[test]
fn a_copy_on_the_way_is_told_by_the_notification() {
    let code = |from: u32| {
        let mut bed = Bed::established();
        bed.sk().opts.zerocopy = true;
        bed.sk().dst.as_mut().unwrap().zerocopy_copied = false;
        bed.send(MSG_ZEROCOPY, 100).unwrap();
        let skb = bed.sk().write_queue.pop_front().unwrap();
        let late = TxLate {
            tuple: bed.sk().tuple,
            seq: skb.seq.wrapping_add(from),
            end_seq: skb.seq.wrapping_add(from + 100),
        };
        bed.sk().rtx_queue.push_back(skb);
        copied(bed.sk(), &late);
        bed.ack_all();
        bed.sk().errqueue.q[0].ee.ee_code
    };
    assert_eq!((code(0), code(100)), (1, 0));
}
