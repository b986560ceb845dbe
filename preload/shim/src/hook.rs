//! The form of a hook.

use core::ffi::{c_int, c_long};

use libc::{FILE, SIG_ERR, sighandler_t, ssize_t};
use sidewire_posix::raw;

/// What a call returns, which says whether it failed.
pub(crate) trait Outcome {
    fn failed(&self) -> bool;
}

impl Outcome for c_int {
    fn failed(&self) -> bool {
        *self < 0
    }
}

impl Outcome for ssize_t {
    fn failed(&self) -> bool {
        *self < 0
    }
}

impl Outcome for c_long {
    fn failed(&self) -> bool {
        *self < 0
    }
}

impl Outcome for sighandler_t {
    fn failed(&self) -> bool {
        *self == SIG_ERR
    }
}

impl Outcome for *mut FILE {
    fn failed(&self) -> bool {
        self.is_null()
    }
}

impl Outcome for () {
    fn failed(&self) -> bool {
        false
    }
}

/// Makes a call that leaves `errno` as it was when it succeeds, as system calls do, whatever was tried inside: programs look
/// at it after the `close` that followed a failure.
#[inline]
pub(crate) fn errno_kept<R: Outcome>(call: impl FnOnce() -> R) -> R {
    let before = raw::errno();
    let r = call();
    if !r.failed() {
        raw::set_errno(before);
    }
    r
}

/// `hooks! { name alias ...: (args) -> type = path; ... }`: exports each symbol with a body that calls `path`.
///
/// redhook's `hook!` makes the symbol. Its way to the real function is never taken: it leads there after a caught panic,
/// and a panic aborts; the real functions are `posix::real`'s, resolved at once by the constructor.
macro_rules! hooks {
    ($( $($name:ident)+: $args:tt -> $ret:ty = $body:path; )*) => {
        $( $( hook_one! { $name $args -> $ret = $body } )+ )*
    };
}

macro_rules! hook_one {
    ($name:ident ( $($arg:ident: $ty:ty),* $(,)? ) -> $ret:ty = $body:path) => {
        #[allow(missing_docs, non_snake_case, non_camel_case_types, unreachable_pub)]
        #[allow(unused_unsafe, unused_imports, static_mut_refs, unsafe_op_in_unsafe_fn)]
        #[allow(clippy::missing_safety_doc, clippy::too_many_arguments, clippy::undocumented_unsafe_blocks)]
        pub mod $name {
            use super::*;
            redhook::hook! {
                unsafe fn $name ( $($arg: $ty),* ) -> $ret => hooked {
                    // SAFETY: the program's own call, with the contract of the C function.
                    crate::hook::errno_kept(|| unsafe { $body( $($arg),* ) })
                }
            }
        }
    };
}
