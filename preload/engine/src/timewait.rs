//! TIME_WAIT remnants: Linux's `struct tcp_timewait_sock` and `tcp_minisocks.c`.

use crate::net::{Dst, Tuple};
use crate::time::Instant;

/// What stays of a connection that ended here first: enough to answer what the peer may still send.
#[derive(Clone, Debug)]
pub struct TimewaitSock {
    /// Whose place it keeps.
    pub tuple: Tuple,
    /// IPv6.
    pub v6: bool,
    /// FIN_WAIT2 of an orphan that waits for the peer's FIN, not yet TIME_WAIT proper.
    pub fin_wait2: bool,
    /// Next sequence number that we would send.
    pub snd_nxt: u32,
    /// Next that we expect.
    pub rcv_nxt: u32,
    /// Window announced last, bytes.
    pub rcv_wnd: u32,
    /// Shift of the window field.
    pub rcv_wscale: u8,
    /// Timestamps are on.
    pub tstamp_ok: bool,
    /// Added to our timestamps.
    pub tsoffset: u32,
    /// Peer's last timestamp; 0 with `ts_recent_stamp` 0 when none.
    pub ts_recent: u32,
    /// When it came, seconds of the monotonic clock.
    pub ts_recent_stamp: u64,
    /// Last ack for a segment out of window, for the rate limit.
    pub last_oow_ack_time: Instant,
    /// When it ends.
    pub deadline: Instant,
    /// TIME_WAIT that follows FIN_WAIT2 lasts so long, nanoseconds.
    pub timeout_ns: u64,
    /// Route.
    pub dst: Option<Dst>,
    /// IP_TOS.
    pub tos: u8,
    /// IP_TTL, −1 for the default.
    pub ttl: i16,
    /// SO_MARK.
    pub mark: u32,
    /// SO_PRIORITY.
    pub priority: u32,
    /// The caller keeps a port holder for it.
    pub held: bool,
    /// Entry in the stack's heap; `NEVER` when none.
    pub timer_queued: Instant,
}
