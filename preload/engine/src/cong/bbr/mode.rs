//! The modes: STARTUP finds the bandwidth, DRAIN empties the queue that this made, PROBE_BW lives at the bandwidth and
//! asks for more once a cycle, PROBE_RTT empties the pipe now and then to see the path's own round-trip time (draft
//! §4.3).

use serde::{Deserialize, Serialize};

use super::inflight::MIN_CWND;
use super::{BBR_SCALE, BBR_UNIT, Bbr};
use crate::rate::RateSample;
use crate::sock::{CaState, TcpSock};
use crate::time::{Instant, NSEC_PER_MSEC, NSEC_PER_SEC};

/// Phases of PROBE_BW's cycle, each about a round-trip time long.
pub(super) const CYCLE_LEN: u8 = 8;
/// Start phases to choose among: all but the one that drains.
const CYCLE_RAND: u32 = 7;
/// Growth of the bandwidth below which a round counts as flat: a quarter.
const FULL_BW_THRESH: u64 = (BBR_UNIT * 5 / 4) as u64;
/// Flat rounds that make the pipe full.
const FULL_BW_CNT: u8 = 3;
/// The smallest round-trip time is believed for so long, nanoseconds.
const MIN_RTT_WIN_NS: u64 = 10 * NSEC_PER_SEC;
/// PROBE_RTT keeps the pipe empty for at least so long, nanoseconds.
const PROBE_RTT_NS: u64 = 200 * NSEC_PER_MSEC;

/// Linux's `enum bbr_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mode {
    /// BBR_STARTUP.
    #[default]
    Startup,
    /// BBR_DRAIN.
    Drain,
    /// BBR_PROBE_BW.
    ProbeBw,
    /// BBR_PROBE_RTT.
    ProbeRtt,
}

/// The search for the end of STARTUP's growth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FullPipe {
    /// Bandwidth when it last grew.
    pub(super) bw: u32,
    /// Rounds since then.
    pub(super) flat_rounds: u8,
    pub(super) reached: bool,
}

/// Where PROBE_BW's cycle stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cycle {
    phase: u8,
    /// When the phase began.
    since: Instant,
}

impl Cycle {
    /// Up by a quarter, down by as much, then level.
    pub(super) const fn gain(&self) -> u32 {
        match self.phase {
            0 => BBR_UNIT * 5 / 4,
            1 => BBR_UNIT * 3 / 4,
            _ => BBR_UNIT,
        }
    }

    #[cfg(test)]
    pub(super) fn at(phase: u8) -> Self {
        Self {
            phase,
            ..Self::default()
        }
    }

    #[cfg(test)]
    pub(super) const fn phase(&self) -> u8 {
        self.phase
    }

    /// In the phase that asks for more?
    pub(super) const fn probes_up(&self) -> bool {
        self.phase == 0
    }
}

/// How far PROBE_RTT is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProbeRtt {
    /// Its end, once the pipe is as empty as it gets.
    done: Option<Instant>,
    /// A round has passed since then.
    round_done: bool,
}

impl Bbr {
    /// Begins the cycle at a random phase, so that flows do not probe in step (Linux `bbr_reset_probe_bw_mode`).
    pub(super) fn enter_probe_bw(&mut self, sk: &TcpSock) {
        self.mode = Mode::ProbeBw;
        self.cycle.phase = CYCLE_LEN - 1 - self.random(CYCLE_RAND) as u8;
        self.next_phase(sk);
    }

    fn next_phase(&mut self, sk: &TcpSock) {
        self.cycle.phase = (self.cycle.phase + 1) % CYCLE_LEN;
        self.cycle.since = sk.delivered_mstamp;
    }

    /// Is the phase over (Linux `bbr_is_next_cycle_phase`)?
    pub(super) fn update_cycle(&mut self, sk: &TcpSock, rs: &RateSample, now: Instant) {
        if self.mode != Mode::ProbeBw {
            return;
        }
        let full_length =
            sk.delivered_mstamp.us_since(self.cycle.since) > u64::from(self.min_rtt_us);
        let bw = self.bw.get();
        let in_net = || self.in_net_at_departure(sk, rs.prior_in_flight, now);
        let over = if self.pacing_gain > BBR_UNIT {
            // More is asked for until it is in flight, or lost: a short queue may not hold it.
            full_length && (rs.losses > 0 || in_net() >= self.inflight(sk, bw, self.pacing_gain))
        } else if self.pacing_gain < BBR_UNIT {
            // Drained early.
            full_length || in_net() <= self.inflight(sk, bw, BBR_UNIT)
        } else {
            full_length
        };
        if over {
            self.next_phase(sk);
        }
    }

    /// Three rounds without a quarter more of bandwidth: the pipe is full (draft §4.3.2.2).
    pub(super) fn check_full_pipe(&mut self, rs: &RateSample) {
        let full = &mut self.full_pipe;
        if full.reached || !self.round_start || rs.is_app_limited {
            return;
        }
        let bw = self.bw.get();
        if u64::from(bw) >= (u64::from(full.bw) * FULL_BW_THRESH) >> BBR_SCALE {
            full.bw = bw;
            full.flat_rounds = 0;
            return;
        }
        full.flat_rounds += 1;
        full.reached = full.flat_rounds >= FULL_BW_CNT;
    }

    /// From STARTUP to DRAIN, and on when no more than the path's own product is in flight.
    pub(super) fn check_drain(&mut self, sk: &mut TcpSock, now: Instant) {
        let bw = self.bw.get();
        if self.mode == Mode::Startup && self.full_pipe.reached {
            self.mode = Mode::Drain;
            sk.snd_ssthresh = self.inflight(sk, bw, BBR_UNIT);
        }
        if self.mode == Mode::Drain
            && self.in_net_at_departure(sk, sk.packets_in_flight(), now)
                <= self.inflight(sk, bw, BBR_UNIT)
        {
            self.enter_probe_bw(sk);
        }
    }

    /// Keeps the smallest round-trip time, and goes into and through PROBE_RTT (Linux `bbr_update_min_rtt`).
    pub(super) fn update_min_rtt(&mut self, sk: &mut TcpSock, rs: &RateSample, now: Instant) {
        let expired = now > self.min_rtt_stamp + MIN_RTT_WIN_NS;
        if let Ok(rtt_us) = u32::try_from(rs.rtt_us)
            && (rtt_us < self.min_rtt_us || (expired && !rs.is_ack_delayed))
        {
            self.min_rtt_us = rtt_us;
            self.min_rtt_stamp = now;
        }
        if expired && !self.idle_restart && self.mode != Mode::ProbeRtt {
            self.mode = Mode::ProbeRtt;
            self.save_cwnd(sk);
            self.probe_rtt.done = None;
        }
        if self.mode == Mode::ProbeRtt {
            self.go_through_probe_rtt(sk, now);
        }
        if rs.delivered > 0 {
            self.idle_restart = false;
        }
    }

    fn go_through_probe_rtt(&mut self, sk: &mut TcpSock, now: Instant) {
        // Samples of so small a window say nothing about the bandwidth.
        sk.app_limited = sk.delivered.wrapping_add(sk.packets_in_flight()).max(1);
        if self.probe_rtt.done.is_some() {
            self.probe_rtt.round_done |= self.round_start;
            if self.probe_rtt.round_done {
                self.check_probe_rtt_done(sk, now);
            }
        } else if sk.packets_in_flight() <= MIN_CWND {
            self.probe_rtt.done = Some(now + PROBE_RTT_NS);
            self.probe_rtt.round_done = false;
            self.next_rtt_delivered = sk.delivered;
        }
    }

    pub(super) fn check_probe_rtt_done(&mut self, sk: &mut TcpSock, now: Instant) {
        if self.probe_rtt.done.is_none_or(|done| now <= done) {
            return;
        }
        self.min_rtt_stamp = now;
        sk.snd_cwnd = sk.snd_cwnd.max(self.prior_cwnd);
        if self.full_pipe.reached {
            self.enter_probe_bw(sk);
        } else {
            self.mode = Mode::Startup;
        }
    }

    /// Remembers the window that recovery or PROBE_RTT is going to cut (Linux `bbr_save_cwnd`).
    pub(in crate::cong) fn save_cwnd(&mut self, sk: &TcpSock) {
        let good = self.prev_ca_state < CaState::Recovery && self.mode != Mode::ProbeRtt;
        self.prior_cwnd = if good {
            sk.snd_cwnd
        } else {
            self.prior_cwnd.max(sk.snd_cwnd)
        };
    }
}
