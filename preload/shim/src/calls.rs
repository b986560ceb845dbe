//! What the hooks call.

pub(crate) use sidewire_posix::process::{before_exec, before_exit};
pub(crate) use sidewire_posix::real::*;
pub(crate) use sidewire_posix::signals::{sigaction, siginterrupt, signal, sigset, sysv_signal};

pub(crate) fn fresh(fd: core::ffi::c_int) -> core::ffi::c_int {
    fd
}
