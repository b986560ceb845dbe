//! Packet scripts in packetdrill's syntax, run in-process on a virtual clock.

pub mod assertion;
pub mod ast;
pub mod constants;
pub mod parse;
