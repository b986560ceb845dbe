//! `SOL_TCP` options, connection states and `struct tcp_info`.

/// Disable Nagle's algorithm.
pub const TCP_NODELAY: i32 = 1;
/// Upper bound of the segment size.
pub const TCP_MAXSEG: i32 = 2;
/// Hold partial segments.
pub const TCP_CORK: i32 = 3;
/// Seconds of silence before the first keepalive probe.
pub const TCP_KEEPIDLE: i32 = 4;
/// Seconds between keepalive probes.
pub const TCP_KEEPINTVL: i32 = 5;
/// Unanswered probes that end the connection.
pub const TCP_KEEPCNT: i32 = 6;
/// SYN retransmissions.
pub const TCP_SYNCNT: i32 = 7;
/// Seconds in an orphaned FIN_WAIT2.
pub const TCP_LINGER2: i32 = 8;
/// Wake the listener only when data arrives.
pub const TCP_DEFER_ACCEPT: i32 = 9;
/// Bound of the advertised window.
pub const TCP_WINDOW_CLAMP: i32 = 10;
/// [`TcpInfo`], read only.
pub const TCP_INFO: i32 = 11;
/// Acknowledge at once.
pub const TCP_QUICKACK: i32 = 12;
/// Name of the congestion control.
pub const TCP_CONGESTION: i32 = 13;
/// MD5 signature (RFC 2385).
pub const TCP_MD5SIG: i32 = 14;
/// Linear timeouts of thin streams.
pub const TCP_THIN_LINEAR_TIMEOUTS: i32 = 16;
/// Fast retransmit on the first duplicate; no effect.
pub const TCP_THIN_DUPACK: i32 = 17;
/// Milliseconds that data may stay unacknowledged.
pub const TCP_USER_TIMEOUT: i32 = 18;
/// Repair mode: 1 on, 0 off with a window probe, -1 off without.
pub const TCP_REPAIR: i32 = 19;
/// Queue that the repair calls work on.
pub const TCP_REPAIR_QUEUE: i32 = 20;
/// Sequence number of that queue.
pub const TCP_QUEUE_SEQ: i32 = 21;
/// Negotiated options, array of [`TcpRepairOpt`].
pub const TCP_REPAIR_OPTIONS: i32 = 22;
/// Listener: pending fast open requests.
pub const TCP_FASTOPEN: i32 = 23;
/// Time stamp value.
pub const TCP_TIMESTAMP: i32 = 24;
/// Unsent bytes above which the socket is not writable.
pub const TCP_NOTSENT_LOWAT: i32 = 25;
/// Numbers of the congestion control.
pub const TCP_CC_INFO: i32 = 26;
/// Keep the SYN's headers.
pub const TCP_SAVE_SYN: i32 = 27;
/// The kept headers, read once.
pub const TCP_SAVED_SYN: i32 = 28;
/// [`TcpRepairWindow`].
pub const TCP_REPAIR_WINDOW: i32 = 29;
/// `connect` waits for the first data.
pub const TCP_FASTOPEN_CONNECT: i32 = 30;
/// Upper layer protocol.
pub const TCP_ULP: i32 = 31;
/// MD5 signature with prefix.
pub const TCP_MD5SIG_EXT: i32 = 32;
/// Key of fast open cookies, 16 or 32 bytes.
pub const TCP_FASTOPEN_KEY: i32 = 33;
/// Fast open without cookies.
pub const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
/// Receive by mapping.
pub const TCP_ZEROCOPY_RECEIVE: i32 = 35;
/// Report bytes left after a read.
pub const TCP_INQ: i32 = 36;
/// Control message of [`TCP_INQ`], an `int`.
pub const TCP_CM_INQ: i32 = TCP_INQ;
/// Added transmit delay, microseconds.
pub const TCP_TX_DELAY: i32 = 37;
/// Add an authentication option key.
pub const TCP_AO_ADD_KEY: i32 = 38;
/// Remove an authentication option key.
pub const TCP_AO_DEL_KEY: i32 = 39;
/// Settings and counters of the authentication option.
pub const TCP_AO_INFO: i32 = 40;
/// Keys of the authentication option.
pub const TCP_AO_GET_KEYS: i32 = 41;
/// Repair of the authentication option.
pub const TCP_AO_REPAIR: i32 = 42;
/// Is this a Multipath TCP socket.
pub const TCP_IS_MPTCP: i32 = 43;
/// Upper bound of the retransmission timeout, milliseconds.
pub const TCP_RTO_MAX_MS: i32 = 44;
/// Lower bound of the retransmission timeout, microseconds.
pub const TCP_RTO_MIN_US: i32 = 45;
/// Upper bound of the acknowledgement delay, microseconds.
pub const TCP_DELACK_MAX_US: i32 = 46;

/// Values of [`TCP_REPAIR`].
pub mod repair {
    /// Leave repair mode and probe the window.
    pub const OFF: i32 = 0;
    /// Enter repair mode.
    pub const ON: i32 = 1;
    /// Leave repair mode silently.
    pub const OFF_NO_WP: i32 = -1;
    /// [`TCP_REPAIR_QUEUE`](super::TCP_REPAIR_QUEUE): none.
    pub const NO_QUEUE: i32 = 0;
    /// [`TCP_REPAIR_QUEUE`](super::TCP_REPAIR_QUEUE): received data.
    pub const RECV_QUEUE: i32 = 1;
    /// [`TCP_REPAIR_QUEUE`](super::TCP_REPAIR_QUEUE): sent data.
    pub const SEND_QUEUE: i32 = 2;
}

/// Longest name of a congestion control, terminating zero included.
pub const TCP_CA_NAME_MAX: usize = 16;
/// Longest name of an upper layer protocol, terminating zero included.
pub const TCP_ULP_NAME_MAX: usize = 16;

/// Segment size when the peer names none (RFC 9293 §3.7.1), IPv4.
pub const TCP_MSS_DEFAULT: u16 = 536;
/// Smallest segment size that `TCP_MAXSEG` takes.
pub const TCP_MIN_MSS: u16 = 88;
/// Largest shift of the window scale option (RFC 7323 §2.3).
pub const TCP_MAX_WSCALE: u8 = 14;

/// Connection states with Linux's numbers, as `tcpi_state` and `/proc/net/tcp` show them.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcpState {
    /// Open.
    Established = 1,
    /// A SYN was sent.
    SynSent = 2,
    /// A SYN was received, and answered.
    SynRecv = 3,
    /// Our FIN is on its way.
    FinWait1 = 4,
    /// Our FIN was acknowledged.
    FinWait2 = 5,
    /// Both sides are closed, old segments die out.
    TimeWait = 6,
    /// No connection.
    Close = 7,
    /// The peer's FIN came, we may still send.
    CloseWait = 8,
    /// Our FIN after the peer's is on its way.
    LastAck = 9,
    /// Waiting for connections.
    Listen = 10,
    /// FINs crossed, ours is not acknowledged.
    Closing = 11,
    /// A listener's request that has no full socket yet.
    NewSynRecv = 12,
}

impl TcpState {
    /// All states in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
        Self::NewSynRecv,
    ];

    /// The state of that number, `None` outside 1..=12.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1..=12 => Some(Self::ALL[number as usize - 1]),
            _ => None,
        }
    }

    /// The state's bit in a set of states.
    pub const fn bit(self) -> u16 {
        1 << self as u8
    }

    /// Is this state a member of `set`, an or of [`bit`](Self::bit)s?
    pub const fn is_in(self, set: u16) -> bool {
        self.bit() & set != 0
    }
}

/// Congestion avoidance states, `tcpi_ca_state`.
pub mod ca_state {
    /// Nothing unusual.
    pub const OPEN: u8 = 0;
    /// Duplicate acknowledgements or SACKs, cause unknown.
    pub const DISORDER: u8 = 1;
    /// The window is being reduced after ECN or local congestion.
    pub const CWR: u8 = 2;
    /// Fast retransmit.
    pub const RECOVERY: u8 = 3;
    /// After a timeout.
    pub const LOSS: u8 = 4;
}

/// Bits of [`TcpInfo::tcpi_options`].
pub mod info_options {
    /// Time stamps are in use.
    pub const TIMESTAMPS: u8 = 1;
    /// Selective acknowledgements are in use.
    pub const SACK: u8 = 2;
    /// Window scaling is in use.
    pub const WSCALE: u8 = 4;
    /// ECN was negotiated.
    pub const ECN: u8 = 8;
    /// A packet with an ECN code point was seen.
    pub const ECN_SEEN: u8 = 0x10;
    /// Data in the SYN was acknowledged.
    pub const SYN_DATA: u8 = 0x20;
    /// Time stamps in microseconds.
    pub const USEC_TS: u8 = 0x40;
    /// Passive fast open.
    pub const TFO_CHILD: u8 = 0x80;
}

/// `struct tcp_info` of Linux 6.16, 248 bytes. Later kernels append; a reader asks for a prefix.
///
/// The two C bit fields are kept as bytes: [`tcpi_wscale`](Self::tcpi_wscale) and
/// [`tcpi_rate_and_fastopen`](Self::tcpi_rate_and_fastopen).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// [`TcpState`].
    pub tcpi_state: u8,
    /// [`ca_state`].
    pub tcpi_ca_state: u8,
    /// Timeouts since the last progress.
    pub tcpi_retransmits: u8,
    /// Unanswered window or keepalive probes.
    pub tcpi_probes: u8,
    /// Doublings of the timeout.
    pub tcpi_backoff: u8,
    /// [`info_options`].
    pub tcpi_options: u8,
    /// Low nibble: shift of what we receive from the peer; high nibble: ours.
    pub tcpi_wscale: u8,
    /// Bit 0: delivery rate is application limited; bits 1 and 2: why fast open failed.
    pub tcpi_rate_and_fastopen: u8,
    /// Retransmission timeout, microseconds.
    pub tcpi_rto: u32,
    /// Acknowledgement timeout, microseconds.
    pub tcpi_ato: u32,
    /// Segment size we send, bytes.
    pub tcpi_snd_mss: u32,
    /// Segment size we receive, an estimate in bytes.
    pub tcpi_rcv_mss: u32,
    /// Segments in flight; listener: length of the accept queue.
    pub tcpi_unacked: u32,
    /// Segments selectively acknowledged; listener: backlog.
    pub tcpi_sacked: u32,
    /// Segments presumed lost.
    pub tcpi_lost: u32,
    /// Retransmitted segments in flight.
    pub tcpi_retrans: u32,
    /// Zero since Linux 4.15.
    pub tcpi_fackets: u32,
    /// Milliseconds since data was sent.
    pub tcpi_last_data_sent: u32,
    /// Zero.
    pub tcpi_last_ack_sent: u32,
    /// Milliseconds since data was received.
    pub tcpi_last_data_recv: u32,
    /// Milliseconds since an acknowledgement was received.
    pub tcpi_last_ack_recv: u32,
    /// Path MTU, bytes.
    pub tcpi_pmtu: u32,
    /// Bound of the receive window, bytes.
    pub tcpi_rcv_ssthresh: u32,
    /// Smoothed round trip time, microseconds.
    pub tcpi_rtt: u32,
    /// Its variation, microseconds.
    pub tcpi_rttvar: u32,
    /// Slow start threshold, segments.
    pub tcpi_snd_ssthresh: u32,
    /// Congestion window, segments.
    pub tcpi_snd_cwnd: u32,
    /// Segment size we advertised, bytes.
    pub tcpi_advmss: u32,
    /// Reordering seen, segments.
    pub tcpi_reordering: u32,
    /// Round trip time as the receiver sees it, microseconds.
    pub tcpi_rcv_rtt: u32,
    /// Bytes the program read per round trip.
    pub tcpi_rcv_space: u32,
    /// Retransmitted segments of the connection.
    pub tcpi_total_retrans: u32,
    /// Bytes per second.
    pub tcpi_pacing_rate: u64,
    /// Bytes per second, all ones without a limit.
    pub tcpi_max_pacing_rate: u64,
    /// Bytes acknowledged by the peer, the SYN counts one (RFC 4898).
    pub tcpi_bytes_acked: u64,
    /// Bytes received.
    pub tcpi_bytes_received: u64,
    /// Segments sent.
    pub tcpi_segs_out: u32,
    /// Segments received.
    pub tcpi_segs_in: u32,
    /// Bytes never sent.
    pub tcpi_notsent_bytes: u32,
    /// Smallest round trip time, microseconds.
    pub tcpi_min_rtt: u32,
    /// Segments with data received.
    pub tcpi_data_segs_in: u32,
    /// Segments with data sent.
    pub tcpi_data_segs_out: u32,
    /// Bytes per second.
    pub tcpi_delivery_rate: u64,
    /// Microseconds with data queued or in flight.
    pub tcpi_busy_time: u64,
    /// Microseconds limited by the peer's window.
    pub tcpi_rwnd_limited: u64,
    /// Microseconds limited by the send buffer.
    pub tcpi_sndbuf_limited: u64,
    /// Segments delivered, retransmissions included.
    pub tcpi_delivered: u32,
    /// Segments delivered with a congestion mark.
    pub tcpi_delivered_ce: u32,
    /// Bytes sent, retransmissions included.
    pub tcpi_bytes_sent: u64,
    /// Bytes retransmitted.
    pub tcpi_bytes_retrans: u64,
    /// Duplicates reported by the peer.
    pub tcpi_dsack_dups: u32,
    /// Reordering events.
    pub tcpi_reord_seen: u32,
    /// Out-of-order segments received.
    pub tcpi_rcv_ooopack: u32,
    /// The peer's window, bytes.
    pub tcpi_snd_wnd: u32,
    /// Our window, bytes.
    pub tcpi_rcv_wnd: u32,
    /// Changes of the flow hash.
    pub tcpi_rehash: u32,
    /// Timeouts.
    pub tcpi_total_rto: u16,
    /// Recoveries from timeouts.
    pub tcpi_total_rto_recoveries: u16,
    /// Milliseconds in such recoveries.
    pub tcpi_total_rto_time: u32,
}

/// Size of [`TcpInfo`] in bytes.
pub const TCP_INFO_LEN: usize = 248;

const _: () = assert!(size_of::<TcpInfo>() == TCP_INFO_LEN);

impl TcpInfo {
    /// The bytes of the C structure, in the byte order of this machine.
    pub fn to_bytes(&self) -> [u8; TCP_INFO_LEN] {
        let mut out = Bytes {
            buf: [0; TCP_INFO_LEN],
            at: 0,
        };
        let u8s = [
            self.tcpi_state,
            self.tcpi_ca_state,
            self.tcpi_retransmits,
            self.tcpi_probes,
            self.tcpi_backoff,
            self.tcpi_options,
            self.tcpi_wscale,
            self.tcpi_rate_and_fastopen,
        ];
        out.put(&u8s);
        out.put_u32s(&[
            self.tcpi_rto,
            self.tcpi_ato,
            self.tcpi_snd_mss,
            self.tcpi_rcv_mss,
            self.tcpi_unacked,
            self.tcpi_sacked,
            self.tcpi_lost,
            self.tcpi_retrans,
            self.tcpi_fackets,
            self.tcpi_last_data_sent,
            self.tcpi_last_ack_sent,
            self.tcpi_last_data_recv,
            self.tcpi_last_ack_recv,
            self.tcpi_pmtu,
            self.tcpi_rcv_ssthresh,
            self.tcpi_rtt,
            self.tcpi_rttvar,
            self.tcpi_snd_ssthresh,
            self.tcpi_snd_cwnd,
            self.tcpi_advmss,
            self.tcpi_reordering,
            self.tcpi_rcv_rtt,
            self.tcpi_rcv_space,
            self.tcpi_total_retrans,
        ]);
        out.put_u64s(&[
            self.tcpi_pacing_rate,
            self.tcpi_max_pacing_rate,
            self.tcpi_bytes_acked,
            self.tcpi_bytes_received,
        ]);
        out.put_u32s(&[
            self.tcpi_segs_out,
            self.tcpi_segs_in,
            self.tcpi_notsent_bytes,
            self.tcpi_min_rtt,
            self.tcpi_data_segs_in,
            self.tcpi_data_segs_out,
        ]);
        out.put_u64s(&[
            self.tcpi_delivery_rate,
            self.tcpi_busy_time,
            self.tcpi_rwnd_limited,
            self.tcpi_sndbuf_limited,
        ]);
        out.put_u32s(&[self.tcpi_delivered, self.tcpi_delivered_ce]);
        out.put_u64s(&[self.tcpi_bytes_sent, self.tcpi_bytes_retrans]);
        out.put_u32s(&[
            self.tcpi_dsack_dups,
            self.tcpi_reord_seen,
            self.tcpi_rcv_ooopack,
            self.tcpi_snd_wnd,
            self.tcpi_rcv_wnd,
            self.tcpi_rehash,
        ]);
        out.put(&self.tcpi_total_rto.to_ne_bytes());
        out.put(&self.tcpi_total_rto_recoveries.to_ne_bytes());
        out.put_u32s(&[self.tcpi_total_rto_time]);
        debug_assert_eq!(out.at, TCP_INFO_LEN);
        out.buf
    }
}

struct Bytes {
    buf: [u8; TCP_INFO_LEN],
    at: usize,
}

impl Bytes {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        self.buf[self.at..end].copy_from_slice(bytes);
        self.at = end;
    }

    fn put_u32s(&mut self, values: &[u32]) {
        for v in values {
            self.put(&v.to_ne_bytes());
        }
    }

    fn put_u64s(&mut self, values: &[u64]) {
        for v in values {
            self.put(&v.to_ne_bytes());
        }
    }
}

/// `struct tcp_repair_opt`: one negotiated option.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpRepairOpt {
    /// The option's kind on the wire: 2 MSS, 3 window scale, 4 SACK permitted, 8 time stamps.
    pub opt_code: u32,
    /// Its value; window scale: ours in the high 16 bits, the peer's in the low ones.
    pub opt_val: u32,
}

/// `struct tcp_repair_window`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpRepairWindow {
    /// Sequence number of the last window update.
    pub snd_wl1: u32,
    /// The peer's window, bytes.
    pub snd_wnd: u32,
    /// Largest window the peer ever advertised, bytes.
    pub max_window: u32,
    /// Our window, bytes.
    pub rcv_wnd: u32,
    /// `rcv_nxt` at our last window update.
    pub rcv_wup: u32,
}
