//! `poll` and `ppoll`.

use core::ffi::{c_int, c_long};

use libc::{nfds_t, pollfd, sigset_t, timespec};
use sidewire_uapi::poll::{POLLERR, POLLHUP};
use smallvec::SmallVec;

use sidewire_engine::Instant;

use super::{
    AtOnce, FEW, Set, answer, deadline_after, deadline_ms, driver_of, read_mask, read_sized_mask,
    read_timespec, with_mask, write_left,
};
use crate::stack::NetStack;
use crate::{copy, fdtable, real, signals, stack, syscall};

type Fds = SmallVec<[pollfd; FEW]>;

/// The program's set, when it has to do with us, and who drives; else the real function is right.
unsafe fn ours(fds: *const pollfd, n: nfds_t) -> Option<(Fds, &'static NetStack)> {
    let many = n as usize > FEW;
    if !stack::any()
        || signals::in_vfork()
        || n as usize > fdtable::MAX_FD
        || many && n > syscall::nofile_limit()
    {
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
    // SAFETY: the program's pointer.
    answer(unsafe { wait_with(fds, &set, stack, deadline_ms(timeout), None) })
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
        // SAFETY: the program's pointer.
        unsafe { wait_with(fds, &set, stack, deadline_after(length), mask) }
    })())
}

/// `ppoll` by number, which tells what is left of the time.
///
/// # Safety
/// The contract of the system call.
pub unsafe fn ppoll_by_number(
    fds: *mut pollfd,
    n: nfds_t,
    timeout: *mut timespec,
    mask: *const sigset_t,
    size: usize,
) -> c_long {
    // SAFETY: the program's call.
    let Some((set, stack)) = (unsafe { ours(fds, n) }) else {
        let (number, fds, timeout) = (libc::SYS_ppoll, fds as usize, timeout as usize);
        // SAFETY: the program's call.
        return unsafe { real::syscall(number, fds, n as usize, timeout, mask as usize, size, 0) };
    };
    answer((|| {
        // SAFETY: the program's pointers.
        let (length, mask) = unsafe { (read_timespec(timeout)?, read_sized_mask(mask, size)?) };
        let deadline = deadline_after(length);
        // SAFETY: the program's pointers.
        unsafe {
            let result = wait_with(fds, &set, stack, deadline, mask);
            write_left(timeout, length, deadline);
            result
        }
    })())
    .into()
}

unsafe fn wait_with(
    fds: *mut pollfd,
    set: &Fds,
    stack: &'static NetStack,
    deadline: Instant,
    mask: Option<u64>,
) -> Result<usize, c_int> {
    // SAFETY: the caller's pointer.
    let wait = |deadline| unsafe { wait(fds, set.clone(), stack, deadline) };
    with_mask(mask, deadline, AtOnce::Interrupted, wait)
}
