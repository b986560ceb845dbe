//! SYN and SYN-ACK (Linux `tcp_connect`, `tcp_make_synack`; TM-1 to TM-4, TM-32, TM-33).

use sidewire_wire::ipv4::HEADER_LEN as IPV4_HEADER;
use sidewire_wire::tcp::{HEADER_LEN as TCP_HEADER, TcpFlags, TcpHeader, TcpOptions};
use sidewire_wire::tcp_options::FastOpen;

use crate::cong::CongestionControl;
use crate::error::Error;
use crate::fastopen::client::tcp_send_syn_data;
use crate::header::{Headers, IpFields, dont_fragment, tcp_time_stamp_ts, ttl};
use crate::listen::RequestSock;
use crate::mib::Counter;
use crate::mss::{dst_metric_advmss, net_header_len, tcp_header_len, tcp_mss_clamp, tcp_sync_mss};
use crate::mtu_probe::tcp_mtup_init;
use crate::net::{Net, Transmit, TxVerdict};
use crate::output::{At, XmitError, rebuild_header, tcp_init_nondata_skb, tcp_transmit_skb};
use crate::skb::tcphdr;
use crate::sndbuf::tcp_write_queue_purge;
use crate::sock::{TcpSock, ecn};
use crate::stack::{Cx, Shared};
use crate::synsent::tcp_finish_connect;
use crate::time::Instant;
use crate::timer::{TCP_TIMEOUT_INIT_US, tcp_reset_xmit_timer};
use crate::timers::IcskPending;
use crate::window::{tcp_full_space, tcp_initialize_rcv_mss, tcp_select_initial_window};

/// What every way takes in one piece (RFC 791 §3.2).
const IPV4_MIN_MTU: usize = 68;
/// `tcp_ecn` of who offers ECN.
const ECN_OFFERED: u8 = 1;

/// Everything that a connection attempt begins with (Linux `tcp_connect_init`). `write_seq` is the initial sequence
/// number, `dst` is set.
pub fn tcp_connect_init(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let offered = cx.sh.sysctl.tcp_timestamps != 0;
    sk.tcp_header_len = tcp_header_len(offered);
    if sk.opts.maxseg != 0 {
        sk.mss_clamp = sk.opts.maxseg;
    }
    sk.max_window = 0;
    let headers = net_header_len(sk);
    let mtu = sk.dst.as_ref().map_or(0, |d| d.mtu);
    tcp_mtup_init(sk, cx);
    tcp_sync_mss(sk, cx, mtu);
    tcp_ca_dst_init(sk);
    let metrics = *sk.route_metrics();
    sk.tcp_usec_ts = metrics.usec_ts;
    if sk.window_clamp == 0 {
        sk.window_clamp = sk.opts.window_clamp;
    }
    if sk.window_clamp == 0 {
        sk.window_clamp = metrics.window;
    }
    sk.advmss = sk.dst.as_ref().map_or(0, |d| {
        tcp_mss_clamp(sk.opts.maxseg, dst_metric_advmss(d, headers))
    });
    tcp_initialize_rcv_mss(sk);
    let full_space = tcp_full_space(sk);
    // A buffer that the program fixed bounds the window for good.
    if sk.opts.buf_lock_rcv
        && (sk.window_clamp == 0 || i64::from(sk.window_clamp) > i64::from(full_space))
    {
        sk.window_clamp = full_space.max(0) as u32;
    }
    let initial = tcp_select_initial_window(
        &cx.sh.sysctl,
        full_space,
        u32::from(sk.advmss),
        sk.window_clamp,
        cx.sh.sysctl.tcp_window_scaling,
        metrics.initrwnd,
    );
    sk.rcv_wnd = initial.rcv_wnd;
    sk.window_clamp = initial.window_clamp;
    sk.rcv_wscale = initial.rcv_wscale;
    sk.rcv_ssthresh = sk.rcv_wnd;
    sk.sk_err = None;
    sk.sock_done = false;
    sk.snd_wnd = 0;
    sk.snd_wl1 = 0;
    tcp_write_queue_purge(sk, cx);
    sk.snd_una = sk.write_seq;
    sk.snd_sml = sk.write_seq;
    sk.snd_up = sk.write_seq;
    sk.snd_nxt = sk.write_seq;
    sk.urg_mode = false;
    if sk.repair.on {
        sk.rcv_tstamp = cx.now;
    } else {
        sk.rcv_nxt = 0;
    }
    sk.rcv_wup = sk.rcv_nxt;
    sk.copied_seq = sk.rcv_nxt;
    sk.rto_us = TCP_TIMEOUT_INIT_US;
    sk.retransmits = 0;
    tcp_clear_retrans(sk);
}

/// The route's congestion control takes the place of what the program chose (Linux `tcp_ca_dst_init`).
pub(crate) fn tcp_ca_dst_init(sk: &mut TcpSock) {
    let metrics = *sk.route_metrics();
    let Some(ca) = metrics.congctl.and_then(CongestionControl::by_name) else {
        return;
    };
    sk.ca_dst_locked = metrics.congctl_locked;
    if ca.name() != sk.ca.name() {
        sk.ca = ca;
    }
}

/// Flags with which the SYN offers ECN, if it does (RFC 3168 §6.1.1; Linux `tcp_ecn_send_syn`).
fn tcp_ecn_send_syn(sk: &mut TcpSock, cx: &Cx<'_, '_>) -> u8 {
    let offers = cx.sh.sysctl.tcp_ecn == ECN_OFFERED || sk.route_metrics().ecn;
    sk.ecn_flags = if offers { ecn::OK } else { 0 };
    if offers { tcphdr::ECE | tcphdr::CWR } else { 0 }
}

/// Forgets all about retransmissions (Linux `tcp_clear_retrans`).
pub fn tcp_clear_retrans(sk: &mut TcpSock) {
    sk.retrans_out = 0;
    sk.lost_out = 0;
    sk.undo_marker = 0;
    sk.undo_retrans = -1;
    sk.sacked_out = 0;
    sk.rto_stamp = 0;
    sk.info.total_rto = 0;
    sk.info.total_rto_recoveries = 0;
    sk.info.total_rto_time_ms = 0;
}

/// Sends the SYN and arms its timer. The state is SYN_SENT and `dst` is set already.
///
/// # Errors
/// `HostUnreach` when there is no route any more.
pub fn tcp_connect(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> Result<(), Error> {
    if !rebuild_header(sk, cx) {
        return Err(sk.sk_err_soft.take().unwrap_or(Error::HostUnreach));
    }
    tcp_connect_init(sk, cx);
    if sk.repair.on {
        // RP-12: the peer is connected already.
        tcp_finish_connect(sk, cx);
        return Ok(());
    }
    sk.retrans_stamp = tcp_time_stamp_ts(sk, cx.now).max(1);
    let flags = tcphdr::SYN | tcp_ecn_send_syn(sk, cx);
    let skb = tcp_init_nondata_skb(cx, sk.write_seq, flags);
    // Linux `tcp_connect_queue_skb`: straight to `rtx_queue`; it is sent below, and again by the timer if that fails.
    sk.write_seq = skb.end_seq;
    sk.wmem_queued += skb.truesize;
    sk.packets_out += skb.pcount();
    sk.rtx_queue.push_back(skb);
    let sent = if sk.fastopen_req.is_some() {
        tcp_send_syn_data(sk, cx)
    } else {
        tcp_transmit_skb(sk, cx, At::Rtx(0))
    };
    // A SYN's data that did not get out waits for the connection.
    let unsent = sk.write_queue.front().map(|skb| skb.seq);
    sk.snd_nxt = unsent.unwrap_or(sk.write_seq);
    sk.pushed_seq = sk.snd_nxt;
    cx.sh.mib.inc(Counter::ActiveOpens);
    // Until the answer comes the timer repeats it, also when it did not get out.
    let rto = u64::from(sk.rto_us);
    tcp_reset_xmit_timer(sk, cx, IcskPending::Retrans, rto, false);
    match sent {
        Err(XmitError::Unreachable | XmitError::NoRoute) => sk.sk_err_soft.map_or(Ok(()), Err),
        _ => Ok(()),
    }
}

/// Answers the SYN of a simultaneous open: our SYN again, now with ACK (Linux `tcp_send_synack`).
pub fn tcp_send_synack_sk(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let Some(head) = sk
        .rtx_queue
        .front_mut()
        .filter(|s| s.tcp_flags & tcphdr::SYN != 0)
    else {
        return;
    };
    head.tcp_flags |= tcphdr::ACK;
    // RFC 3168 §6.1.1; Linux `tcp_ecn_send_synack`.
    head.tcp_flags &= !tcphdr::CWR;
    if sk.ecn_flags & ecn::OK == 0 {
        head.tcp_flags &= !tcphdr::ECE;
    }
    // The retransmission timer of the SYN serves it as well.
    let _ = tcp_transmit_skb(sk, cx, At::Rtx(0));
}

/// Sends the SYN-ACK of a request sock. `fastopen` is a cookie to hand out; `ecn` accepts the peer's offer.
pub fn tcp_send_synack(
    sh: &mut Shared,
    net: &mut dyn Net,
    req: &RequestSock,
    fastopen: Option<FastOpen>,
    ecn: bool,
    now: Instant,
) -> Option<TxVerdict> {
    let mut flags = TcpFlags::SYN | TcpFlags::ACK;
    flags.set(TcpFlags::ECE, ecn);
    let tcp = TcpHeader {
        src_port: req.tuple.local.port(),
        dst_port: req.tuple.remote.port(),
        seq: req.snt_isn,
        ack_seq: req.rcv_nxt,
        flags,
        window: req.rsk_rcv_wnd.min(u32::from(u16::MAX)) as u16,
        urg_ptr: 0,
    };
    let options = TcpOptions {
        mss: Some(req.advmss),
        wscale: req.wscale_ok.then_some(req.rcv_wscale),
        sack_permitted: req.sack_ok,
        timestamps: req.tstamp_ok.then(|| (req.tsval(now), req.ts_recent)),
        fastopen,
        ..TcpOptions::default()
    };
    // Linux `ip_build_and_send_pkt`: what any way takes is not to be cut, and needs no identification.
    let total = IPV4_HEADER + TCP_HEADER + options.emitted_len();
    let df = total <= IPV4_MIN_MTU || dont_fragment(req.pmtudisc, &req.dst.metrics);
    let ip = IpFields {
        tos: req.tos,
        ttl: ttl(req.ttl, Some(&req.dst), &sh.sysctl),
        id: if df { 0 } else { req.snt_isn as u16 },
        df,
    };
    let headers = Headers::build(&req.tuple, &ip, &tcp, &options, 0)?;
    sh.mib.inc(Counter::OutSegs);
    Some(net.transmit(&Transmit {
        dst: &req.dst,
        daddr: req.tuple.remote.ip(),
        headers: headers.bytes(),
        l4_offset: headers.l4_offset,
        frags: &[],
        gso_size: 0,
        mark: req.mark,
        priority: req.priority,
        tstamp: None,
        txtime: None,
        sock: None,
    }))
}

#[cfg(test)]
mod tests;
