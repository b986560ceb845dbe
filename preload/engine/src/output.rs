//! Sending: from a queued buffer to a frame (Linux `tcp_output.c`; `rows.toml` send-path G).
//!
//! Every frame of a socket goes through [`tcp_transmit_skb`] or its sister for segments without a buffer. The device's
//! verdict is known before `snd_nxt` advances.

use alloc::boxed::Box;

use sidewire_uapi::tcp::TcpState;
use sidewire_wire::tcp::{TcpFlags, TcpHeader};

pub use crate::chrono::{ChronoKind, tcp_chrono_start, tcp_chrono_stop};
use crate::cong;
use crate::cwnd::tcp_cwnd_validate;
pub use crate::cwnd::tcp_slow_start_after_idle_check;
use crate::error::Error;
use crate::header::{Headers, ip_fields, tcp_established_options, tcp_syn_options};
use crate::memory::Frag;
use crate::mib::Counter;
pub use crate::mss::{tcp_current_mss, tcp_send_mss, tcp_sync_mss};
use crate::mtu_probe::{Probed, tcp_mtu_probe};
use crate::net::{FlowKey, Transmit, TxTime, TxVerdict};
use crate::pacing::{tcp_pacing_check, tcp_update_skb_after_send};
pub use crate::rate::tcp_rate_check_app_limited;
use crate::rate::tcp_rate_skb_sent;
use crate::recovery::{tcp_enter_cwr, tcp_in_cwnd_reduction};
use crate::retransmit::tcp_schedule_loss_probe;
use crate::seq::{after, before};
use crate::skb::{MessageOptions, SKB_TRUESIZE, Sacked, Skb, tcphdr};
use crate::small_queue::{XmitPause, tcp_small_queue_check};
pub use crate::sndbuf::tcp_check_space;
use crate::sock::{TcpSock, ecn, icsk_ack, nagle};
use crate::stack::Cx;
use crate::time::NSEC_PER_USEC;
use crate::timer::{tcp_check_probe_timer, tcp_rearm_rto};
use crate::timers::{IcskPending, Timer};
use crate::trace::{Held, TraceStep};
use crate::tso::{
    Queue, tcp_cwnd_test, tcp_fragment, tcp_grow_skb, tcp_minshall_update, tcp_mss_split_point,
    tcp_nagle_test, tcp_set_skb_tso_segs, tcp_snd_wnd_test, tcp_tso_segs, tcp_tso_should_defer,
};
use crate::window::tcp_select_window;
use crate::{tstamp, window, zerocopy};

/// Why a segment did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmitError {
    /// The local queue threw it away: CWR was entered.
    Dropped,
    /// The packet socket is full; [`crate::Stack::tx_space`] goes on.
    NoSpace,
    /// No route.
    NoRoute,
    /// The next hop does not answer: `sk_err_soft` is EHOSTUNREACH.
    Unreachable,
    /// The program took its pages away; `tx_fault` is set.
    Fault,
    /// The peer's window is closed, or nothing is left to send.
    Again,
    /// Its last copy has not left the host yet (Linux `-EBUSY` of `__tcp_retransmit_skb`).
    Busy,
}

/// Which buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The first unsent one.
    Head,
    /// The one at this index of `rtx_queue`.
    Rtx(usize),
}

impl At {
    fn get(self, sk: &TcpSock) -> Option<&Skb> {
        match self {
            Self::Head => sk.write_queue.front(),
            Self::Rtx(i) => sk.rtx_queue.get(i),
        }
        .map(|b| &**b)
    }

    fn get_mut(self, sk: &mut TcpSock) -> Option<&mut Skb> {
        match self {
            Self::Head => sk.write_queue.front_mut(),
            Self::Rtx(i) => sk.rtx_queue.get_mut(i),
        }
        .map(|b| &mut **b)
    }
}

/// Header-relevant facts of a segment.
#[derive(Clone, Copy, Debug)]
struct Tcb {
    seq: u32,
    end_seq: u32,
    flags: u8,
    len: u32,
    pcount: u32,
    gso_size: u32,
}

/// True while the urgent pointer lies ahead (Linux `tcp_urg_mode`).
#[inline]
#[must_use]
pub fn tcp_urg_mode(sk: &TcpSock) -> bool {
    sk.urg_mode
}

/// Looks the route up again when the table changed; false when there is none, and `sk_err_soft` says why (Linux
/// `inet_sk_rebuild_header`).
pub fn rebuild_header(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    route_again(sk, cx)
        .map_err(|e| sk.sk_err_soft = Some(e))
        .is_ok()
}

/// Looks the route up again when the table changed, as what sends something new does: why there is none is no soft error
/// (Linux `__ip_queue_xmit`).
///
/// # Errors
/// What the routing table says.
pub(crate) fn route_again(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> Result<(), Error> {
    let generation = cx.net.route_generation();
    if sk.dst.as_ref().is_some_and(|d| d.generation == generation) {
        return Ok(());
    }
    let key = FlowKey {
        daddr: sk.tuple.remote.ip(),
        saddr: Some(sk.tuple.local.ip()),
        oif: sk.opts.bound_dev_if,
        mark: sk.opts.mark,
        tos: sk.opts.ip_tos & !3,
    };
    match cx.net.route(&key) {
        Ok(dst) => {
            sk.dst = Some(dst);
            Ok(())
        }
        Err(e) => {
            sk.dst = None;
            Err(e)
        }
    }
}

/// Sends a queued buffer. What the verdict means for the queue is the caller's; stamps, counters and rate samples are
/// done here (Linux `tcp_transmit_skb`).
pub(crate) fn tcp_transmit_skb(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    at: At,
) -> Result<(), XmitError> {
    let Some(skb) = at.get(sk) else {
        return Err(XmitError::Again);
    };
    let tcb = Tcb {
        seq: skb.seq,
        end_seq: skb.end_seq,
        flags: skb.tcp_flags,
        len: skb.len,
        pcount: skb.pcount(),
        gso_size: skb.gso_size,
    };
    let prior_wstamp = sk.tcp_wstamp_ns;
    sk.tcp_wstamp_ns = sk.tcp_wstamp_ns.max(cx.now);
    let stamp = sk.tcp_wstamp_ns;
    if let Some(skb) = at.get_mut(sk) {
        skb.skb_mstamp = stamp;
    }
    if at == At::Head {
        zerocopy::private_copy(sk, cx);
    }
    let (headers, verdict) = transmit(sk, cx, &tcb, Some(at))?;
    tcp_update_skb_after_send(sk, tcb.len, prior_wstamp);
    let sample = tcp_rate_skb_sent(sk, stamp);
    if let Some(skb) = at.get_mut(sk) {
        skb.tx = sample;
        skb.sacked -= Sacked::UNSORTED;
        skb.ticket = match verdict {
            TxVerdict::Queued(ticket) => Some(ticket),
            _ => None,
        };
        skb.cut |= tcb.pcount > 1;
    }
    if verdict == TxVerdict::Copied
        && let Some(uarg) = at.get(sk).and_then(|skb| skb.ubuf)
    {
        zerocopy::mark_copied(sk, uarg);
    }
    tx_timestamps(sk, cx, at, headers.bytes(), verdict == TxVerdict::Stamping);
    Ok(())
}

/// SCHED and SND timestamps, for the few buffers that want them: told now, or `later` by the way out.
fn tx_timestamps(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, at: At, headers: &[u8], later: bool) {
    let place = match at {
        At::Head => sk.write_queue.front_mut(),
        At::Rtx(i) => sk.rtx_queue.get_mut(i),
    };
    let Some(place) = place.filter(|s| !s.tx_flags.is_empty()) else {
        return;
    };
    let mut skb = core::mem::replace(place, cx.sh.pool.alloc());
    if later {
        tstamp::tx_await(sk, &skb, headers);
    } else {
        tstamp::tx_sent(sk, cx, &skb, headers);
    }
    let place = match at {
        At::Head => sk.write_queue.front_mut(),
        At::Rtx(i) => sk.rtx_queue.get_mut(i),
    };
    if let Some(place) = place {
        core::mem::swap(place, &mut skb);
    }
    cx.sh.pool.free(skb);
}

/// Sends a segment that no queue holds: acks, probes, resets.
pub(crate) fn tcp_transmit_bare(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    seq: u32,
    flags: u8,
) -> Result<(), XmitError> {
    let tcb = Tcb {
        seq,
        end_seq: seq,
        flags,
        len: 0,
        pcount: 1,
        gso_size: 0,
    };
    transmit(sk, cx, &tcb, None).map(|_| ())
}

fn transmit(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    tcb: &Tcb,
    at: Option<At>,
) -> Result<(Headers, TxVerdict), XmitError> {
    if sk.tx_fault && at.is_some() {
        return Err(XmitError::Fault);
    }
    route_again(sk, cx).map_err(|_| XmitError::NoRoute)?;
    let syn = tcb.flags & tcphdr::SYN != 0;
    let options = if syn {
        tcp_syn_options(sk, &cx.sh.sysctl, tcb.flags, cx.now)
    } else {
        tcp_established_options(sk, cx.now)
    };
    // RFC 7323 §2.2: the window of a SYN is never scaled.
    let window = if syn {
        sk.rcv_wnd.min(u32::from(u16::MAX)) as u16
    } else {
        tcp_select_window(sk, cx)
    };
    let mut tcp = TcpHeader {
        src_port: sk.tuple.local.port(),
        dst_port: sk.tuple.remote.port(),
        seq: tcb.seq,
        ack_seq: if tcb.flags & tcphdr::ACK != 0 {
            sk.rcv_nxt
        } else {
            0
        },
        flags: TcpFlags::from_bits_retain(tcb.flags),
        window,
        urg_ptr: 0,
    };
    if tcb.pcount > 1 {
        tcp.flags |= TcpFlags::PSH;
    }
    if tcp_urg_mode(sk) && before(tcb.seq, sk.snd_up) {
        urgent(sk, tcb.seq, &mut tcp);
    }
    let mut ip = ip_fields(sk, &cx.sh.sysctl);
    ecn_send(sk, tcb, &mut tcp, &mut ip.tos);
    let Some(headers) = Headers::build(&sk.tuple, &ip, &tcp, &options, tcb.len) else {
        return Err(XmitError::NoRoute);
    };

    let verdict = {
        let skb = at.and_then(|a| a.get(sk));
        let frags: &[Frag] = skb.map_or(&[], |s| &s.frags);
        let message = skb.map_or(MessageOptions::default(), |s| s.message);
        let Some(dst) = sk.dst.as_ref() else {
            return Err(XmitError::NoRoute);
        };
        cx.net.transmit(&Transmit {
            dst,
            daddr: sk.tuple.remote.ip(),
            headers: headers.bytes(),
            l4_offset: headers.l4_offset,
            frags,
            gso_size: if tcb.pcount > 1 {
                tcb.gso_size as u16
            } else {
                0
            },
            mark: message.mark.unwrap_or(sk.opts.mark),
            priority: sk.opts.priority,
            tstamp: skb.and_then(|s| tstamp::wanted(sk, s, cx.id)),
            txtime: tx_time(sk, at, &message),
            sock: Some(sk),
        })
    };
    if verdict == TxVerdict::NoSpace {
        cx.sh.mib.inc(Counter::TCPLocalNoSpace);
        if !sk.tx_blocked && !sk.tsq_throttled {
            cx.sh.tx_blocked.push(cx.id);
        }
        sk.tx_blocked = true;
        return Err(XmitError::NoSpace);
    }
    if !syn {
        sk.duplicate_sack = None;
    }
    sk.ip_id = sk.ip_id.wrapping_add(tcb.pcount as u16);
    account_sent(sk, cx, tcb);
    match verdict {
        TxVerdict::Dropped => {
            cx.sh.mib.inc(Counter::TCPLocalDrop);
            tcp_enter_cwr(sk, cx);
            Err(XmitError::Dropped)
        }
        TxVerdict::Unreachable => {
            sk.sk_err_soft = Some(Error::HostUnreach);
            Err(XmitError::Unreachable)
        }
        TxVerdict::Fault => {
            // The connection is torn down from the timer: whoever called us still holds on to it.
            sk.tx_fault = true;
            sk.timers.set(Timer::Pacing, cx.now);
            Err(XmitError::Fault)
        }
        // DeviceGone counts as lost on the way: the retransmission timer looks after it.
        _ => Ok((headers, verdict)),
    }
}

/// When a segment is to leave: what is sent again goes at once.
fn tx_time(sk: &TcpSock, at: Option<At>, message: &MessageOptions) -> Option<TxTime> {
    let (clockid, flags) = sk.opts.txtime?;
    (at == Some(At::Head) && message.transmit_time != 0).then_some(TxTime {
        at: message.transmit_time,
        clockid,
        flags,
    })
}

fn account_sent(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, tcb: &Tcb) {
    if tcb.flags & tcphdr::ACK != 0 {
        tcp_event_ack_sent(sk);
    }
    if tcb.len > 0 {
        tcp_event_data_sent(sk, cx);
        sk.info.data_segs_out = sk.info.data_segs_out.wrapping_add(tcb.pcount);
        sk.info.bytes_sent += u64::from(tcb.len);
    }
    if tcb.seq == tcb.end_seq || after(tcb.end_seq, sk.snd_nxt) {
        cx.sh.mib.add(Counter::OutSegs, u64::from(tcb.pcount));
    }
    sk.info.segs_out = sk.info.segs_out.wrapping_add(tcb.pcount);
}

fn urgent(sk: &TcpSock, seq: u32, tcp: &mut TcpHeader) {
    if before(sk.snd_up, seq.wrapping_add(0x1_0000)) {
        tcp.urg_ptr = sk.snd_up.wrapping_sub(seq) as u16;
        tcp.flags |= TcpFlags::URG;
    } else if after(seq.wrapping_add(0xffff), sk.snd_nxt) {
        tcp.urg_ptr = 0xffff;
        tcp.flags |= TcpFlags::URG;
    }
}

/// RFC 3168: ECT on new data, CWR once after a reduction, ECE until the peer's CWR (Linux `tcp_ecn_send`).
fn ecn_send(sk: &mut TcpSock, tcb: &Tcb, tcp: &mut TcpHeader, tos: &mut u8) {
    if sk.ecn_flags & ecn::OK == 0 || tcb.flags & tcphdr::SYN != 0 {
        return;
    }
    if tcb.len > 0 && !before(tcb.seq, sk.snd_nxt) {
        *tos |= 2;
        if sk.ecn_flags & ecn::QUEUE_CWR != 0 {
            sk.ecn_flags &= !ecn::QUEUE_CWR;
            tcp.flags |= TcpFlags::CWR;
        }
    }
    if sk.ecn_flags & ecn::DEMAND_CWR != 0 {
        tcp.flags |= TcpFlags::ECE;
    }
}

/// An ack left with this segment: the delayed one is done.
fn tcp_event_ack_sent(sk: &mut TcpSock) {
    if sk.compressed_ack > 0 {
        sk.compressed_ack = 0;
        sk.timers.cancel(Timer::CompAck);
    }
    if sk.ack.quick > 0 {
        let due = u8::from(sk.ack.pending & icsk_ack::SCHED != 0);
        if due >= sk.ack.quick {
            sk.ack.quick = 0;
            sk.ack.ato_ns = window::TCP_ATO_MIN_NS;
        } else {
            sk.ack.quick -= due;
        }
    }
    sk.ack.pending = 0;
    sk.ack_now = false;
    sk.timers.cancel(Timer::DelAck);
}

fn tcp_event_data_sent(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    if sk.packets_in_flight() == 0 {
        cong::cwnd_event_tx_start(sk, cx.now);
    }
    sk.lsndtime = cx.now;
    // An answer to what just came: the program converses (RV-40).
    if cx.now.since(sk.ack.lrcvtime) < sk.ack.ato_ns {
        sk.ack.pingpong = sk.ack.pingpong.saturating_add(1);
    }
}

/// Puts a buffer behind the unsent ones; the sequence space is taken now (Linux `tcp_queue_skb`).
pub fn tcp_queue_skb(sk: &mut TcpSock, cx: &Cx<'_, '_>, skb: Box<Skb>) {
    sk.write_seq = skb.end_seq;
    sk.wmem_queued += skb.truesize;
    if sk.write_queue.is_empty() {
        tcp_chrono_start(sk, cx, ChronoKind::Busy);
    }
    sk.write_queue.push_back(skb);
}

/// A buffer without data that takes `flags` and, for SYN and FIN, one sequence number.
pub(crate) fn tcp_init_nondata_skb(cx: &mut Cx<'_, '_>, seq: u32, flags: u8) -> Box<Skb> {
    let mut skb = cx.sh.pool.alloc();
    skb.seq = seq;
    skb.end_seq = seq.wrapping_add(u32::from(flags & (tcphdr::SYN | tcphdr::FIN) != 0));
    skb.tcp_flags = flags;
    skb.gso_segs = 1;
    skb.truesize = SKB_TRUESIZE;
    skb
}

/// The first unsent buffer is on its way: it joins `rtx_queue` (Linux `tcp_event_new_data_sent`).
pub(crate) fn tcp_event_new_data_sent(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let Some(skb) = sk.write_queue.pop_front() else {
        return;
    };
    let prior_packets = sk.packets_out;
    sk.snd_nxt = skb.end_seq;
    sk.packets_out += skb.pcount();
    sk.rtx_queue.push_back(skb);
    if prior_packets == 0 || sk.icsk_pending == IcskPending::LossProbe {
        tcp_rearm_rto(sk, cx);
    }
    tcp_check_space(sk, cx);
}

/// What bounds [`tcp_write_xmit`].
struct Limited {
    max_segs: u32,
    cwnd: bool,
    rwnd: bool,
}

/// Chooses what of the first unsent buffer goes as the next frame, and cuts it off; or says why nothing goes.
#[inline]
fn choose(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    mss_now: u32,
    nonagle: u8,
    push_one: i32,
    limited: &mut Limited,
) -> Result<(), Held> {
    if tcp_pacing_check(sk, cx) {
        return Err(Held::Pacing);
    }
    let mut quota = tcp_cwnd_test(sk);
    if quota == 0 {
        if push_one != 2 {
            return Err(Held::Cwnd);
        }
        quota = 1;
    }
    let max_segs = limited.max_segs;
    let quota = quota.min(max_segs);
    tcp_grow_skb(sk, cx, quota * mss_now);
    let Some(skb) = sk.write_queue.front_mut() else {
        return Err(Held::Nothing);
    };
    let tso_segs = tcp_set_skb_tso_segs(skb, mss_now);
    if !tcp_snd_wnd_test(sk, mss_now) {
        limited.rwnd = true;
        return Err(Held::Rwnd);
    }
    if tso_segs == 1 {
        let last = sk.write_queue.len() == 1;
        let nonagle = if last { nonagle } else { nagle::PUSH };
        if !tcp_nagle_test(sk, mss_now, nonagle) {
            return Err(if nonagle & nagle::CORK != 0 {
                Held::Cork
            } else {
                Held::Nagle
            });
        }
    } else if push_one == 0
        && tcp_tso_should_defer(sk, cx, &mut limited.cwnd, &mut limited.rwnd, max_segs)
    {
        return Err(Held::TsoDefer);
    }
    let limit = if tso_segs > 1 && !tcp_urg_mode(sk) {
        tcp_mss_split_point(sk, mss_now, quota, nonagle)
    } else {
        mss_now
    };
    let Some(skb) = sk.write_queue.front() else {
        return Err(Held::Nothing);
    };
    if skb.len > limit && !tcp_fragment(sk, cx, Queue::Write, 0, limit, mss_now) {
        return Err(Held::NoMemory);
    }
    Ok(())
}

/// Sends what congestion window, peer's window, Nagle and pacing let go. `push_one`: 0 as much as possible, 1 one
/// buffer, 2 one buffer even against the congestion window (a tail loss probe).
///
/// Returns true when nothing is in flight although something is queued: a probe timer has to look after it
/// (Linux `tcp_write_xmit`).
pub fn tcp_write_xmit(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    mss_now: u32,
    nonagle: u8,
    push_one: i32,
) -> bool {
    let mut sent_pkts = 0;
    let mut held = Held::Nothing;
    let from = sk.snd_nxt;
    let pause = sk.xmit_pause.take();
    // Before it paused it had chosen what is first in the queue now.
    let mut chosen = pause.is_some_and(|pause| pause.goes_on);
    if !chosen && sk.lsndtime >= cx.now {
        // Linux reads the clock here (tcp_mstamp_refresh): behind another send or a retransmission this is a later one.
        cx.now = sk.lsndtime + NSEC_PER_USEC;
    }
    if push_one == 0 {
        sk.pushed_nonagle = nonagle;
        if !chosen && !sk.tx_blocked && !sk.repair.sending() {
            match tcp_mtu_probe(sk, cx) {
                Probed::No => {}
                Probed::Waits => return false,
                Probed::Sent => sent_pkts = 1,
            }
        }
    }
    let mut limited = Limited {
        max_segs: tcp_tso_segs(sk, cx, mss_now),
        cwnd: false,
        rwnd: false,
    };

    while !sk.tx_blocked && !sk.write_queue.is_empty() {
        if sk.repair.sending() {
            // Repair: the peer has it already; only the queue has to know.
            sk.tcp_wstamp_ns = cx.now;
            if let Some(skb) = sk.write_queue.front_mut() {
                skb.skb_mstamp = cx.now;
                tcp_set_skb_tso_segs(skb, mss_now);
            }
        } else {
            if !core::mem::take(&mut chosen)
                && let Err(why) = choose(sk, cx, mss_now, nonagle, push_one, &mut limited)
            {
                held = why;
                break;
            }
            let truesize = sk.write_queue.front().map_or(0, |s| s.truesize);
            if tcp_small_queue_check(sk, cx, truesize, 0) {
                held = Held::SmallQueue;
                break;
            }
            // An empty buffer belongs to a sender that sleeps for memory.
            if sk.write_queue.front().is_none_or(|s| s.seq == s.end_seq) {
                break;
            }
            if let Err(e) = tcp_transmit_skb(sk, cx, At::Head) {
                held = Held::Xmit(e);
                break;
            }
        }
        tcp_event_new_data_sent(sk, cx);
        tcp_minshall_update(sk, mss_now);
        sent_pkts += sk.rtx_queue.back().map_or(0, |s| s.pcount());
        if push_one != 0 {
            held = Held::PushOne;
            break;
        }
    }

    cx.trace(|| TraceStep::WriteXmit {
        segments: sent_pkts,
        bytes: sk.snd_nxt.wrapping_sub(from),
        notsent: sk.notsent_bytes(),
        held,
        snd_cwnd: sk.snd_cwnd,
        in_flight: sk.packets_in_flight(),
        snd_wnd: sk.snd_wnd,
    });
    if limited.rwnd {
        tcp_chrono_start(sk, cx, ChronoKind::RwndLimited);
    } else {
        tcp_chrono_stop(sk, cx, ChronoKind::RwndLimited);
    }
    let cwnd_limited = limited.cwnd || sk.packets_in_flight() >= sk.snd_cwnd;
    let before_us = matches!(held, Held::SmallQueue | Held::Xmit(XmitError::NoSpace));
    if before_us && !cx.bh && (sk.tsq_throttled || sk.tx_blocked) {
        sk.xmit_pause = Some(XmitPause {
            at: cx.now,
            snd_nxt: sk.snd_nxt,
            segs_in: sk.info.segs_in,
            mss_now,
            nonagle,
            push_one,
            goes_on: false,
        });
    } else if sent_pkts > 0 || cwnd_limited || pause.is_some() {
        tcp_cwnd_validate(sk, cx, cwnd_limited);
    }
    if sent_pkts > 0 {
        if tcp_in_cwnd_reduction(sk) {
            sk.prr_out += sent_pkts;
        }
        // One loss probe for a tail.
        if push_one != 2 {
            tcp_schedule_loss_probe(sk, cx, false);
        }
        return false;
    }
    sk.packets_out == 0 && !sk.write_queue.is_empty()
}

/// Sends pending data; a probe timer is armed when nothing may go (Linux `__tcp_push_pending_frames`).
pub fn tcp_push_pending(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, mss_now: u32, nonagle: u8) {
    if sk.state == TcpState::Close {
        return;
    }
    if tcp_write_xmit(sk, cx, mss_now, nonagle, 0) {
        tcp_check_probe_timer(sk, cx);
    }
}

/// Sends pending data under the socket's own Nagle setting.
#[inline]
pub fn tcp_push_pending_frames(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    push_pending_frames_as(sk, cx, sk.nonagle);
}

#[inline]
fn push_pending_frames_as(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, nonagle: u8) {
    if !sk.write_queue.is_empty() {
        let mss_now = tcp_current_mss(sk, cx);
        tcp_push_pending(sk, cx, mss_now, nonagle);
    }
}

/// Sends the first unsent buffer, which is full (F14).
pub fn tcp_push_one(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, mss_now: u32) {
    tcp_write_xmit(sk, cx, mss_now, nagle::PUSH, 1);
}

/// After an ack: send what may go now, and wake a writer that has room again (Linux `tcp_data_snd_check`).
pub fn tcp_data_snd_check(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    tcp_push_pending_frames(sk, cx);
    tcp_check_space(sk, cx);
}

/// The packet socket takes frames again, or a frame that stood in the way of a retransmission has left: what waited for that
/// goes out (Linux `tcp_tsq_write`). The caller has taken the socket off
/// `tx_blocked` of the shared state.
pub fn tcp_tx_space(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    sk.tx_blocked = false;
    sk.tsq_throttled = false;
    if sk.state == TcpState::Close {
        return;
    }
    let now = cx.now;
    let pause = sk.xmit_pause.filter(|pause| pause.lasts(sk, now));
    if let Some(pause) = pause {
        cx.now = pause.at;
        sk.xmit_pause = Some(XmitPause {
            goes_on: true,
            ..pause
        });
        if tcp_write_xmit(sk, cx, pause.mss_now, pause.nonagle, pause.push_one) {
            tcp_check_probe_timer(sk, cx);
        }
    } else {
        cx.bh = true;
        if sk.lost_out > sk.retrans_out && sk.snd_cwnd > sk.packets_in_flight() {
            crate::retransmit::tcp_xmit_retransmit_queue(sk, cx);
        }
        let pushed = sk.pushed_nonagle & nagle::CORK;
        push_pending_frames_as(sk, cx, sk.nonagle | pushed);
    }
    tcp_check_space(sk, cx);
    if sk.ack_now || sk.ack.pending & icsk_ack::NOW != 0 {
        tcp_send_ack(sk, cx);
    }
}

/// Sequence number of a segment without data: `snd_nxt`, unless the peer took its window back
/// (Linux `tcp_acceptable_seq`).
fn tcp_acceptable_seq(sk: &TcpSock) -> u32 {
    let end = sk.wnd_end();
    let within_scale = sk.wscale_ok && sk.snd_nxt.wrapping_sub(end) < 1 << u32::from(sk.rcv_wscale);
    if !before(end, sk.snd_nxt) || within_scale {
        sk.snd_nxt
    } else {
        end
    }
}

/// Acknowledges now. When the packet socket is full the ack stays due.
pub fn tcp_send_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.state == TcpState::Close {
        return;
    }
    let seq = tcp_acceptable_seq(sk);
    if tcp_transmit_bare(sk, cx, seq, tcphdr::ACK) == Err(XmitError::NoSpace) {
        sk.ack.pending |= icsk_ack::SCHED | icsk_ack::NOW;
        sk.ack_now = true;
    }
}

/// Resets the connection (Linux `tcp_send_active_reset`).
pub fn tcp_send_active_reset(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    cx.sh.mib.inc(Counter::OutRsts);
    let seq = tcp_acceptable_seq(sk);
    // A reset that does not get out is not sent again: the peer's next segment is answered by one.
    let _ = tcp_transmit_bare(sk, cx, seq, tcphdr::ACK | tcphdr::RST);
}

/// Queues FIN, on the last unsent buffer when there is one, and sends everything (Linux `tcp_send_fin`).
pub fn tcp_send_fin(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if let Some(tail) = sk.write_queue.back_mut() {
        tail.tcp_flags |= tcphdr::FIN;
        tail.end_seq = tail.end_seq.wrapping_add(1);
        sk.write_seq = sk.write_seq.wrapping_add(1);
    } else {
        let skb = tcp_init_nondata_skb(cx, sk.write_seq, tcphdr::ACK | tcphdr::FIN);
        tcp_queue_skb(sk, cx, skb);
    }
    let mss_now = tcp_current_mss(sk, cx);
    tcp_push_pending(sk, cx, mss_now, nagle::OFF);
}

#[cfg(test)]
mod tests;
