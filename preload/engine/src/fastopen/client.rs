//! The side that connects: MSG_FASTOPEN and TCP_FASTOPEN_CONNECT.

use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sidewire_uapi::socket as so;
use sidewire_uapi::tcp::TcpState;
use sidewire_wire::tcp_options::FastOpen;

use super::{
    FastopenReq, MAX_TCP_OPTION_SPACE, TFO_CLIENT_ENABLE, TFO_CLIENT_NO_COOKIE, client_fail,
};
use crate::calls::ConnectCall;
use crate::error::Error;
use crate::handshake::tcp_connect;
use crate::memory::{Frag, IovIter};
use crate::metrics::MetricsKey;
use crate::mib::Counter;
use crate::mss::{net_header_len, tcp_mss_clamp, tcp_sync_mss};
use crate::net::{FlowKey, RouteMetrics};
use crate::output::{At, ChronoKind, XmitError, tcp_chrono_start, tcp_transmit_skb};
use crate::page_frag;
use crate::recovery::{tcp_mark_skb_lost, tcp_non_congestion_loss_retransmit};
use crate::segment::Segment;
use crate::sendmsg::{Exit, NameArg, SendCall};
use crate::skb::{SKB_TRUESIZE, tcphdr};
use crate::sock::TcpSock;
use crate::stack::{Cx, Io, Shared, SocketId, Stack, Step};
use crate::time::Instant;
use crate::zerocopy;

/// TCP header without options.
const TCP_HEADER: u32 = 20;
/// Lengths of `sockaddr_in` and of the first `sockaddr_in6`.
const SOCKADDR_IN: usize = 16;
const SOCKADDR_IN6: usize = 24;

fn family(name: NameArg<'_>) -> Option<u16> {
    Some(u16::from_ne_bytes(*name.0.first_chunk()?))
}

/// `msg_name` as an address for connect (FO-5..FO-8).
fn address(name: Option<NameArg<'_>>, v6: bool) -> Result<SocketAddr, Error> {
    let name = name.ok_or(Error::Inval)?;
    let family = family(name).ok_or(Error::Inval)?;
    let bytes = name.0;
    let (want, len) = if v6 {
        (so::AF_INET6, SOCKADDR_IN6)
    } else {
        (so::AF_INET, SOCKADDR_IN)
    };
    if bytes.len() < len {
        return Err(Error::Inval);
    }
    if family != want {
        return Err(Error::AfNoSupport);
    }
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    let ip = if v6 {
        let octets: [u8; 16] = bytes[8..24].try_into().unwrap_or_default();
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    } else {
        IpAddr::V4(Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]))
    };
    Ok(SocketAddr::new(ip, port))
}

/// May data go out in the SYN, and with which option? (Linux `tcp_fastopen_cookie_check`)
struct CookieCheck {
    data: bool,
    option: Option<FastOpen>,
    /// The peer's MSS when it is known.
    mss: u16,
}

fn tcp_fastopen_cookie_check(
    sk: &TcpSock,
    sh: &Shared,
    (key, route): (MetricsKey, &RouteMetrics),
    now: Instant,
) -> CookieCheck {
    let (mss, cookie) = sh.metrics.cookie(&key);
    let (data, option) = if sh.blackhole.disabled(&sh.sysctl, now) {
        (false, None)
    } else if sh.sysctl.tcp_fastopen & TFO_CLIENT_NO_COOKIE != 0
        || sk.opts.fastopen_no_cookie
        || route.fastopen_no_cookie
    {
        (true, None)
    } else {
        (!cookie.is_request(), Some(cookie))
    };
    CookieCheck { data, option, mss }
}

/// TCP_FASTOPEN_CONNECT with a cookie at hand: the SYN waits for the first data (FO-35). Without one, the SYN asks for it
/// (FO-36; Linux `tcp_fastopen_defer_connect`).
pub(crate) fn tcp_fastopen_defer_connect(sk: &mut TcpSock, cx: &Cx<'_, '_>) -> bool {
    if !sk.opts.fastopen_connect || sk.fastopen_req.is_some() || sk.repair.on {
        return false;
    }
    let to = (MetricsKey::of(&sk.tuple), sk.route_metrics());
    let check = tcp_fastopen_cookie_check(sk, cx.sh, to, cx.now);
    sk.defer_connect = check.data;
    if !check.data {
        sk.fastopen_req = Some(Box::default());
    }
    check.data
}

impl Stack {
    /// Where a send with MSG_FASTOPEN and this `msg_name` would connect to. The caller then does first what it does before
    /// [`Stack::connect`]: binds the shadow, takes a holder. `None` where the send does not come to that, and answers by
    /// itself (FO-1..FO-11).
    #[must_use]
    pub fn fastopen_connects_to(&self, id: SocketId, name: NameArg<'_>) -> Option<SocketAddr> {
        let sk = self.socks.get(id)?;
        let runs = self.sh.sysctl.tcp_fastopen & TFO_CLIENT_ENABLE != 0
            && !sk.repair.on
            && sk.fastopen_req.is_none();
        if !runs || !self.connect_is_fresh(id) {
            return None;
        }
        address(Some(name), sk.v6).ok()
    }

    /// B5 (Linux `tcp_sendmsg_fastopen`): connects with the first of the data in the SYN.
    pub(crate) fn tcp_sendmsg_fastopen(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut SendCall<'_>,
        iter: &mut dyn IovIter,
    ) -> Result<(), Exit> {
        let mut connect = match call.progress.fastopen.connect.take() {
            Some(connect) => connect,
            None => self
                .begin_fastopen(io, id, call, iter)
                .map_err(Exit::OutErr)?,
        };
        connect.signal = call.signal;
        let peer = self.socks.get(id).map(|sk| sk.tuple.remote);
        let remote = call.progress.fastopen.remote.or(peer);
        let remote = remote.ok_or(Exit::OutErr(Error::BadFd))?;
        let nonblock = call.has(so::MSG_DONTWAIT);
        let step = if is_short(call.name) {
            Step::Ready(Err(Error::Inval))
        } else {
            self.connect(io, id, remote, nonblock, &mut connect)
        };
        self.return_unsent(id, call, iter);
        match step {
            Step::Wait { reason, deadline } => {
                call.progress.fastopen.connect = Some(connect);
                Err(Exit::WaitUntil(reason, deadline))
            }
            Step::Ready(r) => {
                let copied = self.end_fastopen(id);
                call.progress.copied_syn = copied;
                match r {
                    Err(Error::InProgress) if copied > 0 => Err(Exit::Out),
                    Err(e) => {
                        let sndtimeo = self.socks.get(id).and_then(|sk| sk.opts.sndtimeo);
                        call.restartable = e == Error::Intr && sndtimeo.is_none();
                        Err(Exit::OutErr(e))
                    }
                    Ok(()) => Ok(()),
                }
            }
        }
    }

    /// Checks, and everything that the SYN will need (FO-2..FO-8).
    fn begin_fastopen(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut SendCall<'_>,
        iter: &mut dyn IovIter,
    ) -> Result<ConnectCall, Error> {
        let fresh = self.connect_is_fresh(id);
        let (sk, mut cx) = self.borrow(io, id).ok_or(Error::BadFd)?;
        let unspec = call.name.and_then(family) == Some(so::AF_UNSPEC);
        if cx.sh.sysctl.tcp_fastopen & TFO_CLIENT_ENABLE == 0 || unspec {
            return Err(Error::OpNotSupp);
        }
        if sk.fastopen_req.is_some() {
            return Err(Error::Already);
        }
        let connect = ConnectCall {
            sendmsg: true,
            ..ConnectCall::default()
        };
        let progress = &mut call.progress.fastopen;
        // A deferred SYN leaves before connect looks at the name.
        if is_short(call.name) && !sk.defer_connect {
            return Err(Error::Inval);
        }
        if fresh {
            progress.remote = Some(address(call.name, sk.v6)?);
            if sk.tuple.local.port() == 0 {
                return Err(Error::AddrNotAvail);
            }
        } else if !sk.defer_connect {
            if sk.state == TcpState::SynSent {
                resume_fastopen(sk, iter.remaining());
            }
            return Ok(connect);
        }
        let peer = progress.remote.unwrap_or(sk.tuple.remote).ip();
        let size = iter.remaining();
        let data = syn_payload(sk, &mut cx, peer, iter);
        progress.syn_taken = data.as_ref().map_or(0, |f| f.len);
        sk.fastopen_req = Some(Box::new(FastopenReq {
            data,
            size,
            uarg: call.progress.uarg,
            ..FastopenReq::default()
        }));
        if sk.defer_connect && tcp_connect(sk, &mut cx).is_err() {
            sk.state = TcpState::Close;
        }
        self.settle(id);
        Ok(connect)
    }

    /// What was read from the program and did not go into the SYN is the program's again.
    fn return_unsent(&mut self, id: SocketId, call: &mut SendCall<'_>, iter: &mut dyn IovIter) {
        let taken = core::mem::take(&mut call.progress.fastopen.syn_taken);
        if taken == 0 {
            return;
        }
        let req = self
            .socks
            .get_mut(id)
            .and_then(|sk| sk.fastopen_req.as_mut());
        let copied = req.map_or(0, |r| {
            r.data = None;
            r.copied
        });
        iter.revert((taken - copied) as usize);
    }

    /// The request is over; answers how much went out with the SYN.
    fn end_fastopen(&mut self, id: SocketId) -> usize {
        let Some(sk) = self.socks.get_mut(id) else {
            return 0;
        };
        let Some(req) = sk.fastopen_req.take() else {
            return 0;
        };
        sk.defer_connect = false;
        req.copied as usize
    }
}

/// Does the name lack its family?
fn is_short(name: Option<NameArg<'_>>) -> bool {
    name.is_some_and(|name| name.0.len() < 2)
}

/// Payload bytes of a SYN towards a route of that MTU (FO-21).
fn syn_space(sk: &TcpSock, mtu: u32, headers: u32, mss_clamp: u16, min_snd_mss: u32) -> u32 {
    let clamp = tcp_mss_clamp(sk.opts.maxseg, mss_clamp);
    mtu.saturating_sub(headers + TCP_HEADER)
        .min(clamp.into())
        .max(min_snd_mss)
        .saturating_sub(MAX_TCP_OPTION_SPACE)
}

/// The program's first bytes, as many as the SYN could take; none where a SYN will carry none.
fn syn_payload(
    sk: &TcpSock,
    cx: &mut Cx<'_, '_>,
    peer: IpAddr,
    iter: &mut dyn IovIter,
) -> Option<Frag> {
    let local = sk.tuple.local.ip();
    let dst = cx
        .net
        .route(&FlowKey {
            daddr: peer,
            saddr: Some(local).filter(|ip| !ip.is_unspecified()),
            oif: sk.opts.bound_dev_if,
            mark: sk.opts.mark,
            tos: sk.opts.ip_tos & !3,
        })
        .ok()?;
    let key = MetricsKey {
        saddr: dst.saddr,
        daddr: peer,
    };
    let to = (key, &dst.metrics);
    if !tcp_fastopen_cookie_check(sk, cx.sh, to, cx.now).data {
        return None;
    }
    let headers = if peer.is_ipv6() { 40 } else { 20 };
    let space = syn_space(sk, dst.mtu, headers, u16::MAX, cx.sh.sysctl.tcp_min_snd_mss);
    let pfrag = page_frag::refill(&mut cx.sh.page_frag, cx.mem)?;
    let len = space
        .min(pfrag.left())
        .min(u32::try_from(iter.remaining()).unwrap_or(u32::MAX));
    if len == 0 {
        return None;
    }
    let len = iter.copy_in_readable(&pfrag.mem, pfrag.off, len);
    if len == 0 {
        return None;
    }
    let frag = pfrag.frag(len);
    pfrag.off += len;
    Some(frag)
}

/// Sends the first SYN of a fast open, which stands at the head of `rtx_queue`: with data, with a cookie, or with a request
/// for one (Linux `tcp_send_syn_data`).
pub(crate) fn tcp_send_syn_data(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> Result<(), XmitError> {
    sk.mss_clamp = sk.advmss;
    let to = (MetricsKey::of(&sk.tuple), sk.route_metrics());
    let check = tcp_fastopen_cookie_check(sk, cx.sh, to, cx.now);
    if check.mss != 0 {
        sk.mss_clamp = check.mss;
    }
    sk.syn_fastopen_ch |= cx.sh.blackhole.was_disabled() && check.option.is_some();
    if !check.data && check.option.is_some() {
        sk.fastopen_client_fail = client_fail::COOKIE_UNAVAILABLE;
    }
    let with_data = check.data && queue_syn_data(sk, cx);
    if let Some(req) = &mut sk.fastopen_req {
        req.all_in_syn = check.data && req.copied as usize == req.size;
    }
    set_option(sk, check.option);
    let mut sent = Ok(());
    if with_data {
        sent = tcp_transmit_skb(sk, cx, At::Rtx(1));
        syn_data_left(sk, sent.is_ok());
    }
    if !with_data || sent.is_err() {
        // Where there is a cookie, and no data went with it, one is asked for.
        if let Some(cookie) = check.option.filter(|_| check.data) {
            set_option(sk, Some(FastOpen::request(cookie.experimental)));
        }
        sent = tcp_transmit_skb(sk, cx, At::Rtx(0));
        if sent.is_err() {
            sk.syn_fastopen = false;
        }
    }
    // Retransmissions of the SYN carry no option (FO-22).
    if let Some(req) = &mut sk.fastopen_req {
        req.cookie = None;
    }
    sent
}

/// A fast open that a signal interrupted is made again: its request is a new one, with which the SYN, when it is sent again,
/// asks for a cookie.
fn resume_fastopen(sk: &mut TcpSock, size: usize) {
    sk.fastopen_req = Some(Box::new(FastopenReq {
        size,
        ..FastopenReq::default()
    }));
    set_option(sk, Some(FastOpen::request(false)));
}

fn set_option(sk: &mut TcpSock, option: Option<FastOpen>) {
    if let Some(req) = &mut sk.fastopen_req {
        req.cookie = option;
        sk.syn_fastopen = option.is_some();
        sk.syn_fastopen_exp = option.is_some_and(|o| o.experimental);
    }
}

/// Puts a second SYN with the data behind the first; false when there is none.
fn queue_syn_data(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    sk.mss_clamp = tcp_mss_clamp(sk.opts.maxseg, sk.mss_clamp);
    let pmtu = sk.pmtu_cookie;
    tcp_sync_mss(sk, cx, pmtu);
    let min = cx.sh.sysctl.tcp_min_snd_mss;
    let space = syn_space(sk, pmtu, net_header_len(sk), sk.mss_clamp, min);
    let Some(req) = &mut sk.fastopen_req else {
        return false;
    };
    // Without data there is an empty buffer beside the SYN's, and counts.
    let frag = match req.data.take() {
        Some(mut data) if space > 0 => Some(data.split_to(data.len.min(space))),
        None if req.size > 0 => return false,
        _ => None,
    };
    let (len, uarg) = (frag.as_ref().map_or(0, |f| f.len), req.uarg);
    req.copied = len;
    let syn_flags = sk.rtx_queue.front().map_or(tcphdr::SYN, |s| s.tcp_flags);
    let mut skb = cx.sh.pool.alloc();
    skb.seq = sk.iss;
    skb.end_seq = sk.iss.wrapping_add(1 + len);
    skb.tcp_flags = syn_flags;
    skb.truesize = SKB_TRUESIZE + len;
    if let Some(frag) = frag {
        skb.push_frag(frag);
    }
    if let Some(uarg) = uarg {
        // ZC-12, ZC-43: the SYN's bytes were copied.
        skb.ubuf = Some(uarg);
        zerocopy::mark_copied(sk, uarg);
        zerocopy::attach(&mut sk.zerocopy, uarg, skb.end_seq);
    }
    sk.write_seq = skb.end_seq;
    sk.wmem_queued += skb.truesize;
    sk.packets_out += 1;
    sk.rtx_queue.push_back(skb);
    if len > 0 {
        tcp_chrono_start(sk, cx, ChronoKind::Busy);
    }
    true
}

/// The SYN with data left, or not. What stays in the queues is a SYN without data and data without SYN, so that each can be
/// acked and sent again by itself.
fn syn_data_left(sk: &mut TcpSock, sent: bool) {
    let Some(mut skb) = sk.rtx_queue.pop_back() else {
        return;
    };
    skb.seq = skb.seq.wrapping_add(1);
    skb.tcp_flags = tcphdr::ACK | tcphdr::PSH;
    if sent {
        sk.syn_data = skb.len > 0;
        if let Some(syn) = sk.rtx_queue.front_mut() {
            syn.skb_mstamp = skb.skb_mstamp;
            syn.tx = skb.tx;
        }
        sk.rtx_queue.push_back(skb);
    } else {
        sk.packets_out -= 1;
        sk.write_queue.push_front(skb);
    }
}

/// The answer to a fast open's SYN (Linux `tcp_rcv_fastopen_synack`). True when the SYN's data was not taken: it has been
/// sent again, and that carries the ack.
pub(crate) fn tcp_rcv_fastopen_synack(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    seg: &Segment,
) -> bool {
    let cookie = seg.opts.fastopen.filter(|_| sk.syn_fastopen);
    let data_left = sk.syn_data && !sk.rtx_queue.is_empty();
    let retrans = sk.info.total_retrans > 0;
    let mut syn_drop = false;
    let mut try_exp = 0;
    if sk.syn_fastopen {
        if retrans {
            syn_drop = cookie.is_none() && data_left;
        } else if cookie.is_none() && !sk.syn_data {
            try_exp = if sk.syn_fastopen_exp { 2 } else { 1 };
        }
    }
    let mss = seg.opts.mss.unwrap_or(sk.mss_clamp);
    if let Some(dst) = &sk.dst {
        let to = (&MetricsKey::of(&sk.tuple), &dst.metrics);
        cx.sh
            .metrics
            .set_cookie(to, mss, cookie, syn_drop, try_exp, cx.now);
    }
    if data_left {
        for i in 0..sk.rtx_queue.len() {
            tcp_mark_skb_lost(sk, cx, i);
        }
        sk.fastopen_client_fail = if retrans {
            client_fail::SYN_RETRANSMITTED
        } else {
            client_fail::DATA_NOT_ACKED
        };
        cx.sh.mib.inc(Counter::TCPFastOpenActiveFail);
        tcp_non_congestion_loss_retransmit(sk, cx);
        return true;
    }
    sk.syn_data_acked = sk.syn_data;
    if sk.syn_data_acked {
        cx.sh.mib.inc(Counter::TCPFastOpenActive);
        // The SYN and its data count as one.
        sk.delivered = sk.delivered.saturating_sub(u32::from(sk.delivered > 1));
    }
    false
}

/// A timeout of a connection that began with a fast open hints at a middlebox that swallows it
/// (Linux `tcp_fastopen_active_detect_blackhole`).
pub(crate) fn detect_blackhole(sk: &TcpSock, cx: &mut Cx<'_, '_>, expired: bool) {
    let fastopen = sk.syn_fastopen || sk.syn_data || sk.syn_data_acked;
    if fastopen && (sk.retransmits == 2 || (sk.retransmits < 2 && expired)) {
        let sysctl = &cx.sh.sysctl;
        cx.sh.blackhole.disable(sysctl, cx.now);
    }
}

/// The end of a socket that began with a fast open: nothing but a FIN that is out of order hints at a middlebox, too; data
/// says that there is none (Linux `tcp_fastopen_active_disable_ofo_check`).
pub(crate) fn tcp_fastopen_active_disable_ofo_check(sk: &TcpSock, cx: &mut Cx<'_, '_>) {
    if !sk.syn_fastopen {
        return;
    }
    if sk.info.data_segs_in > 0 {
        if sk.syn_fastopen_ch {
            cx.sh.blackhole.worked();
        }
    } else if sk.ofo_queue.len() == 1 && sk.ofo_queue[0].fin {
        let sysctl = &cx.sh.sysctl;
        cx.sh.blackhole.disable(sysctl, cx.now);
    }
}
