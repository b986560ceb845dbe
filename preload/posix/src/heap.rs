//! The library's own heap.
//!
//! A handler of the program's may interrupt malloc(3) and make a socket call (POSIX 2.4.3, async-signal-safe functions), and a
//! program's own allocator may write to a socket: what the program allocates from is not ours to use. This heap is used by
//! nobody else, and whoever is in it counts as inside ([`crate::signals`]), so that no handler finds it half way.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;

use dlmalloc::Dlmalloc;

use crate::signals;

/// For `#[global_allocator]`.
pub struct Heap;

/// The heap and its lock. Not parking_lot's, which allocates where two threads meet.
struct Locked {
    lock: UnsafeCell<libc::pthread_mutex_t>,
    heap: UnsafeCell<Dlmalloc>,
}

// SAFETY: the heap is only reached with the lock held.
unsafe impl Sync for Locked {}

static HEAP: Locked = Locked {
    lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    heap: UnsafeCell::new(Dlmalloc::new()),
};

impl Locked {
    #[inline]
    fn with<R>(&self, body: impl FnOnce(&mut Dlmalloc) -> R) -> R {
        let _inside = signals::enter_briefly();
        // SAFETY: a static mutex.
        unsafe { libc::pthread_mutex_lock(self.lock.get()) };
        // SAFETY: the lock is held, and this thread is not in here already: no handler runs meanwhile, and `body` only allocates.
        let result = body(unsafe { &mut *self.heap.get() });
        // SAFETY: as above.
        unsafe { libc::pthread_mutex_unlock(self.lock.get()) };
        result
    }
}

// SAFETY: dlmalloc is an allocator; the layouts are those that it was given before, as the callers promise.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment will do.
        HEAP.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment will do.
        HEAP.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller has it from here, with this layout.
        HEAP.with(|heap| unsafe { heap.free(at, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller has it from here, with this layout.
        HEAP.with(|heap| unsafe { heap.realloc(at, layout.size(), layout.align(), size) })
    }
}

/// Keeps the heap whole across a fork: no other thread is in it then.
pub(crate) fn across_fork(before: bool) {
    // SAFETY: a static mutex, which this thread locks before the fork and unlocks after it, in the child too.
    unsafe {
        if before {
            libc::pthread_mutex_lock(HEAP.lock.get());
        } else {
            libc::pthread_mutex_unlock(HEAP.lock.get());
        }
    }
}
