//! `select` and `pselect`.

use core::cell::Cell;
use core::ffi::{c_int, c_long, c_ulong};

use libc::{fd_set, sigset_t, timespec, timeval};
use sidewire_engine::Instant;
use sidewire_uapi::poll::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM, POLLWRBAND,
    POLLWRNORM,
};
use smallvec::SmallVec;

use super::{
    AtOnce, FEW, Set, answer, deadline_after, driver_of, read_mask, read_sized_mask, read_timespec,
    with_mask, write_left,
};
use crate::stack::{NetStack, monotonic_ns};
use crate::{copy, fdtable, real, signals, stack};

/// Linux `POLLIN_SET`, `POLLOUT_SET`, `POLLEX_SET`: which bits make a descriptor readable, writable, exceptional.
const IN_SET: u32 = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR | POLLNVAL;
const OUT_SET: u32 = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR | POLLNVAL;
const EX_SET: u32 = POLLPRI | POLLNVAL;
const SETS: [u32; 3] = [IN_SET, OUT_SET, EX_SET];

const BITS: usize = c_ulong::BITS as usize;

/// One of the three sets, as words. 256 descriptors need no allocation.
type Words = SmallVec<[c_ulong; 4]>;

/// The three sets that the program gave, what stands in them, and who drives.
struct Select {
    at: [*mut fd_set; 3],
    words: [Words; 3],
    /// Every descriptor that stands in one of them, with the poll bits asked for.
    members: SmallVec<[(c_int, u32); FEW]>,
    stack: &'static NetStack,
    begun: Cell<bool>,
}

unsafe fn ours(n: c_int, at: [*mut fd_set; 3]) -> Option<Select> {
    if !stack::any() || signals::in_vfork() || n <= 0 || n as usize > fdtable::MAX_FD {
        return None;
    }
    let n = n as usize;
    let mut words = [Words::new(), Words::new(), Words::new()];
    for (words, at) in words.iter_mut().zip(at) {
        if at.is_null() {
            continue;
        }
        words.resize(n.div_ceil(BITS), 0);
        let len = size_of_val(words.as_slice());
        // SAFETY: the destination has that room; any bytes make words.
        if unsafe { copy::from_program(words.as_mut_ptr().cast(), at.cast(), len) }.is_err() {
            return None;
        }
    }
    let mut members = SmallVec::new();
    for i in 0..n.div_ceil(BITS) {
        let word = words.each_ref().map(|w| w.get(i).copied().unwrap_or(0));
        let mut any = word.iter().fold(0, |a, b| a | b);
        while any != 0 {
            let bit = any.trailing_zeros() as usize;
            any &= any - 1;
            if i * BITS + bit >= n {
                break;
            }
            let wanted = word.iter().zip(SETS).filter(|(w, _)| **w >> bit & 1 != 0);
            let events = wanted.fold(0, |events, (_, bits)| events | bits);
            members.push(((i * BITS + bit) as c_int, events));
        }
    }
    let stack = driver_of(members.iter().map(|m: &(c_int, u32)| m.0))?;
    Some(Select {
        at,
        words,
        members,
        stack,
        begun: Cell::new(false),
    })
}

impl Select {
    /// Waits, and writes the sets back; the number of bits in them. Holds the files for as long as it runs only.
    fn run(&self, deadline: Instant) -> Result<usize, c_int> {
        let mut set = Set::new(0, self.stack);
        for (fd, events) in &self.members {
            set.add(*fd, *events);
        }
        // Linux `select_poll_one`: for all three sets.
        set.key |= EX_SET;
        // Only once; one that is closed later counts as ready.
        set.refuses_closed = !self.begun.replace(true);
        set.wait(deadline)?;
        let mut count = 0;
        for ((words, at), bits) in self.words.iter().zip(self.at).zip(SETS) {
            if at.is_null() {
                continue;
            }
            let mut result: Words = SmallVec::from_elem(0, words.len());
            for w in &set.watches {
                let (word, bit) = (w.fd as usize / BITS, w.fd as usize % BITS);
                if words[word] >> bit & 1 != 0 && w.revents & bits != 0 {
                    result[word] |= 1 << bit;
                    count += 1;
                }
            }
            let len = size_of_val(result.as_slice());
            // SAFETY: a live slice; the destination is the program's.
            unsafe { copy::to_program(at.cast(), result.as_ptr().cast(), len) }
                .map_err(|_| libc::EFAULT)?;
        }
        Ok(count)
    }
}

/// `select`. The time that is left goes back to the program, as in Linux.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn select(
    n: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the program's call.
    let Some(select) = (unsafe { ours(n, [r, w, e]) }) else {
        // SAFETY: the program's call.
        return unsafe { real::select(n, r, w, e, timeout) };
    };
    answer((|| {
        let mut length = None;
        if !timeout.is_null() {
            // SAFETY: any bytes make a timeval.
            let tv = unsafe { copy::read_value(timeout) }.map_err(|_| libc::EFAULT)?;
            if tv.tv_sec < 0 || tv.tv_usec < 0 {
                return Err(libc::EINVAL);
            }
            let us = (tv.tv_sec as u64)
                .saturating_mul(1_000_000)
                .saturating_add(tv.tv_usec as u64);
            length = Some(us.saturating_mul(1000));
        }
        let deadline = deadline_after(length);
        with_mask(None, deadline, AtOnce::Interrupted, |deadline| {
            let result = select.run(deadline);
            if length.is_some() {
                let left = deadline.0.saturating_sub(monotonic_ns());
                let tv = timeval {
                    tv_sec: (left / 1_000_000_000) as _,
                    tv_usec: (left % 1_000_000_000 / 1000) as _,
                };
                // As in the kernel: when the time cannot be written, the result stands.
                // SAFETY: the destination is the program's.
                let _ = unsafe { copy::write_value(timeout, &tv) };
            }
            result
        })
    })())
}

/// `pselect`. The time stays as it is.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn pselect(
    n: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's call.
    let Some(select) = (unsafe { ours(n, [r, w, e]) }) else {
        // SAFETY: the program's call.
        return unsafe { real::pselect(n, r, w, e, timeout, mask) };
    };
    answer((|| {
        // SAFETY: the program's pointers.
        let (length, mask) = unsafe { (read_timespec(timeout)?, read_mask(mask)?) };
        let deadline = deadline_after(length);
        with_mask(mask, deadline, AtOnce::Interrupted, |d| select.run(d))
    })())
}

/// `pselect6` by number: mask and size stand in two words behind `mask`, and what is left of the time is told.
///
/// # Safety
/// The contract of the system call.
pub unsafe fn pselect_by_number(
    n: c_int,
    sets: [*mut fd_set; 3],
    timeout: *mut timespec,
    mask: *const [usize; 2],
) -> c_long {
    // SAFETY: the program's call.
    let Some(select) = (unsafe { ours(n, sets) }) else {
        let [r, w, e] = sets.map(|set| set as usize);
        let (number, n) = (libc::SYS_pselect6, n as usize);
        // SAFETY: the program's call.
        return unsafe { real::syscall(number, n, r, w, e, timeout as usize, mask as usize) };
    };
    answer((|| {
        let [at, size] = if mask.is_null() {
            [0; 2]
        } else {
            // SAFETY: any bytes make numbers.
            unsafe { copy::read_value(mask) }.map_err(|_| libc::EFAULT)?
        };
        // SAFETY: the program's pointers.
        let (length, mask) = unsafe {
            let length = read_timespec(timeout)?;
            (length, read_sized_mask(at as *const sigset_t, size)?)
        };
        let deadline = deadline_after(length);
        let result = with_mask(mask, deadline, AtOnce::Interrupted, |d| select.run(d));
        // SAFETY: the program's pointer.
        unsafe { write_left(timeout, length, deadline) };
        result
    })())
    .into()
}
