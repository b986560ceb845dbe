//! The stack of one network namespace: sockets, demultiplexing, timers, and the engine's public calls.
//!
//! Calls come in four families. *Program*: `socket` ... `close`, each named after its system call; one that would sleep
//! returns [`Step::Wait`] and is called again with the same progress argument. *Network*: [`Stack::rx`], [`Stack::icmp`],
//! [`Stack::rx_batch_end`]. *Time*: [`Stack::next_deadline`], [`Stack::on_timers`]. *Events*: [`Stack::take_events`].
//!
//! After any call of the first three families the caller takes the events and wakes whom they name.

use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;

use hashbrown::HashMap;
use sidewire_uapi::tcp::TcpState;
use slotmap::{SlotMap, new_key_type};

use crate::demux::TupleHash;
use crate::error::Error;
use crate::event::Events;
use crate::fastopen::Blackhole;
use crate::init_sock::unspecified;
use crate::listen::RequestSock;
use crate::memory::Memory;
use crate::metrics::{MetricsKey, MetricsTable, PeerMetrics};
use crate::mib::Mib;
use crate::net::{Net, Tuple};
use crate::page_frag::PageFrag;
use crate::skb::SkbPool;
use crate::sock::TcpSock;
use crate::sysctl::Sysctl;
use crate::time::Instant;
use crate::timewait::TimewaitSock;
use crate::trace::Trace;
use crate::zerocopy::Dmabufs;

new_key_type! {
    /// Names a socket; never re-used for another one.
    pub struct SocketId;
    /// Names a request sock (a SYN received, the third ack awaited).
    pub struct RequestId;
    /// Names a TIME_WAIT socket.
    pub struct TimewaitId;
}

/// What every call needs from outside.
pub struct Io<'a> {
    /// Monotonic time.
    pub now: Instant,
    /// Wall-clock nanoseconds at `now` (CLOCK_REALTIME).
    pub wall_ns: u64,
    /// Arenas.
    pub mem: &'a mut dyn Memory,
    /// Routes and frames.
    pub net: &'a mut dyn Net,
}

/// Secrets, per boot, user and namespace.
#[derive(Clone)]
pub struct Secrets {
    /// RFC 6528 initial sequence numbers.
    pub isn: [u8; 16],
    /// Timestamp offsets.
    pub ts: [u8; 16],
    /// Fast-open cookies, when no TCP_FASTOPEN_KEY is set.
    pub fastopen: [u8; 16],
    /// Hash tables, and seed of everything that only has to differ (jitter, IP ids).
    pub hash: [u8; 16],
}

/// Where a four-tuple leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ehash {
    /// A full socket.
    Sock(SocketId),
    /// A handshake in progress.
    Request(RequestId),
    /// A TIME_WAIT remnant.
    Timewait(TimewaitId),
}

/// State that all sockets share; split from the socket table so that a socket and this can be borrowed together.
pub struct Shared {
    /// Settings.
    pub sysctl: Sysctl,
    /// Counters.
    pub mib: Mib,
    /// Secrets.
    pub secrets: Secrets,
    /// Buffers to re-use.
    pub pool: SkbPool,
    /// Sockets with undelivered events.
    pub ready: Vec<SocketId>,
    /// Sockets whose acks or data go out at the end of the receive batch.
    pub batch: Vec<SocketId>,
    /// Sockets that the packet socket refused.
    pub tx_blocked: Vec<SocketId>,
    /// Sockets whose tail waits for more of a run of sends.
    pub autocorked: Vec<SocketId>,
    /// When a program last sent.
    pub last_send: Instant,
    /// The record of the send that runs, if anybody wants to see it.
    pub trace: Option<Box<Trace>>,
    /// State of the small generator for jitter.
    pub prng: u64,
    /// What is kept of peers between connections.
    pub metrics: MetricsTable,
    /// Whether fast open is off for a while.
    pub blackhole: Blackhole,
    /// Sockets that no program holds any more and that are not closed yet (Linux `tcp_orphan_count`).
    pub orphans: u32,
    /// The page fragment that copying sends fill.
    pub page_frag: Option<PageFrag>,
    /// Pages charged against RLIMIT_MEMLOCK by zerocopy sends (ZC-17).
    pub locked_pages: u64,
    /// Registered dma-bufs.
    pub dmabufs: Dmabufs,
    /// A completion was given since [`Stack::take_zerocopy_done`].
    pub zerocopy_done: bool,
    /// Callers' completions that were not handed out yet: the cookie, and whether no byte was copied.
    pub ubufs_done: Vec<(u64, bool)>,
    /// TIME_WAIT remnants.
    pub timewaits: u32,
    /// Challenge acks left in the running second, and which second that is (RFC 5961 §7).
    pub challenge: (u32, u64),
}

/// A borrowed view for code that works on one socket.
pub struct Cx<'a, 'io> {
    /// Monotonic time.
    pub now: Instant,
    /// Wall-clock nanoseconds.
    pub wall_ns: u64,
    /// Works for what the network or a timer brought, not for a call: what is Linux's softirq.
    pub bh: bool,
    /// The socket that is being worked on.
    pub id: SocketId,
    /// Arenas.
    pub mem: &'a mut (dyn Memory + 'io),
    /// Routes and frames.
    pub net: &'a mut (dyn Net + 'io),
    /// Shared state.
    pub sh: &'a mut Shared,
}

impl Cx<'_, '_> {
    /// Tells those who wait on the socket (Linux `sk_data_ready`, `sk_write_space`, ...).
    pub fn wake(&mut self, sk: &mut TcpSock, events: Events) {
        if sk.events.is_empty() {
            self.sh.ready.push(self.id);
        }
        if (sk.events & events).contains(Events::SIGIO_IN) {
            sk.events |= Events::SIGIO_IN_AGAIN;
        }
        sk.events |= events;
        sk.wakes = sk.wakes.wrapping_add(1);
    }

    /// A number below `bound` (> 0), for jitter only.
    pub fn jitter(&mut self, bound: u32) -> u32 {
        self.sh.prng ^= self.sh.prng << 13;
        self.sh.prng ^= self.sh.prng >> 7;
        self.sh.prng ^= self.sh.prng << 17;
        ((self.sh.prng >> 32) % u64::from(bound)) as u32
    }
}

/// Why a call would sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// For the handshake (Linux `sk_stream_wait_connect`, `inet_wait_for_connect`).
    Connect,
    /// For send memory (Linux `sk_stream_wait_memory`).
    Memory,
    /// For data.
    Data,
    /// For a connection to accept.
    Accept,
    /// For everything to be acked (SO_LINGER).
    Linger,
    /// For nothing: let go of the stack for a moment, take in what has arrived, and call again (Linux `sk_flush_backlog`).
    Backlog,
}

/// The result of a call that may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Finished.
    Ready(T),
    /// Sleep until an event of the socket, a signal, or `deadline` (`NEVER` = none); then call again.
    Wait {
        /// What for.
        reason: WaitReason,
        /// SO_SNDTIMEO, SO_RCVTIMEO or the linger time, on the monotonic clock.
        deadline: Instant,
    },
}

/// Shorthand of fallible calls that may sleep.
pub type StepResult<T> = Step<Result<T, Error>>;

/// What decides permissions: the calling thread's effective capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// CAP_NET_ADMIN.
    pub net_admin: bool,
    /// CAP_NET_RAW.
    pub net_raw: bool,
    /// CAP_IPC_LOCK.
    pub ipc_lock: bool,
}

/// The stack.
pub struct Stack {
    pub(crate) socks: SlotMap<SocketId, Box<TcpSock>>,
    pub(crate) reqs: SlotMap<RequestId, Box<RequestSock>>,
    pub(crate) tws: SlotMap<TimewaitId, TimewaitSock>,
    pub(crate) ehash: HashMap<Tuple, Ehash, crate::demux::TupleHash>,
    /// Listeners by local address; an unspecified IP is the wildcard.
    pub(crate) lhash: HashMap<SocketAddr, SocketId, crate::demux::TupleHash>,
    /// Local ports in use: entries of `ehash` and `lhash` with each.
    pub(crate) ports: HashMap<u16, u32, TupleHash>,
    /// Lazy heap of deadlines: an entry may be stale; `timer_queued` of its owner says which counts.
    pub(crate) heap: BinaryHeap<Reverse<(Instant, TimerOwner)>>,
    /// Tuples whose holders may go ([`Stack::take_released`]).
    pub(crate) released: Vec<Tuple>,
    pub(crate) sh: Shared,
}

/// Whose deadline an entry of the heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerOwner {
    /// A socket.
    Sock(SocketId),
    /// A listener in whose place the kernel listens.
    Listener(SocketId),
    /// A request sock (SYN-ACK retransmission).
    Request(RequestId),
    /// A TIME_WAIT remnant.
    Timewait(TimewaitId),
}

/// Stale entries that the heap may hold for each live one, before it is built anew.
const HEAP_SLACK: usize = 4;
/// Entries below which the heap is never built anew.
const HEAP_MIN: usize = 1024;

impl Stack {
    /// An empty stack. `secrets.hash` also seeds the jitter.
    #[must_use]
    pub fn new(sysctl: Sysctl, secrets: Secrets) -> Self {
        let hash = TupleHash::new(secrets.hash);
        let seed = u64::from_le_bytes(secrets.hash[..8].try_into().unwrap_or_default());
        Self {
            socks: SlotMap::with_key(),
            reqs: SlotMap::with_key(),
            tws: SlotMap::with_key(),
            ehash: HashMap::with_hasher(hash.clone()),
            lhash: HashMap::with_hasher(hash.clone()),
            ports: HashMap::with_hasher(hash.clone()),
            heap: BinaryHeap::new(),
            released: Vec::new(),
            sh: Shared {
                sysctl,
                mib: Mib::default(),
                secrets,
                pool: SkbPool::default(),
                ready: Vec::new(),
                batch: Vec::new(),
                tx_blocked: Vec::new(),
                autocorked: Vec::new(),
                last_send: Instant::ZERO,
                trace: None,
                // Xorshift must not start at 0.
                prng: seed | 1,
                metrics: MetricsTable::new(hash),
                blackhole: Blackhole::default(),
                orphans: 0,
                page_frag: None,
                locked_pages: 0,
                dmabufs: Dmabufs::default(),
                zerocopy_done: false,
                ubufs_done: Vec::new(),
                timewaits: 0,
                challenge: (0, u64::MAX),
            },
        }
    }

    /// A socket in CLOSE. `user` comes back with its events.
    pub fn socket(&mut self, v6: bool, user: u64) -> SocketId {
        let sk = Box::new(TcpSock::new(v6, user, &self.sh.sysctl));
        self.socks.insert(sk)
    }

    /// Changes the cookie that comes with events; an accepted child gets its first one so.
    pub fn set_user(&mut self, id: SocketId, user: u64) {
        if let Some(sk) = self.socks.get_mut(id) {
            sk.user = user;
        }
    }

    /// What the thread could do that opened the socket's file, by the capabilities that count in the first user namespace
    /// (TS-43).
    pub fn opened_by(&mut self, id: SocketId, caps: Caps) {
        if let Some(sk) = self.socks.get_mut(id) {
            sk.opts.opener_net_raw = caps.net_raw;
        }
    }

    /// Charges a socket for so many bytes of option memory, while a call has its control messages there. False when there
    /// is not so much (Linux `sock_kmalloc`).
    pub fn sock_kmalloc(&mut self, id: SocketId, bytes: u32) -> bool {
        let max = self.sh.sysctl.optmem_max;
        let Some(sk) = self.socks.get_mut(id) else {
            return bytes < max;
        };
        let used = sk.zerocopy.optmem.saturating_add(bytes);
        if used < max {
            sk.zerocopy.optmem = used;
        }
        used < max
    }

    /// The call is over (Linux `sock_kfree_s`).
    pub fn sock_kfree_s(&mut self, id: SocketId, bytes: u32) {
        if let Some(sk) = self.socks.get_mut(id) {
            sk.zerocopy.optmem -= bytes;
        }
    }

    /// False once the socket is gone for good.
    #[must_use]
    pub fn exists(&self, id: SocketId) -> bool {
        self.socks.contains_key(id)
    }

    /// The socket; for the API's files, which answer questions about one.
    #[must_use]
    pub fn sock(&self, id: SocketId) -> Option<&TcpSock> {
        self.socks.get(id).map(|sk| &**sk)
    }

    /// The program bound the socket to `local` (its shadow in the kernel said yes). A disconnect keeps the address.
    pub fn bound(&mut self, id: SocketId, local: SocketAddr) {
        if let Some(sk) = self.socks.get_mut(id) {
            sk.tuple.local = local;
            sk.bound_addr |= !local.ip().is_unspecified();
            sk.bound_port |= local.port() != 0;
        }
    }

    /// The socket's port is no longer its own, though its name goes on showing it (Linux `inet_put_port`).
    pub fn unbound(&mut self, id: SocketId) {
        if let Some(sk) = self.socks.get_mut(id) {
            sk.bound_port = false;
        }
    }

    /// A `bind` failed because the port is taken: the local address is none (Linux `__inet_bind`).
    pub fn address_cleared(&mut self, id: SocketId) {
        if let Some(sk) = self.socks.get_mut(id) {
            sk.tuple.local.set_ip(unspecified(sk.v6).ip());
        }
    }

    /// `connect` or `listen` had the socket bound to `local`.
    pub fn autobound(&mut self, id: SocketId, local: SocketAddr) {
        if let Some(sk) = self.socks.get_mut(id) {
            sk.tuple.local = local;
        }
    }

    /// The socket's state; CLOSE when it is gone.
    #[must_use]
    pub fn state(&self, id: SocketId) -> TcpState {
        self.socks.get(id).map_or(TcpState::Close, |sk| sk.state)
    }

    /// `getsockname`: the local address, unspecified while it was never bound.
    #[must_use]
    pub fn local(&self, id: SocketId) -> Option<SocketAddr> {
        self.socks.get(id).map(|sk| sk.tuple.local)
    }

    /// `getpeername`.
    ///
    /// # Errors
    /// `NotConn` in CLOSE and SYN_SENT, and without a peer.
    pub fn peer(&self, id: SocketId) -> Result<SocketAddr, Error> {
        let sk = self.socks.get(id).ok_or(Error::BadFd)?;
        if sk.tuple.remote.port() == 0 || sk.in_state(&[TcpState::Close, TcpState::SynSent]) {
            return Err(Error::NotConn);
        }
        Ok(sk.tuple.remote)
    }

    /// SO_PEERNAME: whom the socket was told to connect to, in every state (Linux `inet_getname`, peer 2).
    ///
    /// # Errors
    /// `NotConn` without a peer.
    pub fn peername(&self, id: SocketId) -> Result<SocketAddr, Error> {
        let sk = self.socks.get(id).ok_or(Error::BadFd)?;
        let peer = sk.tuple.remote;
        if peer.port() == 0 {
            return Err(Error::NotConn);
        }
        Ok(peer)
    }

    /// Counters.
    #[must_use]
    pub fn mib(&self) -> &Mib {
        &self.sh.mib
    }

    /// Settings.
    #[must_use]
    pub fn sysctl(&self) -> &Sysctl {
        &self.sh.sysctl
    }

    /// Every socket, for status.
    pub fn for_each(&self, mut f: impl FnMut(SocketId, &TcpSock)) {
        for (id, sk) in &self.socks {
            f(id, sk);
        }
    }

    /// TIME_WAIT remnants.
    #[must_use]
    pub fn timewait_count(&self) -> usize {
        self.tws.len()
    }

    /// Each of them.
    pub fn timewaits(&self) -> impl Iterator<Item = &TimewaitSock> {
        self.tws.values()
    }

    /// Tuples that the engine still uses: connections, orphans, handshakes and TIME_WAIT remnants.
    pub fn tuples(&self) -> impl Iterator<Item = &Tuple> {
        self.ehash.keys()
    }

    /// True when anything of the engine's uses the local port.
    #[must_use]
    pub fn port_in_use(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Tuples that `accept` or `connect` made known to the caller and whose last user (socket, orphan, TIME_WAIT) is
    /// gone.
    pub fn take_released(&mut self, mut f: impl FnMut(Tuple)) {
        for tuple in self.released.drain(..) {
            f(tuple);
        }
    }

    /// Tells of each peer of which something new is known for later connections, here or elsewhere (FO-28).
    pub fn take_learned(&mut self, f: impl FnMut(MetricsKey, PeerMetrics)) {
        self.sh.metrics.take_learned(f);
    }

    /// Is it worth while to ask other stacks of the host what they know of a peer, before a connection to it begins?
    pub fn asks_about(&mut self, now: Instant, key: &MetricsKey, fastopen: bool) -> bool {
        self.sh.metrics.asks(key, fastopen, now)
    }

    /// Another stack of the host knows this of a peer.
    pub fn learn(&mut self, now: Instant, key: &MetricsKey, told: &PeerMetrics) {
        self.sh.metrics.learn(key, told, now);
    }

    /// True when the process may end without taking anything from a peer: no orphan, nothing unsent or unacknowledged.
    /// TIME_WAIT does not count.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        self.sh.orphans == 0
            && self
                .socks
                .values()
                .all(|sk| sk.rtx_queue.is_empty() && sk.write_queue.is_empty())
    }

    /// True while a closed connection waits for its peer's FIN (FIN_WAIT2 of an orphan), which is to be acknowledged.
    #[must_use]
    pub fn awaits_fin(&self) -> bool {
        self.tws.values().any(|tw| tw.fin_wait2)
    }

    /// When [`Stack::on_timers`] wants to be called; may be early, never late.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.heap
            .peek()
            .map_or(Instant::NEVER, |Reverse((at, _))| *at)
    }

    /// Hands out the events since the last call: the caller's cookie, the socket, the edges.
    pub fn take_events(&mut self, mut f: impl FnMut(u64, SocketId, Events)) {
        let mut ready = core::mem::take(&mut self.sh.ready);
        for id in ready.drain(..) {
            if let Some(sk) = self.socks.get_mut(id) {
                let events = core::mem::take(&mut sk.events);
                // A child that nobody accepted has no one to tell; what it has to say is a level by then.
                if !sk.orphan && sk.parent.is_none() && !events.is_empty() {
                    f(sk.user, id, events);
                }
            }
        }
        // Its memory is used again.
        self.sh.ready = ready;
    }

    /// A socket and what code that works on one socket needs beside it.
    pub(crate) fn borrow<'s, 'io>(
        &'s mut self,
        io: &'s mut Io<'io>,
        id: SocketId,
    ) -> Option<(&'s mut TcpSock, Cx<'s, 'io>)> {
        let sk = self.socks.get_mut(id)?;
        let cx = Cx {
            now: io.now,
            wall_ns: io.wall_ns,
            bh: false,
            id,
            mem: &mut *io.mem,
            net: &mut *io.net,
            sh: &mut self.sh,
        };
        Some((sk, cx))
    }

    /// The same for what the network or a timer brought.
    pub(crate) fn borrow_bh<'s, 'io>(
        &'s mut self,
        io: &'s mut Io<'io>,
        id: SocketId,
    ) -> Option<(&'s mut TcpSock, Cx<'s, 'io>)> {
        let (sk, mut cx) = self.borrow(io, id)?;
        cx.bh = true;
        Some((sk, cx))
    }

    /// Brings the tables and the heap in line with what a call did to a socket.
    pub(crate) fn settle(&mut self, id: SocketId) {
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        #[cfg(debug_assertions)]
        sk.check();
        let ended = sk.state == TcpState::Close || sk.timewait.is_some();
        if ended || sk.fastopen_synack.is_some() {
            self.settle_end(id);
        }
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        let at = sk.timers.earliest();
        if at < sk.timer_queued {
            sk.timer_queued = at;
            self.heap.push(Reverse((at, TimerOwner::Sock(id))));
            self.trim_heap();
        }
    }

    /// The same of what is over: the request of a fast open, a socket that goes on as a TIME_WAIT remnant, or that is
    /// closed.
    fn settle_end(&mut self, id: SocketId) {
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        if !sk.fastopen_rsk
            && let Some(req) = sk.fastopen_synack.take()
        {
            self.reqsk_fastopen_remove(&req);
        }
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        if let Some(tw) = sk.timewait.take() {
            sk.hashed = false;
            sk.held = false;
            self.insert_timewait(*tw);
        }
        let Some(sk) = self.socks.get_mut(id) else {
            return;
        };
        if sk.state == TcpState::Close {
            let tuple = sk.tuple;
            let hashed = core::mem::take(&mut sk.hashed);
            let held = core::mem::take(&mut sk.held);
            let gone = sk.orphan;
            if hashed {
                self.unhash(&tuple);
            }
            if held {
                self.released.push(tuple);
            }
            if gone {
                self.sh.orphans -= 1;
                self.socks.remove(id);
            }
        }
    }

    /// Builds the heap anew when stale entries dominate it.
    pub(crate) fn trim_heap(&mut self) {
        let live = self.socks.len() + self.reqs.len() + self.tws.len();
        if self.heap.len() > HEAP_MIN && self.heap.len() > live * HEAP_SLACK {
            let mut heap = core::mem::take(&mut self.heap);
            heap.retain(|Reverse((at, owner))| self.queued(*owner) == *at);
            self.heap = heap;
        }
    }

    /// The heap entry that counts for `owner`; `NEVER` when it has none or is gone.
    fn queued(&self, owner: TimerOwner) -> Instant {
        match owner {
            TimerOwner::Sock(id) => self.socks.get(id).map(|sk| sk.timer_queued),
            TimerOwner::Listener(id) => {
                let listen = self.socks.get(id).and_then(|sk| sk.listen.as_ref());
                listen.and_then(|l| Some(l.leaving.as_ref()?.timer_queued))
            }
            TimerOwner::Request(id) => self.reqs.get(id).map(|r| r.timer_queued),
            TimerOwner::Timewait(id) => self.tws.get(id).map(|t| t.timer_queued),
        }
        .unwrap_or(Instant::NEVER)
    }

    /// Runs what is due. The caller takes the events afterwards.
    pub fn on_timers(&mut self, io: &mut Io<'_>) {
        while let Some(&Reverse((at, owner))) = self.heap.peek() {
            if at > io.now {
                break;
            }
            self.heap.pop();
            if self.queued(owner) != at {
                continue;
            }
            match owner {
                TimerOwner::Sock(id) => {
                    if let Some(sk) = self.socks.get_mut(id) {
                        sk.timer_queued = Instant::NEVER;
                    }
                    self.sock_timers(io, id);
                }
                TimerOwner::Listener(id) => self.leaving_timer(io, id),
                TimerOwner::Request(id) => self.reqsk_timer(io, id),
                TimerOwner::Timewait(id) => self.timewait_timer(io.now, id),
            }
        }
    }
}
