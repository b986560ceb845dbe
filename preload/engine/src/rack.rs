//! RACK: losses by time (RFC 8985, Linux `tcp_recovery.c`). It is always on; without SACK the NewReno rule stands in.

use crate::rate::tcp_skb_sent_after;
use crate::recovery::{tcp_cwnd_reduction, tcp_enter_recovery, tcp_mark_skb_lost};
use crate::retransmit::tcp_xmit_retransmit_queue;
use crate::rtt::tcp_min_rtt;
use crate::seq::before;
use crate::skb::{Sacked, Skb};
use crate::sock::{CaState, TcpSock};
use crate::stack::Cx;
use crate::time::Instant;
use crate::timer::{tcp_rearm_rto, tcp_reset_xmit_timer};
use crate::timers::IcskPending;
use crate::tso::{Queue, tcp_fragment};

/// `TCP_TIMEOUT_MIN_US`: slack of the reordering timer, microseconds.
const TCP_TIMEOUT_MIN_US: u64 = 2_000;
/// Recoveries for which a wider reordering window lasts.
pub(crate) const TCP_RACK_RECOVERY_THRESH: u8 = 16;
/// `tcp_recovery` bit: the reordering window stays as it is.
const TCP_RACK_STATIC_REO_WND: u8 = 2;
/// `tcp_recovery` bit: three duplicate acks alone do not close it.
const TCP_RACK_NO_DUPTHRESH: u8 = 4;

/// How much later than its successor a segment may arrive, microseconds (RFC 8985 §6.2 step 4, TM-14).
fn tcp_rack_reo_wnd(sk: &TcpSock, cx: &Cx<'_, '_>) -> u32 {
    if sk.info.reord_seen == 0 {
        if sk.ca_state >= CaState::Recovery {
            return 0;
        }
        if sk.sacked_out >= sk.reordering && cx.sh.sysctl.tcp_recovery & TCP_RACK_NO_DUPTHRESH == 0
        {
            return 0;
        }
    }
    (tcp_min_rtt(sk) >> 2)
        .saturating_mul(u32::from(sk.rack.reo_wnd_steps))
        .min(sk.srtt_us >> 3)
}

/// Microseconds until a buffer counts as lost; not positive when it does.
pub(crate) fn tcp_rack_skb_timeout(sk: &TcpSock, skb: &Skb, reo_wnd: u32, now: Instant) -> i64 {
    i64::from(sk.rack.rtt_us) + i64::from(reo_wnd) - now.us_since(skb.skb_mstamp) as i64
}

/// Marks lost what was sent long enough before the last delivered buffer; returns when the rest has to be looked at, in
/// microseconds, 0 for never (RFC 8985 §6.2 step 5).
///
/// Buffers that were never retransmitted stand in the queue in the order of their sending, so the first such one sent
/// after the delivered one ends the walk: whatever follows was sent, or sent again, later still.
fn tcp_rack_detect_loss(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> u32 {
    let reo_wnd = tcp_rack_reo_wnd(sk, cx);
    let mut timeout = 0;
    for i in 0..sk.rtx_queue.len() {
        let skb = &sk.rtx_queue[i];
        if skb.sacked.contains(Sacked::UNSORTED)
            || (skb.sacked.contains(Sacked::LOST) && !skb.sacked.contains(Sacked::SACKED_RETRANS))
        {
            continue;
        }
        let passed =
            tcp_skb_sent_after(sk.rack.mstamp, skb.skb_mstamp, sk.rack.end_seq, skb.end_seq);
        if !passed {
            if skb.ever_retransmitted() {
                continue;
            }
            break;
        }
        let left = tcp_rack_skb_timeout(sk, skb, reo_wnd, cx.now);
        if left <= 0 {
            tcp_mark_skb_lost(sk, cx, i);
            sk.rtx_queue[i].sacked |= Sacked::UNSORTED;
        } else {
            timeout = timeout.max(left as u32);
        }
    }
    timeout
}

/// Looks for losses after an ack that advanced RACK; true when the reordering timer was armed.
pub(crate) fn tcp_rack_mark_lost(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    if !core::mem::take(&mut sk.rack.advanced) {
        return false;
    }
    let timeout = tcp_rack_detect_loss(sk, cx);
    if timeout == 0 {
        return false;
    }
    let when = (u64::from(timeout) + TCP_TIMEOUT_MIN_US).min(u64::from(sk.rto_us));
    tcp_reset_xmit_timer(sk, cx, IcskPending::ReoTimeout, when, false);
    true
}

/// A buffer sent at `xmit_time` was delivered (RFC 8985 §6.2 steps 1 and 2).
pub(crate) fn tcp_rack_advance(
    sk: &mut TcpSock,
    now: Instant,
    sacked: Sacked,
    end_seq: u32,
    xmit_time: Instant,
) {
    let rtt_us = now.us_since(xmit_time).min(u64::from(u32::MAX)) as u32;
    // Sooner than any answer can come: the ack is for an earlier copy.
    if rtt_us < tcp_min_rtt(sk) && sacked.intersects(Sacked::SACKED_RETRANS | Sacked::EVER_RETRANS)
    {
        return;
    }
    sk.rack.advanced = true;
    sk.rack.rtt_us = rtt_us;
    if tcp_skb_sent_after(xmit_time, sk.rack.mstamp, end_seq, sk.rack.end_seq) {
        sk.rack.mstamp = xmit_time;
        sk.rack.end_seq = end_seq;
    }
}

/// The reordering window is over: what it kept from being lost is looked at again.
pub(crate) fn tcp_rack_reo_timeout(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let lost = sk.lost;
    let in_flight = sk.packets_in_flight();
    tcp_rack_detect_loss(sk, cx);
    if in_flight != sk.packets_in_flight() {
        if sk.ca_state != CaState::Recovery {
            tcp_enter_recovery(sk, cx, false);
            if !sk.ca.has_control() {
                let newly_lost = sk.lost.wrapping_sub(lost);
                tcp_cwnd_reduction(sk, 1, newly_lost, false);
            }
        }
        tcp_xmit_retransmit_queue(sk, cx);
    }
    if sk.icsk_pending != IcskPending::Retrans {
        tcp_rearm_rto(sk, cx);
    }
}

/// DSACKs widen the reordering window, once a round trip (RFC 8985 §6.2 step 4).
pub(crate) fn tcp_rack_update_reo_wnd(sk: &mut TcpSock, cx: &Cx<'_, '_>, prior_delivered: u32) {
    if cx.sh.sysctl.tcp_recovery & TCP_RACK_STATIC_REO_WND != 0 || prior_delivered == 0 {
        return;
    }
    if before(prior_delivered, sk.rack.last_delivered) {
        sk.rack.dsack_seen = false;
    }
    if core::mem::take(&mut sk.rack.dsack_seen) {
        sk.rack.reo_wnd_steps = sk.rack.reo_wnd_steps.saturating_add(1);
        sk.rack.last_delivered = sk.delivered;
        sk.rack.reo_wnd_persist = TCP_RACK_RECOVERY_THRESH;
    } else if sk.rack.reo_wnd_persist == 0 {
        sk.rack.reo_wnd_steps = 1;
    }
}

/// Without SACK: the head is lost after enough duplicate acks, and after each partial ack in recovery (RFC 6582).
pub(crate) fn tcp_newreno_mark_lost(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, snd_una_advanced: bool) {
    let by_dupacks = sk.ca_state < CaState::Recovery && sk.sacked_out >= sk.reordering;
    let by_partial_ack = sk.ca_state == CaState::Recovery && snd_una_advanced;
    if !by_dupacks && !by_partial_ack {
        return;
    }
    let Some(head) = sk
        .rtx_queue
        .front()
        .filter(|s| !s.sacked.contains(Sacked::LOST))
    else {
        return;
    };
    let mss = head.gso_size;
    if head.gso_segs > 1 && head.len > mss {
        // Without memory for the cut the whole buffer counts as lost.
        let _ = tcp_fragment(sk, cx, Queue::Rtx, 0, mss, mss);
    }
    tcp_mark_skb_lost(sk, cx, 0);
}
