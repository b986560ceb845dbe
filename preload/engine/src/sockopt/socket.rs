//! SOL_SOCKET (SO-11..SO-41).

use sidewire_uapi::TcpState;
use sidewire_uapi::socket as so;
use sidewire_uapi::timestamping as sof;

use super::tcp::tcp_set_keepalive;
use super::{Out, int, int_in, zero_or_one};
use crate::cmsg::prio_allowed;
use crate::data_queue::tcp_data_ready;
use crate::error::Error;
use crate::net::Dst;
use crate::push::sk_stream_write_space;
use crate::rcvbuf::sk_forward_alloc;
use crate::sock::TcpSock;
use crate::stack::{Caps, Cx};
use crate::time::{HZ, JIFFY_NS, NSEC_PER_USEC};

/// Linux's SOCK_MIN_SNDBUF on this word size.
pub(super) const SOCK_MIN_SNDBUF: u32 = 4608;
/// Linux's SOCK_MIN_RCVBUF.
pub(crate) const SOCK_MIN_RCVBUF: u32 = 2304;
/// Longest timeout that is one: jiffies in a signed 64-bit word.
const MAX_SCHEDULE_TIMEOUT: u64 = i64::MAX as u64;
/// Clocks that SO_TXTIME takes: CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_TAI.
const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_TAI: i32 = 11;

/// Sets an option.
pub(super) fn set(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    name: i32,
    val: &[u8],
    caps: Caps,
) -> Result<(), Error> {
    let on = int(val).map(|v| v != 0);
    let raw_or_admin = caps.net_raw || caps.net_admin;
    match name {
        so::SO_DEBUG if on? && !caps.net_admin => return Err(Error::Access),
        so::SO_DEBUG => sk.opts.debug = on?,
        so::SO_REUSEADDR => sk.opts.reuseaddr = on?.into(),
        so::SO_REUSEPORT => sk.opts.reuseport = on?,
        so::SO_SNDBUF => {
            let v = (int(val)? as u32).min(cx.sh.sysctl.wmem_max);
            set_sndbuf(sk, cx, v);
        }
        so::SO_SNDBUFFORCE => {
            let v = int(val)?;
            if !caps.net_admin {
                return Err(Error::Perm);
            }
            set_sndbuf(sk, cx, v.max(0) as u32);
        }
        so::SO_RCVBUF => {
            let v = (int(val)? as u32).min(cx.sh.sysctl.rmem_max);
            set_rcvbuf(sk, v);
        }
        so::SO_RCVBUFFORCE => {
            let v = int(val)?;
            if !caps.net_admin {
                return Err(Error::Perm);
            }
            set_rcvbuf(sk, v.max(0) as u32);
        }
        so::SO_KEEPALIVE => {
            let on = on?;
            tcp_set_keepalive(sk, cx, on);
            sk.opts.keepalive = on;
        }
        so::SO_OOBINLINE => sk.opts.oobinline = on?,
        so::SO_PRIORITY => {
            let v = int(val)? as u32;
            if !prio_allowed(v, caps) {
                return Err(Error::Perm);
            }
            sk.opts.priority = v;
        }
        so::SO_LINGER => set_linger(sk, val)?,
        so::SO_RCVLOWAT => {
            let v = int(val)?;
            tcp_set_rcvlowat(sk, cx, u32::try_from(v).unwrap_or(i32::MAX as u32));
        }
        so::SO_RCVTIMEO | so::SO_RCVTIMEO_NEW => sk.opts.rcvtimeo = timeout(val)?,
        so::SO_SNDTIMEO | so::SO_SNDTIMEO_NEW => sk.opts.sndtimeo = timeout(val)?,
        so::SO_BINDTOIFINDEX => {
            let v = int(val)?;
            if sk.opts.bound_dev_if != 0 && !caps.net_raw {
                return Err(Error::Perm);
            }
            sk.opts.bound_dev_if = u32::try_from(v).map_err(|_| Error::Inval)?;
            sk_dst_reset(sk);
        }
        so::SO_MARK => {
            let v = int(val)? as u32;
            if !raw_or_admin {
                return Err(Error::Perm);
            }
            if v != sk.opts.mark {
                sk.opts.mark = v;
                sk_dst_reset(sk);
            }
        }
        so::SO_PEEK_OFF => sk.opts.peek_off = int(val)?,
        so::SO_BUSY_POLL => {
            sk.opts.busy_poll = u32::try_from(int(val)?).map_err(|_| Error::Inval)?;
        }
        so::SO_MAX_PACING_RATE => set_max_pacing_rate(sk, val)?,
        so::SO_ZEROCOPY => sk.opts.zerocopy = zero_or_one(val)?, // ZC-1..ZC-4
        so::SO_TXTIME => set_txtime(sk, val, caps)?,
        so::SO_BUF_LOCK => {
            let v = int_in(val, 0..=3)?;
            sk.opts.buf_lock_snd = v & so::SOCK_SNDBUF_LOCK != 0;
            sk.opts.buf_lock_rcv = v & so::SOCK_RCVBUF_LOCK != 0;
        }
        // -1 is the namespace's default, which is on.
        so::SO_TXREHASH => sk.opts.txrehash = int_in(val, -1..=1)? != 0,
        so::SO_TIMESTAMP => set_rcvtstamp(sk, on?, false, false),
        so::SO_TIMESTAMPNS => set_rcvtstamp(sk, on?, false, true),
        so::SO_TIMESTAMP_NEW => set_rcvtstamp(sk, on?, true, false),
        so::SO_TIMESTAMPNS_NEW => set_rcvtstamp(sk, on?, true, true),
        so::SO_TIMESTAMPING => set_timestamping(sk, val, false)?,
        so::SO_TIMESTAMPING_NEW => set_timestamping(sk, val, true)?,
        so::SO_PASSCRED => return Err(Error::OpNotSupp), // SO-9
        _ => return Err(Error::NoProtoOpt),
    }
    Ok(())
}

/// Reads an option.
pub(super) fn get(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    name: i32,
    out: Out<'_>,
) -> Result<usize, Error> {
    let o = &sk.opts;
    match name {
        so::SO_DEBUG => out.flag(o.debug),
        so::SO_REUSEADDR => out.int(o.reuseaddr.into()),
        so::SO_REUSEPORT => out.flag(o.reuseport),
        so::SO_TYPE => out.int(so::SOCK_STREAM),
        so::SO_PROTOCOL => out.int(so::IPPROTO_TCP.into()),
        so::SO_DOMAIN => out.int(i32::from(if sk.v6 { so::AF_INET6 } else { so::AF_INET })),
        so::SO_ERROR => {
            let err = sk.sk_err.take().or_else(|| sk.sk_err_soft.take());
            out.int(err.map_or(0, |e| e.errno().0))
        }
        so::SO_SNDBUF => out.uint(sk.sndbuf),
        so::SO_RCVBUF => out.uint(sk.rcvbuf),
        so::SO_KEEPALIVE => out.flag(o.keepalive),
        so::SO_OOBINLINE => out.flag(o.oobinline),
        so::SO_PRIORITY => out.uint(o.priority),
        so::SO_LINGER => out.bytes(&pair(i32::from(o.linger), linger_time(o.linger_s))),
        so::SO_RCVLOWAT => out.uint(o.rcvlowat),
        so::SO_SNDLOWAT => out.int(1),
        so::SO_RCVTIMEO | so::SO_RCVTIMEO_NEW => out.bytes(&timeval(o.rcvtimeo)),
        so::SO_SNDTIMEO | so::SO_SNDTIMEO_NEW => out.bytes(&timeval(o.sndtimeo)),
        so::SO_BINDTOIFINDEX => out.uint(o.bound_dev_if),
        so::SO_ACCEPTCONN => out.flag(sk.state == TcpState::Listen),
        so::SO_MARK => out.uint(o.mark),
        so::SO_PEEK_OFF => out.int(o.peek_off),
        so::SO_BUSY_POLL => out.uint(o.busy_poll),
        so::SO_MAX_PACING_RATE if out.room >= 8 => out.bytes(&o.max_pacing_rate.to_ne_bytes()),
        so::SO_MAX_PACING_RATE => out.uint(o.max_pacing_rate.min(u32::MAX.into()) as u32),
        so::SO_MEMINFO => out.bytes(&meminfo(sk)),
        so::SO_ZEROCOPY => out.flag(o.zerocopy),
        so::SO_TXTIME => {
            let (clockid, flags) = o.txtime.unwrap_or_default();
            out.bytes(&pair(clockid, flags as i32))
        }
        so::SO_BUF_LOCK => out.int(
            if o.buf_lock_snd {
                so::SOCK_SNDBUF_LOCK
            } else {
                0
            } | if o.buf_lock_rcv {
                so::SOCK_RCVBUF_LOCK
            } else {
                0
            },
        ),
        so::SO_TXREHASH => out.flag(o.txrehash),
        // SO_TIMESTAMPNS is a flavour of SO_TIMESTAMP, and the *_NEW forms show both (TS-80).
        so::SO_TIMESTAMP => out.flag(o.rcvtstamp && !o.rcvtstampns && !o.tstamp_new),
        so::SO_TIMESTAMPNS => out.flag(o.rcvtstampns && !o.tstamp_new),
        so::SO_TIMESTAMP_NEW => out.flag(o.rcvtstamp && o.tstamp_new),
        so::SO_TIMESTAMPNS_NEW => out.flag(o.rcvtstampns && o.tstamp_new),
        so::SO_TIMESTAMPING => out.bytes(&pair(o.tsflags as i32, 0)),
        so::SO_TIMESTAMPING_NEW => {
            let flags = if o.tstamp_new { o.tsflags as i32 } else { 0 };
            out.bytes(&pair(flags, 0))
        }
        so::SO_PASSCRED => Err(Error::OpNotSupp),
        _ => {
            let _ = cx;
            Err(Error::NoProtoOpt)
        }
    }
}

/// Two `int`s one after the other.
fn pair(a: i32, b: i32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&a.to_ne_bytes());
    out[4..].copy_from_slice(&b.to_ne_bytes());
    out
}

/// The second `int` of a value.
fn second_int(val: &[u8]) -> Result<i32, Error> {
    int(val.get(4..).ok_or(Error::Inval)?)
}

fn set_sndbuf(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, v: u32) {
    sk.opts.buf_lock_snd = true;
    sk.sndbuf = (v.min(i32::MAX as u32 / 2) * 2).max(SOCK_MIN_SNDBUF); // SO-15
    sk_stream_write_space(sk, cx);
}

fn set_rcvbuf(sk: &mut TcpSock, v: u32) {
    sk.opts.buf_lock_rcv = true;
    sk.rcvbuf = (v.min(i32::MAX as u32 / 2) * 2).max(SOCK_MIN_RCVBUF); // SO-16
}

/// SO-21: turning it off keeps the time.
fn set_linger(sk: &mut TcpSock, val: &[u8]) -> Result<(), Error> {
    let (on, seconds) = (int(val)? != 0, second_int(val)?);
    sk.opts.linger = on;
    if on {
        sk.opts.linger_s = seconds as u32;
    }
    Ok(())
}

/// What SO_LINGER tells of its time. Linux keeps it in jiffies: a negative one has become the longest there is, of which
/// the seconds do not fit.
fn linger_time(seconds: u32) -> i32 {
    i32::try_from(seconds).unwrap_or((i64::MAX as u64 / HZ) as i32)
}

/// SO-23 (Linux `tcp_set_rcvlowat`): the receive buffer grows when the bytes asked for would not fit.
fn tcp_set_rcvlowat(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, v: u32) {
    let cap = if sk.opts.buf_lock_rcv {
        sk.rcvbuf >> 1
    } else {
        cx.sh.sysctl.tcp_rmem[2] >> 1
    };
    let v = v.min(cap);
    sk.opts.rcvlowat = v.max(1);
    tcp_data_ready(sk, cx);
    if sk.opts.buf_lock_rcv {
        return;
    }
    let space = (u64::from(v) << 8) / u64::from(sk.scaling_ratio.max(1));
    let space = space.min(i32::MAX as u64) as u32;
    if space > sk.rcvbuf {
        sk.rcvbuf = space;
        if sk.window_clamp != 0 {
            sk.window_clamp = sk.window_clamp.max(v);
        }
    }
}

/// SO-25: a 16-byte `timeval`. `None` is for ever, `Some(0)` not at all.
fn timeout(val: &[u8]) -> Result<Option<u64>, Error> {
    let words = val.first_chunk::<16>().ok_or(Error::Inval)?;
    let word = |at: usize| i64::from_ne_bytes(words[at..at + 8].try_into().unwrap_or_default());
    let (sec, usec) = (word(0), word(8));
    if !(0..1_000_000).contains(&usec) {
        return Err(Error::Domain);
    }
    let Ok(sec) = u64::try_from(sec) else {
        return Ok(Some(0));
    };
    if (sec == 0 && usec == 0) || sec >= MAX_SCHEDULE_TIMEOUT / HZ - 1 {
        return Ok(None);
    }
    let rest = (usec as u64 * NSEC_PER_USEC).div_ceil(JIFFY_NS);
    Ok(Some(sec * HZ + rest))
}

/// The `timeval` of a timeout; both "for ever" and "not at all" read zero.
fn timeval(jiffies: Option<u64>) -> [u8; 16] {
    let jiffies = jiffies.unwrap_or(0);
    let usec = jiffies % HZ * JIFFY_NS / NSEC_PER_USEC;
    let mut out = [0; 16];
    out[..8].copy_from_slice(&(jiffies / HZ).to_ne_bytes());
    out[8..].copy_from_slice(&usec.to_ne_bytes());
    out
}

/// SO-34: 32 bits, or 64 when the program gives eight bytes; all ones is no limit.
fn set_max_pacing_rate(sk: &mut TcpSock, val: &[u8]) -> Result<(), Error> {
    let v = match val.first_chunk() {
        Some(long) => u64::from_ne_bytes(*long),
        None => match int(val)? as u32 {
            u32::MAX => u64::MAX,
            v => v.into(),
        },
    };
    sk.opts.pacing_needed |= v != u64::MAX;
    sk.opts.max_pacing_rate = v;
    sk.pacing_rate = sk.pacing_rate.min(v);
    Ok(())
}

/// TS-70..TS-73, in that order.
fn set_txtime(sk: &mut TcpSock, val: &[u8], caps: Caps) -> Result<(), Error> {
    if val.len() != 8 {
        return Err(Error::Inval);
    }
    let (clockid, flags) = (int(val)?, second_int(val)? as u32);
    if flags & !(so::SOF_TXTIME_DEADLINE_MODE | so::SOF_TXTIME_REPORT_ERRORS) != 0 {
        return Err(Error::Inval);
    }
    if clockid != CLOCK_MONOTONIC && !caps.net_admin {
        return Err(Error::Perm);
    }
    if !matches!(clockid, CLOCK_REALTIME | CLOCK_MONOTONIC | CLOCK_TAI) {
        return Err(Error::Inval);
    }
    sk.opts.txtime = Some((clockid, flags));
    Ok(())
}

/// The four SO_TIMESTAMP options (Linux `__sock_set_timestamps`).
fn set_rcvtstamp(sk: &mut TcpSock, on: bool, new: bool, ns: bool) {
    sk.opts.rcvtstamp = on;
    sk.opts.rcvtstampns = on && ns;
    if on {
        sk.opts.tstamp_new = new;
    }
}

/// TS-20..TS-31, in that order (Linux `sock_set_timestamping`).
fn set_timestamping(sk: &mut TcpSock, val: &[u8], new: bool) -> Result<(), Error> {
    let flags = int(val)? as u32;
    if flags & !sof::SOF_TIMESTAMPING_MASK != 0 {
        return Err(Error::Inval);
    }
    let has = |bit: u32| flags & bit != 0;
    let opt_id = has(sof::SOF_TIMESTAMPING_OPT_ID);
    let opt_id_tcp = has(sof::SOF_TIMESTAMPING_OPT_ID_TCP);
    if opt_id_tcp && !opt_id {
        return Err(Error::Inval);
    }
    if opt_id && sk.opts.tsflags & sof::SOF_TIMESTAMPING_OPT_ID == 0 {
        if matches!(sk.state, TcpState::Close | TcpState::Listen) {
            return Err(Error::Inval);
        }
        sk.tskey = if opt_id_tcp { sk.write_seq } else { sk.snd_una };
    }
    if has(sof::SOF_TIMESTAMPING_OPT_STATS) && !has(sof::SOF_TIMESTAMPING_OPT_TSONLY) {
        return Err(Error::Inval);
    }
    if has(sof::SOF_TIMESTAMPING_BIND_PHC) {
        // TS-24: no device, or one whose clock has no virtual ones.
        return Err(match sk.opts.bound_dev_if {
            0 => Error::OpNotSupp,
            _ => Error::Inval,
        });
    }
    sk.opts.tsflags = flags;
    sk.opts.tstamp_new = new;
    Ok(())
}

/// SO-36. There is no backlog in this engine.
fn meminfo(sk: &TcpSock) -> [u8; 36] {
    // What Linux calls wmem_alloc is memory that the device still holds, plus one.
    let words = [
        sk.rmem_alloc,
        sk.rcvbuf,
        0,
        sk.sndbuf,
        sk_forward_alloc(sk),
        sk.wmem_queued,
        sk.zerocopy.optmem(),
        0,
        sk.info.drops,
    ];
    let mut out = [0; 36];
    for (place, w) in out.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&w.to_ne_bytes());
    }
    out
}

/// The route is looked up again before the next frame (Linux `sk_dst_reset`).
pub(super) fn sk_dst_reset(sk: &mut TcpSock) {
    if let Some(dst) = &mut sk.dst {
        dst.generation = Dst::RESET;
    }
}
