//! Verdicts that come late: a frame that [`Net::transmit`](crate::net::Net::transmit) had taken did not leave after all.
//!
//! Linux knows at once whether the queueing discipline threw a segment away, and leaves it unsent. Here the segment counts as
//! sent by the time that the device is asked, so it is a loss, known before any ack could tell.

use crate::error::Error;
use crate::mib::Counter;
use crate::net::{Tuple, TxVerdict};
use crate::recovery::{tcp_enter_cwr, tcp_mark_skb_lost};
use crate::seq::after;
use crate::sock::TcpSock;
use crate::stack::{Cx, Ehash, Io, Stack};
use crate::timers::Timer;
use crate::zerocopy::mark_copied;

/// What a frame held, as its TCP header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxLate {
    /// Whose it was.
    pub tuple: Tuple,
    /// Its sequence number.
    pub seq: u32,
    /// Its payload, in bytes.
    pub len: u32,
}

impl Stack {
    /// The device did not take a frame. `Dropped` is local congestion (Linux `tcp_enter_cwr` in `tcp_transmit_skb`), `Fault`
    /// ends the connection unless the bytes have been acknowledged meanwhile; what else there is counts as lost on the way.
    pub fn tx_late(&mut self, io: &mut Io<'_>, frame: &TxLate, verdict: TxVerdict) {
        let Some(Ehash::Sock(id)) = self.ehash.get(&frame.tuple).copied() else {
            return;
        };
        if let Some((sk, mut cx)) = self.borrow(io, id) {
            match verdict {
                TxVerdict::Dropped => dropped(sk, &mut cx, frame),
                TxVerdict::Fault => fault(sk, &cx, frame),
                TxVerdict::Copied => copied(sk, frame),
                TxVerdict::Unreachable => sk.sk_err_soft = Some(Error::HostUnreach),
                TxVerdict::Sent
                | TxVerdict::Stamping
                | TxVerdict::NoSpace
                | TxVerdict::Resolving
                | TxVerdict::DeviceGone => {}
            }
            self.settle(id);
        }
    }
}

fn dropped(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, frame: &TxLate) {
    cx.sh.mib.inc(Counter::TCPLocalDrop);
    tcp_enter_cwr(sk, cx);
    let end = frame.seq.wrapping_add(frame.len);
    let mut index = 0;
    while let Some(skb) = sk.rtx_queue.get(index) {
        if !after(end, skb.seq) {
            break;
        }
        if after(skb.end_seq, frame.seq) && frame.len > 0 {
            tcp_mark_skb_lost(sk, cx, index);
        }
        index += 1;
    }
}

/// Its bytes were copied in user space: their notifications say so (spec/zerocopy.md ZC-37).
fn copied(sk: &mut TcpSock, frame: &TxLate) {
    let end = frame.seq.wrapping_add(frame.len);
    for index in 0..sk.rtx_queue.len() {
        let skb = &sk.rtx_queue[index];
        if !after(end, skb.seq) {
            break;
        }
        if let Some(uarg) = skb.ubuf.filter(|_| after(skb.end_seq, frame.seq)) {
            mark_copied(sk, uarg);
        }
    }
}

fn fault(sk: &mut TcpSock, cx: &Cx<'_, '_>, frame: &TxLate) {
    if after(frame.seq.wrapping_add(frame.len), sk.snd_una) {
        sk.tx_fault = true;
        sk.timers.set(Timer::Pacing, cx.now);
    }
}

#[cfg(test)]
mod tests;
