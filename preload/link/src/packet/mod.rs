//! Raw frames over AF_PACKET: one socket per network namespace, not bound to a device, with a vnet header on every
//! frame (`PACKET_VNET_HDR`), so that super-frames and unfinished checksums pass both ways.
//!
//! # Which way in (measured on 2 virtual CPUs, Linux 6.18, veth; see `examples/rx_bench.rs`)
//!
//! MEASURED-TABLE

pub mod filter;
mod receive;
mod ring;
mod send;
pub mod vnet;

pub use receive::BatchSource;
pub use ring::{RingConfig, RingSource};
pub use send::PacketSink;

use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::frame::{FrameSource, RxFrame};
use crate::raw;
use filter::Insn;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// Send and receive buffer asked for, in bytes; the kernel doubles it, and cuts it to wmem_max and rmem_max where
/// the force options are refused.
pub const PACKET_BUFFER: i32 = 32 << 20;

/// The packet socket of a network namespace, before it is split into a way out and a way in.
#[derive(Debug)]
pub struct PacketSocket {
    fd: Arc<Fd>,
    /// The receive buffer that was granted, as getsockopt tells it (twice the bytes asked for).
    rcvbuf: i32,
}

impl PacketSocket {
    /// Opens the socket in the calling thread's network namespace. No frame arrives before a filter is set.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; EAFNOSUPPORT without packet sockets in the kernel; EMFILE, ENFILE, ENOBUFS.
    pub fn open() -> Result<PacketSocket, Errno> {
        let fd = move_high(raw::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_NONBLOCK,
            0,
        )?)?;
        let raw_fd = fd.as_raw_fd();
        raw::setsockopt(raw_fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1i32)?;
        grow_buffer(raw_fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
        grow_buffer(raw_fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
        let rcvbuf = raw::getsockopt(raw_fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 0i32)?;
        filter::attach(raw_fd, &filter::drop_all())?;
        Ok(PacketSocket {
            fd: Arc::new(fd),
            rcvbuf,
        })
    }

    /// The receive buffer that was granted, as getsockopt tells it.
    pub fn rcvbuf(&self) -> i32 {
        self.rcvbuf
    }

    /// The way out; any number may exist, one per thread that sends.
    pub fn sink(&self) -> PacketSink {
        PacketSink::new(self.fd.clone())
    }

    /// The way in by a ring, or without one where the kernel refuses it, and starts to receive. Only one may exist.
    ///
    /// # Errors
    /// What bind(2) says.
    pub fn source(&self) -> Result<PacketSource, Errno> {
        let source = match RingSource::new(self.fd.clone(), RingConfig::for_rcvbuf(self.rcvbuf)) {
            Ok(ring) => PacketSource::Ring(ring),
            Err(_) => PacketSource::Batch(BatchSource::new(self.fd.clone())?),
        };
        self.start()?;
        Ok(source)
    }

    /// Starts to receive IPv4 frames from every device.
    ///
    /// # Errors
    /// What bind(2) says.
    pub fn start(&self) -> Result<(), Errno> {
        bind_protocol(self.fd.as_raw_fd(), libc::ETH_P_IP as u16)
    }

    /// The socket, to be shared with a source of a chosen kind.
    pub fn shared_fd(&self) -> Arc<Fd> {
        self.fd.clone()
    }

    /// Replaces the filter in one step: a frame sees the old or the new one.
    ///
    /// # Errors
    /// ENOMEM (net.core.optmem_max); EINVAL for a program that the kernel does not take.
    pub fn set_filter(&self, program: &[Insn]) -> Result<(), Errno> {
        filter::attach(self.fd.as_raw_fd(), program)
    }
}

/// Asks for [`PACKET_BUFFER`] by the privileged option, then for as much as the sysctl allows.
fn grow_buffer(fd: RawFd, force: i32, plain: i32) -> Result<(), Errno> {
    raw::setsockopt(fd, libc::SOL_SOCKET, force, &PACKET_BUFFER)
        .or_else(|_| raw::setsockopt(fd, libc::SOL_SOCKET, plain, &PACKET_BUFFER))
}

/// Binds a packet socket to a protocol on every device.
pub(crate) fn bind_protocol(fd: RawFd, protocol: u16) -> Result<(), Errno> {
    // SAFETY: sockaddr_ll is made of integers; all zero is valid.
    let mut addr: libc::sockaddr_ll = unsafe { zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_protocol = protocol.to_be();
    raw::bind(fd, &addr)
}

/// The way in that the kernel granted.
#[derive(Debug)]
pub enum PacketSource {
    /// TPACKET_V2 ring; small frames cost no system call.
    Ring(RingSource),
    /// Plain recvmmsg.
    Batch(BatchSource),
}

impl FrameSource for PacketSource {
    fn peek(&mut self) -> Result<Option<RxFrame<'_>>, Errno> {
        match self {
            PacketSource::Ring(r) => r.peek(),
            PacketSource::Batch(b) => b.peek(),
        }
    }

    unsafe fn take(&mut self, skip: usize, into: &[libc::iovec]) -> Result<usize, Errno> {
        match self {
            // SAFETY: by the caller.
            PacketSource::Ring(r) => unsafe { r.take(skip, into) },
            // SAFETY: by the caller.
            PacketSource::Batch(b) => unsafe { b.take(skip, into) },
        }
    }

    fn release(&mut self) {
        match self {
            PacketSource::Ring(r) => r.release(),
            PacketSource::Batch(b) => b.release(),
        }
    }

    fn take_drops(&mut self) -> u32 {
        match self {
            PacketSource::Ring(r) => r.take_drops(),
            PacketSource::Batch(b) => b.take_drops(),
        }
    }

    fn readable_fd(&self) -> RawFd {
        match self {
            PacketSource::Ring(r) => r.readable_fd(),
            PacketSource::Batch(b) => b.readable_fd(),
        }
    }
}

/// Frames dropped for want of space since the last call (reading the counter resets it).
fn packet_drops(fd: RawFd) -> u32 {
    let zero = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    raw::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, zero).map_or(0, |s| s.tp_drops)
}
