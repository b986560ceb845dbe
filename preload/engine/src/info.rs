//! TCP_INFO (SO-78..SO-99; Linux `tcp_get_info`).

use sidewire_uapi::TcpState;
use sidewire_uapi::tcp::{TcpInfo, info_options};

use crate::header::tcp_time_stamp;
use crate::sock::{Chrono, TcpSock, ecn};
use crate::time::{HZ, Instant, JIFFY_NS, NSEC_PER_USEC};

/// Microseconds in one jiffy: the unit of what Linux counts in jiffies.
const JIFFY_US: u64 = JIFFY_NS / NSEC_PER_USEC;

/// Milliseconds from `then` to `now`, in whole jiffies.
fn ms_ago(now: Instant, then: Instant) -> u32 {
    ((now.0 / JIFFY_NS).saturating_sub(then.0 / JIFFY_NS) * (1000 / HZ)) as u32
}

/// Times of the three limits up to `now`; busy time is the sum (Linux `tcp_get_info_chrono_stats`).
#[must_use]
pub fn chrono_stats(sk: &TcpSock, now: Instant) -> Chrono {
    let mut c = sk.chrono.clone();
    let running = now.us_since(c.start);
    match c.kind {
        1 => c.busy_us += running,
        2 => c.rwnd_limited_us += running,
        3 => c.sndbuf_limited_us += running,
        _ => {}
    }
    for t in [
        &mut c.busy_us,
        &mut c.rwnd_limited_us,
        &mut c.sndbuf_limited_us,
    ] {
        *t -= *t % JIFFY_US;
    }
    c.busy_us += c.rwnd_limited_us + c.sndbuf_limited_us;
    c
}

/// Bytes a second of the last sample, 0 without one.
#[must_use]
pub fn tcp_compute_delivery_rate(sk: &TcpSock) -> u64 {
    if sk.rate_interval_us == 0 {
        return 0;
    }
    u64::from(sk.rate_delivered) * u64::from(sk.mss_cache) * 1_000_000
        / u64::from(sk.rate_interval_us)
}

fn options(sk: &TcpSock) -> u8 {
    let pairs = [
        (sk.tstamp_ok, info_options::TIMESTAMPS),
        (sk.sack_ok, info_options::SACK),
        (sk.wscale_ok, info_options::WSCALE),
        (sk.ecn_flags & ecn::OK != 0, info_options::ECN),
        (sk.ecn_flags & ecn::SEEN != 0, info_options::ECN_SEEN),
        (sk.syn_data_acked, info_options::SYN_DATA),
        (sk.tcp_usec_ts, info_options::USEC_TS),
        (sk.syn_fastopen_child, info_options::TFO_CHILD),
    ];
    pairs
        .iter()
        .filter(|(on, _)| *on)
        .fold(0, |all, (_, bit)| all | bit)
}

/// What TCP_INFO shows. A listener fills few fields: `tcpi_unacked` is its queue, `tcpi_sacked` its backlog (ER-70).
#[must_use]
pub fn tcp_get_info(sk: &TcpSock, now: Instant) -> TcpInfo {
    let mut info = TcpInfo {
        tcpi_state: sk.state as u8,
        tcpi_pacing_rate: sk.pacing_rate,
        tcpi_max_pacing_rate: sk.opts.max_pacing_rate,
        tcpi_reordering: sk.reordering,
        tcpi_snd_cwnd: sk.snd_cwnd,
        ..TcpInfo::default()
    };
    if sk.state == TcpState::Listen {
        if let Some(l) = &sk.listen {
            info.tcpi_unacked = l.accept_queue.len() as u32;
            info.tcpi_sacked = l.backlog;
        }
        return info;
    }
    congestion(sk, now, &mut info);
    counters(sk, now, &mut info);
    info.tcpi_options = options(sk);
    if sk.wscale_ok {
        info.tcpi_wscale = sk.snd_wscale | sk.rcv_wscale << 4;
    }
    info.tcpi_rate_and_fastopen = u8::from(sk.rate_app_limited) | sk.fastopen_client_fail << 1;
    let delack_max = u64::from(sk.opts.delack_max_us);
    info.tcpi_ato = (sk.ack.ato_ns / NSEC_PER_USEC).min(delack_max) as u32;
    info.tcpi_rcv_mss = sk.ack.rcv_mss;
    info.tcpi_pmtu = sk.pmtu_cookie;
    info.tcpi_rcv_ssthresh = sk.rcv_ssthresh;
    info.tcpi_advmss = sk.advmss.into();
    info.tcpi_rcv_rtt = sk.tuning.rtt_us >> 3;
    info.tcpi_rcv_space = sk.tuning.space;
    info.tcpi_notsent_bytes = (sk.notsent_bytes() as i32).max(0) as u32;
    info.tcpi_snd_wnd = sk.snd_wnd;
    info.tcpi_rcv_wnd = sk.rcv_wnd;
    info
}

/// Congestion control, recovery and timers.
fn congestion(sk: &TcpSock, now: Instant, info: &mut TcpInfo) {
    info.tcpi_ca_state = sk.ca_state as u8;
    info.tcpi_retransmits = sk.retransmits;
    info.tcpi_probes = sk.probes_out;
    info.tcpi_backoff = sk.backoff;
    info.tcpi_rto = sk.rto_us;
    info.tcpi_snd_mss = sk.mss_cache;
    info.tcpi_unacked = sk.packets_out;
    info.tcpi_sacked = sk.sacked_out;
    info.tcpi_lost = sk.lost_out;
    info.tcpi_retrans = sk.retrans_out;
    info.tcpi_last_data_sent = ms_ago(now, sk.lsndtime);
    info.tcpi_last_data_recv = ms_ago(now, sk.ack.lrcvtime);
    info.tcpi_last_ack_recv = ms_ago(now, sk.rcv_tstamp);
    info.tcpi_rtt = sk.srtt_us >> 3;
    info.tcpi_rttvar = sk.mdev_us >> 2;
    info.tcpi_snd_ssthresh = sk.snd_ssthresh;
    info.tcpi_min_rtt = sk.rtt_min.s[0].1;
    info.tcpi_delivery_rate = tcp_compute_delivery_rate(sk);
    info.tcpi_delivered = sk.delivered;
    info.tcpi_delivered_ce = sk.delivered_ce;
    info.tcpi_rehash = u32::from(sk.info.timeout_rehash);
}

/// What only grows.
fn counters(sk: &TcpSock, now: Instant, info: &mut TcpInfo) {
    let c = &sk.info;
    let chrono = chrono_stats(sk, now);
    info.tcpi_busy_time = chrono.busy_us;
    info.tcpi_rwnd_limited = chrono.rwnd_limited_us;
    info.tcpi_sndbuf_limited = chrono.sndbuf_limited_us;
    info.tcpi_total_retrans = c.total_retrans;
    info.tcpi_bytes_acked = c.bytes_acked;
    info.tcpi_bytes_received = c.bytes_received;
    info.tcpi_segs_out = c.segs_out;
    info.tcpi_segs_in = c.segs_in;
    info.tcpi_data_segs_in = c.data_segs_in;
    info.tcpi_data_segs_out = c.data_segs_out;
    info.tcpi_bytes_sent = c.bytes_sent;
    info.tcpi_bytes_retrans = c.bytes_retrans;
    info.tcpi_dsack_dups = c.dsack_dups;
    info.tcpi_reord_seen = c.reord_seen;
    info.tcpi_rcv_ooopack = c.rcv_ooopack;
    info.tcpi_total_rto = c.total_rto;
    info.tcpi_total_rto_recoveries = c.total_rto_recoveries;
    info.tcpi_total_rto_time = c.total_rto_time_ms;
    if sk.rto_stamp != 0 {
        // The episode that is not over.
        let spent = tcp_time_stamp(now).wrapping_sub(sk.rto_stamp);
        info.tcpi_total_rto_time = info.tcpi_total_rto_time.wrapping_add(spent);
    }
}
