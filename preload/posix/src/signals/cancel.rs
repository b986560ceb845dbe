//! `pthread_cancel` of a thread that sleeps in a call of ours.
//!
//! libc's own calls switch to asynchronous cancellation while they sleep, and are interrupted by a signal of libc's. Ours
//! must not be left from the middle: sleepers stand in a table by thread id, where the canceller finds and wakes them; the
//! call then unwinds, tests for cancellation and ends there.

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::pthread_t;
use parking_lot::Mutex;

use super::{Sleeping, THREAD};
use crate::{real, stack, syscall};

/// Cancellations in this process so far: who goes to sleep sees that one came since it tested.
static CANCELS: AtomicU32 = AtomicU32::new(0);

pub(super) fn count() -> u32 {
    CANCELS.load(Ordering::SeqCst)
}

struct Sleeper {
    tid: i32,
    word: *const AtomicU32,
    fd: c_int,
    cancelled: *const AtomicBool,
}

// SAFETY: the pointers are used under the bucket's lock only, and a sleeper leaves the table before they go.
unsafe impl Send for Sleeper {}

const BUCKETS: usize = 64;
static SLEEPERS: [Mutex<Vec<Sleeper>>; BUCKETS] = [const { Mutex::new(Vec::new()) }; BUCKETS];

thread_local! {
    static TID: AtomicU32 = const { AtomicU32::new(0) };
}

/// This thread's id, asked for once. A forked child has another one, and asks again ([`forget_tid`]).
pub(super) fn tid() -> i32 {
    TID.with(|t| {
        if t.load(Ordering::Relaxed) == 0 {
            t.store(syscall::gettid() as u32, Ordering::Relaxed);
        }
        t.load(Ordering::Relaxed) as i32
    })
}

/// In the child of a fork.
pub(crate) fn forget_tid() {
    TID.with(|t| t.store(0, Ordering::Relaxed));
}

fn bucket(tid: i32) -> &'static Mutex<Vec<Sleeper>> {
    &SLEEPERS[tid as usize % BUCKETS]
}

/// An entry of the table; goes with the sleep.
pub(super) struct Listed(i32);

impl Listed {
    pub(super) fn new(word: &AtomicU32, fd: c_int) -> Self {
        let tid = tid();
        THREAD.with(|t| {
            bucket(tid).lock().push(Sleeper {
                tid,
                word,
                fd,
                cancelled: &raw const t.cancelled,
            });
            // Either the canceller finds the entry, or its count is seen here.
            if t.cancels_seen.load(Ordering::Relaxed) != count() {
                t.cancelled.store(true, Ordering::Relaxed);
                word.fetch_or(Sleeping::SIGNALLED, Ordering::SeqCst);
            }
        });
        Self(tid)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut sleepers = bucket(self.0).lock();
        if let Some(at) = sleepers.iter().rposition(|s| s.tid == self.0) {
            sleepers.swap_remove(at);
        }
    }
}

/// The kernel's id of a thread: it is the inverted upper part of its CPU clock's number.
fn tid_of(thread: pthread_t) -> Option<i32> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the caller vouches for the thread; writes to a live local.
    let found = unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) } == 0;
    found.then_some(!(clock >> 3))
}

/// `pthread_cancel`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn pthread_cancel(thread: pthread_t) -> c_int {
    let target = if stack::any() { tid_of(thread) } else { None };
    // SAFETY: the program's call.
    let done = unsafe { real::pthread_cancel(thread) };
    CANCELS.fetch_add(1, Ordering::SeqCst);
    let Some(target) = target else {
        return done;
    };
    let _inside = super::enter();
    for s in bucket(target).lock().iter().filter(|s| s.tid == target) {
        // SAFETY: it is in the table, whose lock we hold.
        unsafe {
            (*s.cancelled).store(true, Ordering::Relaxed);
            (*s.word).fetch_or(Sleeping::SIGNALLED, Ordering::SeqCst);
        }
        syscall::futex_wake(s.word);
        if s.fd >= 0 {
            syscall::eventfd_signal(s.fd);
        }
    }
    done
}
