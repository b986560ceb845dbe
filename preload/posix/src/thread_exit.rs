//! What is to run when a thread ends.
//!
//! std has libc keep the destructors of thread-local values (`__cxa_thread_atexit_impl`), which takes memory of the program's
//! heap for each: a handler that interrupted malloc(3) would wait for itself, at the first value that has one. Within
//! this library the name is this file's, and they are kept in our own heap.

use core::ffi::{c_int, c_void};
use std::sync::OnceLock;

use crate::hidden_symbol::hidden_symbol;

type Destructor = unsafe extern "C" fn(*mut c_void);
type Ends = Vec<(Destructor, *mut c_void)>;

hidden_symbol!("__cxa_thread_atexit_impl", at_exit);

/// The key whose destructor runs in a thread that ends: those of the language's values have run by then.
fn key() -> Option<libc::pthread_key_t> {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: `ends` fits what is kept under the key.
        let refused = unsafe { libc::pthread_key_create(&mut key, Some(ends)) };
        (refused == 0).then_some(key)
    })
}

unsafe extern "C" fn at_exit(run: Destructor, on: *mut c_void, _library: *mut c_void) -> c_int {
    // Without a key it does not run.
    let Some(key) = key() else { return -1 };
    // SAFETY: nothing but what is set here, a box, is ever kept under this key.
    unsafe {
        let mut kept = libc::pthread_getspecific(key).cast::<Ends>();
        if kept.is_null() {
            kept = Box::into_raw(Box::default());
            if libc::pthread_setspecific(key, kept.cast()) != 0 {
                drop(Box::from_raw(kept));
                return -1;
            }
        }
        (*kept).push((run, on));
    }
    0
}

/// Runs them, the last one first. What they register anew, libc comes back for.
unsafe extern "C" fn ends(kept: *mut c_void) {
    // SAFETY: `at_exit` made it a box, and libc has forgotten it.
    let kept = unsafe { Box::from_raw(kept.cast::<Ends>()) };
    for (run, on) in kept.into_iter().rev() {
        // SAFETY: std registered them for this thread, whose values are still there.
        unsafe { run(on) };
    }
}
