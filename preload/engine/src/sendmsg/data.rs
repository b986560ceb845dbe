//! The loop over the data: `rows.toml` send-path section F.

use alloc::boxed::Box;

use sidewire_uapi::socket::{MSG_EOR, MSG_MORE, MSG_OOB};

use super::{Exit, Phase, Progress, SendCall, Zc, wait};
use crate::chrono::{ChronoKind, tcp_chrono_start, tcp_chrono_stop};
use crate::error::Error;
use crate::memory::{Fault, Frag, IovIter, PAGE_SIZE, page_offset};
use crate::mib::Counter;
use crate::output;
use crate::page_frag;
use crate::push::{
    forced_push, sk_stream_memory_free, tcp_mark_push, tcp_push, tcp_skb_can_collapse_to,
};
use crate::skb::{MAX_SKB_FRAGS, MessageOptions, SKB_TRUESIZE, Sacked, Skb, tcphdr};
use crate::sock::{TcpSock, nagle};
use crate::stack::{Cx, WaitReason};
use crate::trace::TraceStep;
use crate::zerocopy;

/// Why a chunk did not enter the tail buffer.
enum Refused {
    /// Linux's `new_segment`: the buffer takes nothing more.
    NewSegment,
    /// Linux's `wait_for_space`.
    NoMemory,
    /// The program's memory cannot be read (E7): nothing of the chunk was taken.
    Fault,
}

/// B13: queues data until there is none left, no room, or an error.
pub(super) fn queue_data(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
    iter: &mut dyn IovIter,
) -> Result<(), Exit> {
    while iter.remaining() > 0 {
        let Some(room) = tail_room(sk, &call.progress) else {
            new_segment(sk, cx, call)?;
            continue;
        };
        let copy = room.min(u32::try_from(iter.remaining()).unwrap_or(u32::MAX));
        let before = sk.write_queue.back().map_or(0, |skb| skb.len);
        let chunk = match call.progress.zc {
            Zc::Copy => copy_chunk(sk, cx, iter, copy),
            Zc::Pin | Zc::Dmabuf(_) | Zc::Splice => pin_chunk(sk, cx, call, iter, copy),
        };
        match chunk {
            Ok(copy) => {
                cx.trace(|| TraceStep::Chunk {
                    zc: call.progress.zc,
                    bytes: copy,
                    chunks: 1,
                    before,
                });
                appended(sk, cx, call, iter, copy)?;
            }
            Err(Refused::NewSegment) => {
                cx.trace(|| TraceStep::NoRoom);
                tcp_mark_push(sk); // F9, F15
                new_segment(sk, cx, call)?;
            }
            Err(Refused::NoMemory) => wait_for_space(sk, cx, call)?, // H9
            Err(Refused::Fault) => {
                cx.trace(|| TraceStep::Fault);
                return Err(Exit::DoError(Error::Fault));
            }
        }
    }
    Ok(())
}

/// Buffers that a call makes before it looks at the backlog (Linux `process_backlog`).
const BUFFERS_BEFORE_BACKLOG: u8 = 16;

/// F1, F2: bytes that the unsent tail still takes; `None` when a new buffer is needed.
fn tail_room(sk: &TcpSock, p: &Progress) -> Option<u32> {
    let skb = sk.write_queue.back()?;
    let room = p.size_goal.checked_sub(skb.len).filter(|room| *room > 0)?;
    (tcp_skb_can_collapse_to(skb) && skb.message == p.message).then_some(room)
}

/// F3, F4: memory is tested here and only here; then the buffer is made. Where it had to wait but need not sleep, no buffer
/// was made: the caller looks at the tail again.
///
/// F5: the backlog is looked at every 16 buffers, and here when the frames of this call begin to pile up, too.
fn new_segment(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, call: &mut SendCall<'_>) -> Result<(), Exit> {
    if !sk_stream_memory_free(sk, &cx.sh.sysctl, false) {
        return wait_for_space(sk, cx, call);
    }
    let many = call.progress.process_backlog >= BUFFERS_BEFORE_BACKLOG;
    if many || call.progress.copied > 0 && cx.net.crowded() {
        call.progress.process_backlog = 0;
        return Err(flush_backlog(cx, call));
    }
    cx.trace(|| TraceStep::NewSegment {
        wmem_queued: sk.wmem_queued,
        sndbuf: sk.sndbuf,
        notsent: sk.notsent_bytes(),
    });
    tcp_skb_entail(sk, cx, call.progress.message);
    call.progress.process_backlog += 1;
    Ok(())
}

/// The frames of this call leave, and acks come in, before it goes on.
fn flush_backlog(cx: &mut Cx<'_, '_>, call: &mut SendCall<'_>) -> Exit {
    cx.trace(|| TraceStep::FlushBacklog);
    call.progress.phase = Phase::Backlog;
    Exit::WaitUntil(WaitReason::Backlog, cx.now)
}

/// F6, F7: a buffer without data at the end of the write queue.
fn tcp_skb_entail(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, message: MessageOptions) {
    let mut skb = cx.sh.pool.alloc();
    skb.message = message;
    skb.seq = sk.write_seq;
    skb.end_seq = sk.write_seq;
    skb.tcp_flags = tcphdr::ACK;
    skb.truesize = SKB_TRUESIZE;
    if sk.repair.on {
        skb.sacked |= Sacked::REPAIRED;
    }
    sk.wmem_queued += SKB_TRUESIZE;
    if sk.write_queue.is_empty() {
        tcp_chrono_start(sk, cx, ChronoKind::Busy);
    }
    sk.write_queue.push_back(skb);
    sk.nonagle &= !nagle::PUSH;
    output::tcp_slow_start_after_idle_check(sk, cx);
}

/// Takes back a tail without data (E1, H1; Linux `tcp_remove_empty_skb`).
pub(super) fn tcp_remove_empty_skb(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let empty = |skb: &mut Box<Skb>| skb.seq == skb.end_seq;
    if let Some(skb) = sk.write_queue.pop_back_if(empty) {
        sk.wmem_queued -= skb.truesize;
        cx.sh.pool.free(skb);
        if sk.write_queue.is_empty() {
            tcp_chrono_stop(sk, cx, ChronoKind::Busy);
        }
    }
}

/// H1: pushes what there is, then waits for memory; `Ok` means that there is some already.
fn wait_for_space(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
) -> Result<(), Exit> {
    cx.trace(|| TraceStep::WaitForMemory {
        wmem_queued: sk.wmem_queued,
        sndbuf: sk.sndbuf,
        notsent: sk.notsent_bytes(),
    });
    sk.nospace = true;
    tcp_remove_empty_skb(sk, cx);
    let p = &call.progress;
    if p.copied > 0 {
        let (mss_now, size_goal) = (p.mss_now, p.size_goal);
        let flags = call.flags & !MSG_MORE;
        tcp_push(sk, cx, flags, mss_now, nagle::PUSH, size_goal);
    }
    if sk_stream_memory_free(sk, &cx.sh.sysctl, false) {
        wait::vm_wait(cx, call); // H9
    }
    wait::sk_stream_wait_memory(sk, cx, call)?;
    super::restart(sk, cx, call);
    Ok(())
}

/// F8, F9: copies a chunk into the page fragment and makes it part of the tail.
fn copy_chunk(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    iter: &mut dyn IovIter,
    copy: u32,
) -> Result<u32, Refused> {
    let Some(pfrag) = page_frag::refill(&mut cx.sh.page_frag, cx.mem) else {
        return Err(Refused::NoMemory);
    };
    let Some(skb) = sk.write_queue.back_mut() else {
        return Err(Refused::NewSegment);
    };
    let merge = skb.frags.last().is_some_and(|last| pfrag.continues(last));
    if !merge && skb.nr_frags() >= MAX_SKB_FRAGS {
        return Err(Refused::NewSegment);
    }
    let copy = copy.min(pfrag.left());
    zerocopy::tcp_downgrade_zcopy_pure(skb); // F16
    iter.copy_in(&pfrag.mem, pfrag.off, copy)
        .map_err(|_| Refused::Fault)?;
    match skb.frags.last_mut() {
        Some(last) if merge => last.len += copy,
        _ => skb.frags.push(pfrag.frag(copy)),
    }
    pfrag.off += copy;
    skb.len += copy;
    skb.truesize += copy;
    sk.wmem_queued += copy;
    cx.sh.mib.add(Counter::BytesCopiedOut, u64::from(copy));
    Ok(copy)
}

/// F15: references a chunk of the program's, a file's or a dma-buf's pages.
fn pin_chunk(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &SendCall<'_>,
    iter: &mut dyn IovIter,
    copy: u32,
) -> Result<u32, Refused> {
    let p = &call.progress;
    let Some(skb) = sk.write_queue.back_mut() else {
        return Err(Refused::NewSegment);
    };
    let (truesize, taken) = if let Some(uarg) = p.uarg {
        // The first bytes of a buffer decide whether all of it is accounted by pages (F7).
        if skb.len == 0 {
            skb.pure_zerocopy = true;
        }
        if skb.ubuf.is_some_and(|orig| orig != uarg) {
            return Err(Refused::NewSegment); // ZC-14
        }
        let binding = match p.zc {
            Zc::Dmabuf(id) => cx.sh.dmabufs.get(id),
            _ => None,
        };
        let (pages, taken) = pin_into(skb, iter, copy, |iter, max| match binding {
            Some(mem) => iter.pin_offset(mem, max),
            None => iter.pin(max),
        });
        if let Ok(copy) = taken {
            skb.ubuf = Some(uarg);
            zerocopy::attach(&mut sk.zerocopy, uarg, sk.write_seq.wrapping_add(copy));
        }
        (pages * PAGE_SIZE, taken)
    } else {
        zerocopy::tcp_downgrade_zcopy_pure(skb);
        let (_, taken) = pin_into(skb, iter, copy, |iter, max| iter.pin(max));
        (*taken.as_ref().unwrap_or(&0), taken)
    };
    skb.truesize += truesize;
    sk.wmem_queued += truesize;
    taken
}

/// Adds up to `copy` referenced bytes to `skb`; answers whole pages touched and bytes. A fault undoes all of it (E7), but the
/// pages before it are told: Linux's `___pskb_trim` leaves them charged. Each page is a fragment, but what goes on in the last
/// one's page (Linux 6.16 `zerocopy_fill_skb_from_iter`).
fn pin_into(
    skb: &mut Skb,
    iter: &mut dyn IovIter,
    copy: u32,
    pin: impl Fn(&mut dyn IovIter, u32) -> Result<Frag, Fault>,
) -> (u32, Result<u32, Refused>) {
    let (frags, last) = (skb.frags.len(), skb.frags.last().cloned());
    let (mut done, mut pages) = (0, 0);
    let mut room = MAX_SKB_FRAGS.saturating_sub(skb.nr_frags()) as u32;
    while done < copy {
        let most = room.max(1) * PAGE_SIZE;
        let Ok(mut frag) = pin(iter, most.min(copy - done)) else {
            skb.frags.truncate(frags);
            if let (Some(joined), Some(last)) = (skb.frags.last_mut(), last) {
                *joined = last;
            }
            iter.revert(done as usize);
            return (pages, Err(Refused::Fault));
        };
        let goes_on = skb.frags.last().is_some_and(|last| last.goes_on_in(&frag));
        let end = (room + u32::from(goes_on)) * PAGE_SIZE;
        let fits = end.saturating_sub(page_offset(frag.ptr())).min(frag.len);
        iter.revert((frag.len - fits) as usize);
        if fits == 0 {
            break;
        }
        frag.len = fits;
        let touched = frag.pages() as u32;
        pages += touched;
        done += fits;
        room -= touched - u32::from(goes_on);
        if !skb.frags.last_mut().is_some_and(|last| last.join(&frag)) {
            skb.frags.push(frag);
        }
    }
    if done == 0 {
        return (0, Err(Refused::NewSegment));
    }
    skb.len += done;
    (pages, Ok(done))
}

/// F10..F14: a chunk is in the tail; pushes when the buffer is full. In Linux what is pushed is with the device before the next
/// chunk is taken.
fn appended(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
    iter: &dyn IovIter,
    copy: u32,
) -> Result<(), Exit> {
    let Some(skb) = sk.write_queue.back_mut() else {
        return Ok(());
    };
    let p = &mut call.progress;
    if p.copied == 0 {
        skb.tcp_flags &= !tcphdr::PSH; // F10
    }
    sk.write_seq = sk.write_seq.wrapping_add(copy); // F11
    skb.end_seq = skb.end_seq.wrapping_add(copy);
    skb.gso_segs = 0;
    p.copied += copy as usize;
    if iter.remaining() == 0 {
        skb.eor |= call.flags & MSG_EOR != 0; // F12
        return Ok(());
    }
    if skb.len < p.size_goal || call.flags & MSG_OOB != 0 || sk.repair.on {
        return Ok(()); // F13
    }
    if forced_push(sk) {
        cx.trace(|| TraceStep::PushFull { forced: true });
        tcp_mark_push(sk);
        output::tcp_push_pending(sk, cx, p.mss_now, nagle::PUSH);
    } else if sk.write_queue.len() == 1 {
        cx.trace(|| TraceStep::PushFull { forced: false });
        output::tcp_push_one(sk, cx, p.mss_now);
    } else {
        return Ok(());
    }
    if sk.xmit_pause.is_some() {
        return Err(flush_backlog(cx, call));
    }
    Ok(())
}
