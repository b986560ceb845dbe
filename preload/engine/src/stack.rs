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
use slotmap::{SlotMap, new_key_type};

use crate::error::Error;
use crate::event::Events;
use crate::fastopen::MetricsCache;
use crate::listen::RequestSock;
use crate::memory::Memory;
use crate::mib::Mib;
use crate::net::{Net, Tuple};
use crate::skb::SkbPool;
use crate::sock::TcpSock;
use crate::sysctl::Sysctl;
use crate::time::Instant;
use crate::timewait::TimewaitSock;

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

/// Secrets, per boot, user and namespace (architecture.md "Namespaces, addresses, secrets").
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
    /// State of the small generator for jitter.
    pub prng: u64,
    /// Fast-open cookies and what else is remembered per destination.
    pub metrics: MetricsCache,
}

/// A borrowed view for code that works on one socket.
pub struct Cx<'a, 'io> {
    /// Monotonic time.
    pub now: Instant,
    /// Wall-clock nanoseconds.
    pub wall_ns: u64,
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
        sk.events |= events;
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
    /// Lazy heap of deadlines: an entry may be stale; `timer_queued` of its owner says which counts.
    pub(crate) heap: BinaryHeap<Reverse<(Instant, TimerOwner)>>,
    pub(crate) sh: Shared,
}

/// Whose deadline an entry of the heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerOwner {
    /// A socket.
    Sock(SocketId),
    /// A request sock (SYN-ACK retransmission).
    Request(RequestId),
    /// A TIME_WAIT remnant.
    Timewait(TimewaitId),
}
