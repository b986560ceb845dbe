//! The program's buffers as the engine sees them: Linux's `import_iovec` and `struct iov_iter`.

use core::ptr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use libc::iovec;
use sidewire_engine::error::Error;
use sidewire_engine::memory::{Fault, Frag, IovIter, MemRef, Region, RegionKind};

use crate::deferred::{Deferred, MAX_PARTS};
use crate::{copy, syscall};

/// Most buffers of one call (Linux UIO_MAXIOV).
pub const UIO_MAXIOV: usize = 1024;
/// Most bytes of one call (Linux MAX_RW_COUNT).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;
/// Vectors up to this length are kept on the stack (Linux UIO_FASTIOV).
const UIO_FASTIOV: usize = 8;

/// A copy of the program's iovec array, with its lengths checked.
pub enum Iovecs {
    /// Short.
    Fast(ArrayVec<iovec, UIO_FASTIOV>),
    /// Long.
    Heap(Vec<iovec>),
}

impl Iovecs {
    /// One buffer of ours.
    #[must_use]
    pub fn single(base: *const u8, len: usize) -> Self {
        let mut v = ArrayVec::new();
        v.push(iovec {
            iov_base: base.cast_mut().cast(),
            iov_len: len.min(MAX_RW_COUNT),
        });
        Self::Fast(v)
    }

    /// One buffer of read(2) or write(2), which look at all of it (Linux `vfs_read`).
    ///
    /// # Errors
    /// EFAULT when it reaches beyond the address space.
    pub fn whole(base: *const u8, len: usize) -> Result<Self, Error> {
        if syscall::access_ok(base, len) {
            Ok(Self::single(base, len))
        } else {
            Err(Error::Fault)
        }
    }

    /// One buffer of send(2) or recv(2) (Linux `import_ubuf`).
    ///
    /// # Errors
    /// EFAULT when what counts of it reaches beyond the address space.
    pub fn ubuf(base: *const u8, len: usize) -> Result<Self, Error> {
        Self::whole(base, len.min(MAX_RW_COUNT))
    }

    /// Reads `count` entries at `iov` and clamps the sum to [`MAX_RW_COUNT`].
    ///
    /// # Errors
    /// `too_many` for more than [`UIO_MAXIOV`] entries (EINVAL for readv, EMSGSIZE for the msghdr calls); EFAULT when the
    /// array cannot be read, and when an entry reaches beyond the address space (Linux `__import_iovec`); EINVAL for a negative
    /// length.
    ///
    /// # Safety
    /// `iov` is the program's, it may be anything.
    pub unsafe fn import(iov: *const iovec, count: usize, too_many: Error) -> Result<Self, Error> {
        if count > UIO_MAXIOV {
            return Err(too_many);
        }
        let mut this = if count <= UIO_FASTIOV {
            let mut v = ArrayVec::new();
            for i in 0..count {
                // SAFETY: any bytes make an iovec.
                let e = unsafe { copy::read_value(iov.wrapping_add(i)) };
                v.push(e.map_err(|Fault| Error::Fault)?);
            }
            Self::Fast(v)
        } else {
            let empty = iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0,
            };
            let mut v = vec![empty; count];
            // SAFETY: the destination holds `count` entries; any bytes make an iovec.
            unsafe {
                copy::from_program(
                    v.as_mut_ptr().cast(),
                    iov.cast(),
                    count * size_of::<iovec>(),
                )
            }
            .map_err(|Fault| Error::Fault)?;
            Self::Heap(v)
        };
        // Linux copy_iovec_from_user looks at all lengths first.
        if this.as_slice().iter().any(|e| e.iov_len as isize <= -1) {
            return Err(Error::Inval);
        }
        let mut total = 0;
        for e in this.as_mut_slice() {
            // Of a single one no more than what counts is looked at.
            let most = if count > 1 { usize::MAX } else { MAX_RW_COUNT };
            if !syscall::access_ok(e.iov_base.cast(), e.iov_len.min(most)) {
                return Err(Error::Fault);
            }
            e.iov_len = e.iov_len.min(MAX_RW_COUNT - total);
            total += e.iov_len;
        }
        Ok(this)
    }

    fn as_mut_slice(&mut self) -> &mut [iovec] {
        match self {
            Self::Fast(v) => v,
            Self::Heap(v) => v,
        }
    }

    /// The entries.
    #[must_use]
    pub fn as_slice(&self) -> &[iovec] {
        match self {
            Self::Fast(v) => v,
            Self::Heap(v) => v,
        }
    }

    /// The entries that are left behind `done` bytes.
    #[must_use]
    pub fn behind(&self, mut done: usize) -> Vec<iovec> {
        let left = self.as_slice().iter().map(|e| {
            let skip = done.min(e.iov_len);
            done -= skip;
            iovec {
                iov_base: e.iov_base.wrapping_byte_add(skip),
                iov_len: e.iov_len - skip,
            }
        });
        left.filter(|e| e.iov_len > 0).collect()
    }

    /// A cursor over them.
    #[must_use]
    pub fn iter(&self) -> ProgramIov<'_> {
        ProgramIov::new(self.as_slice())
    }
}

/// A cursor over the program's buffers.
pub struct ProgramIov<'a> {
    iov: &'a [iovec],
    /// Entry that the cursor stands in.
    at: usize,
    /// Bytes of it that are done.
    off: usize,
    remaining: usize,
    /// What is copied out is read, not looked at.
    takes: bool,
}

impl<'a> ProgramIov<'a> {
    /// A cursor at the beginning. The addresses may be anything.
    #[must_use]
    pub fn new(iov: &'a [iovec]) -> Self {
        Self {
            iov,
            at: 0,
            off: 0,
            remaining: iov.iter().map(|e| e.iov_len).sum(),
            takes: false,
        }
    }

    /// For a call that takes bytes out of the stream: what is copied to this cursor will not be asked for again.
    #[must_use]
    pub fn taking(mut self, takes: bool) -> Self {
        self.takes = takes;
        self
    }

    /// Copies a part of a payload that is still queued; `None` when that takes more parts than one call has. Apart, for the
    /// sake of the program's stack.
    #[inline(never)]
    fn take(&mut self, queued: &Deferred, frag: &Frag) -> Option<Result<(), Fault>> {
        let before = (self.at, self.off, self.remaining);
        let mut parts = ArrayVec::<iovec, MAX_PARTS>::new();
        let mut whole = true;
        let writable = self.walk(frag.len as usize, |p, _, n| {
            // The kernel would have thrown the frame away when it finds that it cannot write.
            copy::make_writable(p, n)?;
            let part = iovec {
                iov_base: p.cast(),
                iov_len: n,
            };
            whole &= parts.try_push(part).is_ok();
            Ok(())
        });
        let taken = if whole {
            // SAFETY: what the program gave for writing.
            writable
                .and_then(|()| unsafe { queued.read(frag.off as usize, frag.len as usize, &parts) })
        } else {
            Err(Fault)
        };
        if taken.is_err() {
            (self.at, self.off, self.remaining) = before;
        }
        whole.then_some(taken)
    }

    /// Calls `f` with (program address, offset from here, length) for the next `len` bytes; the cursor stays when it fails.
    fn walk(
        &mut self,
        len: usize,
        mut f: impl FnMut(*mut u8, usize, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        assert!(len <= self.remaining, "engine asked for more than there is");
        let (mut at, mut off, mut done) = (self.at, self.off, 0);
        while done < len {
            let e = &self.iov[at];
            let n = (e.iov_len - off).min(len - done);
            if n > 0 {
                f(e.iov_base.cast::<u8>().wrapping_add(off), done, n)?;
            }
            done += n;
            off += n;
            if off == e.iov_len && done < len {
                at += 1;
                off = 0;
            }
        }
        (self.at, self.off) = (at, off);
        self.remaining -= len;
        Ok(())
    }

    /// Moves to the first entry that has a byte left.
    fn settle(&mut self) {
        while self.at < self.iov.len() && self.off == self.iov[self.at].iov_len {
            if self.at + 1 == self.iov.len() {
                break;
            }
            self.at += 1;
            self.off = 0;
        }
    }
}

/// Pages of the program's, referenced for MSG_ZEROCOPY.
struct ProgramPages {
    base: *const u8,
    len: usize,
}

// SAFETY: an address that user space never follows; the kernel checks it.
unsafe impl Send for ProgramPages {}
// SAFETY: as above.
unsafe impl Sync for ProgramPages {}

impl Region for ProgramPages {
    fn base(&self) -> *const u8 {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn kind(&self) -> RegionKind {
        RegionKind::User
    }

    fn elsewhere(&self, base: *const u8, len: usize) -> Option<MemRef> {
        Some(Arc::new(ProgramPages { base, len }))
    }
}

impl IovIter for ProgramIov<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn copy_in(&mut self, mem: &MemRef, off: u32, len: u32) -> Result<(), Fault> {
        assert_eq!(mem.kind(), RegionKind::Arena);
        assert!(off as usize + len as usize <= mem.len());
        let dst = mem.base().cast_mut().wrapping_add(off as usize);
        self.walk(len as usize, |p, done, n| {
            // SAFETY: inside an arena slab, in the part that the engine is filling.
            unsafe { copy::from_program(dst.wrapping_add(done), p, n) }
        })
    }

    fn copy_out(&mut self, frag: &Frag) -> Result<(), Fault> {
        if self.takes
            && let Some(queued) = Deferred::of(frag)
            && let Some(taken) = self.take(queued, frag)
        {
            return taken;
        }
        debug_assert!(frag.off as usize + frag.len as usize <= frag.mem.len());
        let src = frag.ptr();
        self.walk(frag.len as usize, |p, done, n| {
            // SAFETY: the fragment is inside a region that lives as long as it; the kernel filled it.
            unsafe { copy::to_program(p, src.wrapping_add(done), n) }
        })
    }

    fn copy_out_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.walk(bytes.len(), |p, done, n| {
            // SAFETY: inside a live slice.
            unsafe { copy::to_program(p, bytes[done..].as_ptr(), n) }
        })
    }

    fn pin(&mut self, max: u32) -> Result<Frag, Fault> {
        self.settle();
        let Some(e) = self.iov.get(self.at) else {
            return Err(Fault);
        };
        let base = e.iov_base.cast::<u8>().wrapping_add(self.off);
        let len = copy::touch_pages(base, (e.iov_len - self.off).min(max as usize))?;
        self.off += len;
        self.remaining -= len;
        Ok(Frag {
            mem: Arc::new(ProgramPages { base, len }),
            off: 0,
            len: len as u32,
        })
    }

    fn pin_offset(&mut self, mem: &MemRef, max: u32) -> Result<Frag, Fault> {
        self.settle();
        let Some(e) = self.iov.get(self.at) else {
            return Err(Fault);
        };
        let at = (e.iov_base as usize).wrapping_add(self.off);
        let there = mem.len().checked_sub(at).filter(|n| *n > 0).ok_or(Fault)?;
        let len = (e.iov_len - self.off).min(max as usize).min(there);
        self.off += len;
        self.remaining -= len;
        Ok(Frag {
            mem: mem.clone(),
            off: u32::try_from(at).map_err(|_| Fault)?,
            len: len as u32,
        })
    }

    fn advance(&mut self, n: usize) {
        let n = n.min(self.remaining);
        let walked = self.walk(n, |_, _, _| Ok(()));
        debug_assert!(walked.is_ok());
    }

    fn revert(&mut self, mut n: usize) {
        self.remaining += n;
        while n > self.off {
            n -= self.off;
            self.at -= 1;
            self.off = self.iov[self.at].iov_len;
        }
        self.off -= n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Arenas;
    use sidewire_engine::memory::Memory;

    fn vector(parts: &mut [Vec<u8>]) -> Vec<iovec> {
        parts
            .iter_mut()
            .map(|p| iovec {
                iov_base: p.as_mut_ptr().cast(),
                iov_len: p.len(),
            })
            .collect()
    }

    #[test]
    fn in_and_out_across_parts() {
        let mut parts = [b"ab".to_vec(), vec![], b"cdef".to_vec(), b"g".to_vec()];
        let v = vector(&mut parts);
        let mut a = Arenas::new();
        let mem = a.alloc_page_frag().unwrap();
        let mut it = ProgramIov::new(&v);
        it.copy_in(&mem, 0, 3).unwrap();
        assert_eq!(it.remaining(), 4);
        it.revert(2);
        it.copy_in(&mem, 3, 2).unwrap();
        it.copy_in(&mem, 5, 4).unwrap();
        assert_eq!(it.remaining(), 0);
        let mut got = [0; 9];
        let frag = Frag {
            mem,
            off: 0,
            len: 9,
        };
        a.read(&frag, &mut got).unwrap();
        assert_eq!(&got, b"abcbcdefg");

        let mut out = [vec![0; 1], vec![0; 5], vec![0; 3]];
        let v = vector(&mut out);
        let mut it = ProgramIov::new(&v);
        it.copy_out(&frag).unwrap();
        assert_eq!(out.concat(), b"abcbcdefg");
    }

    #[test]
    fn a_fault_leaves_the_cursor() {
        let mut good = *b"good";
        let v = [
            iovec {
                iov_base: good.as_mut_ptr().cast(),
                iov_len: 4,
            },
            iovec {
                iov_base: 16 as *mut _,
                iov_len: 4,
            },
        ];
        let mut a = Arenas::new();
        let mem = a.alloc_page_frag().unwrap();
        let mut it = ProgramIov::new(&v);
        assert_eq!(it.copy_in(&mem, 0, 6), Err(Fault));
        assert_eq!(it.remaining(), 8);
        assert_eq!(it.copy_in(&mem, 0, 4), Ok(()));
        assert_eq!(it.pin(4).err(), Some(Fault));
        assert_eq!(it.remaining(), 4);
    }

    #[test]
    fn a_pin_ends_before_a_bad_page() {
        let at = crate::syscall::map_anonymous(3 * 4096).unwrap();
        let hole = at.wrapping_add(4096);
        // SAFETY: our own fresh mapping.
        unsafe {
            syscalls::syscall!(syscalls::Sysno::mprotect, hole, 4096, libc::PROT_NONE).unwrap();
        }
        let v = [iovec {
            iov_base: at.cast(),
            iov_len: 3 * 4096,
        }];
        let mut it = ProgramIov::new(&v);
        assert_eq!(it.pin(3 * 4096).unwrap().len, 4096);
        assert_eq!(it.remaining(), 2 * 4096);
        assert_eq!(it.pin(1).err(), Some(Fault));
    }

    #[test]
    fn vectors_are_checked_as_the_kernel_does() {
        let one = iovec {
            iov_base: core::ptr::null_mut(),
            iov_len: 1 << 30,
        };
        let many = vec![one; UIO_MAXIOV];
        // SAFETY: a live vector, and then pointers that nobody follows unchecked.
        unsafe {
            let v = Iovecs::import(many.as_ptr(), UIO_MAXIOV, Error::Inval).unwrap();
            assert_eq!(v.iter().remaining(), MAX_RW_COUNT);
            let over = Iovecs::import(many.as_ptr(), UIO_MAXIOV + 1, Error::MsgSize);
            assert_eq!(over.err(), Some(Error::MsgSize));
            let bad = Iovecs::import(core::ptr::dangling(), 1, Error::Inval);
            assert_eq!(bad.err(), Some(Error::Fault));
            let bad = Iovecs::import(core::ptr::dangling(), 100, Error::Inval);
            assert_eq!(bad.err(), Some(Error::Fault));
            let negative = iovec {
                iov_len: usize::MAX,
                ..one
            };
            let bad = Iovecs::import(&raw const negative, 1, Error::Inval);
            assert_eq!(bad.err(), Some(Error::Inval));
        }
    }

    #[test]
    fn pinning_and_reverting_walk_part_by_part() {
        let mut parts = [b"abc".to_vec(), b"de".to_vec()];
        let v = vector(&mut parts);
        let mut it = ProgramIov::new(&v);
        assert_eq!(it.pin(2).unwrap().len, 2);
        assert_eq!(it.pin(9).unwrap().len, 1);
        assert_eq!(it.pin(9).unwrap().len, 2);
        assert_eq!(it.remaining(), 0);
        it.revert(4);
        let f = it.pin(1).unwrap();
        assert_eq!(f.ptr(), parts[0][1..].as_ptr());
    }
}
