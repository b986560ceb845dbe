//! Virtual time: it moves when the test says so.

use sidewire_engine::time::{Instant, NSEC_PER_SEC};

/// Monotonic time at which every run begins: not 0, which the engine reads as "never".
pub const START: Instant = Instant(1_000 * NSEC_PER_SEC);
/// CLOCK_REALTIME at [`START`], nanoseconds.
pub const START_WALL_NS: u64 = 1_700_000_000 * NSEC_PER_SEC;

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    now: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: START }
    }
}

impl Clock {
    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// CLOCK_REALTIME, nanoseconds.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        START_WALL_NS + self.elapsed()
    }

    /// Nanoseconds since the run began.
    #[must_use]
    pub fn elapsed(&self) -> u64 {
        self.now - START
    }

    /// Moves forward; a time that has passed changes nothing.
    pub fn advance_to(&mut self, at: Instant) {
        self.now = self.now.max(at);
    }
}
