//! The TCP: Linux's, sans I/O.
//!
//! Time, entropy, memory and the network come in as arguments ([`Io`]); what the engine wants to say comes back as return
//! values ([`Step`]), as frames handed to [`Net::transmit`], and as [`event`]s. It holds no payload bytes: a [`memory::Frag`]
//! refers to them.
//!
//! File names and function names are Linux's: `output` is what `tcp_output.c` does, `input` what `tcp_input.c` does, and so on.
//! `preload/README.md` is the map.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod accept;
pub mod ack;
mod autocork;
pub mod calls;
pub mod chrono;
pub mod close;
pub mod cmsg;
mod collapse;
pub mod cong;
pub mod connect;
pub mod cwnd;
pub mod data_queue;
pub mod delack;
pub mod demux;
pub mod error;
pub mod errqueue;
pub mod event;
pub mod fastopen;
pub mod freeze;
pub mod handshake;
pub mod header;
pub mod icmp;
pub mod info;
pub mod init_sock;
pub mod input;
pub mod ioctl;
pub mod isn;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod mib;
pub mod mss;
pub mod mtu_probe;
pub mod net;
pub mod ofo;
pub mod opts;
pub mod output;
pub mod pacing;
pub mod page_frag;
pub mod poll;
pub mod push;
pub mod rack;
pub mod rate;
pub mod rcvbuf;
pub mod recovery;
pub mod recvmsg;
pub mod repair;
pub mod reply;
pub mod request;
pub mod retransmit;
pub mod rtt;
pub mod sack;
pub mod segment;
pub mod sendmsg;
pub mod seq;
pub mod skb;
pub mod small_queue;
pub mod sndbuf;
pub mod sock;
pub mod sockopt;
pub mod stack;
pub mod state;
pub mod state_process;
pub mod synsent;
pub mod sysctl;
#[cfg(test)]
mod testbench;
pub mod time;
pub mod timer;
pub mod timers;
pub mod timewait;
pub mod trace;
pub mod tso;
pub mod tstamp;
pub mod tx_late;
pub mod urgent;
pub mod window;
pub mod zerocopy;

#[cfg(test)]
pub(crate) mod testbed;
#[cfg(test)]
pub(crate) mod testpeer;

pub use calls::{AcceptCall, CloseCall, ConnectCall, RecvCall, RecvCmsg};
pub use error::Error;
pub use net::Net;
pub use stack::{Cx, Io, SocketId, Stack, Step, WaitReason};
pub use time::Instant;
