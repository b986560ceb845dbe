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
use crate::mtu_probe::MtuProbe;
use crate::net::{Dst, RouteMetrics, Tuple};
use crate::opts::SockOpts;
use crate::repair::RepairState;
use crate::seq::{after, before};
use crate::skb::{RxSkb, Skb};
use crate::small_queue::XmitPause;
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
    /// TCP_NAGLE_OFF: TCP_NODELAY is on.
    pub const OFF: u8 = 1;
    /// TCP_NAGLE_CORK: partial segments wait, for TCP_CORK or MSG_MORE.
    pub const CORK: u8 = 2;
    /// TCP_NAGLE_PUSH: what there is goes out, cork or not, until the next buffer is queued.
    pub const PUSH: u8 = 4;
}

/// Linux's `sk->sk_shutdown` bits.
pub mod shutdown {
    /// RCV_SHUTDOWN: nothing more to read, by SHUT_RD or the peer's FIN.
    pub const RCV: u8 = 1;
    /// SEND_SHUTDOWN: nothing more may be written, by SHUT_WR.
    pub const SEND: u8 = 2;
    /// SHUTDOWN_MASK: both.
    pub const MASK: u8 = 3;
}

/// Congestion states: `icsk_ca_state`, Linux's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum CaState {
    /// Nothing is dubious.
    #[default]
    Open = 0,
    /// SACKs or duplicate acks came; nothing counts as lost.
    Disorder = 1,
    /// The window is being reduced for ECN or local congestion.
    Cwr = 2,
    /// Fast recovery: the window is being reduced, what is lost is sent again.
    Recovery = 3,
    /// A timeout: everything counts as lost that was sent before.
    Loss = 4,
}

/// Bits of `icsk_ack.pending`, Linux's.
pub mod icsk_ack {
    /// An ack is due.
    pub const SCHED: u8 = 1;
    /// The delayed-ack timer is armed.
    pub const TIMER: u8 = 2;
    /// PSH or a short segment came: reading it is worth an ack, unless the session is interactive.
    pub const PUSHED: u8 = 4;
    /// A second one came: worth an ack in any case.
    pub const PUSHED2: u8 = 8;
    /// The ack must not be delayed.
    pub const NOW: u8 = 16;
    /// Data was dropped for want of memory: the ack announces a window of 0.
    pub const NOMEM: u8 = 32;
}

/// Linux's `tp->ecn_flags`.
pub mod ecn {
    /// ECN is offered (SYN_SENT), then agreed on.
    pub const OK: u8 = 1;
    /// The next new data carries CWR: the window was reduced.
    pub const QUEUE_CWR: u8 = 2;
    /// Acks carry ECE, until the peer's CWR.
    pub const DEMAND_CWR: u8 = 4;
    /// The peer marks its data ECT: what comes without is a retransmission as a rule.
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
pub struct Rack {
    /// When the delivered segment that was sent last was sent (`RACK.xmit_ts`).
    pub mstamp: Instant,
    /// RTT of the latest delivery, microseconds (`RACK.rtt`).
    pub rtt_us: u32,
    /// End of the segment of `mstamp`, which decides between equal times (`RACK.end_seq`).
    pub end_seq: u32,
    /// `delivered` when `reo_wnd_steps` grew: once a round trip.
    pub last_delivered: u32,
    /// Reordering window in quarters of the minimum RTT, 1 to 255 (`RACK.reo_wnd_mult`).
    pub reo_wnd_steps: u8,
    /// Recoveries for which that lasts, up to 16 (`RACK.reo_wnd_persist`).
    pub reo_wnd_persist: u8,
    /// A DSACK came that the window has not grown by.
    pub dsack_seen: bool,
    /// Something was delivered; losses have not been looked for since.
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
pub struct RcvTuning {
    /// RTT as the receiver sees it, microseconds times 8; 0 before a sample (`rcv_rtt_est.rtt_us`).
    pub rtt_us: u32,
    /// `rcv_nxt` at which the sample by a window of data ends (`rcv_rtt_est.seq`).
    pub rtt_seq: u32,
    /// When it began; `ZERO` when none runs (`rcv_rtt_est.time`).
    pub rtt_time: Instant,
    /// Bytes that the program read in a round trip, at most so far (`rcvq_space.space`).
    pub space: u32,
    /// `copied_seq` at the beginning of the present round trip (`rcvq_space.seq`).
    pub space_seq: u32,
    /// When that was (`rcvq_space.time`).
    pub space_time: Instant,
    /// Echo that gave the last sample: one gives no second (`rcv_rtt_last_tsecr`).
    pub last_tsecr: u32,
}

/// Times of the three limits: `tp->chrono_stat`, microseconds in total and the running one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Chrono {
    /// Data queued or in flight, and neither limit (TCP_CHRONO_BUSY).
    pub busy_us: u64,
    /// The peer's window was the limit (TCP_CHRONO_RWND_LIMITED).
    pub rwnd_limited_us: u64,
    /// The send buffer was the limit (TCP_CHRONO_SNDBUF_LIMITED).
    pub sndbuf_limited_us: u64,
    /// Since when `kind` counts.
    pub start: Instant,
    /// 0 none, 1 busy, 2 rwnd limited, 3 sndbuf limited.
    pub kind: u8,
}

/// Counters that `TCP_INFO` shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InfoCounters {
    /// Sequence numbers acked by the peer, SYN and FIN among them.
    pub bytes_acked: u64,
    /// Sequence numbers received in order, the FIN among them.
    pub bytes_received: u64,
    /// Payload bytes sent, repeated ones each time.
    pub bytes_sent: u64,
    /// Payload bytes sent again.
    pub bytes_retrans: u64,
    /// Segments sent, of any kind.
    pub segs_out: u32,
    /// Segments received, of any kind.
    pub segs_in: u32,
    /// Segments sent with payload.
    pub data_segs_out: u32,
    /// Segments received with payload.
    pub data_segs_in: u32,
    /// Segments sent again, SYN and SYN-ACK among them.
    pub total_retrans: u32,
    /// Segments that DSACKs reported as duplicates.
    pub dsack_dups: u32,
    /// How often reordering was noticed.
    pub reord_seen: u32,
    /// Segments received out of order.
    pub rcv_ooopack: u32,
    /// Timeouts, a SYN's among them.
    pub total_rto: u16,
    /// Rows of timeouts without an ack in between.
    pub total_rto_recoveries: u16,
    /// Milliseconds that such rows lasted.
    pub total_rto_time_ms: u32,
    /// Timeouts that count as a change of path (SO_TXREHASH).
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
pub struct TcpSock {
    // Identity
    /// State of RFC 9293 (`sk_state`).
    #[serde(with = "crate::freeze::state_number")]
    pub state: TcpState,
    /// Our address and port, and the peer's; unspecified and 0 where there is none.
    pub tuple: Tuple,
    /// An AF_INET6 socket; `tuple` may be IPv4 (mapped addresses).
    pub v6: bool,
    /// Route to the peer (`sk_dst_cache`); `None`: looked up before the next frame.
    #[serde(skip)]
    pub dst: Option<Dst>,
    /// What setsockopt set.
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
    /// Error that may pass (ICMP, no neighbour): what a timeout then reports.
    pub sk_err_soft: Option<Error>,
    /// [`shutdown`] bits (`sk_shutdown`).
    pub shutdown: u8,
    /// Linux SOCK_DONE: the peer's FIN was taken.
    pub sock_done: bool,
    /// A non-blocking or interrupted connect whose result nobody collected yet (Linux `SS_CONNECTING`).
    pub ss_connecting: bool,
    /// A connect was reported complete (Linux `SS_CONNECTED`).
    pub ss_connected: bool,
    /// Shut down while a connect was pending (Linux `SS_DISCONNECTING`): no connect and no listen until it is dissolved.
    pub ss_disconnecting: bool,
    /// Wake-ups that were not delivered; with any the socket stands in [`crate::stack::Shared::ready`].
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
    /// Something of the batch was taken that may let data out.
    #[serde(skip)]
    pub(crate) data_snd_check: bool,
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
    /// First sequence number that is not acked.
    pub snd_una: u32,
    /// Sequence number of the next new data.
    pub snd_nxt: u32,
    /// End of the last partial segment sent (Minshall's form of Nagle's rule).
    pub snd_sml: u32,
    /// Sequence number behind all that was written, FIN too.
    pub write_seq: u32,
    /// Sequence number behind the last byte marked PSH.
    pub pushed_seq: u32,
    /// Window that the peer announces, bytes from `snd_una` on.
    pub snd_wnd: u32,
    /// Sequence number of the segment that announced it (RFC 9293 SND.WL1).
    pub snd_wl1: u32,
    /// Largest window that the peer ever announced, bytes.
    pub max_window: u32,
    /// Sequence number behind the urgent byte (RFC 9293 SND.UP); `snd_una` or less when there is none.
    pub snd_up: u32,
    /// The urgent byte is not acked: segments before it carry URG (`tcp_urg_mode`).
    pub urg_mode: bool,
    /// Our initial sequence number.
    pub iss: u32,
    /// [`nagle`] bits.
    pub nonagle: u8,
    /// Payload bytes of a segment without SACK blocks, by path MTU and largest window.
    pub mss_cache: u32,
    /// Effective MSS without options: `advmss` is what we announce.
    pub advmss: u16,
    /// `rx_opt.mss_clamp`: what the peer announced.
    pub mss_clamp: u16,
    /// TCP header bytes of a segment without SACK blocks, as the handshake left them: an attempt reckons with timestamps
    /// where it offers them, one in repair mode for good.
    pub tcp_header_len: u32,
    /// Segments that a buffer may grow to; 0 before the first send.
    pub gso_segs: u32,
    /// Buffers not sent yet (`sk_write_queue`).
    #[serde(skip)]
    pub write_queue: VecDeque<Box<Skb>>,
    /// Buffers sent and not acked (`tcp_rtx_queue`).
    #[serde(skip)]
    pub rtx_queue: VecDeque<Box<Skb>>,
    /// Bytes that both queues are charged (`sk_wmem_queued`).
    pub wmem_queued: u32,
    /// Bytes of `wmem_queued` at which nothing more is taken (`sk_sndbuf`): `tcp_wmem`, SO_SNDBUF.
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
    /// A send stopped in the middle, and goes on when its caller has handed over what it made so far.
    #[serde(skip)]
    pub(crate) xmit_pause: Option<XmitPause>,
    /// With which `nonagle` data was pushed last: a MSG_MORE tail stays held when frames of its call could not leave at once.
    #[serde(skip)]
    pub(crate) pushed_nonagle: u8,
    /// How often what waits in the host was looked at without success.
    pub host_looks: u8,
    /// A small tail waits until earlier frames have left the device (`autocork`).
    pub tail_waits: bool,
    /// When data was last sent.
    pub lsndtime: Instant,
    /// IPv4 identification of the next frame (`inet_id`).
    pub ip_id: u16,

    // Congestion control and loss recovery
    /// Congestion control and its state: TCP_CONGESTION, a route, `tcp_congestion_control`.
    pub ca: CongestionControl,
    /// It is the route's, and not to be changed.
    pub ca_dst_locked: bool,
    /// Congestion state (`icsk_ca_state`).
    pub ca_state: CaState,
    /// Congestion window, segments.
    pub snd_cwnd: u32,
    /// Segments acked towards the next growth by one.
    pub snd_cwnd_cnt: u32,
    /// Largest `snd_cwnd`, of a route's `cwnd lock`.
    pub snd_cwnd_clamp: u32,
    /// Window at which slow start ends, segments; [`TCP_INFINITE_SSTHRESH`] before a loss.
    pub snd_ssthresh: u32,
    /// `snd_ssthresh` to return to when a reduction is undone; 0: it may not be.
    pub prior_ssthresh: u32,
    /// `snd_cwnd` when the reduction began, segments.
    pub prior_cwnd: u32,
    /// Most segments in flight since the window was last full.
    pub snd_cwnd_used: u32,
    /// When the window was last full, or changed.
    pub snd_cwnd_stamp: Instant,
    /// The window was full in the present round trip.
    pub is_cwnd_limited: bool,
    /// Most segments in flight in it.
    pub max_packets_out: u32,
    /// `snd_una` at which it ends.
    pub cwnd_usage_seq: u32,
    /// Segments delivered in this reduction (RFC 6937).
    pub prr_delivered: u32,
    /// Segments sent in it, new and again (RFC 6937).
    pub prr_out: u32,
    /// `snd_nxt` when the congestion state was entered; acked, it ends.
    pub high_seq: u32,
    /// Segments on `rtx_queue`.
    pub packets_out: u32,
    /// Segments sent again and in flight.
    pub retrans_out: u32,
    /// Segments SACKed; without SACK, duplicate acks.
    pub sacked_out: u32,
    /// Segments marked lost.
    pub lost_out: u32,
    /// Segments acked or SACKed so far; wraps.
    pub delivered: u32,
    /// Those of them whose acks carried ECE.
    pub delivered_ce: u32,
    /// Segments marked lost so far, each time; wraps.
    pub lost: u32,
    /// Segments that may overtake one before it counts as lost: `tcp_reordering`, then as seen.
    pub reordering: u32,
    /// `snd_una` when the reduction began; 0: nothing to undo.
    pub undo_marker: u32,
    /// Retransmissions since that no DSACK has named; 0: all were needless, −1: there was none.
    pub undo_retrans: i32,
    /// When the first retransmission, or the SYN, was sent, on the clock of timestamps; 0: none.
    pub retrans_stamp: u32,
    /// `snd_nxt` when a tail loss probe went out (RFC 8985); 0: none is out.
    pub tlp_high_seq: u32,
    /// The probe was a retransmission.
    pub tlp_retrans: bool,
    /// F-RTO (RFC 5682) has yet to tell whether the timeout was spurious.
    pub frto: bool,
    /// Loss detection by time (RFC 8985).
    pub rack: Rack,
    /// Peer's SACK blocks as last seen (Linux recv_sack_cache).
    pub recv_sack_cache: [SackBlock; 4],
    /// When `delivered` last grew.
    pub delivered_mstamp: Instant,
    /// When the buffer of the last rate sample was sent: the next one's interval begins there.
    pub first_tx_mstamp: Instant,
    /// `delivered` up to which the program was the limit; 0: it is not.
    pub app_limited: u32,
    /// Segments of the rate sample that `tcpi_delivery_rate` shows.
    pub rate_delivered: u32,
    /// Its microseconds; 0: there is none.
    pub rate_interval_us: u32,
    /// The program was its limit.
    pub rate_app_limited: bool,
    /// Bytes a second (`sk_pacing_rate`); `u64::MAX`: not known yet.
    pub pacing_rate: u64,
    /// Earliest departure of the next frame by pacing.
    pub tcp_wstamp_ns: Instant,
    /// What held the sender back.
    pub chrono: Chrono,
    /// Path MTU that `mss_cache` was computed from (Linux `icsk_pmtu_cookie`).
    pub pmtu_cookie: u32,
    /// The search for what the path takes.
    pub mtup: MtuProbe,
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
    /// Smoothed RTT, microseconds times 8; 0 before a sample.
    pub srtt_us: u32,
    /// Mean deviation of the RTT, microseconds times 4.
    pub mdev_us: u32,
    /// Largest `mdev_us` of the round trip, at least the shortest RTO.
    pub mdev_max_us: u32,
    /// Smoothed `mdev_max_us`, microseconds times 4: what the RTO is above the RTT.
    pub rttvar_us: u32,
    /// `snd_una` above which the round trip of `mdev_max_us` ends.
    pub rtt_seq: u32,
    /// Smallest RTT of the last `tcp_min_rtt_wlen` seconds.
    pub rtt_min: MinRtt,
    /// Retransmission timeout, microseconds in whole jiffies (`icsk_rto`).
    pub rto_us: u32,
    /// Doublings of `rto_us`, or of the interval of window probes, since the last answer.
    pub backoff: u8,
    /// Timeouts since `snd_una` last moved (`icsk_retransmits`).
    pub retransmits: u8,
    /// Window and keepalive probes without an answer (`icsk_probes_out`).
    pub probes_out: u8,
    /// What [`crate::timers::Timer::Retransmit`] is armed for.
    pub icsk_pending: IcskPending,
    /// Deadlines of the five kinds of timer.
    pub timers: TimerTable,
    /// Earliest entry of this socket in the stack's timer heap; `NEVER` when none.
    #[serde(skip, default = "never")]
    pub timer_queued: Instant,
    /// When the first of those window probes went out; `ZERO`: none (`icsk_probes_tstamp`).
    pub probes_tstamp: Instant,

    // Receive
    /// Next sequence number awaited.
    pub rcv_nxt: u32,
    /// Next sequence number that the program reads.
    pub copied_seq: u32,
    /// `rcv_nxt` when a window was last announced.
    pub rcv_wup: u32,
    /// That window, bytes.
    pub rcv_wnd: u32,
    /// Bytes that a window may have, grown as segments prove worth their memory.
    pub rcv_ssthresh: u32,
    /// Bytes that it may ever have: buffer, TCP_WINDOW_CLAMP, route; 0: not bounded yet.
    pub window_clamp: u32,
    /// The peer's initial sequence number.
    pub irs: u32,
    /// Data in order, not read (`sk_receive_queue`).
    #[serde(skip)]
    pub receive_queue: VecDeque<RxSkb>,
    /// Data behind a hole, by sequence number (`out_of_order_queue`).
    #[serde(skip)]
    pub ofo_queue: VecDeque<RxSkb>,
    /// Bytes that both queues and the error queue are charged (`sk_rmem_alloc`).
    pub rmem_alloc: u32,
    /// Bytes of `rmem_alloc` above which nothing more is taken (`sk_rcvbuf`): `tcp_rmem`, SO_RCVBUF.
    pub rcvbuf: u32,
    /// 256ths of the buffer that are window, by payload against charge.
    pub scaling_ratio: u8,
    /// When to ack (`icsk_ack`).
    pub ack: IcskAck,
    /// The ack of the SYN-ACK that the present batch brought waits for the first data.
    #[serde(skip)]
    pub(crate) synack_ack_waits: bool,
    /// An ack is due at the end of the receive batch.
    pub ack_now: bool,
    /// Duplicate acks that are held back, to send one for all.
    pub compressed_ack: u8,
    /// `rcv_nxt` that the counter of duplicate acks belongs to.
    pub compressed_ack_rcv_nxt: u32,
    /// Duplicate acks sent for it.
    pub dup_ack_counter: u8,
    /// Blocks of `ofo_queue` to report, the newest first.
    pub selective_acks: [SackBlock; 4],
    /// How many of them are used.
    pub num_sacks: u8,
    /// Duplicate that the next ack reports (RFC 2883).
    pub duplicate_sack: Option<SackBlock>,
    /// `urg_data`: 0 none, else Linux's TCP_URG_VALID 0x100 / NOTYET 0x200 / READ 0x400 | byte.
    pub urg_data: u16,
    /// Sequence number of the urgent byte; counts while `urg_data` is not 0.
    pub urg_seq: u32,
    /// Growth of `rcvbuf`.
    pub tuning: RcvTuning,
    /// When a segment out of the window was last acked: `tcp_invalid_ratelimit`.
    pub last_oow_ack_time: Instant,
    /// Challenge acks sent (RFC 5961).
    pub challenge_count: u32,
    /// When an ack last came.
    pub rcv_tstamp: Instant,

    // Options negotiated
    /// Both sides send timestamps (RFC 7323).
    pub tstamp_ok: bool,
    /// Both sides know SACK (RFC 2018).
    pub sack_ok: bool,
    /// Both sides scale their windows (RFC 7323).
    pub wscale_ok: bool,
    /// Shift of the windows that the peer announces, 0 to 14.
    pub snd_wscale: u8,
    /// Shift of ours.
    pub rcv_wscale: u8,
    /// The peer's timestamp that is echoed (TS.Recent).
    pub ts_recent: u32,
    /// When it came, seconds of the monotonic clock; 0: there is none.
    pub ts_recent_stamp: u64,
    /// What is added to our clock in timestamps: random, or TCP_TIMESTAMP's.
    pub tsoffset: u32,
    /// Timestamps count microseconds, not milliseconds: by the route, or restored so.
    pub tcp_usec_ts: bool,
    /// Timestamp of the segment at hand.
    pub rcv_tsval: u32,
    /// Its echo, less `tsoffset`; 0: none.
    pub rcv_tsecr: u32,
    /// It has both.
    pub saw_tstamp: bool,

    // The API's own queues
    /// What MSG_ERRQUEUE reads (`sk_error_queue`).
    #[serde(skip)]
    pub errqueue: ErrQueue,
    /// Frames on their way whose timestamps the way out will tell.
    #[serde(skip)]
    pub(crate) awaiting_tstamps: VecDeque<Stamped>,
    /// MSG_ZEROCOPY sends that are not completed.
    #[serde(skip)]
    pub zerocopy: ZerocopyState,
    /// OPT_ID base (TS-30).
    pub tskey: u32,
    /// A client's fast open, until the handshake is over.
    #[serde(skip)]
    pub fastopen_req: Option<Box<FastopenReq>>,
    /// Our SYN had the fast-open option.
    pub syn_fastopen: bool,
    /// The SYN's option had the experimental kind.
    pub syn_fastopen_exp: bool,
    /// The attempt was made after a blackhole's time was over: if it goes well, that is forgotten.
    pub syn_fastopen_ch: bool,
    /// Our SYN had data.
    pub syn_data: bool,
    /// A SYN's data was taken, ours by the peer or its by us (`TCPI_OPT_SYN_DATA`).
    pub syn_data_acked: bool,
    /// Born by passive fast open (`TCPI_OPT_TFO_CHILD`).
    pub syn_fastopen_child: bool,
    /// Why our SYN's data failed: [`crate::fastopen::client_fail`], 0: it did not.
    pub fastopen_client_fail: u8,
    /// Passive fast-open child still in SYN_RECV.
    pub fastopen_rsk: bool,
    /// Its SYN-ACK, until the stack has told the listener that the handshake is over.
    #[serde(skip)]
    pub fastopen_synack: Option<Box<crate::listen::RequestSock>>,
    /// TCP_FASTOPEN_CONNECT: connected as the program sees it, the SYN waits for data.
    pub defer_connect: bool,
    /// TCP_REPAIR and its queue.
    pub repair: RepairState,
    /// A listener's queues.
    #[serde(skip)]
    pub listen: Option<Box<ListenState>>,
    /// IP and TCP headers of the peer's SYN, until TCP_SAVED_SYN reads them.
    pub saved_syn: Option<Box<[u8]>>,
    /// Counters of `tcp_info`.
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
        let out = self.packets_out.saturating_add(self.retrans_out);
        out.saturating_sub(self.sacked_out + self.lost_out)
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
