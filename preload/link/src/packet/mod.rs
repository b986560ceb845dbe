//! Raw frames over AF_PACKET: one socket per network namespace, not bound to a device, with a vnet header on every
//! frame (`PACKET_VNET_HDR`), so that super-frames and unfinished checksums pass both ways.
//!
//! # Which way in
//!
//! Measured on 2 virtual CPUs, Linux 6.18, veth, sender and receiver pinned, 2 MiB in flight, no TCP work
//! (`examples/rx_bench.rs`). Gbit/s, and CPU time of the receiving thread per payload byte:
//!
//! | payload of a frame | | ring of 2 KiB slots, PACKET_COPY_THRESH | the same, receive buffer 208 KiB | ring of 68 KiB slots | recvmmsg |
//! |---|---|---|---|---|---|
//! | 65000, two CPUs | Gbit/s | **31.2** | 28.3 (0.3 % lost) | 26.8 | 29.8 |
//! | | ns/B | 0.160 | 0.161 | **0.121** | 0.191 |
//! | 65000, one CPU | Gbit/s | 31.9 | 31.2 (8 % lost) | 23.2 | **37.4** |
//! | 16000, two CPUs | Gbit/s | 15.2 | 15.1 (0.6 % lost) | 14.0 | **16.3** |
//! | | ns/B | 0.229 | 0.241 | **0.166** | 0.304 |
//! | 1460, two CPUs | Gbit/s (the sender's bound) | 1.8 | 1.7 | 1.7 (0.8 % lost) | 1.8 |
//! | | us per frame | **1.77** | 1.95 | 1.83 | 3.19 |
//!
//! The ring of small slots is at or near the front everywhere, takes a system call for large frames only, lets a
//! frame be looked at before it is placed, and tells the time of arrival for nothing; recvmmsg copies twice. With a
//! small receive buffer it loses large frames (up to 36 % on a loaded machine): then the ring of large slots, which
//! are not charged to the buffer, is taken, although it copies in the sender's context. Where there is no ring,
//! recvmmsg.
//!
//! # Which way out
//!
//! Gbit/s of one sending thread, same machine (`examples/tx_bench.rs`):
//!
//! | device's offloads | super-frames, one sendmsg each | super-frames, sendmmsg of 8 | super-frames cut by us | MTU frames, sendmmsg of 8 |
//! |---|---|---|---|---|
//! | on | 84 | **98** | 5.1 | 5.4 |
//! | off (tso, gso, tx, sg) | **14** | 11 | 4.0 | 5.3 |
//!
//! Beside these, measured anew with io_uring: sendmsg 110, sendmmsg of 8 127, io_uring SENDMSG of 8 123, with SQPOLL 72
//! (and a kernel thread busy); without offloads 20, 21, 20, 18. It gains nothing over sendmmsg, but where the receiver
//! shares the CPU: there it is the one call that the scheduler does not cut (`uring`).
//!
//! So super-frames are sent whatever ethtool says, and the kernel cuts them where the device cannot; we cut only
//! where it answers EINVAL.

mod fanout;
pub mod filter;
mod queue;
mod receive;
mod ring;
mod rings;
mod send;
pub mod tstamp;
mod turn;
mod uring;
pub mod vnet;

pub use fanout::{Choice, MAX_SPREAD};
pub use queue::FrameQueue;
pub use receive::BatchSource;
pub use ring::{RingConfig, RingSource};
pub use rings::{MAX_RINGS, RingGroup};
pub use send::PacketSink;
pub use turn::{Prepared, Turn};

use crate::Errno;
use crate::fd::{Fd, duplicate_high, move_high};
use crate::frame::{FrameSource, RxFrame};
use crate::late_close::LateClose;
use crate::raw;
use arrayvec::ArrayVec;
use sidewire_uapi::socket::SO_NETNS_COOKIE;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

/// Send and receive buffer asked for, in bytes; the kernel doubles it, and cuts it to wmem_max and rmem_max where
/// the force options are refused.
pub const PACKET_BUFFER: i32 = 32 << 20;

/// The packet socket of a network namespace, before it is split into a way out and a way in.
#[derive(Debug)]
pub struct PacketSocket {
    fd: Arc<Fd>,
    /// The number by which frames are received: another one of the same socket, where a [`Turn`] can give it another.
    rx: Arc<Fd>,
    /// The receive buffer that was granted, as getsockopt tells it (twice the bytes asked for).
    rcvbuf: i32,
    /// For batches in one piece.
    ring: uring::SharedRing,
    /// Holds the socket, and those that it gets for company, beyond the end of the process.
    late: Arc<LateClose>,
}

impl PacketSocket {
    /// Opens the socket in the calling thread's network namespace. No frame arrives before a filter is set.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; EAFNOSUPPORT without packet sockets in the kernel; EMFILE, ENFILE, ENOBUFS.
    pub fn open() -> Result<PacketSocket, Errno> {
        let socket = PacketSocket::from_fd(move_high(raw::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_NONBLOCK,
            0,
        )?)?)?;
        socket.close_late(socket.fd.as_raw_fd());
        Ok(PacketSocket {
            rx: Arc::new(duplicate_high(socket.fd.as_raw_fd())?),
            ..socket
        })
    }

    /// Takes an open, non-blocking packet socket that is bound to nothing or lets no frame pass.
    ///
    /// # Errors
    /// What setsockopt says.
    pub(crate) fn from_fd(fd: Fd) -> Result<PacketSocket, Errno> {
        let raw_fd = fd.as_raw_fd();
        raw::setsockopt(raw_fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1i32)?;
        grow_buffer(raw_fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
        let rcvbuf = grow_rcvbuf(raw_fd)?;
        filter::attach(raw_fd, &filter::drop_all())?;
        let fd = Arc::new(fd);
        Ok(PacketSocket {
            rx: fd.clone(),
            fd,
            rcvbuf,
            ring: Arc::default(),
            late: Arc::default(),
        })
    }

    /// Has the kernel close this descriptor's file after the end of the process, not in it.
    pub fn close_late(&self, fd: RawFd) {
        let _ = self.late.hold(fd);
    }

    /// The receive buffer that was granted, as getsockopt tells it.
    pub fn rcvbuf(&self) -> i32 {
        self.rcvbuf
    }

    /// The way out; any number may exist, one per thread that sends.
    pub fn sink(&self) -> PacketSink {
        PacketSink::new(self.fd.clone(), self.ring.clone(), self.late.clone())
    }

    /// The way in, as [`PacketSocket::source`]; without a ring at first, where there is a [`Turn`] to give it one later. With
    /// a small receive buffer, which could not hold what comes until then, it has one at once.
    ///
    /// # Errors
    /// What bind(2) says.
    pub fn first_source(&self) -> Result<(PacketSource, Option<Turn>), Errno> {
        if !Arc::ptr_eq(&self.fd, &self.rx)
            && RingConfig::for_rcvbuf(self.rcvbuf) == RingConfig::SMALL_SLOTS
        {
            let mut batch = BatchSource::new(self.rx.clone())?;
            batch.set_stamps(true)?;
            self.start()?;
            let turn = Turn {
                out: self.fd.clone(),
                rx: self.rx.clone(),
                late: self.late.clone(),
                opened: Mutex::default(),
                one: Mutex::default(),
            };
            return Ok((PacketSource::Batch(Box::new(batch)), Some(turn)));
        }
        Ok((self.source()?, None))
    }

    /// The way in by a ring, or without one where the kernel refuses it, and starts to receive. Only one may exist.
    ///
    /// # Errors
    /// What bind(2) says.
    pub fn source(&self) -> Result<PacketSource, Errno> {
        let source = match RingSource::new(self.rx.clone(), RingConfig::for_rcvbuf(self.rcvbuf)) {
            Ok(ring) => PacketSource::Ring(ring),
            Err(_) => PacketSource::Batch(Box::new(BatchSource::new(self.rx.clone())?)),
        };
        self.start()?;
        Ok(source)
    }

    /// Starts to receive IPv4 frames from every device.
    ///
    /// # Errors
    /// What bind(2) says.
    pub fn start(&self) -> Result<(), Errno> {
        bind_protocol(self.rx.as_raw_fd(), libc::ETH_P_IP as u16)
    }

    /// The socket as it receives: for its filter, and to be shared with a source of a chosen kind.
    pub fn shared_fd(&self) -> Arc<Fd> {
        self.rx.clone()
    }
}

/// A packet socket that only sends, in the network namespace of another one.
///
/// # Errors
/// EPERM without CAP_NET_RAW; ENONET where the calling thread is in another namespace; EMFILE, ENFILE, ENOBUFS.
fn way_out_beside(other: &Fd) -> Result<Fd, Errno> {
    let fd = socket_beside(other)?;
    grow_buffer(fd.as_raw_fd(), libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
    Ok(fd)
}

/// A packet socket with vnet headers in the network namespace of another one.
///
/// # Errors
/// As [`way_out_beside`].
fn socket_beside(other: &Fd) -> Result<Fd, Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
    let fd = move_high(raw::socket(libc::AF_PACKET, kind, 0)?)?;
    let netns = |fd: &Fd| raw::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, 0u64);
    if netns(&fd)? != netns(other)? {
        return Err(Errno::ENONET);
    }
    raw::setsockopt(
        fd.as_raw_fd(),
        libc::SOL_PACKET,
        libc::PACKET_VNET_HDR,
        &1i32,
    )?;
    Ok(fd)
}

/// Asks for a large receive buffer; what was granted, as getsockopt tells it.
fn grow_rcvbuf(fd: RawFd) -> Result<i32, Errno> {
    grow_buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
    raw::getsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 0i32)
}

/// Asks for [`PACKET_BUFFER`] by the privileged option, then for as much as the sysctl allows.
fn grow_buffer(fd: RawFd, force: i32, plain: i32) -> Result<(), Errno> {
    raw::setsockopt(fd, libc::SOL_SOCKET, force, &PACKET_BUFFER)
        .or_else(|_| raw::setsockopt(fd, libc::SOL_SOCKET, plain, &PACKET_BUFFER))
}

/// An EtherType that no frame has (reserved: RFC 1701). A packet socket cannot be unbound: protocol 0 leaves it with
/// the one it has (Linux packet_do_bind).
const UNUSED_PROTOCOL: u16 = 0xffff;

/// True from [`bind_protocol`] to [`reset`]: the kernel shows frames to the socket, whatever its filter says, and it
/// may have a ring.
pub(crate) fn in_use(fd: RawFd) -> bool {
    // SAFETY: sockaddr_ll is made of integers; all zero is valid.
    let name: libc::sockaddr_ll = unsafe { zeroed() };
    raw::getsockname(fd, name)
        .is_ok_and(|name| ![0, UNUSED_PROTOCOL].contains(&u16::from_be(name.sll_protocol)))
}

/// Makes a packet socket that somebody else has used one that gets no frame, keeps none and has no ring.
///
/// # Errors
/// EBUSY while its ring is mapped by somebody else; it stays [`in_use`] then.
pub(crate) fn reset(fd: RawFd) -> Result<(), Errno> {
    filter::attach(fd, &filter::drop_all())?;
    // Linux packet_set_ring: a ring of nothing frees the one that is there and, with or without one, what waits in the
    // receive queue.
    let nothing = libc::tpacket_req {
        tp_block_size: 0,
        tp_block_nr: 0,
        tp_frame_size: 0,
        tp_frame_nr: 0,
    };
    raw::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &nothing)?;
    // Reading the counter sets it to zero.
    packet_drops(fd);
    if in_use(fd) {
        bind_protocol(fd, UNUSED_PROTOCOL)?;
    }
    Ok(())
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
    /// Several of them.
    Rings(Box<RingGroup>),
    /// Plain recvmmsg.
    Batch(Box<BatchSource>),
    /// Nothing comes in any more.
    Closed(Arc<Fd>),
}

impl PacketSource {
    /// Gives the ring's memory back to the kernel, as far as this process has it. The socket stays as it is.
    pub fn close(&mut self) {
        let fd = match self {
            PacketSource::Ring(r) => r.fd(),
            PacketSource::Rings(g) => g.arrivals(),
            PacketSource::Batch(b) => b.fd(),
            PacketSource::Closed(_) => return,
        };
        *self = PacketSource::Closed(fd.clone());
    }

    /// True for one without a ring that could use one.
    #[inline]
    pub fn wants_ring(&self) -> bool {
        matches!(self, PacketSource::Batch(batch) if batch.busy())
    }

    /// True for one without a ring that has had large frames, which a queue of their own would serve.
    pub fn bulky(&self) -> bool {
        matches!(self, PacketSource::Batch(batch) if batch.bulky())
    }

    /// Its rings.
    fn rings(&self) -> &[RingSource] {
        match self {
            PacketSource::Ring(r) => std::slice::from_ref(r),
            PacketSource::Rings(g) => g.rings(),
            PacketSource::Batch(_) | PacketSource::Closed(_) => &[],
        }
    }

    fn rings_mut(&mut self) -> &mut [RingSource] {
        match self {
            PacketSource::Ring(r) => std::slice::from_mut(r),
            PacketSource::Rings(g) => g.rings_mut(),
            PacketSource::Batch(_) | PacketSource::Closed(_) => &mut [],
        }
    }

    /// Where large frames wait, of a source that can leave them there: a queue for each ring.
    pub fn queues(&self) -> impl Iterator<Item = FrameQueue> {
        self.rings().iter().map(|ring| ring.queue().clone())
    }

    /// Which of [`PacketSource::queues`] the peeked frame is in.
    #[inline]
    pub fn queue(&self) -> usize {
        match self {
            PacketSource::Rings(g) => g.at(),
            _ => 0,
        }
    }

    /// The packet sockets that frames come by, for their filter and to be watched.
    pub fn sockets(&self) -> ArrayVec<RawFd, MAX_RINGS> {
        match self.rings() {
            [] => [self.readable_fd()].into_iter().collect(),
            rings => rings.iter().map(|ring| ring.fd().as_raw_fd()).collect(),
        }
    }

    /// Sees no frame until [`PacketSource::resume`], here or in a forked child, and has no memory of the ring meanwhile:
    /// the process that ends last must be the only one that has, to take the ring from the socket.
    pub fn suspend(&mut self) {
        self.rings_mut().iter_mut().for_each(RingSource::unmap);
    }

    /// Goes on where [`PacketSource::suspend`] was called. Nothing is lost, as far as the ring had room.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn resume(&mut self) -> Result<(), Errno> {
        self.rings_mut().iter_mut().try_for_each(RingSource::map)
    }
}

impl FrameSource for PacketSource {
    fn peek(&mut self) -> Result<Option<RxFrame<'_>>, Errno> {
        match self {
            PacketSource::Ring(r) => r.peek(),
            PacketSource::Rings(g) => g.peek(),
            PacketSource::Batch(b) => b.peek(),
            PacketSource::Closed(_) => Ok(None),
        }
    }

    unsafe fn take(&mut self, skip: usize, into: &[libc::iovec]) -> Result<usize, Errno> {
        match self {
            // SAFETY: by the caller.
            PacketSource::Ring(r) => unsafe { r.take(skip, into) },
            // SAFETY: by the caller.
            PacketSource::Rings(g) => unsafe { g.take(skip, into) },
            // SAFETY: by the caller.
            PacketSource::Batch(b) => unsafe { b.take(skip, into) },
            PacketSource::Closed(_) => Ok(0),
        }
    }

    fn release(&mut self) {
        match self {
            PacketSource::Ring(r) => r.release(),
            PacketSource::Rings(g) => g.release(),
            PacketSource::Batch(b) => b.release(),
            PacketSource::Closed(_) => {}
        }
    }

    fn leave(&mut self) -> Option<usize> {
        match self {
            PacketSource::Ring(r) => r.leave(),
            PacketSource::Rings(g) => g.leave(),
            PacketSource::Batch(_) | PacketSource::Closed(_) => None,
        }
    }

    fn take_drops(&mut self) -> u32 {
        match self {
            PacketSource::Ring(r) => r.take_drops(),
            PacketSource::Rings(g) => g.take_drops(),
            PacketSource::Batch(b) => b.take_drops(),
            PacketSource::Closed(_) => 0,
        }
    }

    fn readable_fd(&self) -> RawFd {
        match self {
            PacketSource::Ring(r) => r.readable_fd(),
            PacketSource::Rings(g) => g.readable_fd(),
            PacketSource::Batch(b) => b.readable_fd(),
            PacketSource::Closed(fd) => fd.as_raw_fd(),
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
