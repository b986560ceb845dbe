//! How much of a buffer goes out in one super-frame, when, and cutting buffers for it (Linux `tcp_tso_autosize`,
//! `tcp_mss_split_point`, `tcp_tso_should_defer`, `tcp_fragment`; G6..G8, SP-1..SP-9).

use crate::cong;
use crate::mss::{sk_gso_max_segs, sk_gso_max_size};
use crate::rtt::tcp_min_rtt;
use crate::seq::{after, before};
use crate::skb::{SKB_TRUESIZE, Sacked, Skb, TxFlags, tcphdr};
use crate::sock::{CaState, TcpSock, nagle};
use crate::stack::Cx;
use crate::time::{NSEC_PER_MSEC, NSEC_PER_USEC};
use crate::zerocopy;

/// `sk_pacing_shift`: a super-frame holds about 1/1024 s at the pacing rate.
pub(crate) const PACING_SHIFT: u32 = 10;
/// Linux's `2 * SKB_TRUESIZE(GSO_LEGACY_MAX_SIZE)`: what fragments of retransmitted data may cost beside `sndbuf`.
const FRAGMENT_SLACK: u32 = 2 * (65_536 + SKB_TRUESIZE);

/// Which queue a buffer stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Unsent.
    Write,
    /// Sent.
    Rtx,
}

/// Segments of the largest super-frame to build now: about one millisecond's worth, more when the peer is near
/// (Linux `tcp_tso_segs`).
pub(crate) fn tcp_tso_segs(sk: &TcpSock, cx: &Cx<'_, '_>, mss_now: u32) -> u32 {
    let max = sk_gso_max_size(sk);
    let mut bytes = sk.pacing_rate >> PACING_SHIFT;
    let r = tcp_min_rtt(sk) >> cx.sh.sysctl.tcp_tso_rtt_log.min(31);
    if r < u32::BITS {
        bytes = bytes.saturating_add(u64::from(max >> r));
    }
    let bytes = bytes.min(u64::from(max)) as u32;
    (bytes / mss_now)
        .max(cong::min_tso_segs(sk, &cx.sh.sysctl))
        .min(sk_gso_max_segs(sk))
}

/// Computes a buffer's segments for `mss` and returns their number.
#[inline]
pub(crate) fn tcp_set_skb_tso_segs(skb: &mut Skb, mss: u32) -> u32 {
    if skb.len <= mss {
        skb.gso_size = 0;
        skb.gso_segs = 1;
    } else {
        skb.gso_size = mss;
        skb.gso_segs = skb.len.div_ceil(mss);
    }
    skb.gso_segs
}

/// Segments that the congestion window lets go now: at most half of it in one super-frame, so that two are in flight.
#[inline]
pub(crate) fn tcp_cwnd_test(sk: &TcpSock) -> u32 {
    let room = sk.snd_cwnd.saturating_sub(sk.packets_in_flight());
    room.min((sk.snd_cwnd >> 1).max(1))
}

/// Does the first segment of the send head fit into the peer's window?
#[inline]
pub(crate) fn tcp_snd_wnd_test(sk: &TcpSock, mss_now: u32) -> bool {
    let Some(skb) = sk.write_queue.front() else {
        return false;
    };
    let end = if skb.len > mss_now {
        skb.seq.wrapping_add(mss_now)
    } else {
        skb.end_seq
    };
    !after(end, sk.wnd_end())
}

/// A small segment is in flight (Minshall's modification of Nagle's rule).
#[inline]
fn tcp_minshall_check(sk: &TcpSock) -> bool {
    after(sk.snd_sml, sk.snd_una) && !after(sk.snd_sml, sk.snd_nxt)
}

/// Remembers that the buffer just sent ended in a small segment.
#[inline]
pub(crate) fn tcp_minshall_update(sk: &mut TcpSock, mss_now: u32) {
    if let Some(skb) = sk.rtx_queue.back()
        && skb.len < skb.pcount() * mss_now
    {
        sk.snd_sml = skb.end_seq;
    }
}

/// True when a partial segment has to wait (SP-3, SP-7).
#[inline]
fn tcp_nagle_check(partial: bool, sk: &TcpSock, nonagle: u8) -> bool {
    partial
        && (nonagle & nagle::CORK != 0
            || (nonagle == 0 && sk.packets_out > 0 && tcp_minshall_check(sk)))
}

/// May the send head, a single segment, go?
#[inline]
pub(crate) fn tcp_nagle_test(sk: &TcpSock, mss_now: u32, nonagle: u8) -> bool {
    let Some(skb) = sk.write_queue.front() else {
        return false;
    };
    nonagle & nagle::PUSH != 0
        || sk.urg_mode
        || skb.tcp_flags & tcphdr::FIN != 0
        || !tcp_nagle_check(skb.len < mss_now, sk, nonagle)
}

/// Bytes of the send head that go out as one super-frame: whole segments, and the partial last one when Nagle's rule
/// lets it go.
pub(crate) fn tcp_mss_split_point(sk: &TcpSock, mss_now: u32, max_segs: u32, nonagle: u8) -> u32 {
    let Some(skb) = sk.write_queue.front() else {
        return mss_now;
    };
    let window = sk.wnd_end().wrapping_sub(skb.seq);
    let max_len = mss_now * max_segs;
    if max_len <= window && sk.write_queue.len() > 1 {
        return max_len;
    }
    let needed = skb.len.min(window);
    if max_len <= needed {
        return max_len;
    }
    let partial = needed % mss_now;
    if tcp_nagle_check(partial != 0, sk, nonagle) {
        return needed - partial;
    }
    needed
}

/// Should the send head wait for the next ack, which will let it grow (RFC 9293 §3.8.6.2.1 on the sender's side)?
pub(crate) fn tcp_tso_should_defer(
    sk: &TcpSock,
    cx: &Cx<'_, '_>,
    cwnd_limited: &mut bool,
    rwnd_limited: &mut bool,
    max_segs: u32,
) -> bool {
    if sk.ca_state >= CaState::Recovery {
        return false;
    }
    // Waiting is for streams: the last write was less than a millisecond ago.
    if cx.now.since(sk.tcp_wstamp_ns) > NSEC_PER_MSEC {
        return false;
    }
    let Some(skb) = sk.write_queue.front() else {
        return false;
    };
    let mss = sk.mss_cache;
    let send_win = sk.wnd_end().wrapping_sub(skb.seq);
    let cong_win = sk
        .snd_cwnd
        .saturating_sub(sk.packets_in_flight())
        .saturating_mul(mss);
    let limit = send_win.min(cong_win);
    if limit >= max_segs.saturating_mul(mss) {
        return false;
    }
    if sk.write_queue.len() > 1 && limit >= skb.len {
        return false;
    }
    match cx.sh.sysctl.tcp_tso_win_divisor {
        0 => {
            if limit > 3 * mss {
                return false;
            }
        }
        divisor => {
            let chunk = sk.snd_wnd.min(sk.snd_cwnd.saturating_mul(mss)) / divisor;
            if limit >= chunk {
                return false;
            }
        }
    }
    // An ack that comes late is not worth the wait.
    let Some(head) = sk.rtx_queue.front() else {
        return false;
    };
    let srtt_ns = u64::from(sk.srtt_us) * (NSEC_PER_USEC >> 3);
    let until_ack = (head.skb_mstamp + srtt_ns).since(cx.now);
    if until_ack > (srtt_ns >> 1).min(NSEC_PER_MSEC) {
        return false;
    }
    if cong_win < send_win {
        if cong_win <= skb.len {
            *cwnd_limited = true;
            return true;
        }
    } else if send_win <= skb.len {
        *rwnd_limited = true;
        return true;
    }
    skb.tcp_flags & tcphdr::FIN == 0 && !skb.eor
}

/// May `next` be appended to `to`, as far as the program's wishes go (Linux `tcp_skb_can_collapse`)?
pub(crate) fn tcp_skb_can_collapse(to: &Skb, next: &Skb) -> bool {
    !to.eor && to.pure_zerocopy == next.pure_zerocopy && to.message == next.message
}

/// Lets the send head grow towards `goal` bytes at the cost of the buffer behind it, so that super-frames are full
/// (Linux `tcp_grow_skb`).
pub(crate) fn tcp_grow_skb(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, goal: u32) {
    let (Some(head), Some(next)) = (sk.write_queue.front(), sk.write_queue.get(1)) else {
        return;
    };
    let missing = goal.saturating_sub(head.len).min(next.len);
    if missing == 0 || !tcp_skb_can_collapse(head, next) {
        return;
    }
    tcp_shift_payload(sk, cx, Queue::Write, 0, missing);
}

/// May the first `n` payload bytes of `from` be moved behind those of `to`? Neither may be a zerocopy send's, and the fragments
/// must fit: whole or cut ones that need a slot count (Linux `skb_shift`).
pub(crate) fn skb_can_shift(to: &Skb, from: &Skb, n: u32) -> bool {
    if to.ubuf.is_some() || from.ubuf.is_some() {
        return false;
    }
    let mut left = n;
    let mut slots = 0;
    for (i, f) in from.frags.iter().enumerate() {
        if left == 0 {
            break;
        }
        if i > 0 || !to.frags.last().is_some_and(|l| l.abuts(f)) {
            slots += 1;
        }
        left -= left.min(f.len);
    }
    slots <= to.frags.remaining_capacity()
}

/// Moves the first `n` payload bytes of the buffer behind `index` over to it; an emptied one goes. Nothing happens when
/// they cannot be moved. Returns true when bytes moved.
pub(crate) fn tcp_shift_payload(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    queue: Queue,
    index: usize,
    n: u32,
) -> bool {
    let q = match queue {
        Queue::Write => &mut sk.write_queue,
        Queue::Rtx => &mut sk.rtx_queue,
    };
    let (Some(to), Some(from)) = (q.get(index), q.get(index + 1)) else {
        return false;
    };
    if !skb_can_shift(to, from, n) {
        return false;
    }
    let Some(mut next) = q.remove(index + 1) else {
        return false;
    };
    let to = &mut q[index];
    let mut left = n;
    for f in &next.frags {
        if left == 0 {
            break;
        }
        let mut part = f.clone();
        part.len = part.len.min(left);
        left -= part.len;
        to.push_frag(part);
    }
    to.end_seq = to.end_seq.wrapping_add(n);
    let truesize = next.truesize.saturating_sub(SKB_TRUESIZE).min(n);
    to.truesize += truesize;
    next.truesize -= truesize;
    next.seq = next.seq.wrapping_add(n);
    next.trim_head(n);
    if next.len > 0 {
        q.insert(index + 1, next);
        return true;
    }
    to.end_seq = next.end_seq;
    to.eor = next.eor;
    to.tcp_flags |= next.tcp_flags;
    to.sacked |= next.sacked & Sacked::EVER_RETRANS;
    tcp_skb_collapse_tstamp(to, &next);
    sk.wmem_queued -= next.truesize;
    cx.sh.pool.free(next);
    true
}

/// The later timestamp request counts for both (Linux `tcp_skb_collapse_tstamp`).
pub(crate) fn tcp_skb_collapse_tstamp(to: &mut Skb, next: &Skb) {
    if !next.tx_flags.is_empty() {
        to.tx_flags |= next.tx_flags;
        to.tskey = next.tskey;
    }
}

/// Cuts a buffer after `len` payload bytes; PSH, FIN, EOR and what belongs to the last byte go with the second part.
/// False when the send buffer does not bear another piece, or nothing would be left of one (Linux `tcp_fragment`).
pub(crate) fn tcp_fragment(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    queue: Queue,
    index: usize,
    len: u32,
    mss_now: u32,
) -> bool {
    // A peer that SACKs every other byte must not cost us unbounded memory.
    if queue == Queue::Rtx
        && sk.wmem_queued >> 1 > sk.sndbuf.saturating_add(FRAGMENT_SLACK)
        && index != 0
        && index + 1 != sk.rtx_queue.len()
    {
        return false;
    }
    let q = match queue {
        Queue::Write => &mut sk.write_queue,
        Queue::Rtx => &mut sk.rtx_queue,
    };
    let Some(skb) = q.get_mut(index).filter(|s| len > 0 && len < s.len) else {
        return false;
    };
    let old_factor = skb.pcount();
    let mut tail = cx.sh.pool.alloc();
    tail.seq = skb.seq.wrapping_add(len);
    tail.end_seq = skb.end_seq;
    skb.end_seq = tail.seq;
    tail.tcp_flags = skb.tcp_flags & !tcphdr::SYN;
    skb.tcp_flags &= !(tcphdr::FIN | tcphdr::PSH);
    tail.sacked = skb.sacked;
    tail.eor = core::mem::take(&mut skb.eor);
    tail.skb_mstamp = skb.skb_mstamp;
    tail.tx = skb.tx;
    tail.pure_zerocopy = skb.pure_zerocopy;
    tail.ubuf = skb.ubuf;
    if let Some(uarg) = tail.ubuf {
        zerocopy::attach(&mut sk.zerocopy, uarg, tail.end_seq);
    }
    tail.message = skb.message;
    tail.cut = skb.cut;
    tail.ticket = skb.ticket;
    skb.split_frags(len, &mut tail);
    let moved = tail.len.min(skb.truesize.saturating_sub(SKB_TRUESIZE));
    skb.truesize -= moved;
    tail.truesize = SKB_TRUESIZE + moved;
    if !skb.tx_flags.is_empty() && !before(skb.tskey, tail.seq) {
        tail.tx_flags = core::mem::replace(&mut skb.tx_flags, TxFlags::empty());
        tail.tskey = skb.tskey;
    }
    let sacked = skb.sacked;
    let factor = tcp_set_skb_tso_segs(skb, mss_now) + tcp_set_skb_tso_segs(&mut tail, mss_now);
    sk.wmem_queued += SKB_TRUESIZE;
    q.insert(index + 1, tail);
    if queue == Queue::Rtx {
        tcp_adjust_pcount(sk, sacked, old_factor as i32 - factor as i32);
    }
    true
}

/// A sent buffer's segments became fewer by `decr` (Linux `tcp_adjust_pcount`).
pub(crate) fn tcp_adjust_pcount(sk: &mut TcpSock, sacked: Sacked, decr: i32) {
    if decr == 0 {
        return;
    }
    sk.packets_out = sk.packets_out.wrapping_sub(decr as u32);
    if sacked.contains(Sacked::SACKED_ACKED) {
        sk.sacked_out = sk.sacked_out.wrapping_sub(decr as u32);
    }
    if sacked.contains(Sacked::SACKED_RETRANS) {
        sk.retrans_out = sk.retrans_out.wrapping_sub(decr as u32);
    }
    if sacked.contains(Sacked::LOST) {
        sk.lost_out = sk.lost_out.wrapping_sub(decr as u32);
    }
    // Without SACK `sacked_out` counts duplicate acks, which no buffer owns.
    if !sk.sack_ok && decr > 0 {
        sk.sacked_out -= sk.sacked_out.min(decr as u32);
    }
}

#[cfg(test)]
mod tests;
