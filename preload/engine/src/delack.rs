//! When an ack goes out: quick acks, delayed acks, ping-pong mode (RV-37 to RV-46).

use crate::output::tcp_send_ack;
use crate::sock::{TcpSock, icsk_ack, shutdown};
use crate::stack::{Cx, Shared};
use crate::time::{HZ, Instant, JIFFY_NS, NSEC_PER_MSEC, NSEC_PER_SEC, NSEC_PER_USEC};
use crate::timers::Timer;
use crate::window::{TCP_ATO_MIN_NS, tcp_window_by_space};

/// Acks in quick-ack mode, at most.
pub const TCP_MAX_QUICKACKS: u8 = 16;
/// Shortest delay of an ack, nanoseconds.
pub const TCP_DELACK_MIN_NS: u64 = 40 * NSEC_PER_MSEC;
/// Longest delay of an ack, nanoseconds.
pub const TCP_DELACK_MAX_NS: u64 = 200 * NSEC_PER_MSEC;
/// Duplicate acks before a hole may be reported in compressed form.
const TCP_FASTRETRANS_THRESH: u8 = 3;

/// Notes that an ack is due.
#[inline]
pub(crate) fn inet_csk_schedule_ack(sk: &mut TcpSock) {
    sk.ack.pending |= icsk_ack::SCHED;
}

/// True when an ack is due.
#[inline]
pub(crate) fn inet_csk_ack_scheduled(sk: &TcpSock) -> bool {
    sk.ack.pending & icsk_ack::SCHED != 0
}

/// True when the session looks interactive: acks then travel with the answers.
#[inline]
pub(crate) fn inet_csk_in_pingpong_mode(sk: &TcpSock, sh: &Shared) -> bool {
    u32::from(sk.ack.pingpong) >= sh.sysctl.tcp_pingpong_thresh
}

/// Calls the session interactive.
#[inline]
pub(crate) fn inet_csk_enter_pingpong_mode(sk: &mut TcpSock, sh: &Shared) {
    sk.ack.pingpong = sh.sysctl.tcp_pingpong_thresh.min(u32::from(u8::MAX)) as u8;
}

/// Allows up to `max` quick acks, as many as half the window has segments (Linux `tcp_incr_quickack`).
pub(crate) fn tcp_incr_quickack(sk: &mut TcpSock, max: u8) {
    let quickacks = match sk.rcv_wnd / (2 * sk.ack.rcv_mss).max(1) {
        0 => 2,
        n => n,
    };
    let quickacks = quickacks.min(u32::from(max)) as u8;
    sk.ack.quick = sk.ack.quick.max(quickacks);
}

/// Starts quick-ack mode (Linux `tcp_enter_quickack_mode`).
pub(crate) fn tcp_enter_quickack_mode(sk: &mut TcpSock, max: u8) {
    tcp_incr_quickack(sk, max);
    sk.ack.pingpong = 0;
    sk.ack.ato_ns = TCP_ATO_MIN_NS;
}

/// True when every segment is acked at once.
#[inline]
pub(crate) fn tcp_in_quickack_mode(sk: &TcpSock, sh: &Shared) -> bool {
    sk.route_metrics().quickack || (sk.ack.quick != 0 && !inet_csk_in_pingpong_mode(sk, sh))
}

/// Learns from the arrival of data how long acks may wait (the first half of Linux's `tcp_event_data_recv`).
pub(crate) fn tcp_update_ato(sk: &mut TcpSock, now: Instant) {
    let rto_ns = u64::from(sk.rto_us) * NSEC_PER_USEC;
    if sk.ack.ato_ns == 0 {
        // The first data of all: assume a sender in slow start, who needs acks to grow.
        tcp_incr_quickack(sk, TCP_MAX_QUICKACKS);
        sk.ack.ato_ns = TCP_ATO_MIN_NS;
    } else {
        let gap = now - sk.ack.lrcvtime;
        if gap <= TCP_ATO_MIN_NS / 2 {
            sk.ack.ato_ns = sk.ack.ato_ns / 2 + TCP_ATO_MIN_NS / 2;
        } else if gap < sk.ack.ato_ns {
            sk.ack.ato_ns = (sk.ack.ato_ns / 2 + gap).min(rto_ns);
        } else if gap > rto_ns {
            // The sender restarts from a small window.
            tcp_incr_quickack(sk, TCP_MAX_QUICKACKS);
        }
    }
    sk.ack.lrcvtime = now;
}

/// Longest delay that the peer's RTO allows, nanoseconds (Linux `tcp_delack_max`).
fn tcp_delack_max_ns(sk: &TcpSock) -> u64 {
    let rto_min = u64::from(sk.opts.rto_min_us) * NSEC_PER_USEC;
    let from_rto_min = rto_min.max(2 * JIFFY_NS) - JIFFY_NS;
    (u64::from(sk.opts.delack_max_us) * NSEC_PER_USEC).min(from_rto_min)
}

/// Arms the delayed-ack timer (Linux `tcp_send_delayed_ack`).
pub(crate) fn tcp_send_delayed_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let mut ato = sk.ack.ato_ns;
    if ato > TCP_DELACK_MIN_NS {
        let interactive = inet_csk_in_pingpong_mode(sk, cx.sh);
        let mut max_ato = if interactive || sk.ack.pending & icsk_ack::PUSHED != 0 {
            TCP_DELACK_MAX_NS
        } else {
            (HZ / 2) * (NSEC_PER_SEC / HZ)
        };
        if sk.srtt_us != 0 {
            let rtt = u64::from(sk.srtt_us >> 3) * NSEC_PER_USEC;
            max_ato = max_ato.min(rtt.max(TCP_DELACK_MIN_NS));
        }
        ato = ato.min(max_ato);
    }
    ato = ato.min(tcp_delack_max_ns(sk));

    // Without an estimate, as for the FIN of a peer that sent nothing, at the next tick of Linux's clock: a program that
    // closes before needs one segment for both.
    let mut timeout = if ato == 0 {
        Instant((cx.now.0 / JIFFY_NS + 1) * JIFFY_NS)
    } else {
        cx.now + ato
    };
    if sk.ack.pending & icsk_ack::TIMER != 0 {
        let armed = sk.timers.at(Timer::DelAck);
        if armed <= cx.now + ato / 4 {
            tcp_send_ack(sk, cx);
            return;
        }
        timeout = timeout.min(armed);
    }
    sk.ack.pending |= icsk_ack::SCHED | icsk_ack::TIMER;
    sk.timers.set(Timer::DelAck, timeout);
}

/// Decides about the ack that is due (Linux `__tcp_ack_snd_check`). `ofo_possible`: the segment may have left a hole.
pub(crate) fn __tcp_ack_snd_check(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, ofo_possible: bool) {
    let more_than_a_frame = sk.rcv_nxt.wrapping_sub(sk.rcv_wup) > sk.ack.rcv_mss
        && (sk.rcv_nxt.wrapping_sub(sk.copied_seq) < sk.opts.rcvlowat
            || tcp_window_by_space(sk, &cx.sh.sysctl) >= sk.rcv_wnd);
    if more_than_a_frame || tcp_in_quickack_mode(sk, cx.sh) || sk.ack.pending & icsk_ack::NOW != 0 {
        tcp_send_ack(sk, cx);
        return;
    }
    if !ofo_possible || sk.ofo_queue.is_empty() {
        tcp_send_delayed_ack(sk, cx);
        return;
    }
    if !sk.sack_ok || u32::from(sk.compressed_ack) >= cx.sh.sysctl.tcp_comp_sack_nr {
        tcp_send_ack(sk, cx);
        return;
    }
    if sk.compressed_ack_rcv_nxt != sk.rcv_nxt {
        sk.compressed_ack_rcv_nxt = sk.rcv_nxt;
        sk.dup_ack_counter = 0;
    }
    if sk.dup_ack_counter < TCP_FASTRETRANS_THRESH {
        sk.dup_ack_counter += 1;
        tcp_send_ack(sk, cx);
        return;
    }
    // Later ones wait for 5 % of an RTT: each carries all that the earlier would have said.
    sk.compressed_ack = sk.compressed_ack.saturating_add(1);
    if sk.timers.armed(Timer::CompAck) {
        return;
    }
    let mut rtt_us8 = sk.tuning.rtt_us;
    if sk.srtt_us != 0 && sk.srtt_us < rtt_us8 {
        rtt_us8 = sk.srtt_us;
    }
    let delay =
        (u64::from(rtt_us8) * (NSEC_PER_USEC >> 3) / 20).min(cx.sh.sysctl.tcp_comp_sack_delay_ns);
    sk.timers.set(Timer::CompAck, cx.now + delay);
}

/// [`__tcp_ack_snd_check`] when an ack is due at all.
pub(crate) fn tcp_ack_snd_check(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if inet_csk_ack_scheduled(sk) {
        __tcp_ack_snd_check(sk, cx, true);
    }
}

/// Sends compressed acks that wait, before the block that they were to report leaves the option
/// (Linux `tcp_sack_compress_send_ack`).
pub(crate) fn tcp_sack_compress_send_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.compressed_ack == 0 {
        return;
    }
    sk.timers.cancel(Timer::CompAck);
    sk.compressed_ack = 0;
    tcp_send_ack(sk, cx);
}

/// The program has read `copied` bytes: is that worth an ack (Linux `tcp_cleanup_rbuf`)?
pub(crate) fn tcp_cleanup_rbuf(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, copied: usize) {
    let mut time_to_ack = false;
    if inet_csk_ack_scheduled(sk) {
        let pushed = sk.ack.pending & icsk_ack::PUSHED2 != 0
            || (sk.ack.pending & icsk_ack::PUSHED != 0 && !inet_csk_in_pingpong_mode(sk, cx.sh));
        time_to_ack = sk.rcv_nxt.wrapping_sub(sk.rcv_wup) > sk.ack.rcv_mss
            || (copied > 0 && pushed && sk.rmem_alloc == 0);
    }
    if copied > 0 && !time_to_ack && sk.shutdown & shutdown::RCV == 0 {
        let now = sk.receive_window();
        if now.saturating_mul(2) <= sk.window_clamp {
            let new = tcp_window_by_space(sk, &cx.sh.sysctl);
            time_to_ack = new != 0 && new >= now.saturating_mul(2);
        }
    }
    if time_to_ack {
        tcp_send_ack(sk, cx);
    }
}

#[cfg(test)]
mod tests;
