//! `dup` and its kin: the kernel duplicates the shadow, and the file is shared.

use core::ffi::c_int;

use super::handover;
use super::socket::{Reason, forget_socket};
use crate::file::FileRef;
use crate::readiness::epoll;
use crate::{fdtable, raw, real, signals};
use sidewire_link::fd::is_internal;

/// Puts a file behind a descriptor that the kernel just made.
pub(super) fn share(new: c_int, file: FileRef) {
    // Beyond the table the number stays a plain one: its socket is the shadow, which knows nothing of the connection.
    if let Ok(stale) = fdtable::install(new, file) {
        drop(stale);
    }
    // libc's own streams read and write it unseen, and as a rule another program is about to. Where it cannot be given it
    // stays, for all that is not libc's.
    if new <= libc::STDERR_FILENO && !signals::in_vfork() {
        let _ = handover::give(new, Reason::Shared);
    }
}

/// The kernel duplicated a descriptor that is not a socket of ours; it may be an epoll instance.
pub(super) fn plain(fd: c_int, new: c_int) {
    forget_socket(new);
    epoll::duplicated(fd, new);
}

/// `dup`.
pub fn dup(fd: c_int) -> c_int {
    let file = fdtable::get(fd);
    let _inside = signals::enter();
    let new = real::dup(fd);
    if new >= 0 {
        match file {
            Some(file) => share(new, file),
            None => plain(fd, new),
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
    if fd != new {
        epoll::keep_for_users(new);
    }
    let r = real();
    if r < 0 || fd == new {
        return r;
    }
    match file {
        Some(file) => share(new, file),
        None => plain(fd, new),
    }
    r
}

/// `dup2`.
pub fn dup2(fd: c_int, new: c_int) -> c_int {
    onto(fd, new, || real::dup2(fd, new))
}

/// `dup3`.
pub fn dup3(fd: c_int, new: c_int, flags: c_int) -> c_int {
    onto(fd, new, || real::dup3(fd, new, flags))
}
