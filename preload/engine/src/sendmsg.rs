//! `sendmsg` on a TCP socket: Linux 6.16's `tcp_sendmsg_locked()`, phase by phase (spec/send-path.md).

use crate::cmsg::SockcmCookie;
use crate::error::Error;
use crate::memory::IovIter;
use crate::stack::{Caps, Io, SocketId, Stack, Step, StepResult};
use crate::time::Instant;

/// `msg_name` as the program gave it: `msg_namelen` bytes of a `sockaddr`. Only MSG_FASTOPEN looks at it (A13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameArg<'a>(pub &'a [u8]);

/// One `sendmsg` call: its arguments, and how far it came. Kept by the caller from one [`Step::Wait`] to the next.
#[derive(Debug)]
pub struct SendCall<'a> {
    /// `MSG_*` flags; MSG_DONTWAIT is added for O_NONBLOCK descriptors (A12), kernel-internal bits are cleared (A9).
    pub flags: i32,
    /// Control messages, already copied from the program (A6..A8).
    pub control: &'a [u8],
    /// Destination, for fast open.
    pub name: Option<NameArg<'a>>,
    /// What the calling thread may do.
    pub caps: Caps,
    /// RLIMIT_MEMLOCK of the process in bytes, `u64::MAX` when there is no limit (ZC-17).
    pub memlock_limit: u64,
    /// In: a signal is pending, so the call may not sleep (again). The caller sets it before it calls again.
    pub signal_pending: bool,
    /// Out: the call failed with EPIPE and wants SIGPIPE for the calling thread (E4).
    pub sigpipe: bool,
    /// Out, with [`Error::Intr`]: no timeout was set, so SA_RESTART may restart the call (H5).
    pub restartable: bool,
    pub(crate) progress: Progress,
}

/// How far a call came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    pub(crate) sockc: SockcmCookie,
    pub(crate) sockc_err: Option<Error>,
    pub(crate) timeo: Timeo,
    pub(crate) copied: usize,
    pub(crate) copied_syn: usize,
}

/// Where the call goes on when it is called again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// B1..B4: control messages, zerocopy object, dmabuf.
    #[default]
    Entry,
    /// B5: fast open.
    Fastopen,
    /// B8: wait for the connection.
    Connect,
    /// B11..B13: the data.
    Data,
}

/// How long the call may sleep: SO_SNDTIMEO as one budget for the whole call (H6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Timeo {
    /// MSG_DONTWAIT, or a negative SO_SNDTIMEO.
    #[default]
    NoBlock,
    /// Until then.
    Until(Instant),
    /// For ever.
    Infinite,
}

impl<'a> SendCall<'a> {
    /// A call that has not begun. `nonblock` is the descriptor's O_NONBLOCK.
    #[must_use]
    pub fn new(
        flags: i32,
        control: &'a [u8],
        name: Option<NameArg<'a>>,
        caps: Caps,
        nonblock: bool,
    ) -> Self {
        let _ = nonblock;
        Self {
            flags,
            control,
            name,
            caps,
            memlock_limit: u64::MAX,
            signal_pending: false,
            sigpipe: false,
            restartable: false,
            progress: Progress::default(),
        }
    }
}

impl Stack {
    /// `sendmsg`, and every call that is one in disguise (write, writev, send, sendto, sendfile).
    ///
    /// Returns the bytes taken. On [`Step::Wait`] sleep and call again with the same `call` and `iter`; before that, set
    /// `call.signal_pending` when a signal ended the sleep.
    ///
    /// # Errors
    /// spec/send-path.md, sections B, C, E and H. With EPIPE `call.sigpipe` says whether the thread gets SIGPIPE.
    pub fn sendmsg(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut SendCall<'_>,
        iter: &mut dyn IovIter,
    ) -> StepResult<usize> {
        let _ = (io, id, call, iter);
        Step::Ready(Err(Error::OpNotSupp))
    }
}
