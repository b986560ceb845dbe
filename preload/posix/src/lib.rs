//! The imperative shell around the engine; see preload/README.md.

pub mod calls;
pub mod config;
pub mod copy;
pub mod descriptors;
pub mod driver;
pub mod fdtable;
pub mod file;
pub mod holders;
pub mod iov;
pub mod log;
pub mod memory;
pub mod net;
pub mod process;
mod pump;
pub mod raw;
pub mod readiness;
pub mod real;
mod receive;
mod secrets;
pub mod signals;
pub mod stack;
pub mod stats;
pub mod stdio;
pub mod syscall;
mod sysctl;
pub mod undertaker;
pub mod wait;
