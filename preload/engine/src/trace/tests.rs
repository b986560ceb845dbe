use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use sidewire_uapi::TcpState;
use sidewire_uapi::socket as so;

use super::*;
use crate::sendmsg::SendCall;
use crate::stack::Step;
use crate::testbed::{Bed, Iter, NOBODY};
use crate::time::NSEC_PER_MSEC;

fn traced<'a>(flags: i32, nonblock: bool) -> SendCall<'a> {
    let mut call = SendCall::new(flags, &[], None, NOBODY, nonblock);
    call.trace = Some(Box::new(Trace::new()));
    call
}

fn steps(call: &SendCall<'_>) -> Vec<TraceStep> {
    call.trace.as_ref().unwrap().steps().to_vec()
}

fn send(bed: &mut Bed, flags: i32, len: usize) -> Vec<TraceStep> {
    let mut iter = Iter::new(bed, vec![(vec![7; len], true)]);
    let mut call = traced(flags, true);
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(len)));
    steps(&call)
}

const COOKIE: TraceStep = TraceStep::SockcmCookie {
    tsflags: 0,
    control: 0,
    messages: ArrayVec::new_const(),
    more: 0,
    err: None,
};

#[test]
fn a_plain_send_in_the_order_of_the_function() {
    let mut bed = Bed::established();
    bed.sk().snd_cwnd = 10;
    let sndbuf = bed.sk().sndbuf;
    assert_eq!(
        send(&mut bed, 0, 6),
        [
            COOKIE,
            TraceStep::Zerocopy(Zerocopy::None),
            TraceStep::Connected(TcpState::Established),
            TraceStep::SendMss {
                mss_now: 1460,
                size_goal: 32120,
            },
            TraceStep::NewSegment {
                wmem_queued: 0,
                sndbuf,
                notsent: 0,
            },
            TraceStep::Chunk {
                zc: Zc::Copy,
                bytes: 6,
                chunks: 1,
                before: 0,
            },
            TraceStep::Push {
                psh: true,
                forced: false,
                urgent: false,
                autocork: false,
                nonagle: 0,
            },
            TraceStep::WriteXmit {
                segments: 1,
                bytes: 6,
                notsent: 0,
                held: Held::Nothing,
                snd_cwnd: 10,
                in_flight: 1,
                snd_wnd: 65_535,
            },
            TraceStep::Returned {
                copied: 6,
                copied_syn: 0,
            },
        ]
    );
    assert!(bed.stack.sh.trace.is_none());
}

fn held(steps: &[TraceStep]) -> Vec<Held> {
    let held = steps.iter().filter_map(|s| match s {
        TraceStep::WriteXmit { held, .. } => Some(*held),
        _ => None,
    });
    held.collect()
}

#[test]
fn why_bytes_stay() {
    let mut bed = Bed::established();
    assert_eq!(held(&send(&mut bed, 0, 1)), [Held::Cwnd]);
    let mut bed = Bed::established();
    bed.sk().snd_cwnd = 10;
    assert_eq!(held(&send(&mut bed, so::MSG_MORE, 1)), [Held::Cork]);
    assert_eq!(held(&send(&mut bed, 0, 1)), [Held::Nothing]);
    assert_eq!(held(&send(&mut bed, 0, 1)), [Held::Nagle]);
    bed.sk().snd_wnd = 0;
    assert_eq!(held(&send(&mut bed, 0, 1)), [Held::Rwnd]);
}

#[test]
fn a_sleep_and_how_long_it_took() {
    let mut bed = Bed::established();
    bed.sk().sndbuf = 0;
    let mut iter = Iter::new(&bed, vec![(vec![7; 6], true)]);
    let mut call = traced(0, false);
    let step = bed.step(&mut call, &mut iter);
    assert!(matches!(step, Step::Wait { .. }));
    assert_eq!(
        steps(&call).last(),
        Some(&TraceStep::WaitForMemory {
            wmem_queued: 0,
            sndbuf: 0,
            notsent: 0,
        })
    );
    bed.now = bed.now + 3 * NSEC_PER_MSEC;
    bed.sk().sndbuf = 10_000;
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(6)));
    assert!(steps(&call).contains(&TraceStep::Waited {
        reason: WaitReason::Memory,
        fastopen: false,
        ns: 3 * NSEC_PER_MSEC,
        signal: false,
    }));
}

#[test]
fn a_pause_comes_before_the_buffer_that_it_puts_off() {
    let mut bed = Bed::established();
    bed.wire.crowded = true;
    let mut iter = Iter::new(&bed, vec![(vec![7; 50_000], true)]);
    let mut call = traced(0, false);
    let step = bed.step(&mut call, &mut iter);
    assert!(matches!(step, Step::Wait { .. }));
    bed.wire.crowded = false;
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(50_000)));
    let steps = steps(&call);
    let order = steps.iter().filter_map(|s| match s {
        TraceStep::NewSegment { .. } => Some("new_segment"),
        TraceStep::FlushBacklog => Some("sk_flush_backlog"),
        _ => None,
    });
    assert_eq!(
        order.collect::<Vec<_>>(),
        ["new_segment", "sk_flush_backlog", "new_segment"]
    );
}

#[test]
fn zerocopy_of_no_bytes_is_not_called_unasked() {
    let mut bed = Bed::established();
    assert!(send(&mut bed, 0, 0).contains(&TraceStep::Zerocopy(Zerocopy::None)));
    let asked = send(&mut bed, so::MSG_ZEROCOPY, 0);
    assert!(asked.contains(&TraceStep::Zerocopy(Zerocopy::NoBytes)));
}

#[test]
fn failures_say_with_what() {
    let mut bed = Bed::closed();
    let mut iter = Iter::new(&bed, vec![(vec![7; 6], true)]);
    let mut call = traced(so::MSG_ZEROCOPY, true);
    bed.step(&mut call, &mut iter);
    assert_eq!(
        steps(&call),
        [
            COOKIE,
            TraceStep::Zerocopy(Zerocopy::NotEnabled),
            TraceStep::NotConnected {
                state: TcpState::Close,
                err: Error::Pipe,
            },
            TraceStep::Failed {
                err: Error::Pipe,
                sigpipe: true,
            },
        ]
    );
}

#[test]
fn what_is_in_the_way_is_named() {
    let refused = |bed: &mut Bed| {
        let mut iter = Iter::new(bed, vec![(vec![7; 6], true)]);
        let mut call = traced(0, true);
        bed.step(&mut call, &mut iter);
        let steps = steps(&call);
        steps[steps.len() - 2].clone()
    };
    let mut bed = Bed::established();
    bed.sk().sk_err = Some(Error::HostUnreach);
    let err = Some(Error::HostUnreach);
    assert_eq!(refused(&mut bed), TraceStep::Unwritable { err });
    bed.sk().shutdown |= crate::sock::shutdown::SEND;
    assert_eq!(refused(&mut bed), TraceStep::Unwritable { err: None });
}

#[test]
fn urgent_data_says_so() {
    let mut bed = Bed::established();
    let steps = send(&mut bed, so::MSG_OOB, 3);
    let push = |s: &&TraceStep| matches!(s, TraceStep::Push { urgent: true, .. });
    assert_eq!(steps.iter().filter(push).count(), 1);
}

#[test]
fn the_record_has_a_bound() {
    let mut trace = Trace::new();
    for _ in 0..TRACE_MAX + 3 {
        trace.push(TraceStep::NoRoom);
    }
    assert_eq!((trace.steps().len(), trace.lost()), (TRACE_MAX, 3));
}

#[test]
fn f5_the_backlog_is_looked_at_every_16_buffers() {
    let mut bed = Bed::established();
    bed.sk().sndbuf = 10_000_000;
    let mut iter = Iter::new(&bed, vec![(vec![7; 1_000_000], true)]);
    let mut call = traced(0, false);
    assert_eq!(bed.step(&mut call, &mut iter), Step::Ready(Ok(1_000_000)));
    let steps = steps(&call);
    let buffers = |s: &&TraceStep| matches!(s, TraceStep::NewSegment { .. });
    let stretches = steps.split(|s| *s == TraceStep::FlushBacklog);
    let made: Vec<usize> = stretches
        .map(|s| s.iter().filter(buffers).count())
        .collect();
    assert!(made.len() > 1, "{made:?}");
    assert!(made[..made.len() - 1].iter().all(|n| *n == 16), "{made:?}");
}
