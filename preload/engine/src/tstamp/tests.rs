use alloc::vec;
use alloc::vec::Vec;

use sidewire_uapi::socket as so;

use super::*;
use crate::calls::{RecvCall, RecvCmsg};
use crate::testbed::{Bed, Iter};

const ACK: u32 = sof::SOF_TIMESTAMPING_TX_ACK;
const SCHED: u32 = sof::SOF_TIMESTAMPING_TX_SCHED;
const SND: u32 = sof::SOF_TIMESTAMPING_TX_SOFTWARE;
const REPORT: u32 = sof::SOF_TIMESTAMPING_SOFTWARE;
const ID: u32 = sof::SOF_TIMESTAMPING_OPT_ID;
const TSONLY: u32 = sof::SOF_TIMESTAMPING_OPT_TSONLY;
const STATS: u32 = sof::SOF_TIMESTAMPING_OPT_STATS;

fn bed(flags: u32) -> Bed {
    let mut bed = Bed::established();
    bed.set(
        so::SOL_SOCKET,
        so::SO_TIMESTAMPING,
        flags as i32,
        crate::testbed::NOBODY,
    )
    .unwrap();
    bed
}

/// The unsent buffers leave, as the device sees them.
fn sent(bed: &mut Bed) {
    bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).unwrap();
        let queue = core::mem::take(&mut sk.write_queue);
        for skb in &queue {
            tx_sent(sk, &mut cx, skb, &[0x45; 40]);
        }
        sk.write_queue = queue;
    });
}

fn entries(bed: &mut Bed) -> Vec<(u32, u32)> {
    bed.sk()
        .errqueue
        .q
        .iter()
        .map(|e| (e.ee.ee_info, e.ee.ee_data))
        .collect()
}

fn read(bed: &mut Bed, room: usize) -> (usize, RecvCall) {
    let mut iter = Iter::new(bed, vec![(vec![0; room], true)]);
    let mut call = RecvCall::new(so::MSG_ERRQUEUE, true);
    let n = bed
        .with(|stack, io, id| stack.recv_errqueue(io, id, &mut call, &mut iter))
        .unwrap();
    (n, call)
}

#[test]
fn ts_29_ts_32_keys_name_the_last_byte_of_a_call() {
    let mut bed = bed(ACK | REPORT | TSONLY | ID);
    bed.send(so::MSG_EOR, 5).unwrap();
    bed.send(0, 10).unwrap();
    bed.ack_all();
    assert_eq!(entries(&mut bed), [(2, 4), (2, 14)]);
    let mut bed = super::tests::bed(ACK | TSONLY);
    bed.send(0, 5).unwrap();
    bed.ack_all();
    assert_eq!(entries(&mut bed), [(2, 0)]);
}

#[test]
fn ts_33_ts_34_one_stamp_a_buffer_and_only_the_last_of_a_call() {
    let mut bed = bed(ACK | TSONLY | ID);
    bed.send(so::MSG_MORE, 5).unwrap();
    bed.send(so::MSG_MORE, 5).unwrap();
    bed.ack_all();
    assert_eq!(entries(&mut bed), [(2, 9)]);
    let mut bed = super::tests::bed(ACK | TSONLY | ID);
    bed.send(0, 200_000).unwrap();
    assert!(bed.sk().write_queue.len() > 2);
    bed.ack_all();
    assert_eq!(entries(&mut bed), [(2, 199_999)]);
}

#[test]
fn ts_35_to_ts_42_kinds_order_and_payload() {
    let mut bed = bed(SCHED | SND | ACK | REPORT);
    bed.send(0, 100).unwrap();
    sent(&mut bed);
    bed.ack_all();
    assert_eq!(entries(&mut bed), [(1, 0), (0, 0), (2, 0)]);
    let lens: Vec<_> = bed
        .sk()
        .errqueue
        .q
        .iter()
        .map(|e| e.payload.len())
        .collect();
    assert_eq!(lens, [154, 154, 100]);
    let mut bed = super::tests::bed(SCHED | SND | ACK | TSONLY);
    bed.send(0, 100).unwrap();
    sent(&mut bed);
    sent(&mut bed); // TS-40: a retransmission
    bed.ack_all();
    assert_eq!(entries(&mut bed), [(1, 0), (0, 0), (1, 0), (0, 0), (2, 0)]);
    assert!(bed.sk().errqueue.q.iter().all(|e| e.payload.len() == 0));
}

#[test]
fn ts_43_data_is_kept_back_when_the_namespace_says_so() {
    let mut bed = bed(ACK);
    bed.stack.sh.sysctl.tstamp_allow_data = false;
    bed.send(0, 10).unwrap();
    bed.ack_all();
    assert!(bed.sk().errqueue.is_empty());
    let (id, opener) = (bed.id, crate::testbed::ROOT);
    bed.stack.opened_by(id, opener);
    bed.send(0, 10).unwrap();
    bed.ack_all();
    assert_eq!(bed.sk().errqueue.len(), 1);
    let mut bed = super::tests::bed(ACK | TSONLY);
    bed.stack.sh.sysctl.tstamp_allow_data = false;
    bed.send(0, 10).unwrap();
    bed.ack_all();
    assert_eq!(bed.sk().errqueue.len(), 1);
}

#[test]
fn ts_44_to_ts_49_an_entry_as_it_is_read() {
    let mut bed = bed(ACK | REPORT | ID);
    bed.sk().opts.rcvtstamp = true;
    bed.send(0, 10).unwrap();
    bed.ack_all();
    let (n, call) = read(&mut bed, 64);
    assert_eq!(n, 10);
    assert_eq!(call.msg_flags, so::MSG_ERRQUEUE);
    let [
        RecvCmsg::Timestamp { new: false, ns },
        RecvCmsg::Timestamping {
            new: false,
            ns: stamps,
        },
        RecvCmsg::RecvErr { ee, offender: None },
    ] = call.cmsgs.as_slice()
    else {
        panic!("{:?}", call.cmsgs)
    };
    assert_eq!(*stamps, [*ns, 0, 0]);
    assert_eq!(
        (ee.ee_errno, ee.ee_origin, ee.ee_type, ee.ee_code),
        (42, 4, 0, 0)
    );
    assert_eq!((ee.ee_info, ee.ee_data), (2, 9));
    // TS-49: without SOFTWARE no stamp is reported. ZC-49: a short buffer truncates.
    let mut bed = super::tests::bed(ACK);
    bed.send(0, 10).unwrap();
    bed.ack_all();
    let (n, call) = read(&mut bed, 4);
    assert_eq!((n, call.msg_flags), (4, so::MSG_ERRQUEUE | so::MSG_TRUNC));
    assert_eq!(call.cmsgs.len(), 1);
    assert_eq!(bed.sk().rmem_alloc, 0);
}

#[test]
fn ts_48_the_offender_of_a_stamp_with_its_frame() {
    let cmsg = sof::SOF_TIMESTAMPING_OPT_CMSG;
    let offender = |flags: u32| {
        let mut bed = super::tests::bed(SCHED | SND | ACK | flags);
        bed.send(0, 10).unwrap();
        sent(&mut bed);
        bed.ack_all();
        let mut seen = Vec::new();
        while !bed.sk().errqueue.is_empty() {
            let (_, call) = read(&mut bed, 64);
            if let Some(RecvCmsg::RecvErr { offender, .. }) = call.cmsgs.last() {
                seen.push(offender.map(|a| a.port()));
            }
        }
        seen
    };
    assert_eq!(offender(cmsg), [Some(0), Some(0), None]);
    assert_eq!(offender(cmsg | TSONLY), [None; 3]);
    assert_eq!(offender(0), [None; 3]);
}

#[test]
fn ts_50_a_stamp_with_its_frame_tells_where_that_went() {
    let mut bed = bed(SND | REPORT | sof::SOF_TIMESTAMPING_OPT_CMSG);
    bed.send(0, 10).unwrap();
    sent(&mut bed);
    let (_, call) = read(&mut bed, 64);
    let frame = RecvCmsg::IpHeader {
        ifindex: bed.sk().dst.unwrap().oif,
        spec_dst: [10, 0, 0, 1].into(),
        daddr: [10, 0, 0, 2].into(),
        ttl: 0x45,
        tos: 0x45,
        port: bed.sk().tuple.remote.port(),
    };
    assert_eq!(call.cmsgs[1], frame);
    assert!(matches!(call.cmsgs[2], RecvCmsg::RecvErr { .. }));
}

/// The unsent buffers leave by a way that will tell when.
fn handed_over(bed: &mut Bed) {
    bed.with(|stack, io, id| {
        let (sk, _) = stack.borrow(io, id).unwrap();
        let queue = core::mem::take(&mut sk.write_queue);
        for skb in &queue {
            tx_await(sk, skb, &[0x45; 40]);
        }
        sk.write_queue = queue;
    });
}

fn told(bed: &mut Bed, tskey: u32, tstype: u32, when: Stamp, last: bool) {
    bed.with(|stack, io, id| stack.tx_tstamp(io, id, tskey, tstype, when, last));
}

#[test]
fn stamps_of_the_way_out_have_its_times_and_the_frames_keys() {
    let mut bed = bed(SCHED | SND | REPORT | ID | sof::SOF_TIMESTAMPING_RAW_HARDWARE);
    bed.send(so::MSG_EOR, 5).unwrap();
    bed.send(0, 10).unwrap();
    handed_over(&mut bed);
    assert!(entries(&mut bed).is_empty());
    let keys: Vec<u32> = bed.sk().write_queue.iter().map(|s| s.tskey).collect();
    let at = Stamp::software;
    told(&mut bed, keys[0], SCM_TSTAMP_SCHED, at(70), false);
    told(&mut bed, keys[0], SCM_TSTAMP_SND, at(71), true);
    let hardware = Stamp {
        software: 0,
        hardware: 9,
    };
    told(&mut bed, keys[1], SCM_TSTAMP_SND, hardware, true);
    // Twice, and of nobody.
    told(&mut bed, keys[1], SCM_TSTAMP_SND, at(99), true);
    told(&mut bed, 12345, SCM_TSTAMP_SND, at(99), true);
    assert_eq!(entries(&mut bed), [(1, 4), (0, 4), (0, 14)]);
    let times: Vec<[u64; 3]> = (0..3)
        .map(|_| match &read(&mut bed, 64).1.cmsgs[0] {
            RecvCmsg::Timestamping { ns, .. } => *ns,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(times, [[70, 0, 0], [71, 0, 0], [0, 0, 9]]);
}

#[test]
fn frames_whose_stamps_never_come_are_bounded() {
    let mut bed = bed(SND | REPORT);
    for _ in 0..=AWAITING_MAX {
        bed.send(so::MSG_EOR, 1).unwrap();
    }
    handed_over(&mut bed);
    assert_eq!(bed.sk().awaiting_tstamps.len(), AWAITING_MAX);
}

#[test]
fn ts_51_stamps_are_dropped_when_receive_memory_is_full() {
    let mut bed = bed(ACK | TSONLY);
    bed.set(so::SOL_SOCKET, so::SO_RCVBUF, 2304, crate::testbed::NOBODY)
        .unwrap();
    for _ in 0..20 {
        bed.send(so::MSG_EOR, 1).unwrap();
    }
    bed.ack_all();
    assert_eq!(bed.sk().errqueue.len(), 5);
}

#[test]
fn ts_52_ts_53_a_call_may_ask_for_other_stamps() {
    let mut bed = bed(ACK | TSONLY | REPORT);
    let mut off = Vec::new();
    off.extend(20u64.to_ne_bytes());
    off.extend(so::SOL_SOCKET.to_ne_bytes());
    off.extend(so::SO_TIMESTAMPING.to_ne_bytes());
    off.extend(0u32.to_ne_bytes());
    assert_eq!(bed.call(so::MSG_EOR, &off, 10), (Ok(10), false));
    assert_eq!(bed.send(0, 0), Ok(0));
    bed.ack_all();
    assert!(bed.sk().errqueue.is_empty());
}

#[test]
fn ts_54_to_ts_69_statistics() {
    let mut bed = bed(ACK | SND | TSONLY | STATS | REPORT);
    bed.send(0, 10).unwrap();
    sent(&mut bed);
    bed.ack_all();
    let (n, call) = read(&mut bed, 512);
    assert_eq!(n, 248);
    let Some(RecvCmsg::OptStats(bytes)) = call.cmsgs.get(1) else {
        panic!("{:?}", call.cmsgs)
    };
    assert_eq!(bytes.len(), 248);
    let (n, call) = read(&mut bed, 512);
    assert_eq!(n, 256);
    let Some(RecvCmsg::OptStats(bytes)) = call.cmsgs.get(1) else {
        panic!("{:?}", call.cmsgs)
    };
    let mut types = Vec::new();
    let mut rest = &bytes[..];
    while let [a, b, c, d, ..] = rest {
        types.push(u16::from_ne_bytes([*c, *d]));
        rest = &rest[usize::from(u16::from_ne_bytes([*a, *b])).next_multiple_of(4)..];
    }
    let expected: Vec<u16> = (1..=12)
        .chain([15, 16, 17, 13, 14])
        .chain(18..=27)
        .collect();
    assert_eq!(types, expected);
}
