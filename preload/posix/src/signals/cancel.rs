//! `pthread_cancel` of a thread that sleeps in a call of ours.
//!
//! libc's own calls switch to asynchronous cancellation while they sleep, and are interrupted by a signal of libc's. Ours
//! must not be left from the middle: sleepers stand in a table by thread id, where the canceller finds and wakes them; the
//! call then unwinds, tests for cancellation and ends there. A thread that lets itself not be cancelled stands in no table.

use core::ffi::c_int;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::pthread_t;

use super::{Sleeping, THREAD};
use crate::lock::Mutex;
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

/// This thread's id, asked for once. A forked child has another one, and asks again ([`forked`]).
pub(super) fn tid() -> i32 {
    TID.with(|t| {
        if t.load(Ordering::Relaxed) == 0 {
            t.store(syscall::gettid() as u32, Ordering::Relaxed);
        }
        t.load(Ordering::Relaxed) as i32
    })
}

/// In the child of a fork: this thread has another id, and none of the sleepers is there.
pub(crate) fn forked() {
    TID.with(|t| t.store(0, Ordering::Relaxed));
    for bucket in &SLEEPERS {
        bucket.lock().clear();
    }
}

/// Locks the table before a fork, and unlocks it after, in parent and child.
pub(crate) fn across_fork(before: bool) {
    for bucket in &SLEEPERS {
        if before {
            core::mem::forget(bucket.lock());
        } else {
            // SAFETY: this thread locked it before the fork.
            unsafe { bucket.force_unlock() };
        }
    }
}

fn bucket(tid: i32) -> &'static Mutex<Vec<Sleeper>> {
    &SLEEPERS[tid as usize % BUCKETS]
}

/// `PTHREAD_CANCEL_DISABLE`.
const DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

fn set_state(state: c_int) -> c_int {
    let mut before = DISABLE;
    // SAFETY: a live local.
    unsafe { pthread_setcancelstate(state, &raw mut before) };
    before
}

/// While it lives, this thread is not cancelled: for what goes through libc's own calls with something held. A thread that
/// ended there would take it along. Inside only: no handler runs meanwhile.
#[must_use]
pub(crate) struct Off(c_int);

impl Off {
    pub(crate) fn new() -> Self {
        Self(set_state(DISABLE))
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        // SAFETY: null is allowed.
        unsafe { pthread_setcancelstate(self.0, null_mut()) };
    }
}

/// Whether this thread can be cancelled now: libc tells nobody else.
fn allowed() -> bool {
    Off::new().0 != DISABLE
}

/// An entry of the table, by the thread's id; goes with the sleep.
pub(super) struct Listed(Option<i32>);

impl Listed {
    pub(super) fn new(word: &AtomicU32, fd: c_int) -> Self {
        if !allowed() {
            return Self(None);
        }
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
        Self(Some(tid))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let Some(tid) = self.0 else { return };
        let mut sleepers = bucket(tid).lock();
        if let Some(at) = sleepers.iter().rposition(|s| s.tid == tid) {
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
