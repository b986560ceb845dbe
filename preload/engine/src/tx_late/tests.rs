use sidewire_uapi::socket::MSG_ZEROCOPY;

use super::*;
use crate::sock::CaState;
use crate::testbed::Bed;
use crate::testbench::{Bench, MSS};

fn frame(b: &Bench, from: u32, len: u32) -> TxLate {
    TxLate {
        tuple: b.sk.tuple,
        seq: b.base.wrapping_add(from),
        len,
    }
}

#[test]
fn a_dropped_frame_is_lost_and_the_next_ack_brings_it_back() {
    let mut b = Bench::new();
    b.sk.snd_cwnd = 10;
    assert_eq!(b.write(4 * MSS).len(), 1);
    let late = frame(&b, 0, 4 * MSS);
    b.with(|sk, cx| dropped(sk, cx, &late));
    assert_eq!(b.sk.ca_state, CaState::Cwr);
    assert_eq!((b.sk.lost_out, b.sk.packets_in_flight()), (4, 0));
    b.write(MSS);
    b.after_ms(20);
    // The frame behind it arrives: no need to count duplicates.
    let again = b.ack(0, &[(4 * MSS, 5 * MSS)]);
    assert_eq!(b.ranges(&again).first().map(|r| r.0), Some(0));
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
            len: 100,
        };
        bed.sk().rtx_queue.push_back(skb);
        copied(bed.sk(), &late);
        bed.ack_all();
        bed.sk().errqueue.q[0].ee.ee_code
    };
    assert_eq!((code(0), code(100)), (1, 0));
}
