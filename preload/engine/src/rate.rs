//! Delivery-rate sampling (Linux `tcp_rate.c`, draft-cheng-iccrg-delivery-rate-estimation).

use crate::rtt::tcp_min_rtt;
use crate::seq::after;
use crate::skb::{Sacked, Skb, TxSample};
use crate::sock::TcpSock;
use crate::stack::Cx;
use crate::time::Instant;

/// One ack's sample (Linux `struct rate_sample`).
#[derive(Clone, Copy, Debug)]
pub struct RateSample {
    /// Start of the sampling interval; `ZERO` when there is none.
    pub prior_mstamp: Instant,
    /// `delivered` at that time.
    pub prior_delivered: u32,
    /// Segments delivered over the interval, −1 when unknown.
    pub delivered: i32,
    /// Length of the interval in microseconds, −1 when unknown.
    pub interval_us: i64,
    /// RTT of the last segment acked or SACKed, −1 when unknown.
    pub rtt_us: i64,
    /// Segments marked lost by this ack.
    pub losses: u32,
    /// Segments acked or SACKed by this ack.
    pub acked_sacked: u32,
    /// In flight before this ack.
    pub prior_in_flight: u32,
    /// End of the buffer that the sample was taken from.
    pub last_end_seq: u32,
    /// The sample was taken while the program was the limit.
    pub is_app_limited: bool,
    /// It comes from a retransmission.
    pub is_retrans: bool,
    /// The peer may have waited before it acked.
    pub is_ack_delayed: bool,
}

impl Default for RateSample {
    fn default() -> Self {
        Self {
            prior_mstamp: Instant::ZERO,
            prior_delivered: 0,
            delivered: 0,
            interval_us: 0,
            rtt_us: -1,
            losses: 0,
            acked_sacked: 0,
            prior_in_flight: 0,
            last_end_seq: 0,
            is_app_limited: false,
            is_retrans: false,
            is_ack_delayed: false,
        }
    }
}

/// Was (`t1`, `seq1`) sent after (`t2`, `seq2`)?
#[inline]
pub(crate) fn tcp_skb_sent_after(t1: Instant, t2: Instant, seq1: u32, seq2: u32) -> bool {
    t1 > t2 || (t1 == t2 && after(seq1, seq2))
}

/// The state to keep with a buffer sent at `stamp`.
#[inline]
pub(crate) fn tcp_rate_skb_sent(sk: &mut TcpSock, stamp: Instant) -> TxSample {
    // An idle sender's interval starts now.
    if sk.packets_out == 0 {
        sk.first_tx_mstamp = stamp;
        sk.delivered_mstamp = stamp;
    }
    TxSample {
        delivered: sk.delivered,
        delivered_mstamp: sk.delivered_mstamp,
        first_tx_mstamp: sk.first_tx_mstamp,
        is_app_limited: sk.app_limited != 0,
    }
}

/// A buffer was acked or SACKed: the one sent last gives the sample. `first_tx` is the socket's `first_tx_mstamp`.
#[inline]
pub(crate) fn tcp_rate_skb_delivered(first_tx: &mut Instant, skb: &mut Skb, rs: &mut RateSample) {
    if skb.tx.delivered_mstamp == Instant::ZERO {
        return;
    }
    if rs.prior_delivered == 0
        || tcp_skb_sent_after(skb.skb_mstamp, *first_tx, skb.end_seq, rs.last_end_seq)
    {
        rs.prior_delivered = skb.tx.delivered;
        rs.prior_mstamp = skb.tx.delivered_mstamp;
        rs.is_app_limited = skb.tx.is_app_limited;
        rs.is_retrans = skb
            .sacked
            .intersects(Sacked::SACKED_RETRANS | Sacked::EVER_RETRANS);
        rs.last_end_seq = skb.end_seq;
        *first_tx = skb.skb_mstamp;
        rs.interval_us = skb.skb_mstamp.us_since(skb.tx.first_tx_mstamp) as i64;
    }
    // SACKed once, it must not count again when it is acked.
    if skb.sacked.contains(Sacked::SACKED_ACKED) {
        skb.tx.delivered_mstamp = Instant::ZERO;
    }
}

/// Finishes the sample and remembers the best rate for `tcp_info`.
pub(crate) fn tcp_rate_gen(
    sk: &mut TcpSock,
    cx: &Cx<'_, '_>,
    delivered: u32,
    lost: u32,
    sack_reneg: bool,
    rs: &mut RateSample,
) {
    if sk.app_limited != 0 && after(sk.delivered, sk.app_limited) {
        sk.app_limited = 0;
    }
    if delivered > 0 {
        sk.delivered_mstamp = cx.now;
    }
    rs.acked_sacked = delivered;
    rs.losses = lost;
    if rs.prior_mstamp == Instant::ZERO || sack_reneg {
        rs.delivered = -1;
        rs.interval_us = -1;
        return;
    }
    rs.delivered = sk.delivered.wrapping_sub(rs.prior_delivered) as i32;
    let ack_us = cx.now.us_since(rs.prior_mstamp) as i64;
    rs.interval_us = rs.interval_us.max(ack_us);
    // Shorter than the shortest RTT: acks were compressed on the way.
    if rs.interval_us < i64::from(tcp_min_rtt(sk)) {
        rs.interval_us = -1;
        return;
    }
    let better = u64::from(rs.delivered.max(0) as u32) * u64::from(sk.rate_interval_us)
        >= u64::from(sk.rate_delivered) * rs.interval_us as u64;
    if !rs.is_app_limited || better {
        sk.rate_delivered = rs.delivered as u32;
        sk.rate_interval_us = rs.interval_us as u32;
        sk.rate_app_limited = rs.is_app_limited;
    }
}

/// Notes that the program, not the network, is the limit (B7).
pub fn tcp_rate_check_app_limited(sk: &mut TcpSock) {
    if sk.notsent_bytes() < sk.mss_cache
        && !sk.tx_blocked
        && sk.packets_in_flight() < sk.snd_cwnd
        && sk.lost_out <= sk.retrans_out
    {
        sk.app_limited = sk.delivered.wrapping_add(sk.packets_in_flight()).max(1);
    }
}
