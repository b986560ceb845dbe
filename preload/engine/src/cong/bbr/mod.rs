//! BBR, version 1, as Linux 6.16's tcp_bbr and draft-cardwell-iccrg-bbr-congestion-control-00 have it: a model of the
//! path (its bandwidth, its round-trip time without a queue) sets pacing rate and congestion window; losses by
//! themselves do not.
//!
//! Bandwidth is counted in segments a microsecond with 24 bits of fraction, gains have 8. The modes are in `mode`, the
//! congestion window in `inflight`, paths with a policer in `policer`, bundled acks in `aggregation`.

mod aggregation;
mod inflight;
mod mode;
mod policer;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(super) use self::inflight::min_tso_segs;

use self::aggregation::Aggregation;
use self::mode::{Cycle, FullPipe, Mode, ProbeRtt};
use self::policer::Policer;
use super::minmax::WindowedMax;
use crate::rate::RateSample;
use crate::rtt::tcp_min_rtt;
use crate::seq::before;
use crate::sock::{CaState, TCP_INFINITE_SSTHRESH, TcpSock};
use crate::time::Instant;

/// Fraction bits of a bandwidth.
const BW_SCALE: u32 = 24;
/// One segment a microsecond.
const BW_UNIT: u64 = 1 << BW_SCALE;
/// Fraction bits of a gain.
const BBR_SCALE: u32 = 8;
/// A gain of 1.
const BBR_UNIT: u32 = 1 << BBR_SCALE;

/// Rounds that the bandwidth is the maximum of: a cycle of gains and two more.
const BW_ROUNDS: u32 = mode::CYCLE_LEN as u32 + 2;
/// 2/ln 2: the smallest gain that doubles the rate each round.
const HIGH_GAIN: u32 = BBR_UNIT * 2885 / 1000 + 1;
/// Its inverse, which empties the queue that STARTUP built in about a round.
const DRAIN_GAIN: u32 = BBR_UNIT * 1000 / 2885;
/// Twice the bandwidth-delay product, for acks that come late and bundled.
const CWND_GAIN: u32 = BBR_UNIT * 2;
/// The pacing rate stays so much below the estimate, per cent, to let queues drain.
const PACING_MARGIN_PERCENT: u64 = 1;
/// Round-trip time to begin with when the handshake gave none, microseconds.
const RTT_GUESS_US: u64 = 1_000;

/// BBR's state: Linux's `struct bbr`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bbr {
    // The model of the path
    /// Bandwidth.
    bw: WindowedMax,
    /// Smallest round-trip time of the last ten seconds, microseconds; `u32::MAX` before the first.
    min_rtt_us: u32,
    /// When that was measured.
    min_rtt_stamp: Instant,
    aggregation: Aggregation,
    policer: Policer,

    // Rounds: a round trip counted in segments
    rtt_cnt: u32,
    /// `delivered` that ends the running round.
    next_rtt_delivered: u32,
    /// This ack began a round.
    round_start: bool,

    // Where the machine stands
    mode: Mode,
    full_pipe: FullPipe,
    cycle: Cycle,
    probe_rtt: ProbeRtt,
    pacing_gain: u32,
    cwnd_gain: u32,
    /// Sending began again after the program was the limit: no PROBE_RTT for that.
    idle_restart: bool,
    /// The pacing rate rests on a measured round-trip time.
    has_seen_rtt: bool,

    // Recovery
    /// Window to return to, segments.
    prior_cwnd: u32,
    prev_ca_state: CaState,
    /// The first round of a recovery sends what is delivered, no more.
    packet_conservation: bool,

    /// State of the generator of start phases.
    prng: u32,
}

/// Bytes a second of `bw` times `gain`, less the margin (Linux `bbr_rate_bytes_per_sec`).
fn bytes_per_sec(sk: &TcpSock, bw: u32, gain: u32) -> u64 {
    let rate = u64::from(bw) * u64::from(sk.mss_cache);
    let rate = rate.saturating_mul(u64::from(gain)) >> BBR_SCALE;
    rate.saturating_mul(1_000_000 / 100 * (100 - PACING_MARGIN_PERCENT)) >> BW_SCALE
}

fn pacing_rate(sk: &TcpSock, bw: u32, gain: u32) -> u64 {
    bytes_per_sec(sk, bw, gain).min(sk.opts.max_pacing_rate)
}

/// Segments over microseconds as a bandwidth.
fn bandwidth(segments: u32, us: u64) -> u32 {
    let bw = (u64::from(segments) << BW_SCALE) / us.max(1);
    u32::try_from(bw).unwrap_or(u32::MAX)
}

impl Bbr {
    /// A connection begins. `seed` chooses the start phases (Linux `bbr_init`).
    pub(super) fn init(&mut self, sk: &mut TcpSock, now: Instant, seed: u32) {
        sk.snd_ssthresh = TCP_INFINITE_SSTHRESH;
        sk.opts.pacing_needed = true;
        *self = Self {
            min_rtt_us: tcp_min_rtt(sk),
            min_rtt_stamp: now,
            next_rtt_delivered: sk.delivered,
            // As they are until the first ack: TCP_CC_INFO of a new connection reads PROBE_RTT's where it connected (the
            // SYN-ACK came to a state of zeros, whose round-trip time had expired), 0 where it was accepted.
            pacing_gain: self.pacing_gain,
            cwnd_gain: self.cwnd_gain,
            prng: seed,
            ..Self::default()
        };
        self.init_pacing_rate(sk);
        self.policer.reset(sk);
        self.aggregation.restart(now);
    }

    /// An ack (Linux `bbr_main`): the model, then what follows from it.
    pub(super) fn on_ack(&mut self, sk: &mut TcpSock, rs: &RateSample, now: Instant) {
        self.update_bandwidth(sk, rs);
        let bw = self.bandwidth();
        self.aggregation.update(sk, rs, bw, self.round_start);
        self.update_cycle(sk, rs, now);
        self.check_full_pipe(rs);
        self.check_drain(sk, now);
        self.update_min_rtt(sk, rs, now);
        self.update_gains();
        let bw = self.bandwidth();
        self.set_pacing_rate(sk, bw, self.pacing_gain);
        self.set_cwnd(sk, rs, bw);
    }

    /// Takes one delivery-rate sample and counts rounds (draft §4.1.1; Linux `bbr_update_bw`).
    fn update_bandwidth(&mut self, sk: &TcpSock, rs: &RateSample) {
        self.round_start = false;
        let (Ok(delivered), Ok(interval_us @ 1..)) =
            (u32::try_from(rs.delivered), u64::try_from(rs.interval_us))
        else {
            return;
        };
        if !before(rs.prior_delivered, self.next_rtt_delivered) {
            self.next_rtt_delivered = sk.delivered;
            self.rtt_cnt = self.rtt_cnt.wrapping_add(1);
            self.round_start = true;
            self.packet_conservation = false;
        }
        self.sample_policer(sk, rs.losses, rs.is_app_limited);
        // Something was delivered: a rate that rounds to nothing would stop the connection.
        let bw = bandwidth(delivered, interval_us).max(1);
        // A sample that the program limited says only what the path does at least.
        if !rs.is_app_limited || bw >= self.bw.get() {
            self.bw.update(BW_ROUNDS, self.rtt_cnt, bw);
        }
    }

    /// What the path is taken to carry: the policer's rate where one was found.
    fn bandwidth(&self) -> u32 {
        self.policer.rate().unwrap_or_else(|| self.bw.get())
    }

    fn update_gains(&mut self) {
        (self.pacing_gain, self.cwnd_gain) = match self.mode {
            Mode::Startup => (HIGH_GAIN, HIGH_GAIN),
            Mode::Drain => (DRAIN_GAIN, HIGH_GAIN),
            Mode::ProbeBw if self.policer.rate().is_some() => (BBR_UNIT, CWND_GAIN),
            Mode::ProbeBw => (self.cycle.gain(), CWND_GAIN),
            Mode::ProbeRtt => (BBR_UNIT, BBR_UNIT),
        };
    }

    /// The first window in one round-trip time, at STARTUP's gain (Linux `bbr_init_pacing_rate_from_rtt`).
    fn init_pacing_rate(&mut self, sk: &mut TcpSock) {
        let rtt_us = if sk.srtt_us > 0 {
            self.has_seen_rtt = true;
            u64::from(sk.srtt_us >> 3).max(1)
        } else {
            RTT_GUESS_US
        };
        let bw = bandwidth(sk.snd_cwnd, rtt_us);
        sk.pacing_rate = pacing_rate(sk, bw, HIGH_GAIN);
    }

    /// Until the pipe is full the rate does not fall: first samples are often too low.
    fn set_pacing_rate(&mut self, sk: &mut TcpSock, bw: u32, gain: u32) {
        let rate = pacing_rate(sk, bw, gain);
        if !self.has_seen_rtt && sk.srtt_us > 0 {
            self.init_pacing_rate(sk);
        }
        if self.full_pipe.reached || rate > sk.pacing_rate {
            sk.pacing_rate = rate;
        }
    }

    /// Sending begins again after nothing was in flight. When the program was the limit, the rate is the path's at once:
    /// there is no queue to probe or to drain.
    pub(super) fn tx_start(&mut self, sk: &mut TcpSock, now: Instant) {
        if sk.app_limited == 0 {
            return;
        }
        self.idle_restart = true;
        self.aggregation.restart(now);
        match self.mode {
            Mode::ProbeBw => self.set_pacing_rate(sk, self.bandwidth(), BBR_UNIT),
            Mode::ProbeRtt => self.check_probe_rtt_done(sk, now),
            Mode::Startup | Mode::Drain => {}
        }
    }

    /// A timeout: what was learned about a full pipe may be outdated (Linux `bbr_set_state`).
    pub(super) fn on_loss_state(&mut self, sk: &TcpSock) {
        self.prev_ca_state = CaState::Loss;
        self.full_pipe.bw = 0;
        self.round_start = true;
        self.sample_policer(sk, 1, false);
    }

    /// A loss proved to be none.
    pub(super) fn undo(&mut self, sk: &TcpSock) {
        self.full_pipe.bw = 0;
        self.full_pipe.flat_rounds = 0;
        self.policer.reset(sk);
    }

    /// A number below `bound` (> 0).
    fn random(&mut self, bound: u32) -> u32 {
        self.prng = self
            .prng
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        (self.prng >> 16) % bound
    }

    /// `struct tcp_bbr_info`: bandwidth in bytes a second as two words, smallest round-trip time in microseconds, gains
    /// in 1/256.
    pub(super) fn info(&self, sk: &TcpSock) -> [u32; 5] {
        let bw = u64::from(self.bandwidth()) * u64::from(sk.mss_cache);
        let bw = bw.wrapping_mul(1_000_000) >> BW_SCALE;
        [
            bw as u32,
            (bw >> 32) as u32,
            self.min_rtt_us,
            self.pacing_gain,
            self.cwnd_gain,
        ]
    }
}
