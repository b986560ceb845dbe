//! Receiving through a TPACKET_V2 ring with small slots and PACKET_COPY_THRESH: a small frame is whole in its slot; of
//! a large one the slot has the headers, and the frame itself waits in the socket's queue for one recvmsg into the
//! place where it belongs.

use super::packet_drops;
use super::queue::FrameQueue;
use super::turn::Both;
use super::vnet::{self, VNET_HDR_LEN};
use crate::Errno;
use crate::fd::Fd;
use crate::frame::{Checksum, FrameSource, Rest, RxFrame, RxMeta, scatter};
use crate::raw;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Shape of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Bytes per slot, a multiple of 16 that divides `block_size` or leaves a rest that is wasted.
    pub slot_size: u32,
    /// Bytes per block of slots, a multiple of the page size.
    pub block_size: u32,
    /// Blocks in the ring.
    pub blocks: u32,
}

/// Bytes of receive buffer below which large frames do not fit in the socket's queue often enough: a receive buffer
/// of 4 MiB as granted by the stock rmem_max of 6.17 (doubled) is above it, the older 208 KiB below.
const SMALL_RCVBUF: i32 = 4 << 20;

impl RingConfig {
    /// 4096 slots of 2 KiB (8 MiB): a burst of 5 MB in MTU frames, or as many super-frames as the receive buffer
    /// takes.
    pub const SMALL_SLOTS: RingConfig = RingConfig {
        slot_size: 2048,
        block_size: 1 << 18,
        blocks: 32,
    };

    /// 240 slots that hold a super-frame each (16 MiB), for a small receive buffer: ring memory is not charged to it.
    pub const LARGE_SLOTS: RingConfig = RingConfig {
        slot_size: 69_632,
        block_size: 1 << 20,
        blocks: 16,
    };

    /// The shape that fits a receive buffer of `rcvbuf` bytes, as getsockopt tells it.
    pub fn for_rcvbuf(rcvbuf: i32) -> RingConfig {
        if rcvbuf < SMALL_RCVBUF {
            RingConfig::LARGE_SLOTS
        } else {
            RingConfig::SMALL_SLOTS
        }
    }

    fn slots_per_block(self) -> u32 {
        self.block_size / self.slot_size
    }

    /// Offset of a slot in the mapping. Slots do not cross blocks.
    fn slot_at(self, n: u32) -> u32 {
        let (block, within) = (n / self.slots_per_block(), n % self.slots_per_block());
        block * self.block_size + within * self.slot_size
    }
}

/// A frame that peek has shown: where its slot is and what take needs.
#[derive(Clone, Copy, Debug)]
struct Peeked {
    /// Offset of the network header within the slot, bytes there, and their number in the whole frame.
    net: usize,
    here: usize,
    /// Length of the link-layer header.
    l2: usize,
    rest: Rest,
    meta: RxMeta,
}

/// The ring, mapped; or unmapped, with a `base` of null.
#[derive(Debug)]
pub struct RingSource {
    queue: FrameQueue,
    base: *mut u8,
    map_len: usize,
    config: RingConfig,
    slots: u32,
    head: u32,
    /// Offset of the head slot in the mapping.
    head_at: u32,
    peeked: Option<Peeked>,
    /// What the socket before this one got as well.
    both: Option<Both>,
    /// What this one got that others may get as well.
    heard: Option<Both>,
}

// SAFETY: the mapping belongs to this object alone; the kernel's side synchronises through the slots' status words.
unsafe impl Send for RingSource {}

impl RingSource {
    /// Makes a ring on a packet socket that does not yet receive.
    ///
    /// # Errors
    /// ENOMEM; EBUSY when the socket has a ring; EINVAL for a shape that the kernel does not take.
    pub fn new(fd: Arc<Fd>, config: RingConfig) -> Result<RingSource, Errno> {
        let raw_fd = fd.as_raw_fd();
        let version = libc::tpacket_versions::TPACKET_V2 as i32;
        raw::setsockopt(raw_fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        raw::setsockopt(raw_fd, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1i32)?;
        let slots = config.slots_per_block() * config.blocks;
        let req = libc::tpacket_req {
            tp_block_size: config.block_size,
            tp_block_nr: config.blocks,
            tp_frame_size: config.slot_size,
            tp_frame_nr: slots,
        };
        raw::setsockopt(raw_fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &req)?;
        let map_len = config.block_size as usize * config.blocks as usize;
        let mut ring = RingSource {
            queue: FrameQueue::new(fd),
            base: std::ptr::null_mut(),
            map_len,
            config,
            slots,
            head: 0,
            head_at: 0,
            peeked: None,
            both: None,
            heard: None,
        };
        ring.map()?;
        Ok(ring)
    }

    /// Maps the ring, which goes on where it was.
    pub(crate) fn map(&mut self) -> Result<(), Errno> {
        self.unmap();
        self.base = raw::mmap_shared(self.fd().as_raw_fd(), self.map_len)?;
        // A child that had it mapped, too, would keep the socket from losing its ring when we end.
        let _ = raw::dont_fork(self.base, self.map_len);
        Ok(())
    }

    /// Unmaps the ring: no frame is seen until it is mapped again, here or in a child.
    pub(crate) fn unmap(&mut self) {
        // Its slot is still the head.
        self.peeked = None;
        if !self.base.is_null() {
            // SAFETY: slices of the mapping borrow self, so none is left; peek alone leads to the slots, and looks.
            unsafe { raw::munmap(self.base, self.map_len) };
            self.base = std::ptr::null_mut();
        }
    }

    /// Its socket has another number from now on.
    pub(super) fn go_by(&mut self, fd: Arc<Fd>) {
        self.queue = FrameQueue::new(fd);
    }

    /// There may be frames that another socket gave already.
    pub(super) fn expect_doubles(&mut self, both: Option<Both>) {
        self.both = both;
    }

    /// Remembers frames from now on.
    pub(super) fn remember(&mut self, both: Both) {
        self.heard = Some(both);
    }

    /// What it remembers.
    pub(super) fn remembered(&mut self) -> Option<Both> {
        self.heard.take()
    }

    /// Throws away frames that another socket gave already.
    #[cold]
    fn skip_doubles(&mut self) {
        while let Some(both) = &self.both
            && let Some(p) = self.peeked.or_else(|| self.next())
        {
            let double = both.second(&self.frame(&p));
            self.peeked = Some(p);
            match double {
                None => self.both = None,
                Some(false) => return,
                Some(true) => self.release(),
            }
        }
    }

    /// The head slot, if the kernel has handed it over.
    fn next(&self) -> Option<Peeked> {
        let status = self.status().load(Ordering::Acquire);
        (status & libc::TP_STATUS_USER != 0).then(|| self.look(status))
    }

    /// Where large frames wait.
    pub fn queue(&self) -> &FrameQueue {
        &self.queue
    }

    /// The socket.
    pub(crate) fn fd(&self) -> &Arc<Fd> {
        self.queue.fd()
    }

    /// Address of the head slot.
    fn slot(&self) -> *mut u8 {
        debug_assert!((self.head_at + self.config.slot_size) as usize <= self.map_len);
        // SAFETY: head < slots, so the slot lies within the mapping.
        unsafe { self.base.add(self.head_at as usize) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: a slot starts with the 32-bit, 16-byte aligned status word, which both sides access atomically.
        unsafe { &*self.slot().cast::<AtomicU32>() }
    }

    /// Gives the head slot back to the kernel, whose frame was `p`, and moves on.
    fn advance(&mut self, p: &Peeked) {
        if let Some(mut heard) = self.heard.take() {
            heard.first(&self.frame(p));
            self.heard = Some(heard);
        }
        self.status()
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.head = if self.head + 1 == self.slots {
            0
        } else {
            self.head + 1
        };
        self.head_at = self.config.slot_at(self.head);
    }

    /// Reads the head slot, which the kernel has handed over with `status`.
    fn look(&self, status: u32) -> Peeked {
        let slot = self.slot();
        // SAFETY: the slot is ours since the acquiring load of its status; a tpacket2_hdr stands at its start and a
        // sockaddr_ll behind it (aligned to 16), both made of integers.
        let (hdr, from) = unsafe {
            let hdr = slot.cast::<libc::tpacket2_hdr>().read();
            let at = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
            (hdr, slot.add(at).cast::<libc::sockaddr_ll>().read())
        };
        let (mac, net) = (usize::from(hdr.tp_mac), usize::from(hdr.tp_net));
        let l2 = net.saturating_sub(mac);
        let here = (hdr.tp_snaplen as usize)
            .saturating_sub(l2)
            .min((self.config.slot_size as usize).saturating_sub(net));
        let len = hdr.tp_len.saturating_sub(l2 as u32);
        let rest = if here as u32 == len {
            Rest::Here
        } else if status & libc::TP_STATUS_COPY != 0 {
            Rest::Queued
        } else {
            Rest::Lost
        };
        let mut vnet = [0u8; VNET_HDR_LEN];
        if mac >= VNET_HDR_LEN {
            // SAFETY: the kernel writes the vnet header right before the link-layer header, within the slot.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    slot.add(mac - VNET_HDR_LEN),
                    vnet.as_mut_ptr(),
                    VNET_HDR_LEN,
                )
            };
        }
        let (gso_size, csum) = vnet::offload(&vnet);
        let csum = match csum {
            Checksum::Unknown if status & libc::TP_STATUS_CSUMNOTREADY != 0 => Checksum::NotReady,
            Checksum::Unknown if status & libc::TP_STATUS_CSUM_VALID != 0 => Checksum::Valid,
            csum => csum,
        };
        let meta = RxMeta {
            ifindex: from.sll_ifindex as u32,
            pkttype: from.sll_pkttype,
            protocol: u16::from_be(from.sll_protocol),
            len,
            gso_size,
            csum,
            stamp: Some(u64::from(hdr.tp_sec) * 1_000_000_000 + u64::from(hdr.tp_nsec)),
        };
        Peeked {
            net,
            here,
            l2,
            rest,
            meta,
        }
    }

    fn frame(&self, p: &Peeked) -> RxFrame<'_> {
        RxFrame {
            meta: p.meta,
            bytes: self.bytes(p),
            rest: p.rest,
        }
    }

    fn bytes(&self, p: &Peeked) -> &[u8] {
        // SAFETY: `here` bytes from `net` on lie within the slot (bounded in look), which stays ours until advance,
        // and advance needs &mut self.
        unsafe { std::slice::from_raw_parts(self.slot().add(p.net), p.here) }
    }
}

impl FrameSource for RingSource {
    fn peek(&mut self) -> Result<Option<RxFrame<'_>>, Errno> {
        if self.peeked.is_none() {
            if self.base.is_null() {
                return Ok(None);
            }
            if self.both.is_some() {
                self.skip_doubles();
            }
            self.peeked = self.peeked.or_else(|| self.next());
        }
        let Some(p) = self.peeked else {
            return Ok(None);
        };
        Ok(Some(self.frame(&p)))
    }

    unsafe fn take(&mut self, skip: usize, into: &[libc::iovec]) -> Result<usize, Errno> {
        let Some(p) = self.peeked.take() else {
            return Ok(0);
        };
        let result = match p.rest {
            // SAFETY: by the caller; the queued frame starts with vnet and link-layer header.
            Rest::Queued => unsafe { self.queue.take(VNET_HDR_LEN + p.l2 + skip, into) },
            Rest::Here | Rest::Lost => {
                let bytes = self.bytes(&p);
                // SAFETY: by the caller: `into` is mapped for frames that are here; the ring is not part of it.
                Ok(unsafe { scatter(&bytes[skip.min(bytes.len())..], into) })
            }
        };
        self.advance(&p);
        result
    }

    fn release(&mut self) {
        let Some(p) = self.peeked.take() else { return };
        if p.rest == Rest::Queued {
            self.queue.discard();
        }
        self.advance(&p);
    }

    fn leave(&mut self) -> Option<usize> {
        let p = self.peeked.take_if(|p| p.rest == Rest::Queued)?;
        self.advance(&p);
        Some(VNET_HDR_LEN + p.l2)
    }

    fn take_drops(&mut self) -> u32 {
        packet_drops(self.fd().as_raw_fd())
    }

    fn readable_fd(&self) -> RawFd {
        self.fd().as_raw_fd()
    }
}

impl Drop for RingSource {
    fn drop(&mut self) {
        // The kernel frees the ring with the socket.
        self.unmap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_follows_the_receive_buffer() {
        assert_eq!(RingConfig::for_rcvbuf(2 * 212_992), RingConfig::LARGE_SLOTS);
        assert_eq!(
            RingConfig::for_rcvbuf(2 * (4 << 20)),
            RingConfig::SMALL_SLOTS
        );
        for shape in [RingConfig::LARGE_SLOTS, RingConfig::SMALL_SLOTS] {
            assert_eq!((shape.slot_size % 16, shape.block_size % 4096), (0, 0));
        }
    }
}
