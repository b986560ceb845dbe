//! Received data on its way to the program: Linux's `tcp_data_queue`, `tcp_fin` and their kin.

use sidewire_uapi::tcp::TcpState;

use crate::delack::{
    TCP_MAX_QUICKACKS, inet_csk_enter_pingpong_mode, inet_csk_schedule_ack,
    tcp_enter_quickack_mode, tcp_update_ato,
};
use crate::event::Events;
use crate::input::tcp_drop;
use crate::memory::Frag;
use crate::mib::Counter;
use crate::ofo::{
    tcp_data_queue_ofo, tcp_dsack_set, tcp_ofo_queue, tcp_sack_remove, tcp_sack_reset, trim_rx_head,
};
use crate::output::tcp_send_ack;
use crate::rcvbuf::{
    rx_truesize, tcp_grow_window, tcp_measure_rcv_mss, tcp_rcv_rtt_measure, tcp_try_rmem_schedule,
};
use crate::segment::Segment;
use crate::seq::{after, before};
use crate::skb::{RxSkb, tcphdr};
use crate::sock::{TcpSock, ecn, icsk_ack, shutdown};
use crate::stack::Cx;
use crate::state::{STATE_CHANGE, tcp_set_state};
use crate::timewait::tcp_time_wait;

/// Segments of at least so many bytes may open the window.
const GROW_MIN_LEN: u32 = 128;
/// Quick acks around a congestion mark.
const ECN_QUICKACKS: u8 = 2;

/// Wakes readers (Linux `sk_data_ready`).
pub(crate) fn sk_data_ready(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let told = wake_async_waitd(sk, Events::SIGIO_IN);
    cx.wake(sk, Events::IN | told);
}

/// What the owner is told: nothing while a reader sleeps (Linux `sk_wake_async`, `SOCK_WAKE_WAITD`).
fn wake_async_waitd(sk: &TcpSock, band: Events) -> Events {
    if sk.async_waitdata {
        Events::empty()
    } else {
        band
    }
}

/// True when a reader that waits for `target` bytes should wake (Linux `tcp_epollin_ready`).
pub(crate) fn tcp_epollin_ready(sk: &TcpSock, target: u32) -> bool {
    let avail = sk.rcv_nxt.wrapping_sub(sk.copied_seq) as i32;
    if avail <= 0 {
        return false;
    }
    // With the window all but closed no more would come.
    avail as u32 >= target || sk.rmem_alloc > sk.rcvbuf || sk.receive_window() <= sk.ack.rcv_mss
}

/// Wakes readers when there is enough for them (Linux `tcp_data_ready`).
pub(crate) fn tcp_data_ready(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if tcp_epollin_ready(sk, sk.opts.rcvlowat) || sk.sock_done {
        sk_data_ready(sk, cx);
    }
}

/// Appends to the receive queue and moves `rcv_nxt`. `skb.seq` is `rcv_nxt`.
#[inline]
pub(crate) fn tcp_queue_rcv(sk: &mut TcpSock, skb: RxSkb) {
    debug_assert_eq!(skb.seq, sk.rcv_nxt);
    let delta = skb.end_seq.wrapping_sub(sk.rcv_nxt);
    sk.info.bytes_received += u64::from(delta);
    sk.rcv_nxt = skb.end_seq;
    sk.rmem_alloc += skb.truesize;
    sk.receive_queue.push_back(skb);
}

/// Makes a queueable run of a segment, taking its payload.
#[inline]
pub(crate) fn rx_skb(seg: &mut Segment, payload: Frag, wall_ns: u64) -> RxSkb {
    RxSkb {
        seq: seg.seq.wrapping_add(u32::from(seg.syn())),
        end_seq: seg.end_seq,
        truesize: rx_truesize(payload.len),
        frag: payload,
        tstamp_ns: if seg.tstamp_ns != 0 {
            seg.tstamp_ns
        } else {
            wall_ns
        },
        fin: seg.fin(),
    }
}

/// Bookkeeping of every segment with new data (Linux `tcp_event_data_recv`).
pub(crate) fn tcp_event_data_recv(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) {
    inet_csk_schedule_ack(sk);
    tcp_measure_rcv_mss(sk, seg);
    tcp_rcv_rtt_measure(sk, cx.now);
    tcp_update_ato(sk, cx.now);
    tcp_ecn_check_ce(sk, seg);
    if seg.len >= GROW_MIN_LEN {
        tcp_grow_window(sk, cx.sh, seg.len, rx_truesize(seg.len));
    }
}

/// Looks at the congestion mark of a segment (RFC 3168 §6.1.3; Linux `tcp_ecn_check_ce`).
fn tcp_ecn_check_ce(sk: &mut TcpSock, seg: &Segment) {
    const CE: u8 = 3;
    const NOT_ECT: u8 = 0;
    if sk.ecn_flags & ecn::OK == 0 {
        return;
    }
    match seg.tos & CE {
        NOT_ECT => {
            // A retransmission as a rule, for these carry no ECT.
            if sk.ecn_flags & ecn::SEEN != 0 {
                tcp_enter_quickack_mode(sk, ECN_QUICKACKS);
            }
        }
        CE => {
            if sk.ecn_flags & ecn::DEMAND_CWR == 0 {
                tcp_enter_quickack_mode(sk, ECN_QUICKACKS);
                sk.ecn_flags |= ecn::DEMAND_CWR;
            }
            sk.ecn_flags |= ecn::SEEN;
        }
        _ => sk.ecn_flags |= ecn::SEEN,
    }
}

/// The sender has reduced its window: no more need to ask (Linux `tcp_ecn_accept_cwr`).
fn tcp_ecn_accept_cwr(sk: &mut TcpSock, seg: &Segment) {
    if seg.flags & tcphdr::CWR != 0 {
        sk.ecn_flags &= !ecn::DEMAND_CWR;
        if seg.seq != seg.end_seq {
            sk.ack.pending |= icsk_ack::NOW;
        }
    }
}

/// The data of a segment that passed all checks (Linux `tcp_data_queue`).
pub(crate) fn tcp_data_queue(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &mut Segment) {
    if seg.seq == seg.end_seq {
        return;
    }
    tcp_ecn_accept_cwr(sk, seg);
    sk.duplicate_sack = None;
    let rcv_nxt = sk.rcv_nxt;
    let window = sk.receive_window();

    if seg.seq == rcv_nxt {
        // A bare FIN costs no buffer, and some stacks send it until the window opens.
        if window == 0 && !(seg.len == 0 && seg.fin()) {
            cx.sh.mib.inc(Counter::TCPZeroWindowDrop);
            out_of_window(sk, seg);
            return;
        }
        queue_and_out(sk, cx, seg);
        return;
    }
    if !after(seg.end_seq, rcv_nxt) {
        // A retransmission of what is here: the peer may have lost our ack, so it gets one at once.
        cx.sh.mib.inc(Counter::DelayedACKLost);
        tcp_dsack_set(sk, cx.sh, seg.seq, seg.end_seq);
        out_of_window(sk, seg);
        return;
    }
    if !before(seg.seq, rcv_nxt.wrapping_add(window)) {
        cx.sh.mib.inc(Counter::OutOfWindow);
        out_of_window(sk, seg);
        return;
    }
    if before(seg.seq, rcv_nxt) {
        tcp_dsack_set(sk, cx.sh, seg.seq, rcv_nxt);
        if window == 0 {
            cx.sh.mib.inc(Counter::TCPZeroWindowDrop);
            out_of_window(sk, seg);
            return;
        }
        queue_and_out(sk, cx, seg);
        return;
    }
    let gso_segs = seg.gso_segs;
    let skb = take_skb(cx, seg);
    if let Some(skb) = skb {
        tcp_data_queue_ofo(sk, cx, skb, gso_segs);
    }
}

/// Acks at once what is not queued.
fn out_of_window(sk: &mut TcpSock, seg: &Segment) {
    tcp_drop(sk, seg);
    tcp_enter_quickack_mode(sk, TCP_MAX_QUICKACKS);
    inet_csk_schedule_ack(sk);
}

/// The segment as a queueable run; a bare FIN gets an empty fragment. `None` when there is nothing to refer to.
fn take_skb(cx: &Cx<'_, '_>, seg: &mut Segment) -> Option<RxSkb> {
    let payload = match seg.payload.take() {
        Some(frag) => frag,
        None if seg.len == 0 => Frag::empty(),
        None => return None,
    };
    Some(rx_skb(seg, payload, cx.wall_ns))
}

/// Queues a segment that begins at or before `rcv_nxt` and ends behind it.
fn queue_and_out(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &mut Segment) {
    if !tcp_try_rmem_schedule(sk, cx, seg.seq) {
        sk.ack.pending |= icsk_ack::NOMEM | icsk_ack::NOW;
        inet_csk_schedule_ack(sk);
        sk_data_ready(sk, cx);
        // The reader must be able to go on: one segment more than the bound when the queue is empty.
        if !sk.receive_queue.is_empty() && seg.len > 0 {
            cx.sh.mib.inc(Counter::TCPRcvQDrop);
            tcp_drop(sk, seg);
            return;
        }
    }
    let Some(mut skb) = take_skb(cx, seg) else {
        return;
    };
    let overlap = sk.rcv_nxt.wrapping_sub(skb.seq);
    if overlap > 0 {
        trim_rx_head(&mut skb, overlap);
    }
    tcp_queue_rcv(sk, skb);
    if seg.len > 0 {
        tcp_event_data_recv(sk, cx, seg);
    }
    if seg.fin() {
        tcp_fin(sk, cx);
    }
    if !sk.ofo_queue.is_empty() {
        if tcp_ofo_queue(sk, cx) {
            tcp_fin(sk, cx);
        }
        // RFC 5681 §4.2: at once when a gap is filled.
        if sk.ofo_queue.is_empty() {
            sk.ack.pending |= icsk_ack::NOW;
        }
    }
    if sk.num_sacks != 0 {
        tcp_sack_remove(sk);
    }
    if !sk.orphan {
        tcp_data_ready(sk, cx);
    }
}

/// The peer's FIN is in order (Linux `tcp_fin`).
pub(crate) fn tcp_fin(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    inet_csk_schedule_ack(sk);
    sk.shutdown |= shutdown::RCV;
    sk.sock_done = true;
    match sk.state {
        TcpState::SynRecv | TcpState::Established => {
            tcp_set_state(sk, cx.sh, TcpState::CloseWait);
            inet_csk_enter_pingpong_mode(sk, cx.sh);
        }
        TcpState::FinWait1 => {
            // Both sides close at the same time.
            tcp_send_ack(sk, cx);
            tcp_set_state(sk, cx.sh, TcpState::Closing);
        }
        TcpState::FinWait2 => {
            tcp_send_ack(sk, cx);
            tcp_time_wait(sk, cx, false, 0);
        }
        _ => {}
    }
    // Nothing can come behind a FIN.
    for skb in sk.ofo_queue.drain(..) {
        sk.rmem_alloc -= skb.truesize;
    }
    if sk.sack_ok {
        tcp_sack_reset(sk);
    }
    if !sk.orphan {
        let both = sk.shutdown == shutdown::MASK || sk.state == TcpState::Close;
        let band = if both {
            Events::SIGIO_HUP
        } else {
            Events::SIGIO_IN
        };
        let told = wake_async_waitd(sk, band);
        cx.wake(sk, STATE_CHANGE | told);
    }
}
