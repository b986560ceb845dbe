//! A receive buffer that is full is repacked before anything is dropped (Linux `tcp_collapse`): bytes that pin more memory
//! than they are worth are copied together, a page's worth at a time.

use alloc::collections::VecDeque;

use crate::memory::{Frag, MemRef, PAGE_FRAG_SIZE, PAGE_SIZE};
use crate::rcvbuf::win;
use crate::repair::RcvqBuffer;
use crate::seq::{after, before};
use crate::skb::{RxSkb, SHARED_INFO, alloc_skb};
use crate::sock::TcpSock;
use crate::stack::Cx;

/// Bytes that one of the new buffers holds (Linux `SKB_MAX_ORDER(0, 0)`).
const PACKED: u32 = PAGE_SIZE - SHARED_INFO;
/// Bytes that are copied at a time.
const PIECE: u32 = 512;

/// Both queues.
pub(crate) fn collapse_queues(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let mut packer = Packer::default();
    collapse_ofo_queue(sk, cx, &mut packer);
    let queue = core::mem::take(&mut sk.receive_queue);
    let before = truesize(&queue);
    let mut out = VecDeque::with_capacity(queue.len());
    let room = packer.tcp_collapse(sk, cx, queue, sk.copied_seq, &mut out);
    if let (Some(room), Some(last)) = (room, out.back()) {
        sk.repair.tail = RcvqBuffer::packed(last.end_seq, room);
    }
    sk.rmem_alloc = sk.rmem_alloc + truesize(&out) - before;
    sk.receive_queue = out;
}

/// Run by run; few bytes that stand alone are left, until there are too many of them (Linux `tcp_collapse_ofo_queue`).
fn collapse_ofo_queue(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, packer: &mut Packer) {
    let mut queue = core::mem::take(&mut sk.ofo_queue);
    let before = truesize(&queue);
    let mut out = VecDeque::with_capacity(queue.len());
    let mut sum_tiny = 0;
    while let Some(head) = queue.pop_front() {
        let (start, mut end) = (head.seq, head.end_seq);
        let mut run = VecDeque::from([head]);
        while let Some(skb) = queue.pop_front_if(|skb| !after(skb.seq, end)) {
            end = skb.end_seq;
            run.push_back(skb);
        }
        if run.len() > 1 || end.wrapping_sub(start) >= PACKED {
            packer.tcp_collapse(sk, cx, run, start, &mut out);
            continue;
        }
        sum_tiny += truesize(&run);
        out.append(&mut run);
        if sum_tiny > sk.rcvbuf >> 3 {
            out.append(&mut queue);
        }
    }
    sk.rmem_alloc = sk.rmem_alloc + truesize(&out) - before;
    sk.ofo_queue = out;
}

fn truesize(queue: &VecDeque<RxSkb>) -> u32 {
    queue.iter().map(|skb| skb.truesize).sum()
}

/// Where the first buffer begins that pins more than it is worth, or has bytes before `start`. One whose charge is 0 goes on
/// with the next: they are one of Linux's.
fn first_bloated(sk: &TcpSock, run: &VecDeque<RxSkb>, mut start: u32) -> Option<usize> {
    let (mut from, mut len) = (0, 0);
    for (n, skb) in run.iter().enumerate() {
        len += skb.frag.len;
        if skb.truesize == 0 && n + 1 < run.len() {
            continue;
        }
        let first = run.get(from)?;
        if !skb.fin && (win(sk, skb.truesize) > len || before(first.seq, start)) {
            return Some(from);
        }
        (from, len, start) = (n + 1, 0, skb.end_seq);
    }
    None
}

/// The page that is being filled, and the bytes used of it.
#[derive(Default)]
struct Packer(Option<(MemRef, u32)>);

impl Packer {
    /// Puts a run without holes, from `start` on, behind `out`, repacked from the first buffer on for which that is worth its
    /// while. The room in the last new buffer, when the run ends with it.
    fn tcp_collapse(
        &mut self,
        sk: &TcpSock,
        cx: &mut Cx<'_, '_>,
        mut run: VecDeque<RxSkb>,
        start: u32,
        out: &mut VecDeque<RxSkb>,
    ) -> Option<u32> {
        let Some(from) = first_bloated(sk, &run, start) else {
            out.append(&mut run);
            return None;
        };
        out.extend(run.drain(..from));
        if let Some(first) = run.front_mut() {
            let read = start.wrapping_sub(first.seq);
            if before(first.seq, start) && read < first.frag.len {
                skip(first, read);
            }
        }
        let mut room = None;
        // What has FIN stays as it is, and so does what cannot be copied.
        let data = run.iter().take_while(|skb| !skb.fin);
        let mut left: u32 = data.map(|skb| skb.frag.len).sum();
        while left > 0 {
            let copy = left.min(PACKED);
            let Some(packed) = self.pack(cx, &mut run, copy) else {
                room = None;
                break;
            };
            left -= copy;
            let buffer = alloc_skb(copy);
            room = Some(buffer.room - copy);
            out.push_back(RxSkb {
                truesize: buffer.truesize,
                ..packed
            });
        }
        let ends = run.is_empty();
        out.append(&mut run);
        room.filter(|_| ends)
    }

    /// Copies the first so many bytes of a run, and takes them off it. `None` when there is no memory, or they cannot be read.
    fn pack(&mut self, cx: &mut Cx<'_, '_>, run: &mut VecDeque<RxSkb>, len: u32) -> Option<RxSkb> {
        if (self.0.as_ref()).is_none_or(|(_, used)| used + len > PAGE_FRAG_SIZE) {
            self.0 = Some((cx.mem.alloc_page_frag()?, 0));
        }
        let (mem, used) = self.0.as_mut()?;
        let mut done = 0;
        for skb in run.iter() {
            let part = skb.frag.len.min(len - done);
            copy(cx, &skb.frag, part, mem, *used + done)?;
            done += part;
            if done == len {
                break;
            }
        }
        let seq = run.front()?.seq;
        let frag = Frag {
            mem: mem.clone(),
            off: *used,
            len,
        };
        *used += len;
        let mut tstamp_ns = 0;
        let mut left = len;
        while let Some(first) = run.front_mut().filter(|_| left > 0) {
            tstamp_ns = first.tstamp_ns;
            if first.frag.len > left {
                skip(first, left);
                break;
            }
            left -= first.frag.len;
            run.pop_front();
        }
        Some(RxSkb {
            seq,
            end_seq: seq.wrapping_add(len),
            frag,
            truesize: 0,
            tstamp_ns,
            fin: false,
        })
    }
}

/// Takes the first bytes off a buffer.
fn skip(skb: &mut RxSkb, bytes: u32) {
    skb.seq = skb.seq.wrapping_add(bytes);
    skb.frag.off += bytes;
    skb.frag.len -= bytes;
}

/// Copies the first `len` bytes of a fragment; `None` when they cannot be read.
fn copy(cx: &mut Cx<'_, '_>, from: &Frag, len: u32, to: &MemRef, at: u32) -> Option<()> {
    let mut bytes = [0; PIECE as usize];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(PIECE);
        let piece = Frag {
            mem: from.mem.clone(),
            off: from.off + done,
            len: n,
        };
        let chunk = bytes.get_mut(..n as usize)?;
        cx.mem.read(&piece, chunk).ok()?;
        cx.mem.write(to, at + done, chunk);
        done += n;
    }
    Some(())
}

#[cfg(test)]
mod tests;
