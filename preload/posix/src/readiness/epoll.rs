//! `epoll_create`, `epoll_ctl`, `epoll_wait` and their kin.
//!
//! The program's instance stays a kernel one. Sockets of ours stand in a list beside it ([`Epoll`]), made when the first one
//! is added; a wait then looks at both, and drives with the kernel's instance as company.

use core::ffi::{c_int, c_uint};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::sync::Arc;

use libc::{epoll_event, pollfd, sigset_t, timespec};
use sidewire_engine::Instant;
use sidewire_uapi::poll::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT,
    EPOLLWAKEUP, POLLERR, POLLHUP, POLLIN, POLLOUT,
};
use smallvec::SmallVec;
use syscalls::{Sysno, syscall};

use super::interest::{Epoll, Item, kernel_ctl};
use super::{AtOnce, answer, deadline_after, deadline_ms, read_mask, read_timespec, with_mask};
use crate::driver::{self, Woken};
use crate::fdtable::{self, MAX_FD};
use crate::file::File;
use crate::lock::Mutex;
use crate::signals::ERESTARTSYS;
use crate::stack::{NetStack, monotonic_ns};
use crate::wait::Waiter;
use crate::{copy, real, round, signals};

mod used;

pub(crate) use used::{Used, keep_for_users, keep_range_for_users, watched};

/// What is known of a descriptor number, to be read without a lock.
static FACTS: [AtomicU8; MAX_FD] = [const { AtomicU8::new(0) }; MAX_FD];
/// An epoll instance, made in this process.
const EPOLL: u8 = 1;
/// It has a record in [`INSTANCES`].
const KNOWN: u8 = 2;
/// It was put into another instance.
const NESTED: u8 = 4;

/// Highest number in [`FACTS`] of which anything was ever known.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

static INSTANCES: Mutex<Instances> = Mutex::new(Instances {
    known: BTreeMap::new(),
    twins: Vec::new(),
    nests: Vec::new(),
});

/// An instance was ever put into another one.
static NESTING: AtomicBool = AtomicBool::new(false);

struct Instances {
    /// By each of their numbers.
    known: BTreeMap<c_int, Arc<Epoll>>,
    /// Numbers that lead to the same instance, of instances without a record: two and more.
    twins: Vec<Vec<c_int>>,
    /// Which instance stands in which, by the numbers that were used: the outer one first.
    nests: Vec<(c_int, c_int)>,
}

impl Instances {
    /// The other numbers of an instance that gets its record.
    fn take_twins(&mut self, epfd: c_int) -> Vec<c_int> {
        let at = self.twins.iter().position(|all| all.contains(&epfd));
        at.map_or_else(Vec::new, |at| self.twins.swap_remove(at))
    }

    fn forget_twin(&mut self, fd: c_int) {
        self.twins.retain_mut(|all| {
            all.retain(|n| *n != fd);
            all.len() > 1
        });
    }

    /// `new` leads to the same instance as `old`, which has no record.
    fn note_twin(&mut self, old: c_int, new: c_int) {
        match self.twins.iter_mut().find(|all| all.contains(&old)) {
            Some(all) => all.push(new),
            None => self.twins.push(vec![old, new]),
        }
    }
}

/// Threads that sleep in the real `epoll_wait`, by descriptor number modulo the size: when the first socket of ours comes
/// to their instance, they have to change over one after the other.
static SLEEPERS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

fn sleepers(epfd: c_int) -> &'static AtomicU32 {
    &SLEEPERS[epfd as usize % SLEEPERS.len()]
}

/// Events that one wait brings without an allocation.
const FEW: usize = 64;
/// Linux's limit on `maxevents`.
const MAX_EVENTS: usize = i32::MAX as usize / size_of::<epoll_event>();

fn facts(fd: c_int) -> u8 {
    usize::try_from(fd)
        .ok()
        .and_then(|fd| FACTS.get(fd))
        .map_or(0, |f| f.load(Ordering::Acquire))
}

fn note(fd: c_int, fact: u8) {
    if let Some(f) = usize::try_from(fd).ok().and_then(|fd| FACTS.get(fd)) {
        f.fetch_or(fact, Ordering::AcqRel);
        HIGHEST.fetch_max(fd as usize, Ordering::Relaxed);
    }
}

fn known(epfd: c_int) -> Option<Arc<Epoll>> {
    if facts(epfd) & KNOWN == 0 {
        return None;
    }
    let _inside = signals::enter();
    INSTANCES.lock().known.get(&epfd).cloned()
}

/// An instance has this number now.
pub(crate) fn created(fd: c_int) {
    if fd >= 0 {
        forget(fd);
        note(fd, EPOLL);
    }
}

/// The number is closed, or was given to something else.
#[inline]
pub(crate) fn forget(fd: c_int) {
    if facts(fd) != 0 {
        forget_number(fd);
    }
}

#[cold]
fn forget_number(fd: c_int) {
    let before = FACTS[fd as usize].swap(0, Ordering::AcqRel);
    let _inside = signals::enter();
    let epoll = {
        let mut all = INSTANCES.lock();
        all.nests
            .retain(|(outer, inner)| *outer != fd && *inner != fd);
        if before & KNOWN == 0 {
            all.forget_twin(fd);
            return;
        }
        all.known.remove(&fd)
    };
    let Some(epoll) = epoll else {
        return;
    };
    let last = {
        let mut state = epoll.state.lock();
        state.numbers.retain(|n| *n != fd);
        state.numbers.is_empty()
    };
    if last {
        epoll.closed.store(true, Ordering::SeqCst);
        if epoll.users.load(Ordering::SeqCst) == 0 {
            epoll.dissolve();
        }
    }
}

fn known_in(first: c_uint, last: c_uint) -> SmallVec<[c_int; 8]> {
    let all = INSTANCES.lock();
    let known = all.known.keys().copied();
    known
        .filter(|fd| (first..=last).contains(&(*fd as c_uint)))
        .collect()
}

/// All numbers in `first..=last` are closed.
pub(crate) fn forget_range(first: c_uint, last: c_uint) {
    known_in(first, last).into_iter().for_each(forget_number);
}

/// `new` leads to the same instance as `old`, if that is one.
pub(crate) fn duplicated(old: c_int, new: c_int) {
    if new < 0 || old == new {
        return;
    }
    // Who polls the number finds the new instance behind it.
    let polled = known(new).is_some_and(|e| e.is_polled());
    forget(new);
    let facts = facts(old);
    if facts == 0 {
        return;
    }
    let _inside = signals::enter();
    let mut all = INSTANCES.lock();
    // Under the lock: it may get its record at this moment.
    let facts = facts | self::facts(old);
    if facts & KNOWN == 0 {
        all.note_twin(old, new);
    } else if let Some(epoll) = all.known.get(&old).cloned() {
        epoll.state.lock().numbers.push(new);
        if polled {
            epoll.watch();
        }
        all.known.insert(new, epoll);
    }
    note(new, facts);
}

/// Who drives an instance in which sockets of ours stand.
pub(crate) fn driver_of(fd: c_int) -> Option<&'static NetStack> {
    Some(known(fd)?.stack)
}

/// A file began to listen: its shadow, which serves clients on this host, joins the kernel's instances.
pub(crate) fn listening(file: &'static File) {
    let all: SmallVec<[Arc<Epoll>; 4]> = INSTANCES.lock().known.values().cloned().collect();
    for epoll in all {
        epoll.file_listens(file);
    }
}

/// A file listens no more, or elsewhere: what served clients on this host leaves the kernel's instances.
pub(crate) fn listens_no_more(file: &'static File) {
    let all: SmallVec<[Arc<Epoll>; 4]> = INSTANCES.lock().known.values().cloned().collect();
    for epoll in all {
        epoll.file_listens_no_more(file);
    }
}

/// Locks the list of instances before a fork, and unlocks it after, in parent and child.
pub(crate) fn across_fork(before: bool) {
    if before {
        core::mem::forget(INSTANCES.lock());
    } else {
        // SAFETY: this thread locked it before the fork.
        unsafe { INSTANCES.force_unlock() };
    }
}

/// In a child: the sockets in the lists are its parent's, so its instances are plain ones.
pub(crate) fn after_fork_in_child() {
    let last = HIGHEST.load(Ordering::Relaxed);
    for fact in FACTS.iter().take(last + 1) {
        if fact.load(Ordering::Relaxed) & KNOWN != 0 {
            fact.fetch_and(!KNOWN, Ordering::Relaxed);
        }
    }
}

/// `epoll_create`.
pub fn epoll_create(size: c_int) -> c_int {
    let fd = real::epoll_create(size);
    created(fd);
    fd
}

/// `epoll_create1`.
pub fn epoll_create1(flags: c_int) -> c_int {
    let fd = real::epoll_create1(flags);
    created(fd);
    fd
}

/// Is it an instance? The kernel's own answers: EBADF, EINVAL; ENOENT says yes, and that `fd`, of ours, is not in it.
fn check_instance(epfd: c_int, fd: c_int) -> Result<(), c_int> {
    if facts(epfd) & EPOLL != 0 {
        return Ok(());
    }
    match kernel_ctl(epfd, EPOLL_CTL_DEL, fd, None) {
        Ok(()) | Err(libc::ENOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The record of an instance, made when there is none.
fn known_or_new(epfd: c_int, stack: &'static NetStack) -> Result<Arc<Epoll>, c_int> {
    if let Some(epoll) = known(epfd) {
        return Ok(epoll);
    }
    let mut all = INSTANCES.lock();
    // After a fork there are records of the parent's: nobody looks at them.
    if facts(epfd) & KNOWN != 0
        && let Some(epoll) = all.known.get(&epfd)
    {
        return Ok(epoll.clone());
    }
    let epoll = Epoll::new(epfd, stack)?;
    let mut numbers = all.take_twins(epfd);
    if !numbers.contains(&epfd) {
        numbers.push(epfd);
    }
    if numbers.iter().any(|n| facts(*n) & NESTED != 0) {
        epoll.watch();
    }
    for number in &numbers {
        all.known.insert(*number, epoll.clone());
        note(*number, KNOWN | EPOLL);
    }
    epoll.state.lock().numbers.clone_from(&numbers);
    if numbers
        .iter()
        .any(|n| sleepers(*n).load(Ordering::SeqCst) > 0)
    {
        epoll.signal();
    }
    let nests = all.nests.iter().filter(|(_, i)| numbers.contains(i));
    let outer: SmallVec<[c_int; 2]> = nests.map(|(outer, _)| *outer).collect();
    drop(all);
    // So that a wait there drives, and looks at what is ready here.
    for outer in outer {
        let _ = known_or_new(outer, stack);
    }
    Ok(epoll)
}

/// Linux `EPOLLEXCLUSIVE_OK_BITS`.
const EXCLUSIVE_OK: u32 =
    POLLIN | POLLOUT | POLLERR | POLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

/// `epoll_ctl`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    let file = if signals::in_vfork() {
        None
    } else {
        fdtable::get(fd)
    };
    let Some(file) = file else {
        // SAFETY: the program's call.
        return unsafe { kernel_member(epfd, op, fd, event) };
    };
    let _inside = signals::enter();
    let result = (|| {
        let wanted = if op == EPOLL_CTL_DEL {
            None
        } else {
            // SAFETY: any bytes make an event.
            Some(unsafe { copy::read_value(event) }.map_err(|_| libc::EFAULT)?)
        };
        check_instance(epfd, fd)?;
        let epoll = known_or_new(epfd, file.stack())?;
        let exclusive = wanted.is_some_and(|e| e.events & EPOLLEXCLUSIVE != 0);
        match (op, wanted) {
            (EPOLL_CTL_ADD, Some(e)) if !exclusive || e.events & !EXCLUSIVE_OK == 0 => {
                epoll.add(epfd, fd, &file, e)
            }
            (EPOLL_CTL_MOD, Some(e)) if !exclusive => epoll.modify(epfd, fd, &file, e),
            (EPOLL_CTL_DEL, None) => epoll.delete(epfd, fd, &file),
            _ => Err(libc::EINVAL),
        }
    })();
    answer(result.map(|()| 0))
}

/// `epoll_ctl` of a descriptor of the kernel's.
unsafe fn kernel_member(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    // SAFETY: the program's call.
    let done = unsafe { real::epoll_ctl(epfd, op, fd, event) };
    if done != 0 || facts(fd) | facts(epfd) == 0 {
        return done;
    }
    let _inside = signals::enter();
    if op == EPOLL_CTL_ADD && facts(fd) & EPOLL != 0 {
        note(fd, NESTED);
        INSTANCES.lock().nests.push((epfd, fd));
        NESTING.store(true, Ordering::Relaxed);
        if let Some(inner) = known(fd) {
            inner.watch();
            // So that a wait on the outer one drives.
            let _ = known_or_new(epfd, inner.stack);
        }
    }
    if op == EPOLL_CTL_DEL && facts(fd) & NESTED != 0 {
        INSTANCES.lock().nests.retain(|nest| *nest != (epfd, fd));
    }
    if op != EPOLL_CTL_DEL
        && let Some(epoll) = known(epfd)
    {
        // SAFETY: the kernel has read it: it is there.
        epoll.avoid(epfd, unsafe { (*event).u64 });
    }
    done
}

/// A thread's waiter on an instance; leaves when it goes, and passes an unused wake-up on.
struct Entered<'a> {
    epoll: &'a Epoll,
    waiter: &'a Waiter,
}

impl<'a> Entered<'a> {
    fn new(epoll: &'a Epoll, waiter: &'a Waiter) -> Self {
        // SAFETY: `drop` takes it out, and the borrow keeps it until then.
        unsafe { epoll.state.lock().enter(waiter) };
        Self { epoll, waiter }
    }

    /// Comes anew.
    fn again(&self) {
        // SAFETY: as in `new`.
        unsafe { self.epoll.state.lock().enter(self.waiter) };
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut state = self.epoll.state.lock();
        state.leave(self.waiter);
        state.wake_next();
    }
}

type Events = SmallVec<[epoll_event; FEW]>;

/// What is ready of ours, at most `max`: Linux `ep_send_events`.
fn harvest(epoll: &Epoll, epfd: c_int, max: usize, out: &mut Events) {
    let stack = epoll.stack;
    stack.with(|inner| {
        // As for poll: what has not been read yet comes first.
        if inner.frames_wait() && !epoll.only_unread(inner, max) {
            round::round(stack, inner);
        }
    });
    let items: SmallVec<[Arc<Item>; FEW]> = epoll.state.lock().take_ready(max).collect();
    let mut again: SmallVec<[Arc<Item>; FEW]> = SmallVec::new();
    let mut off: SmallVec<[Arc<Item>; 4]> = SmallVec::new();
    let mut i = 0;
    while i < items.len() {
        // One section for all that follow on the same stack: nearly always all of them.
        let stack = items[i].file.stack();
        stack.with(|inner| {
            while let Some(item) = items.get(i) {
                if !core::ptr::eq(item.file.stack(), stack) {
                    break;
                }
                i += 1;
                let events = item.report(item.level(inner));
                if events == 0 {
                    continue;
                }
                out.push(epoll_event {
                    events,
                    u64: item.data(),
                });
                let how = item.events();
                if how & EPOLLONESHOT != 0 {
                    item.switch_off();
                    if item.in_kernel() {
                        off.push(item.clone());
                    }
                } else if how & EPOLLET == 0 {
                    again.push(item.clone());
                }
            }
        });
    }
    for item in off {
        switch_off_in_kernel(epfd, &item);
    }
    if !again.is_empty() {
        let mut state = epoll.state.lock();
        again.into_iter().for_each(|item| state.put_back(item));
    }
}

fn switch_off_in_kernel(epfd: c_int, item: &Item) {
    let off = epoll_event {
        events: EPOLLONESHOT,
        u64: item.data(),
    };
    let _ = kernel_ctl(epfd, EPOLL_CTL_MOD, item.kernel_fd(), Some(off));
}

/// The kernel's part, without waiting, appended to `out` up to `max` in all. The marker does not count.
fn from_kernel(epoll: &Epoll, epfd: c_int, max: usize, out: &mut Events) -> Result<(), c_int> {
    let ours = out.len();
    let room = max - ours;
    if room == 0 {
        return Ok(());
    }
    used::settle_inner(epoll);
    let mut got = Events::from_elem(epoll_event { events: 0, u64: 0 }, room.min(FEW));
    // SAFETY: the buffer has room for that many events.
    let n = unsafe {
        syscall!(
            Sysno::epoll_pwait,
            epfd,
            got.as_mut_ptr(),
            got.len(),
            0,
            0,
            8
        )
    };
    let n = match n {
        Ok(n) => n,
        Err(syscalls::Errno::EINTR) => 0,
        Err(e) => return Err(e.into_raw()),
    };
    let listeners = n > 0 && epoll.state.lock().listeners > 0;
    for event in got.iter().take(n).filter(|e| e.u64 != epoll.marker()) {
        if listeners && let Some(item) = epoll.state.lock().in_kernel_with(event.u64) {
            if item.events() & EPOLLONESHOT != 0 {
                item.switch_off();
            }
            // The wire's clients and this host's are one queue to the program.
            let data = event.u64;
            if let Some(twin) = out[..ours].iter_mut().find(|e| { e.u64 } == data) {
                twin.events |= event.events;
                continue;
            }
        }
        out.push(*event);
    }
    Ok(())
}

/// Waits on an instance in which sockets of ours stand.
unsafe fn wait(
    epoll: &Epoll,
    mut epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    deadline: Instant,
) -> Result<usize, c_int> {
    let max = match usize::try_from(max) {
        Ok(max) if (1..=MAX_EVENTS).contains(&max) => max,
        _ => return Err(libc::EINVAL),
    };
    if epoll.closed.load(Ordering::SeqCst) {
        epfd = epoll.number().unwrap_or(epfd);
    }
    let mut out = Events::new();
    let waiter = Waiter::new();
    let mut entered = None;
    let mut last = false;
    loop {
        let woken = waiter.fired();
        waiter.reset();
        if max > 1 {
            // The kernel's descriptors get their turn even when ours alone would fill the answer.
            harvest(epoll, epfd, max - 1, &mut out);
            from_kernel(epoll, epfd, max, &mut out)?;
        } else if epoll.turn() {
            harvest(epoll, epfd, 1, &mut out);
            from_kernel(epoll, epfd, 1, &mut out)?;
        } else {
            from_kernel(epoll, epfd, 1, &mut out)?;
            if out.is_empty() {
                harvest(epoll, epfd, 1, &mut out);
            }
        }
        if !out.is_empty() {
            epoll.show_rest();
            let len = size_of_val(out.as_slice());
            // SAFETY: a live slice; the destination is the program's.
            unsafe { copy::to_program(events.cast(), out.as_ptr().cast(), len) }
                .map_err(|_| libc::EFAULT)?;
            return Ok(out.len());
        }
        if last || deadline.0 <= monotonic_ns() {
            return Ok(0);
        }
        if signals::handler_pending() {
            return Err(libc::EINTR);
        }
        if signals::pending() {
            return Err(ERESTARTSYS);
        }
        match &entered {
            None => {
                // Looks once more after it has entered: no edge is missed.
                entered = Some(Entered::new(epoll, &waiter));
                continue;
            }
            // For nothing: Linux takes who is woken off the list.
            Some(entered) if woken => entered.again(),
            Some(_) => {}
        }
        let mut extra = [pollfd {
            fd: epfd,
            events: libc::POLLIN,
            revents: 0,
        }];
        match driver::sleep(epoll.stack, &waiter, deadline, &mut extra, None) {
            Woken::Timeout => last = true,
            Woken::Event | Woken::Extra | Woken::Signal => {}
        }
        // Another thread may have closed the number, or put something else behind it.
        epfd = epoll.number().unwrap_or(epfd);
    }
}

/// Any of the three waits. `plain` is the real function, for an instance without sockets of ours; while a thread sleeps in
/// it, the first one may be added: then the marker's event sends it over to our wait.
unsafe fn epoll_wait_any(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    deadline: Result<Instant, c_int>,
    mask: *const sigset_t,
    plain: impl Fn() -> c_int,
) -> c_int {
    if facts(epfd) == 0 || signals::in_vfork() {
        return plain();
    }
    loop {
        if facts(epfd) & KNOWN != 0 {
            return answer((|| {
                let deadline = deadline?;
                // SAFETY: the program's pointer.
                let mask = unsafe { read_mask(mask) }?;
                // Nothing is held where handlers run, which may leave the call, and where a cancelled thread ends.
                with_mask(mask, deadline, AtOnce::Over, |deadline| {
                    let epoll = Used::new(epfd).ok_or(libc::EBADF)?;
                    // SAFETY: the program's pointer.
                    unsafe { wait(epoll.epoll(), epfd, events, max, deadline) }
                })
            })());
        }
        let sleepers = sleepers(epfd);
        sleepers.fetch_add(1, Ordering::SeqCst);
        if facts(epfd) & KNOWN != 0 {
            sleepers.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let n = plain();
        sleepers.fetch_sub(1, Ordering::SeqCst);
        let (1.., Some(epoll)) = (n, known(epfd)) else {
            return n;
        };
        // SAFETY: the kernel wrote n events there.
        let left = unsafe { without_marker(events, n as usize, epoll.marker()) };
        if left < n as usize && sleepers.load(Ordering::SeqCst) > 0 {
            // Those who still sleep in the kernel are to come over as well.
            epoll.signal();
        }
        if left > 0 {
            return left as c_int;
        }
    }
}

/// Takes the marker out of events that the kernel wrote; how many are left.
unsafe fn without_marker(events: *mut epoll_event, n: usize, marker: u64) -> usize {
    // SAFETY: the kernel wrote n events there.
    let events = unsafe { core::slice::from_raw_parts_mut(events, n) };
    match events.iter().position(|e| { e.u64 } == marker) {
        None => n,
        Some(at) => {
            events.copy_within(at + 1.., at);
            n - 1
        }
    }
}

/// `epoll_wait`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    let end = if facts(epfd) == 0 {
        Instant::NEVER
    } else {
        deadline_ms(timeout)
    };
    // SAFETY: the program's call.
    unsafe {
        epoll_wait_any(epfd, events, max, Ok(end), core::ptr::null(), || {
            real::epoll_wait(epfd, events, max, timeout)
        })
    }
}

/// `epoll_pwait`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    let end = if facts(epfd) == 0 {
        Instant::NEVER
    } else {
        deadline_ms(timeout)
    };
    // SAFETY: the program's call.
    unsafe {
        epoll_wait_any(epfd, events, max, Ok(end), mask, || {
            real::epoll_pwait(epfd, events, max, timeout, mask)
        })
    }
}

/// `epoll_pwait2`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn epoll_pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the program's call.
    unsafe {
        let end = if facts(epfd) == 0 {
            Ok(Instant::NEVER)
        } else {
            read_timespec(timeout).map(deadline_after)
        };
        epoll_wait_any(epfd, events, max, end, mask, || {
            real::epoll_pwait2(epfd, events, max, timeout, mask)
        })
    }
}
