//! What goes over a link: frames with references to their payload out, frames looked at before they are taken in.

use crate::Errno;
use sidewire_wire::ethernet::{self, MacAddr};
use std::os::fd::RawFd;

/// Largest frame that leaves in one piece, link-layer header included: the kernel cuts up anything longer.
pub const MAX_FRAME: usize = 65535;

/// Most payload fragments that one frame may name.
pub const MAX_FRAGS: usize = 64;

/// Longest link-layer header of the devices that a link carries (Ethernet).
pub const MAX_L2: usize = ethernet::HEADER_LEN;

/// Longest IP and TCP header together (two headers of 60 bytes).
pub const MAX_HEADERS: usize = 120;

/// A frame to send: one TCP segment, or with `gso_size` a super-frame that the device or the kernel cuts into
/// segments.
#[derive(Clone, Copy, Debug)]
pub struct TxFrame<'a> {
    /// The device to leave by.
    pub ifindex: u32,
    /// The next hop's link-layer address; None for a device without a link-layer header (tun).
    pub dst_mac: Option<MacAddr>,
    /// Our address on that device.
    pub src_mac: MacAddr,
    /// IP and TCP header, at most [`MAX_HEADERS`] bytes. The TCP checksum field holds the folded, not complemented
    /// sum of the pseudo-header (with the whole TCP length); the IPv4 header checksum is complete.
    pub headers: &'a [u8],
    /// The payload, by address; at most [`MAX_FRAGS`]. The addresses may be the program's: a bad one is
    /// [`TxVerdict::Fault`], never a crash.
    pub frags: &'a [libc::iovec],
    /// Payload bytes per segment of a super-frame; 0 for a single segment.
    pub gso_size: u16,
    /// SO_MARK of the frame; 0 for none.
    pub mark: u32,
    /// SO_PRIORITY of the frame; 0 for none.
    pub priority: u32,
    /// Transmit timestamps, where the way out can give them.
    pub tstamp: Option<TxTstamp>,
    /// When it is to leave, where the way out can tell the queueing discipline.
    pub txtime: Option<TxTime>,
}

/// The transmit timestamps of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxTstamp {
    /// `SOF_TIMESTAMPING_TX_*`.
    pub flags: u32,
    /// What the stamps are known by; of a super-frame that is cut, the segment with this TCP sequence number has them.
    pub key: u32,
    /// A stamp of the device's does not replace the software's (SOF_TIMESTAMPING_OPT_TX_SWHW). Once asked for, it holds for
    /// every frame of the socket.
    pub swhw: bool,
}

/// SCM_TXTIME, in the terms of SO_TXTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxTime {
    /// Nanoseconds of the clock.
    pub at: u64,
    /// Which clock.
    pub clockid: i32,
    /// `SOF_TXTIME_*`.
    pub flags: u32,
}

impl TxFrame<'_> {
    /// Payload bytes.
    pub fn payload_len(&self) -> usize {
        self.frags.iter().map(|f| f.iov_len).sum()
    }

    /// Ethernet protocol number of the IP version.
    pub fn ethertype(&self) -> u16 {
        if self.headers.first().is_some_and(|b| b >> 4 == 6) {
            ethernet::ETH_P_IPV6
        } else {
            ethernet::ETH_P_IP
        }
    }

    /// Whole length, link-layer header included.
    pub fn frame_len(&self) -> usize {
        let l2 = if self.dst_mac.is_some() { MAX_L2 } else { 0 };
        l2 + self.headers.len() + self.payload_len()
    }
}

/// What became of a frame that was handed to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxVerdict {
    /// The device or its queue has it.
    Sent,
    /// The packet socket's send buffer is full (EAGAIN): nothing was sent; wait for POLLOUT.
    NoSpace,
    /// The queueing discipline threw it away (ENOBUFS): Linux's local congestion.
    Dropped,
    /// Longer than the device takes (EMSGSIZE): the MTU has shrunk.
    TooBig,
    /// A payload address is not readable (EFAULT).
    Fault,
    /// The device is gone or down (ENXIO, ENODEV, ENETDOWN).
    DeviceGone,
    /// Anything else the kernel said.
    Refused(Errno),
}

impl From<Errno> for TxVerdict {
    fn from(e: Errno) -> TxVerdict {
        match e {
            Errno::EAGAIN => TxVerdict::NoSpace,
            Errno::ENOBUFS => TxVerdict::Dropped,
            Errno::EMSGSIZE => TxVerdict::TooBig,
            Errno::EFAULT => TxVerdict::Fault,
            Errno::ENXIO | Errno::ENODEV | Errno::ENETDOWN => TxVerdict::DeviceGone,
            e => TxVerdict::Refused(e),
        }
    }
}

/// How much of what went out by a socket has not left the host yet.
pub trait Outq: Clone + Send + Sync {
    /// Bytes, as the kernel charges them (SIOCOUTQ).
    fn bytes(&self) -> usize;
}

/// The way out.
pub trait FrameSink {
    /// What [`FrameSink::outq`] answers.
    type Outq: Outq;

    /// Hands one frame to the device. Never sleeps.
    fn send(&mut self, frame: &TxFrame<'_>) -> TxVerdict;

    /// Hands over several frames in as few calls as it can, in order, stopping at the first that is not sent.
    /// `verdicts` gets one entry for each frame that was tried; their number is returned. Frames after that have not left,
    /// but for a few that may have overtaken the one that is not sent.
    fn send_batch(&mut self, frames: &[TxFrame<'_>], verdicts: &mut [TxVerdict]) -> usize {
        let mut tried = 0;
        for (frame, verdict) in frames.iter().zip(verdicts) {
            *verdict = self.send(frame);
            tried += 1;
            if *verdict != TxVerdict::Sent {
                break;
            }
        }
        tried
    }

    /// True when frames for this device are copied and cut in user space.
    fn cuts(&self, _ifindex: u32) -> bool {
        false
    }

    /// Forgets what a device refused: it is gone, or may have changed.
    fn forget_device(&mut self, _ifindex: u32) {}

    /// The descriptor that polls POLLOUT when frames are taken again after [`TxVerdict::NoSpace`].
    fn writable_fd(&self) -> RawFd;

    /// What waits in the host of the frames of this sink, and of those that share its socket.
    fn outq(&self) -> Self::Outq;

    /// Sends by a socket of its own from now on. False where none can be had.
    fn separate(&mut self) -> bool;
}

/// Who answers for the TCP checksum of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nobody: verify it.
    Unknown,
    /// A local sender left it unfinished: it holds the pseudo-header's sum, and the data never left memory.
    NotReady,
    /// The device has verified it.
    Valid,
}

/// What is known about a received frame besides its bytes. The link-layer header is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxMeta {
    /// The device it came in by.
    pub ifindex: u32,
    /// PACKET_HOST, PACKET_BROADCAST ...
    pub pkttype: u8,
    /// Ethernet protocol number, host byte order.
    pub protocol: u16,
    /// Bytes from the network header to the end of the frame (Ethernet padding included).
    pub len: u32,
    /// Payload bytes per segment where several were merged; else 0.
    pub gso_size: u16,
    /// State of the TCP checksum.
    pub csum: Checksum,
    /// Arrival, in nanoseconds of CLOCK_REALTIME, where the source knows it.
    pub stamp: Option<u64>,
}

/// Where the bytes of a peeked frame beyond [`RxFrame::bytes`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There are none: the frame is here as a whole.
    Here,
    /// In the kernel: [`FrameSource::take`] brings them.
    Queued,
    /// Lost for want of receive buffer: accept the frame as far as `bytes` goes.
    Lost,
}

/// The next frame, looked at and not yet taken.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame<'a> {
    /// What is known about it.
    pub meta: RxMeta,
    /// From the network header on; holds all IP and TCP headers, and the whole frame if `rest` is [`Rest::Here`].
    pub bytes: &'a [u8],
    /// Where the other bytes are.
    pub rest: Rest,
}

/// The way in. Each frame is peeked, then either taken into memory of the caller's choice or released.
pub trait FrameSource {
    /// The next frame, or None when none waits. Never sleeps. Peeking again gives the same frame.
    ///
    /// # Errors
    /// What the kernel says; ENETDOWN (a device went down) is swallowed.
    fn peek(&mut self) -> Result<Option<RxFrame<'_>>, Errno>;

    /// Takes the peeked frame: its bytes from `skip` on (counted from the network header) are scattered over `into`,
    /// the rest is thrown away. Returns how many bytes were stored. Once called, the frame is gone, also after an
    /// error: a fault in the target is a lost frame. At most [`MAX_FRAGS`] parts.
    ///
    /// # Errors
    /// EFAULT for [`Rest::Queued`] frames into memory that is not writable.
    ///
    /// # Safety
    /// `into` must be memory that the caller may overwrite now. Memory that may be unmapped (the program's) is
    /// allowed only when the frame's `rest` is [`Rest::Queued`]: then the kernel does the copy and checks it. For a
    /// frame that is here, copy from [`RxFrame::bytes`] by means that survive a fault and call
    /// [`FrameSource::release`].
    unsafe fn take(&mut self, skip: usize, into: &[libc::iovec]) -> Result<usize, Errno>;

    /// Gives the peeked frame back to the kernel without reading on; nothing happens when none is peeked.
    fn release(&mut self);

    /// Moves on and leaves the peeked frame in the kernel's queue, if that is where it is ([`Rest::Queued`]). Returns how
    /// many bytes of the queued frame stand before its network header.
    fn leave(&mut self) -> Option<usize> {
        None
    }

    /// Frames that the kernel dropped for want of space since the last call.
    fn take_drops(&mut self) -> u32;

    /// The descriptor that polls POLLIN when a frame arrives. Peek until None before waiting on it: a source may hold
    /// frames that the descriptor no longer shows.
    fn readable_fd(&self) -> RawFd;
}

/// Scatters `bytes` over `into` by memcpy; returns how much found room.
///
/// # Safety
/// Every part of `into` must be mapped memory that may be overwritten now and does not overlap `bytes`.
pub(crate) unsafe fn scatter(bytes: &[u8], into: &[libc::iovec]) -> usize {
    let mut done = 0;
    for part in into {
        let n = part.iov_len.min(bytes.len() - done);
        // SAFETY: `n` bytes fit both ends; validity and absence of overlap by the caller.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes[done..].as_ptr(), part.iov_base.cast::<u8>(), n)
        };
        done += n;
        if done == bytes.len() {
            break;
        }
    }
    done
}
