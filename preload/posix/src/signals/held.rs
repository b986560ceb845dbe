//! References to files that a call holds while the program's handlers run, or while it tests for cancellation.
//!
//! A handler may leave by `siglongjmp`, and a cancelled thread does not come back: the reference on that stack would be lost,
//! and the socket would never close. So it is lent to a list for that time. The thread itself takes back what it finds there
//! when it enters again; what a thread left that is gone, the next `close` takes.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::{cancel, mask};
use crate::file::{File, FileRef};
use crate::lock::Mutex;
use crate::syscall;

struct Entry {
    tid: i32,
    /// How deep in the stack: an address.
    depth: usize,
    file: *const File,
}

// SAFETY: records of files are never freed.
unsafe impl Send for Entry {}

static LENT: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The list, with every signal blocked: a handler that comes now must find it unlocked.
fn with_list<R>(f: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
    let before = mask(libc::SIG_SETMASK, Some(!0));
    let result = {
        let mut list = LENT.lock();
        let result = f(&mut list);
        COUNT.store(list.len(), Ordering::Relaxed);
        result
    };
    mask(libc::SIG_SETMASK, Some(before));
    result
}

/// An address on the stack; smaller is deeper.
#[inline(never)]
fn depth() -> usize {
    let here = 0u8;
    &raw const here as usize
}

/// The caller's reference, lent. Dropping it means that the caller came back.
pub(crate) struct Lent {
    file: *const File,
}

impl Lent {
    pub(crate) fn new(file: &FileRef) -> Self {
        let file: *const File = file.record();
        let tid = cancel::tid();
        with_list(|list| {
            list.push(Entry {
                tid,
                depth: depth(),
                file,
            })
        });
        Self { file }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let tid = cancel::tid();
        with_list(|list| {
            if let Some(at) = list
                .iter()
                .rposition(|e| e.tid == tid && e.file == self.file)
            {
                list.swap_remove(at);
            }
        });
    }
}

/// True when anything is lent.
#[inline]
pub(crate) fn any() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

fn release(left: impl Fn(&Entry) -> bool) {
    let lost: Vec<_> = with_list(|list| list.extract_if(.., |e| left(e)).collect());
    for entry in lost {
        // SAFETY: the reference of a stack frame that is gone, which is nobody's now.
        drop(unsafe { FileRef::from_raw(entry.file.cast_mut()) });
    }
}

/// This thread enters from outside: what it lent from deeper in its stack than it now is, it has left. (A handler that runs
/// meanwhile is deeper than the call that it interrupted, or on the alternate stack.)
#[cold]
pub(crate) fn take_back() {
    // SAFETY: all-zero is a valid stack_t; a live local.
    let on_alternate = unsafe {
        let mut now: libc::stack_t = core::mem::zeroed();
        libc::sigaltstack(core::ptr::null(), &raw mut now) == 0
            && now.ss_flags & libc::SS_ONSTACK != 0
    };
    if on_alternate {
        return;
    }
    let (me, here) = (cancel::tid(), depth());
    release(|e| e.tid == me && e.depth < here);
}

/// Takes what threads left that are gone.
#[cold]
pub(crate) fn bury() {
    let me = cancel::tid();
    release(|e| e.tid != me && !syscall::thread_exists(e.tid));
}
