//! fcntl, ioctl and their kin. Variadic in C; with fixed arity the registers are the same.

use core::ffi::c_int;

use crate::calls;

hooks! {
    fcntl fcntl64 __fcntl: (fd: c_int, cmd: c_int, arg: usize) -> c_int = calls::fcntl;
    ioctl: (fd: c_int, request: usize, arg: usize) -> c_int = calls::ioctl;
    sockatmark: (fd: c_int) -> c_int = calls::sockatmark;
}
