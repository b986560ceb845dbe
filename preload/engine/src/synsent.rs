//! SYN_SENT: the answer to our SYN, or a SYN that crossed it (Linux's `tcp_rcv_synsent_state_process`).

use sidewire_uapi::tcp::TcpState;

use crate::ack::{AckFlag, tcp_ack};
use crate::delack::{
    TCP_DELACK_MAX_NS, TCP_MAX_QUICKACKS, inet_csk_in_pingpong_mode, inet_csk_schedule_ack,
    tcp_enter_quickack_mode,
};
use crate::event::Events;
use crate::fastopen::client::tcp_rcv_fastopen_synack;
use crate::handshake::tcp_send_synack_sk;
use crate::header::tcp_time_stamp_ts;
use crate::input::{Verdict, now_s, paws_reject};
use crate::mib::Counter;
use crate::mss::{tcp_header_len, tcp_sync_mss};
use crate::mtu_probe::tcp_mtup_init;
use crate::output::tcp_send_ack;
use crate::rcvbuf::tcp_init_rcv_space;
use crate::segment::Segment;
use crate::seq::{after, between};
use crate::skb::tcphdr;
use crate::sock::{TcpSock, ecn, icsk_ack};
use crate::stack::Cx;
use crate::state::{STATE_CHANGE, tcp_reset, tcp_set_state};
use crate::state_process::{TCPOLEN_TSTAMP_ALIGNED, undo_spurious_syn};
use crate::timer::{keepalive_time_when, tcp_init_transfer_snd, tcp_reset_keepalive_timer};
use crate::timers::Timer;
use crate::urgent::tcp_urg;
use crate::window::tcp_initialize_rcv_mss;

/// MSS that a peer which sends no option is taken to have.
const MSS_ABSENT: u16 = 536;
/// Largest window without scaling.
const MAX_UNSCALED_WINDOW: u32 = 65_535;

/// A segment in SYN_SENT.
pub(crate) fn tcp_rcv_synsent_state_process(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    seg: &mut Segment,
) -> Verdict {
    // Timestamps count when we offer them, whatever was negotiated before.
    let timestamps = seg
        .opts
        .timestamps
        .filter(|_| cx.sh.sysctl.tcp_timestamps != 0);
    sk.saw_tstamp = timestamps.is_some();
    if let Some((tsval, tsecr)) = timestamps {
        sk.rcv_tsval = tsval;
        sk.rcv_tsecr = if tsecr != 0 {
            tsecr.wrapping_sub(sk.tsoffset)
        } else {
            0
        };
    }

    if seg.ack() {
        if !after(seg.ack_seq, sk.snd_una) || after(seg.ack_seq, sk.snd_nxt) {
            // An ack of an earlier connection's: after our RST the SYN may go again at once.
            if sk.retransmits == 0 {
                sk.timers
                    .set(Timer::Retransmit, cx.now + TCP_TIMEOUT_MIN_NS);
            }
            return reset_unless_rst(seg);
        }
        let now_ts = tcp_time_stamp_ts(sk, cx.now);
        if sk.saw_tstamp && sk.rcv_tsecr != 0 && !between(sk.rcv_tsecr, sk.retrans_stamp, now_ts) {
            cx.sh.mib.inc(Counter::PAWSEstab);
            return reset_unless_rst(seg);
        }
        if seg.rst() {
            tcp_reset(sk, cx);
            return Verdict::Done;
        }
        if seg.syn() {
            established(sk, cx, seg);
        }
        return Verdict::Done;
    }

    if seg.rst() {
        return Verdict::Done;
    }
    if sk.ts_recent_stamp != 0
        && sk.saw_tstamp
        && paws_reject(
            sk.ts_recent,
            sk.ts_recent_stamp,
            sk.rcv_tsval,
            false,
            cx.now,
        )
    {
        cx.sh.mib.inc(Counter::PAWSEstab);
        return Verdict::Done;
    }
    if seg.syn() {
        crossed_syn(sk, cx, seg);
    }
    Verdict::Done
}

/// Linux TCP_TIMEOUT_MIN: two jiffies.
const TCP_TIMEOUT_MIN_NS: u64 = 2 * crate::time::JIFFY_NS;

/// RFC 9293 §3.10.7.3: a bad ack is answered with a RST, a RST never is.
fn reset_unless_rst(seg: &Segment) -> Verdict {
    if seg.rst() {
        Verdict::Done
    } else {
        Verdict::Reset
    }
}

/// Takes over the peer's options, and its answer to our offer of ECN: ECE alone in a SYN-ACK, both flags in a SYN that
/// crosses ours (RFC 3168 §6.1.1; Linux `tcp_ecn_rcv_synack`, `tcp_ecn_rcv_syn`).
fn negotiate(sk: &mut TcpSock, cx: &Cx<'_, '_>, seg: &Segment) {
    let agreed = match sk.state {
        TcpState::SynRecv => tcphdr::ECE | tcphdr::CWR,
        _ => tcphdr::ECE,
    };
    if seg.flags & (tcphdr::ECE | tcphdr::CWR) != agreed {
        sk.ecn_flags &= !ecn::OK;
    }
    let sysctl = &cx.sh.sysctl;
    let mss = seg.opts.mss.unwrap_or(MSS_ABSENT);
    sk.mss_clamp = match sk.opts.maxseg {
        0 => mss,
        user => mss.min(user),
    };
    sk.sack_ok = seg.opts.sack_permitted && sysctl.tcp_sack;
    sk.wscale_ok = seg.opts.wscale.is_some() && sysctl.tcp_window_scaling;
    if sk.wscale_ok {
        sk.snd_wscale = seg.opts.wscale.unwrap_or(0);
    } else if sk.state == TcpState::SynRecv {
        // Our answer offers a scale all the same, and our windows go by it.
        sk.snd_wscale = 0;
    } else {
        sk.snd_wscale = 0;
        sk.rcv_wscale = 0;
        sk.window_clamp = sk.window_clamp.min(MAX_UNSCALED_WINDOW);
    }
    sk.tstamp_ok = sk.saw_tstamp;
    sk.tcp_header_len = tcp_header_len(sk.tstamp_ok);
    if sk.tstamp_ok {
        sk.ts_recent = sk.rcv_tsval;
        sk.ts_recent_stamp = now_s(cx.now);
    }
}

/// The SYN-ACK to our SYN.
fn established(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &mut Segment) {
    sk.irs = seg.seq;
    sk.snd_wl1 = seg.seq;
    undo_spurious_syn(sk);
    // Known before the ack is looked at: with SACK it ends a repeated SYN's loss state (Linux reads the options first).
    sk.sack_ok = seg.opts.sack_permitted && cx.sh.sysctl.tcp_sack;
    tcp_ack(sk, cx, seg, AckFlag::SLOWPATH);

    sk.rcv_nxt = seg.seq.wrapping_add(1);
    sk.rcv_wup = sk.rcv_nxt;
    // RFC 7323 §2.2: never scaled in a SYN.
    sk.snd_wnd = u32::from(seg.window);
    negotiate(sk, cx, seg);
    if sk.tstamp_ok {
        sk.advmss = sk.advmss.saturating_sub(TCPOLEN_TSTAMP_ALIGNED);
    }
    let pmtu = sk.dst.as_ref().map_or(0, |d| d.mtu);
    tcp_sync_mss(sk, cx, pmtu);
    tcp_initialize_rcv_mss(sk);
    sk.copied_seq = sk.rcv_nxt;
    tcp_finish_connect(sk, cx);
    sk.data_snd_check = true;
    let fastopen = sk.syn_fastopen || sk.syn_data;
    let fastopen_fail = fastopen && tcp_rcv_fastopen_synack(sk, cx, seg);
    if !sk.orphan {
        cx.wake(sk, STATE_CHANGE | Events::OUT | Events::SIGIO_OUT);
    }
    if fastopen_fail {
        return;
    }
    if sk.write_pending > 0 || sk.opts.defer_accept != 0 || inet_csk_in_pingpong_mode(sk, cx.sh) {
        // The ack travels with the first data.
        sk.synack_ack_waits = true;
        inet_csk_schedule_ack(sk);
        tcp_enter_quickack_mode(sk, TCP_MAX_QUICKACKS);
        sk.ack.pending |= icsk_ack::TIMER;
        sk.timers.set(Timer::DelAck, cx.now + TCP_DELACK_MAX_NS);
        return;
    }
    tcp_send_ack(sk, cx);
    tcp_urg(sk, cx, seg);
}

/// ESTABLISHED by an active open (Linux `tcp_finish_connect`).
pub(crate) fn tcp_finish_connect(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    tcp_set_state(sk, cx.sh, TcpState::Established);
    sk.ack.lrcvtime = cx.now;
    tcp_init_transfer_snd(sk, cx);
    tcp_init_rcv_space(sk, &cx.sh.sysctl, cx.now);
    sk.lsndtime = cx.now;
    if sk.opts.keepalive {
        let idle = keepalive_time_when(sk, cx);
        tcp_reset_keepalive_timer(sk, cx, idle);
    }
}

/// A SYN without ACK: the peer opens to us while we open to it (RFC 9293 §3.5, figure 8).
fn crossed_syn(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) {
    tcp_set_state(sk, cx.sh, TcpState::SynRecv);
    sk.irs = seg.seq;
    negotiate(sk, cx, seg);
    sk.rcv_nxt = seg.seq.wrapping_add(1);
    sk.copied_seq = sk.rcv_nxt;
    sk.rcv_wup = sk.rcv_nxt;
    sk.snd_wnd = u32::from(seg.window);
    sk.snd_wl1 = seg.seq;
    sk.max_window = sk.snd_wnd;
    let pmtu = sk.dst.as_ref().map_or(0, |d| d.mtu);
    tcp_mtup_init(sk, cx);
    tcp_sync_mss(sk, cx, pmtu);
    tcp_initialize_rcv_mss(sk);
    tcp_send_synack_sk(sk, cx);
}
