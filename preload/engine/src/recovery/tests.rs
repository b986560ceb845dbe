use super::*;
use crate::testbench::{Bench, MSS};
use crate::timer::TimerOutcome;

/// RFC 6937bis: while more is in flight than ssthresh, ssthresh / prior_cwnd of what is delivered goes out.
#[test]
fn prr_sends_in_proportion() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 100;
    b.sk.snd_ssthresh = 70;
    b.sk.prior_cwnd = 100;
    b.sk.packets_out = 100;
    b.sk.prr_out = 1;
    b.sk.prr_delivered = 0;
    let sk = &mut b.sk;
    sk.sacked_out = 10;
    tcp_cwnd_reduction(sk, 10, 0, false);
    // ceil(70 * 10 / 100) - 1 = 6 above 90 in flight.
    assert_eq!(sk.snd_cwnd, 96);
    sk.packets_out = 0;
    sk.sacked_out = 0;
}

#[test]
fn prr_slow_starts_back_after_heavy_loss() {
    let mut b = Bench::new();
    let sk = &mut b.sk;
    sk.snd_cwnd = 100;
    sk.snd_ssthresh = 70;
    sk.prior_cwnd = 100;
    sk.packets_out = 100;
    sk.lost_out = 60;
    sk.prr_out = 5;
    sk.prr_delivered = 4;
    // 40 in flight, 30 below ssthresh: max(5 - 5, 1), and one more for progress without new losses.
    tcp_cwnd_reduction(sk, 1, 0, true);
    assert_eq!(sk.snd_cwnd, 42);
    tcp_cwnd_reduction(sk, 1, 3, true);
    assert_eq!(sk.snd_cwnd, 41);
    // Never beyond ssthresh.
    tcp_cwnd_reduction(sk, 60, 0, true);
    assert_eq!(sk.snd_cwnd, 70);
}

#[test]
fn prr_forces_the_first_retransmission() {
    let mut b = Bench::new();
    let sk = &mut b.sk;
    sk.snd_ssthresh = 7;
    sk.prior_cwnd = 10;
    sk.packets_out = 10;
    sk.sacked_out = 1;
    tcp_cwnd_reduction(sk, 1, 1, false);
    assert_eq!(sk.snd_cwnd, 10);
}

#[test]
fn a_recovery_runs_its_course() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 20;
    b.write(20 * MSS);
    b.after_ms(20);
    let sent = b.ack(0, &[(MSS, 10 * MSS)]);
    assert_eq!(b.ranges(&sent)[0], (0, MSS));
    assert_eq!(b.sk.high_seq, b.base + 20 * MSS);
    b.after_ms(20);
    b.ack(10 * MSS, &[]);
    assert_eq!(b.sk.ca_state, CaState::Recovery);
    b.after_ms(5);
    b.ack(20 * MSS, &[]);
    assert_eq!(b.sk.ca_state, CaState::Open);
    assert_eq!(b.sk.snd_cwnd, b.sk.snd_ssthresh);
    assert_eq!(b.sk.snd_ssthresh, 14);
}

#[test]
fn a_lost_retransmission_is_seen_by_rack() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 20;
    b.write(20 * MSS);
    b.after_ms(20);
    b.ack(0, &[(MSS, 10 * MSS)]);
    b.queue(20 * MSS);
    b.after_ms(1);
    // More is clocked out after the retransmission.
    let sent = b.ack(0, &[(MSS, 16 * MSS)]);
    assert!(!sent.is_empty());
    let newest = sent
        .last()
        .map(|s| s.seq - b.base + s.len)
        .expect("new data");
    b.after_ms(25);
    let sent = b.ack(0, &[(MSS, newest)]);
    assert_eq!(b.ranges(&sent)[0], (0, MSS), "again");
    assert_eq!(b.sk.ca_state, CaState::Recovery);
}

#[test]
fn without_sack_three_duplicates_do() {
    let mut b = Bench::reno();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(2 * MSS, &[]);
    b.sent();
    let dup = |b: &mut Bench| b.ack(2 * MSS, &[]);
    assert!(dup(&mut b).is_empty());
    assert!(dup(&mut b).is_empty());
    let sent = dup(&mut b);
    assert_eq!(b.ranges(&sent), [(2 * MSS, 3 * MSS)]);
    assert_eq!(b.sk.ca_state, CaState::Recovery);
    // A partial ack shows the next hole (RFC 6582).
    b.after_ms(20);
    let sent = b.ack(5 * MSS, &[]);
    assert_eq!(b.ranges(&sent)[0], (5 * MSS, 6 * MSS));
    b.after_ms(20);
    b.ack(10 * MSS, &[]);
    // Held until something above is acked.
    assert_eq!(b.sk.ca_state, CaState::Recovery);
    b.write(MSS);
    b.after_ms(20);
    b.ack(11 * MSS, &[]);
    assert_eq!(b.sk.ca_state, CaState::Open);
}

#[test]
fn a_timeout_marks_all_lost_and_sends_one() {
    let mut b = Bench::reno();
    b.write(10 * MSS);
    let (out, sent) = b.fire();
    assert_eq!(out, TimerOutcome::Alive);
    assert_eq!(b.ranges(&sent), [(0, MSS)]);
    assert_eq!(b.sk.ca_state, CaState::Loss);
    assert_eq!((b.sk.lost_out, b.sk.retrans_out), (10, 1));
    assert_eq!(b.sk.snd_cwnd, 1);
    assert_eq!(b.sk.snd_ssthresh, 7);
    // Slow start retransmits the rest.
    b.after_ms(20);
    let sent = b.ack(MSS, &[]);
    assert_eq!(sent.iter().map(|s| s.len).sum::<u32>(), 2 * MSS);
    b.after_ms(20);
    b.ack(3 * MSS, &[]);
    b.after_ms(20);
    b.ack(10 * MSS, &[]);
    assert!(b.sk.rtx_queue.is_empty());
}

#[test]
fn frto_finds_a_spurious_timeout() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 20;
    b.queue(40 * MSS);
    b.write(0);
    let before_cwnd = b.sk.snd_cwnd;
    let flight = b.sk.snd_nxt - b.base;
    // The tail probe first, then the timeout.
    while b.sk.ca_state != CaState::Loss {
        b.fire();
    }
    b.sent();
    assert!(b.sk.frto);
    // Acks of originals were only late: the first lets new data go, the second is for data never sent again.
    b.after_ms(1);
    let sent = b.ack(2 * MSS, &[]);
    assert!(
        b.ranges(&sent).iter().all(|r| r.0 >= flight),
        "new data, no retransmission: {:?}",
        b.ranges(&sent)
    );
    b.after_ms(1);
    b.ack(4 * MSS, &[]);
    assert_eq!(b.sk.ca_state, CaState::Open);
    assert!(b.sk.snd_cwnd >= before_cwnd);
    assert_eq!(b.sk.lost_out, 0);
}

#[test]
fn timestamps_undo_a_spurious_recovery() {
    let mut b = Bench::new();
    b.sk.tstamp_ok = true;
    b.sk.saw_tstamp = true;
    b.sk.snd_cwnd = 20;
    b.write(20 * 1_436);
    let echo = tcp_time_stamp(b.now);
    b.after_ms(20);
    b.sk.rcv_tsecr = echo;
    let sent = b.ack(0, &[(1_436, 5 * 1_436)]);
    assert!(!sent.is_empty());
    assert_eq!(b.sk.ca_state, CaState::Recovery);
    b.after_ms(3);
    // Everything arrived, and the echo is older than the retransmission.
    b.ack(20 * 1_436, &[]);
    assert_eq!(b.sk.ca_state, CaState::Open);
    assert!(b.sk.snd_cwnd >= 20);
}

#[test]
fn a_sack_reneging_peer_is_noticed() {
    let mut b = Bench::new();
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(0, &[(MSS, 2 * MSS)]);
    // It acks the hole and not what it had SACKed.
    b.ack(MSS, &[]);
    assert_eq!(b.sk.icsk_pending, IcskPending::Retrans);
    assert!(b.due_ms() <= 20);
    b.fire();
    assert!(b.sk.is_sack_reneg);
    assert_eq!(b.sk.sacked_out, 0);
}

/// What was retransmitted is known to be lost, though the stamp of it is gone while the state holds.
#[test]
fn without_sack_the_ack_that_ends_a_loss_does_not_undo_it() {
    let mut b = Bench::reno();
    b.write(10 * MSS);
    b.after_ms(300);
    b.fire();
    for i in 1..=10 {
        b.ack(i * MSS, &[]);
    }
    assert_eq!((b.sk.ca_state, b.sk.retrans_stamp), (CaState::Loss, 0));
    b.write(MSS);
    b.ack(11 * MSS, &[]);
    assert_eq!(b.sk.ca_state, CaState::Open);
    assert_eq!((b.sk.snd_cwnd, b.sk.snd_ssthresh), (7, 7));
}

/// A congestion control that sets the window itself does so when the reordering timer begins a recovery, too.
#[test]
fn the_reordering_timer_leaves_the_window_to_bbr() {
    let mut b = Bench::new();
    b.sk.ca = crate::cong::CongestionControl::by_name("bbr").expect("built in");
    b.write(10 * MSS);
    b.after_ms(20);
    b.ack(0, &[(MSS, 2 * MSS)]);
    let cwnd = b.sk.snd_cwnd;
    b.after_ms(20);
    b.with(crate::rack::tcp_rack_reo_timeout);
    assert_eq!(b.sk.ca_state, CaState::Recovery);
    assert_eq!(b.sk.snd_cwnd, cwnd);
}
