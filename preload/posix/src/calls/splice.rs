//! `splice` with a socket of ours at one end and a pipe at the other: by way of a buffer.

use core::ffi::{c_int, c_uint};

use libc::{size_t, ssize_t};
use sidewire_link::fd::Fd;
use sidewire_uapi::socket::{MSG_DONTWAIT, MSG_MORE, MSG_PEEK, MSG_TRUNC};
use std::os::fd::AsRawFd;
use syscalls::{Errno, Sysno, syscall};

use super::answer;
use super::send::{SendArgs, send_iter};
use super::sendfile::{CHUNK, read_at, recv_into};
use crate::file::FileRef;
use crate::iov::{Iovecs, MAX_RW_COUNT};
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
    answer(match (from, to) {
        (Some(_), Some(_)) => Err(libc::EINVAL),
        (Some(from), None) if is_pipe(out) => {
            if off_in.is_null() && off_out.is_null() {
                to_pipe(&from, out, len, dont_wait)
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
    })
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
fn to_pipe(from: &FileRef, out: c_int, len: usize, dont_wait: c_int) -> Result<usize, c_int> {
    let mut buf = vec![0u8; CHUNK.min(len)];
    let got = recv_into(from, &mut buf, MSG_PEEK | dont_wait)?;
    if got == 0 {
        return Ok(0);
    }
    let written = write_pipe(out, &buf[..got], dont_wait != 0)?;
    // Somebody else may have read the same bytes meanwhile; two readers of one stream share it in no defined way.
    let _ = recv_into(from, &mut buf[..written], MSG_TRUNC | MSG_DONTWAIT);
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

/// What the pipe holds, a chunk of it: looked at by way of a pipe of ours, sent, then taken. What the socket has no room for
/// stays where it is.
fn from_pipe(
    to: &FileRef,
    input: c_int,
    len: usize,
    dont_wait: c_int,
    more: c_int,
) -> Result<usize, c_int> {
    let mut buf = vec![0u8; CHUNK.min(len)];
    let got = peek_pipe(input, &mut buf, dont_wait != 0)?;
    if got == 0 {
        return Ok(0);
    }
    let iov = Iovecs::single(buf.as_ptr(), got);
    let args = SendArgs {
        flags: more,
        ..SendArgs::default()
    };
    let sent = send_iter(to, args, || iov.iter())?;
    let mut taken = 0;
    while taken < sent {
        // It is there: nobody else reads a pipe that two would have to share.
        match read_at(input, None, &mut buf[taken..sent]) {
            Ok(n) if n > 0 => taken += n,
            _ => break,
        }
    }
    Ok(sent)
}

/// Copies what a pipe holds without taking it; 0 at its end.
fn peek_pipe(input: c_int, buf: &mut [u8], dont_wait: bool) -> Result<usize, c_int> {
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
    let n = unsafe { syscall!(Sysno::tee, input, writer.as_raw_fd(), buf.len(), flags) }
        .map_err(Errno::into_raw)?;
    let mut got = 0;
    while got < n {
        match read_at(reader.as_raw_fd(), None, &mut buf[got..n])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}
