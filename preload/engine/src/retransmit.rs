//! Sending again: retransmissions and tail loss probes (Linux `tcp_retransmit_skb`, `tcp_xmit_retransmit_queue`,
//! `tcp_send_loss_probe`; RFC 8985 §7).

use crate::header::tcp_clock_ts;
use crate::mib::Counter;
use crate::output::{
    At, XmitError, rebuild_header, tcp_current_mss, tcp_transmit_skb, tcp_write_xmit,
};
use crate::pacing::tcp_pacing_check;
use crate::recovery::tcp_in_cwnd_reduction;
use crate::rtt::tcp_rto_min_us;
use crate::seq::{after, before};
use crate::skb::{Sacked, tcphdr};
use crate::small_queue::{skb_still_in_host_queue, tail_has_just_left, tcp_small_queue_check};
use crate::sock::{CaState, TcpSock, nagle};
use crate::stack::Cx;
use crate::timer::{
    TCP_TIMEOUT_INIT_US, tcp_clear_xmit_timer, tcp_rearm_rto, tcp_reset_xmit_timer,
    tcp_rto_delta_us,
};
use crate::timers::{IcskPending, Timer};
use crate::tso::{
    Queue, tcp_adjust_pcount, tcp_fragment, tcp_set_skb_tso_segs, tcp_shift_payload,
    tcp_snd_wnd_test, tcp_tso_segs,
};

/// What a tail loss probe waits beside two round trips, microseconds, before that is rounded up to ticks: Linux's
/// TCP_TIMEOUT_MIN_US of 2 ms, and the half tick that its timer wheel fires late on average. On a short way that makes the
/// 8 ms of TM-10; Linux takes from 4 to 8 there, as the tick comes.
const TLP_SLACK_US: u64 = 4_000;

/// Index of the buffer in `rtx_queue` that contains `seq`, or of the first one behind it.
pub(crate) fn rtx_index(sk: &TcpSock, seq: u32) -> usize {
    sk.rtx_queue.partition_point(|s| !after(s.end_seq, seq))
}

/// Retransmits the first `segs` segments of the buffer at `index`, without any bookkeeping of recovery
/// (Linux `__tcp_retransmit_skb`).
pub(crate) fn retransmit_skb_raw(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    index: usize,
    segs: u32,
) -> Result<(), XmitError> {
    // What is sent again tells nothing of the path's MTU.
    sk.mtup.probe_size = 0;
    if skb_still_in_host_queue(sk, cx, index) {
        return Err(XmitError::Busy);
    }
    let snd_una = sk.snd_una;
    let Some(skb) = sk.rtx_queue.get_mut(index) else {
        return Err(XmitError::Again);
    };
    if before(skb.seq, snd_una) {
        if skb.tcp_flags & tcphdr::SYN != 0 {
            skb.tcp_flags &= !tcphdr::SYN;
            skb.seq = skb.seq.wrapping_add(1);
        }
        if !after(skb.end_seq, snd_una) {
            return Err(XmitError::Again);
        }
        if before(skb.seq, snd_una) {
            tcp_trim_head(sk, index);
        }
    }
    if !rebuild_header(sk, cx) {
        return Err(XmitError::NoRoute);
    }
    let cur_mss = tcp_current_mss(sk, cx);
    let wnd_end = sk.wnd_end();
    let skb = &mut sk.rtx_queue[index];
    let mut avail = wnd_end.wrapping_sub(skb.seq) as i32;
    // Out of a window that the peer took back. Only the head goes on: it serves as a window probe.
    if avail <= 0 {
        if skb.seq != snd_una {
            return Err(XmitError::Again);
        }
        avail = cur_mss as i32;
    }
    let avail = avail as u32;
    let mut len = cur_mss * segs;
    if len > avail {
        len = avail / cur_mss * cur_mss;
        if len == 0 {
            len = avail;
        }
    }
    if skb.len > len {
        if !tcp_fragment(sk, cx, Queue::Rtx, index, len, cur_mss) {
            return Err(XmitError::Again);
        }
    } else {
        let sacked = skb.sacked;
        let before_segs = skb.pcount();
        let now_segs = tcp_set_skb_tso_segs(skb, cur_mss);
        let room = avail.min(cur_mss);
        let small = skb.len < room;
        tcp_adjust_pcount(sk, sacked, before_segs as i32 - now_segs as i32);
        if small {
            tcp_retrans_try_collapse(sk, cx, index, room);
        }
    }
    let skb = &mut sk.rtx_queue[index];
    let segs = skb.pcount();
    let len = u64::from(skb.len);
    // ECN fallback, RFC 3168 §6.1.1.1.
    if skb.tcp_flags & tcphdr::SYN != 0 && cx.sh.sysctl.tcp_ecn_fallback {
        skb.tcp_flags &= !(tcphdr::ECE | tcphdr::CWR);
    }
    let sent = tcp_transmit_skb(sk, cx, At::Rtx(index));
    if sent != Err(XmitError::NoSpace) {
        cx.sh.mib.add(Counter::RetransSegs, u64::from(segs));
        sk.info.total_retrans = sk.info.total_retrans.wrapping_add(segs);
        sk.info.bytes_retrans += len;
    }
    // Also when it did not leave: its stamp is new, and an ack of the first copy must not give an RTT.
    if let Some(skb) = sk.rtx_queue.get_mut(index) {
        skb.sacked |= Sacked::EVER_RETRANS;
    }
    sent
}

/// Retransmits the first `segs` segments of the buffer at `index` and counts them as in flight again.
pub fn tcp_retransmit_skb(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    index: usize,
    segs: u32,
) -> Result<(), XmitError> {
    let sent = retransmit_skb_raw(sk, cx, index, segs);
    let Some(skb) = sk.rtx_queue.get_mut(index) else {
        return sent;
    };
    let pcount = skb.pcount();
    let stamp = tcp_clock_ts(sk.tcp_usec_ts, skb.skb_mstamp).max(1);
    if sent.is_ok() {
        // A copy that an undone timeout left in flight counts beside this one.
        sk.retrans_out = sk.retrans_out.saturating_add(pcount);
        skb.sacked |= Sacked::SACKED_RETRANS | Sacked::EVER_RETRANS;
    }
    // Of the first attempt: for undo, and for giving up.
    if sk.retrans_stamp == 0 {
        sk.retrans_stamp = stamp;
    }
    sk.undo_retrans = sk.undo_retrans.max(0) + pcount as i32;
    sent
}

/// Drops what `snd_una` covers of the buffer at `index` (Linux `tcp_trim_head`).
pub(crate) fn tcp_trim_head(sk: &mut TcpSock, index: usize) {
    let snd_una = sk.snd_una;
    let Some(skb) = sk.rtx_queue.get_mut(index) else {
        return;
    };
    let n = snd_una.wrapping_sub(skb.seq).min(skb.len);
    skb.trim_head(n);
    skb.seq = skb.seq.wrapping_add(n);
    let freed = n.min(skb.truesize.saturating_sub(crate::skb::SKB_TRUESIZE));
    skb.truesize -= freed;
    if skb.gso_segs > 1 {
        let mss = skb.gso_size;
        tcp_set_skb_tso_segs(skb, mss);
    }
    sk.wmem_queued -= freed;
}

/// Makes one segment of small ones that follow each other (Linux `tcp_retrans_try_collapse`).
fn tcp_retrans_try_collapse(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, index: usize, space: u32) {
    if !cx.sh.sysctl.tcp_retrans_collapse {
        return;
    }
    let wnd_end = sk.wnd_end();
    loop {
        let (Some(to), Some(next)) = (sk.rtx_queue.get(index), sk.rtx_queue.get(index + 1)) else {
            return;
        };
        let mergeable = to.tcp_flags & tcphdr::SYN == 0
            && !to.eor
            && to.pure_zerocopy == next.pure_zerocopy
            && to.message == next.message
            && next.pcount() == 1
            && !next.sacked.contains(Sacked::SACKED_ACKED)
            && to.len + next.len <= space
            && !sk.errqueue.shows(next)
            && !after(next.end_seq, wnd_end);
        if !mergeable {
            return;
        }
        let (sacked, pcount, len, end_seq) = (next.sacked, next.pcount(), next.len, next.end_seq);
        if len == 0 {
            // A bare FIN joins the data before it.
            let Some(fin) = sk.rtx_queue.remove(index + 1) else {
                return;
            };
            let to = &mut sk.rtx_queue[index];
            to.tcp_flags |= fin.tcp_flags;
            to.end_seq = end_seq;
            to.eor = fin.eor;
            to.sacked |= fin.sacked & Sacked::EVER_RETRANS;
            crate::sndbuf::tcp_wmem_free_skb(sk, cx, fin);
        } else if !tcp_shift_payload(sk, cx, Queue::Rtx, index, len) {
            return;
        }
        tcp_adjust_pcount(sk, sacked, pcount as i32);
    }
}

/// Retransmits what is marked lost, as far as the congestion window lets it.
pub fn tcp_xmit_retransmit_queue(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.packets_out == 0 || sk.tx_blocked {
        return;
    }
    let mut rearm = false;
    let mut hole = false;
    let mss = tcp_current_mss(sk, cx);
    let max_segs = tcp_tso_segs(sk, cx, mss);
    let mut index = sk.retransmit_hint.map_or(0, |seq| rtx_index(sk, seq));
    while !tcp_pacing_check(sk, cx) {
        let Some(skb) = sk.rtx_queue.get(index) else {
            break;
        };
        let skb_seq = skb.seq;
        let sacked = skb.sacked;
        if !hole {
            sk.retransmit_hint = Some(skb_seq);
        }
        let room = sk.snd_cwnd.saturating_sub(sk.packets_in_flight());
        if room == 0 || sk.retrans_out >= sk.lost_out {
            break;
        }
        if !sacked.contains(Sacked::LOST) {
            hole |= !sacked.intersects(Sacked::SACKED_RETRANS | Sacked::SACKED_ACKED);
        } else if !sacked.intersects(Sacked::SACKED_ACKED | Sacked::SACKED_RETRANS) {
            let truesize = skb.truesize;
            if tcp_small_queue_check(sk, cx, truesize, 1)
                || tcp_retransmit_skb(sk, cx, index, room.min(max_segs)).is_err()
            {
                break;
            }
            let segs = sk.rtx_queue.get(index).map_or(0, |s| s.pcount());
            let counter = if sk.ca_state == CaState::Loss {
                Counter::TCPSlowStartRetrans
            } else {
                Counter::TCPFastRetrans
            };
            cx.sh.mib.add(counter, u64::from(segs));
            if tcp_in_cwnd_reduction(sk) {
                sk.prr_out += segs;
            }
            rearm |= index == 0 && sk.icsk_pending != IcskPending::ReoTimeout;
        }
        index += 1;
    }
    if rearm {
        let rto = u64::from(sk.rto_us);
        tcp_reset_xmit_timer(sk, cx, IcskPending::Retrans, rto, true);
    }
}

/// Arms a tail loss probe when one makes sense; false when the plain timeout has to do (TM-10, RFC 8985 §7.2).
pub(crate) fn tcp_schedule_loss_probe(
    sk: &mut TcpSock,
    cx: &Cx<'_, '_>,
    advancing_rto: bool,
) -> bool {
    let early = cx.sh.sysctl.tcp_early_retrans;
    if sk.fastopen_rsk
        || (early != 3 && early != 4)
        || sk.packets_out == 0
        || !sk.sack_ok
        || !matches!(sk.ca_state, CaState::Open | CaState::Cwr)
    {
        return false;
    }
    let mut timeout = if sk.srtt_us > 0 {
        let delayed_ack = if sk.packets_out == 1 {
            u64::from(tcp_rto_min_us(sk))
        } else {
            TLP_SLACK_US
        };
        u64::from(sk.srtt_us >> 2) + delayed_ack
    } else {
        u64::from(TCP_TIMEOUT_INIT_US)
    };
    let until_rto = if advancing_rto {
        i64::from(sk.rto_us)
    } else {
        tcp_rto_delta_us(sk, cx.now)
    };
    if until_rto > 0 {
        timeout = timeout.min(until_rto as u64);
    }
    tcp_reset_xmit_timer(sk, cx, IcskPending::LossProbe, timeout, true);
    true
}

/// Sends new data, or the last segment again, so that an ack tells what became of the tail (RFC 8985 §7.3).
pub(crate) fn tcp_send_loss_probe(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    // In Linux its ack would be known by now: the timer comes again behind the frames that wait.
    if tail_has_just_left(sk, cx) {
        sk.timers.set(Timer::Retransmit, cx.now + 1);
        return;
    }
    if probe(sk, cx) {
        sk.tlp_high_seq = sk.snd_nxt;
        cx.sh.mib.inc(Counter::TCPLossProbes);
        // The timer starts from now.
        sk.icsk_pending = IcskPending::None;
    }
    tcp_rearm_rto(sk, cx);
}

fn probe(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    // At most one probe at a time.
    if sk.tlp_high_seq != 0 {
        return false;
    }
    sk.tlp_retrans = false;
    let mss = tcp_current_mss(sk, cx);
    if tcp_snd_wnd_test(sk, mss) {
        let packets = sk.packets_out;
        tcp_write_xmit(sk, cx, mss, nagle::OFF, 2);
        return sk.packets_out > packets;
    }
    let Some(tail) = sk.rtx_queue.back() else {
        tcp_clear_xmit_timer(sk);
        return false;
    };
    let (len, pcount) = (tail.len, tail.pcount());
    let last = sk.rtx_queue.len() - 1;
    if skb_still_in_host_queue(sk, cx, last) {
        return false;
    }
    if pcount > 1
        && len > (pcount - 1) * mss
        && !tcp_fragment(sk, cx, Queue::Rtx, last, (pcount - 1) * mss, mss)
    {
        return false;
    }
    let last = sk.rtx_queue.len() - 1;
    if retransmit_skb_raw(sk, cx, last, 1).is_err() {
        return false;
    }
    sk.tlp_retrans = true;
    true
}

#[cfg(test)]
mod tests;
