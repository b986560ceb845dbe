//! Who drives: receives frames, runs timers, wakes others.
//!
//! A thread that would sleep becomes the *leader*: it sleeps on the packet socket itself, so that the thread that waits is
//! the thread that receives. While there is a leader, other sleepers (*followers*) sleep on a futex, or in `ppoll` when they
//! watch descriptors of their own. A leader whose own event came hands the lead to a follower. The pump thread stands in
//! when nobody drives (`pump`).
//!
//! Deadlines: the pump sleeps at most until the engine's next deadline, and a leader leaves it to the pump where that comes
//! in time: a timer of its own in every sleep would cost it as much as the rest of the sleep does. Where there is no pump the
//! leader watches, or else whoever calls next. Whoever moves the deadline forward looks, still under the stack lock, at what
//! the sleepers have announced (`leader_until`, `pump_until`), and wakes one of them when both would come too late. Both are
//! written under the stack lock, so nothing is missed.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use libc::pollfd;
use sidewire_engine::Instant;
use sidewire_link::Errno;
use sidewire_link::epoll::Epoll;
use sidewire_link::fd::{Fd, move_high};
use sidewire_link::frame::FrameSource;
use sidewire_link::packet::PacketSource;
use std::os::fd::AsRawFd;

use crate::lock::Mutex;
use crate::net::LinkNet;
use crate::round::round;
use crate::signals::{self, Sleeping};
use crate::stack::{Inner, NetStack, monotonic_ns};
use crate::syscall;
use crate::wait::Waiter;

/// Nobody drives.
const NOBODY: u32 = 0;
/// A thread of the program drives.
const LEADER: u32 = 1;
/// The pump thread drives.
pub(crate) const PUMP: u32 = 2;

/// `leader_until` and `pump_until` of one who is awake and will look at the deadline before it sleeps.
const AWAKE: u64 = 0;

/// Descriptors that the leader watches on its own account: the packet socket as it receives, its eventfd, netlink, the packet
/// socket as it sends.
const OWN_FDS: usize = 4;
const FRAMES: usize = 0;
const WAKE: usize = 1;
const NETLINK: usize = 2;
const WAY_OUT: usize = 3;
/// Descriptors of the caller's that are watched without allocating.
const EXTRA_FAST: usize = 61;

/// How late the kernel lets a timeout of a thread be, as a rule (PR_SET_TIMERSLACK), in nanoseconds.
const TIMER_SLACK: u64 = 50_000;

/// Longest spin before a sleep, in nanoseconds.
const SPIN_NS: u64 = 20_000;
/// Value of `spin_credit` from which a sleep begins with a spin, and its bounds.
const SPIN_FROM: i32 = 0;
const SPIN_MAX: i32 = 8;
const SPIN_MIN: i32 = -4096;
/// What a spin without success costs, and twice as much each time until one succeeds.
const SPIN_MISS: i32 = 4;
/// `spin_credit` after a spin without success while too much time goes that way, at most.
const SPIN_OVER: i32 = -64;
/// Share of the wall time that may be spent spinning without success: one part in this many.
const SPIN_SHARE: u64 = 20;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The waiter was fired.
    Event,
    /// One of the caller's descriptors is ready; their `revents` say which.
    Extra,
    /// The caller's deadline passed.
    Timeout,
    /// A signal came.
    Signal,
}

/// The roles, and where their holders sleep.
pub struct Driver {
    role: AtomicU32,
    /// Until when the leader sleeps; [`AWAKE`] when there is none or it is awake.
    leader_until: AtomicU64,
    /// Until when the pump sleeps.
    pub(crate) pump_until: AtomicU64,
    /// The pump waits for a kick before it looks at anything again.
    pub(crate) pump_parked: AtomicBool,
    /// There is no pump: no thread could be made.
    pub(crate) no_pump: AtomicBool,
    /// Rounds of the program's threads that brought frames, and sleeps of leaders: what the pump judges activity by.
    pub(crate) rounds: AtomicU64,
    pub(crate) sleeps: AtomicU64,
    /// Sends of the program's threads, whether they brought frames or not.
    pub(crate) sends: AtomicU64,
    /// Connections that the program has accepted.
    pub(crate) accepts: AtomicU64,
    followers: Mutex<Vec<*const Waiter>>,
    wake: Fd,
    /// Over `wake`, the packet sockets that frames come by (edge-triggered), `netlink_fd` and, for errors, `way_out_fd`.
    own: Epoll,
    pub(crate) pump_wake: Fd,
    packet_fd: i32,
    way_out_fd: i32,
    netlink_fd: i32,
    /// Eventfds of followers that watch descriptors of their own; taken and given back.
    spare: Mutex<Vec<Fd>>,
    spin_credit: AtomicI32,
    /// Spins without success since the last one with.
    spin_misses: AtomicU32,
    spin_wasted: AtomicU64,
    spin_since: AtomicU64,
    /// The packet socket was full: POLLOUT is awaited.
    pub(crate) want_tx: AtomicBool,
    /// Something waits for more of a run of sends.
    pub(crate) autocorked: AtomicBool,
    /// The pump is to carry the lanes.
    pub(crate) left_to_pump: AtomicBool,
    /// The way in is to have a ring.
    pub(crate) turn_wanted: AtomicBool,
}

// SAFETY: the followers' pointers are used under their lock only, and a waiter leaves the list before it goes.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

fn high_eventfd() -> Result<Fd, Errno> {
    move_high(Fd::from_raw(syscall::eventfd()?))
}

impl Driver {
    pub(crate) fn new(source: &PacketSource, net: &LinkNet) -> Result<Self, Errno> {
        let (wake, own) = (high_eventfd()?, Epoll::new()?);
        let watched = [
            (wake.as_raw_fd(), WAKE, libc::EPOLLIN),
            (net.events_fd(), NETLINK, libc::EPOLLIN),
            // One that was handed over has one number.
            (net.writable_fd(), WAY_OUT, libc::EPOLLET),
        ];
        for (fd, slot, events) in watched {
            if fd != source.readable_fd() {
                own.add(fd, events, slot as u64)?;
            }
        }
        let driver = Self {
            role: AtomicU32::new(NOBODY),
            leader_until: AtomicU64::new(AWAKE),
            pump_until: AtomicU64::new(AWAKE),
            pump_parked: AtomicBool::new(false),
            no_pump: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            sends: AtomicU64::new(0),
            accepts: AtomicU64::new(0),
            followers: Mutex::new(Vec::new()),
            wake,
            own,
            pump_wake: high_eventfd()?,
            packet_fd: source.readable_fd(),
            way_out_fd: net.writable_fd(),
            netlink_fd: net.events_fd(),
            spare: Mutex::new(Vec::new()),
            // With one allowed CPU the peer may need it: the first spin waits its turn.
            spin_credit: AtomicI32::new(if syscall::allowed_cpus() > 1 {
                SPIN_MAX
            } else {
                SPIN_OVER
            }),
            spin_misses: AtomicU32::new(0),
            spin_wasted: AtomicU64::new(0),
            spin_since: AtomicU64::new(0),
            want_tx: AtomicBool::new(false),
            autocorked: AtomicBool::new(false),
            left_to_pump: AtomicBool::new(false),
            turn_wanted: AtomicBool::new(false),
        };
        driver.watch_frames(source)?;
        Ok(driver)
    }

    /// Frames come by other files, of which one or an epoll instance over them has the same number: `change` puts it there.
    /// Whoever sleeps on the old one wakes.
    pub(crate) fn frames_come_by<T>(
        &self,
        source: &mut PacketSource,
        change: impl FnOnce(&mut PacketSource) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        for fd in source.sockets() {
            self.own.remove(fd)?;
        }
        let changed = change(source);
        self.watch_frames(source)?;
        syscall::eventfd_signal(self.wake.as_raw_fd());
        self.kick_pump();
        changed
    }

    fn watch_frames(&self, source: &PacketSource) -> Result<(), Errno> {
        // The rings are looked at before each sleep: only what comes after that is of interest.
        let events = libc::EPOLLIN | libc::EPOLLET;
        let mut sockets = source.sockets().into_iter();
        sockets.try_for_each(|fd| self.own.add(fd, events, FRAMES as u64))
    }

    /// True until [`Driver::want_turn`].
    #[inline]
    pub(crate) fn turn_needed(&self) -> bool {
        !self.turn_wanted.load(Ordering::Relaxed)
    }

    /// One turn is over, another one may follow.
    pub(crate) fn turn_may_be_wanted(&self) {
        self.turn_wanted.store(false, Ordering::SeqCst);
    }

    /// More frames come than are well received as they are: the pump sees to a ring, or several. Told once.
    pub(crate) fn want_turn(&self) {
        if !self.turn_wanted.swap(true, Ordering::SeqCst) {
            self.kick_pump();
        }
    }

    /// True when `at` comes before any of those who watch deadlines will look. Called under the stack lock.
    #[inline]
    pub(crate) fn too_late(&self, at: u64) -> bool {
        let leader = match self.leader_until.load(Ordering::Relaxed) {
            AWAKE if self.role.load(Ordering::Relaxed) == LEADER => return false,
            AWAKE => u64::MAX,
            until => until,
        };
        at < leader.min(self.pump_looks_at())
    }

    /// When the pump looks at the deadline at the latest; an awake one does so before anything else.
    fn pump_looks_at(&self) -> u64 {
        if self.no_pump.load(Ordering::Relaxed) {
            u64::MAX
        } else {
            self.pump_until.load(Ordering::Relaxed)
        }
    }

    /// Until when a leader sleeps that has to do something at `next`, or the pump for it. Called under the stack lock.
    fn leader_sleeps_until(&self, next: u64) -> u64 {
        if next < self.pump_looks_at() {
            next
        } else {
            u64::MAX
        }
    }

    /// Makes whoever watches deadlines look again.
    #[cold]
    pub fn kick(&self) {
        // Told once: whoever is on its way looks at the deadline before it sleeps again.
        if self.leader_until.swap(AWAKE, Ordering::Relaxed) != AWAKE {
            syscall::eventfd_signal(self.wake.as_raw_fd());
        } else if !self.no_pump.load(Ordering::Relaxed)
            && self.pump_until.swap(AWAKE, Ordering::Relaxed) != AWAKE
        {
            self.kick_pump();
        }
    }

    /// Something was opened or closed: a parked pump looks again.
    pub(crate) fn wake_pump(&self) {
        if self.pump_parked.load(Ordering::SeqCst) {
            self.kick_pump();
        }
    }

    /// Frames are left in a lane: the pump carries them, if nobody does before.
    #[cold]
    pub(crate) fn leave_to_pump(&self) {
        if !self.left_to_pump.swap(true, Ordering::SeqCst) {
            self.kick_pump();
        }
    }

    #[cold]
    pub(crate) fn kick_pump(&self) {
        syscall::eventfd_signal(self.pump_wake.as_raw_fd());
    }

    /// The packet socket as it receives, what netlink has to say, and the packet socket as it sends.
    pub(crate) fn frame_fds(&self) -> [i32; 3] {
        [self.packet_fd, self.netlink_fd, self.way_out_fd]
    }

    pub(crate) fn has_leader(&self) -> bool {
        self.role.load(Ordering::SeqCst) == LEADER
    }

    /// The pump takes the role when nobody has it.
    pub(crate) fn pump_takes(&self) -> bool {
        matches!(
            self.role
                .compare_exchange(NOBODY, PUMP, Ordering::SeqCst, Ordering::SeqCst),
            Ok(_) | Err(PUMP)
        )
    }

    pub(crate) fn pump_leaves(&self) {
        let _ = self
            .role
            .compare_exchange(PUMP, NOBODY, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// A thread of the program takes the role unless another one has it. A pump that has it steps back.
    fn lead(&self) -> bool {
        let mut role = self.role.load(Ordering::SeqCst);
        loop {
            if role == LEADER {
                return false;
            }
            match self
                .role
                .compare_exchange(role, LEADER, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(NOBODY) => return true,
                Ok(_) => {
                    // Told once: it sleeps without the packet socket until nobody drives again.
                    self.kick_pump();
                    return true;
                }
                Err(now) => role = now,
            }
        }
    }

    /// The leader leaves: a follower takes over, or nobody drives.
    fn hand_over(&self) {
        self.leader_until.store(AWAKE, Ordering::SeqCst);
        self.role.store(NOBODY, Ordering::SeqCst);
        {
            let followers = self.followers.lock();
            if let Some(w) = followers.last() {
                // SAFETY: it stands on the list whose lock we hold.
                unsafe { (**w).make_leader() };
                return;
            }
        }
        if self.pump_parked.load(Ordering::SeqCst) {
            self.kick_pump();
        }
    }

    /// ppoll for a leader's own descriptors, by the epoll that watches them all the time: half as dear.
    fn wait_for_own(
        &self,
        own: &mut [pollfd],
        timeout: u64,
        sigmask: Option<u64>,
    ) -> Result<usize, Errno> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; OWN_FDS];
        let n = syscall::epoll_wait(self.own.as_raw_fd(), &mut events, timeout, sigmask)?;
        own.iter_mut().for_each(|fd| fd.revents = 0);
        for event in &events[..n] {
            own[event.u64 as usize].revents |= event.events as i16;
        }
        Ok(n)
    }

    /// ppoll for a leader's own descriptors, by that epoll, and for the caller's behind them: payloads may stay in the packet
    /// sockets' queues.
    fn wait_beside(
        &self,
        fds: &mut [pollfd],
        timeout: u64,
        sigmask: Option<u64>,
    ) -> Result<usize, Errno> {
        let Some((own, _)) = fds.split_first_chunk_mut::<OWN_FDS>() else {
            return Err(Errno::EINVAL);
        };
        // What came before was looked at: the epoll is readable again when more comes.
        let n = self.wait_for_own(own, 0, None)?;
        if n > 0 {
            return Ok(n);
        }
        let before = *own;
        *own = [want(-1, 0); OWN_FDS];
        own[FRAMES] = want(self.own.as_raw_fd(), libc::POLLIN);
        let polled = syscall::ppoll(fds, timeout, sigmask);
        if let Some((own, _)) = fds.split_first_chunk_mut::<OWN_FDS>() {
            let fired = own[FRAMES].revents != 0;
            *own = before;
            if fired {
                self.wait_for_own(own, 0, None)?;
            }
        }
        polled
    }

    fn spins(&self) -> bool {
        self.spin_credit.load(Ordering::Relaxed) >= SPIN_FROM
    }

    fn judge_spin(&self, hit: bool, spent: u64, now: u64) {
        let credit = self.spin_credit.load(Ordering::Relaxed);
        if hit {
            self.spin_credit
                .store((credit + 2).min(SPIN_MAX), Ordering::Relaxed);
            self.spin_misses.store(0, Ordering::Relaxed);
            return;
        }
        let wasted = self.spin_wasted.load(Ordering::Relaxed) + spent;
        let since = self.spin_since.load(Ordering::Relaxed);
        self.spin_wasted.store(wasted, Ordering::Relaxed);
        let over = wasted > now.saturating_sub(since) / SPIN_SHARE;
        if wasted > 64 * SPIN_NS {
            self.spin_wasted.store(0, Ordering::Relaxed);
            self.spin_since.store(now, Ordering::Relaxed);
        }
        let misses = self.spin_misses.load(Ordering::Relaxed);
        let dearest = (SPIN_MIN / -SPIN_MISS).ilog2();
        self.spin_misses
            .store((misses + 1).min(dearest), Ordering::Relaxed);
        let next = credit - (SPIN_MISS << misses);
        let next = if over { next.min(SPIN_OVER) } else { next };
        self.spin_credit
            .store(next.max(SPIN_MIN), Ordering::Relaxed);
    }

    /// A sleep that did not begin with a spin brings the next trial nearer.
    fn rest_spin(&self) {
        let credit = self.spin_credit.load(Ordering::Relaxed);
        if credit < SPIN_FROM {
            self.spin_credit.store(credit + 1, Ordering::Relaxed);
        }
    }
}

/// Sleeps until `waiter` is fired, one of `extra` is ready, `deadline` passes or a signal comes; drives meanwhile when
/// nobody else does. `sigmask` replaces the thread's signal mask while it sleeps.
///
/// The waiter stands in the queues of the files that it waits for already. Call with no lock held.
pub fn sleep(
    stack: &'static NetStack,
    waiter: &Waiter,
    deadline: Instant,
    extra: &mut [pollfd],
    sigmask: Option<u64>,
) -> Woken {
    let _sleeping = Sleeping::new(waiter.word(), stack.driver.wake.as_raw_fd());
    loop {
        if signals::pending() {
            return Woken::Signal;
        }
        if waiter.fired() {
            return Woken::Event;
        }
        let woken = if stack.driver.lead() {
            let w = drive(stack, waiter, deadline, extra, sigmask);
            stack.driver.hand_over();
            Some(w)
        } else {
            follow(stack, waiter, deadline, extra, sigmask)
        };
        if let Some(w) = woken {
            return w;
        }
    }
}

/// The set that `ppoll` gets: our own descriptors first, then the caller's.
// On the stack of one function, never moved.
#[allow(clippy::large_enum_variant)]
enum PollSet {
    Fast(ArrayVec<pollfd, { OWN_FDS + EXTRA_FAST }>),
    Heap(Vec<pollfd>),
}

impl PollSet {
    fn new(own: &[pollfd], extra: &[pollfd]) -> Self {
        if own.len() + extra.len() <= OWN_FDS + EXTRA_FAST {
            Self::Fast(own.iter().chain(extra).copied().collect())
        } else {
            Self::Heap([own, extra].concat())
        }
    }

    fn fds(&mut self) -> &mut [pollfd] {
        match self {
            Self::Fast(v) => v,
            Self::Heap(v) => v,
        }
    }
}

fn want(fd: i32, events: i16) -> pollfd {
    pollfd {
        fd,
        events,
        revents: 0,
    }
}

/// Nanoseconds from `now` to the earlier of two points.
fn until(now: u64, a: u64, b: u64) -> u64 {
    match a.min(b) {
        u64::MAX => u64::MAX,
        at => at.saturating_sub(now),
    }
}

/// When to wake for `next` so that the slack ends there: pacing lives from being in time. Who wakes too early sleeps again.
fn ahead_of(now: u64, next: u64) -> u64 {
    if next == u64::MAX {
        return next;
    }
    let wait = next.saturating_sub(now);
    next - (wait / 2).min(TIMER_SLACK)
}

/// The leader's life.
fn drive(
    stack: &'static NetStack,
    waiter: &Waiter,
    deadline: Instant,
    extra: &mut [pollfd],
    sigmask: Option<u64>,
) -> Woken {
    let d = &stack.driver;
    let own = [
        want(d.packet_fd, libc::POLLIN),
        want(d.wake.as_raw_fd(), libc::POLLIN),
        want(d.netlink_fd, libc::POLLIN),
        want(d.way_out_fd, 0),
    ];
    let mut set = PollSet::new(&own, extra);
    // An extra descriptor that is ready beats sleep, not the frames that wait: those are taken first.
    let mut extra_asked = extra.is_empty();
    let mut spun = false;
    loop {
        let (more, next) = stack.with(|inner| {
            let more = round(stack, inner);
            if !more {
                inner.release_autocorked();
            }
            let next = d.leader_sleeps_until(inner.next_deadline());
            let sleeps = !more && !waiter.fired();
            d.leader_until
                .store(if sleeps { next.max(1) } else { AWAKE }, Ordering::Relaxed);
            (more, next)
        });
        if signals::pending() {
            return Woken::Signal;
        }
        if waiter.fired() {
            return Woken::Event;
        }
        if more {
            continue;
        }
        let now = monotonic_ns();
        if deadline.0 <= now && extra_asked {
            return Woken::Timeout;
        }
        if !spun && deadline.0 > now && d.spins() {
            spun = true;
            let hit = spin(stack, waiter, now);
            let end = monotonic_ns();
            d.judge_spin(hit, end - now, end);
            if hit {
                continue;
            }
        } else if !spun {
            d.rest_spin();
        }
        if next <= now {
            continue;
        }
        if !waiter.park_on(d.wake.as_raw_fd()) {
            continue;
        }
        d.sleeps.fetch_add(1, Ordering::Relaxed);
        let fds = set.fds();
        let tx = d.want_tx.load(Ordering::Relaxed);
        let timeout = || {
            let now = monotonic_ns();
            until(now, deadline.0, ahead_of(now, next))
        };
        let by_epoll = if tx {
            Err(Errno::ENOSYS)
        } else if fds.len() == OWN_FDS {
            d.wait_for_own(fds, timeout(), sigmask)
        } else if stack.deferred_any() {
            d.wait_beside(fds, timeout(), sigmask)
        } else {
            Err(Errno::ENOSYS)
        };
        let polled = match by_epoll {
            // EPERM: a sandbox that is older than the call.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                // ppoll is level-triggered. What is brought may take a while.
                stack.bring_deferred();
                fds[WAY_OUT].events = if tx { libc::POLLOUT } else { 0 };
                syscall::ppoll(fds, timeout(), sigmask)
            }
            polled => polled,
        };
        waiter.unpark();
        d.leader_until.store(AWAKE, Ordering::Relaxed);
        extra_asked = true;
        spun = false;
        match polled {
            Err(Errno::EINTR) => return Woken::Signal,
            Err(_) | Ok(0) => continue,
            Ok(_) => {}
        }
        let fds = set.fds();
        if fds[WAKE].revents != 0 {
            syscall::eventfd_drain(d.wake.as_raw_fd());
        }
        if fds[NETLINK].revents != 0 {
            netlink(stack);
        }
        if fds[WAY_OUT].revents & libc::POLLOUT != 0 {
            tx_space(stack);
        }
        if (fds[FRAMES].revents | fds[WAY_OUT].revents) & libc::POLLERR != 0 {
            stack.with(Inner::tell_tstamps);
        }
        let theirs = &fds[OWN_FDS..];
        if theirs.iter().any(|f| f.revents != 0) {
            for (to, from) in extra.iter_mut().zip(theirs) {
                to.revents = from.revents;
            }
            return if waiter.fired() {
                Woken::Event
            } else {
                Woken::Extra
            };
        }
    }
}

/// Reads what netlink has to say; tells the engine when routes changed.
pub(crate) fn netlink(stack: &'static NetStack) {
    stack.with(network_changed);
}

/// Reads what netlink has to say by now, for a call that is about to ask for a route: what has been changed before it
/// counts.
pub(crate) fn hear_network(inner: &mut Inner) {
    let mut fds = [want(inner.net.events_fd(), libc::POLLIN)];
    if syscall::ppoll(&mut fds, 0, None).is_ok_and(|n| n > 0) {
        network_changed(inner);
    }
}

/// [`netlink`], with the lock held.
pub(crate) fn network_changed(inner: &mut Inner) {
    if inner.net.read_events() {
        inner.holders.devices_changed(inner.net.device_names());
        let (engine, mut io) = inner.split();
        engine.route_changed(&mut io);
    }
    inner.tell_unreachable();
}

/// The packet socket takes frames again.
pub(crate) fn tx_space(stack: &'static NetStack) {
    stack.driver.want_tx.store(false, Ordering::Relaxed);
    stack.with(|inner| {
        inner.net.space();
        let (engine, mut io) = inner.split();
        engine.tx_space(&mut io);
    });
}

/// Looks at the ring for a short while. True when something came.
fn spin(stack: &'static NetStack, waiter: &Waiter, from: u64) -> bool {
    loop {
        for _ in 0..16 {
            core::hint::spin_loop();
            if waiter.fired() {
                return true;
            }
        }
        if stack.frames_wait() {
            return true;
        }
        if monotonic_ns() - from > SPIN_NS {
            return false;
        }
    }
}

/// A follower's sleep; `None` when it is to try for the lead.
fn follow(
    stack: &'static NetStack,
    waiter: &Waiter,
    deadline: Instant,
    extra: &mut [pollfd],
    sigmask: Option<u64>,
) -> Option<Woken> {
    let d = &stack.driver;
    if d.autocorked.load(Ordering::Relaxed) {
        stack.with(Inner::release_autocorked);
    }
    d.followers.lock().push(waiter);
    // The leader may have left between our trial and our entry: then nobody would call us.
    let woken = if d.has_leader() {
        if extra.is_empty() && sigmask.is_none() {
            follow_on_futex(waiter, deadline)
        } else {
            follow_in_poll(d, waiter, deadline, extra, sigmask)
        }
    } else {
        None
    };
    d.followers.lock().retain(|w| !core::ptr::eq(*w, waiter));
    let lead = waiter.take_lead();
    if lead && woken.is_some() {
        // Called to lead, but we leave: the next one.
        if d.role.load(Ordering::SeqCst) == NOBODY {
            d.hand_over();
        }
    }
    woken
}

fn follow_on_futex(waiter: &Waiter, deadline: Instant) -> Option<Woken> {
    let r = waiter.sleep_on_futex(deadline.0);
    if signals::pending() {
        return Some(Woken::Signal);
    }
    if waiter.fired() {
        return Some(Woken::Event);
    }
    match r {
        Err(Errno::ETIMEDOUT) => Some(Woken::Timeout),
        Err(Errno::EINTR) => Some(Woken::Signal),
        _ => None,
    }
}

fn follow_in_poll(
    d: &Driver,
    waiter: &Waiter,
    deadline: Instant,
    extra: &mut [pollfd],
    sigmask: Option<u64>,
) -> Option<Woken> {
    let spare = d.spare.lock().pop();
    let efd = match spare.map_or_else(high_eventfd, Ok) {
        Ok(fd) => fd,
        // No descriptor left: look again now and then.
        Err(_) => {
            let soon = monotonic_ns() + 1_000_000;
            return follow_on_futex(waiter, Instant(soon.min(deadline.0)))
                .filter(|w| *w != Woken::Timeout || deadline.0 <= soon);
        }
    };
    let _sleeping = Sleeping::new(waiter.word(), efd.as_raw_fd());
    let mut set = PollSet::new(&[want(efd.as_raw_fd(), libc::POLLIN)], extra);
    let mut woken = None;
    if waiter.park_on(efd.as_raw_fd()) {
        let timeout = until(monotonic_ns(), deadline.0, u64::MAX);
        let polled = syscall::ppoll(set.fds(), timeout, sigmask);
        waiter.unpark();
        let fds = set.fds();
        woken = match polled {
            Err(Errno::EINTR) => Some(Woken::Signal),
            Err(_) => None,
            Ok(0) => Some(Woken::Timeout),
            Ok(_) => {
                for (to, from) in extra.iter_mut().zip(&fds[1..]) {
                    to.revents = from.revents;
                }
                fds[1..]
                    .iter()
                    .any(|f| f.revents != 0)
                    .then_some(Woken::Extra)
            }
        };
    }
    syscall::eventfd_drain(efd.as_raw_fd());
    d.spare.lock().push(efd);
    if signals::pending() {
        return Some(Woken::Signal);
    }
    if waiter.fired() {
        return Some(Woken::Event);
    }
    woken
}
