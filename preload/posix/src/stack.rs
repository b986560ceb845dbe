//! One engine per network namespace, and everything that belongs to it: the lock, the link, the arenas.
//!
//! Lock order: [`NetStack`]'s mutex, then a file's wait queue, then leaf locks. Nothing sleeps with any of them held.

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use once_cell::sync::OnceCell;
use sidewire_engine::event::Events;
use sidewire_engine::metrics::{MetricsKey, PeerMetrics};
use sidewire_engine::net::TxVerdict;
use sidewire_engine::{Instant, Io, Stack};
use sidewire_link::Errno;
use sidewire_link::netlink::Neighbours;
use sidewire_link::packet::{PacketSocket, PacketSource, Turn};
use sidewire_link::reserve::{self, Claim};
use sidewire_uapi::TcpState;
use std::io;
use std::sync::Arc;

use crate::calls::unbind::unbind_after_the_end;
use crate::deferred::DeferredQueues;
use crate::driver::Driver;
use crate::file::File;
use crate::holders::Holders;
use crate::lanes::{self, Carried, Lanes, Late, Which};
use crate::lock::{Mutex, MutexGuard};
use crate::memory::Arenas;
use crate::net::LinkNet;
use crate::signals::cancel;
use crate::{peers, syscall, thread, ubuf};

/// Events that one locked section hands out without allocating; more are told while the lock is still held. Each takes from
/// the program's stack, which may be a signal handler's.
const WAKES: usize = 16;
/// Network namespaces that one process may use with accelerated sockets.
pub(crate) const MAX_STACKS: usize = 16;
/// Least RLIMIT_DATA, in bytes: what the arenas and a stack's tables begin with, and as much again.
const DATA_MIN: u64 = 16 << 20;
/// Age at which the offset between the clocks is read anew, in nanoseconds.
const WALL_OFFSET_AGE: u64 = 10_000_000;

/// What the lock protects.
pub struct Inner {
    /// The TCP.
    pub engine: Stack,
    /// The way out, routes and neighbours.
    pub net: LinkNet,
    /// Payload memory.
    pub mem: Arenas,
    /// The way in.
    pub source: PacketSource,
    /// What the way in has left in the kernel's queue, where it can.
    pub(crate) deferred: Option<DeferredQueues>,
    /// What keeps the kernel silent on our ports.
    pub holders: Holders,
    pub(crate) clock: Clock,
    /// Files open on this stack.
    pub(crate) files: usize,
    /// When the way in was first seen to want a ring.
    pub(crate) ring_wanted_at: Option<u64>,
}

/// Monotonic time, and the wall clock at little cost.
#[derive(Default)]
pub(crate) struct Clock {
    wall_offset: u64,
    read_at: u64,
}

/// CLOCK_MONOTONIC in nanoseconds.
#[inline]
#[must_use]
pub fn monotonic_ns() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds.
#[must_use]
pub(crate) fn wall_ns() -> u64 {
    read_clock(libc::CLOCK_REALTIME)
}

#[inline]
fn read_clock(id: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes to a live local. clock_gettime is not hooked and comes from the vdso.
    unsafe { libc::clock_gettime(id, &raw mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

impl Clock {
    /// Monotonic nanoseconds.
    #[inline]
    pub(crate) fn read(&mut self) -> u64 {
        let now = monotonic_ns();
        if now.wrapping_sub(self.read_at) > WALL_OFFSET_AGE {
            self.wall_offset = read_clock(libc::CLOCK_REALTIME).wrapping_sub(now);
            self.read_at = now;
        }
        now
    }

    /// The wall clock's nanoseconds at a time that was just read.
    #[inline]
    pub(crate) fn wall(&self, now: u64) -> u64 {
        now.wrapping_add(self.wall_offset)
    }
}

impl Inner {
    /// When the engine or a neighbour wants attention, in nanoseconds of the monotonic clock.
    #[inline]
    pub(crate) fn next_deadline(&self) -> u64 {
        self.engine.next_deadline().0.min(self.net.next_deadline())
    }

    /// A thread of the program is about to sleep: small tails wait no longer for its next send.
    pub(crate) fn release_autocorked(&mut self) {
        if self.engine.autocorked() {
            let (engine, mut io) = self.split();
            engine.release_autocorked(&mut io);
        }
    }

    /// Tells the engine of frames that did not leave, the newest first.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell_late(&mut self, late: Vec<Late>) {
        for frame in late.into_iter().rev() {
            if frame.verdict == TxVerdict::DeviceGone {
                self.net.forget_hops();
            }
            let (verdict, lane) = (frame.verdict, frame.lane);
            if verdict != TxVerdict::Copied {
                self.net.stats.tx_frames -= 1;
                self.net.stats.tx_bytes -= (frame.headers.len() + frame.len as usize) as u64;
            }
            if let Some(frame) = frame.of() {
                let (engine, mut io) = self.split();
                if engine.tx_late(&mut io, &frame, verdict) {
                    crate::warning!(
                        "the connection to {} is reset: pages of a zerocopy send or sendfile were gone before they left",
                        frame.tuple.remote
                    );
                }
            }
            if verdict == TxVerdict::Dropped {
                self.net.resume(lane);
            }
        }
    }

    /// From now on frames go to the device under the lock.
    pub(crate) fn go_direct(&mut self) {
        self.drain();
        self.net.go_direct();
    }

    /// Waits until no frame is on its way to the device.
    pub(crate) fn drain(&mut self) {
        let late = self.net.drain();
        self.tell_late(late);
    }

    /// The engine, and what its calls take.
    #[inline]
    pub fn split(&mut self) -> (&mut Stack, Io<'_>) {
        self.read_clock();
        self.split_again()
    }

    /// Sets the time that the engine goes by.
    #[inline]
    pub(crate) fn read_clock(&mut self) {
        self.net.now = self.clock.read();
    }

    /// The same for what follows at once: the clock is not read anew.
    #[inline]
    pub(crate) fn split_again(&mut self) -> (&mut Stack, Io<'_>) {
        let now = self.net.now;
        let io = Io {
            now: Instant(now),
            wall_ns: self.clock.wall(now),
            mem: &mut self.mem,
            net: &mut self.net,
        };
        (&mut self.engine, io)
    }
}

/// The stack of a network namespace. Never freed.
pub struct NetStack {
    /// SO_NETNS_COOKIE.
    cookie: u64,
    inner: Mutex<Inner>,
    /// Frames on their way to the device.
    lanes: Arc<Lanes>,
    /// Payload that is still in the packet socket's queue, and in those of several, that may follow it.
    deferred: [OnceCell<DeferredQueues>; 2],
    /// By which the way in is given a ring.
    turn: Mutex<Option<Arc<Turn>>>,
    /// Who drives and who sleeps.
    pub driver: Driver,
    /// Process that made it; a forked child does not drive its parent's connections.
    pid: i32,
    /// [`GENERATION`] of that process.
    generation: u32,
    /// An undertaker has what was left: nothing is received or sent here any more.
    retired: AtomicBool,
    /// Of a packet socket that was handed over: says that it is ours.
    claim: Option<Claim>,
}

/// Who is to be told once the lock is dropped.
type Wakes = ArrayVec<(&'static File, u32), WAKES>;

/// What is to be done once the lock is dropped. Large: filled in place.
#[derive(Default)]
struct Afterwards {
    wakes: Wakes,
    /// Whoever sleeps until a deadline has to wake earlier.
    kick: bool,
    /// The packet socket was full when a frame was sent under the lock.
    full: bool,
    /// Lanes that have got frames.
    laden: Which,
    /// Files whose connection has ended, with a port that the kernel chose for them.
    ended: Vec<(&'static File, u32)>,
    /// What was learned of peers, and other processes want to know.
    learned: Vec<(MetricsKey, PeerMetrics)>,
}

impl NetStack {
    /// Runs `f` with the lock held; then hands over the frames that it made, tells whom the engine's events name, and whoever
    /// sleeps too long.
    #[inline]
    pub fn with<R>(&'static self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.inner.lock();
        let r = f(&mut inner);
        let mut afterwards = Afterwards::default();
        self.finish(&mut inner, &mut afterwards);
        drop(inner);
        self.unlocked(&afterwards);
        r
    }

    #[inline]
    fn unlocked(&'static self, afterwards: &Afterwards) {
        if afterwards.laden != 0 {
            let carried = self.carry(afterwards);
            if !carried.quiet() {
                self.settle(carried);
            }
        }
        self.tell(afterwards);
    }

    fn carry(&'static self, afterwards: &Afterwards) -> Carried {
        let carried = self.lanes.carry(afterwards.laden);
        if afterwards.laden == lanes::ALL && !afterwards.full && !carried.full {
            self.driver.want_tx.store(false, Ordering::SeqCst);
            // Who carries at the same time may have met it full, and said so just before.
            if self.lanes.full() {
                self.await_space();
            }
        }
        carried
    }

    /// The packet socket is full: whoever sleeps is to hear when it is not.
    fn await_space(&self) {
        if !self.driver.want_tx.swap(true, Ordering::SeqCst) {
            self.driver.kick();
        }
    }

    fn tell(&'static self, afterwards: &Afterwards) {
        // Before whoever waits for the end wakes.
        for (file, of_use) in &afterwards.ended {
            unbind_after_the_end(file, *of_use);
        }
        for (file, events) in &afterwards.wakes {
            file.wait.wake(file, *events);
        }
        if afterwards.kick {
            self.driver.kick();
        }
        for (peer, known) in &afterwards.learned {
            peers::remember(self.cookie, peer, known);
        }
    }

    /// Before a connection to `peer`: what other processes know of it.
    pub(crate) fn recall_peer(&'static self, peer: &MetricsKey) {
        if let Some(known) = peers::recall(self.cookie, peer) {
            self.with(|i| i.engine.learn(Instant(monotonic_ns()), peer, &known));
        }
    }

    /// The same as after each call, for who holds the lock all the time: tells other processes what was learned.
    pub(crate) fn remember_peers(&self, inner: &mut Inner) {
        inner
            .engine
            .take_learned(|peer, known| peers::remember(self.cookie, &peer, &known));
    }

    /// Tells the engine what became of frames that were on their way, and carries what it sends then, until nothing is left
    /// to be told.
    #[cold]
    fn settle(&'static self, mut carried: Carried) {
        while !carried.quiet() {
            if carried.full {
                self.await_space();
            }
            if carried.left {
                self.driver.leave_to_pump();
            }
            let mut inner = self.inner.lock();
            inner.tell_late(carried.late);
            if carried.own_full {
                inner.net.retry_own();
            }
            if carried.room {
                let (engine, mut io) = inner.split();
                engine.tx_space(&mut io);
            }
            let mut afterwards = Afterwards::default();
            self.finish(&mut inner, &mut afterwards);
            drop(inner);
            carried = self.carry(&afterwards);
            self.tell(&afterwards);
        }
    }

    /// The turn to a ring, or to several, once it is wanted.
    pub(crate) fn take_turn(&self) -> Option<Arc<Turn>> {
        let mut turn = self.turn.lock();
        // Who saw that one was wanted may have seen it of the one before.
        if self.driver.turn_needed() {
            return None;
        }
        turn.take()
    }

    /// There may be another one.
    pub(crate) fn turn_again(&self, turn: Arc<Turn>) {
        let mut place = self.turn.lock();
        *place = Some(turn);
        self.driver.turn_may_be_wanted();
    }

    /// Large frames are left in the packet sockets' queues from now on: in one, or in several, that may follow it.
    pub(crate) fn defer_by(&self, queues: DeferredQueues) -> DeferredQueues {
        let place = usize::from(queues.several());
        self.deferred[place].get_or_init(|| queues).clone()
    }

    /// True when a payload is left in a packet socket's queue.
    pub(crate) fn deferred_any(&self) -> bool {
        let mut queues = self.deferred.iter().filter_map(OnceCell::get);
        queues.any(DeferredQueues::any)
    }

    /// For who is about to wait until the packet socket is readable: it is as long as a payload is left in its queue.
    pub(crate) fn bring_deferred(&'static self) {
        if self.deferred_any() {
            self.with(Inner::bring_deferred);
        }
    }

    /// True when a frame waits; false also when somebody else holds the lock, who will see it.
    pub(crate) fn frames_wait(&'static self) -> bool {
        self.inner.try_lock().is_some_and(|mut i| i.frames_wait())
    }

    /// Takes events, and what else is to be done without the lock.
    fn finish(&'static self, inner: &mut Inner, afterwards: &mut Afterwards) {
        if self.driver.want_tx.load(Ordering::Relaxed) && inner.net.retries() {
            inner.net.space();
            let (engine, mut io) = inner.split();
            engine.tx_space(&mut io);
        }
        if inner.engine.take_zerocopy_done() {
            inner.net.release_pages();
        }
        inner.tell_fresh_tstamps();
        let late = inner.net.take_late();
        if !late.is_empty() {
            inner.tell_late(late);
        }
        let Afterwards { wakes, ended, .. } = &mut *afterwards;
        inner.engine.take_events(|cookie, id, events| {
            let Some(file) = File::from_cookie(cookie) else {
                return;
            };
            if file.id() != id {
                return;
            }
            if events.contains(Events::HUP)
                && let Some(of_use) = file.port.lock().ends_with()
            {
                ended.push((file, of_use));
            }
            if file.wait.is_empty() {
                return;
            }
            file.wait.mark(file, events.bits());
            if let Err(full) = wakes.try_push((file, events.bits())) {
                let (file, bits) = full.element();
                file.wait.wake(file, bits);
            }
        });
        let Inner {
            engine, holders, ..
        } = inner;
        // The same event tells of any other change of state.
        ended.retain(|(file, _)| engine.state(file.id()) == TcpState::Close);
        engine.take_released(|tuple| holders.release(&tuple));
        engine.take_ubufs(ubuf::complete);
        engine.take_learned(|peer, known| afterwards.learned.push((peer, known)));
        let autocorked = engine.autocorked();
        if autocorked != self.driver.autocorked.load(Ordering::Relaxed) {
            self.driver.autocorked.store(autocorked, Ordering::Relaxed);
        }
        let full = inner.net.take_full();
        if full {
            self.driver.want_tx.store(true, Ordering::Relaxed);
        }
        if self.driver.turn_needed() && !thread::own() && crate::turn::wanted(inner) {
            let turn = self.turn.lock();
            if let Some(turn) = &*turn {
                turn.open(crate::turn::several(inner));
                self.driver.want_turn();
            }
        }
        afterwards.full = full;
        afterwards.kick = full || self.driver.too_late(inner.next_deadline());
        afterwards.laden = inner.net.take_laden();
    }

    /// True in the process that made the stack.
    #[must_use]
    pub fn owned(&self) -> bool {
        self.is_of(PID.load(Ordering::Relaxed) as i32)
    }

    /// True when the process of that id made it, and not one of its parents that has the same id in its own namespace.
    fn is_of(&self, pid: i32) -> bool {
        self.pid == pid && self.generation == GENERATION.load(Ordering::Relaxed)
    }

    /// The lock itself, to be held across a fork.
    pub(crate) fn lock(&'static self) -> MutexGuard<'static, Inner> {
        self.inner.lock()
    }

    /// Ends the stack's work in this process.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Receives no more, in a process that ends or leaves the rest to an undertaker. `last`: nobody goes on with the
    /// packet sockets, and those that were handed over are to be as they came.
    pub(crate) fn let_go(&self, inner: &mut Inner, last: bool) {
        inner.source.close();
        if let Some(claim) = self.claim.as_ref().filter(|_| last) {
            claim.give_back();
        }
    }

    /// True after [`NetStack::retire`].
    pub(crate) fn retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}

/// This process, as of the first socket or the last fork.
static PID: AtomicU32 = AtomicU32::new(0);

/// Forks between the process that loaded the library and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// To be called in the child after fork.
pub fn forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    PID.store(syscall::getpid() as u32, Ordering::Relaxed);
}

static STACKS: Mutex<ArrayVec<&'static NetStack, MAX_STACKS>> = Mutex::new(ArrayVec::new_const());
/// The last answer of [`for_socket`], so that the common program with one namespace takes no lock.
static LAST: AtomicU64 = AtomicU64::new(0);

/// True once this process may have sockets on an engine: one load.
#[inline]
#[must_use]
pub fn any() -> bool {
    LAST.load(Ordering::Relaxed) != 0
}

/// Why a namespace has no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Packet sockets are refused.
    Packet(Errno),
    /// They are refused without CAP_NET_RAW, and none that was handed over can be had.
    HandedOver(reserve::Refused),
    /// Routes cannot be read.
    Netlink(Errno),
    /// More namespaces than [`MAX_STACKS`].
    TooMany,
    /// The kernel has no SO_NETNS_COOKIE (before 5.14).
    Cookie(Errno),
    /// RLIMIT_DATA, in bytes, leaves too little memory.
    Data(u64),
}

impl core::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::HandedOver(refused) => refused.fmt(f),
            Self::Packet(e) => write!(f, "no packet socket: {}", io::Error::from(*e)),
            Self::Netlink(e) => write!(f, "no routes over netlink: {}", io::Error::from(*e)),
            Self::TooMany => write!(f, "more than {MAX_STACKS} network namespaces"),
            Self::Cookie(e) => write!(f, "no SO_NETNS_COOKIE: {}", io::Error::from(*e)),
            Self::Data(limit) => write!(
                f,
                "RLIMIT_DATA (ulimit -d) is {} KiB, and {} are needed",
                limit >> 10,
                DATA_MIN >> 10
            ),
        }
    }
}

/// The stack of the namespace that a kernel socket belongs to; made at the first call.
///
/// # Errors
/// [`Unavailable`] says why the kernel has to carry the socket.
pub fn for_socket(fd: c_int) -> Result<&'static NetStack, Unavailable> {
    let cookie = syscall::getsockopt_u64(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE)
        .map_err(Unavailable::Cookie)?;
    // SAFETY: stacks are never freed.
    match unsafe { (LAST.load(Ordering::Acquire) as *const NetStack).as_ref() } {
        Some(s) if s.cookie == cookie && s.owned() => return Ok(s),
        _ => {}
    }
    let mut stacks = STACKS.lock();
    let pid = syscall::getpid();
    PID.store(pid as u32, Ordering::Relaxed);
    let stack = match stacks.iter().find(|s| s.cookie == cookie && s.is_of(pid)) {
        Some(s) => *s,
        None => {
            if stacks.is_full() {
                return Err(Unavailable::TooMany);
            }
            let s = NetStack::open(cookie, pid)?;
            stacks.push(s);
            s
        }
    };
    LAST.store(core::ptr::from_ref(stack) as u64, Ordering::Release);
    Ok(stack)
}

const SO_NETNS_COOKIE: c_int = sidewire_uapi::socket::SO_NETNS_COOKIE;

/// Locks the list of stacks before a fork, and unlocks it after, in parent and child.
pub(crate) fn across_fork(before: bool) {
    if before {
        core::mem::forget(STACKS.lock());
    } else {
        // SAFETY: this thread locked it before the fork.
        unsafe { STACKS.force_unlock() };
    }
}

/// Every stack of this process.
pub fn for_each(mut f: impl FnMut(&'static NetStack)) {
    let pid = syscall::getpid();
    let all = STACKS.lock().clone();
    for s in all.iter().filter(|s| s.is_of(pid)) {
        f(s);
    }
}

impl NetStack {
    /// SO_NETNS_COOKIE of its sockets.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    #[cold]
    fn open(cookie: u64, pid: i32) -> Result<&'static Self, Unavailable> {
        let _whole = cancel::Off::new();
        let data = syscall::data_limit();
        if data < DATA_MIN {
            return Err(Unavailable::Data(data));
        }
        let (socket, neighbours, claim) = match PacketSocket::open() {
            Ok(socket) => {
                let neighbours = Neighbours::open();
                if let Ok(neighbours) = &neighbours {
                    socket.close_late(neighbours.arp_fd());
                }
                (socket, neighbours, None)
            }
            Err(Errno::EPERM) => {
                let taken = reserve::take(cookie).map_err(Unavailable::HandedOver)?;
                let neighbours = Neighbours::with_arp(taken.arp);
                (taken.frames, neighbours, Some(taken.claim))
            }
            Err(e) => return Err(Unavailable::Packet(e)),
        };
        crate::pump::start(move || Self::open_over(socket, neighbours, claim, cookie, pid))
    }

    fn open_over(
        socket: PacketSocket,
        neighbours: Result<Neighbours, Errno>,
        claim: Option<Claim>,
        cookie: u64,
        pid: i32,
    ) -> Result<&'static Self, Unavailable> {
        let mut net = neighbours
            .and_then(|neighbours| LinkNet::open(&socket, neighbours))
            .map_err(Unavailable::Netlink)?;
        let holders = Holders::new(&socket, net.device_names());
        net.silent = holders.silent_ports();
        let (source, turn) = socket.first_source().map_err(Unavailable::Packet)?;
        let driver = Driver::new(&source, &net).map_err(Unavailable::Packet)?;
        let deferred = DeferredQueues::of(&source, socket.rcvbuf());
        Ok(Box::leak(Box::new(Self {
            cookie,
            lanes: net.lanes(),
            deferred: [
                deferred.clone().map_or_else(OnceCell::new, OnceCell::from),
                OnceCell::new(),
            ],
            turn: Mutex::new(turn.map(Arc::new)),
            inner: Mutex::new(Inner {
                engine: Stack::new(crate::sysctl::read(), crate::secrets::load(cookie)),
                net,
                mem: Arenas::new(),
                deferred,
                source,
                holders,
                clock: Clock::default(),
                files: 0,
                ring_wanted_at: None,
            }),
            driver,
            pid,
            generation: GENERATION.load(Ordering::Relaxed),
            retired: AtomicBool::new(false),
            claim,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_the_standard_librarys() {
        for (why, words) in [
            (
                Unavailable::Packet(Errno::EPERM),
                "no packet socket: Operation not permitted (os error 1)",
            ),
            (
                Unavailable::Cookie(Errno::ENOPROTOOPT),
                "no SO_NETNS_COOKIE: Protocol not available (os error 92)",
            ),
        ] {
            assert_eq!(why.to_string(), words);
        }
    }
}
