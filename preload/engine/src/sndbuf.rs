//! The send buffer: how it grows with the congestion window, and who is told of free space (Linux `tcp_sndbuf_expand`,
//! `tcp_check_space`; TM-26, RD-35).

use crate::chrono::{ChronoKind, tcp_chrono_stop};
use crate::push::sk_stream_write_space;
use crate::skb::{SK_BUFF, SKB_TRUESIZE, Skb};
use crate::sock::{TCP_INIT_CWND, TcpSock};
use crate::stack::Cx;
use crate::zerocopy;

/// What the head of a segment takes beside its payload, before rounding to a power of two: Linux's `MAX_TCP_HEADER` and
/// the aligned `struct skb_shared_info`, of which an empty buffer consists.
const PER_SEGMENT: u32 = SKB_TRUESIZE - SK_BUFF;

/// Grows `sndbuf` to what the congestion window can use, up to `tcp_wmem[2]`.
pub fn tcp_sndbuf_expand(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    // Worst case: each segment has a buffer of its own.
    let per_mss =
        (u32::from(sk.mss_clamp).max(sk.mss_cache) + PER_SEGMENT).next_power_of_two() + SK_BUFF;
    let nr_segs = TCP_INIT_CWND
        .max(sk.snd_cwnd)
        .max(sk.reordering.saturating_add(1));
    let sndmem = (sk.ca.sndbuf_factor() * per_mss).saturating_mul(nr_segs);
    if sk.sndbuf < sndmem {
        sk.sndbuf = sndmem.min(cx.sh.sysctl.tcp_wmem[2]).max(sk.sndbuf);
    }
}

fn tcp_should_expand_sndbuf(sk: &TcpSock) -> bool {
    // A full congestion window needs no more.
    !sk.opts.buf_lock_snd && sk.packets_in_flight() < sk.snd_cwnd
}

/// Something left the queues: grow the buffer, wake the writer that hit its limit.
#[inline]
pub fn tcp_check_space(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.nospace {
        tcp_new_space(sk, cx);
    }
}

fn tcp_new_space(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if tcp_should_expand_sndbuf(sk) {
        tcp_sndbuf_expand(sk, cx);
        sk.snd_cwnd_stamp = cx.now;
    }
    sk_stream_write_space(sk, cx);
    if !sk.nospace {
        tcp_chrono_stop(sk, cx, ChronoKind::SndbufLimited);
    }
}

/// A buffer that was sent leaves the queues for good.
pub(crate) fn tcp_wmem_free_skb(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    skb: alloc::boxed::Box<Skb>,
) {
    sk.wmem_queued -= skb.truesize;
    zerocopy::skb_acked(sk, cx, &skb);
    cx.sh.pool.free(skb);
}

/// Empties both send queues: the connection is over or starts anew (Linux `tcp_write_queue_purge`, which leaves what was
/// counted of lost and repeated segments to be told).
pub fn tcp_write_queue_purge(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    // First, as in Linux: where there is something to purge the connection counts as busy from then on.
    tcp_chrono_stop(sk, cx, ChronoKind::Busy);
    zerocopy::purge_unsent(sk, cx);
    while let Some(skb) = sk.rtx_queue.pop_front() {
        tcp_wmem_free_skb(sk, cx, skb);
    }
    sk.packets_out = 0;
    sk.retransmit_hint = None;
    sk.backoff = 0;
}
