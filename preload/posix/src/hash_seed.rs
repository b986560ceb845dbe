//! The seed of std's hash tables.
//!
//! A thread's first table asks libc's getrandom(3), which is a cancellation point: a thread that is being cancelled ended
//! there, in the middle of a call and with the library's locks. Within this library the name is this file's.

use core::ffi::{c_uint, c_void};

use syscalls::Sysno;

use crate::hidden_symbol::hidden_symbol;
use crate::raw;

hidden_symbol!("getrandom", getrandom);

unsafe extern "C" fn getrandom(buf: *mut c_void, len: usize, flags: c_uint) -> isize {
    // SAFETY: the caller's arguments.
    unsafe {
        raw::libc_call(
            Sysno::getrandom,
            [buf as usize, len, flags as usize, 0, 0, 0],
        )
    }
}
