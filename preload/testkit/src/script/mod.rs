//! Packet scripts in packetdrill's syntax, run in-process on a virtual clock.
//!
//! A script is a list of events, each with a time: `+0.1` counts from the previous event, `0.1`
//! from the start. A call that sleeps says until when: `+0...0.200`. What is checked:
//! - `name(args) = value`: the value, or the errno after `-1`; what the call hands out (options,
//!   `revents`, `msg_flags`, bytes read).
//! - `> P. 1:11(10) ack 1 <...>`: the next segment that leaves, its time and its payload.
//! - `%{ assert tcpi_snd_cwnd == 10 }%`: fields of `tcp_info`, see [`assertion`].
//! - at the end: no call sleeps, no other segment left, no memory is lost.
//!
//! Beyond packetdrill there is `remote_port(8082) = 0`: the peer speaks from another port;
//! `drain() = 10`: so many segments left that nobody looked at; and the
//! flag `p`, as in `> p. 1:1461(1460) ack 1`: PSH or not, as the segments were put together. The
//! host under test is 192.168.0.1, port 8080 where it binds; the peer is 192.0.2.1. The device
//! cuts super-frames itself, so a script sees segments.

pub mod assertion;
pub mod ast;
pub mod constants;
pub mod parse;
pub mod settings;
pub mod timeline;

mod calls;
mod packet;
mod runner;

pub use runner::run;
pub use timeline::Failure;
