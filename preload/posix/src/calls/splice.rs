//! `splice` with a socket of ours at one end and a pipe at the other: by way of a buffer.

use core::ffi::{c_int, c_uint};
use core::sync::atomic::Ordering;

use libc::{size_t, ssize_t};
use sidewire_engine::memory::{Fault, IovIter, MemRef, RegionKind};
use sidewire_link::fd::Fd;
use sidewire_uapi::socket::{MSG_DONTWAIT, MSG_MORE, MSG_PEEK, MSG_TRUNC};
use std::os::fd::AsRawFd;
use syscalls::{Errno, Sysno, syscall};

use super::send::{SendArgs, send_iter};
use super::sendfile::{CHUNK, read_at, recv_into};
use super::{MOVED, answer};
use crate::file::FileRef;
use crate::iov::MAX_RW_COUNT;
use crate::{fdtable, real};

/// `splice`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn splice(
    input: c_int,
    off_in: *mut i64,
    out: c_int,
    off_out: *mut i64,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    let (from, to) = (fdtable::get(input), fdtable::get(out));
    if from.is_none() && to.is_none() {
        // SAFETY: the caller's arguments.
        return unsafe { real::splice(input, off_in, out, off_out, len, flags) };
    }
    let len = len.min(MAX_RW_COUNT);
    if len == 0 {
        return 0;
    }
    let dont_wait = if flags & libc::SPLICE_F_NONBLOCK != 0 {
        MSG_DONTWAIT
    } else {
        0
    };
    let done = match (from, to) {
        (Some(_), Some(_)) => Err(libc::EINVAL),
        (Some(from), None) if is_pipe(out) => {
            if off_in.is_null() && off_out.is_null() {
                to_pipe(&from, input, out, len, dont_wait)
            } else {
                Err(libc::ESPIPE)
            }
        }
        (None, Some(to)) if is_pipe(input) => {
            if off_in.is_null() && off_out.is_null() {
                let more = if flags & libc::SPLICE_F_MORE != 0 {
                    MSG_MORE
                } else {
                    0
                };
                from_pipe(&to, input, len, dont_wait, more)
            } else {
                Err(libc::ESPIPE)
            }
        }
        _ => Err(libc::EINVAL),
    };
    match done {
        // SAFETY: the caller's arguments.
        Err(MOVED) => unsafe { real::splice(input, off_in, out, off_out, len, flags) },
        done => answer(done),
    }
}

fn is_pipe(fd: c_int) -> bool {
    // SAFETY: the kernel fills a structure of integers.
    unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        syscall!(Sysno::fstat, fd, &raw mut st).is_ok()
            && st.st_mode & libc::S_IFMT == libc::S_IFIFO
    }
}

/// One chunk out of the socket: looked at, written to the pipe, then taken.
fn to_pipe(
    from: &FileRef,
    input: c_int,
    out: c_int,
    len: usize,
    dont_wait: c_int,
) -> Result<usize, c_int> {
    if from.stack().with(|i| i.engine.at_urgent_byte(from.id())) {
        return match from.nonblock.load(Ordering::Relaxed) {
            true => Err(libc::EAGAIN),
            false => Ok(0),
        };
    }
    let mut buf = vec![0u8; CHUNK.min(len)];
    let got = recv_into(from, &mut buf, MSG_PEEK | dont_wait)?;
    if got == 0 {
        return Ok(0);
    }
    let written = write_pipe(out, &buf[..got], dont_wait != 0)?;
    // Somebody else may have read the same bytes meanwhile; two readers of one stream share it in no defined way.
    let flags = MSG_TRUNC | MSG_DONTWAIT;
    if recv_into(from, &mut buf[..written], flags) == Err(MOVED) {
        // SAFETY: a live slice.
        unsafe { real::recv(input, buf.as_mut_ptr().cast(), written, flags) };
    }
    Ok(written)
}

fn write_pipe(fd: c_int, bytes: &[u8], dont_wait: bool) -> Result<usize, c_int> {
    const RWF_NOWAIT: usize = 8;
    let iov = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: a live slice.
    unsafe {
        if dont_wait {
            syscall!(
                Sysno::pwritev2,
                fd,
                &raw const iov,
                1,
                -1isize,
                0,
                RWF_NOWAIT
            )
        } else {
            syscall!(Sysno::write, fd, bytes.as_ptr(), bytes.len())
        }
    }
    .map_err(Errno::into_raw)
}

/// What the pipe holds, a chunk of it: duplicated to a pipe of ours, read from there into the send arena, then taken. What the
/// socket has no room for stays where it is. One copy; the pages themselves cannot be had, since a pipe's can be moved, but
/// not mapped.
fn from_pipe(
    to: &FileRef,
    input: c_int,
    len: usize,
    dont_wait: c_int,
    more: c_int,
) -> Result<usize, c_int> {
    let (held, got) = tee_pipe(input, CHUNK.min(len), dont_wait != 0)?;
    if got == 0 {
        return Ok(0);
    }
    let args = SendArgs {
        flags: more,
        ..SendArgs::default()
    };
    let mut held = Some(held);
    let sent = send_iter(to, args, || HeldInPipe {
        input,
        held: held.take(),
        total: got,
        remaining: got,
    })?;
    // It is there: nobody else reads a pipe that two would have to share.
    take(input, sent);
    Ok(sent)
}

/// A pipe of ours with what `input` holds, at most `len` bytes, and how much that is; 0 at its end.
fn tee_pipe(input: c_int, len: usize, dont_wait: bool) -> Result<(Fd, usize), c_int> {
    let mut ends = [0 as c_int; 2];
    // SAFETY: the kernel writes two descriptors to a live local.
    unsafe { syscall!(Sysno::pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC) }
        .map_err(Errno::into_raw)?;
    let [reader, writer] = ends.map(Fd::from_raw);
    let flags = if dont_wait {
        libc::SPLICE_F_NONBLOCK
    } else {
        0
    };
    // SAFETY: numbers.
    let n = unsafe { syscall!(Sysno::tee, input, writer.as_raw_fd(), len, flags) }
        .map_err(Errno::into_raw)?;
    Ok((reader, n))
}

/// Throws the next `len` bytes of a pipe away, without a copy where there is /dev/null.
fn take(input: c_int, len: usize) {
    let mut left = len;
    if let Ok(null) = open_null() {
        while left > 0 {
            // SAFETY: numbers.
            match unsafe { syscall!(Sysno::splice, input, 0, null.as_raw_fd(), 0, left, 0) } {
                Ok(n @ 1..) => left -= n.min(left),
                _ => break,
            }
        }
    }
    let mut buf = vec![0; left];
    while left > 0
        && let Ok(n @ 1..) = read_at(input, None, &mut buf[..left])
    {
        left -= n;
    }
}

fn open_null() -> Result<Fd, Errno> {
    let (path, flags) = (c"/dev/null", libc::O_WRONLY | libc::O_CLOEXEC);
    // SAFETY: a live string.
    unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) }
        .map(|fd| Fd::from_raw(fd as c_int))
}

/// A cursor over the first `total` bytes of the pipe `input`, by way of a pipe of ours with the same bytes.
struct HeldInPipe {
    input: c_int,
    /// What of it has not been read; `None` when it could not be had.
    held: Option<Fd>,
    total: usize,
    remaining: usize,
}

impl HeldInPipe {
    /// Our pipe anew, from the cursor on.
    fn rewind(&self) -> Option<Fd> {
        let (held, got) = tee_pipe(self.input, self.total, true).ok()?;
        let mut passed = vec![0; self.total - self.remaining];
        let mut done = 0;
        while done < passed.len() {
            match read_at(held.as_raw_fd(), None, &mut passed[done..]) {
                Ok(n @ 1..) => done += n,
                _ => return None,
            }
        }
        (got == self.total).then_some(held)
    }
}

impl IovIter for HeldInPipe {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn copy_in(&mut self, mem: &MemRef, off: u32, len: u32) -> Result<(), Fault> {
        assert_eq!(mem.kind(), RegionKind::Arena);
        assert!(off as usize + len as usize <= mem.len());
        let to = mem.base().cast_mut().wrapping_add(off as usize);
        let fd = self.held.as_ref().ok_or(Fault)?.as_raw_fd();
        let mut done = 0;
        while done < len as usize {
            let at = to.wrapping_add(done);
            // SAFETY: the target is inside an arena slab, in the part that the engine is filling.
            match unsafe { syscall!(Sysno::read, fd, at, len as usize - done) } {
                Ok(n @ 1..) => done += n,
                _ => return Err(Fault),
            }
        }
        self.advance(done);
        Ok(())
    }

    fn advance(&mut self, n: usize) {
        self.remaining -= n;
    }

    fn revert(&mut self, n: usize) {
        self.remaining += n;
        self.held = self.rewind();
    }
}
