//! The engine's memory over plain vectors: every region is known, so that a leak shows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sidewire_engine::memory::{
    Fault, Frag, IovIter, MemRef, Memory, PAGE_FRAG_SIZE, Region, RegionKind,
};

/// Regions that one [`TestMemory`] may have alive: what bounds a run that leaks.
pub const MAX_REGIONS: usize = 1 << 16;

type Table = Mutex<HashMap<usize, Weak<Slab>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked elsewhere has its own message; the bytes are still bytes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One region: bytes with a fixed address.
pub struct Slab {
    base: usize,
    bytes: Mutex<Box<[u8]>>,
    len: usize,
    kind: RegionKind,
    table: Weak<Table>,
}

impl Region for Slab {
    fn base(&self) -> *const u8 {
        self.base as *const u8
    }
    fn len(&self) -> usize {
        self.len
    }
    fn kind(&self) -> RegionKind {
        self.kind
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            lock(&table).remove(&self.base);
        }
    }
}

/// The regions of one host. Clones share them.
#[derive(Clone, Default)]
pub struct TestMemory {
    table: Arc<Table>,
    /// Page fragments that may still be given out; `None` for as many as wanted.
    page_frags_left: Option<usize>,
}

impl TestMemory {
    /// A host without regions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A region with a copy of `bytes`.
    ///
    /// # Panics
    /// With more than [`MAX_REGIONS`] alive.
    #[must_use]
    pub fn region(&self, kind: RegionKind, bytes: Vec<u8>) -> Arc<Slab> {
        // An empty box has no address of its own.
        let bytes = if bytes.is_empty() { vec![0] } else { bytes }.into_boxed_slice();
        let slab = Arc::new(Slab {
            base: bytes.as_ptr() as usize,
            len: bytes.len(),
            bytes: Mutex::new(bytes),
            kind,
            table: Arc::downgrade(&self.table),
        });
        let mut table = lock(&self.table);
        assert!(
            table.len() < MAX_REGIONS,
            "more than {MAX_REGIONS} regions alive"
        );
        table.insert(slab.base, Arc::downgrade(&slab));
        slab
    }

    /// Lets the engine allocate `n` more page fragments, then none.
    pub fn limit_page_frags(&mut self, n: usize) {
        self.page_frags_left = Some(n);
    }

    /// A copy of a fragment's bytes.
    ///
    /// # Panics
    /// When the fragment does not lie in a living region of this host: the engine made it up.
    #[must_use]
    pub fn bytes_of(&self, frag: &Frag) -> Vec<u8> {
        let slab = self.slab(&frag.mem);
        let bytes = lock(&slab.bytes);
        bytes[frag.off as usize..][..frag.len as usize].to_vec()
    }

    /// Regions alive, by kind.
    #[must_use]
    pub fn alive(&self, kind: RegionKind) -> usize {
        // Upgraded references end after the lock: a last one takes it.
        let alive: Vec<_> = lock(&self.table)
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        alive.iter().filter(|slab| slab.kind == kind).count()
    }

    fn slab(&self, mem: &MemRef) -> Arc<Slab> {
        let found = lock(&self.table)
            .get(&(mem.base() as usize))
            .and_then(Weak::upgrade);
        found.expect("a region of this host")
    }
}

impl Memory for TestMemory {
    fn alloc_page_frag(&mut self) -> Option<MemRef> {
        if let Some(left) = &mut self.page_frags_left {
            *left = left.checked_sub(1)?;
        }
        Some(self.region(RegionKind::Arena, vec![0; PAGE_FRAG_SIZE as usize]))
    }

    fn read(&mut self, frag: &Frag, dst: &mut [u8]) -> Result<(), Fault> {
        dst.copy_from_slice(&self.bytes_of(frag));
        Ok(())
    }

    fn write(&mut self, mem: &MemRef, off: u32, src: &[u8]) {
        let slab = self.slab(mem);
        lock(&slab.bytes)[off as usize..][..src.len()].copy_from_slice(src);
    }
}

/// One entry of a program's iovec.
#[derive(Clone)]
pub enum IoVec {
    /// Mapped memory: the region, the first byte, the length.
    Mapped(Arc<Slab>, usize, usize),
    /// So many bytes of which none can be touched.
    Unmapped(usize),
}

impl IoVec {
    fn len(&self) -> usize {
        match self {
            Self::Mapped(_, _, len) | Self::Unmapped(len) => *len,
        }
    }
}

/// A program's buffers and a cursor over them.
pub struct ProgramIter {
    memory: TestMemory,
    iov: Vec<IoVec>,
    at: usize,
}

impl ProgramIter {
    /// A cursor at the start of `iov`.
    #[must_use]
    pub fn new(memory: &TestMemory, iov: Vec<IoVec>) -> Self {
        Self {
            memory: memory.clone(),
            iov,
            at: 0,
        }
    }

    /// One buffer that holds `bytes`, to be sent.
    #[must_use]
    pub fn source(memory: &TestMemory, bytes: &[u8]) -> Self {
        let slab = memory.region(RegionKind::User, bytes.to_vec());
        Self::new(memory, vec![IoVec::Mapped(slab, 0, bytes.len())])
    }

    /// One buffer of `len` bytes, to be received into.
    #[must_use]
    pub fn sink(memory: &TestMemory, len: usize) -> Self {
        let slab = memory.region(RegionKind::User, vec![0; len]);
        Self::new(memory, vec![IoVec::Mapped(slab, 0, len)])
    }

    /// The first `len` bytes of the mapped buffers.
    #[must_use]
    pub fn received(&self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        for entry in &self.iov {
            if let IoVec::Mapped(slab, off, n) = entry {
                out.extend_from_slice(&lock(&slab.bytes)[*off..off + n]);
            }
        }
        out.truncate(len);
        out
    }

    /// The mapped pieces of the next `len` bytes.
    fn pieces(&self, len: usize) -> Result<Vec<(Arc<Slab>, usize, usize)>, Fault> {
        let mut pieces = Vec::new();
        let (mut skip, mut left) = (self.at, len);
        for entry in &self.iov {
            let n = entry.len().saturating_sub(skip).min(left);
            if n > 0 {
                match entry {
                    IoVec::Mapped(slab, off, _) => pieces.push((slab.clone(), off + skip, n)),
                    IoVec::Unmapped(_) => return Err(Fault),
                }
            }
            skip = skip.saturating_sub(entry.len());
            left -= n;
        }
        if left == 0 { Ok(pieces) } else { Err(Fault) }
    }
}

impl IovIter for ProgramIter {
    fn remaining(&self) -> usize {
        self.iov.iter().map(IoVec::len).sum::<usize>() - self.at
    }

    fn copy_in(&mut self, mem: &MemRef, off: u32, len: u32) -> Result<(), Fault> {
        let to = self.memory.slab(mem);
        let mut off = off as usize;
        for (slab, at, n) in self.pieces(len as usize)? {
            // Not both locks at once: a program may send what it receives into.
            let bytes = lock(&slab.bytes)[at..at + n].to_vec();
            lock(&to.bytes)[off..off + n].copy_from_slice(&bytes);
            off += n;
        }
        self.at += len as usize;
        Ok(())
    }

    fn copy_out(&mut self, frag: &Frag) -> Result<(), Fault> {
        let bytes = self.memory.bytes_of(frag);
        self.copy_out_bytes(&bytes)
    }

    fn copy_out_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        for (slab, at, n) in self.pieces(bytes.len())? {
            let (now, later) = rest.split_at(n);
            lock(&slab.bytes)[at..at + n].copy_from_slice(now);
            rest = later;
        }
        self.at += bytes.len();
        Ok(())
    }

    fn pin(&mut self, max: u32) -> Result<Frag, Fault> {
        let mut skip = self.at;
        for entry in &self.iov {
            if skip < entry.len() {
                let IoVec::Mapped(slab, off, len) = entry else {
                    return Err(Fault);
                };
                let len = (len - skip).min(max as usize);
                self.at += len;
                let off = (off + skip) as u32;
                return Ok(Frag {
                    mem: slab.clone(),
                    off,
                    len: len as u32,
                });
            }
            skip -= entry.len();
        }
        Err(Fault)
    }

    fn advance(&mut self, n: usize) {
        assert!(n <= self.remaining(), "advanced past the program's buffers");
        self.at += n;
    }

    fn revert(&mut self, n: usize) {
        self.at = self.at.checked_sub(n).expect("reverted past the start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_and_out_across_iovec_entries() {
        let mut memory = TestMemory::new();
        let parts = [&b"hello "[..], b"", b"world"].map(|part| {
            let slab = memory.region(RegionKind::User, part.to_vec());
            IoVec::Mapped(slab, 0, part.len())
        });
        let mut iter = ProgramIter::new(&memory, parts.to_vec());
        let page = memory.alloc_page_frag().unwrap();
        iter.copy_in(&page, 10, 8).unwrap();
        assert_eq!(iter.remaining(), 3);
        let frag = Frag {
            mem: page,
            off: 12,
            len: 5,
        };
        assert_eq!(memory.bytes_of(&frag), b"llo w");
        let mut sink = ProgramIter::sink(&memory, 7);
        sink.copy_out(&frag).unwrap();
        sink.copy_out_bytes(b"!!").unwrap();
        assert_eq!(sink.copy_out_bytes(b"?"), Err(Fault));
        assert_eq!(sink.received(7), b"llo w!!");
    }

    #[test]
    fn a_fault_leaves_the_cursor_where_it_stood() {
        let mut memory = TestMemory::new();
        let slab = memory.region(RegionKind::User, vec![1; 50]);
        let iov = vec![IoVec::Mapped(slab, 0, 50), IoVec::Unmapped(100)];
        let mut iter = ProgramIter::new(&memory, iov);
        let page = memory.alloc_page_frag().unwrap();
        assert_eq!(iter.copy_in(&page, 0, 51), Err(Fault));
        assert_eq!(iter.remaining(), 150);
        assert_eq!(iter.pin(4096).unwrap().len, 50);
        assert_eq!(iter.pin(4096).map(|_| ()), Err(Fault));
    }

    #[test]
    fn regions_end_with_their_last_reference() {
        let mut memory = TestMemory::new();
        let page = memory.alloc_page_frag().unwrap();
        let again = page.clone();
        drop(page);
        assert_eq!(memory.alive(RegionKind::Arena), 1);
        drop(again);
        assert_eq!(memory.alive(RegionKind::Arena), 0);
    }

    #[test]
    fn the_arena_can_run_dry() {
        let mut memory = TestMemory::new();
        memory.limit_page_frags(1);
        assert!(memory.alloc_page_frag().is_some());
        assert!(memory.alloc_page_frag().is_none());
    }
}
