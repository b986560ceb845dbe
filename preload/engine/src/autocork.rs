//! Automatic corking (G4; Linux `tcp_should_autocork`): a small tail waits for the bytes of the next call
//! while an earlier frame of its socket is still on its way out.
//!
//! Linux hears from the device when a frame has left it. Here the queue is asked ([`tail_waits_for_device`]), and there are two
//! more signs: the packet socket is full, or the program is in the middle of a *run* of sends, one right after the other, on
//! this socket or on several in turn, with nothing read in between. In a run the earlier frames are a few microseconds old,
//! and each frame that is spared is a frame less for the peer as well. What waits in a run is released when it makes a full
//! frame, when the program reads or is about to sleep ([`Stack::release_autocorked`]), and after [`HOLD_NS`] in any case.
//! TCP_NODELAY means no waiting in a run.

use crate::mib::Counter;
use crate::output::tcp_data_snd_check;
use crate::push::tcp_skb_can_collapse_to;
use crate::small_queue::tail_waits_for_device;
use crate::sock::{TcpSock, nagle};
use crate::stack::{Cx, Io, Stack};
use crate::time::{Instant, NSEC_PER_MSEC, NSEC_PER_USEC};
use crate::timers::Timer;

/// Sends in a row that make a run.
const RUN_SENDS: u8 = 8;
/// Longest pause between two sends of a run, nanoseconds.
const RUN_GAP_NS: u64 = 50 * NSEC_PER_USEC;
/// The same for one socket, while the program sends on others in between.
const TURN_NS: u64 = NSEC_PER_MSEC;
/// Longest that a tail waits, nanoseconds.
const HOLD_NS: u64 = NSEC_PER_MSEC;

/// The sends that follow each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendRun {
    /// How many, up to [`RUN_SENDS`].
    sends: u8,
    /// The last one.
    last: Instant,
}

impl SendRun {
    /// A call sends. `before` is when the last one did, on whatever socket.
    #[inline]
    pub(crate) fn note(&mut self, now: Instant, before: Instant) {
        self.sends = if now - before <= RUN_GAP_NS && now - self.last <= TURN_NS {
            (self.sends + 1).min(RUN_SENDS)
        } else {
            0
        };
        self.last = now;
    }

    /// True in the middle of a run.
    fn on(self) -> bool {
        self.sends >= RUN_SENDS
    }
}

/// Does the tail wait? If so, somebody will see to it. With MSG_MORE (`more`) it is held back anyway: to wait for a frame that
/// leaves when the call ends would let it out then.
pub(crate) fn tcp_should_autocork(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    size_goal: u32,
    more: bool,
) -> bool {
    sk.tail_waits = false;
    // In repair mode nothing is on its way out, and what is sent counts as sent.
    if !cx.sh.sysctl.tcp_autocorking || sk.rtx_queue.is_empty() || sk.repair.on {
        return false;
    }
    let Some(tail) = sk
        .write_queue
        .back()
        .filter(|skb| skb.len < size_goal && tcp_skb_can_collapse_to(skb))
    else {
        return false;
    };
    let truesize = tail.truesize;
    // What a run holds back Linux would have sent: the stamps of its calls would become one, and so would its urgent bytes, and
    // pages of the program's of which little was sent, but which are charged as a whole, would fill the send buffer.
    let sparse = tail.ubuf.is_some() && tail.len < truesize / 2;
    let apart = !tail.tx_flags.is_empty() || sparse || sk.urg_mode;
    let run = sk.send_run.on() && sk.nonagle & nagle::OFF == 0 && !apart && !more;
    if !sk.tx_blocked {
        if run {
            hold_in_run(sk, cx);
        } else if tail_waits_for_device(sk, cx, truesize, more) {
            sk.tail_waits = true;
        } else {
            return false;
        }
    }
    cx.sh.mib.inc(Counter::TCPAutoCorking);
    true
}

/// The tail waits for the next send.
fn hold_in_run(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if !sk.autocorked {
        sk.autocorked = true;
        cx.sh.autocorked.push(cx.id);
    }
    if !sk.timers.armed(Timer::Pacing) {
        sk.timers.set(Timer::Pacing, cx.now + HOLD_NS);
    }
}

/// The device was given time: true when the tail that waits for it goes on waiting.
pub(crate) fn tail_waits_on(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    let tail = sk.write_queue.back().filter(|_| sk.tail_waits);
    let truesize = tail.map(|skb| skb.truesize);
    sk.tail_waits = truesize.is_some_and(|truesize| tail_waits_for_device(sk, cx, truesize, false));
    sk.tail_waits
}

/// True when an ack need not let the tail out: it waits alone, and somebody is there to take the ack, so the run goes on.
pub(crate) fn goes_on(sk: &TcpSock) -> bool {
    sk.autocorked && sk.timers.armed(Timer::Pacing) && sk.write_queue.len() == 1
}

/// The program does something else than sending: what waits goes out.
pub(crate) fn end_run(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    sk.send_run = SendRun::default();
    if sk.autocorked {
        tcp_data_snd_check(sk, cx);
    }
}

impl Stack {
    /// True when something waits for more of a run: [`Stack::release_autocorked`] is to be called before the program
    /// sleeps.
    #[inline]
    #[must_use]
    pub fn autocorked(&self) -> bool {
        !self.sh.autocorked.is_empty()
    }

    /// The program is about to sleep, or leads nobody any more: nothing waits any longer.
    pub fn release_autocorked(&mut self, io: &mut Io<'_>) {
        let mut held = core::mem::take(&mut self.sh.autocorked);
        for id in held.drain(..) {
            if let Some((sk, mut cx)) = self.borrow(io, id) {
                sk.autocorked = false;
                tcp_data_snd_check(sk, &mut cx);
                self.settle(id);
            }
        }
        // Keeps the allocation.
        if self.sh.autocorked.is_empty() {
            self.sh.autocorked = held;
        }
    }
}

#[cfg(test)]
mod tests;
