//! Listeners: SYN queue, accept queue, request socks (Linux's `inet_connection_sock.c`, `tcp_minisocks.c`).

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use crate::header::tcp_clock_ts;
use crate::net::{Dst, Tuple};
use crate::stack::SocketId;
use crate::time::Instant;

/// A listener's queues.
#[derive(Debug, Default)]
pub struct ListenState {
    /// `sk_max_ack_backlog`: the accept queue holds one more than this (ER-59).
    pub backlog: u32,
    /// Established children that nobody accepted yet, oldest first.
    pub accept_queue: VecDeque<SocketId>,
    /// Request socks of this listener (Linux `reqsk_queue_len`).
    pub qlen: u32,
    /// Those of them that never re-sent their SYN-ACK (Linux `reqsk_queue_len_young`).
    pub young: u32,
    /// Fast-open children in SYN_RECV (FO-45).
    pub fastopen_qlen: u32,
    /// The kernel listens in its place ([`crate::stack::Stack::leave_listening`]).
    pub leaving: Option<Leaving>,
}

/// What came in by a listener before the kernel took its place.
#[derive(Debug)]
pub struct Leaving {
    /// Whoever has not been accepted by then is reset.
    pub until: Instant,
    /// Entry in the stack's heap.
    pub timer_queued: Instant,
}

/// A handshake in progress: Linux's `struct tcp_request_sock`.
#[derive(Debug, Clone)]
pub struct RequestSock {
    /// The four-tuple.
    pub tuple: Tuple,
    /// IPv6.
    pub v6: bool,
    /// The listener that it belongs to.
    pub listener: SocketId,
    /// Peer's initial sequence number.
    pub rcv_isn: u32,
    /// Ours.
    pub snt_isn: u32,
    /// Next that we expect: `rcv_isn + 1`.
    pub rcv_nxt: u32,
    /// Peer's MSS option, clamped; 536 when it sent none.
    pub mss: u16,
    /// MSS that the SYN-ACK announces.
    pub advmss: u16,
    /// Window of the SYN-ACK, bytes.
    pub rsk_rcv_wnd: u32,
    /// `window_clamp` of the child.
    pub rsk_window_clamp: u32,
    /// Peer's window as in its SYN.
    pub snd_wnd: u16,
    /// Window scaling agreed on.
    pub wscale_ok: bool,
    /// Peer's shift.
    pub snd_wscale: u8,
    /// Ours.
    pub rcv_wscale: u8,
    /// SACK agreed on.
    pub sack_ok: bool,
    /// Timestamps agreed on.
    pub tstamp_ok: bool,
    /// Peer's last timestamp.
    pub ts_recent: u32,
    /// Added to our timestamps.
    pub ts_off: u32,
    /// Our timestamps count microseconds.
    pub usec_ts: bool,
    /// The peer offers ECN and we accept it.
    pub ecn_ok: bool,
    /// When the first SYN-ACK was sent.
    pub snt_synack: Instant,
    /// When the last one was: no timestamp of ours is newer for the peer to echo (Linux `snt_tsval_last`).
    pub snt_synack_last: Instant,
    /// SYN-ACKs re-sent.
    pub num_retrans: u8,
    /// Timeouts so far.
    pub num_timeout: u8,
    /// The third ack came, data is awaited (TCP_DEFER_ACCEPT).
    pub acked: bool,
    /// When the next SYN-ACK is due.
    pub deadline: Instant,
    /// Entry in the stack's heap; `NEVER` when none.
    pub timer_queued: Instant,
    /// Last ack for a segment out of window, for the rate limit.
    pub last_oow_ack_time: Instant,
    /// Route of the SYN-ACK.
    pub dst: Dst,
    /// IP_TOS of the listener.
    pub tos: u8,
    /// IP_TTL of the listener, −1 for the default.
    pub ttl: i16,
    /// IP_MTU_DISCOVER of the listener.
    pub pmtudisc: u8,
    /// SO_MARK of the listener.
    pub mark: u32,
    /// SO_PRIORITY of the listener.
    pub priority: u32,
    /// The caller keeps a port holder for it.
    pub held: bool,
    /// The SYN's headers (TCP_SAVE_SYN).
    pub saved_syn: Option<Box<[u8]>>,
}

impl RequestSock {
    /// Our timestamp at a time, as the SYN-ACK and the connection have it.
    pub(crate) fn tsval(&self, at: Instant) -> u32 {
        tcp_clock_ts(self.usec_ts, at).wrapping_add(self.ts_off)
    }
}
