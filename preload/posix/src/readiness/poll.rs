//! `poll` and `ppoll`.

use core::ffi::c_int;

use libc::{nfds_t, pollfd, sigset_t, timespec};
use sidewire_uapi::poll::{POLLERR, POLLHUP};
use smallvec::SmallVec;

use sidewire_engine::Instant;

use super::{
    AtOnce, FEW, Set, answer, deadline_after, deadline_ms, driver_of, read_mask, read_timespec,
    with_mask,
};
use crate::stack::NetStack;
use crate::{copy, fdtable, real, signals, stack};

type Fds = SmallVec<[pollfd; FEW]>;

/// The program's set, when it has to do with us, and who drives; else the real function is right.
unsafe fn ours(fds: *const pollfd, n: nfds_t) -> Option<(Fds, &'static NetStack)> {
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
    unsafe { copy::from_program(set.as_mut_ptr().cast(), fds.cast(), n * size_of::<pollfd>()) }
        .ok()?;
    let stack = driver_of(set.iter().map(|p| p.fd))?;
    Some((set, stack))
}

/// Waits, and writes what was found; how many are ready. Holds the files for as long as it runs only.
unsafe fn wait(
    fds: *mut pollfd,
    mut set: Fds,
    stack: &'static NetStack,
    deadline: Instant,
) -> Result<usize, c_int> {
    let mut waiting = Set::new(POLLERR | POLLHUP, stack);
    for p in &set {
        waiting.add(p.fd, u32::from(p.events as u16));
    }
    let ready = waiting.wait(deadline)?;
    for (p, w) in set.iter_mut().zip(&waiting.watches) {
        p.revents = w.revents as u16 as i16;
    }
    let len = size_of_val(set.as_slice());
    // SAFETY: a live slice; the destination is the program's.
    unsafe { copy::to_program(fds.cast(), set.as_ptr().cast(), len) }.map_err(|_| libc::EFAULT)?;
    Ok(ready)
}

/// `poll`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn poll(fds: *mut pollfd, n: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the program's call.
    let Some((set, stack)) = (unsafe { ours(fds, n) }) else {
        // SAFETY: the program's call.
        return unsafe { real::poll(fds, n, timeout) };
    };
    let deadline = deadline_ms(timeout);
    // SAFETY: the program's pointer.
    let wait = |deadline| unsafe { wait(fds, set.clone(), stack, deadline) };
    answer(with_mask(None, deadline, AtOnce::Interrupted, wait))
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
    let Some((set, stack)) = (unsafe { ours(fds, n) }) else {
        // SAFETY: the program's call.
        return unsafe { real::ppoll(fds, n, timeout, mask) };
    };
    answer((|| {
        // SAFETY: the program's pointers.
        let (length, mask) = unsafe { (read_timespec(timeout)?, read_mask(mask)?) };
        let deadline = deadline_after(length);
        // SAFETY: the program's pointer.
        let wait = |deadline| unsafe { wait(fds, set.clone(), stack, deadline) };
        with_mask(mask, deadline, AtOnce::Interrupted, wait)
    })())
}
