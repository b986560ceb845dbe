//! One TCP socket: Linux's `struct sock` + `inet_connection_sock` + `tcp_sock`, by their field names.
//!
//! ```text
//!   send:     snd_una ........ snd_nxt ........ write_seq
//!             |<- rtx_queue ->|<- write_queue ->|
//!   receive:  copied_seq ....... rcv_nxt ...... rcv_nxt + rcv_wnd
//!             |<- receive_queue ->|   holes, ofo_queue    |
//! ```

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use serde::{Deserialize, Serialize};

use sidewire_uapi::tcp::TcpState;

use crate::autocork::SendRun;
use crate::cong::CongestionControl;
use crate::error::Error;
use crate::errqueue::ErrQueue;
use crate::event::Events;
use crate::fastopen::FastopenReq;
use crate::listen::ListenState;
use crate::net::{Dst, RouteMetrics, Tuple};
use crate::opts::SockOpts;
use crate::repair::RepairState;
use crate::seq::{after, before};
use crate::skb::{RxSkb, Skb};
use crate::time::Instant;
use crate::timers::{IcskPending, TimerTable};
use crate::tstamp::Stamped;
use crate::zerocopy::ZerocopyState;

/// `ssthresh` before the first loss.
pub const TCP_INFINITE_SSTHRESH: u32 = 0x7fff_ffff;
/// Initial congestion window in segments (RFC 6928).
pub const TCP_INIT_CWND: u32 = 10;

/// Linux's `tp->nonagle` bits.
pub mod nagle {
    #![allow(missing_docs)]
    pub const OFF: u8 = 1;
    pub const CORK: u8 = 2;
    pub const PUSH: u8 = 4;
}

/// Linux's `sk->sk_shutdown` bits.
pub mod shutdown {
    #![allow(missing_docs)]
    pub const RCV: u8 = 1;
    pub const SEND: u8 = 2;
    pub const MASK: u8 = 3;
}

/// Congestion states: `icsk_ca_state`, Linux's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum CaState {
    #[default]
    Open = 0,
    Disorder = 1,
    Cwr = 2,
    Recovery = 3,
    Loss = 4,
}

/// Bits of `icsk_ack.pending`, Linux's.
pub mod icsk_ack {
    #![allow(missing_docs)]
    pub const SCHED: u8 = 1;
    pub const TIMER: u8 = 2;
    pub const PUSHED: u8 = 4;
    pub const PUSHED2: u8 = 8;
    pub const NOW: u8 = 16;
    pub const NOMEM: u8 = 32;
}

/// Linux's `tp->ecn_flags`.
pub mod ecn {
    #![allow(missing_docs)]
    pub const OK: u8 = 1;
    pub const QUEUE_CWR: u8 = 2;
    pub const DEMAND_CWR: u8 = 4;
    pub const SEEN: u8 = 8;
}

/// Delayed-ack state: `icsk_ack`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IcskAck {
    /// Quick acks left.
    pub quick: u8,
    /// Interactive session counter (`tcp_pingpong_thresh`).
    pub pingpong: u8,
    /// [`icsk_ack`] bits.
    pub pending: u8,
    /// Predicted delayed-ack time, nanoseconds.
    pub ato_ns: u64,
    /// When the last data segment came.
    pub lrcvtime: Instant,
    /// Size of the last segment received.
    pub last_seg_size: u32,
    /// Estimate of the peer's segment size: `tcpi_rcv_mss`.
    pub rcv_mss: u32,
}

/// A SACK block: `[start, end)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SackBlock {
    /// First sequence number.
    pub start_seq: u32,
    /// One past the last.
    pub end_seq: u32,
}

/// RFC 8985 state: `tp->rack`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Rack {
    pub mstamp: Instant,
    pub rtt_us: u32,
    pub end_seq: u32,
    pub last_delivered: u32,
    pub reo_wnd_steps: u8,
    pub reo_wnd_persist: u8,
    pub dsack_seen: bool,
    pub advanced: bool,
}

/// Windowed minimum of the RTT: `tp->rtt_min` (three best samples of the last 300 s).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct MinRtt {
    /// {when, microseconds}, best first; `u32::MAX` when there is no sample.
    pub s: [(Instant, u32); 3],
}

/// Receive-buffer autotuning: `tp->rcv_rtt_est`, `tp->rcvq_space`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RcvTuning {
    pub rtt_us: u32,
    pub rtt_seq: u32,
    pub rtt_time: Instant,
    pub space: u32,
    pub space_seq: u32,
    pub space_time: Instant,
    pub last_tsecr: u32,
}

/// Times of the three limits: `tp->chrono_stat`, microseconds in total and the running one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Chrono {
    pub busy_us: u64,
    pub rwnd_limited_us: u64,
    pub sndbuf_limited_us: u64,
    pub start: Instant,
    /// 0 none, 1 busy, 2 rwnd limited, 3 sndbuf limited.
    pub kind: u8,
}

/// Counters that `TCP_INFO` shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct InfoCounters {
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub segs_out: u32,
    pub segs_in: u32,
    pub data_segs_out: u32,
    pub data_segs_in: u32,
    pub total_retrans: u32,
    pub dsack_dups: u32,
    pub reord_seen: u32,
    pub rcv_ooopack: u32,
    pub total_rto: u16,
    pub total_rto_recoveries: u16,
    pub total_rto_time_ms: u32,
    pub timeout_rehash: u16,
    /// Segments that were not taken (Linux `sk_drops`).
    pub drops: u32,
}

/// A TCP socket.
///
/// Invariants (checked by [`TcpSock::check`]): `snd_una <= snd_nxt <= write_seq`; `copied_seq <= rcv_nxt`; the queues are
/// sorted and tile the sequence space; `wmem_queued` is the sum of the send buffers' truesize, `rmem_alloc` of the receive
/// buffers'.
///
/// Serialised as a frozen socket; what is skipped belongs to a stack or is carried beside it ([`crate::freeze`]).
#[derive(Serialize, Deserialize)]
#[allow(missing_docs)] // fields are Linux's; those whose meaning differs say so
pub struct TcpSock {
    // Identity
    #[serde(with = "crate::freeze::state_number")]
    pub state: TcpState,
    pub tuple: Tuple,
    pub v6: bool,
    #[serde(skip)]
    pub dst: Option<Dst>,
    pub opts: SockOpts,
    /// The caller's own cookie, given back with events.
    pub user: u64,
    /// No program holds it any more (Linux SOCK_DEAD).
    pub orphan: bool,
    /// The listener it was born from, until accepted.
    #[serde(skip)]
    pub parent: Option<crate::stack::SocketId>,
    /// sk_err, reported once.
    pub sk_err: Option<Error>,
    pub sk_err_soft: Option<Error>,
    pub shutdown: u8,
    /// Linux SOCK_DONE: the peer's FIN was taken.
    pub sock_done: bool,
    /// A non-blocking or interrupted connect whose result nobody collected yet (Linux `SS_CONNECTING`).
    pub ss_connecting: bool,
    /// A connect was reported complete (Linux `SS_CONNECTED`).
    pub ss_connected: bool,
    /// Shut down while a connect was pending (Linux `SS_DISCONNECTING`): no connect and no listen until it is dissolved.
    pub ss_disconnecting: bool,
    /// Refused or failed connect: the next one says ECONNABORTED once (ER-23, ER-33).
    #[serde(skip)]
    pub events: Events,
    /// Stands in the stack's table of connections under `tuple`.
    #[serde(skip)]
    pub hashed: bool,
    /// The caller keeps a port holder for `tuple`; it is told when that may go.
    pub held: bool,
    /// Stands in [`crate::stack::Shared::batch`].
    #[serde(skip)]
    pub in_batch: bool,
    /// The batch has made the out-of-order queue; no ack has told of it.
    #[serde(skip)]
    pub opened_hole: bool,
    /// Stands in [`crate::stack::Shared::autocorked`].
    #[serde(skip)]
    pub autocorked: bool,
    /// The run of sends that the program is in.
    #[serde(skip)]
    pub(crate) send_run: SendRun,
    /// The program bound the address itself (Linux SOCK_BINDADDR_LOCK); a disconnect keeps it.
    pub bound_addr: bool,
    /// The program had the port bound, by `bind` (Linux `inet_num`, before a connect).
    pub bound_port: bool,
    /// Sends that sleep for the connection or for memory (Linux `sk_write_pending`).
    #[serde(skip)]
    pub(crate) write_pending: u32,
    /// Counts wake-ups, for a sleep that any of them ends.
    pub wakes: u32,
    /// Counts disconnects, so that a sleeper sees that the connection under it went (Linux `sk_disconnects`).
    pub disconnects: u32,
    /// The remnant that takes this socket's place in the table; set by `tcp_time_wait`, taken by the stack.
    #[serde(skip)]
    pub timewait: Option<Box<crate::timewait::TimewaitSock>>,

    // Send
    pub snd_una: u32,
    pub snd_nxt: u32,
    pub snd_sml: u32,
    pub write_seq: u32,
    pub pushed_seq: u32,
    pub snd_wnd: u32,
    pub snd_wl1: u32,
    pub max_window: u32,
    pub snd_up: u32,
    pub urg_mode: bool,
    pub iss: u32,
    pub nonagle: u8,
    pub mss_cache: u32,
    /// Effective MSS without options: `advmss` is what we announce.
    pub advmss: u16,
    /// `rx_opt.mss_clamp`: what the peer announced.
    pub mss_clamp: u16,
    /// TCP header bytes of a segment without SACK blocks, as the handshake left them: an attempt reckons with timestamps
    /// where it offers them, one in repair mode for good.
    pub tcp_header_len: u32,
    pub gso_segs: u32,
    #[serde(skip)]
    pub write_queue: VecDeque<Box<Skb>>,
    #[serde(skip)]
    pub rtx_queue: VecDeque<Box<Skb>>,
    pub wmem_queued: u32,
    pub sndbuf: u32,
    /// SOCK_NOSPACE: somebody hit the limit and wants an EPOLLOUT edge.
    pub nospace: bool,
    /// The same for SIGIO (`SOCKWQ_ASYNC_NOSPACE`).
    pub(crate) async_nospace: bool,
    /// A reader sleeps (`SOCKWQ_ASYNC_WAITDATA`).
    pub(crate) async_waitdata: bool,
    /// The packet socket was full: waits for [`crate::Stack::tx_space`].
    #[serde(skip)]
    pub tx_blocked: bool,
    /// A retransmission waits until the last copy has left the host; [`crate::Stack::tx_space`] says so (Linux
    /// `TSQ_THROTTLED`).
    #[serde(skip)]
    pub tsq_throttled: bool,
    /// How often what waits in the host was looked at without success.
    pub host_looks: u8,
    /// A small tail waits until earlier frames have left the device (`autocork`).
    pub tail_waits: bool,
    pub lsndtime: Instant,
    pub ip_id: u16,

    // Congestion control and loss recovery
    pub ca: CongestionControl,
    /// It is the route's, and not to be changed.
    pub ca_dst_locked: bool,
    pub ca_state: CaState,
    pub snd_cwnd: u32,
    pub snd_cwnd_cnt: u32,
    /// Largest `snd_cwnd`, of a route's `cwnd lock`.
    pub snd_cwnd_clamp: u32,
    pub snd_ssthresh: u32,
    pub prior_ssthresh: u32,
    pub prior_cwnd: u32,
    pub snd_cwnd_used: u32,
    pub snd_cwnd_stamp: Instant,
    pub is_cwnd_limited: bool,
    pub max_packets_out: u32,
    pub cwnd_usage_seq: u32,
    pub prr_delivered: u32,
    pub prr_out: u32,
    pub high_seq: u32,
    pub packets_out: u32,
    pub retrans_out: u32,
    pub sacked_out: u32,
    pub lost_out: u32,
    pub delivered: u32,
    pub delivered_ce: u32,
    pub lost: u32,
    pub reordering: u32,
    pub undo_marker: u32,
    pub undo_retrans: i32,
    pub retrans_stamp: u32,
    pub tlp_high_seq: u32,
    pub tlp_retrans: bool,
    pub frto: bool,
    pub rack: Rack,
    /// Peer's SACK blocks as last seen (Linux recv_sack_cache).
    pub recv_sack_cache: [SackBlock; 4],
    pub delivered_mstamp: Instant,
    pub first_tx_mstamp: Instant,
    pub app_limited: u32,
    pub rate_delivered: u32,
    pub rate_interval_us: u32,
    pub rate_app_limited: bool,
    pub pacing_rate: u64,
    pub tcp_wstamp_ns: Instant,
    pub chrono: Chrono,
    /// Path MTU that `mss_cache` was computed from (Linux `icsk_pmtu_cookie`).
    pub pmtu_cookie: u32,
    /// First sequence number that may be marked lost and not retransmitted (Linux `retransmit_skb_hint`).
    pub retransmit_hint: Option<u32>,
    /// End of the highest SACKed buffer; counts while `sacked_out` is not 0.
    pub highest_sack: u32,
    /// The peer forgot data that it had SACKed.
    pub is_sack_reneg: bool,
    /// [`ecn`] bits.
    pub ecn_flags: u8,
    /// Milliseconds, when the running row of RTOs began.
    pub rto_stamp: u32,
    /// The program unmapped pages that a buffer refers to: the connection cannot go on.
    pub tx_fault: bool,

    // RTT and timers
    pub srtt_us: u32,
    pub mdev_us: u32,
    pub mdev_max_us: u32,
    pub rttvar_us: u32,
    pub rtt_seq: u32,
    pub rtt_min: MinRtt,
    /// Microseconds, whole jiffies.
    pub rto_us: u32,
    pub backoff: u8,
    pub retransmits: u8,
    pub probes_out: u8,
    pub icsk_pending: IcskPending,
    pub timers: TimerTable,
    /// Earliest entry of this socket in the stack's timer heap; `NEVER` when none.
    #[serde(skip, default = "never")]
    pub timer_queued: Instant,
    pub probes_tstamp: Instant,
    /// Orphan or TIME_WAIT deadline bookkeeping: which job [`crate::timers::Timer::Keepalive`] has.
    pub fin_wait2_timer: bool,

    // Receive
    pub rcv_nxt: u32,
    pub copied_seq: u32,
    pub rcv_wup: u32,
    pub rcv_wnd: u32,
    pub rcv_ssthresh: u32,
    pub window_clamp: u32,
    pub irs: u32,
    #[serde(skip)]
    pub receive_queue: VecDeque<RxSkb>,
    #[serde(skip)]
    pub ofo_queue: VecDeque<RxSkb>,
    pub rmem_alloc: u32,
    pub rcvbuf: u32,
    pub scaling_ratio: u8,
    pub ack: IcskAck,
    /// The ack of the SYN-ACK that the present batch brought waits for the first data.
    #[serde(skip)]
    pub(crate) synack_ack_waits: bool,
    /// An ack is due at the end of the receive batch.
    pub ack_now: bool,
    pub compressed_ack: u8,
    /// `rcv_nxt` that the counter of duplicate acks belongs to.
    pub compressed_ack_rcv_nxt: u32,
    /// Duplicate acks sent for it.
    pub dup_ack_counter: u8,
    pub selective_acks: [SackBlock; 4],
    pub num_sacks: u8,
    pub duplicate_sack: Option<SackBlock>,
    /// `urg_data`: 0 none, else Linux's TCP_URG_VALID 0x100 / NOTYET 0x200 / READ 0x400 | byte.
    pub urg_data: u16,
    pub urg_seq: u32,
    pub tuning: RcvTuning,
    pub last_oow_ack_time: Instant,
    pub challenge_count: u32,
    pub rcv_tstamp: Instant,

    // Options negotiated
    pub tstamp_ok: bool,
    pub sack_ok: bool,
    pub wscale_ok: bool,
    pub snd_wscale: u8,
    pub rcv_wscale: u8,
    pub ts_recent: u32,
    /// Seconds of the monotonic clock.
    pub ts_recent_stamp: u64,
    pub tsoffset: u32,
    /// Timestamps count microseconds: by the route, or restored so.
    pub tcp_usec_ts: bool,
    pub rcv_tsval: u32,
    pub rcv_tsecr: u32,
    pub saw_tstamp: bool,

    // The API's own queues
    #[serde(skip)]
    pub errqueue: ErrQueue,
    /// Frames on their way whose timestamps the way out will tell.
    #[serde(skip)]
    pub(crate) awaiting_tstamps: VecDeque<Stamped>,
    #[serde(skip)]
    pub zerocopy: ZerocopyState,
    /// OPT_ID base (TS-30).
    pub tskey: u32,
    #[serde(skip)]
    pub fastopen_req: Option<Box<FastopenReq>>,
    pub syn_fastopen: bool,
    /// The SYN's option had the experimental kind.
    pub syn_fastopen_exp: bool,
    /// The attempt was made after a blackhole's time was over: if it goes well, that is forgotten.
    pub syn_fastopen_ch: bool,
    pub syn_data: bool,
    pub syn_data_acked: bool,
    /// Born by passive fast open (`TCPI_OPT_TFO_CHILD`).
    pub syn_fastopen_child: bool,
    pub fastopen_client_fail: u8,
    /// Passive fast-open child still in SYN_RECV.
    pub fastopen_rsk: bool,
    /// Its SYN-ACK, until the stack has told the listener that the handshake is over.
    #[serde(skip)]
    pub fastopen_synack: Option<Box<crate::listen::RequestSock>>,
    /// `tp->defer_connect`.
    pub defer_connect: bool,
    pub repair: RepairState,
    #[serde(skip)]
    pub listen: Option<Box<ListenState>>,
    pub saved_syn: Option<Box<[u8]>>,
    pub info: InfoCounters,
}

/// A thawed socket stands in no heap.
const fn never() -> Instant {
    Instant::NEVER
}

impl TcpSock {
    /// What the route sets.
    #[inline]
    #[must_use]
    pub fn route_metrics(&self) -> &RouteMetrics {
        self.dst
            .as_ref()
            .map_or(&RouteMetrics::NONE, |d| &d.metrics)
    }

    /// Segments in flight: RFC 6675's pipe (Linux `tcp_packets_in_flight`).
    #[inline]
    #[must_use]
    pub fn packets_in_flight(&self) -> u32 {
        (self.packets_out + self.retrans_out).saturating_sub(self.sacked_out + self.lost_out)
    }

    /// First byte that the peer's window does not cover (Linux `tcp_wnd_end`).
    #[inline]
    #[must_use]
    pub fn wnd_end(&self) -> u32 {
        self.snd_una.wrapping_add(self.snd_wnd)
    }

    /// What is left of the window that we announced (Linux `tcp_receive_window`).
    #[inline]
    #[must_use]
    pub fn receive_window(&self) -> u32 {
        let win = self
            .rcv_wup
            .wrapping_add(self.rcv_wnd)
            .wrapping_sub(self.rcv_nxt) as i32;
        win.max(0) as u32
    }

    /// Bytes written and never sent (SIOCOUTQNSD).
    #[inline]
    #[must_use]
    pub fn notsent_bytes(&self) -> u32 {
        self.write_seq.wrapping_sub(self.snd_nxt)
    }

    /// True in slow start.
    #[inline]
    #[must_use]
    pub fn in_slow_start(&self) -> bool {
        self.snd_cwnd < self.snd_ssthresh
    }

    /// Never connected, or dissolved since (Linux `SS_UNCONNECTED`).
    #[must_use]
    pub fn ss_unconnected(&self) -> bool {
        !self.ss_connecting && !self.ss_connected && !self.ss_disconnecting
    }

    /// True in one of `states`.
    #[inline]
    #[must_use]
    pub fn in_state(&self, states: &[TcpState]) -> bool {
        states.contains(&self.state)
    }

    /// Checks the invariants; called by `debug_assert!` after each mutation by the stack, and by tests.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        assert!(
            !after(self.snd_una, self.snd_nxt),
            "snd_una {} > snd_nxt {}",
            self.snd_una,
            self.snd_nxt
        );
        // In CLOSE, TCP_REPAIR may have set the one and not the other.
        assert!(
            self.state == TcpState::Close || !after(self.snd_nxt, self.write_seq),
            "snd_nxt {} > write_seq {}",
            self.snd_nxt,
            self.write_seq
        );
        assert!(
            !after(self.copied_seq, self.rcv_nxt.wrapping_add(1)),
            "copied_seq past rcv_nxt"
        );
        let mut next = None;
        let mut wmem = 0u32;
        for skb in self.rtx_queue.iter().chain(&self.write_queue) {
            assert!(
                next.is_none_or(|n| n == skb.seq),
                "send queues do not tile at {}",
                skb.seq
            );
            assert!(!after(skb.seq, skb.end_seq));
            assert_eq!(
                skb.len,
                skb.frags.iter().map(|f| f.len).sum::<u32>(),
                "skb.len"
            );
            next = Some(skb.end_seq);
            wmem += skb.truesize;
        }
        assert_eq!(wmem, self.wmem_queued, "wmem_queued");
        let pcount = self.rtx_queue.iter().map(|s| s.pcount()).sum::<u32>();
        assert_eq!(pcount, self.packets_out, "packets_out");
        // What died keeps the counts.
        if self.state != TcpState::Close && self.sk_err.is_none() {
            assert_eq!(crate::recovery::scoreboard_flaw(self), None);
        }
        let rmem: u32 = self
            .receive_queue
            .iter()
            .chain(&self.ofo_queue)
            .map(|s| s.truesize)
            .sum();
        assert!(
            rmem <= self.rmem_alloc,
            "rmem_alloc {} below the queues' {rmem}",
            self.rmem_alloc
        );
        assert!(
            self.ofo_queue
                .iter()
                .zip(self.ofo_queue.iter().skip(1))
                .all(|(a, b)| before(a.seq, b.seq))
        );
    }
}
