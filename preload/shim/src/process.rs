//! The end of a process, and its doubling where no atfork handler runs.
//!
//! fork needs no hook: `pthread_atfork` handlers see it. clone(3) has one, and the numbers of fork, clone and clone3
//! (`syscall`): no handler sees them. posix_spawn, system and popen have one for what the other program inherits; their
//! children run on the parent's memory, and touch nothing of ours until they have that program.

use core::ffi::{c_char, c_int, c_uint, c_void};

use libc::{FILE, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};

use sidewire_posix::real::CloneFn;

use crate::calls;

/// `_exit`, after what the connections still need.
pub(crate) fn leave(status: c_int) -> ! {
    calls::before_exit();
    #[allow(unused_unsafe)]
    // SAFETY: the program's call.
    unsafe {
        calls::_exit(status);
    }
    unreachable!("_exit returned");
}

/// Arguments, or an environment, as posix_spawn has them.
type Strings = *const *mut c_char;

/// [`leave`] for a hook: `!` is no type that `hook!` can name, and a C function that does not return may well be one that
/// returns nothing.
fn exit(status: c_int) {
    leave(status);
}

hooks! {
    _exit _Exit: (status: c_int) -> () = exit;
    _Fork: () -> pid_t = calls::_Fork;
    clone __clone: (
        function: Option<CloneFn>, stack: *mut c_void, flags: c_int, arg: *mut c_void,
        parent_tid: usize, tls: usize, child_tid: usize,
    ) -> c_int = calls::clone;
    daemon: (nochdir: c_int, noclose: c_int) -> c_int = calls::daemon;
    posix_spawn_file_actions_adddup2: (actions: *mut posix_spawn_file_actions_t, fd: c_int, new: c_int) -> c_int
        = calls::posix_spawn_file_actions_adddup2;
    posix_spawn: (
        pid: *mut pid_t, path: *const c_char, actions: *const posix_spawn_file_actions_t,
        attr: *const posix_spawnattr_t, argv: Strings, envp: Strings,
    ) -> c_int = calls::posix_spawn;
    posix_spawnp: (
        pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t,
        attr: *const posix_spawnattr_t, argv: Strings, envp: Strings,
    ) -> c_int = calls::posix_spawnp;
    system: (command: *const c_char) -> c_int = calls::system;
    popen: (command: *const c_char, mode: *const c_char) -> *mut FILE = calls::popen;
    unshare: (flags: c_int) -> c_int = calls::unshare;
    pidfd_getfd: (pidfd: c_int, fd: c_int, flags: c_uint) -> c_int = calls::pidfd_getfd;
}
