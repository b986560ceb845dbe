//! What a descriptor refers to, mapped for reading until the last fragment of it has gone: device memory, and pages of files
//! that are sent by reference.

use core::ffi::c_int;

use sidewire_engine::memory::{Region, RegionKind};
use syscalls::{Errno, Sysno, syscall};

/// A mapping. Nobody but the kernel follows its address, or who checks (`copy::from_program`): what is behind it may be
/// truncated at any time.
pub(crate) struct Mapping {
    base: *mut u8,
    len: usize,
    kind: RegionKind,
}

// SAFETY: an address that only the kernel follows, or who checks.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing is written through it.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset`, a multiple of the page size.
    ///
    /// # Errors
    /// As mmap(2): ENODEV for what cannot be mapped.
    pub(crate) fn new(fd: c_int, offset: u64, len: usize, kind: RegionKind) -> Result<Self, Errno> {
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe {
            syscall!(
                Sysno::mmap,
                0,
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                fd,
                offset
            )
        }?;
        Ok(Self {
            base: base as *mut u8,
            len,
            kind,
        })
    }
}

impl Region for Mapping {
    fn base(&self) -> *const u8 {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn kind(&self) -> RegionKind {
        self.kind
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nobody refers to it any more.
        let _ = unsafe { syscall!(Sysno::munmap, self.base, self.len) };
    }
}
