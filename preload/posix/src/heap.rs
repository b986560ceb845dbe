//! The library's own heap.
//!
//! A handler of the program's may interrupt malloc(3) and make a socket call (POSIX 2.4.3, async-signal-safe functions), and a
//! program's own allocator may write to a socket: what the program allocates from is not ours to use. This heap is used by
//! nobody else, and whoever is in it counts as inside ([`crate::signals`]), so that no handler finds it half way.

use core::alloc::{GlobalAlloc, Layout};

use dlmalloc::Dlmalloc;

use crate::lock::Mutex;
use crate::signals;

/// For `#[global_allocator]`.
pub struct Heap;

struct Memory(Dlmalloc);

// SAFETY: what it has from the kernel is any thread's.
unsafe impl Send for Memory {}

static HEAP: Mutex<Memory> = Mutex::new(Memory(Dlmalloc::new()));

/// No handler runs meanwhile, so that this thread is not in here already.
#[inline]
fn with<R>(body: impl FnOnce(&mut Dlmalloc) -> R) -> R {
    let _inside = signals::enter_briefly();
    body(&mut HEAP.lock().0)
}

// SAFETY: dlmalloc is an allocator; the layouts are those that it was given before, as the callers promise.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment will do.
        with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment will do.
        with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller has it from here, with this layout.
        with(|heap| unsafe { heap.free(at, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller has it from here, with this layout.
        with(|heap| unsafe { heap.realloc(at, layout.size(), layout.align(), size) })
    }
}

/// Keeps the heap whole across a fork: no other thread is in it then.
pub(crate) fn across_fork(before: bool) {
    if before {
        core::mem::forget(HEAP.lock());
    } else {
        // SAFETY: this thread locked it before the fork.
        unsafe { HEAP.force_unlock() };
    }
}
