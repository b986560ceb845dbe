//! What a send went through, in the order and the words of Linux's `tcp_sendmsg_locked()`: for whoever wants to see it
//! (`sidewire run --explain`).
//!
//! A record is asked for with [`crate::sendmsg::SendCall::trace`]. While the call runs it stands in the shared state, where
//! everything below the call finds it; without one a step costs a branch.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use sidewire_uapi::TcpState;

use crate::error::Error;
use crate::output::XmitError;
use crate::repair::RepairQueue;
use crate::sendmsg::Zc;
use crate::stack::{Cx, WaitReason};
use crate::time::Instant;

/// Steps that one call records; what comes after is only counted.
pub const TRACE_MAX: usize = 256;
/// Control messages of one call that are shown; what comes after is only counted.
pub const CONTROL_MAX: usize = 8;

/// One step. The letters are those of the behaviour tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceStep {
    /// B1, B2: the cookie was seeded and the control messages walked.
    SockcmCookie {
        /// Timestamping flags after it.
        tsflags: u32,
        /// Bytes of control messages.
        control: usize,
        /// The messages, as far as the walk came.
        messages: ArrayVec<ControlMessage, CONTROL_MAX>,
        /// How many follow these.
        more: usize,
        /// The error that is kept for B10.
        err: Option<Error>,
    },
    /// B3: what MSG_ZEROCOPY came to.
    Zerocopy(Zerocopy),
    /// B3d, B4: a dma-buf was named.
    Dmabuf {
        /// Its id.
        id: u32,
        /// Why it was refused.
        err: Option<Error>,
    },
    /// B5: fast open came this far.
    Fastopen {
        /// Bytes in the SYN.
        copied_syn: usize,
        /// How it ended.
        err: Option<Error>,
    },
    /// B8: the connection's state lets it send.
    Connected(TcpState),
    /// C1 to C5: it does not.
    NotConnected {
        /// The state.
        state: TcpState,
        /// What the call failed with.
        err: Error,
    },
    /// B9: in repair mode.
    Repair(RepairQueue),
    /// B11 (and `restart`): the sizes.
    SendMss {
        /// Payload bytes of a segment.
        mss_now: u32,
        /// Payload bytes of a buffer.
        size_goal: u32,
    },
    /// B12: the call may not go on.
    Unwritable {
        /// The pending error; without one the send side is shut.
        err: Option<Error>,
    },
    /// F3, F6: a buffer was made.
    NewSegment {
        /// Memory in use before.
        wmem_queued: u32,
        /// Its limit.
        sndbuf: u32,
        /// Unsent bytes.
        notsent: u32,
    },
    /// F8, F15: bytes entered the tail buffer.
    Chunk {
        /// In which way.
        zc: Zc,
        /// How many, of all chunks that followed each other.
        bytes: u32,
        /// Chunks: page fragments, or pieces of memory referenced.
        chunks: u32,
        /// Bytes that the buffer held before.
        before: u32,
    },
    /// F9, F15: the tail takes no further fragment, or belongs to another notification: PSH, and a new one.
    NoRoom,
    /// E7: the program's memory cannot be read.
    Fault,
    /// F14: a full buffer was pushed.
    PushFull {
        /// More than half of the largest window was unpushed.
        forced: bool,
    },
    /// H1: no memory for another buffer.
    WaitForMemory {
        /// Memory in use.
        wmem_queued: u32,
        /// Its limit.
        sndbuf: u32,
        /// Unsent bytes.
        notsent: u32,
    },
    /// F5: the call paused to take in what has arrived.
    FlushBacklog,
    /// The call slept.
    Waited {
        /// For what.
        reason: WaitReason,
        /// In B5, which connects.
        fastopen: bool,
        /// How long, in nanoseconds.
        ns: u64,
        /// A signal ended it.
        signal: bool,
    },
    /// B14: transmit timestamps were asked for.
    TxTimestamp {
        /// Timestamping flags of the call.
        tsflags: u32,
    },
    /// G: the decision about the tail.
    Push {
        /// PSH was marked (G2).
        psh: bool,
        /// More than half of the largest window was unpushed.
        forced: bool,
        /// The urgent pointer was set behind the last byte (G3).
        urgent: bool,
        /// The tail waits for more (G4).
        autocork: bool,
        /// Bits of Nagle's rule in force.
        nonagle: u8,
    },
    /// `tcp_write_xmit` went through the unsent buffers.
    WriteXmit {
        /// Segments that left.
        segments: u32,
        /// Their bytes.
        bytes: u32,
        /// Bytes that stay unsent.
        notsent: u32,
        /// Why they stay.
        held: Held,
        /// Congestion window, in segments.
        snd_cwnd: u32,
        /// Segments in flight afterwards.
        in_flight: u32,
        /// The peer's window, in bytes.
        snd_wnd: u32,
    },
    /// E: the call failed.
    Failed {
        /// With this.
        err: Error,
        /// SIGPIPE for the thread.
        sigpipe: bool,
    },
    /// B15: the call took this.
    Returned {
        /// Bytes queued.
        copied: usize,
        /// Bytes that went into the SYN.
        copied_syn: usize,
    },
}

/// One of the messages of [`TraceStep::SockcmCookie`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMessage {
    /// Only those of SOL_SOCKET are looked at.
    pub level: i32,
    /// Its type.
    pub ty: i32,
    /// Bytes of its data.
    pub len: usize,
    /// What 4 or 8 of them hold.
    pub value: u64,
}

/// What [`TraceStep::Zerocopy`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zerocopy {
    /// Not asked for.
    None,
    /// There are no bytes (B3b).
    NoBytes,
    /// SO_ZEROCOPY is not set (B3a).
    NotEnabled,
    /// ENOBUFS.
    NoBufs,
    /// The call got an id.
    Id {
        /// It.
        id: u32,
        /// Ids that its notification covers so far.
        range: u32,
        /// The device can send from pages; else the bytes are copied (B3c).
        sg: bool,
    },
    /// The caller's own completion.
    Caller {
        /// As above.
        sg: bool,
    },
    /// Pages of a file or pipe.
    Splice,
}

/// Why unsent bytes stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// They do not.
    #[default]
    Nothing,
    /// Pacing.
    Pacing,
    /// Enough of the connection waits in the host (TCP small queues).
    SmallQueue,
    /// The congestion window.
    Cwnd,
    /// The peer's window.
    Rwnd,
    /// TCP_CORK or MSG_MORE (SP-3).
    Cork,
    /// Nagle's rule: a small segment is in flight (SP-7).
    Nagle,
    /// A larger super-frame will be possible soon.
    TsoDefer,
    /// Only one buffer was to be sent.
    PushOne,
    /// No memory to cut a buffer.
    NoMemory,
    /// The link.
    Xmit(XmitError),
}

/// The record of a call.
#[derive(Debug, Default)]
pub struct Trace {
    steps: Vec<TraceStep>,
    lost: u32,
    /// What the call sleeps for, whether in B5, and since when.
    since: Option<(WaitReason, bool, Instant)>,
}

impl Trace {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self {
            steps: Vec::with_capacity(TRACE_MAX),
            ..Self::default()
        }
    }

    /// The steps so far.
    #[must_use]
    pub fn steps(&self) -> &[TraceStep] {
        &self.steps
    }

    /// Steps beyond [`TRACE_MAX`].
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.lost
    }

    #[cold]
    pub(crate) fn push(&mut self, step: TraceStep) {
        if let (
            Some(TraceStep::Chunk {
                zc,
                bytes,
                chunks,
                before,
            }),
            TraceStep::Chunk {
                zc: same,
                bytes: more,
                before: at,
                ..
            },
        ) = (self.steps.last_mut(), &step)
            && zc == same
            && *before + *bytes == *at
        {
            *bytes += more;
            *chunks += 1;
        } else if self.steps.len() == TRACE_MAX {
            self.lost += 1;
        } else {
            self.steps.push(step);
        }
    }

    pub(crate) fn sleeps(&mut self, reason: WaitReason, fastopen: bool, now: Instant) {
        self.since = Some((reason, fastopen, now));
    }

    pub(crate) fn wakes(&mut self, now: Instant, signal: bool) {
        if let Some((reason, fastopen, since)) = self.since.take() {
            self.push(TraceStep::Waited {
                reason,
                fastopen,
                ns: now.since(since),
                signal,
            });
        }
    }
}

impl Cx<'_, '_> {
    /// Records a step, if anybody wants to see it.
    #[inline]
    pub(crate) fn trace(&mut self, step: impl FnOnce() -> TraceStep) {
        if let Some(trace) = &mut self.sh.trace {
            trace.push(step());
        }
    }
}

#[cfg(test)]
mod tests;
