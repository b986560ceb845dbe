use super::*;
use crate::output::tcp_tx_space;
use crate::testbench::{Bench, MSS};
use crate::time::NSEC_PER_USEC;
use crate::timer::TimerOutcome;

fn spurious(b: &Bench) -> u64 {
    b.stack.sh.mib.get(Counter::TCPSpuriousRtxHostQueues)
}

#[test]
fn a_probe_waits_for_the_tail_to_leave() {
    let mut b = Bench::new();
    b.queues();
    b.write(2 * MSS);
    assert_eq!(b.sk.icsk_pending, IcskPending::LossProbe);
    let (_, sent) = b.fire();
    assert!(sent.is_empty());
    assert_eq!((spurious(&b), b.sk.tlp_high_seq), (1, 0));
    assert_eq!(b.sk.icsk_pending, IcskPending::Retrans);
}

#[test]
fn a_timeout_backs_off_and_sends_when_the_first_copy_has_left() {
    let mut b = Bench::new();
    b.queues();
    b.write(2 * MSS);
    b.fire();
    let rto = b.sk.rto_us;
    let (out, sent) = b.fire();
    assert_eq!((out, sent.len()), (TimerOutcome::Alive, 0));
    assert_eq!((spurious(&b), b.sk.rto_us), (2, 2 * rto));
    assert_eq!((b.sk.ca_state, b.sk.retrans_out), (CaState::Loss, 0));
    assert_eq!((b.sk.info.total_retrans, b.sk.backoff), (0, 1));
    let armed = b.sk.timers.earliest().since(b.now);
    assert_eq!(armed / NSEC_PER_USEC, u64::from(2 * rto));
    // Nothing has left yet: it goes on waiting.
    b.with(tcp_tx_space);
    assert_eq!((b.sent().len(), b.sk.tsq_throttled), (0, true));
    b.carry();
    b.with(tcp_tx_space);
    let sent = b.sent();
    assert_eq!(b.ranges(&sent), [(0, MSS)]);
    assert!(!b.sk.tsq_throttled);
}

#[test]
fn a_probe_of_a_tail_that_has_just_left_comes_behind_the_frames_that_wait() {
    let mut b = Bench::new();
    b.queues();
    b.write(2 * MSS);
    b.carry();
    b.device_holds(5_000);
    b.device_holds(0);
    let (_, sent) = b.fire();
    assert!(sent.is_empty());
    assert_eq!(b.sk.icsk_pending, IcskPending::LossProbe);
    assert_eq!(b.sk.timers.earliest(), b.now + 1);
    let (_, sent) = b.fire();
    assert_eq!(b.ranges(&sent), [(MSS, 2 * MSS)]);
}

#[test]
fn a_segment_that_has_left_is_sent_again_at_once() {
    let mut b = Bench::new();
    b.queues();
    b.write(2 * MSS);
    b.carry();
    let (_, sent) = b.fire();
    assert_eq!(b.ranges(&sent), [(MSS, 2 * MSS)]);
    // That copy waits now.
    b.sk.tlp_high_seq = 0;
    let (_, sent) = b.fire();
    assert_eq!(
        (sent.len(), spurious(&b)),
        (1, 0),
        "the head has no copy on its way"
    );
    let (_, sent) = b.fire();
    assert_eq!((sent.len(), spurious(&b)), (0, 1));
}
