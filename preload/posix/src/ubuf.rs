//! Completions of sends whose memory the caller owns (Linux's `msg_ubuf`), from the engine to the caller.
//!
//! The engine hands them out under the stack lock, wherever an ack comes. A caller may do anything when it is called, and
//! sleep: so one thread of the library's own calls back, with no lock held and outside of every call. It starts with the
//! first such send.

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::collections::VecDeque;

use once_cell::sync::OnceCell;

use crate::lock::Mutex;
use crate::{syscall, thread};

/// Sends of a process that may be on their way at a time, with memory of their callers'.
pub const UBUFS_MAX: u32 = 1 << 16;
/// Stack of the thread that calls back, in bytes.
const STACK_SIZE: usize = 2 * 1024 * 1024;

/// What is called: the caller's cookie, and whether no byte was copied on its way.
pub type Callback = fn(cookie: u64, zerocopy: bool);

static CALLBACK: OnceCell<Callback> = OnceCell::new();
static DONE: Mutex<VecDeque<(u64, bool)>> = Mutex::new(VecDeque::new());
/// 1 while there is something in [`DONE`] that the thread has not seen.
static WORD: AtomicU32 = AtomicU32::new(0);
static OUTSTANDING: AtomicU32 = AtomicU32::new(0);
/// The thread runs in this process.
static RUNS: AtomicBool = AtomicBool::new(false);

/// A send that will complete, unless it is dropped before [`Promise::keep`].
pub(crate) struct Promise(());

impl Promise {
    /// Makes room for one more completion, and starts the thread.
    ///
    /// # Errors
    /// ENOBUFS beyond [`UBUFS_MAX`], EAGAIN where the thread cannot be started.
    pub(crate) fn new(callback: Callback) -> Result<Self, c_int> {
        CALLBACK.get_or_init(|| callback);
        if OUTSTANDING.fetch_add(1, Ordering::Relaxed) >= UBUFS_MAX {
            OUTSTANDING.fetch_sub(1, Ordering::Relaxed);
            return Err(libc::ENOBUFS);
        }
        let promise = Self(());
        if !RUNS.swap(true, Ordering::Relaxed)
            && thread::spawn("sidewire-ubuf", STACK_SIZE, run).is_err()
        {
            RUNS.store(false, Ordering::Relaxed);
            return Err(libc::EAGAIN);
        }
        Ok(promise)
    }

    /// The completion will come by [`complete`].
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        OUTSTANDING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Queues a completion that was promised.
#[cold]
pub(crate) fn complete(cookie: u64, zerocopy: bool) {
    DONE.lock().push_back((cookie, zerocopy));
    if WORD.swap(1, Ordering::SeqCst) == 0 {
        syscall::futex_wake(&raw const WORD);
    }
}

fn run() {
    loop {
        if WORD.swap(0, Ordering::SeqCst) == 0 {
            // Ends at once when something came meanwhile; for whatever reason it ends, the word says.
            let _ = syscall::futex_wait(&WORD, 0, u64::MAX);
            continue;
        }
        loop {
            let next = DONE.lock().pop_front();
            let Some((cookie, zerocopy)) = next else {
                break;
            };
            OUTSTANDING.fetch_sub(1, Ordering::Relaxed);
            if let Some(callback) = CALLBACK.get() {
                callback(cookie, zerocopy);
            }
        }
    }
}

/// Locks the queue before a fork, and unlocks it after, in parent and child.
pub(crate) fn across_fork(before: bool) {
    if before {
        core::mem::forget(DONE.lock());
    } else {
        // SAFETY: this thread locked it before the fork.
        unsafe { DONE.force_unlock() };
    }
}

/// In the child of a fork, where there is no such thread: what the parent sent completes in the parent.
pub(crate) fn forked() {
    DONE.lock().clear();
    WORD.store(0, Ordering::Relaxed);
    OUTSTANDING.store(0, Ordering::Relaxed);
    RUNS.store(false, Ordering::Relaxed);
}
