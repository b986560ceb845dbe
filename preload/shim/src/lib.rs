//! `libsidewire.so`: one hook a symbol. Arguments go to `posix` as they came, results go back as they are.
//!
//! The symbols are unversioned (a version node would make the preload silently do nothing), listed in `exports.txt`, and
//! compared with the library by a test. See preload/README.md.

#[macro_use]
mod hook;
pub mod api;
mod calls;
mod control;
mod exec;
mod io;
mod lifetime;
mod process;
mod readiness;
mod signals;
mod socket;
mod start;
mod stdio;
mod syscall;
mod vfork;

#[global_allocator]
static HEAP: sidewire_posix::heap::Heap = sidewire_posix::heap::Heap;
