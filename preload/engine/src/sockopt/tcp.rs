//! SOL_TCP (SO-42..SO-73).

use sidewire_uapi::TcpState;
use sidewire_uapi::tcp as t;

use super::{Out, int, int_in, zero_or_one};
use crate::cong::{self, CongestionControl};
use crate::delack::{
    inet_csk_ack_scheduled, inet_csk_enter_pingpong_mode, inet_csk_in_pingpong_mode,
    tcp_cleanup_rbuf,
};
use crate::error::Error;
use crate::fastopen::{self, TFO_CLIENT_ENABLE};
use crate::header::tsval;
use crate::info::tcp_get_info;
use crate::output::tcp_push_pending_frames;
use crate::push::sk_stream_write_space;
use crate::rcvbuf::tcp_set_window_clamp;
use crate::repair;
use crate::sock::{TcpSock, icsk_ack, nagle};
use crate::stack::{Caps, Cx};
use crate::sysctl::Sysctl;
use crate::time::{HZ, JIFFY_NS, NSEC_PER_USEC, round_up_to_jiffy_us};
use crate::timer::{keepalive_time_elapsed, keepalive_time_when, tcp_reset_keepalive_timer};

/// Linux's MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL, seconds.
const MAX_KEEP_S: i32 = 32_767;
/// Linux's MAX_TCP_KEEPCNT and MAX_TCP_SYNCNT.
const MAX_COUNT: i32 = 127;
/// Linux's MAX_TCP_WINDOW.
const MAX_TCP_WINDOW: i32 = 32_767;
/// Longest TCP_LINGER2, seconds (Linux TCP_FIN_TIMEOUT_MAX).
const FIN_TIMEOUT_MAX_S: i32 = 120;
/// Longest TCP_TX_DELAY, microseconds.
const TX_DELAY_MAX_US: i32 = (1 << 28) - 1;
/// Default and longest TCP_RTO_MIN_US and TCP_DELACK_MAX_US; the shortest is two jiffies.
const RTO_MIN_US: u64 = 200_000;
const TIMEOUT_MIN_US: u64 = 2 * JIFFY_NS / NSEC_PER_USEC;
/// Bytes of `struct tcp_md5sig`.
const MD5SIG_LEN: usize = 216;
/// First retransmission of a SYN-ACK and longest interval, seconds: what TCP_DEFER_ACCEPT counts in.
const TIMEOUT_INIT_S: u32 = 1;
const RTO_MAX_S: u32 = 120;

/// Sets an option.
pub(super) fn set(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    name: i32,
    val: &[u8],
    caps: Caps,
) -> Result<(), Error> {
    match name {
        t::TCP_NODELAY => set_nodelay(sk, cx, int(val)? != 0),
        t::TCP_CORK => set_cork(sk, cx, int(val)? != 0),
        t::TCP_MAXSEG => {
            let v = int(val)?;
            if v != 0 && !(i32::from(t::TCP_MIN_MSS)..=MAX_TCP_WINDOW).contains(&v) {
                return Err(Error::Inval);
            }
            sk.opts.maxseg = v as u16;
        }
        t::TCP_KEEPIDLE => {
            let v = int_in(val, 1..=MAX_KEEP_S)?;
            sk.opts.keepidle_s = v as u32;
            rearm_keepalive(sk, cx);
        }
        t::TCP_KEEPINTVL => sk.opts.keepintvl_s = int_in(val, 1..=MAX_KEEP_S)? as u32,
        t::TCP_KEEPCNT => sk.opts.keepcnt = int_in(val, 1..=MAX_COUNT)? as u8,
        t::TCP_SYNCNT => sk.opts.syncnt = int_in(val, 1..=MAX_COUNT)? as u8,
        t::TCP_LINGER2 => sk.opts.linger2 = int(val)?.clamp(-1, FIN_TIMEOUT_MAX_S),
        t::TCP_DEFER_ACCEPT => sk.opts.defer_accept = secs_to_retrans(int(val)?),
        t::TCP_WINDOW_CLAMP => set_window_clamp(sk, int(val)?)?,
        t::TCP_QUICKACK => set_quickack(sk, cx, int(val)?),
        t::TCP_CONGESTION => set_congestion(sk, cx, val, caps)?,
        t::TCP_MD5SIG | t::TCP_MD5SIG_EXT if val.len() < MD5SIG_LEN => return Err(Error::Inval),
        t::TCP_THIN_LINEAR_TIMEOUTS => sk.opts.thin_lto = zero_or_one(val)?,
        t::TCP_THIN_DUPACK => {
            zero_or_one(val)?;
        }
        t::TCP_USER_TIMEOUT => {
            let v = int(val)?;
            sk.opts.user_timeout_ms = u32::try_from(v).map_err(|_| Error::Inval)?;
        }
        t::TCP_NOTSENT_LOWAT => {
            sk.opts.notsent_lowat = int(val)? as u32;
            sk_stream_write_space(sk, cx); // RD-36
        }
        t::TCP_SAVE_SYN => sk.opts.save_syn = int_in(val, 0..=2)? as u8,
        t::TCP_INQ => sk.opts.inq = zero_or_one(val)?,
        t::TCP_TX_DELAY => sk.opts.tx_delay_us = int_in(val, 0..=TX_DELAY_MAX_US)? as u32,
        // Kept in jiffies.
        t::TCP_RTO_MAX_MS => {
            let ms = int_in(val, 1000..=120_000)? as u32;
            sk.opts.rto_max_ms = ms.next_multiple_of(1000 / HZ as u32);
        }
        t::TCP_RTO_MIN_US => sk.opts.rto_min_us = jiffy_rounded(val)?,
        t::TCP_DELACK_MAX_US => sk.opts.delack_max_us = jiffy_rounded(val)?,
        t::TCP_ULP => {
            return Err(if val.is_empty() {
                Error::Inval
            } else {
                Error::NoEnt
            });
        }
        t::TCP_FASTOPEN => {
            let qlen = u32::try_from(int(val)?).map_err(|_| Error::Inval)?; // FO-44
            if !idle(sk) {
                return Err(Error::Inval);
            }
            sk.opts.fastopen_qlen = qlen.min(cx.sh.sysctl.somaxconn);
        }
        t::TCP_FASTOPEN_CONNECT => {
            let on = zero_or_one(val)?; // FO-32..FO-34
            if cx.sh.sysctl.tcp_fastopen & TFO_CLIENT_ENABLE == 0 {
                return Err(Error::OpNotSupp);
            }
            if sk.state != TcpState::Close {
                return Err(Error::Inval);
            }
            sk.opts.fastopen_connect = on;
        }
        t::TCP_FASTOPEN_NO_COOKIE => {
            let on = zero_or_one(val)?;
            if !idle(sk) {
                return Err(Error::Inval);
            }
            sk.opts.fastopen_no_cookie = on;
        }
        t::TCP_FASTOPEN_KEY => {
            if !matches!(val.len(), fastopen::KEY_LEN | fastopen::KEY_BUF_LEN) {
                return Err(Error::Inval);
            }
            sk.opts.fastopen_key = val.to_vec();
        }
        t::TCP_REPAIR
        | t::TCP_REPAIR_QUEUE
        | t::TCP_QUEUE_SEQ
        | t::TCP_REPAIR_OPTIONS
        | t::TCP_REPAIR_WINDOW
        | t::TCP_TIMESTAMP => return repair::set(sk, cx, name, val, caps),
        t::TCP_AO_REPAIR if sk.state == TcpState::Listen && val.len() < size_of::<i32>() => {
            return Err(Error::Inval);
        }
        t::TCP_AO_REPAIR if sk.state == TcpState::Listen => return Err(Error::Perm),
        _ => return Err(Error::NoProtoOpt),
    }
    Ok(())
}

/// CLOSE or LISTEN: nothing is connected yet.
fn idle(sk: &TcpSock) -> bool {
    matches!(sk.state, TcpState::Close | TcpState::Listen)
}

/// Reads an option.
pub(super) fn get(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    name: i32,
    out: Out<'_>,
) -> Result<usize, Error> {
    let o = &sk.opts;
    let sysctl = &cx.sh.sysctl;
    match name {
        t::TCP_NODELAY => out.flag(sk.nonagle & nagle::OFF != 0),
        t::TCP_CORK => out.flag(sk.nonagle & nagle::CORK != 0),
        t::TCP_MAXSEG => out.uint(maxseg(sk)),
        t::TCP_KEEPIDLE => out.uint(keepalive_time_s(sk, sysctl)),
        t::TCP_KEEPINTVL => out.uint(or(o.keepintvl_s, sysctl.tcp_keepalive_intvl_s)),
        t::TCP_KEEPCNT => out.uint(or(o.keepcnt.into(), sysctl.tcp_keepalive_probes.into())),
        t::TCP_SYNCNT => out.uint(or(o.syncnt.into(), sysctl.tcp_syn_retries.into())),
        t::TCP_LINGER2 if o.linger2 == 0 => out.uint(sysctl.tcp_fin_timeout_s),
        t::TCP_LINGER2 => out.int(o.linger2),
        t::TCP_DEFER_ACCEPT => out.uint(retrans_to_secs(o.defer_accept)),
        t::TCP_WINDOW_CLAMP => out.uint(sk.window_clamp),
        t::TCP_INFO => out.bytes(&tcp_get_info(sk, cx.now).to_bytes()),
        t::TCP_QUICKACK => out.flag(!inet_csk_in_pingpong_mode(sk, cx.sh)),
        t::TCP_CONGESTION => {
            let mut name = [0; t::TCP_CA_NAME_MAX];
            let bytes = sk.ca.name().as_bytes();
            name[..bytes.len()].copy_from_slice(bytes);
            out.bytes(&name)
        }
        t::TCP_THIN_LINEAR_TIMEOUTS => out.flag(o.thin_lto),
        t::TCP_THIN_DUPACK | t::TCP_IS_MPTCP => out.int(0),
        t::TCP_USER_TIMEOUT => out.uint(o.user_timeout_ms),
        t::TCP_NOTSENT_LOWAT => out.uint(o.notsent_lowat),
        t::TCP_CC_INFO => match cong::info(sk) {
            Some(words) => out.bytes(words.map(u32::to_ne_bytes).as_flattened()),
            None => Ok(0),
        },
        t::TCP_ULP => Ok(0),
        t::TCP_SAVE_SYN => out.int(o.save_syn.into()),
        t::TCP_SAVED_SYN => saved_syn(sk, out),
        t::TCP_INQ => out.flag(o.inq),
        t::TCP_TX_DELAY => out.uint(o.tx_delay_us),
        t::TCP_RTO_MAX_MS => out.uint(o.rto_max_ms),
        t::TCP_RTO_MIN_US => out.uint(o.rto_min_us),
        t::TCP_DELACK_MAX_US => out.uint(o.delack_max_us),
        t::TCP_FASTOPEN => out.uint(o.fastopen_qlen),
        t::TCP_FASTOPEN_CONNECT => out.flag(o.fastopen_connect),
        t::TCP_FASTOPEN_NO_COOKIE => out.flag(o.fastopen_no_cookie),
        t::TCP_FASTOPEN_KEY => out.bytes(&o.fastopen_key),
        // The lowest bit tells the unit (SO-60).
        t::TCP_TIMESTAMP => out.uint(tsval(sk, cx.now) & !1 | u32::from(sk.tcp_usec_ts)),
        t::TCP_REPAIR | t::TCP_REPAIR_QUEUE | t::TCP_QUEUE_SEQ => out.int(repair::get(sk, name)?),
        t::TCP_REPAIR_WINDOW => {
            let bytes = repair::tcp_repair_get_window(sk, out.room)?;
            out.bytes(&bytes)
        }
        t::TCP_AO_REPAIR if sk.state == TcpState::Listen => Err(Error::Perm),
        _ => Err(Error::NoProtoOpt),
    }
}

/// The socket's own value, or the namespace's when it has none.
fn or(own: u32, default: u32) -> u32 {
    if own == 0 { default } else { own }
}

/// SO-42: switching it on pushes what is held back, cork or no cork (SP-10).
fn set_nodelay(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, on: bool) {
    if on {
        sk.nonagle |= nagle::OFF | nagle::PUSH;
        tcp_push_pending_frames(sk, cx);
    } else {
        sk.nonagle &= !nagle::OFF;
    }
}

/// SO-44, SP-11, SP-12: clearing it pushes, under Nagle unless TCP_NODELAY is on.
fn set_cork(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, on: bool) {
    if on {
        sk.nonagle |= nagle::CORK;
    } else {
        sk.nonagle &= !nagle::CORK;
        if sk.nonagle & nagle::OFF != 0 {
            sk.nonagle |= nagle::PUSH;
        }
        tcp_push_pending_frames(sk, cx);
    }
}

/// SO-43.
fn maxseg(sk: &TcpSock) -> u32 {
    if sk.repair.on {
        sk.mss_clamp.into()
    } else if sk.opts.maxseg != 0 && idle(sk) {
        sk.opts.maxseg.into()
    } else {
        sk.mss_cache
    }
}

fn keepalive_time_s(sk: &TcpSock, sysctl: &Sysctl) -> u32 {
    or(sk.opts.keepidle_s, sysctl.tcp_keepalive_time_s)
}

/// SO_KEEPALIVE (Linux `tcp_set_keepalive`).
pub(super) fn tcp_set_keepalive(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, on: bool) {
    if idle(sk) {
        return;
    }
    if on && !sk.opts.keepalive {
        let ns = keepalive_time_when(sk, cx);
        tcp_reset_keepalive_timer(sk, cx, ns);
    } else if !on && !sk.orphan {
        sk.timers.cancel(crate::timers::Timer::Keepalive);
    }
}

/// TCP_KEEPIDLE on a connection with keepalive: counts from the last thing heard.
fn rearm_keepalive(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if !sk.opts.keepalive || idle(sk) {
        return;
    }
    let ns = keepalive_time_when(sk, cx).saturating_sub(keepalive_time_elapsed(sk, cx.now));
    tcp_reset_keepalive_timer(sk, cx, ns);
}

/// SO-50: seconds as a number of SYN-ACK retransmissions (Linux `secs_to_retrans`).
fn secs_to_retrans(seconds: i32) -> u8 {
    let Ok(seconds @ 1..) = u32::try_from(seconds) else {
        return 0;
    };
    let (mut n, mut timeout, mut period) = (1u8, TIMEOUT_INIT_S, TIMEOUT_INIT_S);
    while seconds > period && n < u8::MAX {
        n += 1;
        timeout = (timeout * 2).min(RTO_MAX_S);
        period += timeout;
    }
    n
}

/// The way back (Linux `retrans_to_secs`).
fn retrans_to_secs(n: u8) -> u32 {
    let mut timeout = TIMEOUT_INIT_S;
    let mut period = 0;
    for _ in 0..n {
        period += timeout;
        timeout = (timeout * 2).min(RTO_MAX_S);
    }
    period
}

/// SO-51: 0 takes the bound back, before the connection.
fn set_window_clamp(sk: &mut TcpSock, v: i32) -> Result<(), Error> {
    if v == 0 && sk.state != TcpState::Close {
        return Err(Error::Inval);
    }
    let bound = u32::try_from(v).unwrap_or(0);
    if v == 0 {
        sk.window_clamp = 0;
        sk.opts.window_clamp = 0;
    } else {
        tcp_set_window_clamp(sk, bound);
        sk.opts.window_clamp = sk.window_clamp;
    }
    Ok(())
}

/// SO-53 (Linux `__tcp_sock_set_quickack`).
fn set_quickack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, v: i32) {
    if v == 0 {
        inet_csk_enter_pingpong_mode(sk, cx.sh);
        return;
    }
    sk.ack.pingpong = 0;
    if matches!(sk.state, TcpState::Established | TcpState::CloseWait) && inet_csk_ack_scheduled(sk)
    {
        sk.ack.pending |= icsk_ack::PUSHED;
        tcp_cleanup_rbuf(sk, cx, 1);
        if v & 1 == 0 {
            inet_csk_enter_pingpong_mode(sk, cx.sh);
        }
    }
}

/// SO-54. What the namespace does not allow to all needs CAP_NET_ADMIN. With it Linux loads the module that is missing:
/// we take it that there is one.
fn set_congestion(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    val: &[u8],
    caps: Caps,
) -> Result<(), Error> {
    let val = &val[..val.len().min(t::TCP_CA_NAME_MAX - 1)];
    if val.is_empty() {
        return Err(Error::Inval);
    }
    if sk.ca_dst_locked {
        return Err(Error::Perm);
    }
    let name = val.split(|b| *b == 0).next().unwrap_or_default();
    let name = core::str::from_utf8(name).map_err(|_| Error::NoEnt)?;
    let ca = CongestionControl::by_name(name).ok_or(Error::NoEnt)?;
    // What the socket has already is not asked for.
    if ca.name() == sk.ca.name() {
        return Ok(());
    }
    let among = |list: &str| list.split_whitespace().any(|a| a == name);
    let sysctl = &cx.sh.sysctl;
    let available = &sysctl.tcp_available_congestion_control;
    if !caps.net_admin {
        if !available.is_empty() && !among(available) {
            return Err(Error::NoEnt);
        }
        if !among(&sysctl.tcp_allowed_congestion_control) {
            return Err(Error::Perm);
        }
    }
    sk.ca = ca;
    if !idle(sk) {
        cong::init(sk, cx);
    }
    Ok(())
}

/// SO-71, SO-72: microseconds as jiffies, within the bounds.
fn jiffy_rounded(val: &[u8]) -> Result<u32, Error> {
    let us = u64::try_from(int(val)?).map_err(|_| Error::Inval)?;
    let us = round_up_to_jiffy_us(us);
    if (TIMEOUT_MIN_US..=RTO_MIN_US).contains(&us) {
        Ok(us as u32)
    } else {
        Err(Error::Inval)
    }
}

/// SO-64: read once, and only as a whole.
fn saved_syn(sk: &mut TcpSock, out: Out<'_>) -> Result<usize, Error> {
    let Some(syn) = &sk.saved_syn else {
        return Ok(0);
    };
    if out.room < syn.len() {
        return Err(Error::Inval);
    }
    let n = out.bytes(syn)?;
    sk.saved_syn = None;
    Ok(n)
}
