//! stdio on sockets: glibc's streams call no hook, so a stream on a descriptor of ours is made differently.

use core::ffi::{c_char, c_int};

use libc::FILE;

use crate::calls;

hooks! {
    fdopen _IO_fdopen: (fd: c_int, mode: *const c_char) -> *mut FILE = calls::fdopen;
    fclose _IO_fclose: (stream: *mut FILE) -> c_int = calls::fclose;
    fcloseall: () -> c_int = calls::fcloseall;
    fileno fileno_unlocked: (stream: *mut FILE) -> c_int = calls::fileno;
    freopen: (path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE = calls::freopen;
    freopen64: (path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE
        = calls::freopen64;
}
