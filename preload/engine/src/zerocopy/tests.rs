use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use sidewire_uapi::ip::IP_RECVERR;
use sidewire_uapi::socket as so;
use sidewire_uapi::timestamping as sof;

use super::*;
use crate::calls::{RecvCall, RecvCmsg};
use crate::event::Events;
use crate::memory::{PAGE_SIZE, Region, RegionKind};
use crate::sendmsg::SendCall;
use crate::sndbuf::{tcp_wmem_free_skb, tcp_write_queue_purge};
use crate::stack::Step;
use crate::testbed::{Bed, Iter, NOBODY};
use crate::tso::{Queue, tcp_fragment, tcp_grow_skb};

const ZC: i32 = so::MSG_ZEROCOPY;

fn bed() -> Bed {
    let mut bed = Bed::established();
    bed.sk().opts.zerocopy = true;
    bed
}

/// Ranges and codes in the queue.
fn ranges(bed: &mut Bed) -> Vec<(u32, u32, u8)> {
    bed.sk()
        .errqueue
        .q
        .iter()
        .map(|e| (e.ee.ee_info, e.ee.ee_data, e.ee.ee_code))
        .collect()
}

fn read(bed: &mut Bed) -> Result<(usize, RecvCall), Error> {
    let mut iter = Iter::new(bed, vec![(vec![0; 512], true)]);
    let mut call = RecvCall::new(so::MSG_ERRQUEUE, false);
    let n = bed.with(|stack, io, id| stack.recv_errqueue(io, id, &mut call, &mut iter))?;
    Ok((n, call))
}

#[test]
fn zc_13_zc_15_calls_share_an_object_while_the_tail_is_theirs() {
    let mut bed = bed();
    for _ in 0..3 {
        bed.send(ZC | so::MSG_EOR, 1).unwrap();
    }
    assert_eq!(bed.sk().write_queue.len(), 3);
    assert_eq!(bed.sk().zerocopy.live.len(), 1, "EOR does not separate");
    bed.send(so::MSG_EOR, 1).unwrap();
    bed.send(ZC, 1).unwrap();
    assert_eq!(bed.sk().zerocopy.live.len(), 2, "a plain buffer does");
    bed.ack_all();
    // ZC-25: in ack order they merge.
    assert_eq!(ranges(&mut bed), [(0, 3, 1)]);
}

#[test]
fn zc_13_an_object_covers_512_kib() {
    let mut bed = bed();
    bed.sk().sndbuf = 4 << 20;
    for _ in 0..8 {
        assert_eq!(bed.send(ZC, 100_000), Ok(100_000));
    }
    assert_eq!(bed.sk().zerocopy.live.len(), 2);
    let lens: Vec<_> = bed.sk().zerocopy.live.iter().map(|u| u.len).collect();
    assert_eq!(lens, [5, 3]);
}

#[test]
fn zc_14_different_objects_never_share_a_buffer() {
    let mut bed = bed();
    bed.send(ZC, 10).unwrap();
    bed.sk().zerocopy.live[0].bytelen = BYTE_LIMIT;
    bed.send(ZC, 10).unwrap();
    assert_eq!(bed.unsent(), [10, 10]);
    let queue = &bed.sk().write_queue;
    assert_ne!(queue[0].ubuf, queue[1].ubuf);
}

#[test]
fn f16_mixed_plain_and_zerocopy_is_one_buffer() {
    let mut bed = bed();
    for flags in [0, ZC, 0, ZC] {
        bed.send(flags | so::MSG_MORE, 10).unwrap();
    }
    assert_eq!(bed.unsent(), [40]);
    bed.ack_all();
    assert_eq!(ranges(&mut bed), [(0, 1, 1)]);
}

#[test]
fn zc_16_ten_objects_in_8192_bytes_of_optmem() {
    let mut bed = bed();
    bed.stack.sh.sysctl.optmem_max = 8192;
    // A plain buffer after each keeps the objects apart.
    let one = |bed: &mut Bed| {
        let r = bed.send(ZC | so::MSG_EOR, 10);
        bed.send(so::MSG_EOR, 1).unwrap();
        r
    };
    for _ in 0..10 {
        assert_eq!(one(&mut bed), Ok(10));
    }
    assert_eq!(one(&mut bed), Err(Error::NoBufs));
    assert_eq!(bed.sk().zerocopy.optmem(), 8320);
    // All merge into one entry, which stays charged until it is read.
    bed.ack_all();
    assert_eq!(ranges(&mut bed), [(0, 9, 1)]);
    assert_eq!(bed.sk().zerocopy.optmem(), SKB_TRUESIZE);
    read(&mut bed).unwrap();
    assert_eq!(bed.sk().zerocopy.optmem(), 0);
}

#[test]
fn zc_17_zc_18_memlock() {
    let mut bed = bed();
    let send = |bed: &mut Bed, len, limit, ipc_lock| {
        let mut iter = Iter::new(bed, vec![(vec![1; len], true)]);
        let mut call = SendCall::new(ZC, &[], None, NOBODY, true);
        call.memlock_limit = limit;
        call.caps.ipc_lock = ipc_lock;
        match bed.step(&mut call, &mut iter) {
            Step::Ready(r) => r,
            Step::Wait { .. } => panic!("sleeps"),
        }
    };
    assert_eq!(send(&mut bed, 61_440, 65_536, false), Err(Error::NoBufs));
    assert_eq!(bed.sk().zerocopy.zckey, 0);
    assert_eq!(send(&mut bed, 61_439, 65_536, false), Ok(61_439));
    assert_eq!(send(&mut bed, 100, 65_536, false), Err(Error::NoBufs));
    assert_eq!(send(&mut bed, 100, 65_536, true), Ok(100));
    assert_eq!(bed.send(0, 100), Ok(100));
    bed.ack_all();
    assert_eq!(bed.stack.sh.locked_pages, 0);
    assert_eq!(send(&mut bed, 100, 65_536, false), Ok(100));
}

#[test]
fn zc_20_zc_21_a_part_of_the_bytes_is_not_enough() {
    let mut bed = bed();
    assert_eq!(bed.send(ZC, 100_000), Ok(100_000));
    assert!(bed.sk().write_queue.len() > 1);
    let first = bed.sk().write_queue[0].seq;
    let mut skb = Skb {
        ubuf: bed.sk().write_queue[0].ubuf,
        end_seq: first + 1000,
        ..Skb::default()
    };
    let acked = |bed: &mut Bed, skb: &Skb| {
        bed.with(|stack, io, id| {
            let (sk, mut cx) = stack.borrow(io, id).unwrap();
            skb_acked(sk, &mut cx, skb);
        });
    };
    acked(&mut bed, &skb);
    assert!(ranges(&mut bed).is_empty());
    skb.end_seq = first + 100_000;
    acked(&mut bed, &skb);
    assert_eq!(ranges(&mut bed), [(0, 0, 1)]);
}

/// A page that was pinned before the bad one stays charged to the buffer that it was to join.
#[test]
fn a_fault_leaves_pages_charged() {
    let mut bed = bed();
    bed.send(so::MSG_MORE, 100).unwrap();
    for failed in 1..=2 {
        let parts = vec![(vec![1; 500], true), (vec![2; 100], false)];
        let mut iter = Iter::new(&bed, parts);
        let mut call = SendCall::new(ZC | so::MSG_MORE, &[], None, NOBODY, true);
        let step = bed.step(&mut call, &mut iter);
        assert_eq!(step, Step::Ready(Err(Error::Fault)));
        assert_eq!(bed.unsent(), [100]);
        let pages = (bed.sk().wmem_queued - SKB_TRUESIZE - 100) / PAGE_SIZE;
        // The test's memory begins anywhere in its page.
        assert!((failed..=2 * failed).contains(&pages));
    }
    bed.ack_all();
}

fn free_first(bed: &mut Bed) {
    let skb = bed.sk().write_queue.pop_front().unwrap();
    bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).unwrap();
        tcp_wmem_free_skb(sk, &mut cx, skb);
    });
}

fn split_first(bed: &mut Bed, at: u32) {
    let split = bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).unwrap();
        tcp_fragment(sk, &mut cx, Queue::Write, 0, at, 1460)
    });
    assert!(split);
}

/// Whatever bytes each half has (Linux `skb_zerocopy_clone`).
#[test]
fn an_object_stands_in_both_halves_of_a_buffer() {
    let mut bed = bed();
    bed.send(ZC | so::MSG_MORE, 500).unwrap();
    bed.send(so::MSG_MORE, 4343).unwrap();
    split_first(&mut bed, 2920);
    split_first(&mut bed, 1460);
    for rest in [2, 1] {
        free_first(&mut bed);
        assert!(ranges(&mut bed).is_empty(), "{rest} are left");
    }
    bed.send(so::MSG_MORE, 10).unwrap();
    free_first(&mut bed);
    assert_eq!(ranges(&mut bed), [(0, 0, 1)]);
}

#[test]
fn zerocopy_buffers_are_not_joined() {
    let mut bed = bed();
    bed.send(ZC | so::MSG_OOB, 2000).unwrap();
    assert_eq!(bed.unsent(), [1460, 540]);
    let charged = bed.sk().wmem_queued;
    bed.with(|stack, io, id| {
        let (sk, mut cx) = stack.borrow(io, id).unwrap();
        tcp_grow_skb(sk, &mut cx, 2000);
    });
    assert_eq!(bed.unsent(), [1460, 540]);
    assert_eq!(bed.sk().wmem_queued, charged);
}

#[test]
fn what_was_never_sent_goes_first_and_was_not_copied() {
    let purged = |bed: &mut Bed| {
        bed.with(|stack, io, id| {
            let (sk, mut cx) = stack.borrow(io, id).unwrap();
            tcp_write_queue_purge(sk, &mut cx);
        });
        ranges(bed)
    };
    let sent = |bed: &mut Bed| {
        let sk = bed.sk();
        let skb = sk.write_queue.pop_front().unwrap();
        sk.snd_nxt = skb.end_seq;
        sk.packets_out += skb.pcount();
        sk.rtx_queue.push_back(skb);
    };
    let mut two = bed();
    two.send(ZC, 10).unwrap();
    sent(&mut two);
    two.send(ZC, 10).unwrap();
    assert_eq!(purged(&mut two), [(1, 1, 0), (0, 0, 1)]);
    // One that stands in both queues.
    let mut split = bed();
    split.send(ZC, 3000).unwrap();
    split_first(&mut split, 1460);
    sent(&mut split);
    assert_eq!(purged(&mut split), [(0, 0, 1)]);
}

#[test]
fn zc_22_zc_23_abort_completes_and_orphans_are_silent() {
    let mut bed = bed();
    bed.send(ZC, 10).unwrap();
    let purge_all = |bed: &mut Bed| {
        bed.with(|stack, io, id| {
            let (sk, mut cx) = stack.borrow(io, id).unwrap();
            purge(sk, &mut cx);
        });
    };
    purge_all(&mut bed);
    assert_eq!(ranges(&mut bed).len(), 1);
    let mut bed = super::tests::bed();
    bed.send(ZC, 10).unwrap();
    bed.sk().orphan = true;
    purge_all(&mut bed);
    assert!(bed.sk().errqueue.is_empty());
    assert_eq!(bed.sk().zerocopy.optmem(), 0);
}

#[test]
fn a_private_copy_is_made_before_the_first_transmission() {
    let copy = |on: bool, readable: bool| {
        let mut bed = bed();
        bed.stack.sh.sysctl.zerocopy_rtx_copy = on;
        bed.mem.user_readable = readable;
        bed.send(ZC, 5000).unwrap();
        bed.with(|stack, io, id| {
            let (sk, mut cx) = stack.borrow(io, id).unwrap();
            private_copy(sk, &mut cx);
        });
        let copied = bed.stack.mib().get(Counter::BytesCopiedOut);
        let skb = &bed.sk().write_queue[0];
        let user = skb.frags.iter().any(Frag::is_user);
        let bytes: u32 = skb.frags.iter().map(|f| f.len).sum();
        assert_eq!(bytes, 5000);
        (user, copied)
    };
    assert_eq!(copy(false, true), (true, 0));
    assert_eq!(copy(true, true), (false, 5000));
    // What cannot be read is left to the way out.
    assert_eq!(copy(true, false), (true, 0));
}

#[test]
fn zc_42_what_is_copied_in_cutting_does_not_count() {
    let mut bed = bed();
    bed.sk().dst.as_mut().unwrap().copied_in_cutting = true;
    for (bytes, cut, id, code) in [(10, false, 0, 1), (5000, true, 1, 0)] {
        bed.send(ZC, bytes).unwrap();
        bed.sk().write_queue[0].cut = cut;
        bed.ack_all();
        assert_eq!(ranges(&mut bed), [(id, id, code)]);
        bed.sk().errqueue.q.clear();
    }
}

#[test]
fn zc_26_zc_27_merging_ignores_copied_and_stops_at_a_stamp() {
    let mut bed = bed();
    bed.sk().dst.as_mut().unwrap().zerocopy_copied = false;
    bed.send(ZC, 10).unwrap();
    bed.ack_all();
    bed.sk().dst.as_mut().unwrap().zerocopy_copied = true;
    bed.send(ZC, 10).unwrap();
    bed.ack_all();
    assert_eq!(ranges(&mut bed), [(0, 1, 0)]);
    bed.sk().opts.tsflags = sof::SOF_TIMESTAMPING_TX_ACK | sof::SOF_TIMESTAMPING_OPT_TSONLY;
    bed.send(0, 1).unwrap();
    bed.ack_all();
    bed.sk().opts.tsflags = 0;
    bed.send(ZC, 10).unwrap();
    bed.ack_all();
    assert_eq!(ranges(&mut bed), [(0, 1, 0), (2, 0, 0), (2, 2, 1)]);
}

#[test]
fn zc_28_to_zc_38_zc_45_to_zc_54_reading() {
    let mut bed = bed();
    assert_eq!(read(&mut bed).err(), Some(Error::Again));
    bed.send(ZC, 10).unwrap();
    bed.ack_all();
    assert_eq!(bed.stack.poll(bed.id), 0x10c); // ZC-52, RD-17
    let mut woken = Vec::new();
    bed.stack.take_events(|_, _, e| woken.push(e));
    assert_eq!(woken, [Events::ERR | Events::SIGIO_ERR]);
    assert_eq!(bed.get(so::SOL_SOCKET, so::SO_ERROR), Ok(0)); // ZC-53
    assert_eq!(bed.send(0, 5), Ok(5));
    let (n, call) = read(&mut bed).unwrap();
    assert_eq!((n, call.msg_flags), (0, so::MSG_ERRQUEUE));
    let [RecvCmsg::RecvErr { ee, offender: None }] = call.cmsgs.as_slice() else {
        panic!("{:?}", call.cmsgs)
    };
    assert_eq!(
        (ee.ee_errno, ee.ee_origin, ee.ee_type, ee.ee_code),
        (0, 5, 0, 1)
    );
    assert_eq!(bed.stack.poll(bed.id) & 8, 0);
}

/// What IP_RECVERR drops when it is switched off are errors.
#[test]
fn a_notification_outlives_ip_recverr() {
    let mut bed = bed();
    bed.send(ZC, 10).unwrap();
    bed.ack_all();
    bed.set(so::SOL_IP, IP_RECVERR, 0, NOBODY).unwrap();
    assert!(read(&mut bed).is_ok());
}

struct Device(Vec<u8>);

impl Region for Device {
    fn base(&self) -> *const u8 {
        self.0.as_ptr()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn kind(&self) -> RegionKind {
        RegionKind::DmaBuf
    }
}

#[test]
fn zc_55_to_zc_58_dmabuf_bindings() {
    let mut bed = bed();
    let mem: MemRef = Arc::new(Device(vec![7; 100]));
    let any = bed.stack.bind_dmabuf(mem.clone(), 0).unwrap();
    let other = bed.stack.bind_dmabuf(mem, 99).unwrap();
    let check = |bed: &mut Bed, id| {
        bed.with(|stack, io, sock| {
            let (sk, mut cx) = stack.borrow(io, sock).unwrap();
            dmabuf_binding(sk, &mut cx, id)
        })
    };
    assert_eq!(check(&mut bed, any), Ok(()));
    assert_eq!(check(&mut bed, other), Err(Error::NoDev));
    assert_eq!(check(&mut bed, 77), Err(Error::Inval));
    assert_eq!(check(&mut bed, 0), Err(Error::Inval));
    assert!(bed.stack.unbind_dmabuf(any));
    assert!(!bed.stack.unbind_dmabuf(any));
    assert_eq!(check(&mut bed, any), Err(Error::Inval));
    // A route that has gone is looked up anew (ZC-57).
    bed.sk().dst = None;
    assert_eq!(check(&mut bed, other), Err(Error::NoDev));
    bed.sk().dst = None;
    bed.wire.no_route = true;
    assert_eq!(check(&mut bed, other), Err(Error::HostUnreach));
}

fn send_with_ubuf(bed: &mut Bed, cookie: u64, parts: Vec<(Vec<u8>, bool)>) -> Result<usize, Error> {
    let mut iter = Iter::new(bed, parts);
    let mut call = SendCall::new(0, &[], None, NOBODY, true);
    call.ubuf = Some(cookie);
    match bed.step(&mut call, &mut iter) {
        Step::Ready(r) => r,
        Step::Wait { .. } => panic!("sleeps"),
    }
}

fn done(bed: &mut Bed) -> Vec<(u64, bool)> {
    let mut seen = Vec::new();
    bed.stack
        .take_ubufs(|cookie, zerocopy| seen.push((cookie, zerocopy)));
    seen
}

#[test]
fn a_callers_own_completion_comes_once_and_without_a_notification() {
    let mut bed = Bed::established();
    bed.sk().dst.as_mut().unwrap().zerocopy_copied = false;
    assert_eq!(
        send_with_ubuf(&mut bed, 7, vec![(vec![1; 5000], true)]),
        Ok(5000)
    );
    assert_eq!(
        send_with_ubuf(&mut bed, 8, vec![(vec![1; 10], true)]),
        Ok(10)
    );
    assert_eq!(bed.unsent(), [5000, 10], "one buffer has one owner");
    assert_eq!(bed.sk().zerocopy.zckey, 0);
    assert_eq!(bed.sk().zerocopy.optmem(), 0);
    assert!(done(&mut bed).is_empty());
    bed.ack_all();
    assert_eq!(done(&mut bed), [(7, true), (8, true)]);
    assert!(bed.sk().errqueue.is_empty());
    // A call that fails does not complete; one on an orphan does.
    let fault = vec![(vec![1; 10], false)];
    assert_eq!(send_with_ubuf(&mut bed, 9, fault), Err(Error::Fault));
    assert_eq!(
        send_with_ubuf(&mut bed, 10, vec![(vec![1; 10], true)]),
        Ok(10)
    );
    bed.sk().orphan = true;
    bed.stack.sh.orphans += 1;
    bed.ack_all();
    assert_eq!(done(&mut bed), [(10, true)]);
}

#[test]
fn a_callers_buffer_is_not_extended_by_msg_zerocopy() {
    let mut bed = bed();
    send_with_ubuf(&mut bed, 7, vec![(vec![1; 10], true)]).unwrap();
    assert_eq!(bed.send(ZC, 10), Err(Error::NoBufs));
}
