//! A socket's first values: Linux's `tcp_init_sock`.

use alloc::collections::VecDeque;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sidewire_uapi::tcp::TcpState;

use crate::autocork::SendRun;
use crate::cong::CongestionControl;
use crate::errqueue::ErrQueue;
use crate::event::Events;
use crate::mss::TCP_HEADER;
use crate::mtu_probe::MtuProbe;
use crate::net::Tuple;
use crate::opts::SockOpts;
use crate::repair::RepairState;
use crate::sock::{
    CaState, Chrono, IcskAck, InfoCounters, MinRtt, Rack, RcvTuning, SackBlock,
    TCP_INFINITE_SSTHRESH, TCP_INIT_CWND, TcpSock,
};
use crate::sysctl::Sysctl;
use crate::time::Instant;
use crate::timers::{IcskPending, TimerTable};
use crate::zerocopy::ZerocopyState;

/// Scaling ratio (256ths of `rcvbuf` that may be announced as window) before the first segment was measured.
pub const TCP_DEFAULT_SCALING_RATIO: u8 = 128;
/// RTO before the first sample, microseconds.
pub const TCP_TIMEOUT_INIT_US: u32 = 1_000_000;
/// Smallest deviation estimate before the first sample, microseconds: Linux's TCP_TIMEOUT_INIT as `mdev`.
pub const TCP_MDEV_INIT_US: u32 = 1_000_000;
/// Segment size assumed before the peer's is known.
pub const TCP_MSS_DEFAULT: u32 = 536;

/// The unspecified address and port 0 of a family.
#[must_use]
pub const fn unspecified(v6: bool) -> SocketAddr {
    let ip = if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    SocketAddr::new(ip, 0)
}

impl TcpSock {
    /// A socket in CLOSE, with the namespace's defaults.
    #[must_use]
    pub fn new(v6: bool, user: u64, sysctl: &Sysctl) -> Self {
        let opts = SockOpts {
            rto_max_ms: sysctl.tcp_rto_max_ms,
            rto_min_us: sysctl.tcp_rto_min_us,
            ip_mtu_discover: u8::from(sysctl.ip_no_pmtu_disc == 0),
            ..SockOpts::default()
        };
        Self {
            state: TcpState::Close,
            tuple: Tuple {
                local: unspecified(v6),
                remote: unspecified(v6),
            },
            v6,
            dst: None,
            opts,
            user,
            orphan: false,
            parent: None,
            sk_err: None,
            sk_err_soft: None,
            shutdown: 0,
            sock_done: false,
            ss_connecting: false,
            ss_connected: false,
            ss_disconnecting: false,
            events: Events::empty(),
            hashed: false,
            held: false,
            in_batch: false,
            data_snd_check: false,
            opened_hole: false,
            autocorked: false,
            send_run: SendRun::default(),
            bound_addr: false,
            bound_port: false,
            write_pending: 0,
            wakes: 0,
            disconnects: 0,
            timewait: None,

            snd_una: 0,
            snd_nxt: 0,
            snd_sml: 0,
            write_seq: 0,
            pushed_seq: 0,
            snd_wnd: 0,
            snd_wl1: 0,
            max_window: 0,
            snd_up: 0,
            urg_mode: false,
            iss: 0,
            nonagle: 0,
            mss_cache: TCP_MSS_DEFAULT,
            advmss: 0,
            mss_clamp: 0,
            tcp_header_len: TCP_HEADER,
            gso_segs: 0,
            write_queue: VecDeque::new(),
            rtx_queue: VecDeque::new(),
            wmem_queued: 0,
            sndbuf: sysctl.tcp_wmem[1],
            nospace: false,
            async_nospace: false,
            async_waitdata: false,
            tx_blocked: false,
            tsq_throttled: false,
            xmit_pause: None,
            pushed_nonagle: 0,
            tail_waits: false,
            host_looks: 0,
            lsndtime: Instant::ZERO,
            ip_id: 0,

            ca: CongestionControl::by_name(&sysctl.tcp_congestion_control).unwrap_or_default(),
            ca_dst_locked: false,
            ca_state: CaState::Open,
            snd_cwnd: TCP_INIT_CWND,
            snd_cwnd_cnt: 0,
            snd_cwnd_clamp: u32::MAX,
            snd_ssthresh: TCP_INFINITE_SSTHRESH,
            prior_ssthresh: 0,
            prior_cwnd: 0,
            snd_cwnd_used: 0,
            snd_cwnd_stamp: Instant::ZERO,
            is_cwnd_limited: false,
            max_packets_out: 0,
            cwnd_usage_seq: 0,
            prr_delivered: 0,
            prr_out: 0,
            high_seq: 0,
            packets_out: 0,
            retrans_out: 0,
            sacked_out: 0,
            lost_out: 0,
            delivered: 0,
            delivered_ce: 0,
            lost: 0,
            reordering: sysctl.tcp_reordering,
            undo_marker: 0,
            undo_retrans: -1,
            retrans_stamp: 0,
            tlp_high_seq: 0,
            tlp_retrans: false,
            frto: false,
            rack: Rack {
                reo_wnd_steps: 1,
                ..Rack::default()
            },
            recv_sack_cache: [SackBlock::default(); 4],
            delivered_mstamp: Instant::ZERO,
            first_tx_mstamp: Instant::ZERO,
            // Linux: a socket that never sent is application limited from the start.
            app_limited: u32::MAX,
            rate_delivered: 0,
            rate_interval_us: 0,
            rate_app_limited: true,
            pacing_rate: u64::MAX,
            tcp_wstamp_ns: Instant::ZERO,
            chrono: Chrono::default(),
            pmtu_cookie: 0,
            mtup: MtuProbe::default(),
            retransmit_hint: None,
            highest_sack: 0,
            is_sack_reneg: false,
            ecn_flags: 0,
            rto_stamp: 0,
            tx_fault: false,

            srtt_us: 0,
            mdev_us: TCP_MDEV_INIT_US,
            mdev_max_us: 0,
            rttvar_us: 0,
            rtt_seq: 0,
            rtt_min: MinRtt {
                s: [(Instant::ZERO, u32::MAX); 3],
            },
            rto_us: TCP_TIMEOUT_INIT_US,
            backoff: 0,
            retransmits: 0,
            probes_out: 0,
            icsk_pending: IcskPending::None,
            timers: TimerTable::default(),
            timer_queued: Instant::NEVER,
            probes_tstamp: Instant::ZERO,

            rcv_nxt: 0,
            copied_seq: 0,
            rcv_wup: 0,
            rcv_wnd: 0,
            rcv_ssthresh: 0,
            window_clamp: 0,
            irs: 0,
            receive_queue: VecDeque::new(),
            ofo_queue: VecDeque::new(),
            rmem_alloc: 0,
            rcvbuf: sysctl.tcp_rmem[1],
            scaling_ratio: TCP_DEFAULT_SCALING_RATIO,
            ack: IcskAck::default(),
            synack_ack_waits: false,
            ack_now: false,
            compressed_ack: 0,
            compressed_ack_rcv_nxt: 0,
            dup_ack_counter: 0,
            selective_acks: [SackBlock::default(); 4],
            num_sacks: 0,
            duplicate_sack: None,
            urg_data: 0,
            urg_seq: 0,
            tuning: RcvTuning::default(),
            last_oow_ack_time: Instant::ZERO,
            challenge_count: 0,
            rcv_tstamp: Instant::ZERO,

            tstamp_ok: false,
            sack_ok: false,
            wscale_ok: false,
            snd_wscale: 0,
            rcv_wscale: 0,
            ts_recent: 0,
            ts_recent_stamp: 0,
            tsoffset: 0,
            tcp_usec_ts: false,
            rcv_tsval: 0,
            rcv_tsecr: 0,
            saw_tstamp: false,

            errqueue: ErrQueue::default(),
            awaiting_tstamps: VecDeque::new(),
            zerocopy: ZerocopyState::default(),
            tskey: 0,
            fastopen_req: None,
            syn_fastopen: false,
            syn_fastopen_exp: false,
            syn_fastopen_ch: false,
            syn_data: false,
            syn_data_acked: false,
            syn_fastopen_child: false,
            fastopen_client_fail: 0,
            fastopen_rsk: false,
            fastopen_synack: None,
            defer_connect: false,
            repair: RepairState::default(),
            listen: None,
            saved_syn: None,
            info: InfoCounters::default(),
        }
    }
}
