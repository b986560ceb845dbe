//! `splice` with a socket of ours at one end and a pipe at the other: by way of a buffer.

use core::ffi::{c_int, c_uint};
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use libc::{pollfd, size_t, ssize_t};
use sidewire_engine::Instant;
use sidewire_engine::calls::RecvCall;
use sidewire_engine::ioctl::tcp_inq;
use sidewire_engine::memory::{Fault, IovIter, MemRef, RegionKind};
use sidewire_link::fd::Fd;
use sidewire_uapi::socket::{MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC};
use std::os::fd::AsRawFd;
use syscalls::{Errno, Sysno, syscall};

use super::pieces::{Bytes, PIECE, Pieces};
use super::pipe_turn::PipeTurn;
use super::recv::recv_call;
use super::sendfile::{pipe, read_at};
use super::{MOVED, Turn, answer, errno_of};
use crate::driver::{self, Woken};
use crate::file::{FileRef, Splicing};
use crate::iov::{Iovecs, MAX_RW_COUNT};
use crate::signals::{ERESTARTSYS, ending};
use crate::stack::Inner;
use crate::wait::Waiter;
use crate::{fdtable, real, signals, syscall};

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
        (Some(from), None) => match PipeEnd::of(out, libc::O_RDONLY) {
            Some(pipe) => signals::call(&from, || to_pipe(&from, input, &pipe, most, waits)),
            None => Err(MOVED),
        },
        (None, Some(to)) => match PipeEnd::of(input, libc::O_WRONLY) {
            // A socket to which O_APPEND was set takes none: EINVAL.
            Some(pipe) if !to.append.load(Ordering::Relaxed) => {
                from_pipe(&to, &pipe, out, most, flags)
            }
            _ => Err(MOVED),
        },
        _ => Err(MOVED),
    };
    match done {
        // Also where no bytes of ours can be concerned: it knows what is wrong.
        // SAFETY: the caller's arguments.
        Err(MOVED) => unsafe { real::splice(input, off_in, out, off_out, len, flags) },
        done => answer(done),
    }
}

/// A pipe, by the file that it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PipeId {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

/// A descriptor of a pipe.
pub(super) struct PipeEnd {
    fd: c_int,
    id: PipeId,
    nonblock: bool,
}

impl PipeEnd {
    /// `None` for what is no pipe, and for an end of one that is open for the `other` direction only.
    pub(super) fn of(fd: c_int, other: c_int) -> Option<Self> {
        // SAFETY: the kernel fills a structure of integers.
        let st = unsafe {
            let mut st: libc::stat = core::mem::zeroed();
            syscall!(Sysno::fstat, fd, &raw mut st).ok()?;
            st
        };
        let flags = syscall::fcntl(fd, libc::F_GETFL, 0).ok()?;
        let is_one = st.st_mode & libc::S_IFMT == libc::S_IFIFO;
        (is_one && flags & libc::O_ACCMODE != other).then_some(Self {
            fd,
            id: PipeId {
                dev: st.st_dev,
                ino: st.st_ino,
            },
            nonblock: flags & libc::O_NONBLOCK != 0,
        })
    }

    fn polled(&self, events: i16) -> pollfd {
        pollfd {
            fd: self.fd,
            events,
            revents: 0,
        }
    }

    /// Sleeps until there are bytes or room, whichever `events` asks for, or nobody is at the other end any more.
    fn wait(&self, file: &FileRef, events: i16) -> Result<(), c_int> {
        let mut ready = [self.polled(events)];
        let waiter = Waiter::new();
        match driver::sleep(file.stack(), &waiter, Instant::NEVER, &mut ready, None) {
            Woken::Signal => Err(ERESTARTSYS),
            _ => Ok(()),
        }
    }

    /// Linux `wait_for_space`.
    fn wait_for_space(&self, file: &FileRef, waits: bool) -> Result<(), c_int> {
        loop {
            let mut now = [self.polled(libc::POLLOUT)];
            let _ = syscall::ppoll(&mut now, 0, None);
            match now[0].revents {
                e if e & libc::POLLERR != 0 => {
                    ending::raise_sigpipe();
                    return Err(libc::EPIPE);
                }
                0 if waits => self.wait(file, libc::POLLOUT)?,
                0 => return Err(libc::EAGAIN),
                _ => return Ok(()),
            }
        }
    }
}

/// What the socket has, as far as the pipe has room, piece by piece. Whether to wait for data is the socket's affair, to wait
/// for room the pipe's (`waits`), which is looked at first; both for the first piece only. Inside of a call.
pub(super) fn to_pipe(
    from: &FileRef,
    input: c_int,
    pipe: &PipeEnd,
    len: usize,
    waits: bool,
) -> Result<usize, c_int> {
    let waits = waits && !pipe.nonblock;
    let mut buf = vec![0u8; PIECE.min(len)];
    let mut done = 0;
    while done < len {
        if done == 0 {
            pipe.wait_for_space(from, waits)?;
        }
        let most = (len - done).min(PIECE);
        match piece_to_pipe(from, input, pipe.fd, &mut buf[..most], done > 0) {
            Ok(Piece::Moved(n)) => done += n,
            Ok(_) | Err(_) if done > 0 => break,
            Ok(Piece::End) => break,
            // Somebody else has filled it.
            Ok(Piece::NoSpace) if waits => {}
            Ok(Piece::NoSpace) => return Err(libc::EAGAIN),
            // For any byte: SO_RCVLOWAT does not count here.
            Ok(Piece::NoData) => {
                if recv_into(from, &mut buf[..1], MSG_PEEK)? == 0 {
                    break;
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// What became of a piece.
enum Piece {
    Moved(usize),
    /// The stream is at its end, or at a byte that no splice takes.
    End,
    /// Nothing is there yet, and the socket may be waited for.
    NoData,
    /// The pipe is full.
    NoSpace,
}

/// Looks at a piece, writes it to the pipe, and takes what that took, with nobody else's receive in between.
fn piece_to_pipe(
    from: &FileRef,
    input: c_int,
    out: c_int,
    buf: &mut [u8],
    follows: bool,
) -> Result<Piece, c_int> {
    let nonblock = from.nonblock.load(Ordering::Relaxed);
    let _turn = from.receiving.lock();
    let (_splicing, waiting, before_urgent_byte) = from.stack().with(|i| {
        let waiting = i.engine.sock(from.id()).map_or(0, tcp_inq);
        let before_urgent_byte = i.engine.before_urgent_byte(from.id());
        (Splicing::begin(from), waiting, before_urgent_byte)
    });
    // An error, and the end, are the next call's.
    if follows && (waiting == 0 || before_urgent_byte == 0) {
        return Ok(Piece::End);
    }
    if before_urgent_byte == 0 {
        let at = |i: &mut Inner| i.engine.splice_at_urgent_byte(from.id(), nonblock);
        return from.stack().with(at).map_err(errno_of).map(|_| Piece::End);
    }
    let most = buf.len().min(before_urgent_byte);
    let got = match recv_into(from, &mut buf[..most], MSG_PEEK | MSG_DONTWAIT) {
        Ok(0) => return Ok(Piece::End),
        Err(libc::EAGAIN) if !nonblock => return Ok(Piece::NoData),
        got => got?,
    };
    let written = match write_pipe(out, &buf[..got]) {
        Err(libc::EAGAIN) => return Ok(Piece::NoSpace),
        written => written?,
    };
    let flags = MSG_TRUNC | MSG_DONTWAIT;
    if recv_into(from, &mut buf[..written], flags) == Err(MOVED) {
        let at = buf.as_mut_ptr();
        // SAFETY: a live slice, and no address.
        let _ = unsafe { syscall!(Sysno::recvfrom, input, at, written, flags, 0, 0) };
    }
    Ok(Piece::Moved(written))
}

/// Receives into a buffer of our own.
fn recv_into(from: &FileRef, buf: &mut [u8], flags: c_int) -> Result<usize, c_int> {
    let iov = Iovecs::single(buf.as_ptr(), buf.len());
    recv_call(from, Turn::Had, flags, RecvCall::of_splice, || iov.iter()).map(|got| got.n)
}

/// Without waiting for room.
fn write_pipe(fd: c_int, bytes: &[u8]) -> Result<usize, c_int> {
    const RWF_NOWAIT: usize = 8;
    let iov = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let at = &raw const iov;
    // SAFETY: a live slice.
    match unsafe { syscall!(Sysno::pwritev2, fd, at, 1, -1isize, 0, RWF_NOWAIT) } {
        // A FIFO, or a pipe into which the kernel has spliced.
        Err(Errno::EOPNOTSUPP) => move_to_pipe(fd, bytes),
        written => written,
    }
    .map_err(Errno::into_raw)
}

/// Writes to a pipe as splice(2) does, by way of one of ours: without waiting, and without packets (O_DIRECT).
fn move_to_pipe(fd: c_int, bytes: &[u8]) -> Result<usize, Errno> {
    let [reader, writer] = pipe().map_err(Errno::new)?;
    let there = write_pipe(writer.as_raw_fd(), bytes).map_err(Errno::new)?;
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

/// What the pipe holds.
fn from_pipe(
    to: &FileRef,
    pipe: &PipeEnd,
    out: c_int,
    len: usize,
    flags: c_uint,
) -> Result<usize, c_int> {
    let (done, go_on_there) = signals::call(to, || {
        let mut pieces = Pieces::of_splice(to);
        send_pieces(&mut pieces, to, pipe, len, flags)?;
        Ok((pieces.done, pieces.go_on_there(len)))
    })?;
    if go_on_there {
        let (flags, left) = (flags | libc::SPLICE_F_NONBLOCK, len - done);
        // SAFETY: numbers, and no positions.
        let rest = unsafe { real::splice(pipe.fd, null_mut(), out, null_mut(), left, flags) };
        return Ok(done + usize::try_from(rest).unwrap_or(0));
    }
    Ok(done)
}

/// Piece by piece: duplicated to a pipe of ours, read from there into the send arena, then taken. What the socket has no room
/// for stays where it is. One copy; the pages themselves cannot be had, since a pipe's can be moved, but not mapped. Waits for
/// the pipe before the first piece only.
fn send_pieces(
    pieces: &mut Pieces<'_>,
    to: &FileRef,
    pipe: &PipeEnd,
    len: usize,
    flags: c_uint,
) -> Result<(), c_int> {
    let waits = flags & libc::SPLICE_F_NONBLOCK == 0 && !pipe.nonblock;
    let more = flags & libc::SPLICE_F_MORE != 0;
    let input = pipe.fd;
    let mut turn = PipeTurn::take(pipe.id);
    while pieces.done < len {
        let left = len - pieces.done;
        let (held, got) = match tee_pipe(input, PIECE.min(left)) {
            Ok((_, 0)) => break,
            Ok(teed) => teed,
            Err(_) if pieces.done > 0 => break,
            Err(libc::EAGAIN) if waits => {
                drop(turn);
                pipe.wait(to, libc::POLLIN)?;
                turn = PipeTurn::take(pipe.id);
                continue;
            }
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
        take(input, sent);
        if sent < got {
            break;
        }
    }
    drop(turn);
    Ok(())
}

/// Bytes in a pipe.
fn waiting_in(pipe: c_int) -> usize {
    let mut n: c_int = 0;
    // SAFETY: the kernel writes an integer to a live local.
    let _ = unsafe { syscall!(Sysno::ioctl, pipe, libc::FIONREAD, &raw mut n) };
    usize::try_from(n).unwrap_or(0)
}

/// A pipe of ours with what `input` holds now, at most `len` bytes, and how much that is; 0 at its end.
fn tee_pipe(input: c_int, len: usize) -> Result<(Fd, usize), c_int> {
    let [reader, writer] = pipe()?;
    let (to, flags) = (writer.as_raw_fd(), libc::SPLICE_F_NONBLOCK);
    // SAFETY: numbers.
    let n = unsafe { syscall!(Sysno::tee, input, to, len, flags) }.map_err(Errno::into_raw)?;
    Ok((reader, n))
}

/// Throws the next `len` bytes of a pipe away, without a copy where there is /dev/null.
fn take(input: c_int, len: usize) {
    let mut left = len;
    if let Ok(null) = open_null() {
        // Another process may have been here.
        let (null, flags) = (null.as_raw_fd(), libc::SPLICE_F_NONBLOCK);
        while left > 0 {
            // SAFETY: numbers.
            match unsafe { syscall!(Sysno::splice, input, 0, null, 0, left, flags) } {
                Ok(n @ 1..) => left -= n.min(left),
                _ => break,
            }
        }
    }
    let mut left = left.min(waiting_in(input));
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
        let (held, got) = tee_pipe(self.input, self.total).ok()?;
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
