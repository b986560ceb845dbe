//! Packetization layer path MTU discovery (RFC 4821; Linux `tcp_mtu_probe`, `tcp_mtu_probing`): where no router tells what a path
//! takes, one larger segment now and then finds it out, and timeouts in a row mean that it takes less than was thought.

use alloc::boxed::Box;

use serde::{Deserialize, Serialize};

use crate::cwnd::tcp_current_ssthresh;
use crate::mib::Counter;
use crate::mss::{TCP_HEADER, net_header_len, tcp_current_mss, tcp_mtu_to_mss, tcp_sync_mss};
use crate::output::{At, tcp_event_new_data_sent, tcp_transmit_skb};
use crate::recovery::tcp_simple_retransmit;
use crate::seq::after;
use crate::skb::{MAX_SKB_FRAGS, SKB_TRUESIZE, Skb, tcphdr};
use crate::sock::{CaState, TcpSock};
use crate::stack::Cx;
use crate::time::{Instant, NSEC_PER_SEC};
use crate::tso::{tcp_set_skb_tso_segs, tcp_skb_can_collapse, tcp_skb_collapse_tstamp};

/// `tcp_mtu_probing`: probe from the start, not only where timeouts tell of a black hole.
const ALWAYS: u8 = 2;
/// Congestion window below which a probe that is lost would cost too much.
const MIN_CWND: u32 = 11;

/// Linux's `icsk_mtup` and `mtu_probe`: what is searched, in bytes of IP packets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MtuProbe {
    /// Segments are bounded by `search_low`.
    pub enabled: bool,
    /// No larger packet is tried.
    pub search_high: u32,
    /// The path takes this much.
    pub search_low: u32,
    /// The packet that is being tried; 0 for none.
    pub probe_size: u32,
    /// When the search began.
    pub probe_timestamp: Instant,
    /// What the probe carries.
    pub probe_seq_start: u32,
    /// One more than its last.
    pub probe_seq_end: u32,
}

/// What became of [`tcp_mtu_probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// Nothing: segments go as usual.
    No,
    /// It waits for the window, and what is queued with it.
    Waits,
    /// It is on its way.
    Sent,
}

/// First values, of the handshake and of the connection (Linux `tcp_mtup_init`).
pub(crate) fn tcp_mtup_init(sk: &mut TcpSock, cx: &Cx<'_, '_>) {
    let sysctl = &cx.sh.sysctl;
    sk.mtup.enabled = sysctl.tcp_mtu_probing >= ALWAYS;
    sk.mtup.search_high = largest(sk);
    sk.mtup.search_low = tcp_mss_to_mtu(sk, sysctl.tcp_base_mss);
    sk.mtup.probe_size = 0;
    if sk.mtup.enabled {
        sk.mtup.probe_timestamp = cx.now;
    }
}

/// The largest packet that the peer takes.
fn largest(sk: &TcpSock) -> u32 {
    u32::from(sk.mss_clamp) + TCP_HEADER + net_header_len(sk)
}

/// The packet that carries `mss` bytes (Linux `tcp_mss_to_mtu`).
fn tcp_mss_to_mtu(sk: &TcpSock, mss: u32) -> u32 {
    mss + sk.tcp_header_len + net_header_len(sk)
}

/// A search that is long over begins anew (Linux `tcp_mtu_check_reprobe`).
fn tcp_mtu_check_reprobe(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let interval = u64::from(cx.sh.sysctl.tcp_probe_interval_s) * NSEC_PER_SEC;
    if cx.now < sk.mtup.probe_timestamp + interval {
        return;
    }
    let mss = tcp_current_mss(sk, cx);
    sk.mtup.probe_size = 0;
    sk.mtup.search_high = largest(sk);
    sk.mtup.search_low = tcp_mss_to_mtu(sk, mss);
    sk.mtup.probe_timestamp = cx.now;
}

/// Sends a segment larger than usual, made of the first that are queued, where that can be borne to be lost.
pub(crate) fn tcp_mtu_probe(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> Probed {
    if !sk.mtup.enabled
        || sk.mtup.probe_size != 0
        || sk.ca_state != CaState::Open
        || sk.snd_cwnd < MIN_CWND
        // Options of changing size would get in the way.
        || sk.num_sacks > 0
        || sk.duplicate_sack.is_some()
    {
        return Probed::No;
    }
    let mss_now = tcp_current_mss(sk, cx);
    let middle = (sk.mtup.search_high + sk.mtup.search_low) >> 1;
    let probe_size = tcp_mtu_to_mss(sk, middle, &cx.sh.sysctl);
    // Enough behind it to have its loss seen.
    let size_needed = probe_size + (sk.reordering + 1) * sk.mss_cache;
    let interval = sk.mtup.search_high.wrapping_sub(sk.mtup.search_low) as i32;
    if probe_size > tcp_mtu_to_mss(sk, sk.mtup.search_high, &cx.sh.sysctl)
        || interval < cx.sh.sysctl.tcp_probe_threshold
    {
        tcp_mtu_check_reprobe(sk, cx);
        return Probed::No;
    }
    if sk.write_seq.wrapping_sub(sk.snd_nxt) < size_needed || sk.snd_wnd < size_needed {
        return Probed::No;
    }
    if after(sk.snd_nxt.wrapping_add(size_needed), sk.wnd_end()) {
        return Probed::Waits;
    }
    let in_flight = sk.packets_in_flight();
    if in_flight + 2 > sk.snd_cwnd {
        return if in_flight == 0 {
            Probed::No
        } else {
            Probed::Waits
        };
    }
    let Some(probe) = take(sk, cx, probe_size, mss_now) else {
        return Probed::No;
    };
    sk.wmem_queued += probe.truesize;
    let (seq, end_seq) = (probe.seq, probe.end_seq);
    sk.write_queue.push_front(probe);
    // What does not leave is cut as usual.
    if tcp_transmit_skb(sk, cx, At::Head).is_err() {
        return Probed::No;
    }
    // It goes for two.
    sk.snd_cwnd -= 1;
    tcp_event_new_data_sent(sk, cx);
    sk.mtup.probe_size = tcp_mss_to_mtu(sk, end_seq.wrapping_sub(seq));
    sk.mtup.probe_seq_start = seq;
    sk.mtup.probe_seq_end = end_seq;
    Probed::Sent
}

/// Can the first `len` bytes that wait be one buffer (Linux `tcp_can_coalesce_send_queue_head` and `tcp_clone_payload`)? Those of a
/// zerocopy send stay what they are.
fn can_take(sk: &TcpSock, len: u32) -> bool {
    let mut left = len;
    let mut slots = 0;
    for (i, skb) in sk.write_queue.iter().enumerate() {
        if skb.ubuf.is_some() {
            return false;
        }
        let mut here = left.min(skb.len);
        for frag in &skb.frags {
            slots += usize::from(here > 0);
            here -= here.min(frag.len);
        }
        if left <= skb.len {
            return slots <= MAX_SKB_FRAGS;
        }
        let next = sk.write_queue.get(i + 1);
        if !skb.tx_flags.is_empty() || !next.is_some_and(|next| tcp_skb_can_collapse(skb, next)) {
            return false;
        }
        left -= skb.len;
    }
    false
}

/// Takes the first `len` bytes that wait out of the queue, as one buffer. What is left of the last one keeps its charge, as in
/// Linux.
fn take(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, len: u32, mss_now: u32) -> Option<Box<Skb>> {
    if !can_take(sk, len) {
        return None;
    }
    let mut probe = cx.sh.pool.alloc();
    let head = sk.write_queue.front()?;
    probe.seq = head.seq;
    probe.end_seq = head.seq.wrapping_add(len);
    probe.tcp_flags = tcphdr::ACK;
    probe.message = head.message;
    probe.truesize = SKB_TRUESIZE + len;
    while probe.len < len {
        let skb = sk.write_queue.front_mut()?;
        let copy = skb.len.min(len - probe.len);
        let mut left = copy;
        for frag in &skb.frags {
            let mut piece = frag.clone();
            piece.len = piece.len.min(left);
            left -= piece.len;
            if piece.len > 0 {
                probe.push_frag(piece);
            }
        }
        if copy < skb.len {
            probe.tcp_flags |= skb.tcp_flags & !(tcphdr::FIN | tcphdr::PSH);
            skb.trim_head(copy);
            skb.seq = skb.seq.wrapping_add(copy);
            tcp_set_skb_tso_segs(skb, mss_now);
        } else if let Some(skb) = sk.write_queue.pop_front() {
            probe.tcp_flags |= skb.tcp_flags;
            probe.eor |= skb.eor;
            tcp_skb_collapse_tstamp(&mut probe, &skb);
            sk.wmem_queued -= skb.truesize;
            cx.sh.pool.free(skb);
        }
    }
    tcp_set_skb_tso_segs(&mut probe, len);
    Some(probe)
}

/// The ack of what the probe carried (Linux `tcp_mtup_probe_success`): the congestion window stays the same in bytes.
pub(crate) fn tcp_mtup_acked(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.mtup.probe_size == 0 || after(sk.mtup.probe_seq_end, sk.snd_una) {
        return;
    }
    sk.prior_ssthresh = tcp_current_ssthresh(sk);
    let bytes = u64::from(sk.snd_cwnd) * u64::from(tcp_mss_to_mtu(sk, sk.mss_cache));
    sk.snd_cwnd = u32::try_from(bytes / u64::from(sk.mtup.probe_size)).map_or(1, |n| n.max(1));
    sk.snd_cwnd_cnt = 0;
    sk.snd_cwnd_stamp = cx.now;
    sk.snd_ssthresh = tcp_current_ssthresh(sk);
    sk.mtup.search_low = core::mem::take(&mut sk.mtup.probe_size);
    tcp_sync_mss(sk, cx, sk.pmtu_cookie);
    cx.sh.mib.inc(Counter::TCPMTUPSuccess);
}

/// Something is lost: true when that was the probe alone (Linux `tcp_mtup_probe_failed`), which tells of the path's MTU and not of
/// congestion. Its bytes go again in segments that fit.
pub(crate) fn tcp_mtup_lost(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> bool {
    let mtup = &mut sk.mtup;
    if sk.ca_state >= CaState::Cwr || mtup.probe_size == 0 || sk.snd_una != mtup.probe_seq_start {
        return false;
    }
    mtup.search_high = core::mem::take(&mut mtup.probe_size) - 1;
    cx.sh.mib.inc(Counter::TCPMTUPFail);
    sk.snd_cwnd += 1;
    tcp_simple_retransmit(sk, cx);
    true
}

/// Timeouts in a row: the path may swallow what is too large for it, and say nothing (Linux `tcp_mtu_probing`).
pub(crate) fn tcp_mtu_probing(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let sysctl = &cx.sh.sysctl;
    if sysctl.tcp_mtu_probing == 0 {
        return;
    }
    if sk.mtup.enabled {
        let mss = (tcp_mtu_to_mss(sk, sk.mtup.search_low, sysctl) >> 1)
            .min(sysctl.tcp_base_mss)
            .max(sysctl.tcp_mtu_probe_floor)
            .max(sysctl.tcp_min_snd_mss);
        sk.mtup.search_low = tcp_mss_to_mtu(sk, mss);
    } else {
        sk.mtup.enabled = true;
        sk.mtup.probe_timestamp = cx.now;
    }
    tcp_sync_mss(sk, cx, sk.pmtu_cookie);
}

#[cfg(test)]
mod tests;
