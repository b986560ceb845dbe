//! Receiving with recvmmsg, for the first frames, and for kernels or sandboxes that refuse a ring: each frame is copied
//! into a buffer of ours and then once more to where it belongs.

use super::packet_drops;
use super::rings::SHARED_SLOTS;
use super::turn::{Both, TURN_AFTER};
use super::vnet::{self, VNET_HDR_LEN};
use crate::Errno;
use crate::fd::Fd;
use crate::frame::{FrameSource, MAX_FRAME, Rest, RxFrame, RxMeta, scatter};
use crate::raw;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// Large frames from which on more of them are expected.
const BULKY: u32 = 8;
/// Frames per recvmmsg.
const BATCH: usize = 16;

/// Room for one frame with its vnet header, rounded up to pages.
const BUFFER: usize = (VNET_HDR_LEN + MAX_FRAME).next_multiple_of(4096);

/// Room for a SCM_TIMESTAMPNS control message.
const CONTROL: usize = 64;

/// Link-layer header of a device: only Ethernet-like devices have one that we know.
fn l2_len(hatype: u16) -> usize {
    match hatype {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => 14,
        _ => 0,
    }
}

/// Frames received in batches into buffers of its own.
#[derive(Debug)]
pub struct BatchSource {
    fd: Arc<Fd>,
    buffers: Vec<u8>,
    lens: [u32; BATCH],
    from: [libc::sockaddr_ll; BATCH],
    stamps: [Option<u64>; BATCH],
    stamped: bool,
    next: usize,
    filled: usize,
    /// Frames taken so far, up to [`TURN_AFTER`].
    taken: u32,
    /// How many of them would not have fitted in a slot.
    large: u32,
    /// Another socket hears what this one does.
    both: Option<Both>,
}

impl BatchSource {
    /// Receives from a packet socket that has PACKET_VNET_HDR and no ring.
    ///
    /// # Errors
    /// None today; kept for sources that need set-up.
    pub fn new(fd: Arc<Fd>) -> Result<BatchSource, Errno> {
        // SAFETY: sockaddr_ll is made of integers; all zero is valid.
        let from = unsafe { zeroed() };
        Ok(BatchSource {
            fd,
            buffers: vec![0; BATCH * BUFFER],
            lens: [0; BATCH],
            from,
            stamps: [None; BATCH],
            stamped: false,
            next: 0,
            filled: 0,
            taken: 0,
            large: 0,
            both: None,
        })
    }

    /// Asks the kernel for arrival times (a control message per frame), or stops asking.
    ///
    /// # Errors
    /// What setsockopt says.
    pub fn set_stamps(&mut self, on: bool) -> Result<(), Errno> {
        raw::setsockopt(
            self.fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            &i32::from(on),
        )?;
        self.stamped = on;
        Ok(())
    }

    fn fill(&mut self) -> Result<(), Errno> {
        // SAFETY: iovec and mmsghdr are made of integers and pointers; all zero is valid.
        let mut iov: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut msgs: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let mut control = [[0u64; CONTROL / 8]; BATCH];
        for (i, buffer) in self.buffers.chunks_exact_mut(BUFFER).enumerate() {
            iov[i] = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: BUFFER,
            };
            let hdr = &mut msgs[i].msg_hdr;
            hdr.msg_iov = &mut iov[i];
            hdr.msg_iovlen = 1;
            hdr.msg_name = (&raw mut self.from[i]).cast();
            hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
            if self.stamped {
                hdr.msg_control = control[i].as_mut_ptr().cast();
                hdr.msg_controllen = CONTROL;
            }
        }
        // SAFETY: every pointer set above names live memory that nothing else refers to.
        let mut receive =
            || unsafe { raw::recvmmsg(self.fd.as_raw_fd(), &mut msgs, libc::MSG_DONTWAIT) };
        let got = loop {
            match receive() {
                Ok(n) => break n,
                // Only says that some device went down: the frames are still queued.
                Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break 0,
                Err(e) => return Err(e),
            }
        };
        for (i, msg) in msgs[..got].iter().enumerate() {
            self.lens[i] = msg.msg_len;
            self.stamps[i] = None;
            if self.stamped {
                // SAFETY: the kernel has filled the control buffer and its length.
                self.stamps[i] = unsafe { arrival(&msg.msg_hdr) };
            }
        }
        self.next = 0;
        self.filled = got;
        Ok(())
    }

    /// The frame at `next`, from the network header on.
    fn current(&self) -> (RxMeta, &[u8]) {
        let i = self.next;
        let frame = &self.buffers[i * BUFFER..][..self.lens[i] as usize];
        let from = &self.from[i];
        let (hdr, rest) = frame.split_at(VNET_HDR_LEN.min(frame.len()));
        let (gso_size, csum) = vnet::offload(hdr);
        let bytes = &rest[l2_len(from.sll_hatype).min(rest.len())..];
        let meta = RxMeta {
            ifindex: from.sll_ifindex as u32,
            pkttype: from.sll_pkttype,
            protocol: u16::from_be(from.sll_protocol),
            len: bytes.len() as u32,
            gso_size,
            csum,
            stamp: self.stamps[i],
        };
        (meta, bytes)
    }
}

/// The SCM_TIMESTAMPNS of a received message.
///
/// # Safety
/// `hdr`'s control buffer must be as recvmsg left it.
unsafe fn arrival(hdr: &libc::msghdr) -> Option<u64> {
    // SAFETY: by the caller, the control messages are well formed.
    unsafe {
        let mut c = libc::CMSG_FIRSTHDR(hdr);
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SO_TIMESTAMPNS {
                let ts = libc::CMSG_DATA(c).cast::<libc::timespec>().read_unaligned();
                return Some(ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64);
            }
            c = libc::CMSG_NXTHDR(hdr, c);
        }
    }
    None
}

impl BatchSource {
    /// The socket.
    pub(crate) fn fd(&self) -> &Arc<Fd> {
        &self.fd
    }

    /// True when it has taken so many frames that a ring would be worth its making.
    pub(super) fn busy(&self) -> bool {
        self.taken >= TURN_AFTER
    }

    /// True when large frames were among them.
    pub(super) fn bulky(&self) -> bool {
        self.large >= BULKY
    }

    /// Remembers frames from now on.
    pub(super) fn remember(&mut self, both: Both) {
        self.both = Some(both);
    }

    /// What it remembers.
    pub(super) fn remembered(&mut self) -> Option<Both> {
        self.both.take()
    }

    fn advance(&mut self) {
        if let Some(mut both) = self.both.take() {
            let (meta, bytes) = self.current();
            both.first(&RxFrame {
                meta,
                bytes,
                rest: Rest::Here,
            });
            self.both = Some(both);
        }
        self.taken = TURN_AFTER.min(self.taken + 1);
        let large = self.lens[self.next] > SHARED_SLOTS.slot_size;
        self.large = BULKY.min(self.large + u32::from(large));
        self.next += 1;
    }
}

impl FrameSource for BatchSource {
    fn peek(&mut self) -> Result<Option<RxFrame<'_>>, Errno> {
        if self.next == self.filled {
            self.fill()?;
        }
        if self.next == self.filled {
            return Ok(None);
        }
        let (meta, bytes) = self.current();
        Ok(Some(RxFrame {
            meta,
            bytes,
            rest: Rest::Here,
        }))
    }

    unsafe fn take(&mut self, skip: usize, into: &[libc::iovec]) -> Result<usize, Errno> {
        if self.next == self.filled {
            return Ok(0);
        }
        let (_, bytes) = self.current();
        // SAFETY: by the caller: `into` is mapped, and is none of our buffers.
        let n = unsafe { scatter(&bytes[skip.min(bytes.len())..], into) };
        self.advance();
        Ok(n)
    }

    fn release(&mut self) {
        if self.next < self.filled {
            self.advance();
        }
    }

    fn take_drops(&mut self) -> u32 {
        packet_drops(self.fd.as_raw_fd())
    }

    fn readable_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
