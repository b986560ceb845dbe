//! The receive queue of a packet socket that has a ring: the large frames, in the order of their slots.

use super::vnet::VNET_HDR_LEN;
use crate::Errno;
use crate::fd::Fd;
use crate::frame::{MAX_FRAGS, MAX_HEADERS, MAX_L2};
use crate::raw;
use arrayvec::ArrayVec;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Most bytes of a queued frame that stand before its payload.
const MAX_HEAD: usize = VNET_HDR_LEN + MAX_L2 + MAX_HEADERS;

/// Linux `SK_MEMINFO_*`: how many there are, and the first.
const SK_MEMINFO_VARS: usize = 9;
const SK_MEMINFO_RMEM_ALLOC: usize = 0;

/// Takes frames out of the queue, the oldest first. Whoever leaves frames there
/// ([`FrameSource::leave`](crate::frame::FrameSource::leave)) takes them by this, before the source takes or releases a
/// queued one itself.
#[derive(Clone, Debug)]
pub struct FrameQueue {
    fd: Arc<Fd>,
}

impl FrameQueue {
    /// The queue of a non-blocking socket that gives a whole frame for each read.
    pub fn new(fd: Arc<Fd>) -> FrameQueue {
        FrameQueue { fd }
    }

    /// The socket.
    pub(super) fn fd(&self) -> &Arc<Fd> {
        &self.fd
    }

    /// Bytes that the kernel charges to the receive buffer for what waits, looked at or not.
    pub fn charged(&self) -> usize {
        let none = [0u32; SK_MEMINFO_VARS];
        raw::getsockopt(
            self.fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            none,
        )
        .map_or(0, |info| info[SK_MEMINFO_RMEM_ALLOC] as usize)
    }

    /// Takes the oldest frame: its bytes behind the first `head` are scattered over `into`, the rest is thrown away.
    /// Returns how many were stored. Once called the frame is gone, also after an error. `head` covers the vnet header at
    /// least. At most [`MAX_FRAGS`] parts.
    ///
    /// # Errors
    /// EFAULT where `into` cannot be written; EAGAIN when no frame is queued.
    ///
    /// # Safety
    /// `into` must be memory that the caller may overwrite now. It may be unmapped: the kernel checks.
    pub unsafe fn take(&self, head: usize, into: &[libc::iovec]) -> Result<usize, Errno> {
        // SAFETY: by the caller.
        unsafe { self.receive(head, into, 0) }
    }

    /// Takes the oldest frame and throws it away; nothing happens when none is queued.
    pub fn discard(&self) {
        // The least that a packet socket gives out is a vnet header.
        // SAFETY: no target of the caller's.
        let _ = unsafe { self.receive(VNET_HDR_LEN, &[], 0) };
    }

    /// As [`FrameQueue::take`], and leaves the frame where it is.
    ///
    /// # Errors
    /// As [`FrameQueue::take`].
    ///
    /// # Safety
    /// As for [`FrameQueue::take`].
    pub unsafe fn peek(&self, head: usize, into: &[libc::iovec]) -> Result<usize, Errno> {
        // SAFETY: by the caller.
        unsafe { self.receive(head, into, libc::MSG_PEEK) }
    }

    // Apart: what is whole in its slot needs less of the program's stack.
    #[inline(never)]
    unsafe fn receive(
        &self,
        head: usize,
        into: &[libc::iovec],
        flags: i32,
    ) -> Result<usize, Errno> {
        let mut scratch = [0u8; MAX_HEAD];
        debug_assert!(head <= scratch.len() && into.len() <= MAX_FRAGS);
        let head = head.min(scratch.len());
        let mut iov: ArrayVec<libc::iovec, { MAX_FRAGS + 1 }> = ArrayVec::new();
        iov.push(libc::iovec {
            iov_base: scratch.as_mut_ptr().cast(),
            iov_len: head,
        });
        iov.extend(into.iter().copied().take(MAX_FRAGS));
        // SAFETY: msghdr is made of integers and pointers; all zero is valid.
        let mut msg: libc::msghdr = unsafe { zeroed() };
        msg.msg_iov = iov.as_mut_ptr();
        msg.msg_iovlen = iov.len();
        loop {
            // SAFETY: the first part is ours, the others by the caller.
            match unsafe { raw::recvmsg(self.fd.as_raw_fd(), &mut msg, flags | libc::MSG_DONTWAIT) }
            {
                Ok(got) => return Ok(got.saturating_sub(head)),
                // An error that was pending on the socket: the frame is still queued, and must not be left there.
                Err(Errno::ENETDOWN) => {}
                Err(e) => return Err(e),
            }
        }
    }
}
