//! Doubling and end of a process.
//!
//! A connection belongs to the process that made it. After fork the child's descriptors are its parent's sockets still, of
//! which it has the kernel's shell only: it is told so in one line. When a process ends, or becomes another program, its
//! sockets are closed as the kernel would close them; what is still unacknowledged then is driven on by an *undertaker*, a
//! process that is forked for this and holds the packet socket and the port holders until the connections are done.

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::{FILE, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};
use once_cell::sync::OnceCell;
use sidewire_link::reserve;

use crate::calls::handover::{self, Refused};
use crate::calls::pipe_turn;
use crate::calls::socket::Reason;
use crate::exec::{Image, Strings};
use crate::file::{self, File};
use crate::real::CloneFn;
use crate::signals::ending::{self, End};
use crate::stack::{self, Unavailable};
use crate::{
    company, config, copy, fdtable, heap, inspection, log, raw, readiness::epoll, real, signals,
    stats, stdio, syscall, ubuf, undertaker, vfork,
};

/// Whether the engine is to carry this process's TCP. The first question reads the settings, and is the moment from which
/// the process takes part: before it, nothing but [`watch_forks`] is registered, and nothing allocated or opened.
#[inline]
pub fn enabled() -> bool {
    static STARTED: OnceCell<bool> = OnceCell::new();
    *STARTED.get_or_init(|| {
        let enabled = config::get().enabled;
        FIRST.store(syscall::getpid() as u32, Ordering::Relaxed);
        if enabled {
            // quick_exit runs no destructors, and what it calls in the end no hook sees.
            // SAFETY: the handler takes no notice of its argument, and this library is never unloaded.
            unsafe { __cxa_at_quick_exit(at_quick_exit, core::ptr::null_mut()) };
        } else {
            crate::info!("TCP stays with the kernel: enabled = false in the settings");
        }
        enabled
    })
}

/// Has every fork seen from the start. Handlers run in the child in the order in which they came, and before the fork in the
/// reverse one: those of the program then find nothing locked. Allocates nothing.
pub fn watch_forks() {
    // SAFETY: the handlers are safe to call at any fork.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(forked)) };
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

/// The global lists, in the order of their locks, and the heap.
const LISTS: [fn(bool); 8] = [
    epoll::across_fork,
    stdio::across_fork,
    stack::across_fork,
    file::across_fork,
    pipe_turn::across_fork,
    ubuf::across_fork,
    signals::cancel::across_fork,
    heap::across_fork,
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
        if which(fd) {
            give(fd, tell);
        }
    });
}

/// Gives one descriptor's socket to the kernel: another process is about to be sent it.
pub(crate) fn share_one(fd: c_int) {
    if !signals::in_vfork() {
        give(fd, true);
    }
}

fn give(fd: c_int, tell: bool) {
    let why = match handover::give(fd, Reason::Shared) {
        Ok(()) => return,
        Err(Refused::Kernel(_)) => "the kernel did not take it",
        Err(_) if !tell => return,
        Err(Refused::Capability) => "that takes CAP_NET_ADMIN",
        Err(Refused::State(_)) => "it is being opened",
    };
    crate::warning!(
        "descriptor {fd} cannot be shared with another process: {why} (preload/DEVIATIONS.md)"
    );
}

/// In the child of a fork.
unsafe extern "C" fn forked() {
    // SAFETY: by the caller.
    unsafe { forked_with(false) };
}

/// Made by a fork of a process with this library.
static CHILD: AtomicBool = AtomicBool::new(false);

/// True in a child of fork(2) that has not executed another program.
pub(crate) fn is_child() -> bool {
    CHILD.load(Ordering::Relaxed)
}

/// In a child that has memory of its own, with the parent's descriptors or copies of them.
unsafe fn forked_with(parents_files: bool) {
    // SAFETY: the thread that forked is the one that goes on here.
    unsafe { after_fork() };
    if undertaker::working() {
        return;
    }
    CHILD.store(true, Ordering::Relaxed);
    stack::forked();
    company::forked();
    signals::cancel::forked();
    ending::forked();
    epoll::after_fork_in_child();
    ubuf::forked();
    pipe_turn::forked();
    if !parents_files {
        // The parent's packet socket and port holders must end with the parent.
        sidewire_link::fd::close_internal();
    }
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
    if config::loaded().is_none() || signals::in_vfork() || !ending::begin(End::Exit) {
        return;
    }
    let _inside = signals::enter();
    let _whole = signals::cancel::Off::new();
    inspection::close();
    undertaker::close_all(|_| false);
    stats::write();
    undertaker::take_over();
}

/// Before the process becomes another program, if it does. What that inherits becomes the kernel's; the rest is closed. A
/// call that fails against expectation leaves the process without these connections.
///
/// # Safety
/// The contract of the C function that `image` is for.
pub unsafe fn before_exec(image: Image, argv: Strings, envp: Strings) {
    if signals::in_vfork() {
        vfork::pass_on_inherited();
        return;
    }
    if !stack::any() || undertaker::working() {
        return;
    }
    let _inside = signals::enter();
    let _whole = signals::cancel::Off::new();
    // SAFETY: by the caller.
    if !unsafe { image.comes_to_pass(argv, envp) } || !ending::begin(End::Exec) {
        return;
    }
    inspection::close();
    share(|fd| !close_on_exec(fd), true);
    undertaker::close_all(close_on_exec);
    stats::write();
    undertaker::take_over();
}

/// The call has failed for which [`before_exec`] was.
pub fn exec_failed() {
    ending::called_off();
}

/// Makes a child past fork(3), with what the handlers do there. `parents_files`: it gets the parent's descriptors, not copies.
///
/// # Safety
/// `make` doubles the process, if it succeeds, and returns in both, or runs the child by [`Start::run`].
unsafe fn double(parents_files: bool, make: impl FnOnce() -> c_long) -> c_long {
    if config::loaded().is_none() || signals::in_vfork() {
        return make();
    }
    // SAFETY: as before any fork.
    unsafe { before_fork() };
    let pid = make();
    let errno = raw::errno();
    // SAFETY: as after any fork.
    unsafe {
        if pid == 0 {
            forked_with(parents_files);
        } else {
            after_fork();
        }
    }
    raw::set_errno(errno);
    pid
}

/// `_Fork`, which runs no handlers.
///
/// # Safety
/// The contract of the C function.
#[allow(non_snake_case)]
pub unsafe fn _Fork() -> pid_t {
    // SAFETY: the program's call.
    unsafe { double(false, || real::_Fork().into()) as pid_t }
}

/// Flags of a clone that makes a thread, or a child on the memory of its parent.
const SAME_MEMORY: u64 = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;

fn shares_files(flags: u64) -> bool {
    flags & libc::CLONE_FILES as u64 != 0
}

/// `syscall` of fork, clone or clone3, past every handler. A child on a stack of its own returns to where that says, not
/// here: it is left alone.
///
/// # Safety
/// The contract of the system call.
pub unsafe fn clone_by_number(number: c_long, args: [usize; 6]) -> c_long {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the program's call.
    let call = || unsafe { real::syscall(number, a, b, c, d, e, f) };
    let (flags, stack) = match number {
        libc::SYS_clone => (a as u64, b as u64),
        libc::SYS_clone3 => {
            // Of `struct clone_args`, which grows: flags is the first field, stack the sixth.
            let at = a as *const [u64; 6];
            // SAFETY: any bytes make numbers.
            match unsafe { copy::read_value(at) } {
                Ok(fields) => (fields[0], fields[5]),
                Err(_) => return call(),
            }
        }
        _ => (0, 0),
    };
    if flags & SAME_MEMORY != 0 || stack != 0 {
        return call();
    }
    // SAFETY: the child has memory of its own, and goes on here.
    unsafe { double(shares_files(flags), call) }
}

/// Where a child of clone(3) begins.
struct Start {
    function: CloneFn,
    arg: *mut c_void,
    parents_files: bool,
}

impl Start {
    extern "C" fn run(this: *mut c_void) -> c_int {
        // SAFETY: the child has a copy of its parent's stack, where this lies.
        let start = unsafe { &*this.cast::<Start>() };
        // SAFETY: in the child, as after any fork.
        unsafe { forked_with(start.parents_files) };
        let status = (start.function)(start.arg);
        // What comes now ends one thread, seen by nobody: where the pump is another, the process would live on.
        if undertaker::any() {
            before_exit();
            // SAFETY: ends the process.
            unsafe { real::_exit(status) };
        }
        status
    }
}

/// `clone`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn clone(
    function: Option<CloneFn>,
    stack: *mut c_void,
    flags: c_int,
    arg: *mut c_void,
    parent_tid: usize,
    tls: usize,
    child_tid: usize,
) -> c_int {
    let wide = u64::from(flags as u32);
    let new_memory = wide & SAME_MEMORY == 0 && !stack.is_null();
    let seen = new_memory && config::loaded().is_some() && !signals::in_vfork();
    let Some(function) = function.filter(|_| seen) else {
        // SAFETY: the program's call.
        return unsafe { real::clone(function, stack, flags, arg, parent_tid, tls, child_tid) };
    };
    let parents_files = shares_files(wide);
    let mut start = Start {
        function,
        arg,
        parents_files,
    };
    let at = (&raw mut start).cast();
    // SAFETY: the program's call; the child begins at `run`, and never returns here.
    unsafe {
        double(parents_files, || {
            real::clone(
                Some(Start::run),
                stack,
                flags,
                at,
                parent_tid,
                tls,
                child_tid,
            )
            .into()
        }) as c_int
    }
}

/// `daemon`: the caller ends inside libc, unseen, and its child goes on with everything.
pub fn daemon(nochdir: c_int, noclose: c_int) -> c_int {
    share(|_| true, true);
    // SAFETY: numbers.
    unsafe { real::daemon(nochdir, noclose) }
}

/// Before another program is run by a child that no hook sees: it inherits what is not closed. Nothing is told of what cannot
/// be given, since as a rule that program does not know of it.
fn before_spawn() {
    if signals::in_vfork() {
        vfork::pass_on_inherited();
    } else {
        share(|fd| !close_on_exec(fd), false);
    }
}

/// `posix_spawn`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attr: *const posix_spawnattr_t,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    before_spawn();
    // SAFETY: the program's call.
    unsafe { real::posix_spawn(pid, path, actions, attr, argv, envp) }
}

/// `posix_spawnp`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attr: *const posix_spawnattr_t,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    before_spawn();
    // SAFETY: the program's call.
    unsafe { real::posix_spawnp(pid, file, actions, attr, argv, envp) }
}

/// `system`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn system(command: *const c_char) -> c_int {
    before_spawn();
    // SAFETY: the program's call.
    unsafe { real::system(command) }
}

/// `popen`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    before_spawn();
    // SAFETY: the program's call.
    unsafe { real::popen(command, mode) }
}

/// Threads have tables of descriptors of their own.
static PARTED: AtomicBool = AtomicBool::new(false);

/// True where a number may mean different descriptors in different threads.
pub(crate) fn parted() -> bool {
    PARTED.load(Ordering::Relaxed)
}

/// True for a program's only thread, which shares what threads share with the library's alone, and has to go on doing so.
pub(crate) fn alone_with_library() -> bool {
    if !stack::any() || signals::in_vfork() {
        return false;
    }
    let _inside = signals::enter();
    company::alone()
}

/// Before the calling thread gets a table of descriptors of its own, in which what others open and close does not show: all
/// sockets become the kernel's, and so do new ones.
pub(crate) fn part() {
    if stack::any() && !signals::in_vfork() {
        PARTED.store(true, Ordering::Relaxed);
        share(|_| true, true);
    }
}

/// `posix_spawn_file_actions_adddup2`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn posix_spawn_file_actions_adddup2(
    actions: *mut posix_spawn_file_actions_t,
    fd: c_int,
    new: c_int,
) -> c_int {
    share(|ours| ours == fd, true);
    // SAFETY: the program's call.
    unsafe { real::posix_spawn_file_actions_adddup2(actions, fd, new) }
}
