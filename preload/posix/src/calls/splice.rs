//! `splice` with a socket of ours at one end and a pipe at the other: by way of a buffer.

use core::ffi::{c_int, c_uint};
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use libc::{size_t, ssize_t};
use sidewire_engine::ioctl::tcp_inq;
use sidewire_engine::memory::{Fault, IovIter, MemRef, RegionKind};
use sidewire_link::fd::Fd;
use sidewire_uapi::socket::{MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC};
use std::os::fd::AsRawFd;
use syscalls::{Errno, Sysno, syscall};

use super::pieces::{Bytes, PIECE, Pieces};
use super::sendfile::{pipe, read_at, recv_into};
use super::{MOVED, answer, errno_of};
use crate::file::FileRef;
use crate::iov::MAX_RW_COUNT;
use crate::stack::Inner;
use crate::{fdtable, real, signals};

/// Every flag that splice knows.
const SPLICE_F_ALL: c_uint =
    libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MORE | libc::SPLICE_F_GIFT;

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
    let allowed = off_in.is_null()
        && off_out.is_null()
        && flags & !SPLICE_F_ALL == 0
        && isize::try_from(len).is_ok();
    let most = len.min(MAX_RW_COUNT);
    let waits = flags & libc::SPLICE_F_NONBLOCK == 0;
    let done = match (fdtable::get(input), fdtable::get(out)) {
        _ if len == 0 || !allowed => Err(MOVED),
        (Some(from), None) if is_pipe(out, libc::O_RDONLY) => {
            to_pipe(&from, input, out, most, waits)
        }
        // A socket to which O_APPEND was set takes none: EINVAL.
        (None, Some(to)) if is_pipe(input, libc::O_WRONLY) && !appends(out) => {
            from_pipe(&to, input, out, most, flags)
        }
        _ => Err(MOVED),
    };
    match done {
        // Also where no bytes of ours can be concerned: it knows what is wrong.
        // SAFETY: the caller's arguments.
        Err(MOVED) => unsafe { real::splice(input, off_in, out, off_out, len, flags) },
        done => answer(done),
    }
}

/// A pipe, and not its end that is open for the `other` direction only.
pub(super) fn is_pipe(fd: c_int, other: c_int) -> bool {
    // SAFETY: the kernel fills a structure of integers.
    unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        syscall!(Sysno::fstat, fd, &raw mut st).is_ok()
            && st.st_mode & libc::S_IFMT == libc::S_IFIFO
            && syscall!(Sysno::fcntl, fd, libc::F_GETFL)
                .is_ok_and(|flags| flags as c_int & libc::O_ACCMODE != other)
    }
}

fn appends(fd: c_int) -> bool {
    // SAFETY: no pointers.
    unsafe { syscall!(Sysno::fcntl, fd, libc::F_GETFL) }
        .is_ok_and(|flags| flags as c_int & libc::O_APPEND != 0)
}

/// What the socket has, as far as the pipe has room: piece by piece looked at, written to the pipe, then taken. Whether to
/// wait for data is the socket's affair, to wait for room the pipe's (`waits`); both for the first piece only.
pub(super) fn to_pipe(
    from: &FileRef,
    input: c_int,
    out: c_int,
    len: usize,
    waits: bool,
) -> Result<usize, c_int> {
    let look = || {
        let _inside = signals::enter();
        from.stack().with(|i| {
            let waiting = i.engine.sock(from.id()).map_or(0, tcp_inq);
            (waiting, i.engine.before_urgent_byte(from.id()))
        })
    };
    let mut buf = vec![0u8; PIECE.min(len)];
    let mut done = 0;
    while done < len {
        let most = match look() {
            (_, 0) if done == 0 => {
                let _inside = signals::enter();
                let nonblock = from.nonblock.load(Ordering::Relaxed);
                let at = |i: &mut Inner| i.engine.splice_at_urgent_byte(from.id(), nonblock);
                return from.stack().with(at).map_err(errno_of);
            }
            (_, 0) => break,
            // Beyond the first, pieces are of what is there: an error, and the end, are the next call's.
            (0, _) if done > 0 => break,
            (_, before_urgent_byte) => (len - done).min(PIECE).min(before_urgent_byte),
        };
        match piece_to_pipe(from, input, out, &mut buf[..most], waits, done > 0) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

fn piece_to_pipe(
    from: &FileRef,
    input: c_int,
    out: c_int,
    buf: &mut [u8],
    waits: bool,
    follows: bool,
) -> Result<usize, c_int> {
    let there = |buf: &mut [u8]| recv_into(from, buf, MSG_PEEK | MSG_DONTWAIT);
    let got = match there(buf) {
        // For any byte: SO_RCVLOWAT does not count here.
        Err(libc::EAGAIN) if !follows && !from.nonblock.load(Ordering::Relaxed) => {
            match recv_into(from, &mut buf[..1], MSG_PEEK)? {
                0 => 0,
                _ => there(buf)?,
            }
        }
        got => got?,
    };
    if got == 0 {
        return Ok(0);
    }
    let written = write_pipe(out, &buf[..got], !waits || follows)?;
    // Somebody else may have read the same bytes meanwhile; two readers of one stream share it in no defined way.
    let flags = MSG_TRUNC | MSG_DONTWAIT;
    if recv_into(from, &mut buf[..written], flags) == Err(MOVED) {
        let _inside = signals::enter();
        let _whole = signals::cancel::Off::new();
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
    let written = unsafe {
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
    };
    match written {
        // A FIFO, or a pipe into which the kernel has spliced.
        Err(Errno::EOPNOTSUPP) => move_to_pipe(fd, bytes),
        written => written,
    }
    .map_err(Errno::into_raw)
}

/// Writes to a pipe as splice(2) does, by way of one of ours: without waiting, and without packets (O_DIRECT).
fn move_to_pipe(fd: c_int, bytes: &[u8]) -> Result<usize, Errno> {
    let [reader, writer] = pipe().map_err(Errno::new)?;
    let there = write_pipe(writer.as_raw_fd(), bytes, true).map_err(Errno::new)?;
    let from = reader.as_raw_fd();
    // SAFETY: numbers.
    unsafe {
        syscall!(
            Sysno::splice,
            from,
            0,
            fd,
            0,
            there,
            libc::SPLICE_F_NONBLOCK
        )
    }
}

/// What the pipe holds, piece by piece: duplicated to a pipe of ours, read from there into the send arena, then taken. What the
/// socket has no room for stays where it is. One copy; the pages themselves cannot be had, since a pipe's can be moved, but
/// not mapped. Waits for the pipe before the first piece only.
fn from_pipe(
    to: &FileRef,
    input: c_int,
    out: c_int,
    len: usize,
    flags: c_uint,
) -> Result<usize, c_int> {
    let waits = flags & libc::SPLICE_F_NONBLOCK == 0;
    let more = flags & libc::SPLICE_F_MORE != 0;
    let mut pieces = Pieces::new(to, "splice");
    while pieces.done < len {
        let left = len - pieces.done;
        let teed = tee_pipe(input, PIECE.min(left), !waits || pieces.done > 0);
        let (held, got) = match teed {
            Ok((_, 0)) => break,
            Ok(teed) => teed,
            Err(_) if pieces.done > 0 => break,
            Err(e) => return Err(e),
        };
        let more = more || (got < left && waiting_in(input) > got);
        let mut held = Some(held);
        let bytes = |sent| {
            let mut at = HeldInPipe {
                input,
                held: held.take(),
                total: got,
                remaining: got - sent,
            };
            // Not the first send of it.
            if at.held.is_none() {
                at.held = at.rewind();
            }
            at
        };
        let sent = match pieces.send(got, more, Bytes::Copied, bytes) {
            Ok(sent) => sent,
            Err(_) if pieces.done > 0 => break,
            Err(e) => return Err(e),
        };
        // It is there: nobody else reads a pipe that two would have to share.
        take(input, sent);
        if sent < got {
            break;
        }
    }
    if pieces.go_on_there(len) {
        let (flags, left) = (flags | libc::SPLICE_F_NONBLOCK, len - pieces.done);
        // SAFETY: numbers, and no positions.
        let rest = unsafe { real::splice(input, null_mut(), out, null_mut(), left, flags) };
        return Ok(pieces.done + usize::try_from(rest).unwrap_or(0));
    }
    Ok(pieces.done)
}

/// Bytes in a pipe.
fn waiting_in(pipe: c_int) -> usize {
    let mut n: c_int = 0;
    // SAFETY: the kernel writes an integer to a live local.
    let _ = unsafe { syscall!(Sysno::ioctl, pipe, libc::FIONREAD, &raw mut n) };
    usize::try_from(n).unwrap_or(0)
}

/// A pipe of ours with what `input` holds, at most `len` bytes, and how much that is; 0 at its end.
fn tee_pipe(input: c_int, len: usize, dont_wait: bool) -> Result<(Fd, usize), c_int> {
    let [reader, writer] = pipe()?;
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
