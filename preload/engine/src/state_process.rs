//! A segment in every state but ESTABLISHED: Linux's `tcp_rcv_state_process` (RFC 9293 §3.10.7).

use sidewire_uapi::tcp::TcpState;

use crate::ack::{AckFlag, AckOutcome, tcp_ack};
use crate::data_queue::tcp_data_queue;
use crate::event::Events;
use crate::fastopen::server as fastopen;
use crate::input::{
    Verdict, ack_each_hole, read_timestamps, tcp_drop, tcp_send_challenge_ack,
    tcp_validate_incoming,
};
use crate::metrics::tcp_update_metrics;
use crate::mib::Counter;
use crate::rcvbuf::tcp_init_rcv_space;
use crate::rtt::tcp_synack_rtt_meas;
use crate::segment::Segment;
use crate::seq::{after, before};
use crate::skb::tcphdr;
use crate::sock::{TcpSock, shutdown};
use crate::stack::Cx;
use crate::state::{STATE_CHANGE, tcp_done, tcp_reset, tcp_set_state};
use crate::synsent::tcp_rcv_synsent_state_process;
use crate::timer::{tcp_fin_time, tcp_init_transfer_snd, tcp_reset_keepalive_timer};
use crate::timewait::{TCP_TIMEWAIT_LEN_NS, tcp_time_wait};
use crate::urgent::tcp_urg;
use crate::window::tcp_initialize_rcv_mss;

/// Bytes of the timestamps option with its padding.
pub(crate) const TCPOLEN_TSTAMP_ALIGNED: u16 = 12;

/// A segment for a socket that is not ESTABLISHED (and not LISTEN, whose segments go to the stack).
pub(crate) fn tcp_rcv_state_process(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    seg: &mut Segment,
) -> Verdict {
    match sk.state {
        TcpState::Close => return Verdict::Done,
        TcpState::SynSent => return tcp_rcv_synsent_state_process(sk, cx, seg),
        _ => {}
    }
    if !fastopen::check_child(sk, cx, seg) {
        tcp_drop(sk, seg);
        return Verdict::Done;
    }
    read_timestamps(sk, seg);
    if seg.flags & (tcphdr::ACK | tcphdr::RST | tcphdr::SYN) == 0 {
        cx.sh.mib.inc(Counter::BadFlags);
        return Verdict::Done;
    }
    if !tcp_validate_incoming(sk, cx, seg) {
        tcp_drop(sk, seg);
        return Verdict::Done;
    }

    // Step 5: the ack field.
    let outcome = tcp_ack(
        sk,
        cx,
        seg,
        AckFlag::SLOWPATH | AckFlag::UPDATE_TS_RECENT | AckFlag::NO_CHALLENGE_ACK,
    );
    if outcome != AckOutcome::Ok {
        if sk.state == TcpState::SynRecv {
            return Verdict::Reset;
        }
        // An old ack is harmless while closing.
        if outcome != AckOutcome::Old {
            tcp_send_challenge_ack(sk, cx);
            tcp_drop(sk, seg);
            return Verdict::Done;
        }
    }
    match sk.state {
        TcpState::SynRecv => establish_passive(sk, cx, seg),
        TcpState::FinWait1 => {
            if sk.fastopen_rsk {
                fastopen::tcp_rcv_synrecv_state_fastopen(sk, cx);
            }
            if sk.snd_una == sk.write_seq
                && let Some(verdict) = our_fin_acked(sk, cx, seg)
            {
                return verdict;
            }
        }
        TcpState::Closing if sk.snd_una == sk.write_seq => {
            tcp_time_wait(sk, cx, false, 0);
            return Verdict::Done;
        }
        TcpState::LastAck if sk.snd_una == sk.write_seq => {
            tcp_update_metrics(sk, cx);
            tcp_done(sk, cx);
            return Verdict::Done;
        }
        _ => {}
    }

    tcp_urg(sk, cx, seg);

    let ooo_before = sk.info.rcv_ooopack;
    match sk.state {
        TcpState::CloseWait | TcpState::Closing | TcpState::LastAck
            if !before(seg.seq, sk.rcv_nxt) => {}
        TcpState::CloseWait
        | TcpState::Closing
        | TcpState::LastAck
        | TcpState::FinWait1
        | TcpState::FinWait2 => {
            // Nobody will read this: tell the peer so (RFC 1122 §4.2.2.13; RV-49).
            let data_end = seg.end_seq.wrapping_sub(u32::from(seg.fin()));
            if sk.shutdown & shutdown::RCV != 0
                && seg.end_seq != seg.seq
                && after(data_end, sk.rcv_nxt)
            {
                cx.sh.mib.inc(Counter::TCPAbortOnData);
                tcp_reset(sk, cx);
                return Verdict::Reset;
            }
            tcp_data_queue(sk, cx, seg);
        }
        TcpState::Established => tcp_data_queue(sk, cx, seg),
        _ => {}
    }
    sk.data_snd_check = true;
    ack_each_hole(sk, cx, ooo_before);
    Verdict::Done
}

/// The third ack of a handshake, passive or simultaneous.
fn establish_passive(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) {
    sk.delivered = sk.delivered.wrapping_add(1);
    if sk.srtt_us == 0 {
        let req = sk.fastopen_synack.as_ref().filter(|_| sk.fastopen_rsk);
        let sent_once = req.filter(|req| req.num_retrans == 0);
        let snt_synack = sent_once.map(|req| req.snt_synack);
        tcp_synack_rtt_meas(sk, cx, snt_synack);
    }
    if sk.tstamp_ok {
        sk.advmss = sk.advmss.saturating_sub(TCPOLEN_TSTAMP_ALIGNED);
    }
    if sk.fastopen_rsk {
        fastopen::tcp_rcv_synrecv_state_fastopen(sk, cx);
    } else {
        undo_spurious_syn(sk);
        sk.retrans_stamp = 0;
        tcp_init_transfer_snd(sk, cx);
        sk.copied_seq = sk.rcv_nxt;
        tcp_init_rcv_space(sk, &cx.sh.sysctl, cx.now);
    }
    tcp_set_state(sk, cx.sh, TcpState::Established);
    cx.wake(sk, STATE_CHANGE | Events::OUT | Events::SIGIO_OUT);

    sk.snd_una = seg.ack_seq;
    sk.snd_wnd = u32::from(seg.window) << sk.snd_wscale;
    sk.snd_wl1 = seg.seq;
    sk.lsndtime = cx.now;
    tcp_initialize_rcv_mss(sk);
    if sk.shutdown & shutdown::SEND != 0 {
        crate::close::tcp_shutdown(sk, cx, shutdown::SEND);
    }
}

/// A SYN or SYN-ACK whose retransmission was not needed leaves the window as it was
/// (Linux `tcp_try_undo_spurious_syn`).
pub(crate) fn undo_spurious_syn(sk: &mut TcpSock) {
    if sk.undo_marker != 0
        && sk.retrans_stamp != 0
        && sk.saw_tstamp
        && sk.retrans_stamp == sk.rcv_tsecr
    {
        sk.undo_marker = 0;
    }
}

/// FIN_WAIT1 and everything acked: FIN_WAIT2, or for an orphan what follows it. `Some` ends the processing.
fn our_fin_acked(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) -> Option<Verdict> {
    tcp_set_state(sk, cx.sh, TcpState::FinWait2);
    sk.shutdown |= shutdown::SEND;
    if !sk.orphan {
        // A lingering close waits for this.
        cx.wake(sk, STATE_CHANGE);
        return None;
    }
    if sk.opts.linger2 < 0 {
        tcp_done(sk, cx);
        cx.sh.mib.inc(Counter::TCPAbortOnData);
        return Some(Verdict::Reset);
    }
    let data_end = seg.end_seq.wrapping_sub(u32::from(seg.fin()));
    if seg.end_seq != seg.seq && after(data_end, sk.rcv_nxt) {
        tcp_done(sk, cx);
        cx.sh.mib.inc(Counter::TCPAbortOnData);
        return Some(Verdict::Reset);
    }
    let tmo = tcp_fin_time(sk, cx);
    if tmo > TCP_TIMEWAIT_LEN_NS {
        tcp_reset_keepalive_timer(sk, cx, tmo - TCP_TIMEWAIT_LEN_NS);
    } else if seg.fin() {
        // The FIN of this very segment is still to be taken.
        tcp_reset_keepalive_timer(sk, cx, tmo);
    } else {
        tcp_time_wait(sk, cx, true, tmo);
        return Some(Verdict::Done);
    }
    None
}

#[cfg(test)]
mod tests;
