//! TCP small queues: what of a connection waits in the host and has not left its device (Linux `tcp_small_queue_check`,
//! `skb_still_in_host_queue`).
//!
//! More than about a millisecond of it would only be delay: for the connection itself, whose round-trip time it adds to, and
//! for whoever shares the device. And a segment that still waits here is not sent again.

use crate::info::tcp_compute_delivery_rate;
use crate::mib::Counter;
use crate::net::HostQueue;
use crate::skb::SKB_TRUESIZE;
use crate::sock::TcpSock;
use crate::stack::Cx;
use crate::time::{Instant, NSEC_PER_SEC, NSEC_PER_USEC};
use crate::timers::Timer;

/// `sk_pacing_shift`: the bytes that the pacing rate gives in so small a part of a second, 1/1024, may wait.
const PACING_SHIFT: u32 = 10;
/// Linux hears of each frame that leaves the device; here the queue is looked at again after the time that the excess takes
/// at the rate of late, within these bounds.
const LOOK_MIN_NS: u64 = 250 * NSEC_PER_USEC;
const LOOK_MAX_NS: u64 = 10_000 * NSEC_PER_USEC;
/// Looks without success after which the next one comes later.
const LOOKS: u8 = 2;

/// A send is taken for one as long as its parts are not further apart, in nanoseconds.
const PAUSE_MAX_NS: u64 = 1_000 * NSEC_PER_USEC;

/// Where [`crate::output::tcp_write_xmit`] stopped in a call since what it had made so far was still to be handed over. Linux
/// hands each segment over as it makes it, so what follows belongs to the same send: it has the same time, is not kept waiting
/// for retransmissions, and only its end says whether the congestion window was used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct XmitPause {
    /// The time of the send.
    pub(crate) at: Instant,
    /// What had been sent by then, and what had come.
    pub(crate) snd_nxt: u32,
    pub(crate) segs_in: u32,
    /// How it was called.
    pub(crate) mss_now: u32,
    pub(crate) nonagle: u8,
    pub(crate) push_one: i32,
    /// It goes on now.
    pub(crate) goes_on: bool,
}

impl XmitPause {
    /// True when nothing came between.
    pub(crate) fn lasts(&self, sk: &TcpSock, now: Instant) -> bool {
        self.snd_nxt == sk.snd_nxt
            && self.segs_in == sk.info.segs_in
            && now.since(self.at) <= PAUSE_MAX_NS
    }
}

/// True when a buffer of this `truesize` has to wait, since enough of the connection waits in the host. A retransmission may
/// find twice as much there (`factor` 1, else 0).
pub(crate) fn tcp_small_queue_check(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    truesize: u32,
    factor: u32,
) -> bool {
    // With nothing behind it no ack would let it go.
    if sk.rtx_queue.len() <= 1 {
        return false;
    }
    let mut limit = (2 * u64::from(truesize)).max(sk.pacing_rate >> PACING_SHIFT);
    if !sk.opts.pacing_needed {
        limit = limit.min(u64::from(cx.sh.sysctl.tcp_limit_output_bytes));
    }
    let limit = u32::try_from(limit << factor).unwrap_or(u32::MAX);
    // No more can wait than is in flight: on most paths the network needs not be asked.
    let in_flight = sk.snd_nxt.wrapping_sub(sk.snd_una);
    let charged = u64::from(in_flight) + sk.rtx_queue.len() as u64 * u64::from(SKB_TRUESIZE);
    // `sk_wmem_alloc` begins with 1, so that what is charged must stay below the limit.
    charged >= u64::from(limit)
        && waits(sk, cx, truesize, |cx, sk| {
            cx.net.small_queue(&sk.tuple, limit - 1)
        })
}

/// True when the last copy of the buffer at `index` has not left the host: to send another one would help nobody. What waits
/// is tried again when it has (Linux `skb_still_in_host_queue`).
pub(crate) fn skb_still_in_host_queue(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, index: usize) -> bool {
    let Some(skb) = sk.rtx_queue.get(index) else {
        return false;
    };
    let Some(ticket) = skb.ticket else {
        return false;
    };
    let truesize = skb.truesize;
    let still = waits(sk, cx, truesize, |cx, _| cx.net.in_host_queue(ticket));
    if still {
        cx.sh.mib.inc(Counter::TCPSpuriousRtxHostQueues);
    }
    still
}

/// True when the newest buffer in flight is found to have left the host since somebody looked.
pub(crate) fn tail_has_just_left(sk: &TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    let ticket = sk.rtx_queue.back().and_then(|tail| tail.ticket);
    ticket.is_some_and(|ticket| cx.net.in_host_queue(ticket) == HostQueue::Left)
}

/// True when as much of the connection as a tail of this `truesize` waits in the host, or with `beyond` in the device's queue:
/// for automatic corking (G4).
pub(crate) fn tail_waits_for_device(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    truesize: u32,
    beyond: bool,
) -> bool {
    waits(sk, cx, truesize, |cx, sk| {
        match cx.net.tail_waits(&sk.tuple, truesize.saturating_sub(1)) {
            HostQueue::Here if beyond => HostQueue::Clear,
            queue => queue,
        }
    })
}

/// Asks where frames are; when in the host, sees to it that the connection goes on when they have left.
fn waits(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    truesize: u32,
    ask: impl FnOnce(&mut Cx<'_, '_>, &TcpSock) -> HostQueue,
) -> bool {
    match ask(cx, sk) {
        HostQueue::Clear | HostQueue::Left => {
            sk.host_looks = 0;
            return false;
        }
        HostQueue::Here => {
            if !sk.tx_blocked && !sk.tsq_throttled {
                cx.sh.tx_blocked.push(cx.id);
            }
            sk.tsq_throttled = true;
        }
        HostQueue::Device(excess) => {
            // The pacing rate is more than the device's where that, not the congestion window, is the bound.
            let rate = match tcp_compute_delivery_rate(sk) {
                0 => sk.pacing_rate,
                delivered => delivered.clamp(sk.pacing_rate / 8, sk.pacing_rate),
            };
            // Frames leave as a whole.
            let ns = u64::from(excess.max(truesize)) * NSEC_PER_SEC / rate.max(1);
            // A device that stands still is looked at ever less often.
            let ns = ns << sk.host_looks.saturating_sub(LOOKS);
            sk.host_looks = (sk.host_looks + 1).min(LOOKS + 8);
            let look = cx.now + ns.clamp(LOOK_MIN_NS, LOOK_MAX_NS);
            sk.timers.set(Timer::Pacing, look);
        }
    }
    true
}

#[cfg(test)]
mod tests;
