//! A segment of an open connection: Linux's `tcp_rcv_established` and the checks before it.

use sidewire_uapi::tcp::TcpState;

use crate::ack::{AckFlag, AckOutcome, oldest_ack, tcp_ack, tcp_may_update_window};
use crate::autocork;
use crate::data_queue::{
    rx_skb, tcp_data_queue, tcp_data_ready, tcp_event_data_recv, tcp_queue_rcv,
};
use crate::delack::{
    TCP_MAX_QUICKACKS, inet_csk_ack_scheduled, tcp_ack_snd_check, tcp_enter_quickack_mode,
};
use crate::mib::Counter;
use crate::ofo::{TCP_SACK_BLOCKS_EXPECTED, tcp_dsack_set};
use crate::output::{tcp_data_snd_check, tcp_send_ack};
use crate::rcvbuf::{rx_truesize, sk_forward_alloc, tcp_rcv_rtt_measure_ts};
use crate::segment::Segment;
use crate::seq::{after, before, between, min_seq};
use crate::skb::tcphdr;
use crate::sndbuf::tcp_check_space;
use crate::sock::TcpSock;
use crate::stack::{Cx, Shared};
use crate::state::tcp_reset;
use crate::time::{Instant, NSEC_PER_MSEC, NSEC_PER_SEC};
use crate::urgent::tcp_urg;

/// Timestamps may run back so far without failing PAWS, in ticks.
const TCP_PAWS_WINDOW: i32 = 1;
/// Seconds after which a peer's timestamp says nothing any more (its clock may have wrapped; Linux TCP_PAWS_WRAP).
pub(crate) const TCP_PAWS_WRAP_S: u64 = i32::MAX as u64 / 1_000_000;
/// Seconds after which a RST is excused from PAWS.
const TCP_PAWS_MSL_S: u64 = 60;

/// What a connection's state machine wants done about the segment itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Taken or dropped.
    Done,
    /// Answer it with a RST.
    Reset,
}

/// Seconds of the monotonic clock, as `ts_recent_stamp` counts. Never 0, which means "none".
#[inline]
pub(crate) fn now_s(now: Instant) -> u64 {
    now.0 / NSEC_PER_SEC + 1
}

/// True when a timestamp is not older than the newest by more than `paws_win` (Linux `tcp_paws_check`; RFC 7323 §5).
pub(crate) fn paws_check(
    ts_recent: u32,
    ts_recent_stamp: u64,
    rcv_tsval: u32,
    paws_win: i32,
    now: Instant,
) -> bool {
    (ts_recent.wrapping_sub(rcv_tsval) as i32) <= paws_win
        || now_s(now) >= ts_recent_stamp + TCP_PAWS_WRAP_S
        // Some send 0 with SYN and real values later.
        || ts_recent == 0
}

/// Linux `tcp_paws_reject`, for those who are no full socket.
pub(crate) fn paws_reject(
    ts_recent: u32,
    ts_recent_stamp: u64,
    rcv_tsval: u32,
    rst: bool,
    now: Instant,
) -> bool {
    if paws_check(ts_recent, ts_recent_stamp, rcv_tsval, 0, now) {
        return false;
    }
    // An old clock must not keep a peer that rebooted from resetting.
    !(rst && now_s(now) >= ts_recent_stamp + TCP_PAWS_MSL_S)
}

/// Takes over the timestamp of the segment (Linux `tcp_store_ts_recent`).
#[inline]
fn tcp_store_ts_recent(sk: &mut TcpSock, now: Instant) {
    sk.ts_recent = sk.rcv_tsval;
    sk.ts_recent_stamp = now_s(now);
}

/// The same, when the segment may set it (Linux `tcp_replace_ts_recent`).
pub(crate) fn tcp_replace_ts_recent(sk: &mut TcpSock, now: Instant, seq: u32) {
    if sk.saw_tstamp
        && !after(seq, sk.rcv_wup)
        && paws_check(sk.ts_recent, sk.ts_recent_stamp, sk.rcv_tsval, 0, now)
    {
        tcp_store_ts_recent(sk, now);
    }
}

/// Reads the timestamps of a segment into the socket, our own offset taken out of the echo.
#[inline]
pub(crate) fn read_timestamps(sk: &mut TcpSock, seg: &Segment) {
    match seg.opts.timestamps {
        Some((tsval, tsecr)) if sk.tstamp_ok => {
            sk.saw_tstamp = true;
            sk.rcv_tsval = tsval;
            sk.rcv_tsecr = if tsecr != 0 {
                tsecr.wrapping_sub(sk.tsoffset)
            } else {
                0
            };
        }
        _ => sk.saw_tstamp = false,
    }
}

/// True when an answer to a bad segment has to wait for its rate limit (Linux `__tcp_oow_rate_limited`).
pub(crate) fn oow_rate_limited(sh: &mut Shared, last: &mut Instant, now: Instant) -> bool {
    if *last != Instant::ZERO
        && now - *last < u64::from(sh.sysctl.tcp_invalid_ratelimit_ms) * NSEC_PER_MSEC
    {
        sh.mib.inc(Counter::TCPAckSkipped);
        return true;
    }
    *last = now;
    false
}

/// The same for a segment: data is never part of a loop of acks (Linux `tcp_oow_rate_limited`).
pub(crate) fn tcp_oow_rate_limited(
    sh: &mut Shared,
    seg: &Segment,
    last: &mut Instant,
    now: Instant,
) -> bool {
    if seg.seq != seg.end_seq && !seg.syn() {
        return false;
    }
    oow_rate_limited(sh, last, now)
}

/// Answers a suspicious segment with an ack, within the limits of RFC 5961 §7 (Linux `tcp_send_challenge_ack`).
pub(crate) fn tcp_send_challenge_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if oow_rate_limited(cx.sh, &mut sk.last_oow_ack_time, cx.now) {
        return;
    }
    let limit = cx.sh.sysctl.tcp_challenge_ack_limit;
    // Of 0 Linux draws its random number from all that there are.
    if limit != 0 && limit < i32::MAX as u32 {
        let second = cx.now.0 / NSEC_PER_SEC;
        if cx.sh.challenge.1 != second {
            // The random part hides the count from those who probe it.
            let half = limit.div_ceil(2);
            let random = cx.jitter(limit);
            cx.sh.challenge = (half + random, second);
        }
        if cx.sh.challenge.0 == 0 {
            return;
        }
        cx.sh.challenge.0 -= 1;
    }
    sk.challenge_count = sk.challenge_count.wrapping_add(1);
    cx.sh.mib.inc(Counter::TCPChallengeACK);
    tcp_send_ack(sk, cx);
}

/// Acks a segment that is out of the window, and says by DSACK what of it was a duplicate (Linux `tcp_send_dupack`).
fn tcp_send_dupack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) {
    if seg.end_seq != seg.seq && before(seg.seq, sk.rcv_nxt) {
        cx.sh.mib.inc(Counter::DelayedACKLost);
        tcp_enter_quickack_mode(sk, TCP_MAX_QUICKACKS);
        let end_seq = min_seq(seg.end_seq, sk.rcv_nxt);
        tcp_dsack_set(sk, cx.sh, seg.seq, end_seq);
    }
    tcp_send_ack(sk, cx);
}

/// Why PAWS refuses a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disordered {
    /// It is a pure ack that was overtaken.
    OldAck,
    /// It may be from an earlier life of the sequence space.
    Paws,
}

/// Tells an ack that was merely overtaken, and may even be used, from an old duplicate
/// (Linux `tcp_disordered_ack_check`).
fn tcp_disordered_ack_check(sk: &TcpSock, seg: &Segment) -> Option<Disordered> {
    if !seg.ack() || seg.seq != seg.end_seq {
        return Some(Disordered::Paws);
    }
    if seg.seq != sk.rcv_nxt {
        return Some(if before(seg.seq, sk.rcv_nxt) {
            Disordered::OldAck
        } else {
            Disordered::Paws
        });
    }
    let nwin = u32::from(seg.window) << sk.snd_wscale;
    // An RTO and a fifth, in timestamp ticks.
    let replay = (u64::from(sk.rto_us) * 6 / 5 / 1000) as i32;
    if seg.ack_seq != sk.snd_una
        || tcp_may_update_window(sk, seg, nwin)
        || (sk.ts_recent.wrapping_sub(sk.rcv_tsval) as i32) > replay
    {
        return Some(Disordered::Paws);
    }
    None
}

/// A RST right before a FIN that was taken belongs to the connection too (Linux `tcp_reset_check`).
fn tcp_reset_check(sk: &TcpSock, seg: &Segment) -> bool {
    seg.seq == sk.rcv_nxt.wrapping_sub(1)
        && sk.in_state(&[TcpState::CloseWait, TcpState::LastAck, TcpState::Closing])
}

/// Steps 1 to 4 of RFC 9293 §3.10.7.4, with RFC 7323 and RFC 5961 (Linux `tcp_validate_incoming`).
/// False when the segment has been dealt with. Timestamps have been read.
pub(crate) fn tcp_validate_incoming(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment) -> bool {
    if sk.saw_tstamp
        && !seg.rst()
        && !paws_check(
            sk.ts_recent,
            sk.ts_recent_stamp,
            sk.rcv_tsval,
            TCP_PAWS_WINDOW,
            cx.now,
        )
        && let Some(why) = tcp_disordered_ack_check(sk, seg)
    {
        if seg.syn() {
            syn_challenge(sk, cx);
            return false;
        }
        if why == Disordered::OldAck {
            cx.sh.mib.inc(Counter::PAWSOldAck);
            return false;
        }
        cx.sh.mib.inc(Counter::PAWSEstab);
        if !tcp_oow_rate_limited(cx.sh, seg, &mut sk.last_oow_ack_time, cx.now) {
            tcp_send_dupack(sk, cx, seg);
        }
        return false;
    }

    let right = sk.rcv_nxt.wrapping_add(sk.receive_window());
    if before(seg.end_seq, sk.rcv_wup) || after(seg.seq, right) {
        cx.sh.mib.inc(Counter::OutOfWindow);
        if seg.rst() {
            if tcp_reset_check(sk, seg) {
                tcp_reset(sk, cx);
            }
        } else if seg.syn() {
            syn_challenge(sk, cx);
        } else if !tcp_oow_rate_limited(cx.sh, seg, &mut sk.last_oow_ack_time, cx.now) {
            tcp_send_dupack(sk, cx, seg);
        }
        return false;
    }

    if seg.rst() {
        // RFC 5961 §3.2: only the exact number resets; the peer may also count from the end of what it SACKed.
        let blocks = &sk.selective_acks[..usize::from(sk.num_sacks)];
        let max_sack = blocks
            .iter()
            .map(|b| b.end_seq)
            .reduce(|a, b| if after(b, a) { b } else { a });
        if seg.seq == sk.rcv_nxt || tcp_reset_check(sk, seg) || max_sack == Some(seg.seq) {
            tcp_reset(sk, cx);
        } else {
            tcp_send_challenge_ack(sk, cx);
        }
        return false;
    }

    if seg.syn() {
        // The SYN-ACK of a simultaneous open may go on; any other SYN is challenged (RFC 5961 §4.2).
        let crossed = sk.state == TcpState::SynRecv
            && sk.parent.is_none()
            && seg.ack()
            && seg.seq.wrapping_add(1) == seg.end_seq
            && seg.end_seq == sk.rcv_nxt
            && seg.ack_seq == sk.snd_nxt;
        if !crossed {
            syn_challenge(sk, cx);
            return false;
        }
    }
    true
}

/// Counts a segment that is not taken; a RST that was is none (Linux `sk_drops_skbadd`).
pub(crate) fn tcp_drop(sk: &mut TcpSock, seg: &Segment) {
    if sk.state != TcpState::Close {
        sk.info.drops = sk.info.drops.wrapping_add(seg.gso_segs.max(1));
    }
}

/// A SYN on an open connection.
fn syn_challenge(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    cx.sh.mib.inc(Counter::TCPSYNChallenge);
    tcp_send_challenge_ack(sk, cx);
}

/// True when header prediction may take the segment: nothing but in-order data or an ack, with an unchanged window.
#[inline]
fn predicted(sk: &TcpSock, seg: &Segment) -> bool {
    seg.seq == sk.rcv_nxt
        && seg.flags & !tcphdr::PSH == tcphdr::ACK
        && u32::from(seg.window) << sk.snd_wscale == sk.snd_wnd
        && between(seg.ack_seq, oldest_ack(sk), sk.snd_nxt)
        && sk.ofo_queue.is_empty()
        && sk.urg_data == 0
        && sk.rcv_wnd != 0
        && sk.rmem_alloc < sk.rcvbuf
        && seg.opts.sack.is_empty()
        && sk.saw_tstamp == sk.tstamp_ok
        && (!sk.tstamp_ok || (sk.rcv_tsval.wrapping_sub(sk.ts_recent) as i32) >= 0)
        && seg.len <= sk.receive_window()
        // Data for which memory has to be asked is looked at in full.
        && (seg.len == 0 || rx_truesize(seg.len) <= sk_forward_alloc(sk))
}

/// The ack field in ESTABLISHED; false when the segment is to be dropped for it.
fn take_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, seg: &Segment, flag: AckFlag) -> bool {
    match tcp_ack(sk, cx, seg, flag) {
        AckOutcome::Ok | AckOutcome::Old => true,
        AckOutcome::TooOld | AckOutcome::Unsent => {
            tcp_send_challenge_ack(sk, cx);
            false
        }
    }
}

/// A segment in ESTABLISHED (Linux `tcp_rcv_established`). What it makes due (ack, data) is sent at the end of the batch.
pub(crate) fn tcp_rcv_established(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    seg: &mut Segment,
) -> Verdict {
    read_timestamps(sk, seg);
    if predicted(sk, seg) {
        if sk.tstamp_ok && sk.rcv_nxt == sk.rcv_wup {
            tcp_store_ts_recent(sk, cx.now);
        }
        let Some(payload) = seg.payload.take() else {
            take_ack(sk, cx, seg, AckFlag::empty());
            sk.data_snd_check = true;
            // A pure ack says nothing about how long our window takes.
            sk.tuning.last_tsecr = sk.rcv_tsecr;
            return Verdict::Done;
        };
        cx.sh.mib.inc(Counter::TCPHPHits);
        tcp_rcv_rtt_measure_ts(sk, seg, cx.now);
        let skb = rx_skb(seg, payload, cx.wall_ns);
        tcp_queue_rcv(sk, skb);
        tcp_event_data_recv(sk, cx, seg);
        if seg.ack_seq == sk.snd_una {
            sk.snd_wl1 = seg.seq;
        } else {
            take_ack(sk, cx, seg, AckFlag::DATA);
            sk.data_snd_check = true;
        }
        tcp_data_ready(sk, cx);
        return Verdict::Done;
    }

    if seg.flags & (tcphdr::ACK | tcphdr::RST | tcphdr::SYN) == 0 {
        cx.sh.mib.inc(Counter::BadFlags);
        return Verdict::Done;
    }
    if !tcp_validate_incoming(sk, cx, seg)
        || !take_ack(sk, cx, seg, AckFlag::SLOWPATH | AckFlag::UPDATE_TS_RECENT)
    {
        tcp_drop(sk, seg);
        return Verdict::Done;
    }
    tcp_rcv_rtt_measure_ts(sk, seg, cx.now);
    tcp_urg(sk, cx, seg);
    let ooo_before = sk.info.rcv_ooopack;
    tcp_data_queue(sk, cx, seg);
    sk.data_snd_check = true;
    ack_each_hole(sk, cx, ooo_before);
    Verdict::Done
}

/// Acks that are not put off to the end of the batch: a DSACK, which the next would replace, and segments out of order
/// without SACK, for the peer counts duplicate acks (RFC 5681 §3.2), or with more runs than one option is sure to report.
/// Otherwise one report at the end of the batch says what each would have said, unless the batch fills the hole.
pub(crate) fn ack_each_hole(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, ooo_before: u32) {
    let out_of_order = sk.info.rcv_ooopack != ooo_before;
    let counts = !sk.sack_ok || usize::from(sk.num_sacks) > TCP_SACK_BLOCKS_EXPECTED;
    let eager = sk.duplicate_sack.is_some() || (out_of_order && counts);
    if eager && sk.state != TcpState::Close && inet_csk_ack_scheduled(sk) {
        // Data that may go takes the ack along.
        data_snd_check(sk, cx);
        tcp_ack_snd_check(sk, cx);
    }
}

/// Sends the data that the segments of a batch let out; those that were dropped let out none.
fn data_snd_check(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if !core::mem::take(&mut sk.data_snd_check) {
        return;
    }
    if autocork::goes_on(sk) {
        tcp_check_space(sk, cx);
    } else {
        tcp_data_snd_check(sk, cx);
    }
}

/// What the segments of a batch made due (Linux does this per segment, or per GRO frame).
pub(crate) fn batch_end(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.state == TcpState::Close {
        return;
    }
    data_snd_check(sk, cx);
    // Nothing but more of the peer's hurries the ack of its SYN-ACK.
    let waits = core::mem::take(&mut sk.synack_ack_waits);
    let nothing_more = sk.rcv_nxt == sk.irs.wrapping_add(1) && sk.ofo_queue.is_empty();
    if !(waits && nothing_more) {
        tcp_ack_snd_check(sk, cx);
    }
}

/// Counts what came (Linux `tcp_segs_in`).
#[inline]
pub(crate) fn tcp_segs_in(sk: &mut TcpSock, seg: &Segment) {
    sk.info.segs_in = sk.info.segs_in.wrapping_add(seg.gso_segs);
    if seg.len > 0 {
        sk.info.data_segs_in = sk.info.data_segs_in.wrapping_add(seg.gso_segs);
    }
}

#[cfg(test)]
mod tests;
