//! Loss recovery: the states Open, Disorder, CWR, Recovery and Loss, entering and leaving them, proportional rate
//! reduction (RFC 6937bis), F-RTO (RFC 5682), undo (Linux `tcp_fastretrans_alert` and its neighbours).

use crate::ack::AckFlag;
use crate::cong;
use crate::cwnd::{tcp_current_ssthresh, tcp_set_ca_state};
use crate::header::tcp_time_stamp;
use crate::mib::Counter;
use crate::mtu_probe::tcp_mtup_lost;
use crate::output::{tcp_current_mss, tcp_push_pending};
use crate::rack::{
    TCP_RACK_RECOVERY_THRESH, tcp_newreno_mark_lost, tcp_rack_mark_lost, tcp_rack_skb_timeout,
};
use crate::retransmit::tcp_xmit_retransmit_queue;
use crate::sack::{
    tcp_add_reno_sack, tcp_check_sack_reordering, tcp_limit_reno_sacked, tcp_reset_reno_sack,
};
use crate::seq::{after, before};
use crate::skb::Sacked;
use crate::sock::{CaState, TCP_INFINITE_SSTHRESH, TcpSock, ecn, nagle};
use crate::stack::Cx;
use crate::time::Instant;
use crate::timer::tcp_reset_xmit_timer;
use crate::timers::IcskPending;

/// What to send after an ack was taken (Linux `REXMIT_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rexmit {
    /// Nothing special.
    #[default]
    None,
    /// What is marked lost.
    Lost,
    /// New data: F-RTO wants to see whether it is acked.
    New,
}

/// In a state that reduces the congestion window step by step.
#[inline]
pub(crate) fn tcp_in_cwnd_reduction(sk: &TcpSock) -> bool {
    matches!(sk.ca_state, CaState::Cwr | CaState::Recovery)
}

/// Segments that left the network, or are believed to have.
fn tcp_left_out(sk: &TcpSock) -> u32 {
    sk.sacked_out + sk.lost_out
}

/// Something that was retransmitted is still unacked.
fn tcp_any_retrans_done(sk: &TcpSock) -> bool {
    sk.retrans_out > 0 || sk.rtx_queue.front().is_some_and(|s| s.ever_retransmitted())
}

pub(crate) fn tcp_retrans_stamp_cleanup(sk: &mut TcpSock) {
    if !tcp_any_retrans_done(sk) {
        sk.retrans_stamp = 0;
    }
}

/// Marks a buffer lost, also one whose retransmission got lost.
pub(crate) fn tcp_mark_skb_lost(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, index: usize) {
    let Some(skb) = sk.rtx_queue.get_mut(index) else {
        return;
    };
    if skb.sacked.contains(Sacked::SACKED_ACKED) {
        return;
    }
    let pcount = skb.pcount();
    let seq = skb.seq;
    let was_lost = skb.sacked.contains(Sacked::LOST);
    let in_flight_again = skb.sacked.contains(Sacked::SACKED_RETRANS);
    let starts_lower = match sk.retransmit_hint {
        Some(hint) => before(seq, hint),
        None => sk.retrans_out >= sk.lost_out,
    };
    if starts_lower {
        sk.retransmit_hint = Some(seq);
    }
    if was_lost {
        if in_flight_again {
            skb.sacked -= Sacked::SACKED_RETRANS;
            sk.retrans_out -= pcount;
            sk.lost = sk.lost.wrapping_add(pcount);
            cx.sh.mib.add(Counter::TCPLostRetransmit, u64::from(pcount));
        }
    } else {
        skb.sacked |= Sacked::LOST;
        sk.lost_out += pcount;
        sk.lost = sk.lost.wrapping_add(pcount);
    }
}

fn tcp_init_undo(sk: &mut TcpSock) {
    sk.undo_marker = sk.snd_una;
    // What is in flight twice may cause DSACKs later, a tail loss probe too.
    sk.undo_retrans = sk.retrans_out as i32;
    if sk.tlp_high_seq != 0 && sk.tlp_retrans {
        sk.undo_retrans += 1;
    }
    // 0 would mean that undo is due.
    if sk.undo_retrans == 0 {
        sk.undo_retrans = -1;
    }
}

/// The echoed timestamp says that the ack was caused by a copy sent before `stamp`.
pub(crate) fn tcp_tsopt_ecr_before(sk: &TcpSock, stamp: u32) -> bool {
    sk.saw_tstamp && sk.rcv_tsecr != 0 && before(sk.rcv_tsecr, stamp)
}

/// The ack is for an original, or nothing was retransmitted at all.
fn tcp_packet_delayed(sk: &TcpSock) -> bool {
    if sk.retrans_stamp != 0 {
        return tcp_tsopt_ecr_before(sk, sk.retrans_stamp);
    }
    // Nothing, unless the stamp was cleared: by the ack of a SYN, or by [`non_sack_preventing_reopen`].
    let cleared = !sk.sack_ok && !before(sk.snd_una, sk.high_seq);
    !cleared && sk.state != sidewire_uapi::TcpState::SynSent
}

fn tcp_may_undo(sk: &TcpSock) -> bool {
    sk.undo_marker != 0 && (sk.undo_retrans == 0 || tcp_packet_delayed(sk))
}

/// Takes a reduction back (Linux `tcp_undo_cwnd_reduction`).
fn tcp_undo_cwnd_reduction(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, unmark_loss: bool) {
    if unmark_loss {
        for skb in &mut sk.rtx_queue {
            skb.sacked -= Sacked::LOST;
        }
        sk.lost_out = 0;
        sk.retransmit_hint = None;
    }
    if sk.prior_ssthresh != 0 {
        sk.snd_cwnd = cong::undo_cwnd(sk);
        if sk.prior_ssthresh > sk.snd_ssthresh {
            sk.snd_ssthresh = sk.prior_ssthresh;
            sk.ecn_flags &= !ecn::QUEUE_CWR;
        }
    }
    sk.snd_cwnd_stamp = cx.now;
    sk.undo_marker = 0;
    // Losses are to be judged anew.
    sk.rack.advanced = true;
    cx.sh.mib.inc(Counter::TCPFullUndo);
}

/// Without SACK the old state holds until something *above* `high_seq` is acked: else late duplicates would start a
/// false recovery (RFC 6582 §4).
fn non_sack_preventing_reopen(sk: &mut TcpSock) -> bool {
    if sk.snd_una != sk.high_seq || sk.sack_ok {
        return false;
    }
    tcp_retrans_stamp_cleanup(sk);
    true
}

pub(crate) fn tcp_try_undo_recovery(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    if tcp_may_undo(sk) {
        tcp_undo_cwnd_reduction(sk, cx, false);
    } else {
        sk.rack.reo_wnd_persist = sk.rack.reo_wnd_persist.saturating_sub(1);
    }
    if non_sack_preventing_reopen(sk) {
        return true;
    }
    tcp_set_ca_state(sk, CaState::Open, cx.now);
    sk.is_sack_reneg = false;
    false
}

fn tcp_try_undo_dsack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    if sk.undo_marker == 0 || sk.undo_retrans != 0 {
        return false;
    }
    sk.rack.reo_wnd_persist = (sk.rack.reo_wnd_persist + 1).min(TCP_RACK_RECOVERY_THRESH);
    tcp_undo_cwnd_reduction(sk, cx, false);
    true
}

fn tcp_try_undo_loss(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, frto_undo: bool) -> bool {
    if !frto_undo && !tcp_may_undo(sk) {
        return false;
    }
    tcp_undo_cwnd_reduction(sk, cx, true);
    if frto_undo {
        cx.sh.mib.inc(Counter::TCPSpuriousRTOs);
    }
    sk.retransmits = 0;
    if non_sack_preventing_reopen(sk) {
        return true;
    }
    if frto_undo || sk.sack_ok {
        tcp_set_ca_state(sk, CaState::Open, cx.now);
        sk.is_sack_reneg = false;
    }
    true
}

/// A partial ack in recovery that a delayed original caused; true when nothing more is to be done.
fn tcp_try_undo_partial(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, prior_snd_una: u32) -> bool {
    if sk.undo_marker == 0 || !tcp_packet_delayed(sk) {
        return false;
    }
    tcp_check_sack_reordering(sk, cx, prior_snd_una);
    // Reordering is worse than thought. With retransmissions still out, clock out new data only.
    if sk.retrans_out > 0 {
        return true;
    }
    tcp_retrans_stamp_cleanup(sk);
    tcp_undo_cwnd_reduction(sk, cx, true);
    tcp_try_keep_open(sk, cx.now);
    false
}

/// Begins a reduction to `ssthresh` (PRR's state).
pub(crate) fn tcp_init_cwnd_reduction(sk: &mut TcpSock) {
    sk.high_seq = sk.snd_nxt;
    sk.tlp_high_seq = 0;
    sk.snd_cwnd_cnt = 0;
    sk.prior_cwnd = sk.snd_cwnd;
    sk.prr_delivered = 0;
    sk.prr_out = 0;
    sk.snd_ssthresh = cong::ssthresh(sk);
    tcp_ecn_queue_cwr(sk);
}

fn tcp_ecn_queue_cwr(sk: &mut TcpSock) {
    if sk.ecn_flags & ecn::OK != 0 {
        sk.ecn_flags |= ecn::QUEUE_CWR;
    }
}

/// Proportional rate reduction: sends about `ssthresh / prior_cwnd` of what is delivered, and slow-starts back up to
/// `ssthresh` when more was lost (RFC 6937bis).
pub(crate) fn tcp_cwnd_reduction(
    sk: &mut TcpSock,
    newly_acked_sacked: u32,
    newly_lost: u32,
    snd_una_advanced: bool,
) {
    if newly_acked_sacked == 0 || sk.prior_cwnd == 0 {
        return;
    }
    let in_flight = sk.packets_in_flight();
    sk.prr_delivered = sk.prr_delivered.saturating_add(newly_acked_sacked);
    let delta = i64::from(sk.snd_ssthresh) - i64::from(in_flight);
    let delivered = i64::from(sk.prr_delivered);
    let out = i64::from(sk.prr_out);
    let mut sndcnt = if delta < 0 {
        let prior = i64::from(sk.prior_cwnd);
        (i64::from(sk.snd_ssthresh) * delivered + prior - 1) / prior - out
    } else {
        let mut n = (delivered - out).max(i64::from(newly_acked_sacked));
        if snd_una_advanced && newly_lost == 0 {
            n += 1;
        }
        n.min(delta)
    };
    // The first retransmission of a recovery goes out at once.
    sndcnt = sndcnt.max(i64::from(sk.prr_out == 0));
    sk.snd_cwnd = (i64::from(in_flight) + sndcnt).max(1) as u32;
}

/// The reduction is complete: the window is `ssthresh`, unless it was undone or is the algorithm's own.
pub(crate) fn tcp_end_cwnd_reduction(sk: &mut TcpSock, now: Instant) {
    if sk.ca.has_control() {
        return;
    }
    if sk.snd_ssthresh < TCP_INFINITE_SSTHRESH
        && (sk.ca_state == CaState::Cwr || sk.undo_marker != 0)
    {
        sk.snd_cwnd = sk.snd_ssthresh;
        sk.snd_cwnd_stamp = now;
    }
}

/// Reduces the window without a loss: local congestion or ECN.
pub(crate) fn tcp_enter_cwr(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    sk.prior_ssthresh = 0;
    if sk.ca_state < CaState::Cwr {
        sk.undo_marker = 0;
        tcp_init_cwnd_reduction(sk);
        tcp_set_ca_state(sk, CaState::Cwr, cx.now);
    }
}

pub(crate) fn tcp_try_keep_open(sk: &mut TcpSock, now: Instant) {
    let state = if tcp_left_out(sk) > 0 || tcp_any_retrans_done(sk) {
        CaState::Disorder
    } else {
        CaState::Open
    };
    if sk.ca_state != state {
        tcp_set_ca_state(sk, state, now);
        sk.high_seq = sk.snd_nxt;
    }
}

fn tcp_try_to_open(sk: &mut TcpSock, cx: &Cx<'_, '_>, flag: AckFlag) {
    tcp_retrans_stamp_cleanup(sk);
    if flag.contains(AckFlag::ECE) {
        tcp_enter_cwr(sk, cx);
    }
    if sk.ca_state != CaState::Cwr {
        tcp_try_keep_open(sk, cx.now);
    }
}

/// Fast recovery begins.
pub(crate) fn tcp_enter_recovery(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, ece_ack: bool) {
    cx.sh.mib.inc(if sk.sack_ok {
        Counter::TCPSackRecovery
    } else {
        Counter::TCPRenoRecovery
    });
    tcp_retrans_stamp_cleanup(sk);
    sk.prior_ssthresh = 0;
    tcp_init_undo(sk);
    if !tcp_in_cwnd_reduction(sk) {
        if !ece_ack {
            sk.prior_ssthresh = tcp_current_ssthresh(sk);
        }
        tcp_init_cwnd_reduction(sk);
    }
    tcp_set_ca_state(sk, CaState::Recovery, cx.now);
}

/// The path takes less than was sent: segments that are too large are lost for certain, and go again in smaller pieces
/// (Linux `tcp_simple_retransmit`). The congestion window stays: only its unit changed.
pub(crate) fn tcp_simple_retransmit(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let mss = crate::mss::tcp_current_mss(sk, cx);
    for i in 0..sk.rtx_queue.len() {
        let skb = &sk.rtx_queue[i];
        let seglen = if skb.gso_segs > 1 {
            skb.gso_size
        } else {
            skb.len
        };
        if seglen > mss {
            tcp_mark_skb_lost(sk, cx, i);
        }
    }
    if sk.lost_out == 0 {
        return;
    }
    if !sk.sack_ok {
        tcp_limit_reno_sacked(sk);
    }
    tcp_non_congestion_loss_retransmit(sk, cx);
}

/// Sends again what is marked lost for a reason that is no congestion: the window stays (Linux
/// `tcp_non_congestion_loss_retransmit`).
pub(crate) fn tcp_non_congestion_loss_retransmit(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.ca_state != CaState::Loss {
        sk.high_seq = sk.snd_nxt;
        sk.snd_ssthresh = tcp_current_ssthresh(sk);
        sk.prior_ssthresh = 0;
        sk.undo_marker = 0;
        tcp_set_ca_state(sk, CaState::Loss, cx.now);
    }
    crate::retransmit::tcp_xmit_retransmit_queue(sk, cx);
}

fn tcp_timeout_mark_lost(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let reneg = sk
        .rtx_queue
        .front()
        .is_some_and(|s| s.sacked.contains(Sacked::SACKED_ACKED));
    if reneg {
        sk.sacked_out = 0;
        sk.is_sack_reneg = true;
    } else if !sk.sack_ok {
        tcp_reset_reno_sack(sk);
    }
    for i in 0..sk.rtx_queue.len() {
        if reneg {
            sk.rtx_queue[i].sacked -= Sacked::SACKED_ACKED;
        } else if i > 0 && tcp_rack_skb_timeout(sk, &sk.rtx_queue[i], 0, cx.now) > 0 {
            // Sent a moment ago.
            continue;
        }
        tcp_mark_skb_lost(sk, cx, i);
    }
    sk.retransmit_hint = None;
}

/// The retransmission timer fired: everything sent before is lost, one segment may go (RFC 5681 §3.1, RFC 5682 step 1).
pub(crate) fn tcp_enter_loss(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let new_recovery = sk.ca_state < CaState::Recovery;
    tcp_timeout_mark_lost(sk, cx);
    // Once a window.
    if sk.ca_state <= CaState::Disorder
        || !after(sk.high_seq, sk.snd_una)
        || (sk.ca_state == CaState::Loss && sk.retransmits == 0)
    {
        sk.prior_ssthresh = tcp_current_ssthresh(sk);
        sk.prior_cwnd = sk.snd_cwnd;
        sk.snd_ssthresh = cong::ssthresh(sk);
        tcp_init_undo(sk);
    }
    sk.snd_cwnd = sk.packets_in_flight() + 1;
    sk.snd_cwnd_cnt = 0;
    sk.snd_cwnd_stamp = cx.now;
    // A timeout in spite of many duplicate acks: less reordering than thought.
    let reordering = cx.sh.sysctl.tcp_reordering;
    if sk.ca_state <= CaState::Disorder && sk.sacked_out >= reordering {
        sk.reordering = sk.reordering.min(reordering);
    }
    tcp_set_ca_state(sk, CaState::Loss, cx.now);
    sk.high_seq = sk.snd_nxt;
    sk.tlp_high_seq = 0;
    tcp_ecn_queue_cwr(sk);
    sk.frto = cx.sh.sysctl.tcp_frto != 0 && (new_recovery || sk.retransmits > 0);
}

/// The head is SACKed and not acked: the peer forgets. A short wait shows whether the next ack repairs it; true when
/// armed.
fn tcp_check_sack_reneging(sk: &mut TcpSock, cx: &Cx<'_, '_>, flag: &mut AckFlag) -> bool {
    if !flag.contains(AckFlag::SACK_RENEGING | AckFlag::SND_UNA_ADVANCED) {
        return false;
    }
    let delay = u64::from(sk.srtt_us >> 4).max(10_000);
    tcp_reset_xmit_timer(sk, cx, IcskPending::Retrans, delay, false);
    flag.remove(AckFlag::SET_XMIT_TIMER);
    true
}

fn tcp_identify_packet_loss(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, flag: &mut AckFlag) {
    if sk.rtx_queue.is_empty() {
        return;
    }
    if !sk.sack_ok {
        tcp_newreno_mark_lost(sk, cx, flag.contains(AckFlag::SND_UNA_ADVANCED));
        return;
    }
    let prior_retrans = sk.retrans_out;
    if tcp_rack_mark_lost(sk, cx) {
        flag.remove(AckFlag::SET_XMIT_TIMER);
    }
    if prior_retrans > sk.retrans_out {
        flag.insert(AckFlag::LOST_RETRANS);
    }
}

/// F-RTO and slow start after a timeout.
fn tcp_process_loss(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    flag: AckFlag,
    num_dupack: u32,
    rexmit: &mut Rexmit,
) {
    let recovered = !before(sk.snd_una, sk.high_seq);
    let advanced = flag.contains(AckFlag::SND_UNA_ADVANCED);
    if (advanced || sk.fastopen_rsk) && tcp_try_undo_loss(sk, cx, false) {
        return;
    }
    if sk.frto {
        // Step 3.b: data that was sent once only arrived, so the timeout was spurious.
        if flag.contains(AckFlag::ORIG_SACK_ACKED) && tcp_try_undo_loss(sk, cx, true) {
            return;
        }
        if after(sk.snd_nxt, sk.high_seq) {
            if flag.contains(AckFlag::DATA_SACKED) || num_dupack > 0 {
                // Step 3.a: the loss was real.
                sk.frto = false;
            }
        } else if advanced && !recovered {
            sk.high_seq = sk.snd_nxt;
            // Step 2.b: new data, as soon as the window is updated.
            if !sk.write_queue.is_empty() && after(sk.wnd_end(), sk.snd_nxt) {
                *rexmit = Rexmit::New;
                return;
            }
            sk.frto = false;
        }
    }
    if recovered {
        tcp_try_undo_recovery(sk, cx);
        return;
    }
    if !sk.sack_ok {
        if after(sk.snd_nxt, sk.high_seq) && num_dupack > 0 {
            tcp_add_reno_sack(sk, cx, num_dupack, flag.contains(AckFlag::ECE));
        } else if advanced {
            tcp_reset_reno_sack(sk);
        }
    }
    *rexmit = Rexmit::Lost;
}

/// State exits once `high_seq` is acked; true when the ack needs nothing more.
fn leave_state(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    if sk.ca_state == CaState::Open {
        sk.retrans_stamp = 0;
        return false;
    }
    if before(sk.snd_una, sk.high_seq) {
        return false;
    }
    match sk.ca_state {
        // CWR holds until something above is acked, so that the peer sees the CWR bit.
        CaState::Cwr if sk.snd_una != sk.high_seq => {
            tcp_end_cwnd_reduction(sk, cx.now);
            tcp_set_ca_state(sk, CaState::Open, cx.now);
        }
        CaState::Recovery => {
            if !sk.sack_ok {
                tcp_reset_reno_sack(sk);
            }
            if tcp_try_undo_recovery(sk, cx) {
                return true;
            }
            tcp_end_cwnd_reduction(sk, cx.now);
        }
        _ => {}
    }
    false
}

/// An ack that is not plain progress in Open state (Linux `tcp_fastretrans_alert`).
pub(crate) fn tcp_fastretrans_alert(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    prior_snd_una: u32,
    num_dupack: u32,
    ack_flag: &mut AckFlag,
    rexmit: &mut Rexmit,
) {
    let flag = *ack_flag;
    let ece_ack = flag.contains(AckFlag::ECE);
    let advanced = flag.contains(AckFlag::SND_UNA_ADVANCED);
    if sk.packets_out == 0 {
        sk.sacked_out = 0;
    }
    // A: a congestion mark forbids undo.
    if ece_ack {
        sk.prior_ssthresh = 0;
    }
    // B
    if tcp_check_sack_reneging(sk, cx, ack_flag) {
        return;
    }
    // D
    if leave_state(sk, cx) {
        return;
    }
    // E
    match sk.ca_state {
        CaState::Recovery => {
            if !advanced {
                if !sk.sack_ok {
                    tcp_add_reno_sack(sk, cx, num_dupack, ece_ack);
                }
            } else if tcp_try_undo_partial(sk, cx, prior_snd_una) {
                return;
            }
            if tcp_try_undo_dsack(sk, cx) {
                tcp_try_to_open(sk, cx, flag);
            }
            tcp_identify_packet_loss(sk, cx, ack_flag);
            if sk.ca_state != CaState::Recovery {
                if sk.lost_out == 0 {
                    return;
                }
                // Undone, and yet something is lost.
                tcp_enter_recovery(sk, cx, ece_ack);
            }
        }
        CaState::Loss => {
            tcp_process_loss(sk, cx, flag, num_dupack, rexmit);
            if sk.ca_state != CaState::Loss {
                tcp_update_rto_time(sk, cx.now);
            }
            tcp_identify_packet_loss(sk, cx, ack_flag);
            if sk.ca_state != CaState::Open && !ack_flag.contains(AckFlag::LOST_RETRANS) {
                return;
            }
            if disorder_or_recover(sk, cx, flag, num_dupack, ack_flag) {
                return;
            }
        }
        _ => {
            if disorder_or_recover(sk, cx, flag, num_dupack, ack_flag) {
                return;
            }
        }
    }
    *rexmit = Rexmit::Lost;
}

/// Open, Disorder and CWR: enters recovery when something is lost; true when nothing is, or only a probe of the path's MTU.
fn disorder_or_recover(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    flag: AckFlag,
    num_dupack: u32,
    ack_flag: &mut AckFlag,
) -> bool {
    let ece_ack = flag.contains(AckFlag::ECE);
    if !sk.sack_ok {
        if flag.contains(AckFlag::SND_UNA_ADVANCED) {
            tcp_reset_reno_sack(sk);
        }
        tcp_add_reno_sack(sk, cx, num_dupack, ece_ack);
    }
    if sk.ca_state <= CaState::Disorder {
        tcp_try_undo_dsack(sk, cx);
    }
    tcp_identify_packet_loss(sk, cx, ack_flag);
    if sk.lost_out == 0 {
        tcp_try_to_open(sk, cx, flag);
        return true;
    }
    if tcp_mtup_lost(sk, cx) {
        return true;
    }
    tcp_enter_recovery(sk, cx, ece_ack);
    false
}

pub(crate) fn tcp_update_rto_time(sk: &mut TcpSock, now: Instant) {
    if sk.rto_stamp != 0 {
        let spent = tcp_time_stamp(now).wrapping_sub(sk.rto_stamp);
        sk.info.total_rto_time_ms = sk.info.total_rto_time_ms.wrapping_add(spent);
        sk.rto_stamp = 0;
    }
}

/// What became of a tail loss probe (RFC 8985 §7.4).
pub(crate) fn tcp_process_tlp_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, ack: u32, flag: AckFlag) {
    if before(ack, sk.tlp_high_seq) {
        return;
    }
    if !sk.tlp_retrans || flag.contains(AckFlag::DSACK_TLP) {
        // New data was acked, or both copies arrived.
        sk.tlp_high_seq = 0;
    } else if after(ack, sk.tlp_high_seq) {
        // The probe repaired a loss: it counts as congestion.
        tcp_init_cwnd_reduction(sk);
        tcp_set_ca_state(sk, CaState::Cwr, cx.now);
        tcp_end_cwnd_reduction(sk, cx.now);
        tcp_try_keep_open(sk, cx.now);
        cx.sh.mib.inc(Counter::TCPLossProbeRecovery);
    } else if !flag.intersects(AckFlag::SND_UNA_ADVANCED | AckFlag::NOT_DUP | AckFlag::DATA_SACKED)
    {
        // A pure duplicate: both copies arrived.
        sk.tlp_high_seq = 0;
    }
}

/// Sends what recovery wants sent (Linux `tcp_xmit_recovery`).
pub(crate) fn tcp_xmit_recovery(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, rexmit: Rexmit) {
    if rexmit == Rexmit::None || sk.state == sidewire_uapi::TcpState::SynSent {
        return;
    }
    if rexmit == Rexmit::New {
        let mss = tcp_current_mss(sk, cx);
        tcp_push_pending(sk, cx, mss, nagle::OFF);
        if after(sk.snd_nxt, sk.high_seq) {
            return;
        }
        sk.frto = false;
    }
    tcp_xmit_retransmit_queue(sk, cx);
}

/// Compares the scoreboard with its counters: the name of the first that is wrong (for [`TcpSock::check`], and for what
/// was thawed).
#[must_use]
pub fn scoreboard_flaw(sk: &TcpSock) -> Option<&'static str> {
    let count = |bit: Sacked| -> u32 {
        sk.rtx_queue
            .iter()
            .filter(|s| s.sacked.contains(bit))
            .fold(0, |sum, s| sum.wrapping_add(s.pcount()))
    };
    // Without SACK `sacked_out` counts duplicate acks.
    if sk.sack_ok && count(Sacked::SACKED_ACKED) != sk.sacked_out {
        return Some("sacked_out");
    }
    if count(Sacked::LOST) != sk.lost_out {
        return Some("lost_out");
    }
    // A segment that was sent again after an undo counts twice.
    if count(Sacked::SACKED_RETRANS) > sk.retrans_out {
        return Some("retrans_out");
    }
    if sk.sacked_out.saturating_add(sk.lost_out) > sk.packets_out {
        return Some("left_out");
    }
    None
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
