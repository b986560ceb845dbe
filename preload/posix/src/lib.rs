//! The imperative shell around the engine; see preload/README.md.

pub mod copy;
pub mod iov;
pub mod memory;
pub mod raw;
pub mod real;
pub mod syscall;
