//! Birth and end of descriptors.
//!
//! A number that the kernel has just given out is not ours, whatever the table says: it was closed behind our back.

use core::ffi::{c_char, c_int, c_uint};

use libc::{mode_t, sigset_t};

use crate::calls;
use calls::fresh;

pub(crate) unsafe fn socketpair_fresh(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    fds: *mut c_int,
) -> c_int {
    // SAFETY: the program's call.
    pair(
        unsafe { calls::socketpair(domain, kind, protocol, fds) },
        fds,
    )
}

unsafe fn pipe_fresh(fds: *mut c_int) -> c_int {
    // SAFETY: the program's call.
    pair(unsafe { calls::pipe(fds) }, fds)
}

unsafe fn pipe2_fresh(fds: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: the program's call.
    pair(unsafe { calls::pipe2(fds, flags) }, fds)
}

fn pair(result: c_int, fds: *const c_int) -> c_int {
    if result == 0 {
        for i in 0..2 {
            // SAFETY: the call succeeded, so it wrote two descriptors.
            fresh(unsafe { *fds.add(i) });
        }
    }
    result
}

/// The one-descriptor calls: `name_fresh(args)` is `fresh(name(args))`.
macro_rules! fresh_calls {
    ($( $fresh:ident = $name:ident ( $($arg:ident: $ty:ty),* ); )*) => {
        $( unsafe fn $fresh( $($arg: $ty),* ) -> c_int {
            #[allow(unused_unsafe)]
            // SAFETY: the program's call.
            fresh(unsafe { calls::$name( $($arg),* ) })
        } )*
    };
}

fresh_calls! {
    open_fresh = open(path: *const c_char, flags: c_int, mode: mode_t);
    open64_fresh = open64(path: *const c_char, flags: c_int, mode: mode_t);
    openat_fresh = openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t);
    openat64_fresh = openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t);
    open_2_fresh = __open_2(path: *const c_char, flags: c_int);
    open64_2_fresh = __open64_2(path: *const c_char, flags: c_int);
    openat_2_fresh = __openat_2(dir: c_int, path: *const c_char, flags: c_int);
    openat64_2_fresh = __openat64_2(dir: c_int, path: *const c_char, flags: c_int);
    creat_fresh = creat(path: *const c_char, mode: mode_t);
    creat64_fresh = creat64(path: *const c_char, mode: mode_t);
    eventfd_fresh = eventfd(initial: c_uint, flags: c_int);
    signalfd_fresh = signalfd(fd: c_int, mask: *const sigset_t, flags: c_int);
    timerfd_fresh = timerfd_create(clock: c_int, flags: c_int);
    memfd_fresh = memfd_create(name: *const c_char, flags: c_uint);
    inotify_fresh = inotify_init();
    inotify1_fresh = inotify_init1(flags: c_int);
}

hooks! {
    open __open: (path: *const c_char, flags: c_int, mode: mode_t) -> c_int = super::open_fresh;
    open64 __open64: (path: *const c_char, flags: c_int, mode: mode_t) -> c_int = super::open64_fresh;
    openat: (dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int = super::openat_fresh;
    openat64: (dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int = super::openat64_fresh;
    __open_2: (path: *const c_char, flags: c_int) -> c_int = super::open_2_fresh;
    __open64_2: (path: *const c_char, flags: c_int) -> c_int = super::open64_2_fresh;
    __openat_2: (dir: c_int, path: *const c_char, flags: c_int) -> c_int = super::openat_2_fresh;
    __openat64_2: (dir: c_int, path: *const c_char, flags: c_int) -> c_int = super::openat64_2_fresh;
    creat: (path: *const c_char, mode: mode_t) -> c_int = super::creat_fresh;
    creat64: (path: *const c_char, mode: mode_t) -> c_int = super::creat64_fresh;
    pipe __pipe: (fds: *mut c_int) -> c_int = super::pipe_fresh;
    pipe2: (fds: *mut c_int, flags: c_int) -> c_int = super::pipe2_fresh;
    eventfd: (initial: c_uint, flags: c_int) -> c_int = super::eventfd_fresh;
    signalfd: (fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int = super::signalfd_fresh;
    timerfd_create: (clock: c_int, flags: c_int) -> c_int = super::timerfd_fresh;
    memfd_create: (name: *const c_char, flags: c_uint) -> c_int = super::memfd_fresh;
    inotify_init: () -> c_int = super::inotify_fresh;
    inotify_init1: (flags: c_int) -> c_int = super::inotify1_fresh;

    close __close: (fd: c_int) -> c_int = calls::close;
    closefrom: (first: c_int) -> () = calls::closefrom;
    close_range: (first: c_uint, last: c_uint, flags: c_int) -> c_int = calls::close_range;
    dup: (fd: c_int) -> c_int = calls::dup;
    dup2 __dup2: (fd: c_int, new: c_int) -> c_int = calls::dup2;
    dup3: (fd: c_int, new: c_int, flags: c_int) -> c_int = calls::dup3;
}
