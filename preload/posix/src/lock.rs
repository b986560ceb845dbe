//! The library's locks: parking_lot's types over a lock that a fork leaves whole.
//!
//! parking_lot's own lock keeps who waits in a table of the process's. A forked child inherits that with threads in it that it
//! does not have: it gave them a lock, which was then held for ever, or waited for a part of the table that one of them had
//! locked. Who waits for this one stands in the kernel only.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};

use parking_lot::lock_api::{self, GuardNoSend, RawMutex};

use crate::syscall;

/// A value behind a lock.
pub type Mutex<T> = lock_api::Mutex<Futex, T>;
/// The value, while the lock is held.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, Futex, T>;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and some thread sleeps until it is not.
const AWAITED: u32 = 2;

/// How often a thread looks at a lock that is held before it sleeps: first after some pauses, then each time when the others
/// that can run have. Nearly all locks are held for less than it takes to fall asleep.
const LOOKS: u32 = 10;
const WITH_PAUSES: u32 = 3;

/// The lock itself.
pub struct Futex(AtomicU32);

impl Futex {
    #[cold]
    fn lock_slowly(&self) {
        let mut looks = 0;
        // Who has slept cannot know whether others do: whoever gets it so wakes one of them afterwards.
        let mut mine = HELD;
        loop {
            let now = self.0.load(Ordering::Relaxed);
            if now == FREE {
                if self.turn(FREE, mine) {
                    return;
                }
            } else if now == HELD && looks < LOOKS {
                looks += 1;
                if looks <= WITH_PAUSES {
                    (0..1 << looks).for_each(|_| spin_loop());
                } else {
                    std::thread::yield_now();
                }
            } else if now == AWAITED || self.turn(HELD, AWAITED) {
                let _ = syscall::futex_wait(&self.0, AWAITED, u64::MAX);
                mine = AWAITED;
                looks = 0;
            }
        }
    }

    #[inline]
    fn turn(&self, from: u32, to: u32) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}

// SAFETY: one thread only finds it free, and nobody else does before that one has let it go.
unsafe impl RawMutex for Futex {
    // A value to begin with, not a shared one.
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicU32::new(FREE));

    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_slowly();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.turn(FREE, HELD)
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Ordering::Release) == AWAITED {
            syscall::futex_wake(&self.0);
        }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != FREE
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn one_thread_at_a_time() {
        const THREADS: usize = 8;
        const TIMES: usize = 20_000;
        let count = Mutex::new(0usize);
        thread::scope(|s| {
            for _ in 0..THREADS {
                s.spawn(|| {
                    for i in 0..TIMES {
                        let mut count = count.lock();
                        let before = *count;
                        if i % 64 == 0 {
                            thread::yield_now();
                        }
                        *count = before + 1;
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), THREADS * TIMES);
    }

    #[test]
    fn who_only_tries_does_not_wait() {
        let lock = Mutex::new(());
        let held = lock.lock();
        assert!(lock.is_locked() && lock.try_lock().is_none());
        drop(held);
        assert!(!lock.is_locked() && lock.try_lock().is_some());
    }

    #[test]
    fn let_go_by_force_it_wakes_who_waits() {
        let lock = Mutex::new(());
        core::mem::forget(lock.lock());
        thread::scope(|s| {
            s.spawn(|| drop(lock.lock()));
            // SAFETY: it was locked above, and the guard forgotten.
            let word = unsafe { &lock.raw().0 };
            while word.load(Ordering::Relaxed) != AWAITED {
                thread::yield_now();
            }
            // SAFETY: the same.
            unsafe { lock.force_unlock() };
        });
        assert!(!lock.is_locked());
    }
}
