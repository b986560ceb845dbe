//! The namespace's settings, by the names in `/proc/sys/net/ipv4` and `/proc/sys/net/core`; defaults are stock Linux 6.16.

use alloc::string::String;
use alloc::vec::Vec;

/// Settings of a network namespace.
#[derive(Clone, Debug)]
pub struct Sysctl {
    /// Send buffer in bytes {least, first, largest that it grows to}; the least is not used.
    pub tcp_wmem: [u32; 3],
    /// Receive buffer in bytes {least, first, largest that it grows to}; the least is not used.
    pub tcp_rmem: [u32; 3],
    /// Bytes that SO_RCVBUF takes at most, before it doubles them.
    pub rmem_max: u32,
    /// Bytes that SO_SNDBUF takes at most, before it doubles them.
    pub wmem_max: u32,
    /// Bytes that a socket's zerocopy notifications may take.
    pub optmem_max: u32,
    /// Largest backlog of `listen`, and largest TCP_FASTOPEN queue.
    pub somaxconn: u32,
    /// Handshakes of a listener at a time; the last quarter is for peers known from before.
    pub tcp_max_syn_backlog: u32,
    /// Unsent bytes above which a socket is not writable (TCP_NOTSENT_LOWAT 0); `u32::MAX` is no bound.
    pub tcp_notsent_lowat: u32,
    /// A small tail waits while earlier frames of its socket have not left the host.
    pub tcp_autocorking: bool,
    /// Bytes of a socket that may wait in the host; counts while frames are not paced.
    pub tcp_limit_output_bytes: u32,
    /// Fewest segments of a super-frame, however low the pacing rate; BBR has a bound of its own.
    pub tcp_min_tso_segs: u32,
    /// Super-frames grow for near peers: by `gso_max_size`, halved for every 2^this microseconds of minimum RTT.
    pub tcp_tso_rtt_log: u32,
    /// Part of the window (1/this) that a super-frame may be without waiting for more; 0: three segments.
    pub tcp_tso_win_divisor: u32,
    /// RFC 7323 timestamps: 0 off, else on. Linux's 2, without random offset, counts as 1.
    pub tcp_timestamps: u8,
    /// Selective acks (RFC 2018) are offered and accepted.
    pub tcp_sack: bool,
    /// Duplicates are reported by SACK (RFC 2883).
    pub tcp_dsack: bool,
    /// Window scaling (RFC 7323) is offered and accepted.
    pub tcp_window_scaling: bool,
    /// ECN (RFC 3168): 0 off, 1 offered and accepted, 2 accepted only.
    pub tcp_ecn: u8,
    /// A SYN that has to be sent again offers ECN no longer (RFC 3168 §6.1.1.1).
    pub tcp_ecn_fallback: bool,
    /// Tail loss probes (RFC 8985): on with 3 and 4, off with the rest.
    pub tcp_early_retrans: u8,
    /// Bits of RACK: 2 keeps its reordering window as it is, 4 has duplicate acks not close it. 1, RACK itself, is always on.
    pub tcp_recovery: u8,
    /// First `reordering` of a connection, segments.
    pub tcp_reordering: u32,
    /// Largest `reordering`, segments.
    pub tcp_max_reordering: u32,
    /// F-RTO (RFC 5682): 0 off, else on.
    pub tcp_frto: u8,
    /// SYNs sent again before a connect gives up (TCP_SYNCNT 0), beside the linear ones.
    pub tcp_syn_retries: u8,
    /// SYN-ACKs sent again before a handshake is forgotten (TCP_SYNCNT 0).
    pub tcp_synack_retries: u8,
    /// First timeouts of a SYN that do not double the next.
    pub tcp_syn_linear_timeouts: u8,
    /// The route is looked up anew after the time that so many timeouts take (RFC 1122 R1).
    pub tcp_retries1: u8,
    /// The connection ends after the time that so many timeouts take, or so many window probes (RFC 1122 R2).
    pub tcp_retries2: u8,
    /// The same for a socket that no program holds; 0 is 8 while the peer answers.
    pub tcp_orphan_retries: u8,
    /// Shortest RTO of a new socket, microseconds (TCP_RTO_MIN_US).
    pub tcp_rto_min_us: u32,
    /// Longest RTO of a new socket, milliseconds (TCP_RTO_MAX_MS).
    pub tcp_rto_max_ms: u32,
    /// Seconds that an orphan waits in FIN_WAIT2 (TCP_LINGER2 0).
    pub tcp_fin_timeout_s: u32,
    /// Idle seconds before the first keepalive probe (TCP_KEEPIDLE).
    pub tcp_keepalive_time_s: u32,
    /// Seconds between keepalive probes (TCP_KEEPINTVL).
    pub tcp_keepalive_intvl_s: u32,
    /// Unanswered keepalive probes that end a connection (TCP_KEEPCNT).
    pub tcp_keepalive_probes: u8,
    /// Milliseconds between two acks of segments that are out of the window.
    pub tcp_invalid_ratelimit_ms: u32,
    /// Challenge acks a second of all sockets (RFC 5961 §7); 0, `i32::MAX` and more are no bound.
    pub tcp_challenge_ack_limit: u32,
    /// Smallest segment to send, bytes of payload and TCP options.
    pub tcp_min_snd_mss: u32,
    /// RFC 4821: 1 where timeouts tell of a black hole, 2 always, 0 never.
    pub tcp_mtu_probing: u8,
    /// Bytes of payload and TCP options with which the search begins.
    pub tcp_base_mss: u32,
    /// The same where black holes have it begin anew, at least.
    pub tcp_mtu_probe_floor: u32,
    /// Bytes between what the path takes and what it does not, below which the search is over.
    pub tcp_probe_threshold: i32,
    /// Seconds after which it begins anew.
    pub tcp_probe_interval_s: u32,
    /// The congestion window shrinks with each RTO without sending (RFC 2861).
    pub tcp_slow_start_after_idle: bool,
    /// The announced window may shrink when memory gets scarce.
    pub tcp_shrink_window: bool,
    /// The receive buffer grows with what the program reads in a round trip.
    pub tcp_moderate_rcvbuf: bool,
    /// Longest time that SACKs are held back to be compressed, nanoseconds; 5 % of the RTT if less.
    pub tcp_comp_sack_delay_ns: u64,
    /// SACKs that are held back at a time; 0: none.
    pub tcp_comp_sack_nr: u32,
    /// Pacing rate in per cent of window / RTT, while the window is below half of `ssthresh`.
    pub tcp_pacing_ss_ratio: u32,
    /// The same above.
    pub tcp_pacing_ca_ratio: u32,
    /// Bits of [`crate::fastopen`]: `TFO_CLIENT_ENABLE` and its like.
    pub tcp_fastopen: u32,
    /// Seconds for which a blackhole turns fast open off, doubled with each in a row; 0: it does not.
    pub tcp_fastopen_blackhole_timeout_s: u32,
    /// The urgent pointer names the urgent byte (RFC 1122), not the one behind it.
    pub tcp_stdurg: bool,
    /// A RST does not end TIME_WAIT (RFC 1337).
    pub tcp_rfc1337: bool,
    /// A full accept queue resets, instead of letting the peer try again.
    pub tcp_abort_on_overflow: bool,
    /// TIME_WAIT remnants; above it a connection goes without one.
    pub tcp_max_tw_buckets: u32,
    /// Sockets that no program holds; above it they are reset.
    pub tcp_max_orphans: u32,
    /// A connect may take the place of a TIME_WAIT remnant: 0 no, 1 yes, 2 on loopback.
    pub tcp_tw_reuse: u8,
    /// Milliseconds that the remnant must have stood by then.
    pub tcp_tw_reuse_delay_ms: u32,
    /// Seconds for which the smallest RTT counts.
    pub tcp_min_rtt_wlen_s: u32,
    /// Part of the receive window (1/2^this) kept for the program's overhead; 0 keeps none, not even one segment.
    pub tcp_app_win: u8,
    /// A child has the TOS of its SYN, ECN bits apart.
    pub tcp_reflect_tos: bool,
    /// Keys of `tcp_fastopen_key`, 16 bytes each; empty while it is not set.
    pub tcp_fastopen_key: Vec<u8>,
    /// Unscaled windows end at 32767 bytes, for peers that take the field for signed.
    pub tcp_workaround_signed_windows: bool,
    /// Up to six timeouts of a thin stream do not double the RTO (TCP_THIN_LINEAR_TIMEOUTS).
    pub tcp_thin_linear_timeouts: bool,
    /// Answers in turn after which a session counts as interactive: its acks wait for data.
    pub tcp_pingpong_thresh: u32,
    /// Small segments are joined when sent again.
    pub tcp_retrans_collapse: bool,
    /// Nothing of a connection that ends is kept for the next to the same peer.
    pub tcp_no_metrics_save: bool,
    /// The same of its `ssthresh` alone.
    pub tcp_no_ssthresh_metrics_save: bool,
    /// Name in `tcp_congestion_control`; one that we lack becomes cubic.
    pub tcp_congestion_control: String,
    /// Names, between blanks, that TCP_CONGESTION takes without CAP_NET_ADMIN.
    pub tcp_allowed_congestion_control: String,
    /// What the host's TCP has; empty when that is not known, for all that the engine has.
    pub tcp_available_congestion_control: String,
    /// TTL, hop limit too, of sockets with IP_TTL −1 and routes without.
    pub ip_default_ttl: u8,
    /// First IP_MTU_DISCOVER of a socket; not used.
    pub ip_no_pmtu_disc: u8,
    /// How long a path's MTU counts that ICMP told, in seconds (`net.ipv4.route.mtu_expires`).
    pub mtu_expires_s: u32,
    /// Transmit timestamps may bring the frame back without CAP_NET_RAW (TS-43).
    pub tstamp_allow_data: bool,
    /// Not Linux's: a message's own SO_MARK and SCM_TXTIME count for its segments.
    pub message_options: bool,
    /// Not Linux's: what is sent again of zerocopy data is a copy made when it was first sent.
    pub zerocopy_rtx_copy: bool,
}

impl Default for Sysctl {
    fn default() -> Self {
        Self {
            tcp_wmem: [4096, 16384, 4_194_304],
            tcp_rmem: [4096, 131_072, 6_291_456],
            rmem_max: 212_992,
            wmem_max: 212_992,
            optmem_max: 131_072,
            somaxconn: 4096,
            tcp_max_syn_backlog: 2048,
            tcp_notsent_lowat: u32::MAX,
            tcp_autocorking: true,
            tcp_limit_output_bytes: 4_194_304,
            tcp_min_tso_segs: 2,
            tcp_tso_rtt_log: 9,
            tcp_tso_win_divisor: 3,
            tcp_timestamps: 1,
            tcp_sack: true,
            tcp_dsack: true,
            tcp_window_scaling: true,
            tcp_ecn: 2,
            tcp_ecn_fallback: true,
            tcp_early_retrans: 3,
            tcp_recovery: 1,
            tcp_reordering: 3,
            tcp_max_reordering: 300,
            tcp_frto: 2,
            tcp_syn_retries: 6,
            tcp_synack_retries: 5,
            tcp_syn_linear_timeouts: 4,
            tcp_retries1: 3,
            tcp_retries2: 15,
            tcp_orphan_retries: 0,
            tcp_rto_min_us: 200_000,
            tcp_rto_max_ms: 120_000,
            tcp_fin_timeout_s: 60,
            tcp_keepalive_time_s: 7200,
            tcp_keepalive_intvl_s: 75,
            tcp_keepalive_probes: 9,
            tcp_invalid_ratelimit_ms: 500,
            tcp_challenge_ack_limit: u32::MAX,
            tcp_min_snd_mss: 48,
            tcp_mtu_probing: 0,
            tcp_base_mss: 1024,
            tcp_mtu_probe_floor: 48,
            tcp_probe_threshold: 8,
            tcp_probe_interval_s: 600,
            tcp_slow_start_after_idle: true,
            tcp_shrink_window: false,
            tcp_moderate_rcvbuf: true,
            tcp_comp_sack_delay_ns: 1_000_000,
            tcp_comp_sack_nr: 44,
            tcp_pacing_ss_ratio: 200,
            tcp_pacing_ca_ratio: 120,
            tcp_fastopen: 1,
            tcp_fastopen_blackhole_timeout_s: 0,
            tcp_stdurg: false,
            tcp_rfc1337: false,
            tcp_abort_on_overflow: false,
            tcp_max_tw_buckets: 131_072,
            tcp_max_orphans: 131_072,
            tcp_tw_reuse: 2,
            tcp_tw_reuse_delay_ms: 1_000,
            tcp_min_rtt_wlen_s: 300,
            tcp_app_win: 31,
            tcp_reflect_tos: false,
            tcp_fastopen_key: Vec::new(),
            tcp_workaround_signed_windows: false,
            tcp_thin_linear_timeouts: false,
            tcp_pingpong_thresh: 1,
            tcp_retrans_collapse: true,
            tcp_no_metrics_save: false,
            tcp_no_ssthresh_metrics_save: true,
            tcp_congestion_control: String::from("cubic"),
            tcp_allowed_congestion_control: String::from("reno cubic"),
            tcp_available_congestion_control: String::new(),
            ip_default_ttl: 64,
            ip_no_pmtu_disc: 0,
            mtu_expires_s: 600,
            tstamp_allow_data: true,
            message_options: false,
            zerocopy_rtx_copy: false,
        }
    }
}
