//! Waiting for sockets: Linux's wait queues. A [`Waiter`] is one thread's sleep and may stand in several queues; a
//! [`Watcher`] is something that outlives a call (an epoll interest).

use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::Arc;

use sidewire_uapi::poll::POLLHUP;

use crate::file::File;
use crate::lock::Mutex;
use crate::syscall;

/// Bits of a waiter's word.
mod word {
    /// An event that it waits for came.
    pub(super) const FIRED: u32 = 1;
    /// The leader left: this thread is to drive.
    pub(super) const LEAD: u32 = 2;
}

/// Where the thread is (`Waiter::park`), when it is not in `ppoll` with the eventfd of that number.
const AWAKE: i32 = -2;
const ON_FUTEX: i32 = -1;

/// One thread's sleep.
///
/// Lives on the stack of its thread. Whoever fires it holds the lock of a queue in which it stands, and it leaves every
/// queue before it goes, so that it is alive while it is fired.
pub struct Waiter {
    word: AtomicU32,
    park: AtomicI32,
}

impl Default for Waiter {
    fn default() -> Self {
        Self::new()
    }
}

impl Waiter {
    /// A waiter that nobody has fired.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            word: AtomicU32::new(0),
            park: AtomicI32::new(AWAKE),
        }
    }

    /// The word, for a deferred signal to disturb ([`crate::signals::Sleeping`]).
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }

    fn set(&self, bits: u32) {
        // SeqCst on both words: either the sleeper sees the bit, or we see where it sleeps.
        if self.word.fetch_or(bits, Ordering::SeqCst) & bits == bits {
            return;
        }
        match self.park.load(Ordering::SeqCst) {
            AWAKE => {}
            ON_FUTEX => syscall::futex_wake(&raw const self.word),
            efd => syscall::eventfd_signal(efd),
        }
    }

    /// Says that an event came.
    pub fn fire(&self) {
        self.set(word::FIRED);
    }

    pub(crate) fn make_leader(&self) {
        self.set(word::LEAD);
    }

    /// True when an event came since the last [`Waiter::reset`].
    #[must_use]
    pub fn fired(&self) -> bool {
        self.word.load(Ordering::SeqCst) & word::FIRED != 0
    }

    /// Forgets events, before the condition is looked at again.
    pub fn reset(&self) {
        self.word.fetch_and(word::LEAD, Ordering::SeqCst);
    }

    pub(crate) fn take_lead(&self) -> bool {
        self.word.fetch_and(!word::LEAD, Ordering::SeqCst) & word::LEAD != 0
    }

    /// Sleeps until any bit is set, a signal, or the deadline (nanoseconds of CLOCK_MONOTONIC).
    pub(crate) fn sleep_on_futex(&self, deadline_ns: u64) -> Result<(), syscall::Errno> {
        self.park.store(ON_FUTEX, Ordering::SeqCst);
        let r = if self.word.load(Ordering::SeqCst) == 0 {
            syscall::futex_wait(&self.word, 0, deadline_ns)
        } else {
            Ok(())
        };
        self.park.store(AWAKE, Ordering::SeqCst);
        match r {
            Err(syscall::Errno::EAGAIN) => Ok(()),
            r => r,
        }
    }

    /// Announces that the thread goes to `ppoll` with `efd` in its set. False when a bit is set already: do not sleep.
    pub(crate) fn park_on(&self, efd: i32) -> bool {
        self.park.store(efd, Ordering::SeqCst);
        if self.word.load(Ordering::SeqCst) == 0 {
            return true;
        }
        self.unpark();
        false
    }

    pub(crate) fn unpark(&self) {
        self.park.store(AWAKE, Ordering::SeqCst);
    }
}

/// Something that is told of a file's events for longer than a call.
///
/// `mark` and `notify` run under the lock of the file's queue, and possibly on a thread that is driving: they take leaf locks
/// only and never call back into the queue or the stack.
pub trait Watcher: Send + Sync {
    /// Poll bits became true (an edge). Under the stack lock: whoever sees the new level finds the mark as well.
    fn mark(&self, _file: &'static File, _events: u32) {}
    /// Of the same edge, after the lock was dropped: whoever waits is to be woken.
    fn notify(&self, file: &'static File, events: u32);
    /// The file left the engine: its descriptors are plain kernel sockets from now on. The watcher has already been taken
    /// out of the queue; no lock is held.
    fn to_kernel(&self, file: &'static File);
    /// The last descriptor was closed. The watcher has already been taken out of the queue; no lock is held.
    fn closed(&self, file: &'static File);
}

enum Entry {
    Thread {
        waiter: *const Waiter,
        mask: u32,
    },
    Watcher {
        watcher: Arc<dyn Watcher>,
        mask: u32,
    },
}

/// A bit of a waiter's mask: of those that have it a wake-up fires one only, the first that has not been fired yet (Linux
/// `WQ_FLAG_EXCLUSIVE`).
pub(crate) const EXCLUSIVE: u32 = 1 << 31;

/// Who waits on a file.
#[derive(Default)]
pub struct WaitQueue {
    /// Number of entries, and of watchers among them, to be read without the lock.
    len: AtomicU32,
    watchers: AtomicU32,
    entries: Mutex<Vec<Entry>>,
}

// SAFETY: the pointers to waiters are used under the lock only, and a waiter leaves the queue before it goes.
unsafe impl Send for WaitQueue {}
// SAFETY: as above.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            len: AtomicU32::new(0),
            watchers: AtomicU32::new(0),
            entries: Mutex::new(Vec::new()),
        }
    }

    /// True when nobody waits. An entry that is being added may be missed: whoever adds one looks at the levels afterwards,
    /// or adds it under the stack lock.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    fn push(&self, e: Entry) {
        let mut entries = self.entries.lock();
        entries.push(e);
        self.len.store(entries.len() as u32, Ordering::SeqCst);
    }

    /// How many they were.
    fn remove_where(&self, f: impl Fn(&Entry) -> bool) -> usize {
        let mut entries = self.entries.lock();
        let before = entries.len();
        entries.retain(|e| !f(e));
        self.len.store(entries.len() as u32, Ordering::SeqCst);
        before - entries.len()
    }

    /// Adds a thread's waiter for events in `mask`.
    ///
    /// # Safety
    /// [`WaitQueue::remove`] is called before the waiter goes or moves.
    pub unsafe fn add(&self, waiter: &Waiter, mask: u32) {
        self.push(Entry::Thread { waiter, mask });
    }

    /// Takes a thread's waiter out.
    pub fn remove(&self, waiter: &Waiter) {
        self.remove_where(|e| matches!(e, Entry::Thread { waiter: w, .. } if ptr::eq(*w, waiter)));
    }

    /// Adds a watcher for events in `mask`.
    pub fn watch(&self, watcher: Arc<dyn Watcher>, mask: u32) {
        self.watchers.fetch_add(1, Ordering::SeqCst);
        self.push(Entry::Watcher { watcher, mask });
    }

    /// Takes a watcher out.
    pub fn unwatch(&self, watcher: &Arc<dyn Watcher>) {
        let removed = self.remove_where(
            |e| matches!(e, Entry::Watcher { watcher: w, .. } if Arc::ptr_eq(w, watcher)),
        );
        self.watchers.fetch_sub(removed as u32, Ordering::SeqCst);
    }

    /// Marks `events` with the watchers whose mask they meet, under the stack lock.
    #[inline]
    pub(crate) fn mark(&self, file: &'static File, events: u32) {
        if self.watchers.load(Ordering::SeqCst) == 0 {
            return;
        }
        for e in self.entries.lock().iter() {
            if let Entry::Watcher { watcher, mask } = e
                && mask & events != 0
            {
                watcher.mark(file, events);
            }
        }
    }

    /// Wakes everybody whose mask meets `events`, which are marked; of the exclusive ones one, or all at a change of state.
    pub fn wake(&self, file: &'static File, events: u32) {
        if self.is_empty() {
            return;
        }
        let mut full = false;
        for e in self.entries.lock().iter() {
            match e {
                Entry::Thread { waiter, mask } if mask & events != 0 => {
                    // SAFETY: it stands in the queue whose lock we hold, so it is alive.
                    let waiter = unsafe { &**waiter };
                    if mask & EXCLUSIVE != 0 && events & POLLHUP == 0 {
                        if full || waiter.fired() {
                            continue;
                        }
                        full = true;
                    }
                    waiter.fire();
                }
                Entry::Watcher { watcher, mask } if mask & events != 0 => {
                    watcher.notify(file, events);
                }
                _ => {}
            }
        }
    }

    /// Sees that one of the exclusive waiters is fired, if there are any: something is left for it.
    pub(crate) fn wake_next(&self) {
        if self.is_empty() {
            return;
        }
        let entries = self.entries.lock();
        let mut exclusive = entries.iter().filter_map(|e| match e {
            // SAFETY: as in `wake`.
            Entry::Thread { waiter, mask } if mask & EXCLUSIVE != 0 => Some(unsafe { &**waiter }),
            _ => None,
        });
        let first = exclusive.clone().next();
        if let Some(first) = first
            && !exclusive.any(Waiter::fired)
        {
            first.fire();
        }
    }

    /// Takes all watchers out and wakes all threads: the file changes its nature.
    pub(crate) fn dissolve(&self) -> Vec<Arc<dyn Watcher>> {
        let mut entries = self.entries.lock();
        let mut watchers = Vec::new();
        entries.retain(|e| match e {
            Entry::Thread { waiter, .. } => {
                // SAFETY: as in `wake`.
                unsafe { (**waiter).fire() };
                true
            }
            Entry::Watcher { watcher, .. } => {
                watchers.push(watcher.clone());
                false
            }
        });
        self.len.store(entries.len() as u32, Ordering::SeqCst);
        self.watchers
            .fetch_sub(watchers.len() as u32, Ordering::SeqCst);
        watchers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::monotonic_ns;
    use core::sync::atomic::AtomicUsize;
    use sidewire_engine::SocketId;
    use slotmap::Key;

    fn file() -> &'static File {
        let f = File::open(None, SocketId::null(), false);
        let record = f.record();
        // Kept open for the test's life.
        let _ = f.into_raw();
        record
    }

    #[test]
    fn only_those_whose_mask_meets_are_fired() {
        let f = file();
        let (reader, writer) = (Waiter::new(), Waiter::new());
        // SAFETY: removed below.
        unsafe {
            f.wait.add(&reader, 1);
            f.wait.add(&writer, 4);
        }
        f.wait.wake(f, 1);
        assert!(reader.fired() && !writer.fired());
        reader.reset();
        assert!(!reader.fired());
        f.wait.remove(&reader);
        f.wait.wake(f, 5);
        assert!(!reader.fired() && writer.fired());
        f.wait.remove(&writer);
        assert!(f.wait.is_empty());
    }

    #[test]
    fn of_exclusive_waiters_each_event_fires_the_next() {
        let f = file();
        let waiters = [const { Waiter::new() }; 3];
        for w in &waiters {
            // SAFETY: removed below.
            unsafe { f.wait.add(w, 1 | EXCLUSIVE) };
        }
        let fired = || waiters.each_ref().map(Waiter::fired);
        f.wait.wake(f, 1);
        assert_eq!(fired(), [true, false, false]);
        f.wait.wake_next();
        assert_eq!(fired(), [true, false, false], "one is on its way");
        f.wait.wake(f, 1);
        assert_eq!(fired(), [true, true, false]);
        waiters[..2].iter().for_each(|w| f.wait.remove(w));
        f.wait.wake_next();
        assert_eq!(fired(), [true, true, true]);
        waiters.iter().for_each(Waiter::reset);
        // SAFETY: removed below.
        unsafe { f.wait.add(&waiters[0], 1 | POLLHUP | EXCLUSIVE) };
        f.wait.wake(f, 1 | POLLHUP);
        assert_eq!(
            fired(),
            [true, false, true],
            "a change of state is everybody's"
        );
        waiters.iter().for_each(|w| f.wait.remove(w));
    }

    #[test]
    fn a_sleeper_is_woken_and_a_fired_one_does_not_sleep() {
        let f = file();
        let w = Waiter::new();
        w.fire();
        assert_eq!(w.sleep_on_futex(u64::MAX), Ok(()));
        w.reset();
        // SAFETY: removed below.
        unsafe { f.wait.add(&w, 1) };
        std::thread::scope(|s| {
            s.spawn(|| f.wait.wake(f, 1));
            while !w.fired() {
                assert_eq!(w.sleep_on_futex(u64::MAX), Ok(()));
            }
        });
        f.wait.remove(&w);
    }

    #[test]
    fn a_deadline_that_passed_ends_the_sleep() {
        let w = Waiter::new();
        assert_eq!(
            w.sleep_on_futex(monotonic_ns()),
            Err(syscall::Errno::ETIMEDOUT)
        );
    }

    #[derive(Default)]
    struct Counter {
        marked: AtomicUsize,
        notified: AtomicUsize,
        gone: AtomicUsize,
    }

    impl Watcher for Counter {
        fn mark(&self, _: &'static File, events: u32) {
            self.marked.fetch_add(events as usize, Ordering::Relaxed);
        }
        fn notify(&self, _: &'static File, events: u32) {
            self.notified.fetch_add(events as usize, Ordering::Relaxed);
        }
        fn to_kernel(&self, _: &'static File) {}
        fn closed(&self, _: &'static File) {
            self.gone.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn watchers_hear_of_events_and_of_the_end() {
        let f = File::open(None, SocketId::null(), false);
        let c = Arc::new(Counter::default());
        let w: Arc<dyn Watcher> = c.clone();
        let other: Arc<dyn Watcher> = Arc::new(Counter::default());
        f.wait.watch(w.clone(), 1);
        f.wait.watch(other.clone(), 1);
        for events in [1, 4] {
            f.wait.mark(f.record(), events);
        }
        assert_eq!(c.marked.load(Ordering::Relaxed), 1);
        assert_eq!(c.notified.load(Ordering::Relaxed), 0);
        for events in [1, 4] {
            f.wait.wake(f.record(), events);
        }
        assert_eq!(c.notified.load(Ordering::Relaxed), 1);
        f.wait.unwatch(&other);
        drop(f);
        assert_eq!(c.gone.load(Ordering::Relaxed), 1);
    }
}
