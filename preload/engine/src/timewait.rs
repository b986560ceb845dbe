//! TIME_WAIT remnants: Linux's `struct tcp_timewait_sock` and `tcp_minisocks.c`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;

use crate::header::tcp_clock_ts;
use crate::input::{now_s, paws_reject, tcp_oow_rate_limited};
use crate::metrics::tcp_update_metrics;
use crate::mib::Counter;
use crate::net::{Dst, Tuple};
use crate::reply::{BareAck, tcp_send_bare_ack, tcp_send_reset};
use crate::segment::Segment;
use crate::seq::{after, before};
use crate::sock::TcpSock;
use crate::stack::{Cx, Ehash, Io, Shared, Stack, TimerOwner, TimewaitId};
use crate::state::tcp_done;
use crate::time::{Instant, NSEC_PER_SEC, NSEC_PER_USEC};

/// How long TIME_WAIT lasts, nanoseconds (TM-21).
pub(crate) const TCP_TIMEWAIT_LEN_NS: u64 = 60 * NSEC_PER_SEC;

/// What stays of a connection that ended here first: enough to answer what the peer may still send.
#[derive(Clone, Debug)]
pub struct TimewaitSock {
    /// Whose place it keeps.
    pub tuple: Tuple,
    /// IPv6.
    pub v6: bool,
    /// FIN_WAIT2 of an orphan that waits for the peer's FIN, not yet TIME_WAIT proper.
    pub fin_wait2: bool,
    /// When the connection came to this.
    pub entered: Instant,
    /// Next sequence number that we would send.
    pub snd_nxt: u32,
    /// Next that we expect.
    pub rcv_nxt: u32,
    /// Window announced last, bytes.
    pub rcv_wnd: u32,
    /// Shift of the window field.
    pub rcv_wscale: u8,
    /// Timestamps are on.
    pub tstamp_ok: bool,
    /// Added to our timestamps.
    pub tsoffset: u32,
    /// They count microseconds.
    pub usec_ts: bool,
    /// Peer's last timestamp; 0 with `ts_recent_stamp` 0 when none.
    pub ts_recent: u32,
    /// When it came, seconds of the monotonic clock.
    pub ts_recent_stamp: u64,
    /// Last ack for a segment out of window, for the rate limit.
    pub last_oow_ack_time: Instant,
    /// When it ends.
    pub deadline: Instant,
    /// Route.
    pub dst: Option<Dst>,
    /// IP_TOS.
    pub tos: u8,
    /// SO_MARK.
    pub mark: u32,
    /// SO_PRIORITY.
    pub priority: u32,
    /// The caller keeps a port holder for it.
    pub held: bool,
    /// Entry in the stack's heap; `NEVER` when none.
    pub timer_queued: Instant,
}

impl Stack {
    /// Puts a remnant in the place of the socket that made it.
    pub(crate) fn insert_timewait(&mut self, tw: TimewaitSock) {
        let (tuple, at) = (tw.tuple, tw.deadline);
        let id = self.tws.insert(tw);
        self.sh.timewaits += 1;
        self.hash(tuple, Ehash::Timewait(id));
        self.queue_timewait(id, at);
    }

    fn queue_timewait(&mut self, id: TimewaitId, at: Instant) {
        if let Some(tw) = self.tws.get_mut(id) {
            tw.deadline = at;
            if at < tw.timer_queued {
                tw.timer_queued = at;
                self.heap.push(Reverse((at, TimerOwner::Timewait(id))));
                self.trim_heap();
            }
        }
    }

    /// The remnant goes (Linux `inet_twsk_deschedule_put`).
    pub(crate) fn kill_timewait(&mut self, id: TimewaitId) {
        if let Some(tw) = self.tws.remove(id) {
            self.sh.timewaits -= 1;
            self.unhash(&tw.tuple);
            if tw.held {
                self.released.push(tw.tuple);
            }
        }
    }

    /// Of the remnants that `which` names, ends all but `keep` before their time, the oldest first, those that still await the
    /// peer's FIN last: what the caller keeps for them is wanted elsewhere.
    pub fn end_timewaits(&mut self, keep: usize, mut which: impl FnMut(&Tuple) -> bool) {
        let named = self.tws.iter().filter(|(_, tw)| which(&tw.tuple));
        let mut named: Vec<_> = named
            .map(|(id, tw)| ((tw.fin_wait2, tw.deadline), id))
            .collect();
        let over = named.len().saturating_sub(keep);
        if over > 0 {
            named.select_nth_unstable_by_key(over - 1, |(age, _)| *age);
            for (_, id) in named.drain(..over) {
                self.kill_timewait(id);
            }
        }
    }

    /// Ends the remnants at an address, or at the port where that is of no address, but for those that still await the peer's
    /// FIN.
    pub fn end_timewaits_at(&mut self, local: SocketAddr) {
        let at = |tuple: &Tuple| {
            tuple.local.port() == local.port()
                && (local.ip().is_unspecified() || tuple.local.ip() == local.ip())
        };
        let over = self
            .tws
            .iter()
            .filter(|(_, tw)| !tw.fin_wait2 && at(&tw.tuple));
        for id in over.map(|(id, _)| id).collect::<Vec<_>>() {
            self.kill_timewait(id);
        }
    }

    /// An entry of the heap for a remnant is due.
    pub(crate) fn timewait_timer(&mut self, now: Instant, id: TimewaitId) {
        let Some(tw) = self.tws.get_mut(id) else {
            return;
        };
        tw.timer_queued = Instant::NEVER;
        let at = tw.deadline;
        if at <= now {
            self.kill_timewait(id);
        } else {
            self.queue_timewait(id, at);
        }
    }

    /// A segment for a remnant (Linux `tcp_timewait_state_process`). `Some(isn)` when it is a SYN that may open the
    /// connection anew: the remnant is gone, and `isn` is what the answer should begin with.
    pub(crate) fn rx_timewait(
        &mut self,
        io: &mut Io<'_>,
        id: TimewaitId,
        seg: &Segment,
    ) -> Option<u32> {
        let listener = seg.syn() && self.find_listener(&seg.tuple.local).is_some();
        let sh = &mut self.sh;
        let tw = self.tws.get_mut(id)?;
        match tw_state_process(tw, sh, seg, io.now) {
            TwAction::None => {}
            TwAction::Restart => {
                let at = io.now + TCP_TIMEWAIT_LEN_NS;
                self.queue_timewait(id, at);
            }
            TwAction::Ack { restart } => {
                send_tw_ack(tw, sh, io);
                if restart {
                    let at = io.now + TCP_TIMEWAIT_LEN_NS;
                    self.queue_timewait(id, at);
                }
            }
            TwAction::Syn(isn) if listener => {
                self.kill_timewait(id);
                self.sh.mib.inc(Counter::TWRecycled);
                return Some(isn);
            }
            TwAction::Syn(_) => send_tw_ack(tw, sh, io),
            TwAction::Reset => {
                tcp_send_reset(sh, io.net, seg);
                self.kill_timewait(id);
            }
            TwAction::Kill => self.kill_timewait(id),
        }
        None
    }
}

/// What a segment does to a remnant.
enum TwAction {
    /// Nothing.
    None,
    /// Its time begins anew.
    Restart,
    /// It answers with an ack.
    Ack { restart: bool },
    /// It may give way to a new connection with this initial sequence number.
    Syn(u32),
    /// It answers with a RST and goes.
    Reset,
    /// It goes.
    Kill,
}

/// True when any byte of `[seq, end_seq)`, or the empty segment itself, lies in `[s_win, e_win)` (Linux `tcp_in_window`).
pub(crate) fn tcp_in_window(seq: u32, end_seq: u32, s_win: u32, e_win: u32) -> bool {
    seq == s_win
        || (after(end_seq, s_win) && before(seq, e_win))
        || (seq == e_win && seq == end_seq)
}

fn tw_state_process(
    tw: &mut TimewaitSock,
    sh: &mut Shared,
    seg: &Segment,
    now: Instant,
) -> TwAction {
    let tsval = seg
        .opts
        .timestamps
        .filter(|_| tw.ts_recent_stamp != 0)
        .map(|(tsval, _)| tsval);
    let paws = tsval
        .is_some_and(|tsval| paws_reject(tw.ts_recent, tw.ts_recent_stamp, tsval, seg.rst(), now));
    let limited_ack = |tw: &mut TimewaitSock, sh: &mut Shared, restart: bool| {
        if tcp_oow_rate_limited(sh, seg, &mut tw.last_oow_ack_time, now) {
            if restart {
                TwAction::Restart
            } else {
                TwAction::None
            }
        } else {
            TwAction::Ack { restart }
        }
    };
    let take_ts = |tw: &mut TimewaitSock| {
        if let Some(tsval) = tsval {
            tw.ts_recent = tsval;
            tw.ts_recent_stamp = now_s(now);
        }
    };

    if tw.fin_wait2 {
        let right = tw.rcv_nxt.wrapping_add(tw.rcv_wnd);
        if paws || !tcp_in_window(seg.seq, seg.end_seq, tw.rcv_nxt, right) {
            return limited_ack(tw, sh, false);
        }
        if seg.rst() {
            return TwAction::Kill;
        }
        if seg.syn() && !before(seg.seq, tw.rcv_nxt) {
            return TwAction::Reset;
        }
        if !seg.ack() || !after(seg.end_seq, tw.rcv_nxt) || seg.end_seq == seg.seq {
            return TwAction::None;
        }
        // Data after we closed: nobody will read it (RFC 1122 §4.2.2.13).
        if !seg.fin() || seg.end_seq != tw.rcv_nxt.wrapping_add(1) {
            return TwAction::Reset;
        }
        tw.fin_wait2 = false;
        tw.rcv_nxt = seg.end_seq;
        take_ts(tw);
        return TwAction::Ack { restart: true };
    }

    if !paws && seg.seq == tw.rcv_nxt && (seg.seq == seg.end_seq || seg.rst()) {
        if seg.rst() {
            // RFC 1337: such a RST may be an old one; Linux takes it unless told otherwise.
            if !sh.sysctl.tcp_rfc1337 {
                return TwAction::Kill;
            }
            take_ts(tw);
            return TwAction::None;
        }
        take_ts(tw);
        return TwAction::Restart;
    }

    // RFC 1122 §4.2.2.13, RFC 6191: a SYN that is provably newer may open anew.
    let newer = after(seg.seq, tw.rcv_nxt)
        || tsval.is_some_and(|tsval| (tw.ts_recent.wrapping_sub(tsval) as i32) < 0);
    if seg.syn() && !seg.rst() && !seg.ack() && !paws && newer {
        return TwAction::Syn(tw.snd_nxt.wrapping_add(65_535 + 2).max(1));
    }
    if paws {
        sh.mib.inc(Counter::PAWSTimewait);
    }
    if seg.rst() {
        return TwAction::None;
    }
    limited_ack(tw, sh, paws || seg.ack())
}

/// Acks for a remnant (Linux `tcp_v4_timewait_ack`).
fn send_tw_ack(tw: &TimewaitSock, sh: &mut Shared, io: &mut Io<'_>) {
    let ack = BareAck {
        tuple: tw.tuple,
        seq: tw.snd_nxt,
        ack_seq: tw.rcv_nxt,
        window: (tw.rcv_wnd >> tw.rcv_wscale).min(u32::from(u16::MAX)) as u16,
        timestamps: tw.tstamp_ok.then(|| {
            (
                tcp_clock_ts(tw.usec_ts, io.now).wrapping_add(tw.tsoffset),
                tw.ts_recent,
            )
        }),
        tos: tw.tos,
        mark: tw.mark,
        priority: tw.priority,
    };
    tcp_send_bare_ack(sh, io.net, tw.dst.as_ref(), &ack);
}

/// The connection is over for the program, and its place in the table goes to a remnant (Linux `tcp_time_wait`).
/// `fin_wait2`: the peer's FIN is still awaited, `timeo_ns` long.
pub(crate) fn tcp_time_wait(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, fin_wait2: bool, timeo_ns: u64) {
    if cx.sh.timewaits < cx.sh.sysctl.tcp_max_tw_buckets {
        let rto = u64::from(sk.rto_us) * NSEC_PER_USEC;
        let timeout = if fin_wait2 {
            timeo_ns.max((rto << 2) - (rto >> 1))
        } else {
            TCP_TIMEWAIT_LEN_NS
        };
        cx.sh.mib.inc(Counter::TW);
        sk.timewait = Some(Box::new(TimewaitSock {
            tuple: sk.tuple,
            v6: sk.v6,
            fin_wait2,
            entered: cx.now,
            snd_nxt: sk.snd_nxt,
            rcv_nxt: sk.rcv_nxt,
            rcv_wnd: sk.receive_window(),
            rcv_wscale: sk.rcv_wscale,
            tstamp_ok: sk.tstamp_ok,
            tsoffset: sk.tsoffset,
            usec_ts: sk.tcp_usec_ts,
            ts_recent: sk.ts_recent,
            ts_recent_stamp: if sk.tstamp_ok { sk.ts_recent_stamp } else { 0 },
            last_oow_ack_time: Instant::ZERO,
            deadline: cx.now + timeout,
            dst: sk.dst,
            tos: sk.opts.ip_tos,
            mark: sk.opts.mark,
            priority: sk.opts.priority,
            held: sk.held,
            timer_queued: Instant::NEVER,
        }));
    } else {
        cx.sh.mib.inc(Counter::TCPTimeWaitOverflow);
    }
    tcp_update_metrics(sk, cx);
    tcp_done(sk, cx);
}

#[cfg(test)]
mod tests;
