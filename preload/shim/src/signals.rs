//! What installs handlers, and what else reaches into a sleeping thread.

use core::ffi::c_int;

use libc::{sigaction as Action, sighandler_t};

use crate::calls;

hooks! {
    sigaction __sigaction: (signum: c_int, act: *const Action, old: *mut Action) -> c_int
        = calls::sigaction;
    signal bsd_signal ssignal: (signum: c_int, handler: sighandler_t) -> sighandler_t = calls::signal;
    sysv_signal __sysv_signal: (signum: c_int, handler: sighandler_t) -> sighandler_t
        = calls::sysv_signal;
    sigset: (signum: c_int, handler: sighandler_t) -> sighandler_t = calls::sigset;
    pthread_cancel: (thread: libc::pthread_t) -> c_int = calls::pthread_cancel;
    siginterrupt: (signum: c_int, flag: c_int) -> c_int = calls::siginterrupt;
}
