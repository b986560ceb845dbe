//! Readiness levels: Linux's `tcp_poll` (RD-1..RD-32).

use sidewire_uapi::TcpState;
use sidewire_uapi::poll::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDHUP, POLLRDNORM, POLLWRNORM,
};

use crate::push::sk_stream_is_writeable;
use crate::sock::{TcpSock, shutdown};
use crate::stack::{SocketId, Stack};
use crate::sysctl::Sysctl;

/// `urg_data`: an urgent byte is there and unread.
pub const TCP_URG_VALID: u16 = 0x100;

/// Are `target` bytes there, or must the reader come because no more will fit (RD-6; Linux `tcp_epollin_ready`)?
#[must_use]
pub fn tcp_epollin_ready(sk: &TcpSock, target: u32) -> bool {
    let avail = sk.rcv_nxt.wrapping_sub(sk.copied_seq) as i32;
    if avail <= 0 {
        return false;
    }
    let threshold = sk.rcvbuf - (sk.rcvbuf >> 3);
    avail as u32 >= target || sk.rmem_alloc > threshold || sk.receive_window() <= sk.ack.rcv_mss
}

/// Neither data nor room counts yet.
fn in_handshake(sk: &TcpSock) -> bool {
    sk.state == TcpState::SynSent || (sk.state == TcpState::SynRecv && !sk.fastopen_rsk)
}

/// The poll mask of one socket.
#[must_use]
pub fn tcp_poll(sk: &TcpSock, sysctl: &Sysctl) -> u32 {
    if sk.state == TcpState::Listen {
        // RD-1
        let ready = sk
            .listen
            .as_ref()
            .is_some_and(|l| !l.accept_queue.is_empty());
        return if ready { POLLIN | POLLRDNORM } else { 0 };
    }
    let mut mask = 0;
    if sk.shutdown == shutdown::MASK || sk.state == TcpState::Close {
        mask |= POLLHUP; // RD-2
    }
    if sk.shutdown & shutdown::RCV != 0 {
        mask |= POLLIN | POLLRDNORM | POLLRDHUP; // RD-3
    }
    if !in_handshake(sk) {
        let urgent_next = sk.urg_data != 0 && sk.urg_seq == sk.copied_seq && !sk.opts.oobinline;
        let target = sk.opts.rcvlowat.max(1) + u32::from(urgent_next); // RD-7
        if tcp_epollin_ready(sk, target) {
            mask |= POLLIN | POLLRDNORM;
        }
        if sk.shutdown & shutdown::SEND != 0 || sk_stream_is_writeable(sk, sysctl) {
            mask |= POLLOUT | POLLWRNORM; // RD-8, RD-9
        }
        if sk.urg_data & TCP_URG_VALID != 0 {
            mask |= POLLPRI; // RD-10
        }
    } else if sk.state == TcpState::SynSent && sk.defer_connect {
        mask |= POLLOUT | POLLWRNORM; // RD-5
    }
    if sk.sk_err.is_some() || !sk.errqueue.is_empty() {
        mask |= POLLERR; // RD-11
    }
    mask
}

impl Stack {
    /// What [`Stack::poll`] would say, for who only looks.
    #[must_use]
    pub fn poll_level(&self, id: SocketId) -> u32 {
        let sk = self.socks.get(id);
        sk.map_or(POLLNVAL, |sk| tcp_poll(sk, &self.sh.sysctl))
    }

    /// The poll mask (`POLLIN` ...) of a socket as it stands; `POLLNVAL` when there is no such socket. Whoever sees no room,
    /// whether asking for it or not, is told when there is some: by an edge (`SOCK_NOSPACE`, RD-35) and by SIGIO.
    pub fn poll(&mut self, id: SocketId) -> u32 {
        let Some(sk) = self.socks.get_mut(id) else {
            return POLLNVAL;
        };
        let mask = tcp_poll(sk, &self.sh.sysctl);
        if mask & POLLOUT == 0 && sk.state != TcpState::Listen && !in_handshake(sk) {
            sk.nospace = true;
            sk.async_nospace = true;
        }
        mask
    }
}

#[cfg(test)]
mod tests;
