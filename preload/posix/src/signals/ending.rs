//! The end of the program, by exit or exec, while several threads run. Linux ends the others first; only then is anything
//! closed. Here each of them stops where it enters a call, or is about to return from one, and never learns what became of
//! its sockets.

use core::sync::atomic::{AtomicU32, Ordering};

use super::{THREAD, mask};
use crate::stack::monotonic_ns;
use crate::{syscall, thread};

/// Signals of libc's own (SIGCANCEL, SIGSETXID): setuid(2) and its kin wait until every thread has taken the second one.
pub(crate) const LIBCS: u64 = 1 << 31 | 1 << 32;

/// How the program ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Exit = 1,
    /// May take long: connections that linger are waited for. When it fails, the others go on.
    Exec = 2,
}

const NO: u32 = 0;

/// How long a thread stops for an exit at most, in nanoseconds: much longer than that takes. The destructor of some other
/// library, which runs behind ours, may wait for the thread.
const LONGEST: u64 = 1_000_000_000;

/// Whether a thread ends the program, and how.
static ENDING: AtomicU32 = AtomicU32::new(NO);

/// From now on the program's other threads stop at their calls. False when this one ends the program already. Where another
/// one does, it stops, too, until that one's exec has failed, and answers false when that takes long.
pub(crate) fn begin(end: End) -> bool {
    while !ends() {
        let first = ENDING
            .compare_exchange(NO, end as u32, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if first {
            exempt(true);
            return true;
        }
        wait();
    }
    false
}

/// The calling thread ends the program, or has stopped for long enough.
fn ends() -> bool {
    THREAD.with(|t| t.ends.load(Ordering::Relaxed))
}

fn exempt(yes: bool) {
    THREAD.with(|t| t.ends.store(yes, Ordering::Relaxed));
}

/// The program goes on after all, if it was this thread that was to end it.
pub(crate) fn called_off() {
    if ends() {
        exempt(false);
        ENDING.store(NO, Ordering::SeqCst);
        syscall::futex_wake_all(&ENDING);
    }
}

/// In the child of a fork, which has no other threads.
pub(crate) fn forked() {
    ENDING.store(NO, Ordering::Relaxed);
    exempt(false);
}

/// True while a thread ends the program: what the others' calls say now is not to be told.
#[inline]
pub(crate) fn under_way() -> bool {
    ENDING.load(Ordering::Relaxed) != NO
}

/// SIGPIPE for the calling thread. Not where its connection is closed because the program ends.
pub(crate) fn raise_sigpipe() {
    if !under_way() {
        syscall::raise_sigpipe();
    }
}

/// Stops the calling thread, which holds nothing, unless it is the one that ends the program or one of the library's own.
#[cold]
pub(super) fn stop() {
    if !thread::own() && !ends() {
        wait();
    }
}

fn wait() {
    let before = mask(libc::SIG_SETMASK, Some(!LIBCS));
    let begun = monotonic_ns();
    loop {
        let how = ENDING.load(Ordering::SeqCst);
        if how == NO || ends() {
            break;
        }
        let end = if how == End::Exec as u32 {
            u64::MAX
        } else {
            begun + LONGEST
        };
        let _ = syscall::futex_wait(&ENDING, how, end);
        exempt(monotonic_ns() >= end);
    }
    mask(libc::SIG_SETMASK, Some(before));
}
