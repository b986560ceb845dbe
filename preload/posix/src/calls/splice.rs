//! `splice` with a socket of ours at one end and a pipe at the other: by way of a buffer.

use core::ffi::{c_int, c_uint};

use libc::{size_t, ssize_t};
use sidewire_uapi::ioctl::FIONREAD;
use sidewire_uapi::socket::{MSG_DONTWAIT, MSG_MORE, MSG_PEEK, MSG_TRUNC};
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

/// What the pipe holds, chunk by chunk, as far as it goes.
fn from_pipe(
    to: &FileRef,
    input: c_int,
    len: usize,
    dont_wait: c_int,
    more: c_int,
) -> Result<usize, c_int> {
    let mut buf = vec![0u8; CHUNK.min(len)];
    if dont_wait != 0 && available(input)? == 0 {
        return Err(libc::EAGAIN);
    }
    let got = read_at(input, None, &mut buf)?;
    let mut sent = 0;
    while sent < got {
        let iov = Iovecs::single(buf[sent..].as_ptr(), got - sent);
        let args = SendArgs {
            // What left the pipe cannot go back: it is sent, also where the program would rather not wait.
            flags: more,
            ..SendArgs::default()
        };
        match send_iter(to, args, || iov.iter()) {
            Ok(n) => sent += n,
            Err(_) if sent > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

fn available(fd: c_int) -> Result<c_int, c_int> {
    let mut n: c_int = 0;
    // SAFETY: the kernel writes an integer to a live local.
    unsafe { syscall!(Sysno::ioctl, fd, FIONREAD, &raw mut n) }.map_err(Errno::into_raw)?;
    Ok(n)
}
