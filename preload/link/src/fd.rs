//! File descriptors of our own: close-on-exec, at high numbers, closed without libc. Those of [`crate::reserve`] alone
//! stay open across fork and exec.

use crate::Errno;
use crate::raw;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Highest number from which a descriptor of ours is looked for, whatever RLIMIT_NOFILE says: the kernel's
/// descriptor table grows to the highest number in use (8 bytes each).
const HIGH_FD_CEILING: u64 = 65536;

/// At most this many numbers below the limit are kept for ourselves.
const HIGH_FD_RESERVE: u64 = 4096;

/// One bit for each number below [`HIGH_FD_CEILING`] that [`move_high`] gave out.
static INTERNAL: [AtomicU64; HIGH_FD_CEILING as usize / 64] =
    [const { AtomicU64::new(0) }; HIGH_FD_CEILING as usize / 64];

/// The numbers of [`inherited`]: the first in the upper half, how many in the lower.
static INHERITED: AtomicU64 = AtomicU64::new(0);

fn internal_word(fd: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd).ok()?;
    Some((INTERNAL.get(fd / 64)?, 1 << (fd % 64)))
}

/// True for a descriptor that [`move_high`] gave out and that is still open, and for those of [`inherited`]: the
/// program's close and dup2 must not reach it. One load; async-signal-safe.
#[inline]
pub fn is_internal(fd: RawFd) -> bool {
    internal_word(fd).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// Closes every descriptor that [`move_high`] gave out, behind the back of its owner: for a forked child, to which they
/// are its parent's. Async-signal-safe.
pub fn close_internal() {
    let inherited = inherited();
    for (i, word) in INTERNAL.iter().enumerate() {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let fd = (i * 64) as RawFd + bits.trailing_zeros() as RawFd;
            if inherited.contains(&fd) {
                mark(fd);
            } else {
                raw::close(fd);
            }
            bits &= bits - 1;
        }
    }
}

/// Descriptors of our own that children and executed programs get as well; none as a rule. One load;
/// async-signal-safe.
#[inline]
pub fn inherited() -> Range<RawFd> {
    let both = INHERITED.load(Ordering::Relaxed);
    let first = (both >> 32) as RawFd;
    first..first + both as u32 as RawFd
}

/// Takes open descriptors, none of which is close-on-exec, for those of [`inherited`].
pub(crate) fn inherit(range: Range<RawFd>) {
    let both = (range.start as u64) << 32 | range.len() as u64;
    INHERITED.store(both, Ordering::Relaxed);
    range.for_each(mark);
}

/// An open file that the program did not open. Dropping it closes it by a raw system call.
#[derive(Debug)]
pub struct Fd(RawFd);

impl Fd {
    /// Takes ownership of a descriptor.
    pub fn from_raw(fd: RawFd) -> Fd {
        Fd(fd)
    }

    /// Gives the descriptor away: the caller closes it.
    pub fn into_raw(self) -> RawFd {
        let fd = self.0;
        std::mem::forget(self);
        fd
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if let Some((word, bit)) = internal_word(self.0) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
        raw::close(self.0);
    }
}

/// The number from which descriptors of ours are looked for under a soft RLIMIT_NOFILE of `limit`: the upper
/// quarter, at most [`HIGH_FD_RESERVE`] numbers below the limit or [`HIGH_FD_CEILING`], whichever is lower.
fn high_fd_base(limit: u64) -> RawFd {
    let top = limit.min(HIGH_FD_CEILING);
    (top - (top / 4).min(HIGH_FD_RESERVE)) as RawFd
}

/// The number from which descriptors of ours are looked for in this process.
pub fn high_base() -> RawFd {
    high_fd_base(raw::nofile_limit())
}

/// Moves a descriptor to a high number with close-on-exec, so that the program finds its own numbers where the
/// kernel's rule "lowest free" puts them. With a full upper range lower ranges are tried; when nothing above 2 is
/// left the descriptor stays where it is, close-on-exec all the same.
///
/// # Errors
/// EBADF for a descriptor that is not open.
pub fn move_high(fd: Fd) -> Result<Fd, Errno> {
    match duplicate_high(fd.as_raw_fd()) {
        Err(Errno::EMFILE | Errno::EINVAL) => {
            raw::set_cloexec(fd.as_raw_fd())?;
            mark(fd.as_raw_fd());
            Ok(fd)
        }
        moved => moved,
    }
}

/// A duplicate of a descriptor at a high number, close-on-exec.
///
/// # Errors
/// EBADF; EMFILE or EINVAL when nothing above 2 is left.
pub fn duplicate_high(fd: RawFd) -> Result<Fd, Errno> {
    let mut base = high_base();
    loop {
        match raw::dup_cloexec(fd, base) {
            Ok(high) => {
                mark(high.as_raw_fd());
                return Ok(high);
            }
            Err(Errno::EMFILE | Errno::EINVAL) if base > 3 => base /= 2,
            Err(e) => return Err(e),
        }
    }
}

fn mark(fd: RawFd) {
    if let Some((word, bit)) = internal_word(fd) {
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_keeps_room_below_small_limits() {
        assert_eq!(high_fd_base(64), 48);
        assert_eq!(high_fd_base(1024), 768);
        assert_eq!(high_fd_base(20_000), 20_000 - 4096);
        assert_eq!(high_fd_base(1 << 30), 65536 - 4096);
    }
}
