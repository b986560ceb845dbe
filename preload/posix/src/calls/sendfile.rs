//! `sendfile` to a socket of ours: pages of files are referenced ([`super::file_pages`]). Of what cannot be mapped, or is not
//! worth it, what the page cache holds goes straight into the send arena, and the rest through a buffer, so that nobody waits
//! for a disk with the stack locked.

use core::cell::Cell;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

use libc::{off_t, size_t, ssize_t};
use sidewire_engine::memory::{Fault, IovIter, MemRef, RegionKind};
use sidewire_link::fd::Fd;
use std::os::fd::AsRawFd;
use syscalls::{Errno, Sysno, syscall};

use super::file_pages::{WORTH_MAPPING, send_pages};
use super::pieces::{Bytes, PIECE, Pieces, piece_from};
use super::splice::{PipeEnd, to_pipe};
use super::{MOVED, answer};
use crate::file::FileRef;
use crate::iov::{Iovecs, MAX_RW_COUNT};
use crate::{copy, explain, fdtable, real, signals};

/// preadv2: only what is there without waiting.
const RWF_NOWAIT: c_int = 8;

/// `sendfile`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn sendfile(out: c_int, input: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    let from = fdtable::get(input);
    let Some(to) = fdtable::get(out).filter(|_| from.is_none()) else {
        if let Some(from) = from.filter(|_| offset.is_null() && count > 0)
            && let Some(pipe) = PipeEnd::of(out, libc::O_RDONLY)
        {
            // Linux 6.16 `splice_file_to_pipe`.
            let most = count.min(MAX_RW_COUNT);
            match signals::call_whole(&from, || to_pipe(&from, input, &pipe, most, true)) {
                Err(MOVED) => {}
                done => return answer(done),
            }
        }
        // A socket can be read neither by position nor by splicing it to another: the kernel says so of ours, too.
        // SAFETY: the caller's arguments.
        return unsafe { real::sendfile(out, input, offset, count) };
    };
    // SAFETY: the caller's arguments.
    match unsafe { from_file(&to, out, input, offset, count) } {
        // SAFETY: the same.
        Err(MOVED) => unsafe { real::sendfile(out, input, offset, count) },
        sent => answer(sent),
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
    out: c_int,
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
    let regular = regular_size(input);
    if !plainly_allowed(to, regular, pos, count)
        && let Err(e) = allowed(out, input, pos, count)
    {
        explain::refused(to.record(), "sendfile", 0, e);
        if let Some(p) = pos {
            // SAFETY: the program gave the pointer for writing.
            unsafe { copy::write_value(offset, &p) }.map_err(|_| libc::EFAULT)?;
        }
        return Err(e);
    }
    let count = count.min(MAX_RW_COUNT);
    let mut pieces = Pieces::of_sendfile(to);
    let mut in_syn = pieces.connects;
    let mut buf = Vec::new();
    let mut result = Ok(());
    while pieces.done < count {
        // A SYN takes what can be read at once, and there is no second one.
        if let Some(size) = regular
            && !core::mem::take(&mut in_syn)
        {
            let before = pieces.done;
            let cached = from_page_cache(&mut pieces, input, pos, size, count - before);
            let sent = pieces.done - before;
            match &mut pos {
                Some(p) => *p += sent as i64,
                None => skip(input, sent as i64),
            }
            match cached {
                // One piece by way of the buffer, which brings more of the file in.
                Ok(Cache::Cold) => {}
                // All, or as much as there was room for.
                Ok(Cache::Sent) => {
                    if sent == 0 {
                        pieces.end_of_file();
                    }
                    break;
                }
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
        }
        // What is no page cache's comes by a pipe's fill, wherever it begins (Linux `copy_splice_read`).
        let piece = match (regular, pos) {
            (Some(_), Some(pos)) => piece_from(pos),
            _ => PIECE,
        };
        let want = (count - pieces.done).min(piece);
        let got = match regular {
            Some(_) => {
                buf.resize(want, 0);
                read_at(input, pos, &mut buf).map(|got| (got, got))
            }
            None => spliced(input, pos, want, &mut buf),
        };
        let (got, moves) = match got {
            Ok((0, _)) => {
                pieces.end_of_file();
                break;
            }
            Ok(got) => got,
            Err(e) => {
                result = Err(e);
                break;
            }
        };
        let iov = Iovecs::single(buf.as_ptr(), got);
        let bytes = |sent| {
            let mut at = iov.iter();
            at.advance(sent);
            at
        };
        let more = got < count - pieces.done;
        let sent = pieces
            .send(got, more, Bytes::Copied, bytes)
            .unwrap_or_else(|e| {
                result = Err(e);
                0
            });
        match &mut pos {
            Some(p) => *p += sent.min(moves) as i64,
            // What was read and not sent is given back.
            None if sent < moves => skip(input, sent as i64 - moves as i64),
            None => {}
        }
        if sent < got {
            break;
        }
    }
    if let Some(p) = pos {
        // SAFETY: the program gave the pointer for writing.
        unsafe { copy::write_value(offset, &p) }.map_err(|_| libc::EFAULT)?;
    }
    match result {
        Err(e) if pieces.done == 0 => Err(e),
        _ if pieces.go_on_there(count) => {
            // SAFETY: the caller's arguments.
            let rest = unsafe { real::sendfile(out, input, offset, count - pieces.done) };
            Ok(pieces.done + usize::try_from(rest).unwrap_or(0))
        }
        _ => Ok(pieces.done),
    }
}

/// True where [`allowed`] need not be asked: a file that can be read, from a position in it.
fn plainly_allowed(to: &FileRef, regular: Option<i64>, pos: Option<i64>, count: usize) -> bool {
    regular.is_some_and(|size| pos.is_none_or(|pos| (0..=size).contains(&pos)))
        && count <= MAX_RW_COUNT
        && !to.append.load(Ordering::Relaxed)
}

/// What Linux's `do_sendfile` says of descriptors, position and length, before it moves anything.
fn allowed(out: c_int, input: c_int, pos: Option<i64>, count: usize) -> Result<(), c_int> {
    let mut at = pos.unwrap_or(0);
    let offset = match pos {
        Some(_) => &raw mut at,
        None => core::ptr::null_mut(),
    };
    let ends = i64::try_from(count).ok().and_then(|n| n.checked_add(at));
    // SAFETY: null or a live number; no bytes are asked for.
    let none = unsafe { syscall!(Sysno::sendfile, out, input, offset, 0) };
    match none.map_err(Errno::into_raw) {
        // Before the file's largest size.
        Ok(_) | Err(libc::EOVERFLOW) if ends.is_none() => Err(libc::EINVAL),
        none => none.map(drop),
    }
}

/// The next bytes of what is no regular file with a size, by way of a pipe: what cannot be spliced cannot be sent. How many, and
/// by how many the position moves: a device may have none.
fn spliced(
    input: c_int,
    pos: Option<i64>,
    len: usize,
    buf: &mut Vec<u8>,
) -> Result<(usize, usize), c_int> {
    let [reader, writer] = pipe()?;
    let mut at = pos.unwrap_or(0);
    let offset = match pos {
        Some(_) => &raw mut at,
        None => core::ptr::null_mut(),
    };
    let writer = writer.as_raw_fd();
    // SAFETY: null or a live number.
    let got = unsafe { syscall!(Sysno::splice, input, offset, writer, 0, len, 0) }
        .map_err(Errno::into_raw)?;
    buf.resize(got, 0);
    let mut done = 0;
    while done < got {
        match read_at(reader.as_raw_fd(), None, &mut buf[done..])? {
            0 => break,
            n => done += n,
        }
    }
    let moves = pos.map_or(done, |pos| (at - pos) as usize);
    Ok((done, moves.min(done)))
}

/// A pipe of ours: its reader, its writer.
pub(super) fn pipe() -> Result<[Fd; 2], c_int> {
    let mut ends = [0 as c_int; 2];
    // SAFETY: the kernel writes two descriptors to a live local.
    unsafe { syscall!(Sysno::pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC) }
        .map_err(Errno::into_raw)?;
    Ok(ends.map(Fd::from_raw))
}

/// Moves a descriptor's position.
fn skip(fd: c_int, by: i64) {
    // SAFETY: no pointers.
    let _ = unsafe { syscall!(Sysno::lseek, fd, by, libc::SEEK_CUR) };
}

/// Size of a regular file; `None` for anything else, where it cannot be read, and where reads have to be aligned (O_DIRECT).
fn regular_size(fd: c_int) -> Option<i64> {
    // SAFETY: no pointers.
    let flags = unsafe { syscall!(Sysno::fcntl, fd, libc::F_GETFL) }.ok()? as c_int;
    let readable = matches!(flags & libc::O_ACCMODE, libc::O_RDONLY | libc::O_RDWR);
    if !readable || flags & (libc::O_DIRECT | libc::O_PATH) != 0 {
        return None;
    }
    // SAFETY: the kernel fills a structure of integers.
    unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        let regular = syscall!(Sysno::fstat, fd, &raw mut st).is_ok()
            && st.st_mode & libc::S_IFMT == libc::S_IFREG;
        // Files of proc and its like say 0 and are not empty.
        (regular && st.st_size > 0).then_some(st.st_size)
    }
}

/// How far sending from the page cache went.
enum Cache {
    /// To the end, or as far as there was room.
    Sent,
    /// To bytes that have to be read first.
    Cold,
}

fn from_page_cache(
    pieces: &mut Pieces<'_>,
    input: c_int,
    pos: Option<i64>,
    size: i64,
    count: usize,
) -> Result<Cache, c_int> {
    let from = match pos {
        Some(pos) => pos,
        // SAFETY: no pointers.
        None => unsafe { syscall!(Sysno::lseek, input, 0, libc::SEEK_CUR) }
            .map_err(Errno::into_raw)? as i64,
    };
    let left = usize::try_from(size - from).unwrap_or(0).min(count);
    if left >= WORTH_MAPPING {
        let (sent, rest) = send_pages(pieces, input, from, left)?;
        if sent > 0 {
            return Ok(if rest { Cache::Cold } else { Cache::Sent });
        }
    }
    cached(pieces, input, from, left)
}

/// Copies what the page cache holds.
fn cached(pieces: &mut Pieces<'_>, input: c_int, pos: i64, left: usize) -> Result<Cache, c_int> {
    let cold = Cell::new(false);
    let mut done = 0;
    while done < left {
        let at = pos + done as i64;
        let piece = pieces.piece_from(at).min(left - done);
        let bytes = |sent| CachedFile {
            fd: input,
            pos: at + sent as i64,
            remaining: piece - sent,
            cold: &cold,
        };
        let sent = match pieces.send(piece, piece < left - done, Bytes::Copied, bytes) {
            Err(libc::EFAULT) if cold.get() => return Ok(Cache::Cold),
            sent => sent?,
        };
        done += sent;
        if sent < piece {
            return Ok(if cold.get() { Cache::Cold } else { Cache::Sent });
        }
    }
    Ok(Cache::Sent)
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
