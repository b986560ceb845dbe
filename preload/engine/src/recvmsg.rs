//! `recvmsg`: Linux's `tcp_recvmsg_locked` (R1 to R8).

use sidewire_uapi::socket::{MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use sidewire_uapi::tcp::TcpState;
use sidewire_uapi::timestamping::{
    SOF_TIMESTAMPING_OPT_RX_FILTER, SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE,
};

use crate::autocork;
use crate::calls::{RecvCall, RecvCmsg};
use crate::delack::tcp_cleanup_rbuf;
use crate::error::Error;
use crate::memory::{Frag, IovIter};
use crate::rcvbuf::tcp_rcv_space_adjust;
use crate::repair::{RepairQueue, tcp_peek_sndq};
use crate::seq::{after, between};
use crate::sock::{TcpSock, shutdown};
use crate::stack::{Cx, Io, SocketId, Stack, Step, StepResult, WaitReason};
use crate::urgent::{before_urgent_byte, splice_at_urgent_byte, tcp_recv_urg};

/// How a round over the receive queue ended.
enum Round {
    /// The call is over: what `call.copied` says.
    Done,
    /// The call is over with an error, unless something was copied.
    Fail(Error),
    /// Nothing more in the queue.
    Empty,
}

impl Stack {
    /// Keeps an error that ended a row of messages, for the next call (Linux `do_recvmmsg`).
    pub fn keep_error(&mut self, id: SocketId, error: Error) {
        if let Some(sk) = self.socks.get_mut(id) {
            sk.sk_err = Some(error);
        }
    }

    /// `recvmsg` without MSG_ERRQUEUE, which is [`Stack::recv_errqueue`]'s. Flags and control messages to hand out are
    /// left in `call`.
    ///
    /// # Errors
    /// As recv(2); `Intr` when `call.signal` is set and nothing was copied.
    pub fn recvmsg(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut RecvCall,
        iter: &mut dyn IovIter,
    ) -> StepResult<usize> {
        let Some((sk, mut cx)) = self.borrow(io, id) else {
            return Step::Ready(Err(Error::BadFd));
        };
        let step = recvmsg_locked(sk, &mut cx, call, iter);
        if let Step::Ready(Ok(_)) = step {
            recv_cmsgs(sk, call);
        }
        self.settle(id);
        step
    }
}

fn recvmsg_locked(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut RecvCall,
    iter: &mut dyn IovIter,
) -> StepResult<usize> {
    if sk.state == TcpState::Listen {
        return Step::Ready(Err(Error::NotConn));
    }
    if call.flags & MSG_OOB != 0 {
        return Step::Ready(tcp_recv_urg(sk, call.flags, iter).map(|(n, msg_flags)| {
            call.msg_flags |= msg_flags;
            n
        }));
    }
    // Looked at when the call begins, and not where it goes on. Linux `tcp_splice_read` knows of no repair.
    if sk.repair.on && !call.begun && !call.of_splice {
        if call.flags & MSG_PEEK == 0 {
            return Step::Ready(Err(Error::Perm));
        }
        match sk.repair.queue {
            RepairQueue::None => return Step::Ready(Err(Error::Inval)),
            RepairQueue::Send => return Step::Ready(tcp_peek_sndq(sk, iter)),
            RepairQueue::Recv => {}
        }
    }
    if core::mem::take(&mut call.sleeps) {
        sk.async_waitdata = false;
    }
    let slept = call.begun;
    if !slept {
        call.begun = true;
        autocork::end_run(sk, cx);
        let len = iter.remaining();
        let wanted = if call.flags & MSG_WAITALL != 0 {
            len
        } else {
            len.min(sk.opts.rcvlowat as usize)
        };
        call.target = wanted.max(1);
        call.peek_seq = peek_start(sk, call);
        call.disconnects = sk.disconnects;
    } else if call.disconnects != sk.disconnects {
        // Somebody dissolved the connection while we slept (Linux `sk_wait_event`).
        return match call.copied {
            0 => Step::Ready(Err(Error::Pipe)),
            n => Step::Ready(Ok(n)),
        };
    } else if !between(call.peek_seq, sk.copied_seq, sk.rcv_nxt.wrapping_add(1)) {
        // Somebody else read what was being peeked at.
        call.peek_seq = peek_start(sk, call);
    }
    let deadline = call.timeo.deadline(cx.now, call.nonblock, sk.opts.rcvtimeo);
    let may_wait = deadline > cx.now;

    // A splice that looks, or sleeps until there is something to look at.
    if call.of_splice && call.flags & MSG_PEEK != 0 && before_urgent_byte(sk) == 0 {
        return Step::Ready(splice_at_urgent_byte(sk, call.nonblock));
    }
    match drain(sk, cx, call, iter) {
        Round::Done => return finish(sk, cx, call),
        Round::Fail(_) if call.copied > 0 => return finish(sk, cx, call),
        Round::Fail(e) => return Step::Ready(Err(e)),
        Round::Empty => {}
    }
    if call.copied >= call.target {
        return finish(sk, cx, call);
    }
    if call.copied > 0 {
        if !may_wait
            || sk.sk_err.is_some()
            || sk.state == TcpState::Close
            || sk.shutdown & shutdown::RCV != 0
            || call.signal
        {
            return finish(sk, cx, call);
        }
    } else {
        let over = || {
            sk.sk_err.is_some()
                || sk.state == TcpState::Close
                || sk.shutdown & shutdown::RCV != 0
                || !may_wait
                || call.signal
        };
        // No bytes were asked for, and the sleep is over, however it ended: Linux's loop is `while (len > 0)`.
        let woken = call.wakes != sk.wakes;
        let for_nothing = slept && iter.remaining() == 0 && (woken || over());
        if sk.sock_done || for_nothing {
            return finish(sk, cx, call);
        }
        if let Some(e) = sk.sk_err.take() {
            return Step::Ready(Err(e));
        }
        if sk.shutdown & shutdown::RCV != 0 {
            return finish(sk, cx, call);
        }
        if sk.state == TcpState::Close {
            return Step::Ready(Err(Error::NotConn));
        }
        if !may_wait {
            return Step::Ready(Err(Error::Again));
        }
        if call.signal {
            return Step::Ready(Err(Error::Intr));
        }
    }
    tcp_cleanup_rbuf(sk, cx, call.copied);
    call.wakes = sk.wakes;
    call.sleeps = true;
    sk.async_waitdata = true;
    Step::Wait {
        reason: WaitReason::Data,
        deadline,
    }
}

/// Where MSG_PEEK begins: SO_PEEK_OFF behind what was read.
fn peek_start(sk: &TcpSock, call: &RecvCall) -> u32 {
    if call.of_splice {
        return sk.copied_seq;
    }
    sk.copied_seq.wrapping_add(sk.opts.peek_off.max(0) as u32)
}

/// The call returns what was copied.
fn finish(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, call: &RecvCall) -> StepResult<usize> {
    tcp_cleanup_rbuf(sk, cx, call.copied);
    Step::Ready(Ok(call.copied))
}

/// Copies from the receive queue as long as there is data and room.
fn drain(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut RecvCall,
    iter: &mut dyn IovIter,
) -> Round {
    let peek = call.flags & MSG_PEEK != 0;
    // Buffers before this one lie behind the cursor; only a peek leaves any.
    let mut index = 0;
    loop {
        let seq = if peek { call.peek_seq } else { sk.copied_seq };
        if sk.urg_data != 0 && sk.urg_seq == seq {
            // The mark: a read ends before it.
            if call.copied > 0 {
                return Round::Done;
            }
            if call.signal {
                return Round::Fail(if call.nonblock {
                    Error::Again
                } else {
                    Error::Intr
                });
            }
        }
        let Some(skb) = sk.receive_queue.get(index) else {
            return Round::Empty;
        };
        debug_assert!(!after(skb.seq, seq));
        let offset = seq.wrapping_sub(skb.seq);
        if offset >= skb.frag.len {
            if skb.fin && offset == skb.frag.len {
                take_fin(sk, call, peek);
                return Round::Done;
            }
            index += 1;
            continue;
        }
        match copy_some(sk, cx, call, iter, index, offset) {
            Ok(emptied) => {
                if emptied && take_emptied(sk, call, peek, &mut index) {
                    return Round::Done;
                }
            }
            Err(e) => return Round::Fail(e),
        }
        if iter.remaining() == 0 {
            return Round::Done;
        }
    }
}

/// Steps over the FIN at the cursor.
fn take_fin(sk: &mut TcpSock, call: &mut RecvCall, peek: bool) {
    if peek {
        call.peek_seq = call.peek_seq.wrapping_add(1);
    } else {
        sk.copied_seq = sk.copied_seq.wrapping_add(1);
        eat_first(sk);
    }
}

/// A buffer was read to its end; true when a FIN followed.
fn take_emptied(sk: &mut TcpSock, call: &mut RecvCall, peek: bool, index: &mut usize) -> bool {
    if sk.receive_queue.get(*index).is_some_and(|skb| skb.fin) {
        take_fin(sk, call, peek);
        return true;
    }
    if peek {
        *index += 1;
    } else {
        eat_first(sk);
    }
    // In Linux a bare FIN shares a buffer with what is before it: the mark does not come between.
    let next = sk.receive_queue.get(*index);
    let ends = next.is_some_and(|next| next.fin && next.frag.len == 0);
    if ends {
        take_fin(sk, call, peek);
    }
    ends
}

/// Frees the first buffer of the receive queue (Linux `tcp_eat_recv_skb`).
fn eat_first(sk: &mut TcpSock) {
    if let Some(skb) = sk.receive_queue.pop_front() {
        sk.rmem_alloc -= skb.truesize;
    }
}

/// Copies from one buffer; true when it was read to its end.
fn copy_some(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut RecvCall,
    iter: &mut dyn IovIter,
    index: usize,
    mut offset: u32,
) -> Result<bool, Error> {
    let peek = call.flags & MSG_PEEK != 0;
    let Some(skb) = sk.receive_queue.get(index) else {
        return Ok(false);
    };
    let (len, tstamp_ns) = (skb.frag.len, skb.tstamp_ns);
    let room = u32::try_from(iter.remaining()).unwrap_or(u32::MAX);
    let mut used = (len - offset).min(room);
    let mut at_urgent_byte = false;
    if sk.urg_data != 0 {
        let seq = skb.seq.wrapping_add(offset);
        let urg_offset = sk.urg_seq.wrapping_sub(seq);
        if urg_offset < used {
            if urg_offset > 0 {
                used = urg_offset;
            } else if !sk.opts.oobinline {
                // The urgent byte is not part of the stream; it is behind us even if the copy fails.
                at_urgent_byte = true;
                offset += 1;
                used -= 1;
            }
        }
    }
    let cursor = if peek {
        &mut call.peek_seq
    } else {
        &mut sk.copied_seq
    };
    *cursor = cursor.wrapping_add(u32::from(at_urgent_byte));
    if used > 0 {
        if call.flags & MSG_TRUNC != 0 {
            iter.advance(used as usize);
        } else {
            let piece = Frag {
                mem: skb.frag.mem.clone(),
                off: skb.frag.off + offset,
                len: used,
            };
            if iter.copy_out(&piece).is_err() {
                return Err(Error::Fault);
            }
        }
    }
    *cursor = cursor.wrapping_add(used);
    call.copied += used as usize;
    if used > 0 {
        if !call.of_splice {
            move_peek_off(sk, used, peek);
        }
        tcp_rcv_space_adjust(sk, cx.sh, cx.now);
    }
    // In Linux the byte shares a buffer with what follows it, so that this is copied in the same turn. (A FIN is not.)
    let next = sk.receive_queue.get(index + 1);
    let more_follows = used == 0 && room > 1 && next.is_some_and(|next| next.frag.len > 0);
    if sk.urg_data != 0 && after(sk.copied_seq, sk.urg_seq) && !more_follows {
        sk.urg_data = 0;
    }
    if tstamp_ns != 0 {
        call.tstamp_ns = tstamp_ns;
    }
    Ok(offset + used >= len)
}

/// SO_PEEK_OFF moves on with a peek and back with a read (SO-32).
fn move_peek_off(sk: &mut TcpSock, used: u32, peek: bool) {
    if sk.opts.peek_off >= 0 {
        let used = used.min(i32::MAX as u32) as i32;
        sk.opts.peek_off = if peek {
            sk.opts.peek_off.saturating_add(used)
        } else {
            (sk.opts.peek_off - used).max(0)
        };
    }
}

/// Control messages of a receive that went well.
fn recv_cmsgs(sk: &TcpSock, call: &mut RecvCall) {
    let new = sk.opts.tstamp_new;
    let mut put = |cmsg| {
        debug_assert!(!call.cmsgs.is_full());
        let _ = call.cmsgs.try_push(cmsg);
    };
    let ns = call.tstamp_ns;
    if ns != 0 {
        if sk.opts.rcvtstampns {
            put(RecvCmsg::TimestampNs { ns, new });
        } else if sk.opts.rcvtstamp {
            put(RecvCmsg::Timestamp { ns, new });
        }
        let flags = sk.opts.tsflags;
        let wanted = flags & SOF_TIMESTAMPING_SOFTWARE != 0
            && (flags & SOF_TIMESTAMPING_RX_SOFTWARE != 0
                || flags & SOF_TIMESTAMPING_OPT_RX_FILTER == 0);
        if wanted {
            put(RecvCmsg::Timestamping {
                ns: [ns, 0, 0],
                new,
            });
        }
    }
    if sk.opts.inq {
        put(RecvCmsg::Inq(tcp_inq_hint(sk)));
    }
}

/// Bytes left, for TCP_INQ: 1 when only the end of the stream is left (RV-35).
#[must_use]
pub fn tcp_inq_hint(sk: &TcpSock) -> i32 {
    let inq = sk.rcv_nxt.wrapping_sub(sk.copied_seq);
    if inq == 0 && sk.sock_done {
        return 1;
    }
    inq.min(i32::MAX as u32) as i32
}

#[cfg(test)]
mod tests;
