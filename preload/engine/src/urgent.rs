//! Urgent data (RV-21 to RV-32; RFC 9293 §3.8.5, as Linux reads it).

use crate::data_queue::sk_data_ready;
use crate::error::Error;
use crate::event::Events;
use crate::memory::{Frag, IovIter};
use crate::segment::Segment;
use crate::seq::{after, before};
use crate::sock::{TcpSock, shutdown};
use crate::stack::{Cx, SocketId, Stack};
use sidewire_uapi::socket::{MSG_OOB, MSG_PEEK, MSG_TRUNC};
use sidewire_uapi::tcp::TcpState;

/// `urg_data`: the byte is here.
pub const TCP_URG_VALID: u16 = 0x0100;
/// `urg_data`: announced, not here.
pub const TCP_URG_NOTYET: u16 = 0x0200;
/// `urg_data`: read by MSG_OOB.
pub const TCP_URG_READ: u16 = 0x0400;

/// Looks at a segment's urgent pointer, and at its payload for a byte that was announced (Linux `tcp_urg`).
pub(crate) fn tcp_urg(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) {
    if seg.urg() {
        tcp_check_urg(sk, cx, seg);
    }
    if sk.urg_data != TCP_URG_NOTYET {
        return;
    }
    let at = sk
        .urg_seq
        .wrapping_sub(seg.seq)
        .wrapping_sub(u32::from(seg.syn()));
    let Some(payload) = seg.payload.as_ref().filter(|p| at < p.len) else {
        return;
    };
    let byte_frag = Frag {
        mem: payload.mem.clone(),
        off: payload.off + at,
        len: 1,
    };
    let mut byte = [0];
    if cx.mem.read(&byte_frag, &mut byte).is_ok() {
        sk.urg_data = TCP_URG_VALID | u16::from(byte[0]);
        if !sk.orphan {
            cx.wake(sk, Events::PRI);
            sk_data_ready(sk, cx);
        }
    }
}

/// Linux `tcp_check_urg`.
fn tcp_check_urg(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) {
    let mut ptr = u32::from(seg.urg_ptr);
    if ptr != 0 && !cx.sh.sysctl.tcp_stdurg {
        ptr -= 1;
    }
    let ptr = ptr.wrapping_add(seg.seq);
    // Seen and read; already in the stream; or not newer than the one that is known.
    if after(sk.copied_seq, ptr)
        || before(ptr, sk.rcv_nxt)
        || (sk.urg_data != 0 && !after(ptr, sk.urg_seq))
    {
        return;
    }
    // The byte read last was the old mark: step over it, or it would be read again as data.
    if sk.urg_seq == sk.copied_seq
        && sk.urg_data != 0
        && !sk.opts.oobinline
        && sk.copied_seq != sk.rcv_nxt
    {
        sk.copied_seq = sk.copied_seq.wrapping_add(1);
        if let Some(first) = sk
            .receive_queue
            .pop_front_if(|first| !before(sk.copied_seq, first.end_seq))
        {
            sk.rmem_alloc -= first.truesize;
        }
    }
    sk.urg_data = TCP_URG_NOTYET;
    sk.urg_seq = ptr;
    if !sk.orphan {
        // Its owner alone is told (Linux `sk_send_sigurg`): poll shows the byte when it is here.
        cx.wake(sk, Events::URG);
    }
}

impl Stack {
    /// Bytes that splice(2) takes before it comes to the urgent byte, 0 at that (SP-33; Linux `__tcp_read_sock`); more than
    /// there can be when none is ahead.
    #[must_use]
    pub fn before_urgent_byte(&self, id: SocketId) -> usize {
        let sk = self.socks.get(id);
        sk.map_or(usize::MAX, |sk| before_urgent_byte(sk))
    }

    /// What splice(2) gives when the urgent byte is the next one (Linux `tcp_splice_read`, which has read nothing).
    ///
    /// # Errors
    /// The socket's error, which is taken; `NotConn` when it is closed, `Again` when it does not wait.
    pub fn splice_at_urgent_byte(&mut self, id: SocketId, nonblock: bool) -> Result<usize, Error> {
        let sk = self.socks.get_mut(id).ok_or(Error::BadFd)?;
        splice_at_urgent_byte(sk, nonblock)
    }
}

/// [`Stack::before_urgent_byte`].
pub(crate) fn before_urgent_byte(sk: &TcpSock) -> usize {
    if sk.urg_data == 0 || sk.receive_queue.is_empty() {
        return usize::MAX;
    }
    sk.urg_seq.wrapping_sub(sk.copied_seq) as usize
}

/// [`Stack::splice_at_urgent_byte`].
pub(crate) fn splice_at_urgent_byte(sk: &mut TcpSock, nonblock: bool) -> Result<usize, Error> {
    if sk.sock_done {
        return Ok(0);
    }
    if let Some(e) = sk.sk_err.take() {
        return Err(e);
    }
    if sk.shutdown & shutdown::RCV != 0 {
        return Ok(0);
    }
    match sk.state {
        TcpState::Close => Err(Error::NotConn),
        _ if nonblock => Err(Error::Again),
        _ => Ok(0),
    }
}

/// `recv(MSG_OOB)` (Linux `tcp_recv_urg`). Returns the byte count and the flags for `msg_flags`.
pub(crate) fn tcp_recv_urg(
    sk: &mut TcpSock,
    flags: i32,
    iter: &mut dyn IovIter,
) -> Result<(usize, i32), Error> {
    if sk.opts.oobinline || sk.urg_data == 0 || sk.urg_data == TCP_URG_READ {
        return Err(Error::Inval);
    }
    if sk.state == TcpState::Close && !sk.sock_done {
        return Err(Error::NotConn);
    }
    if sk.urg_data & TCP_URG_VALID != 0 {
        let byte = sk.urg_data as u8;
        if flags & MSG_PEEK == 0 {
            sk.urg_data = TCP_URG_READ;
        }
        if iter.remaining() == 0 {
            return Ok((0, MSG_OOB | MSG_TRUNC));
        }
        if flags & MSG_TRUNC == 0 && iter.copy_out_bytes(&[byte]).is_err() {
            return Err(Error::Fault);
        }
        return Ok((1, MSG_OOB));
    }
    if sk.state == TcpState::Close || sk.shutdown & shutdown::RCV != 0 {
        return Ok((0, 0));
    }
    Err(Error::Again)
}
