//! Time as the engine is told it: nanoseconds of a monotonic clock.

use core::ops::{Add, Sub};
use serde::{Deserialize, Serialize};

/// Timer ticks a second that a program can read back (`tcpi_rto`, `SO_SNDTIMEO`): spec/README.md, "HZ".
pub const HZ: u64 = 250;
/// Nanoseconds in a microsecond.
pub const NSEC_PER_USEC: u64 = 1_000;
/// Nanoseconds in a millisecond.
pub const NSEC_PER_MSEC: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const NSEC_PER_SEC: u64 = 1_000_000_000;
/// Nanoseconds in one jiffy.
pub const JIFFY_NS: u64 = NSEC_PER_SEC / HZ;

/// A point of the monotonic clock, in nanoseconds since an origin that the caller chooses (never before 0).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Instant(pub u64);

impl Instant {
    /// The origin; Linux's "0 = never" in `*_stamp` fields.
    pub const ZERO: Self = Self(0);
    /// A deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// Nanoseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Microseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[inline]
    #[must_use]
    pub const fn us_since(self, earlier: Self) -> u64 {
        self.since(earlier) / NSEC_PER_USEC
    }

    /// The point in whole microseconds.
    #[inline]
    #[must_use]
    pub const fn as_us(self) -> u64 {
        self.0 / NSEC_PER_USEC
    }

    /// The point in whole milliseconds: the unit of RFC 7323 timestamps here, as on Linux.
    #[inline]
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0 / NSEC_PER_MSEC
    }
}

/// Adds nanoseconds.
impl Add<u64> for Instant {
    type Output = Self;
    #[inline]
    fn add(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

/// Nanoseconds between, saturating at 0.
impl Sub for Instant {
    type Output = u64;
    #[inline]
    fn sub(self, earlier: Self) -> u64 {
        self.since(earlier)
    }
}

/// Rounds microseconds up to whole jiffies, as every value that Linux keeps in jiffies is.
#[inline]
#[must_use]
pub const fn round_up_to_jiffy_us(us: u64) -> u64 {
    const JIFFY_US: u64 = JIFFY_NS / NSEC_PER_USEC;
    us.div_ceil(JIFFY_US).saturating_mul(JIFFY_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jiffies_round_up() {
        assert_eq!(round_up_to_jiffy_us(1), 4_000);
        assert_eq!(round_up_to_jiffy_us(201_000), 204_000);
        assert_eq!(round_up_to_jiffy_us(0), 0);
    }
}
