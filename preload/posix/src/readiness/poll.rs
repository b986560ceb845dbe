//! `poll` and `ppoll`.

use core::ffi::c_int;

use libc::{nfds_t, pollfd, sigset_t, timespec};
use sidewire_uapi::poll::{POLLERR, POLLHUP};
use smallvec::SmallVec;

use super::{
    FEW, Set, Watch, answer, deadline_after, deadline_ms, epoll, read_mask, read_timespec,
    with_mask,
};
use crate::stack::NetStack;
use crate::{copy, fdtable, real, signals, stack};

type Fds = SmallVec<[pollfd; FEW]>;

/// The set, when it has to do with us; else the real function is right.
unsafe fn ours(fds: *const pollfd, n: nfds_t) -> Option<Result<(Fds, Set), c_int>> {
    if !stack::any() || signals::in_vfork() || n as usize > fdtable::MAX_FD {
        return None;
    }
    let n = n as usize;
    let mut set = Fds::from_elem(
        pollfd {
            fd: -1,
            events: 0,
            revents: 0,
        },
        n,
    );
    // SAFETY: the destination has room for n entries; any bytes make a pollfd.
    if unsafe { copy::from_program(set.as_mut_ptr().cast(), fds.cast(), n * size_of::<pollfd>()) }
        .is_err()
    {
        return None;
    }
    let mut stack: Option<&'static NetStack> = None;
    let mut watches: SmallVec<[Watch; FEW]> = SmallVec::new();
    for p in &set {
        let file = fdtable::get(p.fd);
        stack = stack
            .or_else(|| file.as_ref().map(|f| f.stack()))
            .or_else(|| epoll::expose(p.fd));
        watches.push(Watch::new(p.fd, u32::from(p.events as u16), file));
    }
    stack.map(|stack| Ok((set, Set::new(watches, POLLERR | POLLHUP, stack))))
}

unsafe fn finish(fds: *mut pollfd, mut copy_of: Fds, set: &Set) -> Result<(), c_int> {
    for (p, w) in copy_of.iter_mut().zip(&set.watches) {
        p.revents = w.revents as u16 as i16;
    }
    let len = size_of_val(copy_of.as_slice());
    // SAFETY: a live slice; the destination is the program's.
    unsafe { copy::to_program(fds.cast(), copy_of.as_ptr().cast(), len) }.map_err(|_| libc::EFAULT)
}

/// `poll`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn poll(fds: *mut pollfd, n: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the program's call.
    match unsafe { ours(fds, n) } {
        // SAFETY: the program's call.
        None => unsafe { real::poll(fds, n, timeout) },
        Some(set) => answer(with_mask(None, || {
            let (copy_of, mut set) = set?;
            let ready = set.wait(deadline_ms(timeout))?;
            // SAFETY: the program's pointer.
            unsafe { finish(fds, copy_of, &set) }?;
            Ok(ready)
        })),
    }
}

/// `ppoll`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn ppoll(
    fds: *mut pollfd,
    n: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's call.
    match unsafe { ours(fds, n) } {
        // SAFETY: the program's call.
        None => unsafe { real::ppoll(fds, n, timeout, mask) },
        Some(set) => answer((|| {
            // SAFETY: the program's pointers.
            let (length, mask) = unsafe { (read_timespec(timeout)?, read_mask(mask)?) };
            with_mask(mask, || {
                let (copy_of, mut set) = set?;
                let ready = set.wait(deadline_after(length))?;
                // SAFETY: the program's pointer.
                unsafe { finish(fds, copy_of, &set) }?;
                Ok(ready)
            })
        })()),
    }
}
