//! The Linux numbers and layouts that the socket API is made of.
//!
//! Values are those of x86-64 and every other architecture that uses the generic tables (not
//! alpha, mips, parisc, sparc). They are plain constants, so that the engine needs no C library;
//! `tests/against_libc.rs` compares them with the `libc` crate.
#![forbid(unsafe_code)]
#![no_std]

pub mod errno;
pub mod errqueue;
pub mod fcntl;
pub mod ioctl;
pub mod ip;
pub mod poll;
pub mod socket;
pub mod tcp;
pub mod timestamping;

pub use errno::Errno;
pub use tcp::TcpState;
