//! `shutdown`, `close`, and harder ends (ER-71 to ER-82).

use sidewire_uapi::socket::{SHUT_RD, SHUT_RDWR, SHUT_WR};
use sidewire_uapi::tcp::TcpState;

use crate::calls::CloseCall;
use crate::error::Error;
use crate::fastopen::client::tcp_fastopen_active_disable_ofo_check;
use crate::mib::Counter;
use crate::output::{tcp_send_active_reset, tcp_send_fin};
use crate::sndbuf::tcp_write_queue_purge;
use crate::sock::{TcpSock, shutdown};
use crate::stack::{Cx, Io, SocketId, Stack, Step, WaitReason};
use crate::state::{STATE_CHANGE, tcp_clear_xmit_timers, tcp_close_state, tcp_set_state};
use crate::time::HZ;
use crate::timer::{tcp_fin_time, tcp_reset_keepalive_timer};
use crate::timewait::{TCP_TIMEWAIT_LEN_NS, tcp_time_wait};

/// Shuts the send side (Linux `tcp_shutdown`); nothing for the receive side.
pub(crate) fn tcp_shutdown(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, how: u8) {
    if how & shutdown::SEND == 0 {
        return;
    }
    let open = sk.in_state(&[
        TcpState::Established,
        TcpState::SynSent,
        TcpState::CloseWait,
    ]);
    if open && tcp_close_state(sk, cx.sh) {
        tcp_send_fin(sk, cx);
    }
}

/// Ends by force, telling the peer.
fn reset_and_close(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    tcp_send_active_reset(sk, cx);
    tcp_set_state(sk, cx.sh, TcpState::Close);
    tcp_clear_xmit_timers(sk);
    tcp_write_queue_purge(sk, cx);
}

/// Drops what was received; true when the program had not read all of it.
fn purge_receive_queue(sk: &mut TcpSock) -> bool {
    let mut unread = false;
    for skb in sk.receive_queue.drain(..) {
        let data_end = skb.end_seq.wrapping_sub(u32::from(skb.fin));
        unread |= crate::seq::after(data_end, sk.copied_seq);
        sk.rmem_alloc -= skb.truesize;
    }
    unread
}

/// FIN was sent and everything is not acked yet (Linux `sk_stream_closing`).
fn closing(sk: &TcpSock) -> bool {
    sk.in_state(&[TcpState::FinWait1, TcpState::Closing, TcpState::LastAck])
}

impl Stack {
    /// `shutdown` (Linux `inet_shutdown`).
    ///
    /// # Errors
    /// `Inval` for another `how` than SHUT_RD, SHUT_WR, SHUT_RDWR; `NotConn` (ER-1 to ER-11).
    pub fn shutdown(&mut self, io: &mut Io<'_>, id: SocketId, how: i32) -> Result<(), Error> {
        let how = match how {
            SHUT_RD => shutdown::RCV,
            SHUT_WR => shutdown::SEND,
            SHUT_RDWR => shutdown::MASK,
            _ => return Err(Error::Inval),
        };
        let (sk, mut cx) = self.borrow(io, id).ok_or(Error::BadFd)?;
        if sk.ss_connecting {
            let over = sk.in_state(&[TcpState::SynSent, TcpState::SynRecv, TcpState::Close]);
            sk.ss_connecting = false;
            sk.ss_disconnecting = over;
            sk.ss_connected = !over;
        }
        let mut result = Ok(());
        match sk.state {
            TcpState::Listen if how & shutdown::RCV == 0 => {}
            TcpState::Listen | TcpState::SynSent => {
                self.disconnect_unconnected(io, id);
            }
            state => {
                sk.shutdown |= how;
                if state == TcpState::Close {
                    result = Err(Error::NotConn);
                } else {
                    tcp_shutdown(sk, &mut cx, how);
                }
            }
        }
        if let Some((sk, mut cx)) = self.borrow(io, id) {
            cx.wake(sk, STATE_CHANGE);
        }
        self.settle(id);
        result
    }

    /// The last `close` (Linux `__tcp_close`). Afterwards the id belongs to the engine, which ends the connection in the
    /// background. With SO_LINGER on it waits, also when `nonblock` (ER-74); a process that ends sets
    /// `call.signal` and does not wait.
    pub fn close(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        _nonblock: bool,
        call: &mut CloseCall,
    ) -> Step<()> {
        if !call.begun {
            call.begun = true;
            self.begin_close(io, id);
        }
        let Some(sk) = self.socks.get(id) else {
            return Step::Ready(());
        };
        if sk.opts.linger && closing(sk) && !call.signal {
            let timeout = u64::from(sk.opts.linger_s) * HZ;
            let deadline = call.timeo.deadline(io.now, false, Some(timeout));
            if io.now < deadline {
                return Step::Wait {
                    reason: WaitReason::Linger,
                    deadline,
                };
            }
        }
        self.adjudge_to_death(io, id);
        Step::Ready(())
    }

    /// What a close sends.
    fn begin_close(&mut self, io: &mut Io<'_>, id: SocketId) {
        let Some((sk, mut cx)) = self.borrow(io, id) else {
            return;
        };
        sk.shutdown = shutdown::MASK;
        if sk.state == TcpState::Listen {
            tcp_set_state(sk, cx.sh, TcpState::Close);
            let local = sk.tuple.local;
            self.listen_stop(io, id);
            self.forget_listener(id, local);
            return;
        }
        let unread = purge_receive_queue(sk);
        if sk.state == TcpState::Close {
            return;
        }
        if sk.repair.on {
            // The connection goes on elsewhere: not a word to the peer.
            tcp_set_state(sk, cx.sh, TcpState::Close);
            tcp_clear_xmit_timers(sk);
            tcp_write_queue_purge(sk, &mut cx);
        } else if unread {
            // RFC 2525 §2.17: the peer shall know that its data was lost.
            cx.sh.mib.inc(Counter::TCPAbortOnClose);
            reset_and_close(sk, &mut cx);
        } else if sk.opts.linger && sk.opts.linger_s == 0 {
            cx.sh.mib.inc(Counter::TCPAbortOnData);
            self.disconnect_sock(io, id);
        } else if tcp_close_state(sk, cx.sh) {
            tcp_send_fin(sk, &mut cx);
        } else if sk.state == TcpState::Close {
            // From SYN_SENT: nothing was agreed on yet.
            tcp_clear_xmit_timers(sk);
            tcp_write_queue_purge(sk, &mut cx);
        }
        self.settle(id);
    }

    /// The socket becomes an orphan, or goes (Linux `__tcp_close`, "adjudge_to_death").
    fn adjudge_to_death(&mut self, io: &mut Io<'_>, id: SocketId) {
        let Some((sk, mut cx)) = self.borrow(io, id) else {
            return;
        };
        if sk.state == TcpState::Close {
            tcp_fastopen_active_disable_ofo_check(sk, &mut cx);
        }
        sk.orphan = true;
        sk.events = crate::event::Events::empty();
        cx.sh.orphans += 1;
        if sk.state == TcpState::FinWait2 {
            if sk.opts.linger2 < 0 {
                cx.sh.mib.inc(Counter::TCPAbortOnLinger);
                reset_and_close(sk, &mut cx);
            } else {
                let tmo = tcp_fin_time(sk, &cx);
                if tmo > TCP_TIMEWAIT_LEN_NS {
                    tcp_reset_keepalive_timer(sk, &cx, tmo - TCP_TIMEWAIT_LEN_NS);
                } else {
                    tcp_time_wait(sk, &mut cx, true, tmo);
                }
            }
        }
        if sk.state != TcpState::Close && cx.sh.orphans > cx.sh.sysctl.tcp_max_orphans {
            cx.sh.mib.inc(Counter::TCPOrphanOverflow);
            cx.sh.mib.inc(Counter::TCPAbortOnMemory);
            reset_and_close(sk, &mut cx);
        }
        self.settle(id);
    }

    /// Ends the connection at once: RST where the peer has to know, and the socket is gone.
    pub fn abort(&mut self, io: &mut Io<'_>, id: SocketId) {
        let sk = self.socks.get(id);
        let listened = sk.and_then(|sk| sk.listen.as_ref().map(|_| sk.tuple.local));
        self.disconnect_sock(io, id);
        if let Some(local) = listened {
            self.forget_listener(id, local);
        }
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        if !core::mem::replace(&mut sk.orphan, true) {
            self.sh.orphans += 1;
        }
        self.settle(id);
    }
}

#[cfg(test)]
mod tests;
