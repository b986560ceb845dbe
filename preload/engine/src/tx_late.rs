//! Verdicts that come late: a frame that [`Net::transmit`](crate::net::Net::transmit) had queued did not leave after all.
//!
//! Linux knows at once whether the queueing discipline threw a segment away, and leaves it unsent: `snd_nxt` has not moved.
//! Here it has by the time that the device is asked. As long as nothing newer has left, the segment becomes unsent again, and
//! what waits behind it before the device is taken back with it ([`Net::recall`](crate::net::Net::recall)). Otherwise it is a
//! loss, known before any ack could tell.

use crate::delack::{TCP_DELACK_MAX_NS, inet_csk_schedule_ack, tcp_send_delayed_ack};
use crate::error::Error;
use crate::mib::Counter;
use crate::net::{Tuple, TxVerdict};
use crate::output::tcp_send_ack;
use crate::recovery::{tcp_enter_cwr, tcp_in_cwnd_reduction, tcp_mark_skb_lost};
use crate::retransmit::rtx_index;
use crate::seq::{after, before};
use crate::skb::{Skb, tcphdr};
use crate::sock::{CaState, TcpSock, icsk_ack};
use crate::stack::{Cx, Ehash, Io, Stack};
use crate::timer::{tcp_check_probe_timer, tcp_clear_xmit_timer};
use crate::timers::Timer;
use crate::tso::tcp_adjust_pcount;
use crate::zerocopy::mark_copied;

/// What a frame held, as its TCP header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxLate {
    /// Whose it was.
    pub tuple: Tuple,
    /// Its sequence number.
    pub seq: u32,
    /// One past its last, FIN counted; `seq` for a bare ack.
    pub end_seq: u32,
}

impl Stack {
    /// The device did not take a frame. `Dropped` is local congestion (Linux `tcp_enter_cwr` in `tcp_transmit_skb`), `Fault`
    /// ends the connection unless the bytes have been acknowledged meanwhile; what else there is counts as lost on the way.
    /// Of several frames the newest is to be told of first. True of the first one that ends its connection.
    pub fn tx_late(&mut self, io: &mut Io<'_>, frame: &TxLate, verdict: TxVerdict) -> bool {
        let Some(Ehash::Sock(id)) = self.ehash.get(&frame.tuple).copied() else {
            return false;
        };
        let mut ends = false;
        if let Some((sk, mut cx)) = self.borrow_bh(io, id) {
            match verdict {
                TxVerdict::Dropped => dropped(sk, &mut cx, frame),
                TxVerdict::Fault => ends = fault(sk, &cx, frame),
                TxVerdict::Copied => copied(sk, frame),
                TxVerdict::Unreachable => sk.sk_err_soft = Some(Error::HostUnreach),
                TxVerdict::Sent
                | TxVerdict::Queued(_)
                | TxVerdict::Stamping
                | TxVerdict::NoSpace
                | TxVerdict::DeviceGone => {}
            }
            self.settle(id);
        }
        ends
    }
}

fn dropped(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, frame: &TxLate) {
    cx.sh.mib.inc(Counter::TCPLocalDrop);
    if frame.seq != frame.end_seq {
        let mut pcount = 0;
        // A retransmission holds nothing newer back.
        let new = sk
            .rtx_queue
            .get(rtx_index(sk, frame.seq))
            .is_some_and(|skb| before(skb.seq, frame.end_seq) && !skb.ever_retransmitted());
        if new {
            let back = cx.net.recall(&frame.tuple, frame.end_seq);
            for behind in back.iter().rev() {
                pcount += unsend(sk, cx, behind, false);
            }
            // They carried acks, too.
            let received =
                sk.info.bytes_received > 0 && cx.now.since(sk.ack.lrcvtime) < TCP_DELACK_MAX_NS;
            if !back.is_empty() && received {
                inet_csk_schedule_ack(sk);
                tcp_send_delayed_ack(sk, cx);
            }
        }
        pcount += unsend(sk, cx, frame, true);
        if pcount > 0 {
            unsent(sk, cx, pcount);
        }
    }
    tcp_enter_cwr(sk, cx);
}

/// A frame has not left: its buffers become unsent when nothing newer has left and no other copy of them, else they are lost.
/// Answers how many segments are unsent now. `tried`: the device was asked.
fn unsend(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, frame: &TxLate, tried: bool) -> u32 {
    let mut pcount = 0;
    while let Some(skb) = sk.rtx_queue.pop_back_if(|skb| {
        !before(skb.seq, frame.seq)
            && !after(skb.end_seq, frame.end_seq)
            && skb.sacked.is_empty()
            && skb.tcp_flags & tcphdr::SYN == 0
    }) {
        pcount += skb.pcount();
        sk.snd_nxt = skb.seq;
        tcp_adjust_pcount(sk, skb.sacked, skb.pcount() as i32);
        if !tried {
            uncount(sk, cx, &skb);
        }
        sk.write_queue.push_front(skb);
    }
    let mut index = rtx_index(sk, frame.seq);
    while let Some(skb) = sk.rtx_queue.get_mut(index) {
        if !after(frame.end_seq, skb.seq) {
            break;
        }
        skb.ticket = None;
        tcp_mark_skb_lost(sk, cx, index);
        index += 1;
    }
    pcount
}

/// A segment was never tried: it does not count as sent. (One that was dropped does, as in Linux.)
fn uncount(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, skb: &Skb) {
    let pcount = skb.pcount();
    if skb.len > 0 {
        sk.info.data_segs_out = sk.info.data_segs_out.wrapping_sub(pcount);
        sk.info.bytes_sent -= u64::from(skb.len);
    }
    cx.sh.mib.sub(Counter::OutSegs, u64::from(pcount));
    sk.info.segs_out = sk.info.segs_out.wrapping_sub(pcount);
}

/// `snd_nxt` has gone back by `pcount` segments: what was noted of them when they were sent goes, too. What is unsent is tried
/// again with the next ack or send; when none can come, by the probe timer, as after a local drop in Linux's
/// `__tcp_push_pending_frames`.
fn unsent(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, pcount: u32) {
    let snd_nxt = sk.snd_nxt;
    if tcp_in_cwnd_reduction(sk) {
        sk.prr_out = sk.prr_out.saturating_sub(pcount);
    }
    if sk.ca_state != CaState::Open && after(sk.high_seq, snd_nxt) {
        sk.high_seq = snd_nxt;
    }
    if after(sk.snd_sml, snd_nxt) {
        sk.snd_sml = sk.snd_una;
    }
    if sk.tlp_high_seq != 0 && after(sk.tlp_high_seq, snd_nxt) {
        sk.tlp_high_seq = 0;
    }
    if sk.opts.pacing_needed
        && let Some(skb) = sk.write_queue.front()
    {
        sk.tcp_wstamp_ns = sk.tcp_wstamp_ns.min(skb.skb_mstamp);
        sk.timers.cancel(Timer::Pacing);
    }
    // Room in a queue is no reason to try at once what was just thrown away.
    if core::mem::take(&mut sk.tx_blocked) {
        sk.tsq_throttled = false;
        cx.sh.tx_blocked.retain(|id| *id != cx.id);
        if sk.ack_now || sk.ack.pending & icsk_ack::NOW != 0 {
            tcp_send_ack(sk, cx);
        }
    }
    if sk.packets_out == 0 && !sk.fastopen_rsk {
        tcp_clear_xmit_timer(sk);
        tcp_check_probe_timer(sk, cx);
    }
}

/// Its bytes were copied in user space: their notifications say so (ZC-37).
fn copied(sk: &mut TcpSock, frame: &TxLate) {
    for index in 0..sk.rtx_queue.len() {
        let skb = &sk.rtx_queue[index];
        if !after(frame.end_seq, skb.seq) {
            break;
        }
        if let Some(uarg) = skb.ubuf.filter(|_| after(skb.end_seq, frame.seq)) {
            mark_copied(sk, uarg);
        }
    }
}

/// True the first time.
fn fault(sk: &mut TcpSock, cx: &Cx<'_, '_>, frame: &TxLate) -> bool {
    if !after(frame.end_seq, sk.snd_una) {
        return false;
    }
    sk.timers.set(Timer::Pacing, cx.now);
    !core::mem::replace(&mut sk.tx_fault, true)
}

#[cfg(test)]
mod tests;
