use alloc::vec::Vec;

use sidewire_uapi::socket::{MSG_MORE, MSG_OOB};

use crate::mib::Counter;
use crate::output::{tcp_push_one, tcp_tx_space};
use crate::push::tcp_push;
use crate::skb::{SKB_TRUESIZE, TxFlags, UbufId};
use crate::sock::nagle;
use crate::testbench::{Bench, MSS, Sent};
use crate::timers::Timer;

/// Two segments are in flight, of which the second waits before the device.
fn behind_a_segment() -> Bench {
    let mut b = Bench::new();
    b.sk.nonagle = nagle::OFF;
    b.write(MSS);
    b.write(MSS);
    b.device_holds(MSS + SKB_TRUESIZE);
    b
}

/// A send of a few bytes, as `tcp_sendmsg_locked` ends it.
fn send(b: &mut Bench, n: u32) -> Vec<Sent> {
    b.queue(n);
    b.with(|sk, cx| tcp_push(sk, cx, 0, MSS, nagle::OFF, 10 * MSS));
    b.sent()
}

fn corked(b: &Bench) -> u64 {
    b.stack.sh.mib.get(Counter::TCPAutoCorking)
}

#[test]
fn a_tail_waits_until_what_is_before_it_has_left() {
    let mut b = behind_a_segment();
    assert!(send(&mut b, 10).is_empty());
    assert_eq!(corked(&b), 1);
    // Nothing has left yet.
    let (_, sent) = b.fire();
    assert!(sent.is_empty() && b.sk.timers.armed(Timer::Pacing));
    b.device_holds(0);
    let (_, sent) = b.fire();
    assert_eq!(b.ranges(&sent), [(2 * MSS, 2 * MSS + 10)]);
    assert!(!b.sk.tail_waits);
}

/// Linux's test does not ask for them: the next call's stamp takes the place of this one's.
#[test]
fn a_tail_with_a_timestamp_waits_like_others() {
    let mut b = behind_a_segment();
    b.queue(10);
    b.sk.write_queue.back_mut().unwrap().tx_flags = TxFlags::ACK_TSTAMP;
    b.with(|sk, cx| tcp_push(sk, cx, 0, MSS, nagle::OFF, 10 * MSS));
    assert!(b.sent().is_empty());
    assert_eq!(corked(&b), 1);
}

/// Eight sends and more, with an earlier segment in flight, wait for a full frame; zerocopy ones of little of their pages for
/// a full segment.
#[test]
fn a_run_does_not_hold_pages_of_which_little_is_sent() {
    let ubuf = Some(UbufId(0));
    for (ubuf, charge, frames) in [(None, 4096, 0), (ubuf, 2500, 0), (ubuf, 12 * 4096, 1)] {
        let mut b = Bench::new();
        b.write(MSS);
        for _ in 0..12 {
            b.sk.send_run.note(b.now, b.now);
        }
        b.queue(MSS + 10);
        let tail = b.sk.write_queue.back_mut().unwrap();
        tail.ubuf = ubuf;
        let charged = core::mem::replace(&mut tail.truesize, charge);
        b.sk.wmem_queued = b.sk.wmem_queued - charged + charge;
        b.with(|sk, cx| tcp_push(sk, cx, 0, MSS, 0, 10 * MSS));
        assert_eq!(b.sent().len(), frames);
        assert_eq!(b.sk.autocorked, frames == 0);
    }
}

/// What is urgent has a mark of its own; and MSG_MORE holds its tail back longer than a run would.
#[test]
fn a_run_holds_neither_urgent_bytes_nor_those_of_msg_more() {
    for (flags, frames) in [(0, 0), (MSG_OOB, 2), (MSG_MORE, 1)] {
        let mut b = Bench::new();
        b.write(MSS);
        for _ in 0..12 {
            b.sk.send_run.note(b.now, b.now);
        }
        b.queue(MSS + 10);
        b.with(|sk, cx| tcp_push(sk, cx, flags, MSS, 0, 10 * MSS));
        assert_eq!(b.sent().len(), frames, "{flags:#x}");
        assert_eq!(b.sk.autocorked, frames == 0);
    }
}

#[test]
fn an_ack_lets_it_out() {
    let mut b = behind_a_segment();
    assert!(send(&mut b, 10).is_empty());
    assert_eq!(b.ack(MSS, &[]).len(), 1);
}

#[test]
fn it_waits_for_nothing_smaller_than_itself() {
    let mut b = behind_a_segment();
    b.device_holds(10 + SKB_TRUESIZE - 1);
    assert_eq!(send(&mut b, 10).len(), 1);
    b.device_holds(MSS + SKB_TRUESIZE);
    b.stack.sh.sysctl.tcp_autocorking = false;
    assert_eq!(send(&mut b, 10).len(), 1);
    b.stack.sh.sysctl.tcp_autocorking = true;
    b.ack(2 * MSS + 20, &[]);
    assert_eq!(send(&mut b, 10).len(), 1, "nothing is in flight");
    assert_eq!(corked(&b), 0);
}

/// MSG_MORE was an earlier call's: what has left lets the tail of this one go.
#[test]
fn a_tail_behind_bytes_of_msg_more_goes_when_they_have_left() {
    let mut b = Bench::new();
    b.queues();
    assert!(b.write_with(100, nagle::CORK).is_empty());
    b.queue(MSS - 100);
    b.with(|sk, cx| tcp_push_one(sk, cx, MSS));
    assert_eq!(b.sent().len(), 1);
    assert!(send(&mut b, 10).is_empty());
    assert_eq!(corked(&b), 1);
    b.carry();
    b.with(tcp_tx_space);
    assert_eq!(b.sent().len(), 1);
}
