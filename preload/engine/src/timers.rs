//! One deadline a kind of timer: a table of small size beats a wheel at this size, and a kind can be armed only once.

use crate::time::Instant;
use serde::{Deserialize, Serialize};

/// The kinds of timer a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Timer {
    /// RTO, tail loss probe, RACK reordering or zero-window probe: one of them, as `icsk_pending` says.
    Retransmit,
    /// Delayed ack.
    DelAck,
    /// Keepalive; FIN_WAIT2 of orphans.
    Keepalive,
    /// Pacing, or what waits in the host: the next frame may go.
    Pacing,
    /// Compressed SACK.
    CompAck,
}

/// Number of kinds.
pub const TIMERS: usize = 5;

/// What [`Timer::Retransmit`] is armed for: Linux's `icsk_pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IcskPending {
    /// Not armed.
    #[default]
    None,
    /// ICSK_TIME_RETRANS.
    Retrans,
    /// ICSK_TIME_PROBE0.
    Probe0,
    /// ICSK_TIME_LOSS_PROBE.
    LossProbe,
    /// ICSK_TIME_REO_TIMEOUT.
    ReoTimeout,
}

/// A socket's deadlines; [`Instant::NEVER`] when not armed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct TimerTable {
    at: [Instant; TIMERS],
}

impl Default for TimerTable {
    fn default() -> Self {
        Self {
            at: [Instant::NEVER; TIMERS],
        }
    }
}

impl TimerTable {
    /// Arms or re-arms.
    #[inline]
    pub fn set(&mut self, t: Timer, at: Instant) {
        self.at[t as usize] = at;
    }

    /// Disarms.
    #[inline]
    pub fn cancel(&mut self, t: Timer) {
        self.at[t as usize] = Instant::NEVER;
    }

    /// The deadline, `NEVER` when not armed.
    #[inline]
    #[must_use]
    pub fn at(&self, t: Timer) -> Instant {
        self.at[t as usize]
    }

    /// True when armed.
    #[inline]
    #[must_use]
    pub fn armed(&self, t: Timer) -> bool {
        self.at(t) != Instant::NEVER
    }

    /// The earliest deadline of all.
    #[inline]
    #[must_use]
    pub fn earliest(&self) -> Instant {
        self.at.iter().copied().min().unwrap_or(Instant::NEVER)
    }

    /// Takes one timer that is due, disarming it.
    pub fn take_due(&mut self, now: Instant) -> Option<Timer> {
        const ALL: [Timer; TIMERS] = [
            Timer::Retransmit,
            Timer::DelAck,
            Timer::Keepalive,
            Timer::Pacing,
            Timer::CompAck,
        ];
        let t = ALL.into_iter().find(|t| self.at(*t) <= now)?;
        self.cancel(t);
        Some(t)
    }
}
