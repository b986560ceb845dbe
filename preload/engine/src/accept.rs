//! `listen` and `accept` (ER-56 to ER-70).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;

use sidewire_uapi::tcp::TcpState;

use crate::calls::AcceptCall;
use crate::error::Error;
use crate::fastopen::{TFO_SERVER_ENABLE, TFO_SERVER_WO_SOCKOPT1};
use crate::listen::{Leaving, ListenState};
use crate::net::Tuple;
use crate::stack::{Io, RequestId, SocketId, Stack, Step, StepResult, TimerOwner, WaitReason};
use crate::time::NSEC_PER_SEC;

/// How long nobody accepts what a listener left behind before it is reset: who was given the kernel's listener may be the only
/// one who does.
const UNACCEPTED_NS: u64 = 30 * NSEC_PER_SEC;

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
    /// was shut before stay (ER-84).
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
        // Those of before it was disconnected go on.
        let open = self.reqs.values().filter(|req| req.listener == id);
        let (qlen, young) = open.fold((0, 0), |(all, young), req| {
            (all + 1, young + u32::from(req.num_timeout == 0))
        });
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
            qlen,
            young,
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
        self.free_address(id, local);
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

    /// The four-tuples of what came in by the listener `id` and is not accepted yet, handshakes included.
    #[must_use]
    pub fn unaccepted(&self, id: SocketId) -> Vec<Tuple> {
        let queue = self.socks.get(id).and_then(|sk| sk.listen.as_ref());
        let children = queue.into_iter().flat_map(|l| &l.accept_queue);
        let children = children.filter_map(|child| self.socks.get(*child));
        // One that was reset in the queue has left the table.
        let children = children.filter(|sk| sk.hashed).map(|sk| sk.tuple);
        let open = self.reqs.iter().filter(|(_, req)| req.listener == id);
        children.chain(open.map(|(_, req)| req.tuple)).collect()
    }

    /// The kernel listens in the place of `id` from now on: no handshake begins here any more. Those that have begun go on,
    /// and what waits can be accepted, for a while: whoever gets the kernel's listener does not see it. The caller has a port
    /// holder for each of [`Stack::unaccepted`].
    pub fn leave_listening(&mut self, io: &mut Io<'_>, id: SocketId) {
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        let local = sk.tuple.local;
        let Some(listen) = &mut sk.listen else {
            return;
        };
        let until = io.now + UNACCEPTED_NS;
        listen.leaving = Some(Leaving {
            until,
            timer_queued: until,
        });
        self.heap.push(Reverse((until, TimerOwner::Listener(id))));
        for child in listen.accept_queue.clone() {
            if let Some(sk) = self.socks.get_mut(child) {
                sk.held = sk.hashed;
            }
        }
        for (_, req) in &mut self.reqs {
            req.held |= req.listener == id;
        }
        self.free_address(id, local);
    }

    /// True when nothing of a listener that has left is to be accepted any more.
    #[must_use]
    pub fn has_left(&self, id: SocketId) -> bool {
        let listen = self.socks.get(id).and_then(|sk| sk.listen.as_ref());
        listen.is_none_or(|l| l.leaving.is_some() && l.qlen == 0 && l.accept_queue.is_empty())
    }

    /// Nobody has accepted for long what a listener left behind.
    pub(crate) fn leaving_timer(&mut self, io: &mut Io<'_>, id: SocketId) {
        let Some(listen) = self.socks.get_mut(id).and_then(|sk| sk.listen.as_mut()) else {
            return;
        };
        let Some(leaving) = &mut listen.leaving else {
            return;
        };
        let mut over = VecDeque::new();
        if leaving.until <= io.now {
            leaving.until = io.now + UNACCEPTED_NS;
            over = core::mem::take(&mut listen.accept_queue);
        }
        leaving.timer_queued = leaving.until;
        self.heap
            .push(Reverse((leaving.until, TimerOwner::Listener(id))));
        for child in over {
            self.abort(io, child);
        }
    }

    fn free_address(&mut self, id: SocketId, local: SocketAddr) {
        if self.lhash.get(&local) == Some(&id) {
            self.lhash.remove(&local);
            self.release_port(local.port());
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
            if let Some(leaving) = &mut listen.leaving {
                leaving.until = io.now + UNACCEPTED_NS;
            }
            if let Some(sk) = self.socks.get_mut(child) {
                sk.parent = None;
                sk.held = true;
                sk.ss_connected = true;
                // A child that was reset in the queue has left the table already: its holder may go at once.
                self.settle(child);
            }
            return Step::Ready(Ok(child));
        }
        let deadline = call.timeo.deadline(io.now, nonblock, sk.opts.rcvtimeo);
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

    /// True when some listener's queue is more than half full: who takes frames for a program that is busy accepting leaves
    /// it the time, for what is beyond the backlog is dropped.
    #[must_use]
    pub fn accept_queue_crowded(&self) -> bool {
        self.lhash
            .values()
            .filter_map(|id| self.socks.get(*id)?.listen.as_ref())
            .any(|l| 2 * l.accept_queue.len() > l.backlog as usize + 1)
    }

    /// The listener listens no more: its unaccepted children are reset (ER-66; Linux `inet_csk_listen_stop`). Handshakes
    /// stay for [`Stack::listens`] to find out.
    pub(crate) fn listen_stop(&mut self, io: &mut Io<'_>, id: SocketId) {
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        let Some(listen) = sk.listen.take() else {
            return;
        };
        let local = sk.tuple.local;
        self.free_address(id, local);
        for child in listen.accept_queue {
            self.abort(io, child);
            // In their order, whatever ways they go.
            io.net.flush();
        }
    }

    /// True when the listener of a handshake listens, or has begun to again; a handshake without one is over.
    pub(crate) fn listens(&self, req: RequestId) -> bool {
        let req = self.reqs.get(req);
        req.and_then(|req| self.socks.get(req.listener))
            .is_some_and(|sk| sk.listen.is_some())
    }
}

#[cfg(test)]
mod tests;
