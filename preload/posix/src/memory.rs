//! Where payload lives: slabs cut from preallocated blocks, used again and again.
//!
//! A fresh page costs more than everything else that is done for its bytes, so blocks are populated at once, with huge pages
//! where the kernel has them, and never given back. The slab that was freed last is used first: it is warm. The rooms of
//! large received frames are mostly never touched (`deferred`): they get their pages with their first byte.

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use sidewire_engine::memory::{Fault, Frag, MemRef, Memory, PAGE_FRAG_SIZE, Region, RegionKind};

use crate::lock::Mutex;
use crate::{copy, syscall};

/// Memory taken from the kernel at a time, in bytes: one huge page.
const BLOCK: usize = 2 * 1024 * 1024;
/// Bytes of a slab for large received frames: a few super-frames, so that it stays in the cache until it is read.
const RX_SLAB: usize = 256 * 1024;
/// Bytes of a slab for small received frames: an unread request pins no more than this.
const RX_SMALL_SLAB: usize = PAGE_FRAG_SIZE as usize;
/// Frames up to this length, in bytes, go to a small slab.
const RX_SMALL: usize = 2048;
/// Received payload begins at multiples of this.
const RX_ALIGN: usize = 64;
/// Bound of the send arena, in bytes.
pub const SEND_ARENA_MAX: usize = 1 << 30;
/// Bound of the receive arenas, in bytes each.
pub const RECV_ARENA_MAX: usize = 1 << 30;

/// Every block of the process.
static BLOCKS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Lets the next `fork` copy the arenas, for a child that is to finish what the parent sent.
pub fn inherit_on_fork() {
    for block in BLOCKS.lock().iter() {
        let _ = syscall::madvise(*block as *mut u8, BLOCK, libc::MADV_DOFORK);
    }
}

/// Slabs of one size.
struct Pool {
    slab: usize,
    max: usize,
    populate: bool,
    taken: AtomicUsize,
    free: Mutex<Vec<*mut u8>>,
}

// SAFETY: the pointers on the free list are owned by the list.
unsafe impl Send for Pool {}
// SAFETY: as above; the list is behind a mutex.
unsafe impl Sync for Pool {}

impl Pool {
    fn new(slab: usize, max: usize, populate: bool) -> Arc<Self> {
        Arc::new(Self {
            slab,
            max,
            populate,
            taken: AtomicUsize::new(0),
            free: Mutex::new(Vec::new()),
        })
    }

    fn alloc(self: &Arc<Self>) -> Option<Arc<Slab>> {
        let mut free = self.free.lock();
        let base = match free.pop() {
            Some(p) => p,
            None => {
                self.grow(&mut free)?;
                free.pop()?
            }
        };
        drop(free);
        Some(Arc::new(Slab {
            base,
            len: self.slab,
            pool: self.clone(),
        }))
    }

    #[cold]
    fn grow(&self, free: &mut Vec<*mut u8>) -> Option<()> {
        if self.taken.load(Ordering::Relaxed) + BLOCK > self.max {
            return None;
        }
        // Twice the size, so that an aligned block lies inside; what is never touched costs nothing.
        let at = syscall::map_anonymous(2 * BLOCK).ok()?;
        let block = at.wrapping_add(at.align_offset(BLOCK));
        let _ = syscall::madvise(block, BLOCK, libc::MADV_HUGEPAGE);
        if self.populate && syscall::madvise(block, BLOCK, libc::MADV_POPULATE_WRITE).is_err() {
            for page in (0..BLOCK).step_by(4096) {
                // SAFETY: inside the mapping that was just made.
                unsafe { block.add(page).write_volatile(0) };
            }
        }
        // An ordinary child never touches its parent's payload; without this the parent would copy pages after each fork.
        let _ = syscall::madvise(block, BLOCK, libc::MADV_DONTFORK);
        BLOCKS.lock().push(block as usize);
        self.taken.fetch_add(BLOCK, Ordering::Relaxed);
        free.reserve(self.taken.load(Ordering::Relaxed) / self.slab);
        for i in (0..BLOCK / self.slab).rev() {
            free.push(block.wrapping_add(i * self.slab));
        }
        Some(())
    }
}

/// A piece of a block, back on the free list when the last reference goes.
struct Slab {
    base: *mut u8,
    len: usize,
    pool: Arc<Pool>,
}

// SAFETY: plain memory that lives for ever; who may write which part is the arena's business.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Region for Slab {
    fn base(&self) -> *const u8 {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn kind(&self) -> RegionKind {
        RegionKind::Arena
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.pool.free.lock().push(self.base);
    }
}

/// A slab that is being filled with received frames.
struct Filling {
    pool: Arc<Pool>,
    slab: Option<Arc<Slab>>,
    off: usize,
}

impl Filling {
    fn new(slab: usize, populate: bool) -> Self {
        Self {
            pool: Pool::new(slab, RECV_ARENA_MAX, populate),
            slab: None,
            off: 0,
        }
    }

    fn reserve(&mut self, len: usize) -> Option<RxRoom> {
        if let Some(slab) = &mut self.slab {
            // When only we hold it, everything in it was read: begin anew, in warm memory.
            if Arc::get_mut(slab).is_some() {
                self.off = 0;
            }
            if slab.len - self.off < len {
                self.slab = None;
            }
        }
        if self.slab.is_none() {
            self.slab = Some(self.pool.alloc()?);
            self.off = 0;
        }
        let slab = self.slab.as_ref()?;
        Some(RxRoom {
            mem: slab.clone(),
            at: slab.base.wrapping_add(self.off),
            off: self.off as u32,
        })
    }
}

/// Room for one received payload, until the next one is asked for.
pub struct RxRoom {
    mem: Arc<Slab>,
    /// Where to put the bytes.
    pub at: *mut u8,
    off: u32,
}

/// The arenas of a stack.
pub struct Arenas {
    send: Arc<Pool>,
    small: Filling,
    large: Filling,
}

impl Default for Arenas {
    fn default() -> Self {
        Self::new()
    }
}

impl Arenas {
    /// Empty arenas: memory is taken when the first byte needs it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            send: Pool::new(PAGE_FRAG_SIZE as usize, SEND_ARENA_MAX, true),
            small: Filling::new(RX_SMALL_SLAB, true),
            large: Filling::new(RX_SLAB, false),
        }
    }

    /// Room for a received payload of `len` bytes (at most 64 KiB), or `None` when the arena's bound is reached.
    pub fn rx_reserve(&mut self, len: usize) -> Option<RxRoom> {
        debug_assert!(len <= 1 << 16);
        if len <= RX_SMALL {
            self.small.reserve(len)
        } else {
            self.large.reserve(len)
        }
    }

    /// Makes the first `got` bytes of the room a fragment; the rest is free again.
    pub fn rx_commit(&mut self, room: RxRoom, got: usize) -> Frag {
        let filling = if room.mem.len == RX_SLAB {
            &mut self.large
        } else {
            &mut self.small
        };
        filling.off = room.off as usize + got.next_multiple_of(RX_ALIGN);
        Frag {
            mem: room.mem,
            off: room.off,
            len: got as u32,
        }
    }
}

impl Memory for Arenas {
    fn alloc_page_frag(&mut self) -> Option<MemRef> {
        self.send.alloc().map(|s| s as MemRef)
    }

    fn read(&mut self, frag: &Frag, dst: &mut [u8]) -> Result<(), Fault> {
        assert_eq!(dst.len(), frag.len as usize);
        // SAFETY: `dst` is a live slice of that length; a source that the program took away is a fault.
        unsafe { copy::from_program(dst.as_mut_ptr(), frag.ptr(), dst.len()) }
    }

    fn copy(&mut self, from: &Frag, to: &Frag) -> Result<(), Fault> {
        assert_eq!(to.mem.kind(), RegionKind::Arena);
        assert!(from.len == to.len && to.off as usize + to.len as usize <= to.mem.len());
        // SAFETY: inside an arena slab, whose bytes the engine has just been given to fill; a source that the program took
        // away is a fault.
        unsafe { copy::from_program(to.ptr().cast_mut(), from.ptr(), from.len as usize) }
    }

    fn write(&mut self, mem: &MemRef, off: u32, src: &[u8]) {
        assert_eq!(mem.kind(), RegionKind::Arena);
        assert!(off as usize + src.len() <= mem.len());
        // SAFETY: inside an arena slab, whose bytes from `off` on the engine has just been given to fill.
        unsafe {
            ptr::copy_nonoverlapping(
                src.as_ptr(),
                mem.base().cast_mut().add(off as usize),
                src.len(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_used_again_last_first() {
        let mut a = Arenas::new();
        let one = a.alloc_page_frag().unwrap();
        let two = a.alloc_page_frag().unwrap();
        let (p1, p2) = (one.base(), two.base());
        assert_eq!(p2 as usize - p1 as usize, PAGE_FRAG_SIZE as usize);
        drop(one);
        assert_eq!(a.alloc_page_frag().unwrap().base(), p1);
    }

    #[test]
    fn arena_has_a_bound() {
        let pool = Pool::new(BLOCK / 4, 2 * BLOCK, true);
        let held: Vec<_> = core::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(held.len(), 8);
        drop(held);
        assert!(pool.alloc().is_some());
    }

    #[test]
    fn received_frames_fill_one_slab_and_begin_anew_when_read() {
        let mut a = Arenas::new();
        let room = a.rx_reserve(60_000).unwrap();
        let first = room.at;
        let f1 = a.rx_commit(room, 50_000);
        let room = a.rx_reserve(60_000).unwrap();
        assert_eq!(
            room.at as usize,
            first as usize + 50_000usize.next_multiple_of(RX_ALIGN)
        );
        let f2 = a.rx_commit(room, 60_000);
        drop((f1, f2));
        assert_eq!(a.rx_reserve(60_000).unwrap().at, first);
    }

    #[test]
    fn a_small_frame_does_not_pin_a_large_slab() {
        let mut a = Arenas::new();
        let room = a.rx_reserve(100).unwrap();
        let f = a.rx_commit(room, 100);
        assert_eq!(f.mem.len(), RX_SMALL_SLAB);
    }

    #[test]
    fn read_back_what_was_written() {
        let mut a = Arenas::new();
        let mem = a.alloc_page_frag().unwrap();
        a.write(&mem, 100, b"hello");
        let mut out = [0; 5];
        a.read(
            &Frag {
                mem,
                off: 100,
                len: 5,
            },
            &mut out,
        )
        .unwrap();
        assert_eq!(&out, b"hello");
    }
}
