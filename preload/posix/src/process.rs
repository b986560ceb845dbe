//! Doubling and end of a process.
//!
//! A connection belongs to the process that made it. After fork the child's descriptors are its parent's sockets still, of
//! which it has the kernel's shell only: it is told so in one line. When a process ends, or becomes another program, its
//! sockets are closed as the kernel would close them; what is still unacknowledged then is driven on by an *undertaker*, a
//! process that is forked for this and holds the packet socket and the port holders until the connections are done.

use core::ffi::{CStr, c_int};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use once_cell::sync::OnceCell;
use sidewire_link::reserve;

use crate::calls::handover::{self, Refused};
use crate::calls::socket::Reason;
use crate::file::{self, File};
use crate::stack::{self, Unavailable};
use crate::{
    company, config, fdtable, inspection, log, readiness::epoll, real, signals, stats, stdio,
    syscall, ubuf, undertaker,
};

/// Whether the engine is to carry this process's TCP. The first question reads the settings, and is the moment from which
/// the process takes part: before it, nothing is registered, allocated or opened.
#[inline]
pub fn enabled() -> bool {
    static STARTED: OnceCell<bool> = OnceCell::new();
    *STARTED.get_or_init(|| {
        let enabled = config::get().enabled;
        FIRST.store(syscall::getpid() as u32, Ordering::Relaxed);
        if enabled {
            // SAFETY: the handlers are safe to call at any fork.
            unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(forked)) };
            // quick_exit runs no destructors, and what it calls in the end no hook sees.
            // SAFETY: the handler takes no notice of its argument, and this library is never unloaded.
            unsafe { __cxa_at_quick_exit(at_quick_exit, core::ptr::null_mut()) };
        }
        enabled
    })
}

/// Hides the packet sockets that were handed over, before the program closes what it does not know. Allocates nothing,
/// opens nothing; without the launcher's variable it does nothing.
pub fn adopt_sockets() {
    // SAFETY: a live string, and nobody has changed the environment yet.
    let value = unsafe { libc::getenv(reserve::VARIABLE.as_ptr()) };
    if !value.is_null() {
        // SAFETY: a string of the environment.
        reserve::adopt(unsafe { CStr::from_ptr(value) }.to_bytes());
    }
}

unsafe extern "C" {
    /// The C library's at_quick_exit(3), as its header calls it.
    fn __cxa_at_quick_exit(
        handler: unsafe extern "C" fn(*mut core::ffi::c_void),
        dso: *mut core::ffi::c_void,
    ) -> c_int;
}

unsafe extern "C" fn at_quick_exit(_: *mut core::ffi::c_void) {
    before_exit();
}

/// The process in which [`enabled`] was asked first.
static FIRST: AtomicU32 = AtomicU32::new(0);

/// True in a process that used TCP itself; false in a forked child that has only inherited it.
pub(crate) fn took_part() -> bool {
    undertaker::any() || FIRST.load(Ordering::Relaxed) == syscall::getpid() as u32
}

/// The process uses TCP, and the kernel has to carry it. One line a process; with `strict` it ends with that line.
#[cold]
pub fn unavailable(why: Unavailable) {
    static SAID: AtomicBool = AtomicBool::new(false);
    let config = config::get();
    if config.strict {
        log::line(format_args!("{why}; SIDEWIRE_STRICT: stopping"));
        // SAFETY: ends the process.
        unsafe { real::_exit(1) };
    }
    if !SAID.swap(true, Ordering::Relaxed) {
        crate::warning!("{why}; TCP stays with the kernel");
    }
}

/// Before a fork: parent and child both have every socket afterwards, so all of them become the kernel's. (Whether the child
/// will use one cannot be known: close-on-exec does not say so.) What cannot be given stays the parent's; a child that uses
/// it is told then ([`foreign`]).
unsafe extern "C" fn before_fork() {
    if !undertaker::working() {
        share(|_| true, false);
    }
    // What the child uses of ours must not be locked by a thread that it does not have.
    core::mem::forget(signals::enter());
    for lists in LISTS {
        lists(true);
    }
}

/// The global lists, in the order of their locks.
const LISTS: [fn(bool); 5] = [
    epoll::across_fork,
    stdio::across_fork,
    stack::across_fork,
    file::across_fork,
    ubuf::across_fork,
];

/// After a fork, in the parent; in the child first of all.
unsafe extern "C" fn after_fork() {
    for lists in LISTS.iter().rev() {
        lists(false);
    }
    drop(signals::still_inside());
}

fn close_on_exec(fd: c_int) -> bool {
    syscall::fcntl(fd, libc::F_GETFD, 0).unwrap_or(0) & libc::FD_CLOEXEC != 0
}

/// Gives sockets to the kernel. What cannot be given is one line, when `tell` says so.
fn share(which: impl Fn(c_int) -> bool, tell: bool) {
    if !stack::any() || signals::in_vfork() || !undertaker::any() {
        return;
    }
    let _inside = signals::enter();
    fdtable::for_each(|fd| {
        if !which(fd) {
            return;
        }
        let why = match handover::give(fd, Reason::Shared) {
            Ok(()) => return,
            Err(Refused::Kernel(_)) => "the kernel did not take it",
            Err(_) if !tell => return,
            Err(Refused::Capability) => "that takes CAP_NET_ADMIN",
            Err(Refused::State(_)) => "it is being opened or closed",
        };
        crate::warning!(
            "descriptor {fd} cannot be shared with another process: {why} (preload/DEVIATIONS.md)"
        );
    });
}

/// In the child of a fork.
unsafe extern "C" fn forked() {
    // SAFETY: the thread that forked is the one that goes on here.
    unsafe { after_fork() };
    if undertaker::working() {
        return;
    }
    stack::forked();
    company::forked();
    signals::cancel::forget_tid();
    epoll::after_fork_in_child();
    ubuf::forked();
    // The parent's packet socket and port holders must end with the parent.
    sidewire_link::fd::close_internal();
}

/// A descriptor whose connection is not this process's was used here.
#[cold]
pub(crate) fn foreign(fd: c_int, file: &File) {
    if file.stack().owned() {
        // Left to an undertaker: this process ends.
        return;
    }
    static SAID: AtomicU32 = AtomicU32::new(0);
    const LINES: u32 = 4;
    if SAID.fetch_add(1, Ordering::Relaxed) < LINES {
        crate::warning!(
            "descriptor {fd} is a connection of the process that opened it; process {} cannot use it (preload/DEVIATIONS.md)",
            syscall::getpid()
        );
    }
}

/// Before the process ends, by `_exit` or by running off the end of `exit`. Once; later calls do nothing.
pub fn before_exit() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if config::loaded().is_none() || signals::in_vfork() || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    let _inside = signals::enter();
    inspection::close();
    undertaker::close_all(|_| {});
    stats::write();
    ignore_sigpipe();
    undertaker::take_over();
}

/// What other threads still send in the moment before the process is gone finds no connection; that must not end it in
/// another way than the program chose.
fn ignore_sigpipe() {
    // SAFETY: all-zero is a valid sigaction; live locals.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        if real::sigaction(libc::SIGPIPE, core::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_DFL
        {
            action.sa_sigaction = libc::SIG_IGN;
            real::sigaction(libc::SIGPIPE, &raw const action, core::ptr::null_mut());
        }
    }
}

/// Before the process becomes another program. What it inherits becomes the kernel's; the rest is closed. When the call fails
/// the process goes on without these connections.
pub fn before_exec() {
    if !stack::any() || signals::in_vfork() || undertaker::working() {
        return;
    }
    let _inside = signals::enter();
    inspection::close();
    share(|fd| !close_on_exec(fd), true);
    undertaker::close_all(|_| {});
    stats::write();
    undertaker::take_over();
}

/// `_Fork`, which runs no handlers.
///
/// # Safety
/// The contract of the C function.
#[allow(non_snake_case)]
pub unsafe fn _Fork() -> libc::pid_t {
    if config::loaded().is_some() {
        // SAFETY: as before any fork.
        unsafe { before_fork() };
    }
    // SAFETY: the program's call.
    let pid = unsafe { real::_Fork() };
    if config::loaded().is_some() {
        // SAFETY: as after any fork.
        unsafe { if pid == 0 { forked() } else { after_fork() } };
    }
    pid
}

/// `daemon`: the caller ends inside libc, unseen, and its child goes on with everything.
pub fn daemon(nochdir: c_int, noclose: c_int) -> c_int {
    share(|_| true, true);
    // SAFETY: numbers.
    unsafe { real::daemon(nochdir, noclose) }
}

/// `posix_spawn_file_actions_adddup2`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn posix_spawn_file_actions_adddup2(
    actions: *mut libc::posix_spawn_file_actions_t,
    fd: c_int,
    new: c_int,
) -> c_int {
    share(|ours| ours == fd, true);
    // SAFETY: the program's call.
    unsafe { real::posix_spawn_file_actions_adddup2(actions, fd, new) }
}
