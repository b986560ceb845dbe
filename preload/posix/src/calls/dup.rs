//! `dup` and its kin: the kernel duplicates the shadow, and the file is shared.

use core::ffi::c_int;

use super::socket::forget_stale;
use crate::file::FileRef;
use crate::{fdtable, raw, real, signals};
use sidewire_link::fd::is_internal;

/// Puts a file behind a descriptor that the kernel just made.
pub(super) fn share(new: c_int, file: FileRef) {
    // Beyond the table the number stays a plain one: its socket is the shadow, which knows nothing of the connection.
    if let Ok(stale) = fdtable::install(new, file) {
        drop(stale);
    }
}

/// `dup`.
pub fn dup(fd: c_int) -> c_int {
    let file = fdtable::get(fd);
    let _inside = signals::enter();
    let new = real::dup(fd);
    if new >= 0 {
        match file {
            Some(file) => share(new, file),
            None => forget_stale(new),
        }
    }
    new
}

/// What `dup2` and `dup3` do to the number that they take over.
fn onto(fd: c_int, new: c_int, real: impl Fn() -> c_int) -> c_int {
    if is_internal(new) || is_internal(fd) {
        raw::set_errno(libc::EBADF);
        return -1;
    }
    let _inside = signals::enter();
    let file = fdtable::get(fd);
    let r = real();
    if r < 0 || fd == new {
        return r;
    }
    match file {
        Some(file) => share(new, file),
        None => forget_stale(new),
    }
    r
}

/// `dup2`.
pub fn dup2(fd: c_int, new: c_int) -> c_int {
    if !fdtable::is_ours(fd) && !fdtable::is_ours(new) && !is_internal(new) {
        return real::dup2(fd, new);
    }
    onto(fd, new, || real::dup2(fd, new))
}

/// `dup3`.
pub fn dup3(fd: c_int, new: c_int, flags: c_int) -> c_int {
    if !fdtable::is_ours(fd) && !fdtable::is_ours(new) && !is_internal(new) {
        return real::dup3(fd, new, flags);
    }
    onto(fd, new, || real::dup3(fd, new, flags))
}
