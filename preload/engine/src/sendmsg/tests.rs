use alloc::vec;
use alloc::vec::Vec;

use sidewire_uapi::TcpState;
use sidewire_uapi::socket as so;

use super::*;
use crate::skb::{MAX_SKB_FRAGS, tcphdr};
use crate::sock::nagle;
use crate::testbed::{Bed, Iter, NOBODY, ROOT, SKB};
use crate::time::{HZ, NSEC_PER_SEC};

fn cmsg(ty: i32, data: &[u8]) -> Vec<u8> {
    let mut v = Vec::new();
    v.extend((16 + data.len() as u64).to_ne_bytes());
    v.extend(so::SOL_SOCKET.to_ne_bytes());
    v.extend(ty.to_ne_bytes());
    v.extend(data);
    v.resize(v.len().next_multiple_of(8), 0);
    v
}

fn dmabuf(id: u32) -> Vec<u8> {
    cmsg(so::SCM_DEVMEM_DMABUF, &id.to_ne_bytes())
}

const BAD: i32 = 99;

#[test]
fn b10_b12_a_bad_cmsg_is_deferred_behind_the_state() {
    let bad = cmsg(BAD, &[]);
    // Unconnected: EPIPE and SIGPIPE, not EINVAL.
    assert_eq!(Bed::closed().call(0, &bad, 5), (Err(Error::Pipe), true));
    assert_eq!(
        Bed::established().call(0, &bad, 5),
        (Err(Error::Inval), false)
    );
    assert_eq!(
        Bed::established().call(0, &bad, 0),
        (Err(Error::Inval), false)
    );
    let mut bed = Bed::established();
    bed.sk().state = TcpState::FinWait1;
    bed.sk().shutdown = shutdown::SEND;
    assert_eq!(bed.call(0, &bad, 5), (Err(Error::Pipe), true));
}

#[test]
fn b4_b4a_b4b_dmabuf_without_zerocopy() {
    // Before any state check: no SIGPIPE.
    assert_eq!(
        Bed::closed().call(0, &dmabuf(1), 5),
        (Err(Error::Inval), false)
    );
    assert_eq!(Bed::established().call(0, &dmabuf(0), 5), (Ok(5), false));
    let mut bed = Bed::established();
    bed.sk().opts.zerocopy = true;
    let zc = so::MSG_ZEROCOPY;
    assert_eq!(bed.call(zc, &dmabuf(1), 0), (Ok(0), false));
    assert_eq!(bed.call(0, &dmabuf(1), 5), (Err(Error::Inval), false));
    // ZC-56, ZC-61: unknown ids, and the id of B3 is given back.
    assert_eq!(bed.call(zc, &dmabuf(1), 5), (Err(Error::Inval), false));
    assert_eq!(bed.sk().zerocopy.zckey, 0);
    let mut two = dmabuf(1);
    two.extend(cmsg(BAD, &[]));
    assert_eq!(bed.call(0, &two, 5), (Err(Error::Inval), false));
}

#[test]
fn c2_er_1_er_7_states_that_cannot_send() {
    for state in [
        TcpState::Close,
        TcpState::Listen,
        TcpState::FinWait1,
        TcpState::FinWait2,
        TcpState::Closing,
        TcpState::LastAck,
    ] {
        let mut bed = Bed::closed();
        bed.sk().state = state;
        assert_eq!(bed.call(0, &[], 5), (Err(Error::Pipe), true), "{state:?}");
        assert_eq!(
            bed.call(so::MSG_NOSIGNAL, &[], 5),
            (Err(Error::Pipe), false)
        );
    }
}

#[test]
fn c1_e3_sk_err_is_reported_once_and_without_a_signal() {
    let mut bed = Bed::established();
    bed.sk().state = TcpState::Close;
    bed.sk().shutdown = shutdown::MASK;
    bed.sk().sk_err = Some(Error::ConnReset);
    assert_eq!(bed.call(0, &[], 5), (Err(Error::ConnReset), false));
    assert_eq!(bed.call(0, &[], 5), (Err(Error::Pipe), true));
    // B12 with an error that is pending on a live connection.
    let mut bed = Bed::established();
    bed.sk().sk_err = Some(Error::HostUnreach);
    assert_eq!(bed.call(0, &[], 0), (Err(Error::HostUnreach), false));
    assert_eq!(bed.call(0, &[], 1), (Ok(1), false));
}

#[test]
fn c3_sp_25_handshake_does_not_block_a_nonblocking_call() {
    for state in [TcpState::SynSent, TcpState::SynRecv] {
        let mut bed = Bed::closed();
        bed.sk().state = state;
        for (flags, len) in [(0, 5), (0, 0), (so::MSG_OOB, 1)] {
            assert_eq!(bed.send(flags, len), Err(Error::Again));
        }
    }
    let mut bed = Bed::established();
    bed.sk().state = TcpState::SynRecv;
    bed.sk().fastopen_rsk = true;
    assert_eq!(bed.send(0, 5), Ok(5), "a passive fast-open child may send");
}

#[test]
fn c4_c5_h6_waiting_for_the_connection() {
    let mut bed = Bed::closed();
    bed.sk().state = TcpState::SynSent;
    bed.sk().opts.sndtimeo = Some(HZ);
    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    let mut iter = Iter::new(&bed, vec![(vec![1; 5], true)]);
    let until = bed.now + NSEC_PER_SEC;
    let wait = Step::Wait {
        reason: WaitReason::Connect,
        deadline: until,
    };
    assert_eq!(bed.step(&mut call, &mut iter), wait);
    bed.now = bed.now + NSEC_PER_SEC / 2;
    assert_eq!(bed.step(&mut call, &mut iter), wait, "one budget a call");
    call.signal = true;
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Intr))
    );
    assert!(!call.restartable, "H5: a timeout is set");

    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    assert!(matches!(bed.step(&mut call, &mut iter), Step::Wait { .. }));
    bed.now = bed.now + NSEC_PER_SEC;
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Again))
    );

    bed.sk().opts.sndtimeo = None;
    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    assert!(matches!(
        bed.step(&mut call, &mut iter),
        Step::Wait {
            deadline: Instant::NEVER,
            ..
        }
    ));
    call.signal = true;
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Intr))
    );
    assert!(call.restartable);
}

#[test]
fn a_connection_made_anew_gets_nothing_of_a_send_that_slept() {
    let again = |bed: &mut Bed| {
        bed.with(|stack, io, id| stack.disconnect(io, id));
        // Where connect begins anew.
        bed.sk().sk_err = None;
        bed.sk().state = TcpState::Established;
    };
    let mut bed = Bed::closed();
    bed.sk().state = TcpState::SynSent;
    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    let mut iter = Iter::new(&bed, vec![(vec![1; 5], true)]);
    assert!(matches!(bed.step(&mut call, &mut iter), Step::Wait { .. }));
    again(&mut bed);
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Pipe))
    );
    assert!(call.sigpipe);

    let mut bed = Bed::established();
    bed.sk().sndbuf = 10_000;
    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    let mut iter = Iter::new(&bed, vec![(vec![1; 300_000], true)]);
    assert!(matches!(bed.step(&mut call, &mut iter), Step::Wait { .. }));
    let taken = call.copied();
    assert!(taken > 0);
    again(&mut bed);
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(taken)));
    assert!(bed.sk().write_queue.is_empty());
}

#[test]
fn f7_f11_accounting_of_one_and_of_a_thousand_bytes() {
    let mut bed = Bed::established();
    assert_eq!(bed.send(0, 1), Ok(1));
    assert_eq!(bed.sk().wmem_queued, SKB + 1);
    assert_eq!(bed.sk().write_seq, 1001);
    let mut bed = Bed::established();
    assert_eq!(bed.send(0, 1000), Ok(1000));
    assert_eq!(bed.sk().wmem_queued, SKB + 1000);
}

#[test]
fn f1_f8_the_tail_is_filled_and_its_bytes_lie_side_by_side() {
    let mut bed = Bed::established();
    for _ in 0..100 {
        assert_eq!(bed.send(0, 10), Ok(10));
    }
    assert_eq!(bed.unsent(), [1000]);
    assert_eq!(bed.sk().write_queue[0].frags.len(), 1);
    let size_goal = {
        let mut bed = Bed::established();
        bed.send(0, 1 << 19).unwrap();
        bed.unsent()[0]
    };
    assert_eq!(size_goal % 1460, 0);
    assert_eq!(bed.send(0, 70_000), Ok(70_000));
    assert_eq!(bed.unsent()[0], size_goal);
    assert_eq!(bed.unsent().iter().sum::<u32>(), 71_000);
}

#[test]
fn f2_f12_eor_ends_a_buffer() {
    let mut bed = Bed::established();
    assert_eq!(bed.send(so::MSG_EOR, 10), Ok(10));
    assert_eq!(bed.send(so::MSG_MORE, 10), Ok(10));
    assert_eq!(bed.send(so::MSG_MORE, 10), Ok(10));
    assert_eq!(bed.unsent(), [10, 20]); // SP-18
    assert!(bed.sk().write_queue[0].eor);
}

#[test]
fn f3_f4_memory_is_tested_for_a_new_buffer_only() {
    let mut bed = Bed::established();
    bed.sk().sndbuf = 4608;
    let n = bed.send(0, 100_000).unwrap();
    let one_buffer = bed.unsent()[0] as usize;
    assert_eq!(n, one_buffer, "the first buffer is filled to size_goal");
    assert_eq!(bed.send(0, 1), Err(Error::Again));
    assert!(bed.sk().nospace, "H3");
    // Room in the tail: no test.
    let mut bed = Bed::established();
    bed.send(0, 1).unwrap();
    bed.sk().sndbuf = 1;
    assert_eq!(bed.send(0, 1000), Ok(1000));
    assert_eq!(bed.send(so::MSG_EOR, 10), Ok(10));
    assert_eq!(bed.send(0, 1), Err(Error::Again));
}

#[test]
fn f3_notsent_lowat_is_a_limit_too() {
    let mut bed = Bed::established();
    bed.sk().opts.notsent_lowat = 1000;
    let n = bed.send(0, 200_000).unwrap() as u32;
    assert_eq!(n, bed.unsent()[0]);
    assert_eq!(bed.send(0, 1), Err(Error::Again));
}

#[test]
fn f9_seventeen_fragments_then_a_new_buffer_and_psh() {
    let mut bed = Bed::established();
    // Page fragments of others between ours keep them apart.
    for i in 0..=MAX_SKB_FRAGS {
        assert_eq!(bed.send(so::MSG_MORE, 10), Ok(10));
        if let Some(p) = &mut bed.stack.sh.page_frag {
            p.off += 64;
        }
        let expected = if i < MAX_SKB_FRAGS { 1 } else { 2 };
        assert_eq!(bed.sk().write_queue.len(), expected, "send {i}");
    }
    let full = &bed.sk().write_queue[0];
    assert_eq!(full.frags.len(), MAX_SKB_FRAGS);
    assert_ne!(full.tcp_flags & tcphdr::PSH, 0);
}

#[test]
fn f10_g2_psh_marks_follow_msg_more() {
    let mut bed = Bed::established();
    bed.send(so::MSG_MORE, 10).unwrap();
    let psh = |bed: &mut Bed| bed.sk().write_queue[0].tcp_flags & tcphdr::PSH != 0;
    assert!(!psh(&mut bed));
    bed.send(0, 10).unwrap();
    assert!(psh(&mut bed));
    assert_eq!(bed.sk().pushed_seq, 1020);
    bed.send(so::MSG_MORE, 10).unwrap();
    assert!(!psh(&mut bed), "the first chunk of a call takes it off");
    // G2: more than half of the largest window makes MSG_MORE moot.
    bed.sk().max_window = 20;
    bed.send(so::MSG_MORE, 10).unwrap();
    assert!(psh(&mut bed));
}

#[test]
fn f6_a_new_buffer_clears_the_one_shot_push() {
    let mut bed = Bed::established();
    bed.sk().nonagle = nagle::OFF | nagle::PUSH;
    bed.send(0, 10).unwrap();
    assert_eq!(bed.sk().nonagle, nagle::OFF);
}

#[test]
fn g3_urgent_pointer_stands_behind_the_call() {
    let mut bed = Bed::established();
    bed.send(so::MSG_OOB, 3).unwrap();
    assert_eq!(bed.sk().snd_up, 1003);
    assert!(bed.sk().urg_mode);
}

#[test]
fn e7_a_fault_takes_back_its_chunk_only() {
    let mut bed = Bed::established();
    let run = |bed: &mut Bed, parts: Vec<(Vec<u8>, bool)>| {
        let mut iter = Iter::new(bed, parts);
        let mut call = SendCall::new(0, &[], None, NOBODY, true);
        bed.step(&mut call, &mut iter)
    };
    let parts = vec![(vec![1; 50], true), (vec![2; 100], false)];
    assert_eq!(run(&mut bed, parts), Step::Ready(Err(Error::Fault)));
    assert!(bed.sk().write_queue.is_empty(), "nothing is queued");
    assert_eq!(bed.sk().wmem_queued, 0);
    assert_eq!(bed.sk().write_seq, 1000);
    let mut bed = Bed::established();
    let parts = vec![(vec![1; 100_000], true), (vec![2; 100], false)];
    let Step::Ready(Ok(n)) = run(&mut bed, parts) else {
        panic!("a short count")
    };
    assert!(n > 50_000 && n < 100_000);
    assert_eq!(bed.sk().notsent_bytes() as usize, n);
}

#[test]
fn h1_h2_h7_a_blocking_call_waits_and_goes_on() {
    let mut bed = Bed::established();
    bed.sk().sndbuf = 10_000;
    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    let mut iter = Iter::new(&bed, vec![(vec![1; 300_000], true)]);
    let mut rounds = 0;
    loop {
        match bed.step(&mut call, &mut iter) {
            Step::Ready(r) => {
                assert_eq!(r, Ok(300_000)); // SP-20
                break;
            }
            Step::Wait { reason, .. } => {
                assert_eq!(reason, WaitReason::Memory);
                assert!(bed.sk().nospace);
                bed.ack_all();
                rounds += 1;
            }
        }
    }
    assert!(rounds > 1);
}

#[test]
fn h2_h7_h8_what_ends_a_wait_for_memory() {
    let wait = |taken: bool| {
        let mut bed = Bed::established();
        if !taken {
            bed.sk().sndbuf = 0;
        } else {
            bed.sk().sndbuf = 1000;
        }
        let mut call = SendCall::new(0, &[], None, NOBODY, false);
        let mut iter = Iter::new(&bed, vec![(vec![1; 200_000], true)]);
        assert!(matches!(bed.step(&mut call, &mut iter), Step::Wait { .. }));
        (bed, call, iter)
    };
    // RST with nothing taken: the error; with something: the count first.
    let (mut bed, mut call, mut iter) = wait(false);
    bed.sk().sk_err = Some(Error::ConnReset);
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::ConnReset))
    );
    assert!(!call.sigpipe);
    let (mut bed, mut call, mut iter) = wait(true);
    bed.sk().sk_err = Some(Error::ConnReset);
    assert!(matches!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Ok(1..))
    ));
    assert_eq!(bed.call(0, &[], 1), (Err(Error::ConnReset), false));
    // Own shutdown from another thread.
    let (mut bed, mut call, mut iter) = wait(false);
    bed.sk().shutdown = shutdown::SEND;
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Pipe))
    );
    assert!(call.sigpipe);
    // A signal.
    let (mut bed, mut call, mut iter) = wait(false);
    call.signal = true;
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Intr))
    );
    assert!(call.restartable);
    let (mut bed, mut call, mut iter) = wait(true);
    call.signal = true;
    assert!(matches!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Ok(1..))
    ));
}

#[test]
fn h6_so_25_timeouts() {
    let mut bed = Bed::established();
    bed.sk().sndbuf = 0;
    // Negative seconds: do not wait at all.
    bed.sk().opts.sndtimeo = Some(0);
    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    let mut iter = Iter::new(&bed, vec![(vec![1; 10], true)]);
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Again))
    );
    bed.sk().opts.sndtimeo = Some(HZ);
    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    let Step::Wait { deadline, .. } = bed.step(&mut call, &mut iter) else {
        panic!("should wait")
    };
    assert_eq!(deadline, bed.now + NSEC_PER_SEC);
    bed.now = deadline;
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Again))
    );
}

#[test]
fn h9_an_empty_arena_waits_some_jiffies() {
    let mut bed = Bed::established();
    bed.mem.left = Some(0);
    let mut call = SendCall::new(0, &[], None, NOBODY, false);
    let mut iter = Iter::new(&bed, vec![(vec![1; 10], true)]);
    let Step::Wait { deadline, .. } = bed.step(&mut call, &mut iter) else {
        panic!("should wait")
    };
    assert!(deadline > bed.now && deadline.since(bed.now) <= 52 * 4_000_000);
    assert!(bed.sk().write_queue.is_empty(), "H1: no empty tail stays");
    bed.mem.left = None;
    bed.now = deadline;
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(10)));
    bed.mem.left = Some(0);
    bed.stack.sh.page_frag = None;
    assert_eq!(bed.send(0, 10), Err(Error::Again));
}

#[test]
fn e5_rd_38_again_with_empty_queues_wakes_writers() {
    let mut bed = Bed::established();
    bed.mem.left = Some(0);
    assert_eq!(bed.send(0, 10), Err(Error::Again));
    let mut seen = Vec::new();
    bed.stack.take_events(|user, _, e| seen.push((user, e)));
    let told = crate::event::Events::OUT | crate::event::Events::SIGIO_OUT;
    assert_eq!(seen, [(7, told)]);
    assert!(!bed.sk().nospace);
}

#[test]
fn b3_b3a_b3b_zc_8_zc_9_zerocopy_ids() {
    let zc = so::MSG_ZEROCOPY;
    let mut bed = Bed::established();
    assert_eq!(bed.send(zc, 100), Ok(100));
    assert_eq!(bed.sk().zerocopy.zckey, 0, "without SO_ZEROCOPY: a copy");
    bed.sk().opts.zerocopy = true;
    assert_eq!(bed.send(zc, 0), Ok(0));
    assert_eq!(bed.send(0, 10), Ok(10));
    assert_eq!(bed.sk().zerocopy.zckey, 0);
    let before = bed.stack.mib().get(crate::mib::Counter::BytesCopiedOut);
    assert_eq!(bed.send(zc, 5000), Ok(5000));
    assert_eq!(bed.sk().zerocopy.zckey, 1);
    let after = bed.stack.mib().get(crate::mib::Counter::BytesCopiedOut);
    assert_eq!(before, after, "no byte is copied");
}

#[test]
fn f7_zerocopy_is_accounted_by_pages_touched() {
    let mut bed = Bed::established();
    bed.sk().opts.zerocopy = true;
    assert_eq!(bed.send(so::MSG_ZEROCOPY, 100), Ok(100));
    let wmem = bed.sk().wmem_queued;
    assert!(wmem == SKB + 4096 || wmem == SKB + 2 * 4096, "{wmem}");
    assert!(bed.sk().write_queue[0].pure_zerocopy);
    assert_eq!(bed.send(0, 10), Ok(10));
    assert_eq!(bed.sk().wmem_queued, wmem + 10);
    assert!(!bed.sk().write_queue[0].pure_zerocopy, "F16");
    assert_eq!(bed.unsent(), [110]);
}

#[test]
fn b3c_without_scatter_gather_it_is_a_copy_and_says_so() {
    let mut bed = Bed::established();
    bed.sk().opts.zerocopy = true;
    bed.sk().dst.as_mut().unwrap().sg = false;
    assert_eq!(bed.send(so::MSG_ZEROCOPY, 100), Ok(100));
    assert_eq!(bed.sk().wmem_queued, SKB + 100);
    let e = &bed.sk().errqueue.q[0];
    assert_eq!((e.ee.ee_info, e.ee.ee_data, e.ee.ee_code), (0, 0, 1));
}

#[test]
fn zc_10_a_failing_call_gives_its_id_back() {
    let zc = so::MSG_ZEROCOPY;
    let mut bed = Bed::established();
    bed.sk().opts.zerocopy = true;
    let bad = cmsg(BAD, &[]);
    assert_eq!(bed.call(zc, &bad, 10), (Err(Error::Inval), false));
    bed.sk().sk_err = Some(Error::ConnReset);
    assert_eq!(bed.send(zc, 10), Err(Error::ConnReset));
    let mut iter = Iter::new(&bed, vec![(vec![1; 10], false)]);
    let mut call = SendCall::new(zc, &[], None, NOBODY, true);
    assert_eq!(
        bed.step(&mut call, &mut iter),
        Step::Ready(Err(Error::Fault))
    );
    assert_eq!(bed.sk().zerocopy.zckey, 0);
    assert_eq!(bed.sk().zerocopy.optmem(), 0);
    assert!(bed.sk().errqueue.is_empty(), "E2: no notification");
    assert_eq!(bed.send(zc, 10), Ok(10));
    bed.ack_all();
    assert_eq!(bed.sk().errqueue.q[0].ee.ee_info, 0);
}

#[test]
fn b9_rp_24_rp_26_rp_27_repair_queues() {
    let repair = |bed: &mut Bed, queue: i32| {
        use sidewire_uapi::tcp::{TCP_REPAIR, TCP_REPAIR_QUEUE};
        bed.set(so::SOL_TCP, TCP_REPAIR, 1, ROOT).unwrap();
        bed.set(so::SOL_TCP, TCP_REPAIR_QUEUE, queue, NOBODY)
            .unwrap();
    };
    let bad = cmsg(BAD, &[]);
    let mut bed = Bed::closed();
    repair(&mut bed, 2);
    assert_eq!(bed.call(0, &[], 5), (Err(Error::Pipe), true)); // RP-27
    let mut bed = Bed::established();
    repair(&mut bed, 0);
    assert_eq!(bed.call(0, &[], 5), (Err(Error::Inval), false)); // RP-24
    repair(&mut bed, 1);
    assert_eq!(bed.call(0, &bad, 5), (Ok(5), false)); // RP-25
    assert_eq!(bed.call(0, &bad, 0), (Ok(0), false));
    assert_eq!(bed.sk().rcv_nxt, 5005);
    assert_eq!(bed.sk().write_seq, 1000);
    assert_eq!(bed.send(0, 100_000), Ok(71_328));
    let mut fresh = Bed::established();
    fresh.sk().rcvbuf = 1 << 20;
    repair(&mut fresh, 1);
    assert_eq!(fresh.send(0, 400_000), Ok(72_320));
    repair(&mut bed, 2);
    assert_eq!(bed.call(0, &bad, 5), (Err(Error::Inval), false)); // RP-26
    assert_eq!(bed.call(so::MSG_FASTOPEN, &[], 5), (Ok(5), false));
}

#[test]
fn a9_a11_flags_that_mean_nothing() {
    let mut bed = Bed::established();
    let flags = KERNEL_ONLY
        | so::MSG_PEEK
        | so::MSG_TRUNC
        | so::MSG_PROBE
        | so::MSG_SYN
        | so::MSG_RST
        | so::MSG_FIN
        | so::MSG_CONFIRM
        | so::MSG_BATCH
        | so::MSG_NO_SHARED_FRAGS
        | so::MSG_ERRQUEUE
        | so::MSG_SOCK_DEVMEM
        | so::MSG_DONTROUTE;
    assert_eq!(bed.send(flags, 10), Ok(10));
    assert_eq!(bed.sk().wmem_queued, SKB + 10, "a copy");
}

#[test]
fn sp_23_sp_24_zero_bytes() {
    let mut bed = Bed::established();
    assert_eq!(bed.send(0, 0), Ok(0));
    assert!(bed.sk().write_queue.is_empty());
    bed.sk().shutdown = shutdown::SEND;
    assert_eq!(bed.call(0, &[], 0), (Err(Error::Pipe), true));
}

#[test]
fn payload_arrives_in_order() {
    let mut bed = Bed::established();
    let bytes: Vec<u8> = (0..30_000u32).map(|i| (i * 7) as u8).collect();
    let mut iter = Iter::new(&bed, vec![(bytes.clone(), true)]);
    let mut call = SendCall::new(0, &[], None, NOBODY, true);
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(bytes.len())));
    let frags: Vec<_> = bed
        .sk()
        .write_queue
        .iter()
        .flat_map(|s| s.frags.clone())
        .collect();
    let queued: Vec<u8> = frags.iter().flat_map(|f| bed.mem.bytes(f)).collect();
    assert_eq!(queued, bytes);
}

/// Three calls of 100 bytes with these marks: the unsent buffers' lengths and marks.
fn marked(own: bool, marks: [u32; 3]) -> Vec<(u32, Option<u32>)> {
    let mut bed = Bed::established();
    bed.stack.sh.sysctl.message_options = own;
    for mark in marks {
        let control = cmsg(so::SO_MARK, &mark.to_ne_bytes());
        let mut iter = Iter::new(&bed, vec![(vec![0; 100], true)]);
        let mut call = SendCall::new(0, &control, None, ROOT, true);
        let sent = bed.step(&mut call, &mut iter);
        assert_eq!(sent, Step::Ready(Ok(100)));
    }
    let queue = bed.sk().write_queue.iter();
    queue.map(|skb| (skb.len, skb.message.mark)).collect()
}

#[test]
fn a_messages_own_mark_parts_buffers_where_the_settings_let_it() {
    assert_eq!(marked(false, [7, 7, 9]), [(300, None)]);
    assert_eq!(marked(true, [7, 7, 9]), [(200, Some(7)), (100, Some(9))]);
    assert_eq!(marked(true, [0, 7, 0]).len(), 3);
}

#[test]
fn a_transmit_time_parts_buffers_too() {
    let mut bed = Bed::established();
    bed.stack.sh.sysctl.message_options = true;
    bed.sk().opts.txtime = Some((1, 0));
    for at in [5u64, 5, 6] {
        let control = cmsg(so::SCM_TXTIME, &at.to_ne_bytes());
        assert_eq!(bed.call(0, &control, 100).0, Ok(100));
    }
    assert_eq!(bed.unsent(), [200, 100]);
    assert_eq!(bed.send(0, 10), Ok(10));
    assert_eq!(bed.unsent(), [200, 100, 10]);
}

#[test]
fn sp_27_splice_references_pages_and_is_accounted_by_bytes() {
    let mut bed = Bed::established();
    let mut iter = Iter::new(&bed, vec![(vec![1; 5000], true)]);
    let mut call = SendCall::splice(true, NOBODY, true);
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(5000)));
    assert_eq!(bed.sk().wmem_queued, SKB + 5000);
    let copied = bed.stack.mib().get(crate::mib::Counter::BytesCopiedOut);
    assert_eq!(copied, 0);
    let skb = &bed.sk().write_queue[0];
    assert!(skb.ubuf.is_none() && skb.tcp_flags & tcphdr::PSH == 0);
    // The last piece has no MORE.
    let mut iter = Iter::new(&bed, vec![(vec![1; 10], true)]);
    let mut call = SendCall::splice(false, NOBODY, true);
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(10)));
    assert_ne!(bed.sk().write_queue[0].tcp_flags & tcphdr::PSH, 0);
    assert_eq!(bed.unsent(), [5010]);
    // Without scatter-gather it is a copy.
    bed.sk().dst.as_mut().unwrap().sg = false;
    let mut iter = Iter::new(&bed, vec![(vec![1; 10], true)]);
    let mut call = SendCall::splice(false, NOBODY, true);
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(10)));
    let copied = bed.stack.mib().get(crate::mib::Counter::BytesCopiedOut);
    assert_eq!(copied, 10);
}

mod any_sequence {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    /// What a program and its peer may do.
    #[derive(Clone, Debug)]
    enum Deed {
        Send { flags: i32, len: usize },
        SendBad { good: usize },
        AckAll,
        Sndbuf(u32),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let bits = prop::sample::subsequence(
            vec![so::MSG_MORE, so::MSG_EOR, so::MSG_ZEROCOPY, so::MSG_OOB],
            0..=4,
        );
        prop_oneof![
            6 => (bits, 0usize..120_000).prop_map(|(bits, len)| Deed::Send {
                flags: bits.iter().fold(0, |all, bit| all | bit),
                len,
            }),
            1 => (0usize..70_000).prop_map(|good| Deed::SendBad { good }),
            2 => Just(Deed::AckAll),
            1 => (0u32..300_000).prop_map(Deed::Sndbuf),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the sequence: counts and `write_seq` agree, buffers keep their bounds, memory is accounted, and no
        /// zerocopy id is lost or told twice. The invariants of the socket are checked after every call.
        #[test]
        fn keeps_its_books(deeds in prop::collection::vec(deed(), 1..40)) {
            let mut bed = Bed::established();
            bed.sk().opts.zerocopy = true;
            let mut told = 0u64;
            let mut ids = 0u32;
            for deed in deeds {
                let (flags, parts) = match deed {
                    Deed::AckAll => {
                        bed.ack_all();
                        continue;
                    }
                    Deed::Sndbuf(n) => {
                        bed.sk().sndbuf = n;
                        continue;
                    }
                    Deed::Send { flags, len } => (flags, vec![(vec![1; len], true)]),
                    Deed::SendBad { good } => {
                        (0, vec![(vec![1; good], true), (vec![2; 10], false)])
                    }
                };
                let len: usize = parts.iter().map(|(b, _)| b.len()).sum();
                let before = bed.sk().write_seq;
                let mut iter = Iter::new(&bed, parts);
                let mut call = SendCall::new(flags, &[], None, NOBODY, true);
                let Step::Ready(r) = bed.step(&mut call, &mut iter) else {
                    panic!("a non-blocking call sleeps")
                };
                let took = r.unwrap_or(0);
                told += took as u64;
                prop_assert!(took <= len);
                prop_assert_eq!(bed.sk().write_seq.wrapping_sub(before) as usize, took);
                prop_assert_eq!(iter.remaining() + took, len);
                ids += u32::from(flags & so::MSG_ZEROCOPY != 0 && took > 0);
                prop_assert_eq!(bed.sk().zerocopy.zckey, ids);
                for skb in &bed.sk().write_queue {
                    prop_assert!(skb.len > 0 && skb.frags.len() <= MAX_SKB_FRAGS);
                }
            }
            bed.ack_all();
            prop_assert_eq!(bed.sk().write_seq, 1000u32.wrapping_add(told as u32));
            prop_assert_eq!(bed.stack.sh.locked_pages, 0);
            let mut seen = 0;
            for e in &bed.sk().errqueue.q {
                prop_assert_eq!(e.ee.ee_info, seen);
                seen = e.ee.ee_data + 1;
            }
            prop_assert_eq!(seen, ids);
        }
    }
}

#[test]
fn an_ack_of_the_same_round_lets_no_bytes_out_that_wait_for_more() {
    let left_waiting = |flags: i32| {
        let mut bed = Bed::established();
        bed.sk().snd_cwnd = 10;
        bed.with(|stack, _, id| stack.join_batch(id));
        bed.send(flags, 100).unwrap();
        bed.with(|stack, io, _| stack.rx_batch_end(io));
        bed.unsent()
    };
    assert_eq!(left_waiting(so::MSG_MORE), [100]);
    assert_eq!(left_waiting(0), []);
}
