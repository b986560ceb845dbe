//! Acks that come in bundles (Wi-Fi, cable, receive offload): between two bundles more is in flight than the
//! bandwidth-delay product, and the window has to leave room for it (Linux `bbr_update_ack_aggregation`).

use serde::{Deserialize, Serialize};

use super::BW_SCALE;
use crate::rate::RateSample;
use crate::sock::TcpSock;
use crate::time::Instant;

/// Rounds of each half of the window that the excess is the maximum of.
const WIN_ROUNDS: u8 = 5;
/// Segments after which an epoch begins anew.
const EPOCH_MAX: u32 = 1 << 20;
/// The excess is worth at most so much time at the bandwidth, microseconds.
const MAX_US: u64 = 100_000;

/// How much more was acked than the bandwidth explains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aggregation {
    /// When the epoch began.
    ack_epoch: Instant,
    /// Segments acked in it.
    ack_epoch_acked: u32,
    /// Largest excess, segments, of the present half of the window and of the one before.
    extra_acked: [u32; 2],
    second_half: bool,
    win_rounds: u8,
}

impl Aggregation {
    /// Acks are counted from now on.
    pub(super) fn restart(&mut self, now: Instant) {
        self.ack_epoch = now;
        self.ack_epoch_acked = 0;
    }

    pub(super) fn update(&mut self, sk: &TcpSock, rs: &RateSample, bw: u32, round_start: bool) {
        if rs.acked_sacked == 0 || rs.delivered < 0 || rs.interval_us <= 0 {
            return;
        }
        if round_start {
            self.win_rounds += 1;
            if self.win_rounds >= WIN_ROUNDS {
                self.win_rounds = 0;
                self.second_half = !self.second_half;
                self.extra_acked[usize::from(self.second_half)] = 0;
            }
        }
        let epoch_us = sk.delivered_mstamp.us_since(self.ack_epoch);
        let expected = (u128::from(bw) * u128::from(epoch_us)) >> BW_SCALE;
        let mut expected = u32::try_from(expected).unwrap_or(u32::MAX);
        // Acks came no faster than the bandwidth: the epoch is over.
        if self.ack_epoch_acked <= expected
            || self.ack_epoch_acked.saturating_add(rs.acked_sacked) >= EPOCH_MAX
        {
            self.restart(sk.delivered_mstamp);
            expected = 0;
        }
        self.ack_epoch_acked =
            (self.ack_epoch_acked.saturating_add(rs.acked_sacked)).min(EPOCH_MAX - 1);
        let extra = self.ack_epoch_acked.saturating_sub(expected);
        let max = &mut self.extra_acked[usize::from(self.second_half)];
        *max = (*max).max(extra.min(sk.snd_cwnd));
    }

    /// Segments that the window gets on top.
    pub(super) fn extra_cwnd(&self, bw: u32) -> u32 {
        let max = (u64::from(bw) * MAX_US) >> BW_SCALE;
        let extra = self.extra_acked[0].max(self.extra_acked[1]);
        extra.min(u32::try_from(max).unwrap_or(u32::MAX))
    }
}
