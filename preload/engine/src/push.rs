//! When queued data goes out: PSH, forced push, and send-buffer accounting
//! (Linux `tcp_push` and its neighbours; F3, F14, G).

use sidewire_uapi::socket::{MSG_MORE, MSG_OOB};

use crate::autocork::tcp_should_autocork;
use crate::event::Events;
use crate::output;
use crate::seq::after;
use crate::skb::{Skb, tcphdr};
use crate::sock::{TcpSock, nagle, shutdown};
use crate::stack::{Cx, Io, SocketId, Stack};
use crate::sysctl::Sysctl;
use crate::trace::TraceStep;

/// Unsent bytes above which the socket takes no new buffer: TCP_NOTSENT_LOWAT, else the namespace's.
#[must_use]
pub fn tcp_notsent_lowat(sk: &TcpSock, sysctl: &Sysctl) -> u32 {
    match sk.opts.notsent_lowat {
        0 => sysctl.tcp_notsent_lowat,
        v => v,
    }
}

/// May a new buffer be made (F3; Linux `__sk_stream_memory_free`)? With `wake` unsent bytes count double (H4, RD-8).
#[inline]
#[must_use]
pub fn sk_stream_memory_free(sk: &TcpSock, sysctl: &Sysctl, wake: bool) -> bool {
    sk.wmem_queued < sk.sndbuf
        && sk.notsent_bytes() << u32::from(wake) < tcp_notsent_lowat(sk, sysctl)
}

/// The level that POLLOUT shows (RD-8; Linux `__sk_stream_is_writeable`).
#[must_use]
pub fn sk_stream_is_writeable(sk: &TcpSock, sysctl: &Sysctl) -> bool {
    let wspace = i64::from(sk.sndbuf) - i64::from(sk.wmem_queued);
    wspace >= i64::from(sk.wmem_queued >> 1) && sk_stream_memory_free(sk, sysctl, true)
}

impl Stack {
    /// True when a send of so many bytes surely finds the room that it needs.
    #[must_use]
    pub fn has_send_room(&self, id: SocketId, bytes: usize) -> bool {
        self.socks.get(id).is_some_and(|sk| {
            let lowat = tcp_notsent_lowat(sk, &self.sh.sysctl);
            sk.wmem_queued as usize + bytes < sk.sndbuf as usize
                && sk.notsent_bytes() as usize + bytes < lowat as usize
        })
    }
}

/// Wakes writers when somebody hit the limit and the level is back (RD-35; Linux `sk_stream_write_space`). The owner hears
/// of it only while the program may send.
pub fn sk_stream_write_space(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk_stream_is_writeable(sk, &cx.sh.sysctl) {
        sk.nospace = false;
        let mut events = Events::OUT;
        if sk.shutdown & shutdown::SEND == 0 && core::mem::take(&mut sk.async_nospace) {
            events |= Events::SIGIO_OUT;
        }
        cx.wake(sk, events);
    }
}

/// More than half of the largest window is unpushed (F14; Linux `forced_push`).
#[inline]
#[must_use]
pub fn forced_push(sk: &TcpSock) -> bool {
    after(sk.write_seq, sk.pushed_seq.wrapping_add(sk.max_window >> 1))
}

/// Marks the unsent tail PSH (Linux `tcp_mark_push`).
#[inline]
pub fn tcp_mark_push(sk: &mut TcpSock) {
    if let Some(skb) = sk.write_queue.back_mut() {
        skb.tcp_flags |= tcphdr::PSH;
        sk.pushed_seq = sk.write_seq;
    }
}

/// MSG_OOB: the urgent pointer stands behind the last byte of the call (G3; Linux `tcp_mark_urg`).
fn tcp_mark_urg(sk: &mut TcpSock, flags: i32) {
    if flags & MSG_OOB != 0 {
        sk.snd_up = sk.write_seq;
        sk.urg_mode = true;
    }
}

/// May bytes be appended behind this buffer's (F2; Linux `tcp_skb_can_collapse_to`)?
#[inline]
#[must_use]
pub fn tcp_skb_can_collapse_to(skb: &Skb) -> bool {
    !skb.eor
}

impl Stack {
    /// A file whose bytes were sent with MSG_MORE is over: what waits for more goes out (SP-29; Linux `tcp_splice_eof`).
    pub fn splice_eof(&mut self, io: &mut Io<'_>, id: SocketId) {
        if let Some((sk, mut cx)) = self.borrow(io, id) {
            let (mss_now, size_goal) = output::tcp_send_mss(sk, &mut cx, 0);
            let nonagle = sk.nonagle;
            tcp_push(sk, &mut cx, 0, mss_now, nonagle, size_goal);
            self.settle(id);
        }
    }
}

/// The end of a call: decides about PSH and sends what may go (section G; Linux `tcp_push`).
///
/// `nonagle` is the socket's, or [`nagle::PUSH`] to send whatever there is.
pub fn tcp_push(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    flags: i32,
    mss_now: u32,
    nonagle: u8,
    size_goal: u32,
) {
    if sk.write_queue.is_empty() {
        return; // G1
    }
    let more = flags & MSG_MORE != 0;
    let forced = forced_push(sk);
    if !more || forced {
        tcp_mark_push(sk); // G2
    }
    tcp_mark_urg(sk, flags);
    let autocork = tcp_should_autocork(sk, cx, size_goal, more);
    let nonagle = if more { nagle::CORK } else { nonagle }; // G5
    cx.trace(|| TraceStep::Push {
        psh: !more || forced,
        forced,
        urgent: flags & MSG_OOB != 0,
        autocork,
        nonagle,
    });
    if autocork {
        // What the tail waits for pushes it.
        sk.pushed_nonagle = nonagle;
        return;
    }
    output::tcp_push_pending(sk, cx, mss_now, nonagle);
}
