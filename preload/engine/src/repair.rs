//! TCP_REPAIR (`rows.toml` repair): a connection's state read out and put in, without a packet.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use sidewire_uapi::TcpState;
use sidewire_uapi::tcp as t;

use crate::error::Error;
use crate::header::tsval;
use crate::memory::{Frag, IovIter, PAGE_FRAG_SIZE, PAGE_SIZE};
use crate::mib::Counter;
use crate::page_frag;
use crate::rcvbuf::tcp_try_rmem_schedule;
use crate::seq::after;
use crate::skb::{MAX_SKB_FRAGS, RxSkb, alloc_skb};
use crate::sock::TcpSock;
use crate::stack::{Caps, Cx};
use crate::timer::tcp_send_window_probe;

/// SO_REUSEADDR as it reads in repair mode (RP-3; Linux SK_FORCE_REUSE).
const SK_FORCE_REUSE: u8 = 2;
/// Option kinds of TCP_REPAIR_OPTIONS.
const TCPOPT_MSS: u32 = 2;
const TCPOPT_WINDOW: u32 = 3;
const TCPOPT_SACK_PERM: u32 = 4;
const TCPOPT_TIMESTAMP: u32 = 8;
/// Bytes of `struct tcp_repair_opt` and `struct tcp_repair_window`.
const REPAIR_OPT_LEN: usize = 8;
const REPAIR_WINDOW_LEN: usize = 20;

/// Which queue the repair calls work on: TCP_REPAIR_QUEUE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum RepairQueue {
    /// TCP_NO_QUEUE.
    #[default]
    None = 0,
    /// TCP_RECV_QUEUE.
    Recv = 1,
    /// TCP_SEND_QUEUE.
    Send = 2,
}

/// A socket's repair mode.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RepairState {
    /// TCP_REPAIR is on.
    pub on: bool,
    /// TCP_REPAIR_QUEUE; remembered when repair is switched off (RP-11).
    pub queue: RepairQueue,
    /// The last buffer of the receive queue, where a send has put it there.
    #[serde(skip)]
    pub(crate) tail: RcvqBuffer,
}

/// What a buffer that was sent into the receive queue takes beside its own bytes (Linux `skb_try_coalesce`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RcvqBuffer {
    end_seq: u32,
    /// Bytes that its head still takes.
    room: u32,
    /// Its page fragments.
    nr_frags: usize,
}

impl RcvqBuffer {
    /// One that was made to hold what others did.
    pub(crate) fn packed(end_seq: u32, room: u32) -> Self {
        Self {
            end_seq,
            room,
            nr_frags: 0,
        }
    }
}

impl RepairState {
    /// Data goes to the send queue as if it had been sent (RP-26).
    #[inline]
    #[must_use]
    pub fn sending(self) -> bool {
        self.on && self.queue == RepairQueue::Send
    }
}

fn words<const N: usize>(val: &[u8]) -> Option<[u32; N]> {
    let mut out = [0; N];
    for (w, bytes) in out.iter_mut().zip(val.chunks_exact(4)) {
        *w = u32::from_ne_bytes(bytes.try_into().ok()?);
    }
    (val.len() >= 4 * N).then_some(out)
}

/// Sets one of the repair options.
pub(crate) fn set(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    name: i32,
    val: &[u8],
    caps: Caps,
) -> Result<(), Error> {
    let [v] = words(val).ok_or(Error::Inval)?;
    match name {
        t::TCP_REPAIR => set_repair(sk, cx, v as i32, caps),
        t::TCP_REPAIR_QUEUE if !sk.repair.on => Err(Error::Perm),
        t::TCP_REPAIR_QUEUE => {
            sk.repair.queue = match v {
                0 => RepairQueue::None,
                1 => RepairQueue::Recv,
                2 => RepairQueue::Send,
                _ => return Err(Error::Inval),
            };
            Ok(())
        }
        t::TCP_QUEUE_SEQ => set_queue_seq(sk, v),
        t::TCP_REPAIR_OPTIONS if !sk.repair.on => Err(Error::Inval),
        t::TCP_REPAIR_OPTIONS => {
            if sk.state != TcpState::Established || sk.info.bytes_sent != 0 {
                return Err(Error::Perm);
            }
            tcp_repair_options_est(sk, val)
        }
        t::TCP_REPAIR_WINDOW => tcp_repair_set_window(sk, val),
        t::TCP_TIMESTAMP if !sk.repair.on => Err(Error::Perm),
        _ => {
            // The lowest bit chooses the unit, and counts all the same.
            sk.tcp_usec_ts = v & 1 != 0;
            let present = tsval(sk, cx.now);
            sk.tsoffset = sk.tsoffset.wrapping_add(v.wrapping_sub(present));
            Ok(())
        }
    }
}

/// RP-1..RP-4, RP-33, RP-34.
fn set_repair(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, v: i32, caps: Caps) -> Result<(), Error> {
    if !caps.net_admin || sk.state == TcpState::Listen {
        return Err(Error::Perm);
    }
    match v {
        t::repair::ON => {
            sk.repair = RepairState {
                on: true,
                queue: RepairQueue::None,
                tail: RcvqBuffer::default(),
            };
            sk.opts.reuseaddr = SK_FORCE_REUSE;
        }
        t::repair::OFF | t::repair::OFF_NO_WP => {
            sk.repair.on = false;
            sk.opts.reuseaddr = 0;
            if v == t::repair::OFF {
                tcp_send_window_probe(sk, cx);
            }
        }
        _ => return Err(Error::Inval),
    }
    Ok(())
}

/// RP-8..RP-10.
fn set_queue_seq(sk: &mut TcpSock, seq: u32) -> Result<(), Error> {
    if sk.state != TcpState::Close {
        return Err(Error::Perm);
    }
    match sk.repair.queue {
        RepairQueue::None => Err(Error::Inval),
        RepairQueue::Send if !sk.rtx_queue.is_empty() => Err(Error::Perm),
        RepairQueue::Send => {
            // Alone: SIOCOUTQ shows how far it is from the others, which the connect sets.
            sk.write_seq = seq;
            Ok(())
        }
        RepairQueue::Recv if sk.rcv_nxt != sk.copied_seq => Err(Error::Perm),
        RepairQueue::Recv => {
            sk.rcv_nxt = seq;
            sk.copied_seq = seq;
            Ok(())
        }
    }
}

/// RP-16..RP-20 (Linux `tcp_repair_options_est`).
fn tcp_repair_options_est(sk: &mut TcpSock, val: &[u8]) -> Result<(), Error> {
    for opt in val.chunks_exact(REPAIR_OPT_LEN) {
        let [code, v] = words(opt).ok_or(Error::Inval)?;
        match code {
            TCPOPT_MSS => sk.mss_clamp = v as u16,
            TCPOPT_WINDOW => {
                let (snd, rcv) = (v & 0xffff, v >> 16);
                let max = u32::from(t::TCP_MAX_WSCALE);
                if snd > max || rcv > max {
                    return Err(Error::FBig);
                }
                sk.snd_wscale = snd as u8;
                sk.rcv_wscale = rcv as u8;
                sk.wscale_ok = true;
            }
            TCPOPT_SACK_PERM | TCPOPT_TIMESTAMP if v != 0 => return Err(Error::Inval),
            TCPOPT_SACK_PERM => sk.sack_ok = true,
            TCPOPT_TIMESTAMP => sk.tstamp_ok = true,
            _ => {}
        }
    }
    Ok(())
}

/// RP-21, RP-22.
fn tcp_repair_set_window(sk: &mut TcpSock, val: &[u8]) -> Result<(), Error> {
    if !sk.repair.on {
        return Err(Error::Perm);
    }
    if val.len() != REPAIR_WINDOW_LEN {
        return Err(Error::Inval);
    }
    let [snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup] = words(val).ok_or(Error::Inval)?;
    if max_window < snd_wnd
        || after(snd_wl1, sk.rcv_nxt.wrapping_add(rcv_wnd))
        || after(rcv_wup, sk.rcv_nxt)
    {
        return Err(Error::Inval);
    }
    sk.snd_wl1 = snd_wl1;
    sk.snd_wnd = snd_wnd;
    sk.max_window = max_window;
    sk.rcv_wnd = rcv_wnd;
    sk.rcv_wup = rcv_wup;
    Ok(())
}

/// TCP_REPAIR_WINDOW as it reads; the length is looked at first (RP-21).
pub(crate) fn tcp_repair_get_window(
    sk: &TcpSock,
    len: usize,
) -> Result<[u8; REPAIR_WINDOW_LEN], Error> {
    if len != REPAIR_WINDOW_LEN {
        return Err(Error::Inval);
    }
    if !sk.repair.on {
        return Err(Error::Perm);
    }
    let words = [
        sk.snd_wl1,
        sk.snd_wnd,
        sk.max_window,
        sk.rcv_wnd,
        sk.rcv_wup,
    ];
    let mut out = [0; REPAIR_WINDOW_LEN];
    for (place, w) in out.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&w.to_ne_bytes());
    }
    Ok(out)
}

/// The repair options that read as an `int`.
pub(crate) fn get(sk: &TcpSock, name: i32) -> Result<i32, Error> {
    match (name, sk.repair.queue) {
        (t::TCP_REPAIR, _) => Ok(sk.repair.on.into()),
        (t::TCP_REPAIR_QUEUE, queue) if sk.repair.on => Ok(queue as i32),
        (t::TCP_QUEUE_SEQ, RepairQueue::Send) => Ok(sk.write_seq as i32),
        (t::TCP_QUEUE_SEQ, RepairQueue::Recv) => Ok(sk.rcv_nxt as i32),
        _ => Err(Error::Inval),
    }
}

/// Bytes that one send into the receive queue takes (RP-25): what one of Linux's buffers holds.
fn rcvq_size(size: usize) -> usize {
    let page = PAGE_SIZE as usize;
    if size <= page {
        return size;
    }
    (size / page).min(MAX_SKB_FRAGS) * page + size % page
}

/// Page fragments of so many bytes of whole pages, of 32 KiB at most (Linux `alloc_skb_with_frags`).
fn page_frags(bytes: usize) -> usize {
    const LARGEST: usize = PAGE_FRAG_SIZE as usize / PAGE_SIZE as usize;
    let pages = bytes / PAGE_SIZE as usize;
    pages / LARGEST + (pages % LARGEST).count_ones() as usize
}

/// What so many bytes more cost the receive queue.
struct RcvqCharge {
    truesize: u32,
    /// They go into the last buffer.
    joined: bool,
    tail: RcvqBuffer,
}

/// Few bytes fit into the head of the last buffer, whole pages go to it; others have a buffer of their own (Linux
/// `tcp_queue_rcv`).
fn charge_rcvq(sk: &TcpSock, size: usize) -> RcvqCharge {
    let pages = if size > PAGE_SIZE as usize {
        size - size % PAGE_SIZE as usize
    } else {
        0
    };
    let head = (size - pages) as u32;
    let frags = page_frags(pages);
    let end_seq = sk.rcv_nxt.wrapping_add(size as u32);
    let last = sk.repair.tail;
    let joins = |truesize, room, nr_frags| RcvqCharge {
        truesize,
        joined: true,
        tail: RcvqBuffer {
            end_seq,
            room,
            nr_frags,
        },
    };
    if (sk.receive_queue.back()).is_some_and(|skb| skb.end_seq == last.end_seq) {
        if size as u32 <= last.room {
            return joins(0, last.room - size as u32, last.nr_frags);
        }
        if head == 0 && last.nr_frags + frags <= MAX_SKB_FRAGS {
            return joins(pages as u32, 0, last.nr_frags + frags);
        }
    }
    let skb = alloc_skb(head);
    RcvqCharge {
        truesize: skb.truesize + pages as u32,
        joined: false,
        tail: RcvqBuffer {
            end_seq,
            room: if frags == 0 { skb.room - head } else { 0 },
            nr_frags: frags,
        },
    }
}

/// Puts bytes into the receive queue as if the peer had sent them (RP-25; Linux `tcp_send_rcvq`).
pub(crate) fn tcp_send_rcvq(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    iter: &mut dyn IovIter,
) -> Result<usize, Error> {
    let size = rcvq_size(iter.remaining());
    if size == 0 {
        return Ok(0);
    }
    let seq = sk.rcv_nxt;
    if !tcp_try_rmem_schedule(sk, cx, seq) {
        cx.sh.mib.inc(Counter::TCPRcvQDrop);
        return Err(Error::NoBufs);
    }
    let frags = copy_in(cx, iter, size)?;
    let charge = charge_rcvq(sk, size);
    sk.rmem_alloc += charge.truesize;
    sk.info.bytes_received += size as u64;
    let mut truesize = charge.truesize;
    if charge.joined
        && let Some(last) = sk.receive_queue.back_mut()
    {
        truesize += core::mem::take(&mut last.truesize);
    }
    for frag in frags {
        let seq = sk.rcv_nxt;
        sk.rcv_nxt = seq.wrapping_add(frag.len);
        sk.receive_queue.push_back(RxSkb {
            seq,
            end_seq: sk.rcv_nxt,
            frag,
            truesize: 0,
            tstamp_ns: 0,
            fin: false,
        });
    }
    // The buffer goes, and its charge, with its last byte.
    if let Some(last) = sk.receive_queue.back_mut() {
        last.truesize += truesize;
    }
    sk.repair.tail = charge.tail;
    Ok(size)
}

/// Copies `size` bytes of the program's into page fragments: all of them, or none.
fn copy_in(cx: &mut Cx<'_, '_>, iter: &mut dyn IovIter, size: usize) -> Result<Vec<Frag>, Error> {
    let mut frags = Vec::new();
    let mut done = 0;
    while done < size {
        let pfrag = page_frag::refill(&mut cx.sh.page_frag, cx.mem).ok_or(Error::NoMem)?;
        let len = pfrag
            .left()
            .min(u32::try_from(size - done).unwrap_or(u32::MAX));
        if iter.copy_in(&pfrag.mem, pfrag.off, len).is_err() {
            iter.revert(done);
            return Err(Error::Fault);
        }
        frags.push(pfrag.frag(len));
        pfrag.off += len;
        done += len as usize;
    }
    Ok(frags)
}

/// Copies both send queues to the reader, as far as its buffers go; answers their whole length (RP-31; Linux
/// `tcp_peek_sndq`).
///
/// # Errors
/// `Fault` when the reader's memory cannot be written.
pub fn tcp_peek_sndq(sk: &TcpSock, iter: &mut dyn IovIter) -> Result<usize, Error> {
    let mut total = 0;
    for skb in sk.rtx_queue.iter().chain(&sk.write_queue) {
        total += skb.len as usize;
        for frag in &skb.frags {
            let room = u32::try_from(iter.remaining()).unwrap_or(u32::MAX);
            let mut frag = frag.clone();
            let piece = frag.split_to(frag.len.min(room));
            if piece.len > 0 {
                iter.copy_out(&piece).map_err(|_| Error::Fault)?;
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
