//! The congestion window beside the algorithm: how much of it is used, and what becomes of it while it is not
//! (Linux `tcp_cwnd_validate`, `tcp_cwnd_restart`; RFC 7661 in Linux's form).

use sidewire_uapi::tcp::TcpState;

use crate::chrono::{ChronoKind, tcp_chrono_start};
use crate::cong::{self, tcp_is_cwnd_limited};
use crate::recovery::tcp_in_cwnd_reduction;
use crate::seq::before;
use crate::sock::{CaState, TCP_INIT_CWND, TcpSock};
use crate::stack::Cx;
use crate::time::Instant;

/// Changes the congestion state; the algorithm is told (Linux `tcp_set_ca_state`).
pub(crate) fn tcp_set_ca_state(sk: &mut TcpSock, state: CaState, now: Instant) {
    cong::set_state(sk, state, now);
    sk.ca_state = state;
}

/// The window to begin with: the route's, else RFC 6928's (Linux `tcp_init_cwnd`).
pub(crate) fn tcp_init_cwnd(sk: &TcpSock) -> u32 {
    let cwnd = match sk.route_metrics().initcwnd {
        0 => TCP_INIT_CWND,
        of_route => of_route,
    };
    cwnd.min(sk.snd_cwnd_clamp)
}

/// `ssthresh` that stands for the present window (Linux `tcp_current_ssthresh`).
pub(crate) fn tcp_current_ssthresh(sk: &TcpSock) -> u32 {
    if tcp_in_cwnd_reduction(sk) {
        sk.snd_ssthresh
    } else {
        sk.snd_ssthresh.max((sk.snd_cwnd >> 1) + (sk.snd_cwnd >> 2))
    }
}

/// Keeps record of how much of the window is used.
pub(crate) fn tcp_cwnd_validate(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, cwnd_limited: bool) {
    if !before(sk.snd_una, sk.cwnd_usage_seq)
        || cwnd_limited
        || (!sk.is_cwnd_limited && sk.packets_out > sk.max_packets_out)
    {
        sk.is_cwnd_limited = cwnd_limited;
        sk.max_packets_out = sk.packets_out;
        sk.cwnd_usage_seq = sk.snd_nxt;
    }
    if tcp_is_cwnd_limited(sk) {
        sk.snd_cwnd_used = 0;
        sk.snd_cwnd_stamp = cx.now;
        return;
    }
    sk.snd_cwnd_used = sk.snd_cwnd_used.max(sk.packets_out);
    let idle = cx.now.us_since(sk.snd_cwnd_stamp);
    if cx.sh.sysctl.tcp_slow_start_after_idle
        && idle >= u64::from(sk.rto_us)
        && !sk.ca.has_control()
    {
        tcp_cwnd_application_limited(sk, cx);
    }
    // Everything written is sent, the window is open and a writer waits for memory.
    if sk.write_queue.is_empty()
        && sk.nospace
        && sk.in_state(&[TcpState::Established, TcpState::CloseWait])
    {
        tcp_chrono_start(sk, cx, ChronoKind::SndbufLimited);
    }
}

/// The window was not used for an RTO: it comes half the way down to what was.
fn tcp_cwnd_application_limited(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    if sk.ca_state == CaState::Open && !sk.nospace {
        let used = sk.snd_cwnd_used.max(tcp_init_cwnd(sk));
        if used < sk.snd_cwnd {
            sk.snd_ssthresh = tcp_current_ssthresh(sk);
            sk.snd_cwnd = (sk.snd_cwnd + used) >> 1;
        }
        sk.snd_cwnd_used = 0;
    }
    sk.snd_cwnd_stamp = cx.now;
}

/// Slow start after idle: one halving for each RTO without sending (RFC 2861; F6). Called where a new
/// buffer is queued.
pub fn tcp_slow_start_after_idle_check(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    if !cx.sh.sysctl.tcp_slow_start_after_idle || sk.packets_out > 0 || sk.ca.has_control() {
        return;
    }
    let idle_us = cx.now.us_since(sk.lsndtime);
    if idle_us > u64::from(sk.rto_us) {
        tcp_cwnd_restart(sk, cx, idle_us);
    }
}

fn tcp_cwnd_restart(sk: &mut TcpSock, cx: &Cx<'_, '_>, idle_us: u64) {
    let rto = u64::from(sk.rto_us).max(1);
    let mut cwnd = sk.snd_cwnd;
    let restart = tcp_init_cwnd(sk).min(cwnd);
    sk.snd_ssthresh = tcp_current_ssthresh(sk);
    let mut left = idle_us;
    while left > rto && cwnd > restart {
        left -= rto;
        cwnd >>= 1;
    }
    sk.snd_cwnd = cwnd.max(restart);
    sk.snd_cwnd_stamp = cx.now;
    sk.snd_cwnd_used = 0;
}
