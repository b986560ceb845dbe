//! `fcntl`, `ioctl`, `sockatmark`.

use core::ffi::c_int;
use core::sync::atomic::Ordering;

use sidewire_uapi::fcntl::{F_SETOWN_EX, F_SETSIG};
use sidewire_uapi::ioctl::{
    FIOASYNC, FIONBIO, FIONREAD, FIOSETOWN, SIOCATMARK, SIOCOUTQNSD, SIOCSPGRP, TIOCOUTQ,
};

use super::{answer_int, errno_of};
use crate::file::FileRef;
use crate::{copy, fdtable, raw, real, sigio, signals};
use sidewire_link::fd::is_internal;

/// `fcntl`, with the third argument as a word.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn fcntl(fd: c_int, cmd: c_int, arg: usize) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        if is_internal(fd) {
            raw::set_errno(libc::EBADF);
            return -1;
        }
        // SAFETY: the caller's arguments.
        let r = unsafe { real::fcntl(fd, cmd, arg) };
        if matches!(cmd, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) && r >= 0 {
            super::dup::plain(fd, r);
        }
        return r;
    };
    let _inside = signals::enter();
    // SAFETY: the caller's arguments.
    unsafe {
        match cmd {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
                let new = real::fcntl(fd, cmd, arg);
                if new >= 0 {
                    super::dup::share(new, file);
                }
                new
            }
            libc::F_SETFL => {
                let r = real::fcntl(fd, cmd, arg);
                if r == 0 {
                    let flags = arg as c_int;
                    file.nonblock
                        .store(flags & libc::O_NONBLOCK != 0, Ordering::Relaxed);
                    file.append
                        .store(flags & libc::O_APPEND != 0, Ordering::Relaxed);
                    if flags & libc::O_ASYNC != 0 || file.owner.lock().is_some() {
                        sigio::changed(&file, fd);
                    }
                }
                r
            }
            libc::F_SETOWN | F_SETOWN_EX | F_SETSIG => {
                let r = real::fcntl(fd, cmd, arg);
                if r == 0 {
                    sigio::changed(&file, fd);
                }
                r
            }
            _ => real::fcntl(fd, cmd, arg),
        }
    }
}

/// `ioctl`, with the third argument as a word.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn ioctl(fd: c_int, request: usize, arg: usize) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::ioctl(fd, request, arg) };
    };
    let _inside = signals::enter();
    // The kernel takes the low 32 bits.
    match u64::from(request as u32) {
        FIONREAD | TIOCOUTQ | SIOCOUTQNSD | SIOCATMARK => {
            // SAFETY: the program gave the pointer for writing.
            match unsafe { queue_length(&file, request as u32, arg as *mut c_int) } {
                // SAFETY: the caller's arguments.
                Err(_) if file.moved_meanwhile() => unsafe { real::ioctl(fd, request, arg) },
                done => answer_int(done),
            }
        }
        FIONBIO => {
            // SAFETY: any bytes make a number.
            let Ok(on) = (unsafe { copy::read_value(arg as *const c_int) }) else {
                raw::set_errno(libc::EFAULT);
                return -1;
            };
            file.nonblock.store(on != 0, Ordering::Relaxed);
            // SAFETY: the caller's arguments.
            unsafe { real::ioctl(fd, request, arg) }
        }
        FIOASYNC | FIOSETOWN | SIOCSPGRP => {
            // SAFETY: the caller's arguments.
            let r = unsafe { real::ioctl(fd, request, arg) };
            if r == 0 {
                sigio::changed(&file, fd);
            }
            r
        }
        // SAFETY: the caller's arguments. Interfaces, close-on-exec: the shadow answers.
        _ => unsafe { real::ioctl(fd, request, arg) },
    }
}

unsafe fn queue_length(file: &FileRef, request: u32, arg: *mut c_int) -> Result<c_int, c_int> {
    let stack = file.stack();
    let n = stack
        .with(|i| {
            crate::round::poll_once(stack, i);
            let (engine, mut io) = i.split();
            engine.ioctl_int(&mut io, file.id(), request)
        })
        .map_err(errno_of)?;
    // SAFETY: by the caller.
    unsafe { copy::write_value(arg, &n) }
        .map(|()| 0)
        .map_err(|_| libc::EFAULT)
}

/// `sockatmark`.
pub fn sockatmark(fd: c_int) -> c_int {
    if !fdtable::is_ours(fd) {
        return real::sockatmark(fd);
    }
    let mut flag: c_int = 0;
    // SAFETY: a live local.
    let r = unsafe { ioctl(fd, SIOCATMARK as usize, &raw mut flag as usize) };
    if r < 0 { r } else { flag }
}
