//! The interest list of an epoll instance, as far as it is ours.
//!
//! Lock order: stack, then a file's wait queue, then an instance's [`State`]: an instance's lock is never held while the
//! engine or a wait queue is called.

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::collections::{HashMap, VecDeque};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use libc::epoll_event;
use sidewire_engine::SocketId;
use sidewire_link::fd::{Fd, duplicate_high, move_high};
use sidewire_uapi::poll::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT,
    EPOLLWAKEUP, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM,
};
use smallvec::SmallVec;
use syscalls::{Sysno, syscall};

use crate::file::{File, FileRef};
use crate::lock::Mutex;
use crate::stack::{Inner, NetStack};
use crate::syscall;
use crate::wait::{Waiter, Watcher};

/// Bits of an interest that are no poll bits (Linux `EP_PRIVATE_BITS`). An interest with nothing else is switched off.
pub(super) const PRIVATE: u32 = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;

/// `epoll_ctl` on the kernel's instance, past the hooks.
pub(super) fn kernel_ctl(
    epfd: c_int,
    op: c_int,
    fd: c_int,
    event: Option<epoll_event>,
) -> Result<(), c_int> {
    let mut event = event;
    let at = event
        .as_mut()
        .map_or(core::ptr::null_mut(), |e| &raw mut *e);
    // SAFETY: null or a live event.
    unsafe { syscall!(Sysno::epoll_ctl, epfd, op, fd, at) }
        .map(drop)
        .map_err(|e| e.into_raw())
}

/// One socket of ours in one instance: Linux's `struct epitem`.
pub(super) struct Item {
    epoll: Weak<Epoll>,
    pub(super) fd: c_int,
    pub(super) file: &'static File,
    pub(super) id: SocketId,
    /// Poll bits asked for, ERR and HUP always, and the private bits.
    events: AtomicU32,
    data: AtomicU64,
    /// On the ready list. Changes under the instance's lock.
    queued: AtomicBool,
    /// What stands in the kernel's instance as well: the listener of local clients; -1 for nothing.
    kernel: AtomicI32,
    /// Removed: whoever still holds it passes it over.
    gone: AtomicBool,
}

impl Item {
    pub(super) fn events(&self) -> u32 {
        self.events.load(Ordering::Relaxed)
    }

    pub(super) fn data(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// What to report of `level`; nothing when the interest is switched off.
    pub(super) fn report(&self, level: u32) -> u32 {
        let events = self.events();
        if self.gone.load(Ordering::Relaxed) || events & !PRIVATE == 0 {
            return 0;
        }
        level & events & !PRIVATE
    }

    /// The socket's poll bits (Linux `ep_item_poll`).
    pub(super) fn level(&self, inner: &mut Inner) -> u32 {
        inner.engine.poll(self.id)
    }

    /// An edge of the engine's, which names the first bit of each pair, is one that was asked for.
    fn wants(&self, events: u32) -> bool {
        let mut bits = events;
        for (given, twin) in [(POLLIN, POLLRDNORM), (POLLOUT, POLLWRNORM)] {
            if events & given != 0 {
                bits |= twin;
            }
        }
        let interest = self.events();
        interest & !PRIVATE != 0 && interest & bits != 0
    }

    /// EPOLLONESHOT: off until EPOLL_CTL_MOD.
    pub(super) fn switch_off(&self) {
        self.events.fetch_and(PRIVATE, Ordering::Relaxed);
    }

    /// What stands in the kernel's instance for it.
    pub(super) fn kernel_fd(&self) -> c_int {
        self.kernel.load(Ordering::Relaxed)
    }

    pub(super) fn in_kernel(&self) -> bool {
        self.kernel.load(Ordering::Relaxed) >= 0
    }
}

impl Watcher for Item {
    fn mark(&self, _file: &'static File, events: u32) {
        if self.wants(events)
            && let Some(epoll) = self.epoll.upgrade()
        {
            epoll.ready(self.fd, self.file);
        }
    }

    fn notify(&self, _file: &'static File, events: u32) {
        if self.wants(events)
            && let Some(epoll) = self.epoll.upgrade()
        {
            epoll.state.lock().wake_next();
        }
    }

    fn to_kernel(&self, file: &'static File) {
        let Some(epoll) = self.epoll.upgrade() else {
            return;
        };
        let Some(epfd) = epoll.remove(self.fd, file) else {
            return;
        };
        // The holder that served clients on this host goes; the program's own socket takes its place.
        if self.in_kernel() {
            let _ = kernel_ctl(epfd, EPOLL_CTL_DEL, self.kernel_fd(), None);
        }
        let event = epoll_event {
            events: self.events(),
            u64: self.data(),
        };
        let _ = kernel_ctl(epfd, EPOLL_CTL_ADD, self.fd, Some(event));
    }

    fn closed(&self, file: &'static File) {
        let number = self.epoll.upgrade().and_then(|e| e.remove(self.fd, file));
        if let Some(epfd) = number
            && self.in_kernel()
        {
            // Another process may have the kernel's listener, too.
            let _ = kernel_ctl(epfd, EPOLL_CTL_DEL, self.kernel_fd(), None);
        }
    }
}

type Key = (c_int, usize);

fn key(fd: c_int, file: &'static File) -> Key {
    (fd, core::ptr::from_ref(file) as usize)
}

/// What an instance's lock protects.
pub(super) struct State {
    items: HashMap<Key, Arc<Item>>,
    ready: VecDeque<Arc<Item>>,
    waiters: Vec<*const Waiter>,
    /// Descriptor numbers of the instance in this process.
    pub(super) numbers: Vec<c_int>,
    /// The instance itself is watched: by another instance, or in a poll.
    watched: bool,
    /// Items that also stand in the kernel's instance.
    pub(super) listeners: usize,
}

// SAFETY: the waiters' pointers are used under the lock only, and a waiter leaves the list before it goes.
unsafe impl Send for State {}

/// An epoll instance in which sockets of ours stand: Linux's `struct eventpoll`.
pub(super) struct Epoll {
    pub(super) state: Mutex<State>,
    /// Stands for us in the kernel's instance: sleepers there, and whoever watches the instance, hear of our events.
    eventfd: Fd,
    /// The eventfd's data; differs from every datum of the program's.
    marker: AtomicU64,
    turn: AtomicBool,
    /// The eventfd has been signalled.
    shown: AtomicBool,
    /// Calls that wait on it, in epoll_wait or poll.
    pub(super) users: AtomicUsize,
    /// The program has no number of it left.
    pub(super) closed: AtomicBool,
    /// The kernel's instance for those who wait on it after its number has been closed.
    kept: Mutex<Option<Fd>>,
    /// Who drives while a thread waits here.
    pub(super) stack: &'static NetStack,
}

impl Epoll {
    /// A record for the kernel's instance `epfd`.
    pub(super) fn new(epfd: c_int, stack: &'static NetStack) -> Result<Arc<Self>, c_int> {
        let eventfd = syscall::eventfd().map_err(|e| e.into_raw())?;
        let eventfd = move_high(Fd::from_raw(eventfd)).map_err(|e| e.into_raw())?;
        let marker = core::ptr::from_ref(stack) as u64 ^ 0x5357_0000_0000_0000;
        let event = epoll_event {
            events: POLLIN | EPOLLET,
            u64: marker,
        };
        kernel_ctl(epfd, EPOLL_CTL_ADD, eventfd.as_raw_fd(), Some(event))?;
        Ok(Arc::new(Self {
            state: Mutex::new(State {
                items: HashMap::new(),
                ready: VecDeque::new(),
                waiters: Vec::new(),
                numbers: vec![epfd],
                watched: false,
                listeners: 0,
            }),
            eventfd,
            marker: AtomicU64::new(marker),
            turn: AtomicBool::new(false),
            shown: AtomicBool::new(false),
            users: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            kept: Mutex::new(None),
            stack,
        }))
    }

    pub(super) fn marker(&self) -> u64 {
        self.marker.load(Ordering::Relaxed)
    }

    /// Whoever sleeps in, or watches, the kernel's instance is to look.
    pub(super) fn signal(&self) {
        self.shown.store(true, Ordering::SeqCst);
        syscall::eventfd_signal(self.eventfd.as_raw_fd());
    }

    /// The program uses `data`: the marker gives way.
    pub(super) fn avoid(&self, epfd: c_int, data: u64) {
        if data != self.marker() {
            return;
        }
        let other = data
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(0x5357);
        self.marker.store(other, Ordering::Relaxed);
        let event = epoll_event {
            events: POLLIN | EPOLLET,
            u64: other,
        };
        let _ = kernel_ctl(epfd, EPOLL_CTL_MOD, self.eventfd.as_raw_fd(), Some(event));
    }

    /// From now on the instance is watched from outside; what is ready shows.
    pub(super) fn watch(&self) {
        let mut state = self.state.lock();
        if !core::mem::replace(&mut state.watched, true) && state.any_ready() {
            self.signal();
        }
    }

    /// Whether calls that wait on it see the kernel's instance.
    pub(super) fn is_polled(&self) -> bool {
        self.users.load(Ordering::SeqCst) > 0 && self.state.lock().watched
    }

    /// Drops from the ready list what is not ready any more, up to the first that is; when none is, nothing of ours shows in
    /// the kernel's instance, unless `others` are to see the marker.
    pub(super) fn settle(&self, others: impl Fn(&[c_int]) -> bool) {
        let items: SmallVec<[Arc<Item>; 8]> = {
            let state = self.state.lock();
            if !state.watched {
                return;
            }
            state.ready.iter().cloned().collect()
        };
        for item in items {
            // No edge comes in between while the stack is locked.
            let ready = item.file.stack().with(|inner| {
                let ready = item.report(item.level(inner)) != 0;
                if !ready {
                    self.state.lock().forget_ready(&item);
                }
                ready
            });
            if ready {
                return;
            }
        }
        let state = self.state.lock();
        let idle = !state.any_ready() && !others(&state.numbers);
        if idle && self.shown.swap(false, Ordering::SeqCst) {
            syscall::eventfd_drain(self.eventfd.as_raw_fd());
        }
    }

    /// True when what is first on the ready list is ready because it has not been read: at least one, at most `max`.
    pub(super) fn only_unread(&self, inner: &mut Inner, max: usize) -> bool {
        let first: SmallVec<[Arc<Item>; 8]> = {
            let state = self.state.lock();
            state.ready.iter().take(max).cloned().collect()
        };
        let here = |i: &Item| core::ptr::eq(i.file.stack(), self.stack);
        !first.is_empty()
            && first
                .iter()
                .all(|i| !here(i) || i.report(i.level(inner)) & POLLIN != 0)
    }

    /// `fd`, a number of it, is about to go.
    pub(super) fn keep(&self, fd: c_int) {
        let mut kept = self.kept.lock();
        if kept.is_none() {
            *kept = duplicate_high(fd).ok();
        }
    }

    /// A number of it in this process.
    pub(super) fn number(&self) -> Option<c_int> {
        let number = self.state.lock().numbers.first().copied();
        number.or_else(|| Some(self.kept.lock().as_ref()?.as_raw_fd()))
    }

    /// An item became ready: Linux `ep_poll_callback`, but that nobody is woken yet.
    fn ready(&self, fd: c_int, file: &'static File) {
        let mut state = self.state.lock();
        let Some(item) = state.items.get(&key(fd, file)).cloned() else {
            return;
        };
        self.push(&mut state, item);
    }

    fn push(&self, state: &mut State, item: Arc<Item>) {
        if !item.queued.swap(true, Ordering::Relaxed) {
            state.ready.push_back(item);
        }
        if state.watched {
            self.signal();
        }
    }

    /// What is ready already becomes an event at once, as `EPOLL_CTL_ADD` and `MOD` do.
    fn look(&self, item: &Arc<Item>) {
        let level = item.file.stack().with(|inner| item.level(inner));
        if item.report(level) != 0 {
            let mut state = self.state.lock();
            self.push(&mut state, item.clone());
            state.wake_one();
        }
    }

    /// Who goes first when there is room for one event: ours, or the kernel's.
    pub(super) fn turn(&self) -> bool {
        self.turn.fetch_xor(true, Ordering::Relaxed)
    }

    /// A wait took some of what is ready: whoever watches the instance is to see the rest.
    pub(super) fn show_rest(&self) {
        let state = self.state.lock();
        if state.watched && state.any_ready() {
            self.signal();
        }
    }

    fn find(&self, fd: c_int, file: &'static File) -> Option<Arc<Item>> {
        self.state.lock().items.get(&key(fd, file)).cloned()
    }

    /// `EPOLL_CTL_ADD`.
    pub(super) fn add(
        self: &Arc<Self>,
        epfd: c_int,
        fd: c_int,
        file: &FileRef,
        event: epoll_event,
    ) -> Result<(), c_int> {
        let record = file.record();
        let item = Arc::new(Item {
            epoll: Arc::downgrade(self),
            fd,
            file: record,
            id: file.id(),
            events: AtomicU32::new(event.events | POLLERR | POLLHUP),
            data: AtomicU64::new(event.u64),
            queued: AtomicBool::new(false),
            kernel: AtomicI32::new(-1),
            gone: AtomicBool::new(false),
        });
        {
            let mut state = self.state.lock();
            if state.items.contains_key(&key(fd, record)) {
                return Err(libc::EEXIST);
            }
            state.items.insert(key(fd, record), item.clone());
        }
        self.avoid(epfd, event.u64);
        record.wait.watch(item.clone(), !0);
        self.listens(&item);
        self.look(&item);
        Ok(())
    }

    /// `EPOLL_CTL_MOD`.
    pub(super) fn modify(
        &self,
        epfd: c_int,
        fd: c_int,
        file: &FileRef,
        event: epoll_event,
    ) -> Result<(), c_int> {
        let item = self.find(fd, file.record()).ok_or(libc::ENOENT)?;
        if item.events() & EPOLLEXCLUSIVE != 0 {
            return Err(libc::EINVAL);
        }
        self.avoid(epfd, event.u64);
        item.data.store(event.u64, Ordering::Relaxed);
        item.events
            .store(event.events | POLLERR | POLLHUP, Ordering::Relaxed);
        if item.in_kernel() {
            let _ = kernel_ctl(epfd, EPOLL_CTL_MOD, item.kernel_fd(), Some(event));
        }
        self.look(&item);
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    pub(super) fn delete(&self, epfd: c_int, fd: c_int, file: &FileRef) -> Result<(), c_int> {
        let record = file.record();
        let item = self.find(fd, record).ok_or(libc::ENOENT)?;
        let watcher: Arc<dyn Watcher> = item.clone();
        record.wait.unwatch(&watcher);
        self.remove(fd, record);
        if item.in_kernel() {
            let _ = kernel_ctl(epfd, EPOLL_CTL_DEL, item.kernel_fd(), None);
        }
        Ok(())
    }

    /// Forgets an item; a number of the instance.
    fn remove(&self, fd: c_int, file: &'static File) -> Option<c_int> {
        let mut state = self.state.lock();
        let item = state.items.remove(&key(fd, file))?;
        item.gone.store(true, Ordering::Relaxed);
        state.forget_ready(&item);
        if item.in_kernel() {
            state.listeners -= 1;
        }
        drop(state);
        self.number()
    }

    /// Forgets everything: the last descriptor of the instance was closed.
    pub(super) fn dissolve(&self) {
        let items: Vec<_> = self.state.lock().items.drain().map(|(_, i)| i).collect();
        for item in items {
            item.gone.store(true, Ordering::Relaxed);
            let watcher: Arc<dyn Watcher> = item.clone();
            item.file.wait.unwatch(&watcher);
        }
        self.state.lock().ready.clear();
        *self.kept.lock() = None;
    }

    /// When the socket of an item listens: clients on this host reach a kernel listener, which the kernel watches.
    fn listens(&self, item: &Item) {
        let Some(listener) = item.file.kernel_listener() else {
            return;
        };
        let Some(epfd) = self.state.lock().numbers.first().copied() else {
            return;
        };
        let event = epoll_event {
            events: item.events(),
            u64: item.data(),
        };
        if kernel_ctl(epfd, EPOLL_CTL_ADD, listener, Some(event)).is_ok() {
            item.kernel.store(listener, Ordering::Relaxed);
            self.state.lock().listeners += 1;
        }
    }

    /// Every item of a file that began to listen.
    pub(super) fn file_listens(&self, file: &'static File) {
        for item in self.items_of(file, false) {
            self.listens(&item);
        }
    }

    /// Every item of a file whose listener is about to go.
    pub(super) fn file_listens_no_more(&self, file: &'static File) {
        for item in self.items_of(file, true) {
            let mut state = self.state.lock();
            if let Some(epfd) = state.numbers.first() {
                let _ = kernel_ctl(*epfd, EPOLL_CTL_DEL, item.kernel_fd(), None);
            }
            item.kernel.store(-1, Ordering::Relaxed);
            state.listeners -= 1;
        }
    }

    fn items_of(&self, file: &'static File, in_kernel: bool) -> Vec<Arc<Item>> {
        let state = self.state.lock();
        let of_file = |i: &&Arc<Item>| core::ptr::eq(i.file, file) && i.in_kernel() == in_kernel;
        state.items.values().filter(of_file).cloned().collect()
    }
}

impl State {
    /// Wakes one waiter that nobody has woken: the one that came last (Linux `ep_poll`, which enters at the head).
    fn wake_one(&self) {
        // SAFETY: they stand on the list whose lock we hold.
        let mut waiters = self.waiters.iter().rev().map(|w| unsafe { &**w });
        if let Some(w) = waiters.find(|w| !w.fired()) {
            w.fire();
        }
    }

    /// Items that may be ready, at most `max`, off the list. The caller looks at them and puts back what stays ready.
    pub(super) fn take_ready(&mut self, max: usize) -> impl Iterator<Item = Arc<Item>> + '_ {
        let n = self.ready.len().min(max);
        self.ready.drain(..n).inspect(|item| {
            item.queued.store(false, Ordering::Relaxed);
        })
    }

    fn forget_ready(&mut self, item: &Arc<Item>) {
        if item.queued.swap(false, Ordering::Relaxed) {
            self.ready.retain(|i| !Arc::ptr_eq(i, item));
        }
    }

    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Level-triggered and still ready.
    pub(super) fn put_back(&mut self, item: Arc<Item>) {
        if !item.gone.load(Ordering::Relaxed) && !item.queued.swap(true, Ordering::Relaxed) {
            self.ready.push_back(item);
        }
    }

    /// Passes the wake-up on while something is ready.
    pub(super) fn wake_next(&self) {
        if self.any_ready() {
            self.wake_one();
        }
    }

    /// Enters a thread's waiter, or lets it come anew.
    ///
    /// # Safety
    /// [`State::leave`] is called before the waiter goes or moves.
    pub(super) unsafe fn enter(&mut self, waiter: &Waiter) {
        self.leave(waiter);
        self.waiters.push(waiter);
    }

    pub(super) fn leave(&mut self, waiter: &Waiter) {
        self.waiters.retain(|w| !core::ptr::eq(*w, waiter));
    }

    /// The items that carry this datum and also stand in the kernel's instance.
    pub(super) fn in_kernel_with(&self, data: u64) -> Option<Arc<Item>> {
        let mut items = self.items.values();
        items.find(|i| i.in_kernel() && i.data() == data).cloned()
    }
}
