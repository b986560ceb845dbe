//! The imperative shell around the engine; see preload/README.md.

pub mod calls;
pub mod copy;
pub mod driver;
pub mod fdtable;
pub mod file;
pub mod holders;
pub mod iov;
pub mod memory;
pub mod net;
mod pump;
pub mod process;
pub mod raw;
pub mod readiness;
pub mod real;
mod receive;
mod secrets;
pub mod signals;
pub mod stack;
pub mod syscall;
mod sysctl;
pub mod wait;
