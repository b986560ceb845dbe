//! `listen` and `accept` (spec/errors.md ER-56 to ER-70).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;

use sidewire_uapi::tcp::TcpState;

use crate::calls::AcceptCall;
use crate::error::Error;
use crate::fastopen::{TFO_SERVER_ENABLE, TFO_SERVER_WO_SOCKOPT1};
use crate::listen::ListenState;
use crate::stack::{Io, RequestId, SocketId, Stack, Step, StepResult, WaitReason};

impl Stack {
    /// False when [`Stack::listen`] would say `Inval`: connected, or once connected and not dissolved since.
    #[must_use]
    pub fn may_listen(&self, id: SocketId) -> bool {
        self.socks.get(id).is_some_and(|sk| match sk.state {
            TcpState::Listen => true,
            TcpState::Close => sk.ss_unconnected(),
            _ => false,
        })
    }

    /// `listen`: CLOSE to LISTEN, or another backlog. The caller has bound the socket. An error that nobody asked for and what
    /// was shut before stay (spec/errors.md ER-84).
    ///
    /// # Errors
    /// `Inval` in any other state; `AddrInUse` when a listener stands at the address.
    pub fn listen(&mut self, _io: &mut Io<'_>, id: SocketId, backlog: i32) -> Result<(), Error> {
        // As a u32, so that a negative backlog is a huge one.
        let backlog = (backlog as u32).min(self.sh.sysctl.somaxconn);
        let may = self.may_listen(id);
        let sk = self.socks.get_mut(id).ok_or(Error::BadFd)?;
        if !may {
            return Err(Error::Inval);
        }
        if sk.state == TcpState::Listen {
            if let Some(listen) = &mut sk.listen {
                listen.backlog = backlog;
            }
            return Ok(());
        }
        let local = sk.tuple.local;
        if !self.register_listener(id, local) {
            return Err(Error::AddrInUse);
        }
        let Some(sk) = self.socks.get_mut(id) else {
            return Err(Error::BadFd);
        };
        let everywhere = TFO_SERVER_WO_SOCKOPT1 | TFO_SERVER_ENABLE;
        if self.sh.sysctl.tcp_fastopen & everywhere == everywhere && sk.opts.fastopen_qlen == 0 {
            sk.opts.fastopen_qlen = backlog;
        }
        sk.state = TcpState::Listen;
        sk.listen = Some(Box::new(ListenState {
            backlog,
            ..ListenState::default()
        }));
        Ok(())
    }

    /// Makes `id` the listener of an address; false when there is one already.
    pub(crate) fn register_listener(&mut self, id: SocketId, local: SocketAddr) -> bool {
        if self.lhash.contains_key(&local) {
            return false;
        }
        self.lhash.insert(local, id);
        *self.ports.entry(local.port()).or_insert(0) += 1;
        true
    }

    /// `id` listens no more: its address is free and its handshakes are forgotten.
    pub(crate) fn forget_listener(&mut self, id: SocketId, local: SocketAddr) {
        if self.lhash.get(&local) == Some(&id) {
            self.lhash.remove(&local);
            self.release_port(local.port());
        }
        let pending: Vec<RequestId> = self
            .reqs
            .iter()
            .filter(|(_, req)| req.listener == id)
            .map(|(id, _)| id)
            .collect();
        for req in pending {
            self.drop_request(req);
        }
    }

    /// `accept`: takes the oldest established child. The caller gives it a cookie ([`Stack::set_user`]) and a port
    /// holder, which [`Stack::take_released`] tells it to drop.
    ///
    /// # Errors
    /// `Inval` when the socket does not listen, `Again` when it may not wait (any longer), `Intr`.
    pub fn accept(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        nonblock: bool,
        call: &mut AcceptCall,
    ) -> StepResult<SocketId> {
        let Some(sk) = self.socks.get_mut(id) else {
            return Step::Ready(Err(Error::BadFd));
        };
        let Some(listen) = sk.listen.as_mut().filter(|_| sk.state == TcpState::Listen) else {
            return Step::Ready(Err(Error::Inval));
        };
        if let Some(child) = listen.accept_queue.pop_front() {
            if let Some(sk) = self.socks.get_mut(child) {
                sk.parent = None;
                sk.held = true;
                sk.ss_connected = true;
                // A child that was reset in the queue has left the table already: its holder may go at once.
                self.settle(child);
            }
            return Step::Ready(Ok(child));
        }
        let deadline = call.timeo.deadline(io.now, nonblock, sk.opts.rcvtimeo_ns);
        if deadline <= io.now {
            return Step::Ready(Err(Error::Again));
        }
        if call.signal {
            return Step::Ready(Err(Error::Intr));
        }
        Step::Wait {
            reason: WaitReason::Accept,
            deadline,
        }
    }

    /// The listener is gone: its handshakes are forgotten, its unaccepted children reset (spec/errors.md ER-66;
    /// Linux `inet_csk_listen_stop`).
    pub(crate) fn listen_stop(&mut self, io: &mut Io<'_>, id: SocketId) {
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        let Some(listen) = sk.listen.take() else {
            return;
        };
        let local = sk.tuple.local;
        self.forget_listener(id, local);
        for child in listen.accept_queue {
            self.abort(io, child);
        }
    }
}
