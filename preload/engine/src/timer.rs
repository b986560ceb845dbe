//! Timers of a socket: arming them, and what happens when one fires (Linux `tcp_timer.c`; `rows.toml` timers).

use sidewire_uapi::tcp::TcpState;

use crate::autocork::tail_waits_on;
use crate::cong;
use crate::cwnd::tcp_init_cwnd;
use crate::error::Error;
use crate::errqueue::sk_error_report;
use crate::fastopen;
use crate::header::{tcp_time_stamp, tcp_time_stamp_ts};
use crate::metrics::tcp_init_metrics;
use crate::mib::Counter;
use crate::mtu_probe::{tcp_mtu_probing, tcp_mtup_init};
use crate::output::{
    At, XmitError, route_again, tcp_current_mss, tcp_event_new_data_sent, tcp_send_ack,
    tcp_send_active_reset, tcp_transmit_bare, tcp_transmit_skb, tcp_urg_mode, tcp_write_xmit,
};
use crate::pacing::{tcp_pacing_delay_ns, tcp_update_pacing_rate};
use crate::rack::tcp_rack_reo_timeout;
use crate::recovery::tcp_enter_loss;
use crate::retransmit::{tcp_retransmit_skb, tcp_send_loss_probe, tcp_xmit_retransmit_queue};
use crate::rtt::{JIFFY_US, tcp_rto_estimate, tcp_rto_max_us, tcp_rto_min_us};
use crate::seq::{before, between};
use crate::skb::tcphdr;
use crate::sndbuf::tcp_write_queue_purge;
use crate::sock::{TCP_INFINITE_SSTHRESH, TcpSock, icsk_ack};
use crate::stack::Cx;
use crate::time::{Instant, NSEC_PER_MSEC, NSEC_PER_SEC, NSEC_PER_USEC, round_up_to_jiffy_us};
use crate::timers::{IcskPending, Timer};
use crate::tso::{Queue, tcp_fragment, tcp_set_skb_tso_segs};
use crate::window::TCP_ATO_MIN_NS;

/// `TCP_RTO_MIN` as the give-up rules count with it, microseconds.
const TCP_RTO_MIN_US: u32 = 200_000;
/// `TCP_TIMEOUT_INIT`: RTO of handshakes, microseconds (TM-1).
pub const TCP_TIMEOUT_INIT_US: u32 = 1_000_000;
/// `TCP_RESOURCE_PROBE_INTERVAL`: when the local queue was the obstacle, microseconds.
const TCP_RESOURCE_PROBE_INTERVAL_US: u64 = 500_000;
/// `TCP_THIN_LINEAR_RETRIES`.
const TCP_THIN_LINEAR_RETRIES: u8 = 6;
/// A stream with fewer segments in flight is thin.
const THIN_PACKETS: u32 = 4;
/// `TCP_TIMEWAIT_LEN`, nanoseconds.
const TCP_TIMEWAIT_LEN_NS: u64 = 60 * NSEC_PER_SEC;
/// Retries of an orphan that still gets answers, when `tcp_orphan_retries` is 0.
const ORPHAN_RETRIES_ALIVE: u8 = 8;

/// What the stack has to do after a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerOutcome {
    /// Nothing.
    Alive,
    /// The connection is over: `sk_err` is set, waiters are woken, the send queues are empty (Linux `tcp_done`).
    Dead,
    /// An orphan in FIN_WAIT2 becomes a remnant for so many nanoseconds (Linux `tcp_time_wait`).
    TimeWait(u64),
}

/// Arms the retransmission timer for `what`, `when_us` from now and after what pacing still holds back
/// (Linux `tcp_reset_xmit_timer`).
pub fn tcp_reset_xmit_timer(
    sk: &mut TcpSock,
    cx: &Cx<'_, '_>,
    what: IcskPending,
    when_us: u64,
    pace_delay: bool,
) {
    let mut ns = round_up_to_jiffy_us(when_us) * NSEC_PER_USEC;
    if pace_delay {
        ns += tcp_pacing_delay_ns(sk, cx);
    }
    let max = u64::from(tcp_rto_max_us(sk)) * NSEC_PER_USEC;
    sk.icsk_pending = what;
    sk.timers.set(Timer::Retransmit, cx.now + ns.min(max));
}

/// Disarms the retransmission timer.
pub fn tcp_clear_xmit_timer(sk: &mut TcpSock) {
    sk.icsk_pending = IcskPending::None;
    sk.timers.cancel(Timer::Retransmit);
}

/// Microseconds until the head of `rtx_queue` times out; negative when it should have.
pub(crate) fn tcp_rto_delta_us(sk: &TcpSock, now: Instant) -> i64 {
    let rto = i64::from(sk.rto_us);
    match sk.rtx_queue.front() {
        Some(head) => head.skb_mstamp.as_us() as i64 + rto - now.as_us() as i64,
        None => rto,
    }
}

/// Restarts the retransmission timer after an ack, or stops it when nothing is in flight (RFC 6298 §5.2, §5.3).
pub fn tcp_rearm_rto(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    // The timer may belong to the SYN-ACK of a fast open child.
    if sk.fastopen_rsk {
        return;
    }
    if sk.packets_out == 0 {
        tcp_clear_xmit_timer(sk);
        return;
    }
    let mut rto = u64::from(sk.rto_us);
    if matches!(
        sk.icsk_pending,
        IcskPending::ReoTimeout | IcskPending::LossProbe
    ) {
        rto = tcp_rto_delta_us(sk, cx.now).max(1) as u64;
    }
    tcp_reset_xmit_timer(sk, cx, IcskPending::Retrans, rto, true);
}

/// First interval of window probes (TM-15, TM-16).
fn tcp_probe0_base_us(sk: &TcpSock) -> u64 {
    u64::from(sk.rto_us.max(TCP_RTO_MIN_US))
}

/// Interval of the next window probe.
pub(crate) fn tcp_probe0_when_us(sk: &TcpSock) -> u64 {
    // Beyond this the bound is reached anyway, and the shift stays harmless.
    let backoff = u32::from(sk.backoff).min(11);
    (tcp_probe0_base_us(sk) << backoff).min(u64::from(tcp_rto_max_us(sk)))
}

/// Nothing is in flight and something is queued: probe, so that a lost window update cannot hang us.
pub fn tcp_check_probe_timer(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    if sk.packets_out == 0 && sk.icsk_pending == IcskPending::None {
        let base = tcp_probe0_base_us(sk);
        tcp_reset_xmit_timer(sk, cx, IcskPending::Probe0, base, true);
    }
}

/// A window probe's interval, cut to what TCP_USER_TIMEOUT leaves.
pub(crate) fn tcp_clamp_probe0_to_user_timeout(sk: &TcpSock, now: Instant, when_us: u64) -> u64 {
    if sk.opts.user_timeout_ms == 0 || sk.probes_tstamp == Instant::ZERO {
        return when_us;
    }
    let limit = u64::from(sk.opts.user_timeout_ms) * 1_000;
    let left = limit.saturating_sub(now.us_since(sk.probes_tstamp));
    when_us.min(left.max(u64::from(2 * JIFFY_US)))
}

/// Milliseconds since `began` on the clock of timestamps.
fn elapsed_ms(sk: &TcpSock, began: u32, now: Instant) -> u32 {
    let elapsed = tcp_time_stamp_ts(sk, now).wrapping_sub(began);
    if sk.tcp_usec_ts {
        elapsed / 1_000
    } else {
        elapsed
    }
}

/// Milliseconds since the first retransmission.
pub(crate) fn retrans_elapsed_ms(sk: &TcpSock, now: Instant) -> u32 {
    elapsed_ms(sk, sk.retrans_stamp, now)
}

/// RTO, cut to what TCP_USER_TIMEOUT leaves (TM-9).
fn tcp_clamp_rto_to_user_timeout(sk: &TcpSock, now: Instant) -> u64 {
    let rto = u64::from(sk.rto_us);
    if sk.opts.user_timeout_ms == 0 {
        return rto;
    }
    let elapsed = retrans_elapsed_ms(sk, now);
    let left = i64::from(sk.opts.user_timeout_ms) - i64::from(elapsed);
    if left <= 0 {
        return u64::from(JIFFY_US);
    }
    rto.min(left as u64 * 1_000)
}

/// Milliseconds that `boundary` retries with exponential backoff from `rto_base_us` take.
fn tcp_model_timeout_ms(sk: &TcpSock, boundary: u32, rto_base_us: u32) -> u64 {
    let max = u64::from(tcp_rto_max_us(sk)).max(1);
    let base = u64::from(rto_base_us);
    let linear = (max / base).max(1).ilog2();
    let us = if boundary <= linear {
        ((2 << boundary) - 1) * base
    } else {
        ((2 << linear) - 1) * base + u64::from(boundary - linear) * max
    };
    us / 1_000
}

/// Did retransmissions go on for as long as `boundary` retries take, or for `timeout_ms` when that is not 0?
fn retransmits_timed_out(sk: &TcpSock, now: Instant, boundary: u32, timeout_ms: u32) -> bool {
    if sk.retransmits == 0 {
        return false;
    }
    let timeout = if timeout_ms != 0 {
        u64::from(timeout_ms)
    } else {
        let handshake = sk.in_state(&[TcpState::SynSent, TcpState::SynRecv]);
        let base = if handshake {
            TCP_TIMEOUT_INIT_US
        } else {
            TCP_RTO_MIN_US
        };
        tcp_model_timeout_ms(sk, boundary, base)
    };
    let elapsed = retrans_elapsed_ms(sk, now);
    u64::from(elapsed) >= timeout
}

fn tcp_orphan_retries(sk: &TcpSock, cx: &Cx<'_, '_>, alive: bool) -> u8 {
    let retries = cx.sh.sysctl.tcp_orphan_retries;
    // The peer told of trouble: give up sooner.
    if sk.sk_err_soft.is_some() && !alive {
        return 0;
    }
    if retries == 0 && alive {
        ORPHAN_RETRIES_ALIVE
    } else {
        retries
    }
}

/// Ends the connection with the soft error or ETIMEDOUT (ER-16; Linux `tcp_write_err`).
pub(crate) fn tcp_write_err(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> TimerOutcome {
    // SO_ERROR tells the soft one once more.
    sk.sk_err = Some(sk.sk_err_soft.unwrap_or(Error::TimedOut));
    sk_error_report(sk, cx);
    tcp_write_queue_purge(sk, cx);
    cx.sh.mib.inc(Counter::TCPAbortOnTimeout);
    TimerOutcome::Dead
}

/// Too many orphans: this one goes, with a reset when its peer may still listen (Linux `tcp_out_of_resources`).
fn tcp_out_of_resources(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, do_reset: bool) -> bool {
    if cx.sh.orphans <= cx.sh.sysctl.tcp_max_orphans {
        return false;
    }
    cx.sh.mib.inc(Counter::TCPOrphanOverflow);
    if do_reset {
        tcp_send_active_reset(sk, cx);
    }
    true
}

/// Gives up after too many retransmissions (TM-3, TM-8, TM-9; Linux `tcp_write_timeout`).
fn tcp_write_timeout(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> Option<TimerOutcome> {
    let mut expired = false;
    let retry_until;
    // Linux asks after some timeouts only, but there each frame that goes by a stale entry has it probed.
    if let Some(dst) = &sk.dst {
        cx.net.negative_advice(dst, sk.tuple.remote.ip());
    }
    if sk.in_state(&[TcpState::SynSent, TcpState::SynRecv]) {
        retry_until = match sk.opts.syncnt {
            0 => cx.sh.sysctl.tcp_syn_retries,
            n => n,
        };
        let mut max = retry_until;
        if sk.state == TcpState::SynSent {
            max = max.saturating_add(cx.sh.sysctl.tcp_syn_linear_timeouts);
        }
        expired = sk.retransmits >= max;
    } else {
        if retransmits_timed_out(sk, cx.now, u32::from(cx.sh.sysctl.tcp_retries1), 0) {
            tcp_mtu_probing(sk, cx);
            // The path may have changed under us.
            sk.dst = None;
        }
        if sk.orphan {
            let alive = sk.rto_us < tcp_rto_max_us(sk);
            retry_until = tcp_orphan_retries(sk, cx, alive);
            let do_reset = alive || !retransmits_timed_out(sk, cx.now, u32::from(retry_until), 0);
            if tcp_out_of_resources(sk, cx, do_reset) {
                tcp_write_queue_purge(sk, cx);
                return Some(TimerOutcome::Dead);
            }
        } else {
            retry_until = cx.sh.sysctl.tcp_retries2;
        }
    }
    if !expired {
        let timeout = sk.opts.user_timeout_ms;
        expired = retransmits_timed_out(sk, cx.now, u32::from(retry_until), timeout);
    }
    fastopen::client::detect_blackhole(sk, cx, expired);
    if expired {
        return Some(tcp_write_err(sk, cx));
    }
    if sk.opts.txrehash {
        sk.info.timeout_rehash = sk.info.timeout_rehash.wrapping_add(1);
    }
    None
}

/// The head of `rtx_queue` is overdue (Linux `tcp_retransmit_timer`).
fn tcp_retransmit_timer(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> TimerOutcome {
    if sk.fastopen_rsk {
        // Nothing else goes again before the peer has acked our SYN-ACK.
        return fastopen::server::tcp_fastopen_synack_timer(sk, cx);
    }
    if sk.packets_out == 0 || sk.rtx_queue.is_empty() {
        return TimerOutcome::Alive;
    }
    let handshake = sk.in_state(&[TcpState::SynSent, TcpState::SynRecv]);
    if sk.snd_wnd == 0 && !sk.orphan && !handshake {
        // The peer took its window back: our retransmissions are window probes, and it may answer them for ever.
        if tcp_rtx_probe0_timed_out(sk, cx.now) {
            return tcp_write_err(sk, cx);
        }
        tcp_enter_loss(sk, cx);
        // Lost like any probe; the timer stays armed.
        let _ = tcp_retransmit_skb(sk, cx, 0, 1);
    } else {
        cx.sh.mib.inc(Counter::TCPTimeouts);
        if let Some(end) = tcp_write_timeout(sk, cx) {
            return end;
        }
        tcp_enter_loss(sk, cx);
        tcp_update_rto_stats(sk, cx.now);
        match tcp_retransmit_skb(sk, cx, 0, 1) {
            // The local queue is full: no backoff for that.
            Err(XmitError::Dropped | XmitError::NoSpace) => {
                let when = TCP_RESOURCE_PROBE_INTERVAL_US;
                tcp_reset_xmit_timer(sk, cx, IcskPending::Retrans, when, false);
                return TimerOutcome::Alive;
            }
            // An attempt ends when the neighbour stays silent; a connection goes on (ER-17, ER-21).
            Err(XmitError::Unreachable) if sk.state == TcpState::SynSent => {
                return tcp_write_err(sk, cx);
            }
            _ => {}
        }
    }
    let thin = sk.opts.thin_lto || cx.sh.sysctl.tcp_thin_linear_timeouts;
    if sk.state == TcpState::Established
        && thin
        && sk.packets_out < THIN_PACKETS
        && sk.snd_ssthresh != TCP_INFINITE_SSTHRESH
        && sk.retransmits <= TCP_THIN_LINEAR_RETRIES
    {
        sk.backoff = 0;
        sk.rto_us = tcp_rto_estimate(sk).clamp(
            tcp_rto_min_us(sk),
            tcp_rto_max_us(sk).max(tcp_rto_min_us(sk)),
        );
    } else if sk.state != TcpState::SynSent
        || sk.info.total_rto > u16::from(cx.sh.sysctl.tcp_syn_linear_timeouts)
    {
        sk.backoff = sk.backoff.saturating_add(1);
        sk.rto_us = sk.rto_us.saturating_mul(2).min(tcp_rto_max_us(sk));
    }
    let when = tcp_clamp_rto_to_user_timeout(sk, cx.now);
    tcp_reset_xmit_timer(sk, cx, IcskPending::Retrans, when, false);
    if retransmits_timed_out(sk, cx.now, u32::from(cx.sh.sysctl.tcp_retries1) + 1, 0) {
        sk.dst = None;
    }
    TimerOutcome::Alive
}

fn tcp_rtx_probe0_timed_out(sk: &TcpSock, now: Instant) -> bool {
    let began = match sk.retrans_stamp {
        0 => sk
            .rtx_queue
            .front()
            .map_or(0, |s| tcp_time_stamp_ts(sk, s.skb_mstamp)),
        stamp => stamp,
    };
    let delta_ms = u64::from(elapsed_ms(sk, began, now));
    let mut timeout_ms = u64::from(sk.opts.rto_max_ms) * 2;
    let user = u64::from(sk.opts.user_timeout_ms);
    if user != 0 {
        if delta_ms > user {
            return true;
        }
        timeout_ms = timeout_ms.min(user);
    }
    if now.since(sk.rcv_tstamp) <= timeout_ms * NSEC_PER_MSEC {
        return false;
    }
    delta_ms > timeout_ms
}

pub(crate) fn tcp_update_rto_stats(sk: &mut TcpSock, now: Instant) {
    if sk.retransmits == 0 {
        sk.info.total_rto_recoveries = sk.info.total_rto_recoveries.wrapping_add(1);
        sk.rto_stamp = tcp_time_stamp(now);
    }
    sk.retransmits = sk.retransmits.saturating_add(1);
    sk.info.total_rto = sk.info.total_rto.saturating_add(1);
}

/// The window is closed, or a small tail waits: probe (Linux `tcp_probe_timer`).
fn tcp_probe_timer(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> TimerOutcome {
    if sk.packets_out > 0 || sk.write_queue.is_empty() {
        sk.probes_out = 0;
        sk.probes_tstamp = Instant::ZERO;
        return TimerOutcome::Alive;
    }
    let user_ns = u64::from(sk.opts.user_timeout_ms) * NSEC_PER_MSEC;
    if sk.probes_tstamp == Instant::ZERO {
        sk.probes_tstamp = cx.now;
    } else if user_ns != 0 && cx.now.since(sk.probes_tstamp) >= user_ns {
        return tcp_write_err(sk, cx);
    }
    let mut max_probes = cx.sh.sysctl.tcp_retries2;
    if sk.orphan {
        let rto_max = u64::from(tcp_rto_max_us(sk));
        let alive = u64::from(sk.rto_us) << sk.backoff.min(31) < rto_max;
        max_probes = tcp_orphan_retries(sk, cx, alive);
        if !alive && sk.backoff >= max_probes {
            return tcp_write_err(sk, cx);
        }
        if tcp_out_of_resources(sk, cx, true) {
            tcp_write_queue_purge(sk, cx);
            return TimerOutcome::Dead;
        }
    }
    if sk.probes_out >= max_probes {
        return tcp_write_err(sk, cx);
    }
    tcp_send_probe0(sk, cx);
    TimerOutcome::Alive
}

/// Sends a window probe and arms the next one.
pub fn tcp_send_probe0(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let sent = tcp_write_wakeup(sk, cx, Counter::TCPWinProbe);
    if sk.packets_out > 0 || sk.write_queue.is_empty() {
        sk.probes_out = 0;
        sk.backoff = 0;
        sk.probes_tstamp = Instant::ZERO;
        return;
    }
    sk.probes_out = sk.probes_out.saturating_add(1);
    let when = if sent == Err(XmitError::Dropped) {
        TCP_RESOURCE_PROBE_INTERVAL_US
    } else {
        if sk.backoff < cx.sh.sysctl.tcp_retries2 {
            sk.backoff += 1;
        }
        tcp_probe0_when_us(sk)
    };
    let when = tcp_clamp_probe0_to_user_timeout(sk, cx.now, when);
    tcp_reset_xmit_timer(sk, cx, IcskPending::Probe0, when, true);
}

/// Elicits an ack: with the bytes that the window takes, else with a segment below it (TM-15, TM-17, TM-19).
pub fn tcp_write_wakeup(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    mib: Counter,
) -> Result<(), XmitError> {
    if sk.state == TcpState::Close {
        return Err(XmitError::Again);
    }
    let wnd_end = sk.wnd_end();
    let head = sk.write_queue.front().map(|s| (s.seq, s.end_seq, s.len));
    let Some((seq, end_seq, len)) = head.filter(|(seq, ..)| before(*seq, wnd_end)) else {
        if tcp_urg_mode(sk)
            && between(
                sk.snd_up,
                sk.snd_una.wrapping_add(1),
                sk.snd_una.wrapping_add(0xffff),
            )
        {
            tcp_xmit_probe_skb(sk, cx, true, mib)?;
        }
        return tcp_xmit_probe_skb(sk, cx, false, mib);
    };
    let mss = tcp_current_mss(sk, cx);
    let room = wnd_end.wrapping_sub(seq);
    if before(sk.pushed_seq, end_seq) {
        sk.pushed_seq = end_seq;
    }
    if room < end_seq.wrapping_sub(seq) || len > mss {
        tcp_fragment(sk, cx, Queue::Write, 0, room.min(mss), mss);
    }
    if let Some(skb) = sk.write_queue.front_mut() {
        tcp_set_skb_tso_segs(skb, mss);
        skb.tcp_flags |= tcphdr::PSH;
    }
    tcp_transmit_skb(sk, cx, At::Head)?;
    tcp_event_new_data_sent(sk, cx);
    Ok(())
}

/// A segment without data just below the window (`urgent`: at its edge), which the peer must answer.
fn tcp_xmit_probe_skb(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    urgent: bool,
    mib: Counter,
) -> Result<(), XmitError> {
    cx.sh.mib.inc(mib);
    let seq = sk.snd_una.wrapping_sub(u32::from(!urgent));
    tcp_transmit_bare(sk, cx, seq, tcphdr::ACK)
}

/// Asks for the peer's window when repair ends (RP-33; Linux `tcp_send_window_probe`). A probe that cannot leave is no
/// error: the peer's next segment tells the window as well.
pub fn tcp_send_window_probe(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.state == TcpState::Established {
        sk.snd_wl1 = sk.rcv_nxt.wrapping_sub(1);
        let _ = tcp_xmit_probe_skb(sk, cx, false, Counter::TCPWinProbe);
    }
}

/// Arms the keepalive timer.
pub fn tcp_reset_keepalive_timer(sk: &mut TcpSock, cx: &Cx<'_, '_>, ns: u64) {
    sk.timers.set(Timer::Keepalive, cx.now + ns);
}

/// Idle time before the first keepalive probe, nanoseconds.
#[must_use]
pub fn keepalive_time_when(sk: &TcpSock, cx: &Cx<'_, '_>) -> u64 {
    let s = match sk.opts.keepidle_s {
        0 => cx.sh.sysctl.tcp_keepalive_time_s,
        s => s,
    };
    u64::from(s) * NSEC_PER_SEC
}

/// Time since the peer was last heard, nanoseconds.
#[must_use]
pub fn keepalive_time_elapsed(sk: &TcpSock, now: Instant) -> u64 {
    now.since(sk.ack.lrcvtime).min(now.since(sk.rcv_tstamp))
}

/// How long an orphan stays in FIN_WAIT2, nanoseconds (TM-22; Linux `tcp_fin_time`).
#[must_use]
pub fn tcp_fin_time(sk: &TcpSock, cx: &Cx<'_, '_>) -> u64 {
    let s = match sk.opts.linger2 {
        0 => i64::from(cx.sh.sysctl.tcp_fin_timeout_s),
        s => i64::from(s),
    };
    let rto = u64::from(sk.rto_us) * NSEC_PER_USEC;
    // RFC 9293: no shorter than the retransmissions of the peer's FIN need.
    (s.max(0) as u64 * NSEC_PER_SEC).max((rto << 2) - (rto >> 1))
}

/// Keepalive, and the end of an orphan's FIN_WAIT2 (TM-19, TM-20; Linux `tcp_keepalive_timer`).
fn tcp_keepalive_timer(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> TimerOutcome {
    if sk.state == TcpState::FinWait2 && sk.orphan {
        if sk.opts.linger2 >= 0 {
            let left = tcp_fin_time(sk, cx).saturating_sub(TCP_TIMEWAIT_LEN_NS);
            if left > 0 {
                return TimerOutcome::TimeWait(left);
            }
        }
        tcp_send_active_reset(sk, cx);
        tcp_write_queue_purge(sk, cx);
        return TimerOutcome::Dead;
    }
    if !sk.opts.keepalive || sk.in_state(&[TcpState::Close, TcpState::Listen, TcpState::SynSent]) {
        return TimerOutcome::Alive;
    }
    let idle = keepalive_time_when(sk, cx);
    // Data under way keeps the connection under watch by itself.
    if sk.packets_out > 0 || !sk.write_queue.is_empty() {
        tcp_reset_keepalive_timer(sk, cx, idle);
        return TimerOutcome::Alive;
    }
    let elapsed = keepalive_time_elapsed(sk, cx.now);
    if elapsed < idle {
        tcp_reset_keepalive_timer(sk, cx, idle - elapsed);
        return TimerOutcome::Alive;
    }
    let user_ns = u64::from(sk.opts.user_timeout_ms) * NSEC_PER_MSEC;
    let count = match sk.opts.keepcnt {
        0 => cx.sh.sysctl.tcp_keepalive_probes,
        n => n,
    };
    let over = if user_ns != 0 {
        elapsed >= user_ns && sk.probes_out > 0
    } else {
        sk.probes_out >= count
    };
    if over {
        tcp_send_active_reset(sk, cx);
        return tcp_write_err(sk, cx);
    }
    let next = if tcp_write_wakeup(sk, cx, Counter::TCPKeepAlive) == Err(XmitError::Dropped) {
        TCP_RESOURCE_PROBE_INTERVAL_US * NSEC_PER_USEC
    } else {
        sk.probes_out = sk.probes_out.saturating_add(1);
        let s = match sk.opts.keepintvl_s {
            0 => cx.sh.sysctl.tcp_keepalive_intvl_s,
            s => s,
        };
        u64::from(s) * NSEC_PER_SEC
    };
    tcp_reset_keepalive_timer(sk, cx, next);
    TimerOutcome::Alive
}

/// The delayed ack is due (Linux `tcp_delack_timer_handler`).
fn tcp_delack_timer(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.in_state(&[TcpState::Close, TcpState::Listen]) {
        return;
    }
    if sk.compressed_ack > 0 {
        tcp_send_ack(sk, cx);
        return;
    }
    sk.ack.pending &= !icsk_ack::TIMER;
    if sk.ack.pending & icsk_ack::SCHED == 0 {
        return;
    }
    if u32::from(sk.ack.pingpong) < cx.sh.sysctl.tcp_pingpong_thresh {
        // Waited in vain: expect the next answer later.
        let rto_ns = u64::from(sk.rto_us) * NSEC_PER_USEC;
        sk.ack.ato_ns = (sk.ack.ato_ns << 1).min(rto_ns);
    } else {
        sk.ack.pingpong = 0;
        sk.ack.ato_ns = TCP_ATO_MIN_NS;
    }
    tcp_send_ack(sk, cx);
    cx.sh.mib.inc(Counter::DelayedACKs);
}

/// Pacing lets the next frame go, or those that waited in the host have left (Linux `tcp_tsq_write`).
fn tcp_pace_kick(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.in_state(&[TcpState::Close, TcpState::Listen, TcpState::SynSent]) {
        return;
    }
    if sk.lost_out > sk.retrans_out && sk.snd_cwnd > sk.packets_in_flight() {
        tcp_xmit_retransmit_queue(sk, cx);
    }
    if tail_waits_on(sk, cx) {
        return;
    }
    let mss_now = tcp_current_mss(sk, cx);
    tcp_write_xmit(sk, cx, mss_now, sk.nonagle, 0);
}

/// The bytes to send are gone: the peer cannot get what it was promised.
fn tcp_fault(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> TimerOutcome {
    cx.sh.mib.inc(Counter::TCPAbortOnFault);
    tcp_send_active_reset(sk, cx);
    sk.sk_err = Some(Error::Fault);
    sk_error_report(sk, cx);
    tcp_write_queue_purge(sk, cx);
    TimerOutcome::Dead
}

/// Does what a timer that is due stands for. The caller has disarmed it ([`crate::timers::TimerTable::take_due`]).
pub fn fire_timer(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, timer: Timer) -> TimerOutcome {
    if sk.tx_fault && sk.state != TcpState::Close {
        return tcp_fault(sk, cx);
    }
    match timer {
        Timer::Retransmit => {
            if sk.in_state(&[TcpState::Close, TcpState::Listen]) {
                sk.icsk_pending = IcskPending::None;
                return TimerOutcome::Alive;
            }
            match sk.icsk_pending {
                IcskPending::None => TimerOutcome::Alive,
                IcskPending::ReoTimeout => {
                    tcp_rack_reo_timeout(sk, cx);
                    TimerOutcome::Alive
                }
                IcskPending::LossProbe => {
                    tcp_send_loss_probe(sk, cx);
                    TimerOutcome::Alive
                }
                IcskPending::Retrans => {
                    sk.icsk_pending = IcskPending::None;
                    tcp_retransmit_timer(sk, cx)
                }
                IcskPending::Probe0 => {
                    sk.icsk_pending = IcskPending::None;
                    tcp_probe_timer(sk, cx)
                }
            }
        }
        Timer::DelAck => {
            tcp_delack_timer(sk, cx);
            TimerOutcome::Alive
        }
        Timer::CompAck => {
            if sk.compressed_ack > 0 {
                tcp_send_ack(sk, cx);
            }
            TimerOutcome::Alive
        }
        Timer::Keepalive => tcp_keepalive_timer(sk, cx),
        Timer::Pacing => {
            tcp_pace_kick(sk, cx);
            TimerOutcome::Alive
        }
    }
}

/// First values of the sender when a connection is established (the sender's part of Linux's `tcp_init_transfer`): RTO,
/// congestion window, congestion control, send buffer.
pub fn tcp_init_transfer_snd(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    tcp_mtup_init(sk, cx);
    let _ = route_again(sk, cx);
    tcp_init_metrics(sk, cx);
    // RFC 5681: a handshake that had to be repeated twice begins with one segment.
    sk.snd_cwnd = if sk.info.total_retrans > 1 && sk.undo_marker != 0 {
        1
    } else {
        tcp_init_cwnd(sk)
    };
    sk.snd_cwnd_stamp = cx.now;
    cong::init(sk, cx);
    tcp_update_pacing_rate(sk, cx);
    if !sk.opts.buf_lock_snd {
        crate::sndbuf::tcp_sndbuf_expand(sk, cx);
    }
}

#[cfg(test)]
mod tests;
