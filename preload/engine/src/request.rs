//! Handshakes of listeners: from SYN to child (Linux's `tcp_conn_request`, `tcp_check_req`, `tcp_create_openreq_child`).

use alloc::boxed::Box;
use core::cmp::Reverse;

use sidewire_uapi::tcp::TcpState;

use crate::data_queue::sk_data_ready;
use crate::fastopen::server::tcp_try_fastopen;
use crate::handshake::{tcp_ca_dst_init, tcp_send_synack};
use crate::header::{INET_ECN_MASK, tcp_time_stamp_ts};
use crate::input::{Verdict, now_s, tcp_segs_in};
use crate::isn::{secure_tcp_seq, secure_tcp_ts_off};
use crate::listen::RequestSock;
use crate::metrics::{MetricsKey, tcp_peer_is_proven};
use crate::mib::Counter;
use crate::mss::{dst_metric_advmss, tcp_header_len, tcp_mss_clamp, tcp_sync_mss};
use crate::net::FlowKey;
use crate::reply::tcp_send_reset;
use crate::rtt::tcp_synack_rtt_meas;
use crate::segment::Segment;
use crate::seq::after;
use crate::skb::tcphdr;
use crate::sock::{TcpSock, ecn};
use crate::sockopt::inherit;
use crate::stack::{Cx, Ehash, Io, RequestId, SocketId, Stack, TimerOwner};
use crate::state_process::{TCPOLEN_TSTAMP_ALIGNED, tcp_rcv_state_process};
use crate::sysctl::Sysctl;
use crate::time::{Instant, NSEC_PER_MSEC, NSEC_PER_SEC};
use crate::timer::{keepalive_time_when, retrans_elapsed_ms, tcp_reset_keepalive_timer};
use crate::window::{tcp_full_space, tcp_initialize_rcv_mss, tcp_select_initial_window};

use check::{Checked, tcp_check_req};

/// First timeout of a SYN-ACK, nanoseconds (TM-1, TM-4).
const TCP_TIMEOUT_INIT_NS: u64 = NSEC_PER_SEC;
/// Handshakes that a listener with a small backlog may have at a time. Linux answers with SYN cookies beyond the backlog;
/// here the state is kept instead, up to this bound.
pub const MIN_SYN_QUEUE: u32 = 256;
/// A queue of at most so many handshakes is never pruned early.
const SYN_QUEUE_YOUNG_MIN: u32 = 8;
/// Bytes of a TCP header without options.
const TCP_HEADER: u32 = 20;

/// MSS of a peer that sends no option (RFC 9293 §3.7.1).
pub(crate) const fn mss_absent(v6: bool) -> u16 {
    if v6 { 1220 } else { 536 }
}

/// How long to wait for the answer to the next SYN-ACK (Linux `tcp_reqsk_timeout`).
fn tcp_reqsk_timeout_ns(req: &RequestSock, sysctl: &Sysctl) -> u64 {
    let max = u64::from(sysctl.tcp_rto_max_ms) * NSEC_PER_MSEC;
    (TCP_TIMEOUT_INIT_NS << req.num_timeout.min(32)).min(max)
}

impl Stack {
    /// A segment for a listener that belongs to no connection. `isn`: it opens a TIME_WAIT connection anew.
    pub(crate) fn rx_listen(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        seg: &Segment,
        isn: Option<u32>,
    ) {
        if seg.rst() {
            return;
        }
        if seg.ack() {
            self.reset_stranger(io, seg);
            return;
        }
        if !seg.syn() || seg.fin() {
            self.sh.mib.inc(Counter::BadFlags);
            return;
        }
        if self.conn_request(io, id, seg, isn).is_none() {
            self.sh.mib.inc(Counter::ListenDrops);
        }
    }

    /// A SYN (Linux `tcp_conn_request`). `None` when it is dropped.
    fn conn_request(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        seg: &Segment,
        isn: Option<u32>,
    ) -> Option<()> {
        let sk = self.socks.get(id)?;
        let listen = sk.listen.as_ref()?;
        let bound = listen.backlog.max(MIN_SYN_QUEUE);
        let qlen = listen.qlen;
        if qlen >= bound && isn.is_none() {
            self.sh.mib.inc(Counter::TCPReqQFullDrop);
            return None;
        }
        if listen.accept_queue.len() > listen.backlog as usize {
            self.sh.mib.inc(Counter::ListenOverflows);
            return None;
        }
        let dst = io
            .net
            .route(&FlowKey {
                daddr: seg.tuple.remote.ip(),
                saddr: Some(seg.tuple.local.ip()),
                oif: sk.opts.bound_dev_if,
                mark: sk.opts.mark,
                tos: sk.opts.ip_tos & !3,
            })
            .ok()?;
        // It came by another device than the listener is bound to, and not by one of a VRF's: the kernel answers.
        let device = sk.opts.bound_dev_if;
        if device != 0 && ![device, dst.oif].contains(&seg.iif) {
            return Some(());
        }
        // The last quarter is for peers with which connections went well before.
        let max = self.sh.sysctl.tcp_max_syn_backlog;
        if qlen > max - (max >> 2) && isn.is_none() {
            let key = MetricsKey::of(&seg.tuple);
            if !tcp_peer_is_proven(&mut self.sh.metrics, &key, &dst.metrics, io.now) {
                return None;
            }
        }
        let req = new_request(sk, &self.sh.sysctl, seg, dst, id);
        let req = RequestSock {
            snt_isn: isn
                .unwrap_or_else(|| secure_tcp_seq(&self.sh.secrets, &seg.tuple, io.wall_ns)),
            ts_off: secure_tcp_ts_off(&self.sh.secrets, self.sh.sysctl.tcp_timestamps, &seg.tuple),
            usec_ts: req.dst.metrics.usec_ts,
            snt_synack: io.now,
            snt_synack_last: io.now,
            deadline: io.now + TCP_TIMEOUT_INIT_NS,
            saved_syn: (sk.opts.save_syn != 0)
                .then(|| seg.headers.clone())
                .flatten(),
            ..req
        };
        let listener = self.socks.get(id)?;
        let fastopen = tcp_try_fastopen(listener, &req.dst, &mut self.sh, seg);
        if fastopen.child {
            return self.tcp_fastopen_create_child(io, id, seg, req, fastopen.option);
        }
        // One that does not get out is sent again by the timer.
        let option = fastopen.option;
        tcp_send_synack(&mut self.sh, io.net, &req, option, req.ecn_ok, io.now);
        let (tuple, at) = (req.tuple, req.deadline);
        let req_id = self.reqs.insert(Box::new(req));
        self.hash(tuple, Ehash::Request(req_id));
        if let Some(listen) = self.socks.get_mut(id).and_then(|sk| sk.listen.as_mut()) {
            listen.qlen += 1;
            listen.young += 1;
        }
        self.queue_request(req_id, at);
        Some(())
    }

    fn queue_request(&mut self, id: RequestId, at: Instant) {
        if let Some(req) = self.reqs.get_mut(id) {
            req.deadline = at;
            if at < req.timer_queued {
                req.timer_queued = at;
                self.heap.push(Reverse((at, TimerOwner::Request(id))));
                self.trim_heap();
            }
        }
    }

    /// The handshake ends without a child, or has become one (Linux `inet_csk_reqsk_queue_drop`). The caller looks
    /// after the table of connections.
    fn take_request(&mut self, id: RequestId) -> Option<Box<RequestSock>> {
        let req = self.reqs.remove(id)?;
        if let Some(listen) = self
            .socks
            .get_mut(req.listener)
            .and_then(|sk| sk.listen.as_mut())
        {
            listen.qlen = listen.qlen.saturating_sub(1);
            if req.num_timeout == 0 {
                listen.young = listen.young.saturating_sub(1);
            }
        }
        Some(req)
    }

    /// Forgets a handshake.
    pub(crate) fn drop_request(&mut self, id: RequestId) {
        if let Some(req) = self.take_request(id) {
            self.unhash(&req.tuple);
            if req.held {
                self.released.push(req.tuple);
            }
        }
    }

    /// Sends a SYN-ACK again (Linux `inet_rtx_syn_ack`).
    fn rtx_syn_ack(&mut self, io: &mut Io<'_>, id: RequestId) {
        let Some(req) = self.reqs.get_mut(id) else {
            return;
        };
        req.snt_synack_last = io.now;
        if tcp_send_synack(&mut self.sh, io.net, req, None, req.ecn_ok, io.now).is_some() {
            self.sh.mib.inc(Counter::RetransSegs);
            req.num_retrans = req.num_retrans.saturating_add(1);
        }
    }

    /// An entry of the heap for a handshake is due (Linux `reqsk_timer_handler`).
    pub(crate) fn reqsk_timer(&mut self, io: &mut Io<'_>, id: RequestId) {
        let Some(req) = self.reqs.get_mut(id) else {
            return;
        };
        req.timer_queued = Instant::NEVER;
        if req.deadline > io.now {
            let at = req.deadline;
            self.queue_request(id, at);
            return;
        }
        let (num_timeout, acked, listener) = (req.num_timeout, req.acked, req.listener);
        let Some((sk, listen)) = self
            .socks
            .get_mut(listener)
            .and_then(|sk| Some((sk.opts.clone(), sk.listen.as_mut()?)))
        else {
            self.drop_request(id);
            return;
        };
        let mut max_retries = match sk.syncnt {
            0 => self.sh.sysctl.tcp_synack_retries,
            n => n,
        };
        // A queue more than half full prefers the young: the old retry less.
        if listen.qlen << 1 > listen.backlog.max(SYN_QUEUE_YOUNG_MIN) {
            let mut young = listen.young << 1;
            while max_retries > 2 && listen.qlen >= young {
                max_retries -= 1;
                young <<= 1;
                if young == 0 {
                    max_retries = 2;
                }
            }
        }
        let defer = sk.defer_accept;
        let (expire, resend) = if defer == 0 {
            (num_timeout >= max_retries, true)
        } else {
            (
                num_timeout >= max_retries && (!acked || num_timeout >= defer),
                !acked || num_timeout >= defer.saturating_sub(1),
            )
        };
        if expire {
            self.sh.mib.inc(Counter::TCPTimeouts);
            self.drop_request(id);
            return;
        }
        if num_timeout == 0 {
            listen.young = listen.young.saturating_sub(1);
        }
        if resend {
            self.rtx_syn_ack(io, id);
        }
        if let Some(req) = self.reqs.get_mut(id) {
            req.num_timeout += 1;
            let at = io.now + tcp_reqsk_timeout_ns(req, &self.sh.sysctl);
            self.queue_request(id, at);
        }
    }

    /// A segment for a handshake (Linux `tcp_check_req`). Returns the child when it made one; the segment has then been
    /// given to it.
    pub(crate) fn rx_request(&mut self, io: &mut Io<'_>, id: RequestId, seg: &mut Segment) {
        let Some(req) = self.reqs.get_mut(id) else {
            return;
        };
        match tcp_check_req(&mut self.sh, io.net, io.now, req, seg, None) {
            Checked::SynAgain => {
                let at = io.now + tcp_reqsk_timeout_ns(req, &self.sh.sysctl);
                self.rtx_syn_ack(io, id);
                self.queue_request(id, at);
                return;
            }
            Checked::Done => return,
            Checked::Over => {
                self.sh.mib.inc(Counter::EmbryonicRsts);
                if !seg.rst() {
                    tcp_send_reset(&mut self.sh, io.net, seg);
                }
                self.drop_request(id);
                return;
            }
            Checked::Ack => {}
        }
        let listener = req.listener;
        let (num_timeout, bare) = (req.num_timeout, seg.end_seq == req.rcv_isn.wrapping_add(1));
        let Some(sk) = self.socks.get(listener).filter(|sk| sk.listen.is_some()) else {
            self.drop_request(id);
            return;
        };
        // TCP_DEFER_ACCEPT: the ack counts when data comes with it (ER-69).
        if num_timeout < sk.opts.defer_accept && bare {
            if let Some(req) = self.reqs.get_mut(id) {
                req.acked = true;
            }
            self.sh.mib.inc(Counter::TCPDeferAcceptDrop);
            return;
        }
        let full = sk
            .listen
            .as_ref()
            .is_some_and(|l| l.accept_queue.len() > l.backlog as usize);
        if full {
            self.sh.mib.inc(Counter::ListenOverflows);
            self.sh.mib.inc(Counter::ListenDrops);
            if self.sh.sysctl.tcp_abort_on_overflow {
                tcp_send_reset(&mut self.sh, io.net, seg);
                self.drop_request(id);
            } else if let Some(req) = self.reqs.get_mut(id) {
                req.acked = true;
            }
            return;
        }
        self.make_child(io, id, listener, seg);
    }

    /// The handshake is complete: a child, in the accept queue.
    fn make_child(
        &mut self,
        io: &mut Io<'_>,
        req_id: RequestId,
        listener: SocketId,
        seg: &mut Segment,
    ) {
        let Some(mut req) = self.take_request(req_id) else {
            return;
        };
        // An ack that makes no child leaves the SYN's (Linux `tcp_check_req`).
        if let Some((tsval, _)) = seg.opts.timestamps
            && req.tstamp_ok
            && !after(seg.seq, req.rcv_nxt)
        {
            req.ts_recent = tsval;
        }
        let Some(parent) = self.socks.get(listener) else {
            self.unhash(&req.tuple);
            return;
        };
        let mut child = openreq_child(parent, &req, seg, &self.sh.sysctl, io.now);
        child.held = req.held;
        let child_id = self.socks.insert(Box::new(child));
        self.hash(req.tuple, Ehash::Sock(child_id));
        if let Some(listen) = self
            .socks
            .get_mut(listener)
            .and_then(|sk| sk.listen.as_mut())
        {
            listen.accept_queue.push_back(child_id);
        }
        self.sh.mib.inc(Counter::PassiveOpens);
        let Some((sk, mut cx)) = self.borrow_bh(io, child_id) else {
            return;
        };
        init_child(sk, &mut cx, &req);
        // Karn: a SYN-ACK that was re-sent says nothing about the RTT; its timestamp does, when the segment is read.
        if req.num_retrans == 0 {
            tcp_synack_rtt_meas(sk, &cx, Some(req.snt_synack));
        }
        tcp_segs_in(sk, seg);
        let verdict = tcp_rcv_state_process(sk, &mut cx, seg);
        let open = sk.state != TcpState::SynRecv;
        if verdict == Verdict::Reset {
            tcp_send_reset(cx.sh, cx.net, seg);
        }
        self.join_batch(child_id);
        self.settle(child_id);
        if open && let Some((sk, mut cx)) = self.borrow_bh(io, listener) {
            sk_data_ready(sk, &mut cx);
        }
    }
}

/// What a SYN offers and what the listener's options make of it (Linux `tcp_openreq_init`, `tcp_openreq_init_rwin`).
fn new_request(
    sk: &TcpSock,
    sysctl: &Sysctl,
    seg: &Segment,
    dst: crate::net::Dst,
    listener: SocketId,
) -> RequestSock {
    let v6 = seg.tuple.local.is_ipv6();
    let headers = if v6 { 40 } else { 20 };
    let tstamp_ok = seg.opts.timestamps.is_some() && sysctl.tcp_timestamps != 0;
    let wscale_ok = seg.opts.wscale.is_some() && sysctl.tcp_window_scaling;
    let advmss = tcp_mss_clamp(sk.opts.maxseg, dst_metric_advmss(&dst, headers));
    let full_space = tcp_full_space(sk);
    let metrics = dst.metrics;
    let mut window_clamp = match sk.opts.window_clamp {
        0 => metrics.window,
        clamp => clamp,
    };
    if sk.opts.buf_lock_rcv && (window_clamp == 0 || window_clamp > full_space.max(0) as u32) {
        window_clamp = full_space.max(0) as u32;
    }
    let mss = u32::from(advmss)
        - if tstamp_ok {
            u32::from(TCPOLEN_TSTAMP_ALIGNED)
        } else {
            0
        };
    let initial = tcp_select_initial_window(
        sysctl,
        full_space,
        mss,
        window_clamp,
        wscale_ok,
        metrics.initrwnd,
    );
    // ECN is accepted from who offers it (`tcp_ecn` 1 and 2; RFC 3168 §6.1.1).
    let offers_ecn = seg.flags & (tcphdr::ECE | tcphdr::CWR) == tcphdr::ECE | tcphdr::CWR;
    RequestSock {
        tuple: seg.tuple,
        v6,
        listener,
        rcv_isn: seg.seq,
        snt_isn: 0,
        rcv_nxt: seg.seq.wrapping_add(1),
        mss: tcp_mss_clamp(sk.opts.maxseg, seg.opts.mss.unwrap_or(mss_absent(v6))),
        advmss,
        rsk_rcv_wnd: initial.rcv_wnd,
        rsk_window_clamp: initial.window_clamp,
        snd_wnd: seg.window,
        wscale_ok,
        snd_wscale: if wscale_ok {
            seg.opts.wscale.unwrap_or(0)
        } else {
            0
        },
        rcv_wscale: if wscale_ok { initial.rcv_wscale } else { 0 },
        sack_ok: seg.opts.sack_permitted && sysctl.tcp_sack,
        tstamp_ok,
        ts_recent: seg.opts.timestamps.map_or(0, |(tsval, _)| tsval),
        ts_off: 0,
        usec_ts: false,
        ecn_ok: offers_ecn && (sysctl.tcp_ecn != 0 || metrics.ecn) && seg.tos & 3 == 0,
        snt_synack: Instant::ZERO,
        snt_synack_last: Instant::ZERO,
        num_retrans: 0,
        num_timeout: 0,
        acked: false,
        deadline: Instant::NEVER,
        timer_queued: Instant::NEVER,
        last_oow_ack_time: Instant::ZERO,
        dst,
        tos: if sysctl.tcp_reflect_tos {
            seg.tos & !INET_ECN_MASK | sk.opts.ip_tos & INET_ECN_MASK
        } else {
            sk.opts.ip_tos
        },
        ttl: sk.opts.ip_ttl,
        pmtudisc: sk.opts.ip_mtu_discover,
        mark: sk.opts.mark,
        priority: sk.opts.priority,
        held: false,
        saved_syn: None,
    }
}

/// A socket in SYN_RECV with the listener's settings (SO-41) and what the handshake agreed on.
pub(crate) fn openreq_child(
    parent: &TcpSock,
    req: &RequestSock,
    seg: &Segment,
    sysctl: &Sysctl,
    now: Instant,
) -> TcpSock {
    let mut sk = TcpSock::new(req.v6, 0, sysctl);
    sk.opts = inherit(&parent.opts);
    sk.opts.defer_accept = 0;
    sk.opts.fastopen_qlen = 0;
    if sysctl.tcp_reflect_tos {
        sk.opts.ip_tos = req.tos & !INET_ECN_MASK;
    }
    sk.nonagle = parent.nonagle;
    sk.ca = parent.ca.fresh();
    sk.rcvbuf = parent.rcvbuf;
    sk.sndbuf = parent.sndbuf;
    sk.parent = Some(req.listener);
    // Linux sk_clone; what was shut before the parent listened (ER-84).
    sk.shutdown = parent.shutdown;
    sk.state = TcpState::SynRecv;
    // The SYN.
    sk.info.segs_in = 1;
    sk.tuple = req.tuple;
    sk.hashed = true;
    sk.bound_addr = parent.bound_addr;
    sk.bound_port = parent.bound_port;
    sk.dst = Some(req.dst);
    tcp_ca_dst_init(&mut sk);

    let next = req.snt_isn.wrapping_add(1);
    sk.iss = req.snt_isn;
    sk.snd_una = next;
    sk.snd_nxt = next;
    sk.snd_up = next;
    sk.snd_sml = next;
    sk.write_seq = next;
    sk.pushed_seq = next;
    sk.irs = req.rcv_isn;
    sk.rcv_nxt = req.rcv_nxt;
    sk.rcv_wup = req.rcv_nxt;
    sk.copied_seq = req.rcv_nxt;
    sk.snd_wl1 = req.rcv_isn;
    sk.info.segs_in = 1;
    sk.ack.lrcvtime = now;
    sk.lsndtime = now;
    sk.info.total_retrans = u32::from(req.num_retrans);

    sk.tstamp_ok = req.tstamp_ok;
    sk.tcp_header_len = tcp_header_len(req.tstamp_ok);
    sk.sack_ok = req.sack_ok;
    sk.wscale_ok = req.wscale_ok;
    sk.snd_wscale = req.snd_wscale;
    sk.rcv_wscale = req.rcv_wscale;
    sk.window_clamp = req.rsk_window_clamp;
    sk.rcv_ssthresh = req.rsk_rcv_wnd;
    sk.rcv_wnd = req.rsk_rcv_wnd;
    sk.snd_wnd = u32::from(seg.window) << sk.snd_wscale;
    sk.max_window = sk.snd_wnd;
    if req.tstamp_ok {
        sk.ts_recent = req.ts_recent;
        sk.ts_recent_stamp = now_s(now);
    }
    sk.tsoffset = req.ts_off;
    sk.tcp_usec_ts = req.usec_ts;
    if req.num_timeout > 0 {
        sk.undo_marker = req.snt_isn;
        sk.retrans_stamp = tcp_time_stamp_ts(&sk, req.snt_synack);
        sk.info.total_rto = u16::from(req.num_timeout);
        sk.info.total_rto_recoveries = 1;
        sk.info.total_rto_time_ms = retrans_elapsed_ms(&sk, now);
    }
    if seg.len >= crate::init_sock::TCP_MSS_DEFAULT + TCP_HEADER {
        sk.ack.last_seg_size = seg.len;
    }
    sk.mss_clamp = req.mss;
    sk.advmss = req.advmss;
    if req.ecn_ok {
        sk.ecn_flags = ecn::OK;
    }
    sk.saved_syn = req.saved_syn.clone();
    sk
}

/// The rest of a child's first values, which need its surroundings (Linux `tcp_v4_syn_recv_sock`).
pub(crate) fn init_child(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, req: &RequestSock) {
    sk.ip_id = cx.jitter(u32::from(u16::MAX)) as u16;
    tcp_sync_mss(sk, cx, req.dst.mtu);
    tcp_initialize_rcv_mss(sk);
    if sk.opts.keepalive {
        let idle = keepalive_time_when(sk, cx);
        tcp_reset_keepalive_timer(sk, cx, idle);
    }
}

pub(crate) mod check;
#[cfg(test)]
mod tests;
