//! Taking an acknowledgement (Linux `tcp_ack`): window, SACK, cleaning of `rtx_queue`, RTT, recovery, congestion window,
//! timers.

use bitflags::bitflags;

use crate::chrono::{ChronoKind, tcp_chrono_stop};
use crate::cong;
use crate::cwnd::tcp_slow_start_after_idle_check;
use crate::header::tcp_time_stamp_ts;
use crate::input::tcp_replace_ts_recent;
use crate::mss::tcp_sync_mss;
use crate::mtu_probe::tcp_mtup_acked;
use crate::pacing::tcp_update_pacing_rate;
use crate::rack::{tcp_rack_advance, tcp_rack_update_reo_wnd};
use crate::rate::{RateSample, tcp_rate_gen, tcp_rate_skb_delivered};
use crate::recovery::{
    Rexmit, tcp_cwnd_reduction, tcp_fastretrans_alert, tcp_in_cwnd_reduction, tcp_process_tlp_ack,
    tcp_tsopt_ecr_before, tcp_xmit_recovery,
};
use crate::retransmit::{tcp_schedule_loss_probe, tcp_trim_head};
use crate::rtt::tcp_ack_update_rtt;
use crate::sack::{
    SackTag, tcp_check_sack_reordering, tcp_count_delivered, tcp_highest_sack_seq,
    tcp_remove_reno_sacks, tcp_sacktag_write_queue,
};
use crate::segment::Segment;
use crate::seq::{after, before};
use crate::skb::{Sacked, tcphdr};
use crate::sndbuf::tcp_wmem_free_skb;
use crate::sock::{CaState, TcpSock, ecn};
use crate::stack::Cx;
use crate::time::Instant;
use crate::timer::{
    tcp_clamp_probe0_to_user_timeout, tcp_clear_xmit_timer, tcp_probe0_when_us, tcp_rearm_rto,
    tcp_reset_xmit_timer,
};
use crate::timers::IcskPending;
use crate::tstamp;

bitflags! {
    /// What an ack did (Linux `FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AckFlag: u32 {
        /// The segment carries data.
        const DATA = 0x01;
        /// It updated the window.
        const WIN_UPDATE = 0x02;
        /// It acked data.
        const DATA_ACKED = 0x04;
        /// It acked retransmitted data.
        const RETRANS_DATA_ACKED = 0x08;
        /// It acked our SYN.
        const SYN_ACKED = 0x10;
        /// It SACKed something new.
        const DATA_SACKED = 0x20;
        /// It carries an ECN echo that counts.
        const ECE = 0x40;
        /// A retransmission was marked lost.
        const LOST_RETRANS = 0x80;
        /// The caller did not come by the fast path.
        const SLOWPATH = 0x100;
        /// Data sent once was (S)ACKed.
        const ORIG_SACK_ACKED = 0x200;
        /// `snd_una` moved.
        const SND_UNA_ADVANCED = 0x400;
        /// It carries a DSACK.
        const DSACKING_ACK = 0x800;
        /// The retransmission timer is to be set.
        const SET_XMIT_TIMER = 0x1000;
        /// The head is SACKed and not acked.
        const SACK_RENEGING = 0x2000;
        /// `ts_recent` may be updated.
        const UPDATE_TS_RECENT = 0x4000;
        /// No challenge ack for an old one.
        const NO_CHALLENGE_ACK = 0x8000;
        /// The peer may have waited before it acked.
        const ACK_MAYBE_DELAYED = 0x1_0000;
        /// The DSACK is for a tail loss probe.
        const DSACK_TLP = 0x2_0000;

        /// Something was acked.
        const ACKED = Self::DATA_ACKED.bits() | Self::SYN_ACKED.bits();
        /// Not a duplicate ack.
        const NOT_DUP = Self::DATA.bits() | Self::WIN_UPDATE.bits() | Self::ACKED.bits();
        /// Congestion control has to look.
        const CA_ALERT = Self::DATA_SACKED.bits() | Self::ECE.bits() | Self::DSACKING_ACK.bits();
        /// The peer got something new.
        const FORWARD_PROGRESS = Self::ACKED.bits() | Self::DATA_SACKED.bits();
    }
}

/// What the caller of [`tcp_ack`] has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckOutcome {
    /// The ack is acceptable.
    Ok,
    /// An old one: nothing but its SACK blocks counted; the segment's data may still be good.
    Old,
    /// Too old to be believed (RFC 5961 §5.2): drop the segment, and send a challenge ack unless `NO_CHALLENGE_ACK` was
    /// given.
    TooOld,
    /// Acks what was never sent: drop the segment, and send a challenge ack (RFC 5961 §5.2; seen on Linux 6.18).
    Unsent,
}

/// Is it worth a look by recovery: not plain progress in Open state?
fn tcp_ack_is_dubious(sk: &TcpSock, flag: AckFlag) -> bool {
    !flag.intersects(AckFlag::NOT_DUP)
        || flag.intersects(AckFlag::CA_ALERT)
        || sk.ca_state != CaState::Open
}

/// With much reordering SACKs let the window grow too.
fn tcp_may_raise_cwnd(sk: &TcpSock, cx: &Cx<'_, '_>, flag: AckFlag) -> bool {
    if sk.reordering > cx.sh.sysctl.tcp_reordering {
        flag.intersects(AckFlag::FORWARD_PROGRESS)
    } else {
        flag.contains(AckFlag::DATA_ACKED)
    }
}

/// The oldest ack number that may still be on its way (RFC 5961 §5.2).
#[inline]
pub(crate) fn oldest_ack(sk: &TcpSock) -> u32 {
    let window = u64::from(sk.max_window).min(sk.info.bytes_acked) as u32;
    sk.snd_una.wrapping_sub(window)
}

/// Takes the acknowledgement of `seg`. Data that may be sent now is the caller's to push
/// ([`crate::output::tcp_data_snd_check`]); retransmissions go out here.
///
/// `flag`: [`AckFlag::SLOWPATH`], [`AckFlag::UPDATE_TS_RECENT`], [`AckFlag::NO_CHALLENGE_ACK`]. The peer's timestamps
/// are in `saw_tstamp`, `rcv_tsval` and `rcv_tsecr` (without our offset) already.
pub fn tcp_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment, flag: AckFlag) -> AckOutcome {
    let mut flag = flag;
    let mut sack = SackTag::new();
    let mut rs = RateSample::default();
    let mut rexmit = Rexmit::None;
    let prior_snd_una = sk.snd_una;
    let sack_reneg = sk.is_sack_reneg;
    let prior_packets = sk.packets_out;
    let prior_delivered = sk.delivered;
    let prior_lost = sk.lost;
    let ack = seg.ack_seq;

    if before(ack, prior_snd_una) {
        if before(ack, oldest_ack(sk)) {
            return AckOutcome::TooOld;
        }
        if !seg.opts.sack.is_empty() && sk.sack_ok {
            tcp_sacktag_write_queue(sk, cx, seg, prior_snd_una, &mut sack, &mut rs);
            // Linux leaves out of the count what an old ack SACKs.
            flag |= sack.flag;
            tcp_fastretrans_alert(sk, cx, prior_snd_una, 0, &mut flag, &mut rexmit);
            tcp_xmit_recovery(sk, cx, rexmit);
        }
        return AckOutcome::Old;
    }
    if after(ack, sk.snd_nxt) {
        return AckOutcome::Unsent;
    }
    if after(ack, prior_snd_una) {
        flag |= AckFlag::SND_UNA_ADVANCED;
        sk.retransmits = 0;
    }
    let prior_fack = if sk.sack_ok {
        tcp_highest_sack_seq(sk)
    } else {
        sk.snd_una
    };
    rs.prior_in_flight = sk.packets_in_flight();
    if flag.contains(AckFlag::UPDATE_TS_RECENT) {
        tcp_replace_ts_recent(sk, cx.now, seg.seq);
    }
    if seg.seq != seg.end_seq {
        flag |= AckFlag::DATA;
    }
    flag |= tcp_ack_update_window(sk, cx, seg);
    if !seg.opts.sack.is_empty() && sk.sack_ok {
        tcp_sacktag_write_queue(sk, cx, seg, prior_snd_una, &mut sack, &mut rs);
        flag |= sack.flag;
    }
    if tcp_ecn_rcv_ecn_echo(sk, seg) {
        flag |= AckFlag::ECE;
    }
    let ece_ack = flag.contains(AckFlag::ECE);
    if sack.sack_delivered > 0 {
        tcp_count_delivered(sk, sack.sack_delivered, ece_ack);
    }
    if seg.flags & tcphdr::CWR != 0 {
        sk.ecn_flags &= !ecn::DEMAND_CWR;
    }

    // Something came through: forget soft errors and unanswered probes.
    sk.sk_err_soft = None;
    sk.probes_out = 0;
    sk.rcv_tstamp = cx.now;
    if prior_packets == 0 {
        // Nothing was in flight; a DSACK may still undo, and the window may have opened.
        if flag.contains(AckFlag::DSACKING_ACK) {
            tcp_fastretrans_alert(sk, cx, prior_snd_una, 0, &mut flag, &mut rexmit);
        }
        tcp_ack_probe(sk, cx);
        if sk.tlp_high_seq != 0 {
            tcp_process_tlp_ack(sk, cx, ack, flag);
        }
        return AckOutcome::Ok;
    }

    let before_ack = BeforeAck {
        fack: prior_fack,
        snd_una: prior_snd_una,
        ttl: seg.ttl,
    };
    flag |= tcp_clean_rtx_queue(sk, cx, &before_ack, flag, &sack, &mut rs);
    tcp_rack_update_reo_wnd(sk, cx, rs.prior_delivered);
    if sk.tlp_high_seq != 0 {
        tcp_process_tlp_ack(sk, cx, ack, flag);
    }
    if tcp_ack_is_dubious(sk, flag) {
        let mut num_dupack = 0;
        if !flag.intersects(AckFlag::SND_UNA_ADVANCED | AckFlag::NOT_DUP | AckFlag::DSACKING_ACK) {
            num_dupack = if flag.contains(AckFlag::DATA) {
                1
            } else {
                seg.gso_segs.max(1)
            };
        }
        tcp_fastretrans_alert(sk, cx, prior_snd_una, num_dupack, &mut flag, &mut rexmit);
    }
    if flag.contains(AckFlag::SET_XMIT_TIMER) && !tcp_schedule_loss_probe(sk, cx, true) {
        tcp_rearm_rto(sk, cx);
    }
    let delivered = sk.delivered.wrapping_sub(prior_delivered);
    let lost = sk.lost.wrapping_sub(prior_lost);
    rs.is_ack_delayed = flag.contains(AckFlag::ACK_MAYBE_DELAYED);
    tcp_rate_gen(sk, cx, delivered, lost, sack_reneg, &mut rs);
    tcp_cong_control(sk, cx, delivered, flag, &rs);
    tcp_xmit_recovery(sk, cx, rexmit);
    AckOutcome::Ok
}

/// True when the window of a segment is newer than the one that is known.
pub(crate) fn tcp_may_update_window(sk: &TcpSock, seg: &Segment, nwin: u32) -> bool {
    after(seg.ack_seq, sk.snd_una)
        || after(seg.seq, sk.snd_wl1)
        || (seg.seq == sk.snd_wl1 && (nwin > sk.snd_wnd || nwin == 0))
}

/// Takes window and ack number over (RFC 9293 §3.10.7.4).
fn tcp_ack_update_window(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) -> AckFlag {
    let mut flag = AckFlag::empty();
    let ack = seg.ack_seq;
    let mut nwin = u32::from(seg.window);
    if !seg.syn() {
        nwin <<= u32::from(sk.snd_wscale);
    }
    if tcp_may_update_window(sk, seg, nwin) {
        flag |= AckFlag::WIN_UPDATE;
        sk.snd_wl1 = seg.seq;
        if sk.snd_wnd != nwin {
            sk.snd_wnd = nwin;
            if !sk.write_queue.is_empty() {
                tcp_slow_start_after_idle_check(sk, cx);
            }
            if nwin > sk.max_window {
                sk.max_window = nwin;
                let pmtu = sk.pmtu_cookie;
                tcp_sync_mss(sk, cx, pmtu);
            }
        }
    }
    sk.info.bytes_acked += u64::from(ack.wrapping_sub(sk.snd_una));
    sk.snd_una = ack;
    flag
}

fn tcp_ecn_rcv_ecn_echo(sk: &TcpSock, seg: &Segment) -> bool {
    seg.flags & tcphdr::ECE != 0 && !seg.syn() && sk.ecn_flags & ecn::OK != 0
}

/// How things stood before the ack, and what of its packet matters later.
struct BeforeAck {
    /// The highest SACKed byte.
    fack: u32,
    /// `snd_una`.
    snd_una: u32,
    /// The ack's TTL or hop limit (TS-68).
    ttl: u8,
}

/// Takes what is acked off `rtx_queue`; returns what the ack did (Linux `tcp_clean_rtx_queue`).
fn tcp_clean_rtx_queue(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    before_ack: &BeforeAck,
    ack_flag: AckFlag,
    sack: &SackTag,
    rs: &mut RateSample,
) -> AckFlag {
    let (prior_fack, prior_snd_una) = (before_ack.fack, before_ack.snd_una);
    let mut flag = AckFlag::empty();
    let ece_ack = ack_flag.contains(AckFlag::ECE);
    let prior_sacked = sk.sacked_out;
    let mut reord = sk.snd_nxt;
    let mut fully_acked = true;
    let mut pkts_acked = 0;
    let mut first_ackt = Instant::ZERO;
    let mut last_ackt = Instant::ZERO;
    let snd_una = sk.snd_una;

    while let Some(skb) = sk.rtx_queue.front_mut() {
        let start_seq = skb.seq;
        let mut acked_pcount = skb.pcount();
        if after(skb.end_seq, snd_una) {
            if acked_pcount == 1 || !after(snd_una, skb.seq) {
                break;
            }
            // Part of a super-frame.
            tcp_trim_head(sk, 0);
            acked_pcount -= sk.rtx_queue[0].pcount();
            if acked_pcount == 0 {
                break;
            }
            fully_acked = false;
        }
        let skb = &mut sk.rtx_queue[0];
        let sacked = skb.sacked;
        let end_seq = skb.end_seq;
        let stamp = skb.skb_mstamp;
        if sacked.intersects(Sacked::SACKED_RETRANS | Sacked::EVER_RETRANS) {
            if sacked.contains(Sacked::SACKED_RETRANS) {
                sk.retrans_out -= acked_pcount;
            }
            flag |= AckFlag::RETRANS_DATA_ACKED;
        } else if !sacked.contains(Sacked::SACKED_ACKED) {
            last_ackt = stamp;
            if first_ackt == Instant::ZERO {
                first_ackt = stamp;
            }
            if before(start_seq, reord) {
                reord = start_seq;
            }
            if !after(end_seq, sk.high_seq) {
                flag |= AckFlag::ORIG_SACK_ACKED;
            }
        }
        tcp_rate_skb_delivered(&mut sk.first_tx_mstamp, skb, rs);
        let syn = skb.tcp_flags & tcphdr::SYN != 0;
        if sacked.contains(Sacked::SACKED_ACKED) {
            sk.sacked_out -= acked_pcount;
        } else if sk.sack_ok {
            tcp_count_delivered(sk, acked_pcount, ece_ack);
            let spurious = sacked.intersects(Sacked::SACKED_RETRANS | Sacked::EVER_RETRANS)
                && tcp_tsopt_ecr_before(sk, tcp_time_stamp_ts(sk, stamp));
            if !spurious {
                tcp_rack_advance(sk, cx.now, sacked, end_seq, stamp);
            }
        }
        if sacked.contains(Sacked::LOST) {
            sk.lost_out -= acked_pcount;
        }
        sk.packets_out -= acked_pcount;
        pkts_acked += acked_pcount;
        // A SYN is no data: it must not take the connection out of slow start.
        if syn {
            flag |= AckFlag::SYN_ACKED;
            sk.retrans_stamp = 0;
        } else {
            flag |= AckFlag::DATA_ACKED;
        }
        if !fully_acked {
            break;
        }
        if let Some(skb) = sk.rtx_queue.pop_front() {
            if !skb.tx_flags.is_empty() {
                tstamp::tx_ack(sk, cx, &skb, before_ack.ttl);
            }
            tcp_wmem_free_skb(sk, cx, skb);
        }
    }

    if sk.urg_mode && !before(snd_una, sk.snd_up) {
        sk.urg_mode = false;
        sk.snd_up = snd_una;
    }
    let head = sk.rtx_queue.front().map(|s| (s.sacked, s.skb_mstamp));
    match head {
        None => {
            tcp_chrono_stop(sk, cx, ChronoKind::Busy);
            // Linux: what was counted twice ends here.
            if sk.sack_ok {
                sk.retrans_out = 0;
            }
        }
        Some((sacked, _)) => {
            if sacked.contains(Sacked::SACKED_ACKED) {
                flag |= AckFlag::SACK_RENEGING;
            }
        }
    }

    let since = |t: Instant| cx.now.us_since(t) as i64;
    let mut seq_rtt_us = -1;
    let mut ca_rtt_us = -1;
    let mut sack_rtt_us = -1;
    if first_ackt != Instant::ZERO && !flag.contains(AckFlag::RETRANS_DATA_ACKED) {
        seq_rtt_us = since(first_ackt);
        ca_rtt_us = since(last_ackt);
        // A lone short segment: the peer may have waited for another.
        if pkts_acked == 1
            && fully_acked
            && prior_sacked == 0
            && snd_una.wrapping_sub(prior_snd_una) < sk.mss_cache
            && rs.prior_delivered.wrapping_add(1) == sk.delivered
            && !(flag | ack_flag).intersects(AckFlag::CA_ALERT | AckFlag::SYN_ACKED)
        {
            flag |= AckFlag::ACK_MAYBE_DELAYED;
        }
    }
    if sack.first_sackt != Instant::ZERO {
        sack_rtt_us = since(sack.first_sackt);
        ca_rtt_us = since(sack.last_sackt);
    }
    let rtt_update = tcp_ack_update_rtt(sk, cx, flag, seq_rtt_us, sack_rtt_us, ca_rtt_us, rs);
    if flag.intersects(AckFlag::ACKED) {
        flag |= AckFlag::SET_XMIT_TIMER;
        tcp_mtup_acked(sk, cx);
        if sk.sack_ok {
            // A hole closed by an original: reordering.
            if before(reord, prior_fack) {
                tcp_check_sack_reordering(sk, cx, reord);
            }
        } else {
            tcp_remove_reno_sacks(sk, cx, pkts_acked, ece_ack);
            if flag.contains(AckFlag::RETRANS_DATA_ACKED) {
                flag.remove(AckFlag::ORIG_SACK_ACKED);
            }
        }
    } else if let Some((_, stamp)) = head {
        // The SACK is for data sent after the head was: else the timeout would be put off for ever.
        if rtt_update && sack_rtt_us >= 0 && sack_rtt_us > since(stamp) {
            flag |= AckFlag::SET_XMIT_TIMER;
        }
    }
    cong::pkts_acked(sk, rs.rtt_us, cx.now);
    flag
}

/// An ack while nothing is in flight: did it open a closed window?
fn tcp_ack_probe(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    let Some(head) = sk.write_queue.front() else {
        return;
    };
    if !after(head.end_seq, sk.wnd_end()) {
        sk.backoff = 0;
        sk.probes_tstamp = Instant::ZERO;
        tcp_clear_xmit_timer(sk);
    } else {
        let when = tcp_clamp_probe0_to_user_timeout(sk, cx.now, tcp_probe0_when_us(sk));
        tcp_reset_xmit_timer(sk, cx, IcskPending::Probe0, when, true);
    }
}

fn tcp_cong_control(
    sk: &mut TcpSock,
    cx: &Cx<'_, '_>,
    acked_sacked: u32,
    flag: AckFlag,
    rs: &RateSample,
) {
    if sk.ca.has_control() {
        cong::control(sk, rs, cx.now);
        return;
    }
    if tcp_in_cwnd_reduction(sk) {
        let advanced = flag.contains(AckFlag::SND_UNA_ADVANCED);
        tcp_cwnd_reduction(sk, acked_sacked, rs.losses, advanced);
    } else if tcp_may_raise_cwnd(sk, cx, flag) {
        cong::cong_avoid(sk, cx.now, acked_sacked);
        sk.snd_cwnd_stamp = cx.now;
    }
    tcp_update_pacing_rate(sk, cx);
}

#[cfg(test)]
mod tests;
