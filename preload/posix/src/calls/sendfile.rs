//! `sendfile` to a socket of ours: pages of files are referenced ([`super::file_pages`]). Of what cannot be mapped, or is not
//! worth it, what the page cache holds goes straight into the send arena, and the rest through a buffer, so that nobody waits
//! for a disk with the stack locked.

use core::cell::Cell;
use core::ffi::c_int;

use libc::{off_t, size_t, ssize_t};
use sidewire_engine::memory::{Fault, IovIter, MemRef, RegionKind};
use syscalls::{Errno, Sysno, syscall};

use super::file_pages::{WORTH_MAPPING, send_pages};
use super::recv::recv_iter;
use super::send::{SendArgs, send_iter};
use super::{MOVED, answer};
use crate::file::FileRef;
use crate::iov::{Iovecs, MAX_RW_COUNT};
use crate::{copy, fdtable, real};

/// preadv2: only what is there without waiting.
const RWF_NOWAIT: c_int = 8;
/// Bytes that are read at a time: less than what makes an allocator map fresh pages.
pub(super) const CHUNK: usize = 64 * 1024;

/// `sendfile`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn sendfile(out: c_int, input: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    match (fdtable::get(out), fdtable::get(input)) {
        // SAFETY: the caller's arguments.
        (None, None) => unsafe { real::sendfile(out, input, offset, count) },
        (Some(to), None) => {
            // SAFETY: the caller's arguments.
            match unsafe { from_file(&to, input, offset, count.min(MAX_RW_COUNT)) } {
                // SAFETY: the same.
                Err(MOVED) => unsafe { real::sendfile(out, input, offset, count) },
                sent => answer(sent),
            }
        }
        // A socket cannot be read by position (Linux: EINVAL).
        (_, Some(_)) => answer(Err(libc::EINVAL)),
    }
}

/// Reads a chunk at a position, or from where the descriptor stands.
pub(super) fn read_at(fd: c_int, pos: Option<i64>, buf: &mut [u8]) -> Result<usize, c_int> {
    // SAFETY: a live slice.
    unsafe {
        match pos {
            Some(pos) => syscall!(Sysno::pread64, fd, buf.as_mut_ptr(), buf.len(), pos),
            None => syscall!(Sysno::read, fd, buf.as_mut_ptr(), buf.len()),
        }
    }
    .map_err(Errno::into_raw)
}

unsafe fn from_file(
    to: &FileRef,
    input: c_int,
    offset: *mut off_t,
    count: usize,
) -> Result<usize, c_int> {
    let mut pos = if offset.is_null() {
        None
    } else {
        // SAFETY: any bytes make a number.
        Some(unsafe { copy::read_value(offset) }.map_err(|_| libc::EFAULT)?)
    };
    if pos.is_some_and(|p| p < 0) {
        return Err(libc::EINVAL);
    }
    // SAFETY: no pointers.
    let seekable = unsafe { syscall!(Sysno::lseek, input, 0, libc::SEEK_CUR) }.is_ok();
    if pos.is_some() && !seekable {
        return Err(libc::ESPIPE);
    }
    let regular = seekable.then(|| regular_size(input)).flatten();
    let mut buf = Vec::new();
    let mut done = 0;
    let mut result = Ok(());
    while done < count {
        if let Some(size) = regular {
            match from_page_cache(to, input, pos, size, count - done) {
                Ok((sent, cold)) => {
                    done += sent;
                    match &mut pos {
                        Some(p) => *p += sent as i64,
                        None => skip(input, sent as i64),
                    }
                    if !cold {
                        // All, or as much as there was room for.
                        break;
                    }
                    // One chunk by way of the buffer, which brings more of the file in.
                }
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
        }
        buf.resize(CHUNK.min(count), 0);
        let want = (count - done).min(CHUNK);
        let got = match read_at(input, pos, &mut buf[..want]) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => {
                result = Err(e);
                break;
            }
        };
        let more = done + got < count;
        let flags = if more {
            sidewire_uapi::socket::MSG_MORE
        } else {
            0
        };
        let mut sent = 0;
        while sent < got {
            let iov = Iovecs::single(buf[sent..].as_ptr(), got - sent);
            let args = SendArgs {
                flags,
                ..SendArgs::default()
            };
            match send_iter(to, args, || iov.iter()) {
                Ok(n) => sent += n,
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
            if to.nonblock.load(core::sync::atomic::Ordering::Relaxed) {
                // A short count means that there was no more room.
                break;
            }
        }
        done += sent;
        if let Some(p) = &mut pos {
            *p += sent as i64;
        } else if sent < got && seekable {
            // What was read and not sent is given back.
            skip(input, sent as i64 - got as i64);
        }
        if sent < got || result.is_err() {
            break;
        }
    }
    if let Some(p) = pos {
        // SAFETY: the program gave the pointer for writing.
        unsafe { copy::write_value(offset, &p) }.map_err(|_| libc::EFAULT)?;
    }
    match result {
        Err(e) if done == 0 => Err(e),
        _ => Ok(done),
    }
}

/// Moves a descriptor's position.
fn skip(fd: c_int, by: i64) {
    // SAFETY: no pointers.
    let _ = unsafe { syscall!(Sysno::lseek, fd, by, libc::SEEK_CUR) };
}

/// Size of a regular file; `None` for anything else.
fn regular_size(fd: c_int) -> Option<i64> {
    // SAFETY: the kernel fills a structure of integers.
    unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        let regular = syscall!(Sysno::fstat, fd, &raw mut st).is_ok()
            && st.st_mode & libc::S_IFMT == libc::S_IFREG;
        // Files of proc and its like say 0 and are not empty.
        (regular && st.st_size > 0).then_some(st.st_size)
    }
}

/// Sends from a file: how much, and whether the next bytes have to be read into a buffer.
fn from_page_cache(
    to: &FileRef,
    input: c_int,
    pos: Option<i64>,
    size: i64,
    count: usize,
) -> Result<(usize, bool), c_int> {
    let from = match pos {
        Some(pos) => pos,
        // SAFETY: no pointers.
        None => unsafe { syscall!(Sysno::lseek, input, 0, libc::SEEK_CUR) }
            .map_err(Errno::into_raw)? as i64,
    };
    let left = usize::try_from(size - from).unwrap_or(0).min(count);
    if left == 0 {
        return Ok((0, false));
    }
    if left >= WORTH_MAPPING {
        let (sent, rest) = send_pages(to, input, from, left)?;
        if sent > 0 {
            return Ok((sent, rest));
        }
    }
    cached(to, input, from, left)
}

/// Copies what the page cache holds: how much, and whether it ended at a page that is not there.
fn cached(to: &FileRef, input: c_int, pos: i64, left: usize) -> Result<(usize, bool), c_int> {
    let cold = Cell::new(false);
    let sent = send_iter(to, SendArgs::default(), || CachedFile {
        fd: input,
        pos,
        remaining: left,
        cold: &cold,
    });
    match sent {
        Ok(n) => Ok((n, cold.get())),
        Err(libc::EFAULT) if cold.get() => Ok((0, true)),
        Err(e) => Err(e),
    }
}

/// A cursor over a file, as far as the page cache holds it: anything else is a fault.
struct CachedFile<'a> {
    fd: c_int,
    pos: i64,
    remaining: usize,
    /// Set at the first page that is not there.
    cold: &'a Cell<bool>,
}

impl IovIter for CachedFile<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn copy_in(&mut self, mem: &MemRef, off: u32, len: u32) -> Result<(), Fault> {
        assert_eq!(mem.kind(), RegionKind::Arena);
        assert!(off as usize + len as usize <= mem.len());
        let len = len as usize;
        let mut done = 0;
        while done < len {
            let iov = libc::iovec {
                iov_base: mem
                    .base()
                    .cast_mut()
                    .wrapping_add(off as usize + done)
                    .cast(),
                iov_len: len - done,
            };
            let at = self.pos + done as i64;
            // SAFETY: the target is inside an arena slab, in the part that the engine is filling.
            let got = unsafe {
                syscall!(
                    Sysno::preadv2,
                    self.fd,
                    &raw const iov,
                    1,
                    at,
                    at >> 32,
                    RWF_NOWAIT
                )
            };
            match got {
                Ok(n) if n > 0 => done += n,
                _ => {
                    self.cold.set(true);
                    return Err(Fault);
                }
            }
        }
        self.advance(len);
        Ok(())
    }

    fn advance(&mut self, n: usize) {
        self.pos += n as i64;
        self.remaining -= n;
    }

    fn revert(&mut self, n: usize) {
        self.pos -= n as i64;
        self.remaining += n;
    }
}

/// Receives into a buffer of our own.
pub(super) fn recv_into(from: &FileRef, buf: &mut [u8], flags: c_int) -> Result<usize, c_int> {
    let iov = Iovecs::single(buf.as_ptr(), buf.len());
    recv_iter(from, flags, || iov.iter()).map(|(n, _)| n)
}
