//! A way in by several rings, each with the frames of some connections (`fanout`).
//!
//! A packet socket's queue gives large frames in the order in which they came. Where several connections share one, who reads
//! the second frame of one connection has to take those of the others before it out of the way; with a queue for each of
//! them it mostly need not.

use super::packet_drops;
use super::ring::{RingConfig, RingSource};
use super::turn::Both;
use crate::Errno;
use crate::fd::Fd;
use crate::frame::{FrameSource, RxFrame};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// Rings of a way in that has several; a power of two.
pub const MAX_RINGS: usize = 16;

/// Frames that one ring gives before the next one is looked at.
const VISIT: u32 = 16;

/// Shape of each: 512 slots of 2 KiB (1 MiB), a burst of 740 KB in MTU frames.
pub(super) const SHARED_SLOTS: RingConfig = RingConfig {
    slot_size: 2048,
    block_size: 1 << 18,
    blocks: 4,
};

/// The rings.
#[derive(Debug)]
pub struct RingGroup {
    rings: Vec<RingSource>,
    /// The one that is looked at, and how many frames more it may give before the next one is.
    at: usize,
    left: u32,
    /// The socket of the group that drops what none of them is to have.
    _drops: Fd,
    /// An epoll instance over all of them.
    arrivals: Arc<Fd>,
}

impl RingGroup {
    pub(super) fn new(
        rings: Vec<RingSource>,
        drops: Fd,
        arrivals: Arc<Fd>,
        both: Option<Both>,
    ) -> Self {
        let mut group = Self {
            rings,
            at: 0,
            left: VISIT,
            _drops: drops,
            arrivals,
        };
        for ring in &mut group.rings {
            ring.expect_doubles(both.clone());
        }
        group
    }

    /// Each of them.
    pub fn rings(&self) -> &[RingSource] {
        &self.rings
    }

    pub(super) fn rings_mut(&mut self) -> &mut [RingSource] {
        &mut self.rings
    }

    /// The one that the peeked frame is in.
    pub fn at(&self) -> usize {
        self.at
    }

    pub(super) fn arrivals(&self) -> &Arc<Fd> {
        &self.arrivals
    }

    fn next_ring(&mut self) {
        self.at = (self.at + 1) % self.rings.len().max(1);
        self.left = VISIT;
    }

    /// A frame was taken.
    fn gone(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.next_ring();
        }
    }
}

impl FrameSource for RingGroup {
    fn peek(&mut self) -> Result<Option<RxFrame<'_>>, Errno> {
        for _ in 1..self.rings.len() {
            if self.rings[self.at].peek()?.is_some() {
                break;
            }
            self.next_ring();
        }
        match self.rings.get_mut(self.at) {
            Some(ring) => ring.peek(),
            None => Ok(None),
        }
    }

    unsafe fn take(&mut self, skip: usize, into: &[libc::iovec]) -> Result<usize, Errno> {
        // SAFETY: by the caller.
        let taken = unsafe { self.rings[self.at].take(skip, into) };
        self.gone();
        taken
    }

    fn release(&mut self) {
        self.rings[self.at].release();
        self.gone();
    }

    fn leave(&mut self) -> Option<usize> {
        let left = self.rings[self.at].leave();
        if left.is_some() {
            self.gone();
        }
        left
    }

    fn take_drops(&mut self) -> u32 {
        let drops = self.rings.iter().map(|r| packet_drops(r.fd().as_raw_fd()));
        drops.sum()
    }

    fn readable_fd(&self) -> RawFd {
        self.arrivals.as_raw_fd()
    }
}
