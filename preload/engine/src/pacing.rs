//! Pacing (Linux `tcp_update_pacing_rate`, `tcp_pacing_check`): the rate is always computed, for TSO sizing and
//! `tcp_info`; frames wait for it only when SO_MAX_PACING_RATE or the congestion control asks.

use crate::sock::TcpSock;
use crate::stack::Cx;
use crate::time::NSEC_PER_SEC;
use crate::timers::Timer;

/// Segments that start unpaced, as in Linux's fq.
const UNPACED_SEGS: u32 = 10;

/// Bytes a second: twice the present rate in slow start, 1.2 times it afterwards; what the algorithm says, if it has its
/// own.
pub(crate) fn tcp_update_pacing_rate(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    if sk.ca.has_control() {
        return;
    }
    let ratio = if sk.snd_cwnd < sk.snd_ssthresh / 2 {
        cx.sh.sysctl.tcp_pacing_ss_ratio
    } else {
        cx.sh.sysctl.tcp_pacing_ca_ratio
    };
    // srtt_us is eight times the RTT, the ratio is per cent.
    let mut rate = u64::from(sk.mss_cache) * (1_000_000 / 100 * 8);
    rate = rate.saturating_mul(u64::from(ratio));
    rate = rate.saturating_mul(u64::from(sk.snd_cwnd.max(sk.packets_out)));
    if sk.srtt_us > 0 {
        rate /= u64::from(sk.srtt_us);
    }
    sk.pacing_rate = rate.min(sk.opts.max_pacing_rate);
}

/// Must the next frame wait? Arms the timer if so.
#[inline]
pub(crate) fn tcp_pacing_check(sk: &mut TcpSock, cx: &Cx<'_, '_>) -> bool {
    if !sk.opts.pacing_needed || sk.tcp_wstamp_ns <= cx.now {
        return false;
    }
    sk.timers.set(Timer::Pacing, sk.tcp_wstamp_ns);
    true
}

/// Nanoseconds that pacing holds the next frame back; timers of retransmissions start after it.
#[inline]
pub(crate) fn tcp_pacing_delay_ns(sk: &TcpSock, cx: &Cx<'_, '_>) -> u64 {
    if sk.opts.pacing_needed {
        sk.tcp_wstamp_ns.since(cx.now)
    } else {
        0
    }
}

/// Moves the earliest departure time on by what `len` bytes take at the rate (Linux `tcp_update_skb_after_send`).
#[inline]
pub(crate) fn tcp_update_skb_after_send(
    sk: &mut TcpSock,
    len: u32,
    prior_wstamp: crate::time::Instant,
) {
    if !sk.opts.pacing_needed || sk.info.data_segs_out < UNPACED_SEGS {
        return;
    }
    let rate = sk.pacing_rate;
    if rate == 0 || rate == u64::MAX {
        return;
    }
    let mut len_ns = u64::from(len) * NSEC_PER_SEC / rate;
    let credit = sk.tcp_wstamp_ns.since(prior_wstamp);
    len_ns -= (len_ns / 2).min(credit);
    sk.tcp_wstamp_ns = sk.tcp_wstamp_ns + len_ns;
}
