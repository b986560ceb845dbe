//! What tests of the engine stand on: memory over vectors, a virtual clock, a host with one link,
//! a runner for packet scripts, and a simulated network between two hosts.
//!
//! Everything is deterministic: time moves when a test says so, and what is random has a seed.
#![forbid(unsafe_code)]

pub mod clock;
pub mod gro;
pub mod host;
pub mod memory;
pub mod net;
pub mod rng;
pub mod script;
pub mod sim;
