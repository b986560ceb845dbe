//! Received payload that stays in the packet socket's queue until the program reads it: the kernel copies it to where the
//! program wants it, and nobody a second time.
//!
//! The queue gives its frames in the order in which they came. Who wants a later one first brings those before it into the
//! arena, where each has had its room from the beginning; so does who looks at bytes without reading them (MSG_PEEK), and
//! whoever is about to wait until the socket is readable, which it is as long as a frame is queued.
//!
//! All of it happens under the stack's lock. The lock here is never waited for.

use core::any::Any;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;
use libc::iovec;
use sidewire_engine::memory::{Fault, Frag, MemRef, Region, RegionKind};
use sidewire_link::frame::MAX_FRAGS;
use sidewire_link::packet::{FrameQueue, PacketSource};

use crate::lock::Mutex;

/// Most payload bytes that are left in a queue.
const MAX_DEFERRED: usize = 16 << 20;
/// Share of the receive buffer that may be charged for what waits before more is left: there is to be room for what comes.
const RCVBUF_SHARE: usize = 2;
/// The kernel charges a frame with up to so many times its payload.
const MAX_CHARGE: usize = 3;

/// Frames that are in the way of others before several queues are worth their making.
const CROWDED: usize = 256;

/// Parts of the program's that one payload is read into; beside them stand what comes before and behind.
pub(crate) const MAX_PARTS: usize = MAX_FRAGS - 2;

/// The payload is in the queue.
const QUEUED: u8 = 0;
/// It is in its room, but for what the program has read.
const HERE: u8 = 1;
/// The kernel could not give it. Reading it is a fault.
const LOST: u8 = 2;

/// The frames of a packet socket that were left in its queue.
pub(crate) struct DeferredFrames {
    queue: FrameQueue,
    /// The oldest first.
    frames: Mutex<VecDeque<Arc<Deferred>>>,
    /// Payload bytes of all of them; `max` at most.
    bytes: AtomicUsize,
    /// So many more may be left before the kernel is asked what it charges, and how much that may be.
    unasked: AtomicUsize,
    max_charge: usize,
    max: usize,
    /// Bytes that readers got from the queue.
    read: AtomicU64,
    /// Frames that were brought because somebody wanted a later one.
    passed: AtomicUsize,
}

/// Those of all packet sockets that frames come by, as [`PacketSource::queues`] counts them.
#[derive(Clone)]
pub(crate) struct DeferredQueues(Arc<[Arc<DeferredFrames>]>);

impl DeferredQueues {
    /// Nothing yet; none where the source leaves no frames in the kernel. `rcvbuf` is the receive buffer of each queue in
    /// bytes, as getsockopt tells it.
    pub(crate) fn of(source: &PacketSource, rcvbuf: i32) -> Option<Self> {
        let queues = source
            .queues()
            .map(|q| DeferredFrames::new(q, rcvbuf, MAX_DEFERRED));
        let queues: Arc<[_]> = queues.collect();
        (!queues.is_empty()).then_some(Self(queues))
    }

    /// One of them.
    #[inline]
    pub(crate) fn get(&self, n: usize) -> Option<&Arc<DeferredFrames>> {
        self.0.get(n)
    }

    /// True when there are several.
    pub(crate) fn several(&self) -> bool {
        self.0.len() > 1
    }

    /// True when a queue holds a frame that was left there. Needs no lock.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.0.iter().any(|queue| queue.any())
    }

    /// Bytes that readers got from the queues, without a copy of ours.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.0.iter().map(|queue| queue.bytes_read()).sum()
    }

    /// True when connections that share the one queue are often in each other's way.
    pub(crate) fn crowded(&self) -> bool {
        matches!(&*self.0, [one] if one.passed.load(Ordering::Relaxed) > CROWDED)
    }

    /// Leaves nothing in them.
    pub(crate) fn bring_all(&self) {
        self.0.iter().for_each(|queue| queue.bring_all());
    }
}

/// A payload that was left in the queue.
pub(crate) struct Deferred {
    owner: Arc<DeferredFrames>,
    /// Bytes before it in the queued frame.
    head: usize,
    /// Where it goes when somebody needs it in memory: ours alone.
    room: Frag,
    state: AtomicU8,
}

impl Deferred {
    /// The payload that a fragment is a part of, when that is in the queue still.
    pub(crate) fn of(frag: &Frag) -> Option<&Deferred> {
        let region: &dyn Any = &*frag.mem;
        region.downcast_ref::<Deferred>().filter(|d| d.is_queued())
    }

    fn is_queued(&self) -> bool {
        self.state.load(Ordering::Acquire) == QUEUED
    }

    fn len(&self) -> usize {
        self.room.len as usize
    }

    /// `len` bytes of the room from `off` on.
    fn room(&self, off: usize, len: usize) -> iovec {
        debug_assert!(off + len <= self.len());
        iovec {
            iov_base: self.room.ptr().cast_mut().wrapping_add(off).cast(),
            iov_len: len,
        }
    }

    /// Copies `len` bytes from `off` on into the program's `parts`, which are as long together. They are not read again.
    ///
    /// # Errors
    /// `Fault` when the kernel could not write there: the payload is lost then.
    ///
    /// # Safety
    /// `parts` is what the program gave for writing; it may be anything.
    pub(crate) unsafe fn read(
        &self,
        off: usize,
        len: usize,
        parts: &ArrayVec<iovec, MAX_PARTS>,
    ) -> Result<(), Fault> {
        let mut frames = self.owner.frames.lock();
        self.owner.bring_before(&mut frames, self);
        if !self.is_queued() {
            return Err(Fault);
        }
        let read = self.owner.read.load(Ordering::Relaxed) + len as u64;
        self.owner.read.store(read, Ordering::Relaxed);
        let behind = self.len() - off - len;
        let mut into: ArrayVec<iovec, MAX_FRAGS> = ArrayVec::new();
        into.push(self.room(0, off));
        into.extend(parts.iter().copied());
        // Most of it is left: it stays where it is, and the next read goes past what was read now. Only once: each later read
        // would go past more.
        if off == 0 && len < behind {
            // SAFETY: the parts by the caller.
            let peeked = unsafe { self.owner.queue.peek(self.head, parts) };
            if peeked == Ok(len) {
                return Ok(());
            }
        }
        into.push(self.room(off + len, behind));
        // SAFETY: as above.
        unsafe { self.take(&mut frames, &into) }
    }

    /// Takes the payload, which is the oldest, out of the queue.
    ///
    /// # Safety
    /// As for [`FrameQueue::take`].
    unsafe fn take(
        &self,
        frames: &mut VecDeque<Arc<Deferred>>,
        into: &[iovec],
    ) -> Result<(), Fault> {
        self.owner.pop(frames);
        // SAFETY: by the caller.
        let whole = unsafe { self.owner.queue.take(self.head, into) } == Ok(self.len());
        let state = if whole { HERE } else { LOST };
        self.state.store(state, Ordering::Release);
        if whole { Ok(()) } else { Err(Fault) }
    }
}

impl Region for Deferred {
    /// Brings the payload into memory; null when it is lost.
    fn base(&self) -> *const u8 {
        if self.is_queued() {
            let mut frames = self.owner.frames.lock();
            self.owner.bring_before(&mut frames, self);
            self.owner.bring(&mut frames);
        }
        match self.state.load(Ordering::Acquire) {
            HERE => self.room.ptr(),
            _ => core::ptr::null(),
        }
    }

    fn len(&self) -> usize {
        Deferred::len(self)
    }

    fn kind(&self) -> RegionKind {
        RegionKind::Arena
    }
}

impl DeferredFrames {
    fn new(queue: FrameQueue, rcvbuf: i32, max: usize) -> Arc<Self> {
        let rcvbuf = usize::try_from(rcvbuf).unwrap_or(0);
        Arc::new(Self {
            queue,
            frames: Mutex::default(),
            bytes: AtomicUsize::new(0),
            unasked: AtomicUsize::new(0),
            max_charge: rcvbuf / RCVBUF_SHARE,
            max,
            read: AtomicU64::new(0),
            passed: AtomicUsize::new(0),
        })
    }

    #[inline]
    fn any(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) != 0
    }

    fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The newest queued frame is left there: its payload stands behind `head` bytes and would fill `room`.
    pub(crate) fn push(self: &Arc<Self>, head: usize, room: Frag) -> Frag {
        let mut frames = self.frames.lock();
        let len = room.len;
        let frame = Arc::new(Deferred {
            owner: self.clone(),
            head,
            room,
            state: AtomicU8::new(QUEUED),
        });
        frames.push_back(frame.clone());
        let bytes = self.bytes.load(Ordering::Relaxed) + len as usize;
        self.bytes.store(bytes, Ordering::Relaxed);
        while !self.may_stay(len as usize) && !frames.is_empty() {
            self.bring(&mut frames);
        }
        Frag {
            mem: frame as MemRef,
            off: 0,
            len,
        }
    }

    /// True when the queue may hold so many bytes more, and they are counted.
    fn may_stay(&self, len: usize) -> bool {
        let mut unasked = self.unasked.load(Ordering::Relaxed);
        if unasked < len {
            unasked = self.max_charge.saturating_sub(self.queue.charged()) / MAX_CHARGE;
        }
        let stays = len <= unasked && self.bytes.load(Ordering::Relaxed) <= self.max;
        let left = if stays { unasked - len } else { unasked };
        self.unasked.store(left, Ordering::Relaxed);
        stays
    }

    /// Leaves nothing in the queue.
    pub(crate) fn bring_all(&self) {
        let mut frames = self.frames.lock();
        while !frames.is_empty() {
            self.bring(&mut frames);
        }
    }

    /// Brings what is older than `frame`.
    fn bring_before(&self, frames: &mut VecDeque<Arc<Deferred>>, frame: &Deferred) {
        while frames
            .front()
            .is_some_and(|first| !core::ptr::eq(&raw const **first, frame))
        {
            self.bring(frames);
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the oldest frame out of the queue: into its room, or nowhere when nobody wants it any more.
    fn bring(&self, frames: &mut VecDeque<Arc<Deferred>>) {
        let Some(first) = frames.front().cloned() else {
            return;
        };
        // The list's and ours.
        if Arc::strong_count(&first) > 2 {
            // SAFETY: the room is the frame's.
            let _ = unsafe { first.take(frames, &[first.room(0, first.len())]) };
        } else {
            self.pop(frames);
            self.queue.discard();
        }
    }

    fn pop(&self, frames: &mut VecDeque<Arc<Deferred>>) {
        if let Some(first) = frames.pop_front() {
            let bytes = self.bytes.load(Ordering::Relaxed) - first.len();
            self.bytes.store(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
