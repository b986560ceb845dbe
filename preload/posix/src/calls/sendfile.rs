//! `sendfile` to a socket of ours: page by page through a buffer that stays warm.

use core::ffi::c_int;

use libc::{off_t, size_t, ssize_t};
use syscalls::{Errno, Sysno, syscall};

use super::answer;
use super::recv::recv_iter;
use super::send::{SendArgs, send_iter};
use crate::file::FileRef;
use crate::iov::{Iovecs, MAX_RW_COUNT};
use crate::{copy, fdtable, real};

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
            answer(unsafe { from_file(&to, input, offset, count.min(MAX_RW_COUNT)) })
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
    let mut buf = vec![0u8; CHUNK.min(count)];
    let mut done = 0;
    let mut result = Ok(());
    while done < count {
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
            // SAFETY: no pointers. What was read and not sent is given back.
            let _ =
                unsafe { syscall!(Sysno::lseek, input, -((got - sent) as i64), libc::SEEK_CUR) };
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

/// Receives into a buffer of our own.
pub(super) fn recv_into(from: &FileRef, buf: &mut [u8], flags: c_int) -> Result<usize, c_int> {
    let iov = Iovecs::single(buf.as_ptr(), buf.len());
    recv_iter(from, flags, || iov.iter()).map(|(n, _)| n)
}
