//! Token-bucket policers: a path that loses much at a steady rate is held to that rate for a while, so that not every
//! probe for more is lost (Linux `bbr_lt_bw_sampling`, "long-term bandwidth").

use serde::{Deserialize, Serialize};

use super::mode::Mode;
use super::{BBR_SCALE, BBR_UNIT, Bbr, bandwidth, bytes_per_sec};
use crate::sock::TcpSock;

/// Shortest sampling interval, rounds.
const INTERVAL_MIN_RTTS: u32 = 4;
/// Longest, as a multiple of it.
const INTERVAL_MAX: u32 = 4;
/// Lost segments of 256 delivered that make a policer likely.
const LOSS_THRESH: u64 = 50;
/// Two intervals agree when their rates differ by at most this share (an eighth) of the earlier one ...
const BW_RATIO: u64 = (BBR_UNIT / 8) as u64;
/// ... or by so many bytes a second.
const BW_DIFF: u64 = 4000 / 8;
/// Rounds for which the rate is kept.
const MAX_RTTS: u32 = 48;

/// The search for a policer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Policer {
    is_sampling: bool,
    /// Is `lt_bw` believed?
    use_bw: bool,
    /// Rounds of the interval, or since the rate is used.
    rtt_cnt: u32,
    /// Rate of the last interval, 0 without one.
    lt_bw: u32,
    /// Where the interval began: milliseconds, `delivered`, `lost`.
    last_stamp_ms: u64,
    last_delivered: u32,
    last_lost: u32,
}

impl Policer {
    /// The rate to keep to, where there is a policer.
    pub(super) fn rate(&self) -> Option<u32> {
        self.use_bw.then_some(self.lt_bw)
    }

    fn begin_interval(&mut self, sk: &TcpSock) {
        self.last_stamp_ms = sk.delivered_mstamp.as_ms();
        self.last_delivered = sk.delivered;
        self.last_lost = sk.lost;
        self.rtt_cnt = 0;
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self, sk: &TcpSock) {
        *self = Self::default();
        self.begin_interval(sk);
    }

    /// An interval ended with the rate `bw`; true when it confirms the one before.
    fn interval_done(&mut self, sk: &TcpSock, bw: u32) -> bool {
        if self.lt_bw > 0 {
            let diff = bw.abs_diff(self.lt_bw);
            if u64::from(diff) << BBR_SCALE <= BW_RATIO * u64::from(self.lt_bw)
                || bytes_per_sec(sk, diff, BBR_UNIT) <= BW_DIFF
            {
                self.lt_bw = bw.midpoint(self.lt_bw);
                self.use_bw = true;
                self.rtt_cnt = 0;
                return true;
            }
        }
        self.lt_bw = bw;
        self.begin_interval(sk);
        false
    }

    /// Goes on with the interval. Intervals begin and end with a loss: the bucket is empty then. True when a policer was
    /// found.
    fn sample(&mut self, sk: &TcpSock, losses: u32, app_limited: bool, round_start: bool) -> bool {
        if !self.is_sampling {
            if losses == 0 {
                return false;
            }
            self.begin_interval(sk);
            self.is_sampling = true;
        }
        // The bucket fills up while the program has nothing to send.
        if app_limited {
            self.reset(sk);
            return false;
        }
        self.rtt_cnt += u32::from(round_start);
        if self.rtt_cnt < INTERVAL_MIN_RTTS {
            return false;
        }
        if self.rtt_cnt > INTERVAL_MAX * INTERVAL_MIN_RTTS {
            self.reset(sk);
            return false;
        }
        if losses == 0 {
            return false;
        }
        let lost = sk.lost.wrapping_sub(self.last_lost);
        let delivered = sk.delivered.wrapping_sub(self.last_delivered);
        if delivered == 0 || u64::from(lost) << BBR_SCALE < LOSS_THRESH * u64::from(delivered) {
            return false;
        }
        let ms = sk
            .delivered_mstamp
            .as_ms()
            .saturating_sub(self.last_stamp_ms);
        if ms == 0 {
            return false;
        }
        if ms >= u64::from(u32::MAX / 1_000) {
            self.reset(sk);
            return false;
        }
        self.interval_done(sk, bandwidth(delivered, ms * 1_000))
    }
}

impl Bbr {
    /// Looks for a policer, or asks whether it is time to try without.
    pub(super) fn sample_policer(&mut self, sk: &TcpSock, losses: u32, app_limited: bool) {
        if self.policer.use_bw {
            if self.mode == Mode::ProbeBw && self.round_start {
                self.policer.rtt_cnt += 1;
                if self.policer.rtt_cnt >= MAX_RTTS {
                    self.policer.reset(sk);
                    self.enter_probe_bw(sk);
                }
            }
        } else if self
            .policer
            .sample(sk, losses, app_limited, self.round_start)
        {
            self.pacing_gain = BBR_UNIT;
        }
    }
}
