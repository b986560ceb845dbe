//! The form of a hook.

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
                    unsafe { $body( $($arg),* ) }
                }
            }
        }
    };
}
