//! stdio streams on sockets of ours. glibc's streams read and write by calls that no hook sees, so a stream on such a
//! descriptor is made of functions of ours (fopencookie).

use core::ffi::{c_char, c_int, c_void};

use libc::{FILE, size_t, ssize_t};

use crate::lock::Mutex;
use crate::{calls, descriptors, fdtable, raw, real, signals};

/// `cookie_io_functions_t`.
#[repr(C)]
struct Functions {
    read: unsafe extern "C" fn(*mut c_void, *mut c_char, size_t) -> ssize_t,
    write: unsafe extern "C" fn(*mut c_void, *const c_char, size_t) -> ssize_t,
    seek: unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int,
    close: unsafe extern "C" fn(*mut c_void) -> c_int,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut FILE;
}

/// Streams of ours and their descriptors: glibc's fileno knows none for them. Few and short-lived.
static STREAMS: Mutex<Vec<(usize, c_int)>> = Mutex::new(Vec::new());

fn descriptor(cookie: *mut c_void) -> c_int {
    cookie as usize as c_int
}

unsafe extern "C" fn read(cookie: *mut c_void, buf: *mut c_char, len: size_t) -> ssize_t {
    // SAFETY: glibc's buffer.
    unsafe { calls::read(descriptor(cookie), buf.cast(), len) }
}

/// All of it, as glibc's own writes do; 0 says that it failed.
unsafe extern "C" fn write(cookie: *mut c_void, buf: *const c_char, len: size_t) -> ssize_t {
    let mut done = 0;
    while done < len {
        // SAFETY: glibc's buffer, from where the last write stopped.
        let n = unsafe { calls::write(descriptor(cookie), buf.add(done).cast(), len - done) };
        if n <= 0 {
            break;
        }
        done += n as usize;
    }
    done as ssize_t
}

unsafe extern "C" fn seek(_cookie: *mut c_void, _offset: *mut i64, _whence: c_int) -> c_int {
    raw::set_errno(libc::ESPIPE);
    -1
}

unsafe extern "C" fn close(cookie: *mut c_void) -> c_int {
    descriptors::close(descriptor(cookie))
}

/// `fdopen`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
    if signals::in_vfork() || !fdtable::is_ours(fd) {
        // SAFETY: the program's call.
        return unsafe { real::fdopen(fd, mode) };
    }
    let functions = Functions {
        read,
        write,
        seek,
        close,
    };
    // SAFETY: functions of the right types; the cookie is a number.
    let stream = unsafe { fopencookie(fd as usize as *mut c_void, mode, functions) };
    if !stream.is_null() {
        STREAMS.lock().push((stream as usize, fd));
    }
    stream
}

/// Locks the list of streams before a fork, and unlocks it after, in parent and child.
pub(crate) fn across_fork(before: bool) {
    if before {
        core::mem::forget(STREAMS.lock());
    } else {
        // SAFETY: this thread locked it before the fork.
        unsafe { STREAMS.force_unlock() };
    }
}

/// The descriptor of a stream of ours.
fn ours(stream: *mut FILE) -> Option<c_int> {
    let streams = STREAMS.lock();
    let entry = streams.iter().find(|(s, _)| *s == stream as usize);
    entry.map(|(_, fd)| *fd)
}

/// `fileno`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn fileno(stream: *mut FILE) -> c_int {
    let errno = raw::errno();
    // SAFETY: the program's call.
    let fd = unsafe { real::fileno(stream) };
    match if fd < 0 { ours(stream) } else { None } {
        Some(fd) => {
            raw::set_errno(errno);
            fd
        }
        None => fd,
    }
}

/// `fclose`. The descriptor of a plain stream goes as well, unseen.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn fclose(stream: *mut FILE) -> c_int {
    if signals::in_vfork() {
        // SAFETY: the program's call.
        return unsafe { real::fclose(stream) };
    }
    let errno = raw::errno();
    // SAFETY: the program's stream.
    let fd = unsafe { real::fileno(stream) };
    raw::set_errno(errno);
    if fd < 0 {
        STREAMS.lock().retain(|(s, _)| *s != stream as usize);
    }
    // SAFETY: the program's call.
    let closed = unsafe { real::fclose(stream) };
    descriptors::fresh(fd);
    closed
}

/// Opens a stream anew; its old descriptor is closed on the way, unseen.
unsafe fn reopen(stream: *mut FILE, real: impl FnOnce() -> *mut FILE) -> *mut FILE {
    if signals::in_vfork() {
        return real();
    }
    // SAFETY: the program's stream.
    let fd = unsafe { real::fileno(stream) };
    let again = real();
    descriptors::fresh(fd);
    if fd < 0 {
        STREAMS.lock().retain(|(s, _)| *s != stream as usize);
    }
    again
}

/// `freopen`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
    // SAFETY: the program's call.
    unsafe { reopen(stream, || real::freopen(path, mode, stream)) }
}

/// `freopen64`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
    // SAFETY: the program's call.
    unsafe { reopen(stream, || real::freopen64(path, mode, stream)) }
}

/// `fcloseall`. Only streams of ours need more than libc does.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn fcloseall() -> c_int {
    if !signals::in_vfork() {
        let streams = core::mem::take(&mut *STREAMS.lock());
        for (stream, _) in streams {
            // SAFETY: an open stream of ours.
            unsafe { real::fclose(stream as *mut FILE) };
        }
    }
    // SAFETY: the program's call.
    unsafe { real::fcloseall() }
}

unsafe extern "C" {
    fn __vasprintf_chk(
        text: *mut *mut c_char,
        flag: c_int,
        format: *const c_char,
        args: *mut c_void,
    ) -> c_int;
}

/// `vdprintf`; `args` is the `va_list` as it is passed.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn vdprintf(fd: c_int, format: *const c_char, args: *mut c_void) -> c_int {
    if signals::in_vfork() || !fdtable::is_ours(fd) {
        // SAFETY: the program's call.
        return unsafe { real::vdprintf(fd, format, args) };
    }
    // SAFETY: the program's call.
    unsafe { print(fd, 0, format, args) }
}

/// `__vdprintf_chk`.
///
/// # Safety
/// The contract of the C function.
#[allow(non_snake_case)]
pub unsafe fn __vdprintf_chk(
    fd: c_int,
    flag: c_int,
    format: *const c_char,
    args: *mut c_void,
) -> c_int {
    if signals::in_vfork() || !fdtable::is_ours(fd) {
        // SAFETY: the program's call.
        return unsafe { real::__vdprintf_chk(fd, flag, format, args) };
    }
    // SAFETY: the program's call.
    unsafe { print(fd, flag, format, args) }
}

/// Formats to memory and writes that; what was written, -1 when not all of it was.
unsafe fn print(fd: c_int, flag: c_int, format: *const c_char, args: *mut c_void) -> c_int {
    let mut text = core::ptr::null_mut();
    // SAFETY: the program's format and arguments, a live local.
    let len = unsafe { __vasprintf_chk(&raw mut text, flag, format, args) };
    if len < 0 {
        return len;
    }
    // SAFETY: the text is that long; a cookie is the descriptor's number. The text was allocated by libc.
    let done = unsafe {
        let done = write(fd as usize as *mut c_void, text, len as size_t);
        let errno = raw::errno();
        libc::free(text.cast());
        raw::set_errno(errno);
        done
    };
    if done == len as ssize_t { len } else { -1 }
}

/// True when streams of ours are open: they have to be flushed before the connections end.
#[must_use]
pub fn any() -> bool {
    !STREAMS.lock().is_empty()
}
