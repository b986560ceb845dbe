//! The end of a process, and its doubling where no atfork handler runs.
//!
//! fork needs no hook: `pthread_atfork` handlers see it. Nor do system, popen and posix_spawn: their children run on the
//! parent's memory and touch nothing of ours until they have another program. clone(3) has one, and the numbers of fork,
//! clone and clone3 (`syscall`): no handler sees them.

use core::ffi::{c_int, c_void};

use libc::{pid_t, posix_spawn_file_actions_t};

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

/// `_exit`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn _exit(status: c_int) -> ! {
    leave(status)
}

/// `_Exit`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn _Exit(status: c_int) -> ! {
    leave(status)
}

hooks! {
    _Fork: () -> pid_t = calls::_Fork;
    clone __clone: (
        function: Option<CloneFn>, stack: *mut c_void, flags: c_int, arg: *mut c_void,
        parent_tid: usize, tls: usize, child_tid: usize,
    ) -> c_int = calls::clone;
    daemon: (nochdir: c_int, noclose: c_int) -> c_int = calls::daemon;
    posix_spawn_file_actions_adddup2: (actions: *mut posix_spawn_file_actions_t, fd: c_int, new: c_int) -> c_int
        = calls::posix_spawn_file_actions_adddup2;
}
