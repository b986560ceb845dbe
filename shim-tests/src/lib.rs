//! The lab: a private network of two namespaces joined by a veth pair, real
//! programs started in it, natively or with the shim in front, and what they
//! did, measured from the outside.
//!
//! `near` is the host under test, `far` its peer, whose TCP is always the
//! kernel's. Traffic never leaves the two. Nothing here links the shim.
//!
//! Works as root, and as an ordinary user where user namespaces are allowed.
#![forbid(unsafe_code)]

pub mod bench;
pub mod capture;
pub mod compare;
pub mod conformance;
pub mod counters;
pub mod cpu_time;
pub mod cpus;
pub mod iperf3;
pub mod lab;
pub mod library;
pub mod netcat;
pub mod netns;
pub mod patience;
pub mod payload;
pub mod probe;
pub mod process;
pub mod program;
pub mod segments;
pub mod sequence;
pub mod suite;
pub mod table;

pub use lab::{Lab, Link, Offloads};
pub use library::{Library, Stack};
pub use netns::Netns;
pub use suite::{Need, Suite, TestResult};
