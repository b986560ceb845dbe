//! Frames in and out, routes and neighbours, port holders, and a tee.
//!
//! Nothing here calls a libc function that libsidewire.so interposes: see the module `raw`, and
//! `tests/libc_symbols.rs`, which looks at the compiled code.

mod cut;
pub mod epoll;
pub mod fd;
pub mod file_limit;
pub mod frame;
pub mod holder;
pub mod late_close;
pub mod netlink;
pub mod outq;
pub mod packet;
pub mod pair;
pub mod pcapng;
mod raw;
pub mod reserve;
mod socket_name;

pub use syscalls::Errno;
