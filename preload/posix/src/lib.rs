//! The imperative shell around the engine; see preload/README.md.

pub mod process;
pub mod raw;
pub mod real;
pub mod signals;
