//! How a safe engine refers to other people's bytes.

use alloc::sync::Arc;
use alloc::vec;
use core::any::Any;
use core::fmt;

/// Size of one page fragment, in bytes: Linux's `SKB_FRAG_PAGE_ORDER` (32 KiB), F8.
pub const PAGE_FRAG_SIZE: u32 = 32 * 1024;

/// Size of a page, in bytes, as fragments of referenced memory count.
pub const PAGE_SIZE: u32 = 4096;

/// How far into its page an address is.
pub(crate) fn page_offset(at: *const u8) -> u32 {
    at as usize as u32 % PAGE_SIZE
}

/// Where the bytes of a region live, which decides who may look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Our own arena: send page fragments and receive buffers.
    Arena,
    /// The program's memory, referenced by MSG_ZEROCOPY: never dereferenced in user space.
    User,
    /// A mapped file (sendfile, splice): contents may change until sent.
    File,
    /// A registered dma-buf.
    DmaBuf,
}

/// A run of bytes that lives at a fixed address until the last reference goes. Received bytes may still be on their way
/// there: asking for the address brings them.
pub trait Region: Any + Send + Sync {
    /// First byte. The engine only passes it on; only `posix` and `link` dereference.
    fn base(&self) -> *const u8;
    /// Length in bytes.
    fn len(&self) -> usize;
    /// Never true for a region in use; here because `len` is.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Who owns the bytes.
    fn kind(&self) -> RegionKind;
    /// The region of `len` bytes at `at`, of memory that nobody waits to have back, so that one region of it is as good as
    /// another: the program's. `None` for any other.
    fn elsewhere(&self, at: *const u8, len: usize) -> Option<MemRef> {
        let _ = (at, len);
        None
    }
}

/// A counted reference to a region. Dropping the last one gives the bytes back to their owner.
pub type MemRef = Arc<dyn Region>;

/// A piece of a region.
#[derive(Clone)]
pub struct Frag {
    /// The region.
    pub mem: MemRef,
    /// First byte, from the region's base.
    pub off: u32,
    /// Bytes.
    pub len: u32,
}

/// The region of no bytes, for what has sequence space but no payload (a bare FIN).
struct NoBytes;

impl Region for NoBytes {
    fn base(&self) -> *const u8 {
        core::ptr::null()
    }
    fn len(&self) -> usize {
        0
    }
    fn kind(&self) -> RegionKind {
        RegionKind::Arena
    }
}

impl Frag {
    /// A fragment without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            mem: Arc::new(NoBytes),
            off: 0,
            len: 0,
        }
    }

    /// Address of the first byte, for the code that may dereference it.
    #[must_use]
    pub fn ptr(&self) -> *const u8 {
        self.mem.base().wrapping_add(self.off as usize)
    }

    /// True of the program's own pages.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.mem.kind() == RegionKind::User
    }

    /// Pages that it touches; 1 of our own memory, which comes in page fragments.
    #[must_use]
    pub fn pages(&self) -> usize {
        if self.mem.kind() == RegionKind::Arena {
            return 1;
        }
        (page_offset(self.ptr()) + self.len).div_ceil(PAGE_SIZE) as usize
    }

    /// True where `next` follows in the same kind of memory, in the page in which this ends.
    #[must_use]
    pub fn goes_on_in(&self, next: &Self) -> bool {
        let end = self.ptr().wrapping_add(self.len as usize);
        core::ptr::eq(end, next.ptr())
            && page_offset(end) != 0
            && self.mem.kind() == next.mem.kind()
    }

    /// Makes `next`, which goes on in its last page, part of it; false, changing nothing, where it does not, or where the two
    /// belong to different owners.
    #[must_use]
    pub fn join(&mut self, next: &Self) -> bool {
        if !self.goes_on_in(next) {
            return false;
        }
        if !Arc::ptr_eq(&self.mem, &next.mem) {
            let len = (self.len + next.len) as usize;
            let Some(both) = self.mem.elsewhere(self.ptr(), len) else {
                return false;
            };
            (self.mem, self.off) = (both, 0);
        }
        self.len += next.len;
        true
    }

    /// Takes the first `n` bytes away and returns them as a fragment of their own.
    #[must_use]
    pub fn split_to(&mut self, n: u32) -> Self {
        debug_assert!(n <= self.len);
        let head = Self {
            mem: self.mem.clone(),
            off: self.off,
            len: n,
        };
        self.off += n;
        self.len -= n;
        head
    }

    /// True when `next` begins in the same region where `self` ends, so that both can be one fragment.
    #[must_use]
    pub fn abuts(&self, next: &Self) -> bool {
        Arc::ptr_eq(&self.mem, &next.mem) && self.off + self.len == next.off
    }
}

impl fmt::Debug for Frag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frag({:?} {}+{})", self.mem.kind(), self.off, self.len)
    }
}

/// A page of the program's that cannot be read or written: EFAULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Linux's `struct iov_iter`: a cursor over the program's buffers.
///
/// Copies are whole or not at all: on `Fault` the cursor stands where it stood (E7).
pub trait IovIter {
    /// Bytes left.
    fn remaining(&self) -> usize;
    /// Copies `len` bytes from the program into `mem` at `off` and advances.
    ///
    /// # Errors
    /// `Fault` when any byte of the range cannot be read.
    fn copy_in(&mut self, mem: &MemRef, off: u32, len: u32) -> Result<(), Fault>;
    /// The same, up to the first byte that cannot be read; the answer is how many could (Linux `copy_page_from_iter`).
    fn copy_in_readable(&mut self, mem: &MemRef, off: u32, len: u32) -> u32 {
        let (mut copied, mut step) = (0, len);
        while step > 0 {
            let fits = copied + step <= len;
            if fits && self.copy_in(mem, off + copied, step).is_ok() {
                copied += step;
            } else {
                step /= 2;
            }
        }
        copied
    }
    /// Copies a fragment to the program and advances.
    ///
    /// # Errors
    /// `Fault` when any byte of the range cannot be written; always, for iterators that are only sent from.
    fn copy_out(&mut self, frag: &Frag) -> Result<(), Fault> {
        let _ = frag;
        Err(Fault)
    }
    /// Copies plain bytes to the program (error-queue payloads) and advances.
    ///
    /// # Errors
    /// As [`IovIter::copy_out`].
    fn copy_out_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let _ = bytes;
        Err(Fault)
    }
    /// References (MSG_ZEROCOPY, splice) up to `max` bytes of the current segment without copying, and advances.
    ///
    /// # Errors
    /// `Fault` when a page is not mapped; always, for iterators that have no pages.
    fn pin(&mut self, max: u32) -> Result<Frag, Fault> {
        let _ = max;
        Err(Fault)
    }
    /// References up to `max` bytes of `mem` (a dma-buf) at the offset that the program gave in place of an address, and
    /// advances (ZC-59).
    ///
    /// # Errors
    /// `Fault` when the range does not lie in `mem`; always, for iterators that no program filled.
    fn pin_offset(&mut self, mem: &MemRef, max: u32) -> Result<Frag, Fault> {
        let _ = (mem, max);
        Err(Fault)
    }
    /// Skips `n` bytes (MSG_TRUNC).
    fn advance(&mut self, n: usize);
    /// Goes back `n` bytes of what was copied or pinned.
    fn revert(&mut self, n: usize);
}

/// The arenas that the engine allocates from.
pub trait Memory {
    /// A send page fragment of [`PAGE_FRAG_SIZE`] bytes, or `None` when the arena's bound is reached
    /// (Linux: page allocation failure, H9).
    fn alloc_page_frag(&mut self) -> Option<MemRef>;
    /// Reads a fragment's bytes: freezing, repair, error-queue payloads, SYN data. `dst.len() == frag.len`.
    ///
    /// # Errors
    /// `Fault` when the program took its pages away.
    fn read(&mut self, frag: &Frag, dst: &mut [u8]) -> Result<(), Fault>;
    /// Writes bytes into an arena region (thaw, repair, SYN data).
    fn write(&mut self, mem: &MemRef, off: u32, src: &[u8]);
    /// Copies a fragment's bytes to one of the same length in an arena region.
    ///
    /// # Errors
    /// As [`Memory::read`].
    fn copy(&mut self, from: &Frag, to: &Frag) -> Result<(), Fault> {
        let mut bytes = vec![0; from.len as usize];
        self.read(from, &mut bytes)?;
        self.write(&to.mem, to.off, &bytes);
        Ok(())
    }
}
