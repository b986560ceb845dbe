//! The page fragment that small sends fill one after the other: Linux's `struct page_frag` of a task.
//!
//! There is one for the whole stack, as there is one for a whole task in Linux: the stack's lock is held while it is filled.

use core::fmt;

use alloc::sync::Arc;

use crate::memory::{Frag, MemRef, Memory};

/// A fragment with less room than this is given up (Linux's `skb_page_frag_refill(32, ...)`).
const MIN_LEFT: u32 = 32;

/// A region, and how much of it is used.
pub struct PageFrag {
    /// The region.
    pub mem: MemRef,
    /// Next free byte.
    pub off: u32,
}

impl fmt::Debug for PageFrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageFrag({} of {})", self.off, self.mem.len())
    }
}

impl PageFrag {
    /// Bytes left.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.mem.len() as u32 - self.off
    }

    /// Would the next byte stand directly behind `last`'s (Linux `skb_can_coalesce`)?
    #[must_use]
    pub fn continues(&self, last: &Frag) -> bool {
        last.off + last.len == self.off && Arc::ptr_eq(&last.mem, &self.mem)
    }

    /// The next `len` bytes, as a fragment of a buffer's.
    #[must_use]
    pub fn frag(&self, len: u32) -> Frag {
        Frag {
            mem: self.mem.clone(),
            off: self.off,
            len,
        }
    }
}

/// A fragment with room (Linux `sk_page_frag_refill`): the present one, from its start when nobody refers to it any more,
/// else a new one; `None` when the arena has none.
pub fn refill<'a>(
    slot: &'a mut Option<PageFrag>,
    mem: &mut (dyn Memory + '_),
) -> Option<&'a mut PageFrag> {
    let usable = match slot {
        Some(p) if Arc::strong_count(&p.mem) == 1 => {
            p.off = 0;
            true
        }
        Some(p) => p.left() >= MIN_LEFT,
        None => false,
    };
    if !usable {
        *slot = None;
        *slot = Some(PageFrag {
            mem: mem.alloc_page_frag()?,
            off: 0,
        });
    }
    slot.as_mut()
}
