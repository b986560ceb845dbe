//! CUBIC (RFC 9438) with HyStart, in Linux's fixed-point arithmetic and with its constants.
//!
//! Time is counted in units of 1/1024 s (`BICTCP_HZ` bits) since the epoch began, windows in segments, delays in
//! microseconds.

use crate::seq::after;
use crate::sock::TcpSock;
use crate::time::{HZ, Instant, JIFFY_NS, NSEC_PER_SEC};
use serde::{Deserialize, Serialize};

/// Window left after a loss, in 1/1024: RFC 9438's 0.7.
const BETA: u64 = 717;
const BETA_SCALE: u64 = 1024;
/// Fraction bits of a second.
const BICTCP_HZ: u32 = 10;
/// RFC 9438's C = 0.4, times 1024.
const CUBE_RTT_SCALE: u64 = 410;
/// 2^40 / C, so that K = cbrt(factor * distance) comes out in 1/1024 s.
const CUBE_FACTOR: u64 = (1 << (10 + 3 * BICTCP_HZ)) / CUBE_RTT_SCALE;
/// Reno-friendliness: 8 * (1 + beta) / 3 / (1 - beta).
const RENO_SCALE: u64 = 8 * (BETA_SCALE + BETA) / 3 / (BETA_SCALE - BETA);

/// HyStart looks only at windows of at least this many segments.
const HYSTART_LOW_WINDOW: u32 = 16;
/// RTT samples a round needs before the delay test counts.
const HYSTART_MIN_SAMPLES: u8 = 8;
/// Acks closer together than this, in microseconds, belong to one train.
const HYSTART_ACK_DELTA_US: u64 = 2_000;
/// Bounds of the delay increase that ends slow start, microseconds.
const HYSTART_DELAY_MIN_US: u64 = 4_000;
const HYSTART_DELAY_MAX_US: u64 = 16_000;

/// CUBIC's state: Linux's `struct bictcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cubic {
    /// Acked segments that one more segment of window costs.
    pub(super) cnt: u32,
    last_max_cwnd: u32,
    last_cwnd: u32,
    last_time: Option<Instant>,
    origin_point: u32,
    k: u64,
    delay_min_us: u64,
    epoch_start: Option<Instant>,
    ack_cnt: u64,
    tcp_cwnd: u32,
    // HyStart
    sample_cnt: u8,
    found: bool,
    round_start: Instant,
    end_seq: u32,
    last_ack: Instant,
    curr_rtt_us: u64,
}

/// A point of time at the clock's resolution: Linux compares jiffies, so two acks of one jiffy are simultaneous.
const fn jiffy(t: Instant) -> u64 {
    t.0 / JIFFY_NS
}

impl Cubic {
    pub(super) fn init(&mut self, sk: &TcpSock, now: Instant) {
        *self = Self::default();
        self.hystart_reset(sk, now);
    }

    pub(super) fn reset_on_loss(&mut self, sk: &TcpSock, now: Instant) {
        self.init(sk, now);
    }

    /// Multiplicative decrease with fast convergence (RFC 9438 §4.6, §4.7).
    pub(super) fn recalc_ssthresh(&mut self, cwnd: u32) -> u32 {
        self.epoch_start = None;
        let w = u64::from(cwnd);
        self.last_max_cwnd = if cwnd < self.last_max_cwnd {
            (w * (BETA_SCALE + BETA) / (2 * BETA_SCALE)) as u32
        } else {
            cwnd
        };
        ((w * BETA / BETA_SCALE) as u32).max(2)
    }

    /// An idle time is not part of the epoch: otherwise the window would jump after it.
    pub(super) fn tx_start(&mut self, lsndtime: Instant, now: Instant) {
        if let Some(start) = self.epoch_start {
            let idle = now - lsndtime;
            if idle > 0 {
                self.epoch_start = Some((start + idle).min(now));
            }
        }
    }

    /// RFC 9438 §4.2 to §4.5: how many acked segments the next segment of window costs.
    pub(super) fn update(&mut self, cwnd: u32, acked: u32, now: Instant) {
        self.ack_cnt += u64::from(acked);
        let last = self.last_time.map_or(0, jiffy);
        let seen = self.last_time.is_some();
        if seen && self.last_cwnd == cwnd && jiffy(now) - last <= HZ / 32 {
            return;
        }
        // The curve is read once a jiffy; the Reno-friendly region follows every ack.
        if !(self.epoch_start.is_some() && seen && jiffy(now) == last) {
            self.last_cwnd = cwnd;
            self.last_time = Some(now);
            self.read_curve(cwnd, acked, now);
        }
        self.reno_friendly(cwnd);
        self.cnt = self.cnt.max(2);
    }

    fn read_curve(&mut self, cwnd: u32, acked: u32, now: Instant) {
        let start = *self.epoch_start.get_or_insert_with(|| {
            self.ack_cnt = u64::from(acked);
            self.tcp_cwnd = cwnd;
            if self.last_max_cwnd <= cwnd {
                self.k = 0;
                self.origin_point = cwnd;
            } else {
                self.k = cubic_root(CUBE_FACTOR * u64::from(self.last_max_cwnd - cwnd));
                self.origin_point = self.last_max_cwnd;
            }
            now
        });
        // Where the window should be one minimal RTT from now.
        let ns = (now - start) + self.delay_min_us * 1_000;
        let t = (jiffy(Instant(ns)) << BICTCP_HZ) / HZ;
        let offs = t.abs_diff(self.k);
        let delta = (u128::from(CUBE_RTT_SCALE) * u128::from(offs).pow(3)) >> (10 + 3 * BICTCP_HZ);
        let delta = u32::try_from(delta).unwrap_or(u32::MAX / 2);
        let target = if t < self.k {
            self.origin_point.saturating_sub(delta)
        } else {
            self.origin_point.saturating_add(delta)
        };
        self.cnt = if target > cwnd {
            cwnd / (target - cwnd)
        } else {
            100 * cwnd
        };
        // Before the first loss there is no curve to follow: grow at least 5 % an RTT.
        if self.last_max_cwnd == 0 && self.cnt > 20 {
            self.cnt = 20;
        }
    }

    /// Never slower than Reno would be (RFC 9438 §4.3).
    fn reno_friendly(&mut self, cwnd: u32) {
        let delta = (u64::from(cwnd) * RENO_SCALE) >> 3;
        if let Some(steps) = self.ack_cnt.saturating_sub(1).checked_div(delta) {
            self.ack_cnt -= steps * delta;
            self.tcp_cwnd = self.tcp_cwnd.saturating_add(steps as u32);
        }
        if self.tcp_cwnd > cwnd {
            self.cnt = self.cnt.min(cwnd / (self.tcp_cwnd - cwnd));
        }
    }

    /// Takes an RTT sample: the minimal delay, and HyStart's tests while in slow start.
    pub(super) fn acked(&mut self, sk: &mut TcpSock, rtt_us: u64, now: Instant) {
        // Just after a recovery the samples carry its queue.
        if self
            .epoch_start
            .is_some_and(|start| now - start < NSEC_PER_SEC)
        {
            return;
        }
        let delay = rtt_us.max(1);
        if self.delay_min_us == 0 || self.delay_min_us > delay {
            self.delay_min_us = delay;
        }
        if !self.found && sk.in_slow_start() {
            self.hystart_update(sk, delay, now);
        }
    }

    fn hystart_reset(&mut self, sk: &TcpSock, now: Instant) {
        self.round_start = now;
        self.last_ack = now;
        self.end_seq = sk.snd_nxt;
        self.curr_rtt_us = u64::MAX;
        self.sample_cnt = 0;
    }

    fn hystart_update(&mut self, sk: &mut TcpSock, delay: u64, now: Instant) {
        if after(sk.snd_una, self.end_seq) {
            self.hystart_reset(sk, now);
        }
        if sk.snd_cwnd < HYSTART_LOW_WINDOW {
            return;
        }
        if now.us_since(self.last_ack) <= HYSTART_ACK_DELTA_US {
            self.last_ack = now;
            // A train as long as half the path's delay means that the pipe is full; paced acks come spread out.
            let mut threshold = self.delay_min_us + ack_delay_us(sk);
            if !sk.opts.pacing_needed {
                threshold >>= 1;
            }
            if now.us_since(self.round_start) > threshold {
                self.found = true;
                sk.snd_ssthresh = sk.snd_cwnd;
                return;
            }
        }
        self.curr_rtt_us = self.curr_rtt_us.min(delay);
        if self.sample_cnt < HYSTART_MIN_SAMPLES {
            self.sample_cnt += 1;
        } else {
            let rise = (self.delay_min_us >> 3).clamp(HYSTART_DELAY_MIN_US, HYSTART_DELAY_MAX_US);
            if self.curr_rtt_us > self.delay_min_us + rise {
                self.found = true;
                sk.snd_ssthresh = sk.snd_cwnd;
            }
        }
    }
}

/// How far GRO and TSO at the peer may spread an ack train, microseconds, at most 1000.
fn ack_delay_us(sk: &TcpSock) -> u64 {
    let gso_max_size = sk.dst.as_ref().map_or(65536, |d| u64::from(d.gso_max_size));
    if sk.pacing_rate == 0 {
        return 0;
    }
    (gso_max_size * 4 * 1_000_000 / sk.pacing_rate).min(1_000)
}

/// Integer cube root, rounded down.
fn cubic_root(a: u64) -> u64 {
    let mut root = 0u64;
    for bit in (0..22).rev() {
        let next = root | (1 << bit);
        if u128::from(next).pow(3) <= u128::from(a) {
            root = next;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn cube_root_rounds_down() {
        for (a, r) in [
            (0, 0),
            (1, 1),
            (7, 1),
            (8, 2),
            (26, 2),
            (27, 3),
            (1_000_000, 100),
        ] {
            assert_eq!(cubic_root(a), r);
        }
        assert_eq!(cubic_root(u64::MAX), 2_642_245);
    }

    #[test]
    fn a_loss_leaves_seven_tenths_and_remembers_the_window() {
        let mut ca = Cubic::default();
        assert_eq!(ca.recalc_ssthresh(100), 70);
        assert_eq!(ca.last_max_cwnd, 100);
        // Fast convergence: a second loss below the maximum gives room to others.
        assert_eq!(ca.recalc_ssthresh(80), 56);
        assert_eq!(ca.last_max_cwnd, 68);
        assert_eq!(ca.recalc_ssthresh(2), 2);
    }

    #[test]
    fn the_window_returns_to_its_maximum_after_k_seconds() {
        let mut ca = Cubic::default();
        let mut cwnd = ca.recalc_ssthresh(1000);
        let mut credit = 0u32;
        let mut now = Instant(1_000 * MS);
        ca.delay_min_us = 100_000;
        let start = now;
        // One round trip is 100 ms; the whole window is acked in it.
        while cwnd < 1000 {
            for _ in 0..10 {
                ca.update(cwnd, cwnd / 10, now);
                credit += cwnd / 10;
                cwnd += credit / ca.cnt;
                credit %= ca.cnt;
                now = now + 10 * MS;
            }
            assert!(now - start < 30_000 * MS, "stuck at {cwnd}");
        }
        // K = cbrt(300 / 0.4) = 9.1 s; the plateau around it is within a segment of the maximum.
        let k_ms = (now - start) / MS;
        assert!((7_000..9_500).contains(&k_ms), "{k_ms} ms");
    }

    #[test]
    fn small_windows_grow_like_reno() {
        let mut ca = Cubic::default();
        let cwnd = ca.recalc_ssthresh(14);
        let mut now = Instant(1_000 * MS);
        ca.delay_min_us = 1_000;
        for _ in 0..20 {
            ca.update(cwnd, cwnd, now);
            now = now + 40 * MS;
        }
        assert!(
            ca.tcp_cwnd > cwnd,
            "the estimate of Reno's window did not grow"
        );
        assert!(ca.cnt < 100 * cwnd);
    }

    #[test]
    fn idle_time_does_not_count() {
        let mut ca = Cubic {
            epoch_start: Some(Instant(10 * MS)),
            ..Cubic::default()
        };
        ca.tx_start(Instant(20 * MS), Instant(520 * MS));
        assert_eq!(ca.epoch_start, Some(Instant(510 * MS)));
    }
}
