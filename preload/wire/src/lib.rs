//! Checked views and emitters of the headers on the wire.
//!
//! A view borrows the bytes it was parsed from and never reads beyond them; `parse` names the
//! reason when it refuses, so that the caller can count it. An emitter writes into a slice that
//! the caller owns and returns the length, or `None` when the slice is too short. Nothing here
//! panics, whatever the input.
//!
//! Where frames arrive in two parts (headers first, payload later), `parse_prefix` takes the
//! bytes at hand and the length of the whole; lengths then come from the headers, and `payload`
//! returns the part at hand.
#![forbid(unsafe_code)]
#![no_std]

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod segment;
pub mod tcp;
pub mod tcp_options;
pub mod vnet;

mod bytes;
mod error;

pub use error::ParseError;
