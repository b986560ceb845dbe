//! poll, select and epoll over sets in which descriptors of ours and the kernel's are mixed.
//!
//! Sockets of ours never stand in a kernel wait: their levels come from the engine, their edges from their wait queues. A
//! listener is both: its shadow is a kernel listener for clients on this host. The thread that waits drives, with the
//! kernel's descriptors of its set as company in the driver's own `ppoll`.

use core::ffi::c_int;

use libc::{pollfd, sigset_t, timespec};
use sidewire_engine::Instant;
use sidewire_uapi::poll::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLRDHUP, POLLRDNORM,
    POLLWRBAND, POLLWRNORM,
};
use smallvec::SmallVec;

use crate::driver::{self, Woken};
use crate::file::FileRef;
use crate::signals::{self, ERESTARTSYS};
use crate::stack::{Inner, NetStack, monotonic_ns};
use crate::syscall;
use crate::wait::Waiter;
use crate::{copy, fdtable, raw, round};

pub mod epoll;
mod interest;
pub mod poll;
pub mod select;

/// Entries of a set that need no allocation: a set of so many is cheap to build for each call of a program that polls before
/// every read and write.
const FEW: usize = 8;

/// One descriptor of a set.
pub(crate) struct Watch {
    /// Its number.
    fd: c_int,
    /// Poll bits asked for.
    events: u32,
    /// Poll bits found, among those and ERR, HUP, NVAL.
    revents: u32,
    /// The file, when it is ours: the one that is waited for, whatever becomes of the number meanwhile (Linux
    /// `poll_table_entry`).
    file: Option<FileRef>,
    /// What the kernel is asked about: itself when it is the kernel's, the listener of local clients of one of ours.
    kernel: Option<c_int>,
}

impl Watch {
    fn new(fd: c_int, events: u32, file: Option<FileRef>) -> Self {
        // poll passes over negative numbers: they need no system call.
        let kernel = match &file {
            Some(file) => file.kernel_listener(),
            None => Some(fd).filter(|fd| *fd >= 0),
        };
        Self {
            fd,
            events,
            revents: 0,
            file,
            kernel,
        }
    }

    /// The file, where the number leads to it still: Linux `do_pollfd` looks the number up each time.
    fn here(&self) -> Option<&FileRef> {
        let file = self.file.as_ref()?;
        fdtable::is_of(self.fd, file).then_some(file)
    }

    /// The number leads elsewhere by now, or nowhere.
    fn astray(&self) -> bool {
        self.file.is_some() && self.here().is_none()
    }
}

/// The bits of the engine's that wake who waits for the poll bits `events`: Linux wakes with whole groups of them
/// (`sock_def_readable`, `sk_stream_write_space`), of which the engine names the first.
fn wakes(events: u32) -> u32 {
    let mut mask = events;
    for (group, first) in [
        (POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND, POLLIN),
        (POLLOUT | POLLWRNORM | POLLWRBAND, POLLOUT),
    ] {
        if events & group != 0 {
            mask |= first;
        }
    }
    mask
}

/// A set of descriptors, being waited for.
struct Set {
    watches: SmallVec<[Watch; FEW]>,
    /// The kernel's part, in the order of `watches`.
    kernel: SmallVec<[pollfd; FEW]>,
    /// Instances of epoll in which sockets of ours stand, being polled.
    epolls: SmallVec<[epoll::Used; 1]>,
    /// Poll bits that are reported unasked: ERR and HUP for poll, none for select.
    always: u32,
    /// Poll bits that wake, asked for or not.
    key: u32,
    /// A number that is closed already ends the wait: Linux `max_select_fd`.
    refuses_closed: bool,
    /// Who drives while we sleep.
    stack: &'static NetStack,
}

/// Waiters of one thread in the queues of a set; they leave when it goes.
struct Queued<'a> {
    watches: &'a [Watch],
    waiter: &'a Waiter,
}

impl<'a> Queued<'a> {
    fn new(watches: &'a [Watch], key: u32, waiter: &'a Waiter) -> Self {
        for w in watches {
            if let Some(file) = &w.file {
                // SAFETY: `drop` takes it out, and the borrow keeps the waiter until then.
                unsafe { file.wait.add(waiter, wakes(w.events | key)) };
            }
        }
        Self { watches, waiter }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        for file in self.watches.iter().filter_map(|w| w.file.as_ref()) {
            file.wait.remove(self.waiter);
        }
    }
}

/// What [`levels`] saw.
#[derive(Default)]
struct Seen {
    /// A file is ready.
    ready: bool,
    /// A number leads elsewhere: nothing was looked at there.
    astray: bool,
}

/// Looks at the levels of the files of ours, after taking what the ring holds: in Linux what has arrived shows, whatever
/// else is ready. The result goes to `revents` through `found`.
fn levels(watches: &[Watch], always: u32, mut found: impl FnMut(usize, u32)) -> Seen {
    let mut seen = Seen::default();
    let mut i = 0;
    while i < watches.len() {
        let Some(first) = &watches[i].file else {
            i += 1;
            continue;
        };
        // One section for all that follow on the same stack: nearly always the whole set.
        let stack = first.stack();
        let from = i;
        i = stack.with(|inner| {
            let mut look = |inner: &mut Inner| {
                let (mut any, mut unread) = (false, true);
                let mut i = from;
                while let Some(w) = watches.get(i) {
                    if let Some(file) = &w.file {
                        if !core::ptr::eq(file.stack(), stack) {
                            break;
                        }
                        let revents = match w.here() {
                            Some(file) => inner.engine.poll(file.id()) & (w.events | always),
                            None => {
                                seen.astray = true;
                                0
                            }
                        };
                        found(i, revents);
                        any |= revents != 0;
                        // Who asks for the end is to hear of it before it has read.
                        unread &=
                            revents == 0 || revents & POLLIN != 0 && w.events & POLLRDHUP == 0;
                    }
                    i += 1;
                }
                (i, any, unread)
            };
            // What the program has not read yet comes first, when nothing else is ready: frames that wait stay with the
            // kernel, and what they would bring would only grow cold.
            let (next, any, _) = match look(inner) {
                unread @ (_, true, true) => unread,
                _ if round::poll_once(stack, inner) => look(inner),
                looked => looked,
            };
            seen.ready |= any;
            next
        });
    }
    seen
}

impl Set {
    fn new(always: u32, stack: &'static NetStack) -> Self {
        Self {
            watches: SmallVec::new(),
            kernel: SmallVec::new(),
            epolls: SmallVec::new(),
            always,
            key: POLLERR | POLLHUP,
            refuses_closed: false,
            stack,
        }
    }

    /// Adds a descriptor; the file stays for as long as the set.
    fn add(&mut self, fd: c_int, events: u32) {
        let watch = Watch::new(fd, events, fdtable::get(fd));
        if watch.file.is_none() {
            self.epolls.extend(epoll::watched(fd));
        }
        if let Some(fd) = watch.kernel {
            self.kernel.push(pollfd {
                fd,
                events: events as i16,
                revents: 0,
            });
        }
        self.watches.push(watch);
    }

    /// Levels of ours into `revents`.
    fn look(&mut self) -> Seen {
        if !self.epolls.is_empty() {
            let stack = self.stack;
            stack.with(|inner| round::poll_once(stack, inner));
        }
        let mut found: SmallVec<[u32; FEW]> = SmallVec::from_elem(0, self.watches.len());
        let seen = levels(&self.watches, self.always, |i, revents| found[i] = revents);
        for (w, revents) in self.watches.iter_mut().zip(found) {
            w.revents = revents;
        }
        seen
    }

    /// What is ready now where the number of `watch` leads by now: POLLNVAL where that is nowhere.
    fn look_elsewhere(&self, watch: &Watch) -> u32 {
        let mut there = Self::new(self.always, self.stack);
        there.add(watch.fd, watch.events);
        there.look();
        // An error is of memory only.
        let _ = there.ask_kernel();
        there.watches[0].revents
    }

    /// True when something is ready behind a number that leads elsewhere by now.
    fn ready_elsewhere(&self) -> bool {
        let mut astray = self.watches.iter().filter(|w| w.astray());
        astray.any(|w| self.look_elsewhere(w) != 0)
    }

    /// Adds what the kernel's `revents` say.
    fn take_kernel(&mut self) {
        let kernel = self.watches.iter_mut().filter(|w| w.kernel.is_some());
        for (w, k) in kernel.zip(&mut self.kernel) {
            let revents = u32::from(k.revents as u16);
            // The listener of local clients may have gone with another thread's shutdown.
            let closed = if w.file.is_none() { POLLNVAL } else { 0 };
            if !w.astray() {
                w.revents |= revents & (w.events | self.always | closed);
            }
            if revents != 0 && w.revents == 0 {
                // Only what nobody asked for, and it stays: negative numbers are passed over.
                k.fd = !k.fd;
            }
        }
    }

    fn ask_kernel(&mut self) -> Result<(), c_int> {
        if self.kernel.is_empty() {
            return Ok(());
        }
        self.epolls.iter().for_each(|e| e.settle());
        match syscall::ppoll(&mut self.kernel, 0, None) {
            Ok(_) | Err(syscall::Errno::EINTR) => {
                self.take_kernel();
                Ok(())
            }
            Err(e) => Err(e.into_raw()),
        }
    }

    /// True when some are the kernel's now, or ours where they were the kernel's: the set is to be made again.
    fn moved(&self) -> bool {
        let mut moved = false;
        for w in &self.watches {
            let Some(file) = &w.file else {
                moved |= fdtable::is_ours(w.fd) && fdtable::get(w.fd).is_some();
                continue;
            };
            if file.moved() {
                file.when_moved();
                moved = true;
            }
            // The kernel listens at another socket than before.
            moved |= file.kernel_listener() != w.kernel;
        }
        moved
    }

    /// All levels into `revents`; how many are ready. `asked`: the kernel's are in its part already.
    fn look_at_all(&mut self, asked: bool) -> Result<usize, c_int> {
        let seen = self.look();
        if asked {
            self.take_kernel();
        } else {
            // Before a sleep, too: it may begin with a spin, which looks at the ring only.
            self.ask_kernel()?;
        }
        if seen.astray {
            for i in 0..self.watches.len() {
                if self.watches[i].astray() {
                    self.watches[i].revents = self.look_elsewhere(&self.watches[i]);
                }
            }
        }
        Ok(self.ready())
    }

    fn ready(&self) -> usize {
        self.watches.iter().filter(|w| w.revents != 0).count()
    }

    /// Waits until something is ready or the deadline has passed; how many are ready. The thread is inside.
    ///
    /// # Errors
    /// EINTR; what the kernel says of its descriptors. ERESTARTSYS, too, where it has to be made again.
    fn wait(&mut self, deadline: Instant) -> Result<usize, c_int> {
        let ready = self.look_at_all(false)?;
        if self.moved() {
            return Err(ERESTARTSYS);
        }
        let closed = |w: &Watch| w.revents & POLLNVAL != 0;
        if self.refuses_closed && self.watches.iter().any(closed) {
            return Err(libc::EBADF);
        }
        if ready > 0 || deadline.0 <= monotonic_ns() {
            return Ok(ready);
        }
        let waiter = Waiter::new();
        loop {
            let woken = {
                // Stands in the queues before it looks at the levels: no edge is missed.
                let _queued = Queued::new(&self.watches, self.key, &waiter);
                loop {
                    waiter.reset();
                    if self.moved() {
                        return Err(ERESTARTSYS);
                    }
                    let seen = levels(&self.watches, self.always, |_, _| {});
                    if seen.ready || seen.astray && self.ready_elsewhere() {
                        break Woken::Event;
                    }
                    if signals::pending() {
                        break Woken::Signal;
                    }
                    let woken =
                        driver::sleep(self.stack, &waiter, deadline, &mut self.kernel, None);
                    match woken {
                        Woken::Event => {}
                        // libc's own signals do not show.
                        Woken::Signal if !signals::pending() => {}
                        Woken::Extra | Woken::Signal | Woken::Timeout => break woken,
                    }
                }
            };
            let asked = woken == Woken::Extra && self.epolls.is_empty();
            match (self.look_at_all(asked)?, woken) {
                (0, Woken::Signal) if signals::handler_pending() => return Err(libc::EINTR),
                (0, Woken::Signal) => return Err(ERESTARTSYS),
                (0, Woken::Event | Woken::Extra) => {}
                (ready, _) => return Ok(ready),
            }
        }
    }
}

/// Who drives while a set is waited for; none when it has nothing of ours in it.
fn driver_of(fds: impl Iterator<Item = c_int> + Clone) -> Option<&'static NetStack> {
    let ours = |fd| Some(fdtable::get(fd)?.stack());
    fds.clone()
        .find_map(ours)
        .or_else(|| fds.into_iter().find_map(epoll::driver_of))
}

/// What a wait with no time makes of signals that only its mask lets through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtOnce {
    /// They end it (`do_poll`, `do_select`).
    Interrupted,
    /// It does not look at them (`ep_poll`).
    Over,
}

/// Runs a wait with the program's signal mask in place of the thread's own, as ppoll and its kin do: the mask is set once
/// handlers are deferred, so that a signal which it lets through ends the wait, and is taken back after they have run. Where
/// something is ready already the mask lets nothing through: Linux sets it back before it looks at signals.
fn with_mask(
    mask: Option<u64>,
    deadline: Instant,
    at_once: AtOnce,
    mut body: impl FnMut(Instant) -> Result<usize, c_int>,
) -> Result<usize, c_int> {
    loop {
        signals::test_cancel(None);
        let inside = signals::enter();
        if let Some(mask) = mask {
            let ready = body(Instant::ZERO);
            let over = deadline.0 <= monotonic_ns()
                && (at_once == AtOnce::Over || signals::blocked_pending() & !mask == 0);
            match ready {
                Err(ERESTARTSYS) => continue,
                Ok(0) if !over => {}
                ready => return ready,
            }
        }
        let before = mask.map(|m| signals::mask(libc::SIG_SETMASK, Some(m)));
        let mut result = body(deadline);
        if before.is_some() && result == Ok(0) && signals::handler_pending() {
            result = Err(libc::EINTR);
        }
        drop(inside);
        if let Some(before) = before {
            signals::mask(libc::SIG_SETMASK, Some(before));
        }
        // Not a signal of the program's, but a cancellation, for which the loop tests.
        if !matches!(result, Err(ERESTARTSYS)) {
            return result;
        }
    }
}

/// The program's signal mask, if it gave one.
unsafe fn read_mask(mask: *const sigset_t) -> Result<Option<u64>, c_int> {
    if mask.is_null() {
        return Ok(None);
    }
    // SAFETY: any bytes make a u64; the kernel's set is the first eight bytes.
    unsafe { copy::read_value(mask.cast::<u64>()) }
        .map(Some)
        .map_err(|_| libc::EFAULT)
}

/// When a wait of that many nanoseconds ends.
fn deadline_after(ns: Option<u64>) -> Instant {
    match ns {
        None => Instant::NEVER,
        Some(0) => Instant(0),
        Some(ns) => Instant(monotonic_ns().saturating_add(ns)),
    }
}

/// The end of a wait given in milliseconds; negative is never.
fn deadline_ms(timeout: c_int) -> Instant {
    deadline_after(u64::try_from(timeout).ok().map(|ms| ms * 1_000_000))
}

/// The length of a wait given as a timespec; null is for ever.
unsafe fn read_timespec(timeout: *const timespec) -> Result<Option<u64>, c_int> {
    if timeout.is_null() {
        return Ok(None);
    }
    // SAFETY: any bytes make a timespec.
    let ts = unsafe { copy::read_value(timeout) }.map_err(|_| libc::EFAULT)?;
    if ts.tv_sec < 0 || !(0..1_000_000_000).contains(&ts.tv_nsec) {
        return Err(libc::EINVAL);
    }
    Ok(Some(
        (ts.tv_sec as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add(ts.tv_nsec as u64),
    ))
}

/// The mask of a call by number, and its size.
unsafe fn read_sized_mask(mask: *const sigset_t, size: usize) -> Result<Option<u64>, c_int> {
    // The kernel knows one size.
    if !mask.is_null() && size != size_of::<u64>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the program's pointer.
    unsafe { read_mask(mask) }
}

/// What is left of a wait until `deadline` (Linux `poll_select_finish`); nothing is told of one that had no time.
unsafe fn write_left(timeout: *mut timespec, length: Option<u64>, deadline: Instant) {
    if length.is_none_or(|ns| ns == 0) {
        return;
    }
    let left = deadline.0.saturating_sub(monotonic_ns());
    let ts = timespec {
        tv_sec: (left / 1_000_000_000) as _,
        tv_nsec: (left % 1_000_000_000) as _,
    };
    // As in the kernel: when the time cannot be written, the result stands.
    // SAFETY: the destination is the program's.
    let _ = unsafe { copy::write_value(timeout, &ts) };
}

/// What a C function returns.
fn answer(result: Result<usize, c_int>) -> c_int {
    match result {
        Ok(n) => n as c_int,
        Err(e) => {
            raw::set_errno(e);
            -1
        }
    }
}
