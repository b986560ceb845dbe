//! The receive buffer: how much window its bytes are worth, how it grows, and what happens when it is full
//! (TM-25, TM-30).

use crate::collapse::collapse_queues;
use crate::memory::PAGE_SIZE;
use crate::mib::Counter;
use crate::rtt::tcp_rtt_tsopt_us;
use crate::segment::Segment;
use crate::seq::before;
use crate::skb::{SK_BUFF, tcphdr};
use crate::sock::{TcpSock, icsk_ack};
use crate::sockopt::SOCK_MIN_RCVBUF;
use crate::stack::{Cx, Shared};
use crate::sysctl::Sysctl;
use crate::time::Instant;
use crate::window::tcp_win_from_space;

/// What a large received segment costs beside its payload.
pub const RX_SKB_OVERHEAD: u32 = 832;
/// Headers and the aligned `struct skb_shared_info` that share a buffer with a small payload.
const HEAD_ROOM: u32 = 374;
/// Smallest and largest buffer that drivers put a single segment into.
const HEAD_MIN: u32 = 512;
const HEAD_MAX: u32 = 2048;
/// `scaling_ratio` counts in 256ths.
const TCP_RMEM_TO_WIN_SCALE: u32 = 8;
/// Smallest MSS that an estimate may have.
const TCP_MIN_MSS: u32 = 88;
/// TCP header without options.
const TCP_HEADER: u32 = 20;

/// Window that `space` bytes of buffer are worth.
#[inline]
pub(crate) fn win(sk: &TcpSock, space: u32) -> u32 {
    tcp_win_from_space(sk, i64::from(space)).max(0) as u32
}

/// Buffer that a window of `win` bytes needs (Linux `tcp_space_from_win`).
#[must_use]
pub fn tcp_space_from_win(sk: &TcpSock, win: u32) -> u32 {
    let space = (u64::from(win) << TCP_RMEM_TO_WIN_SCALE) / u64::from(sk.scaling_ratio.max(1));
    space.min(u64::from(i32::MAX as u32)) as u32
}

/// Memory that a segment with `len` bytes of payload is charged: what it costs on Linux, where a small one has a buffer of
/// a power of two to itself. Windows follow from it (TM-30: 1400 bytes weigh 2304).
#[inline]
pub(crate) const fn rx_truesize(len: u32) -> u32 {
    let head = len.saturating_add(HEAD_ROOM);
    if head > HEAD_MAX {
        return len + RX_SKB_OVERHEAD;
    }
    let bucket = head.next_power_of_two();
    (if bucket < HEAD_MIN { HEAD_MIN } else { bucket }) + SK_BUFF
}

/// What Linux has put aside for the socket and not used: memory is accounted in pages. The error queue is on no such account.
#[inline]
pub(crate) fn sk_forward_alloc(sk: &TcpSock) -> u32 {
    let used = sk.wmem_queued + (sk.rmem_alloc - sk.errqueue.rmem());
    used.next_multiple_of(PAGE_SIZE) - used
}

/// Estimates the peer's segment size, and with it what share of the buffer may be announced
/// (Linux `tcp_measure_rcv_mss`).
pub(crate) fn tcp_measure_rcv_mss(sk: &mut TcpSock, seg: &Segment) {
    let last_seg_size = core::mem::take(&mut sk.ack.last_seg_size);
    let len = if seg.gso_size != 0 {
        seg.gso_size
    } else {
        seg.len
    };
    if len >= sk.ack.rcv_mss {
        if len != sk.ack.rcv_mss {
            let ratio =
                (u64::from(seg.len) << TCP_RMEM_TO_WIN_SCALE) / u64::from(rx_truesize(seg.len));
            let ratio = ratio.clamp(1, u64::from(u8::MAX)) as u8;
            if ratio != sk.scaling_ratio {
                sk.scaling_ratio = ratio;
                tcp_set_window_clamp(sk, win(sk, sk.rcvbuf));
                sk.tuning.space = sk.tuning.space.min(sk.window_clamp);
            }
        }
        sk.ack.rcv_mss = len.min(u32::from(sk.advmss));
        if seg.flags & tcphdr::PSH != 0 {
            sk.ack.pending |= icsk_ack::PUSHED;
        }
        return;
    }
    // A shorter segment: only two alike in a row, or one that is full on a link with a small MTU, count.
    let header = TCP_HEADER + u32::from(seg.opt_len);
    let on_wire = len + header;
    let remnant = tcphdr::FIN | tcphdr::URG | tcphdr::SYN | tcphdr::PSH;
    if on_wire >= crate::init_sock::TCP_MSS_DEFAULT + TCP_HEADER
        || (on_wire >= TCP_MIN_MSS + TCP_HEADER && seg.flags & remnant == 0)
    {
        let size = on_wire.saturating_sub(sk.tcp_header_len);
        sk.ack.last_seg_size = size;
        if size == last_seg_size {
            sk.ack.rcv_mss = size;
            return;
        }
    }
    if sk.ack.pending & icsk_ack::PUSHED != 0 {
        sk.ack.pending |= icsk_ack::PUSHED2;
    }
    sk.ack.pending |= icsk_ack::PUSHED;
}

/// Bounds the window: the program's word, which holds until the estimate of the peer's segments changes (SO-51; Linux
/// `tcp_set_window_clamp`).
pub(crate) fn tcp_set_window_clamp(sk: &mut TcpSock, val: u32) {
    let old = sk.window_clamp;
    let new = val.max(SOCK_MIN_RCVBUF / 2);
    if new == old {
        return;
    }
    sk.window_clamp = new;
    sk.rcv_ssthresh = if new < old {
        sk.rcv_ssthresh.min(new)
    } else {
        sk.rcv_ssthresh.max(sk.rcv_wnd.min(new))
    };
}

/// Sizes the buffers when the connection opens (Linux `tcp_init_buffer_space`, its receive half).
pub(crate) fn tcp_init_rcv_space(sk: &mut TcpSock, sysctl: &Sysctl, now: Instant) {
    sk.tuning.space_time = now;
    sk.tuning.space_seq = sk.copied_seq;
    let advmss = u32::from(sk.advmss);
    let maxwin = win(sk, sk.rcvbuf);
    let app_win = u32::from(sysctl.tcp_app_win);
    if sk.window_clamp >= maxwin {
        sk.window_clamp = maxwin;
        // A part of the buffer may be the program's.
        if app_win != 0 && maxwin > 4 * advmss {
            let part = maxwin.checked_shr(app_win).unwrap_or(0);
            sk.window_clamp = (maxwin - part).max(4 * advmss);
        }
    }
    // One segment stays in reserve.
    if app_win != 0 && sk.window_clamp > 2 * advmss && sk.window_clamp + advmss > maxwin {
        sk.window_clamp = (2 * advmss).max(maxwin.saturating_sub(advmss));
    }
    sk.rcv_ssthresh = sk.rcv_ssthresh.min(sk.window_clamp);
    sk.tuning.space = sk
        .rcv_ssthresh
        .min(sk.rcv_wnd)
        .min(crate::sock::TCP_INIT_CWND * advmss);
}

/// Opens `rcv_ssthresh` as segments prove to be worth their memory (Linux `tcp_grow_window`).
pub(crate) fn tcp_grow_window(sk: &mut TcpSock, sh: &Shared, len: u32, truesize: u32) {
    let space = win(sk, sk.rcvbuf.saturating_sub(sk.rmem_alloc));
    let Some(room) = sk
        .window_clamp
        .min(space)
        .checked_sub(sk.rcv_ssthresh)
        .filter(|room| *room > 0)
    else {
        return;
    };
    let incr = if win(sk, truesize) <= len {
        2 * u32::from(sk.advmss)
    } else {
        grow_for_small(sk, sh, len, truesize)
    };
    if incr != 0 {
        sk.rcv_ssthresh += room.min(incr.max(2 * len));
        sk.ack.quick |= 1;
    }
}

/// The increment for segments with much overhead: allowed while the window is small against the largest buffer
/// (Linux `__tcp_grow_window`).
fn grow_for_small(sk: &TcpSock, sh: &Shared, len: u32, truesize: u32) -> u32 {
    let mut truesize = win(sk, truesize) >> 1;
    let mut window = win(sk, sh.sysctl.tcp_rmem[2]) >> 1;
    while sk.rcv_ssthresh <= window {
        if truesize <= len {
            return 2 * sk.ack.rcv_mss;
        }
        truesize >>= 1;
        window >>= 1;
    }
    0
}

/// Takes an RTT sample of the receiver's (Linux `tcp_rcv_rtt_update`); the estimate is kept times 8.
fn tcp_rcv_rtt_update(sk: &mut TcpSock, sample_us: u32, win_dep: bool) {
    let old = sk.tuning.rtt_us;
    let m = sample_us.saturating_mul(8);
    sk.tuning.rtt_us = if old == 0 || m < old {
        m
    } else {
        // Samples from the window are too long as a rule, and so are those with data waiting for the program.
        if win_dep || sk.rcv_nxt != sk.copied_seq {
            return;
        }
        old - (old >> 3) + sample_us
    };
}

/// RTT from the time that a whole window takes (Linux `tcp_rcv_rtt_measure`).
pub(crate) fn tcp_rcv_rtt_measure(sk: &mut TcpSock, now: Instant) {
    if sk.tuning.rtt_time != Instant::ZERO {
        if before(sk.rcv_nxt, sk.tuning.rtt_seq) {
            return;
        }
        let delta = now.us_since(sk.tuning.rtt_time).max(1);
        tcp_rcv_rtt_update(sk, delta.min(u64::from(u32::MAX >> 3)) as u32, true);
    }
    sk.tuning.rtt_seq = sk.rcv_nxt.wrapping_add(sk.rcv_wnd);
    sk.tuning.rtt_time = now;
}

/// RTT from echoed timestamps (Linux `tcp_rcv_rtt_measure_ts`).
pub(crate) fn tcp_rcv_rtt_measure_ts(sk: &mut TcpSock, seg: &Segment, now: Instant) {
    if !sk.saw_tstamp || sk.rcv_tsecr == sk.tuning.last_tsecr {
        return;
    }
    sk.tuning.last_tsecr = sk.rcv_tsecr;
    if seg.end_seq.wrapping_sub(seg.seq) >= sk.ack.rcv_mss
        && let Some(us) = tcp_rtt_tsopt_us(sk, now, 0).filter(|us| (1..1 << 31).contains(us))
    {
        tcp_rcv_rtt_update(sk, us, false);
    }
}

/// Takes `space` bytes as what the program reads in a round trip, and grows the buffer for a sender that may double its rate,
/// holes included. While the rate still grows (`space` is more than before) the buffer runs ahead of it by as much again, in
/// twice the proportion (Linux `tcp_rcvbuf_grow`, as mended in 6.18 and measured: 14480, then 49152 read make 636172).
pub(crate) fn tcp_rcvbuf_grow(sk: &mut TcpSock, sh: &Shared, space: u32) {
    let before = core::mem::replace(&mut sk.tuning.space, space);
    if !sh.sysctl.tcp_moderate_rcvbuf || sk.opts.buf_lock_rcv {
        return;
    }
    let (space, before) = (u64::from(space), u64::from(before.max(1)));
    let grow = (2 * space).saturating_mul(space.saturating_sub(before)) / before;
    let mut rcvwin = grow.saturating_mul(2).saturating_add(2 * space);
    if let Some(last) = sk.ofo_queue.back() {
        rcvwin = rcvwin.saturating_add(last.end_seq.wrapping_sub(sk.rcv_nxt).into());
    }
    let rcvwin = u32::try_from(rcvwin).unwrap_or(u32::MAX);
    let rcvbuf = tcp_space_from_win(sk, rcvwin).min(sh.sysctl.tcp_rmem[2]);
    if rcvbuf > sk.rcvbuf {
        sk.rcvbuf = rcvbuf;
        sk.window_clamp = win(sk, rcvbuf);
    }
}

/// Once an RTT, sizes the buffer by what the program read (Linux `tcp_rcv_space_adjust`).
pub(crate) fn tcp_rcv_space_adjust(sk: &mut TcpSock, sh: &Shared, now: Instant) {
    let time = now.us_since(sk.tuning.space_time);
    if sk.tuning.rtt_us == 0 || time < u64::from(sk.tuning.rtt_us >> 3) {
        return;
    }
    let copied = sk.copied_seq.wrapping_sub(sk.tuning.space_seq);
    let inq = sk.rcv_nxt.wrapping_sub(sk.copied_seq);
    let copied = i64::from(copied) - i64::from(inq);
    if copied > i64::from(sk.tuning.space) {
        tcp_rcvbuf_grow(sk, sh, copied as u32);
    }
    sk.tuning.space_seq = sk.copied_seq;
    sk.tuning.space_time = now;
}

/// True when one more segment may be charged (Linux `tcp_can_ingest`).
#[inline]
fn tcp_can_ingest(sk: &TcpSock) -> bool {
    sk.rmem_alloc <= sk.rcvbuf
}

/// Makes room for a segment (Linux `tcp_try_rmem_schedule`); false when there is none.
pub(crate) fn tcp_try_rmem_schedule(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg_seq: u32) -> bool {
    tcp_can_ingest(sk) || tcp_prune_queue(sk, cx, seg_seq)
}

/// The buffer is over its bound: stop growing, repack, and at worst drop what is out of order
/// (Linux `tcp_prune_queue`).
fn tcp_prune_queue(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg_seq: u32) -> bool {
    tcp_clamp_window(sk, cx.sh);
    if tcp_can_ingest(sk) {
        return true;
    }
    collapse_queues(sk, cx);
    if tcp_can_ingest(sk) {
        return true;
    }
    tcp_prune_ofo_queue(sk, cx.sh, seg_seq);
    if tcp_can_ingest(sk) {
        return true;
    }
    cx.sh.mib.inc(Counter::RcvPruned);
    false
}

/// Linux `tcp_clamp_window`.
fn tcp_clamp_window(sk: &mut TcpSock, sh: &Shared) {
    sk.ack.quick = 0;
    let rmem_max = sh.sysctl.tcp_rmem[2];
    if sk.rcvbuf < rmem_max && !sk.opts.buf_lock_rcv {
        sk.rcvbuf = sk.rmem_alloc.min(rmem_max).max(sk.rcvbuf);
    }
    if sk.rmem_alloc > sk.rcvbuf {
        sk.rcv_ssthresh = sk.window_clamp.min(2 * u32::from(sk.advmss));
    }
}

/// Drops from the far end of the out-of-order queue until the buffer holds its bound (Linux `tcp_prune_ofo_queue`).
fn tcp_prune_ofo_queue(sk: &mut TcpSock, sh: &mut Shared, seg_seq: u32) {
    let mut pruned = false;
    while sk.rmem_alloc > sk.rcvbuf {
        // What stands before the new segment is worth more than it.
        let Some(last) = sk.ofo_queue.pop_back_if(|last| !before(last.seq, seg_seq)) else {
            break;
        };
        sk.rmem_alloc -= last.truesize;
        pruned = true;
    }
    if pruned {
        sh.mib.inc(Counter::OfoPruned);
        crate::ofo::tcp_sack_reset(sk);
    }
}
