//! Connections that were given to the kernel a moment ago: it answers for them, also where it does not have them yet, or any
//! more, when what came before is looked at. What came while neither side heard is kept, and passed on.

use std::collections::VecDeque;

use sidewire_engine::net::Tuple;

/// How long the kernel is left alone with one, in nanoseconds.
const LATELY: u64 = 1_000_000_000;
/// As many are known, at most: the oldest go.
const MOST: usize = 512;
/// Bytes of packets that are kept, at most: of more, the peer sends again what comes last.
const KEPT_MAX: usize = 1 << 20;

/// One of them.
struct Given {
    tuple: Tuple,
    /// By the monotonic clock.
    until: u64,
    /// Since when the kernel hears its segments, nanoseconds of CLOCK_REALTIME.
    heard_since: Option<u64>,
    /// What came before that.
    missed: Vec<Box<[u8]>>,
}

/// Whether the kernel has had a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Had {
    /// Yes, or it is none of such a connection.
    Yes,
    /// It will hear of the connection soon.
    NotYet,
    /// No: it came too early.
    No,
}

/// The connections, the oldest first.
#[derive(Default)]
pub(crate) struct LatelyGiven {
    all: VecDeque<Given>,
    /// Bytes of packets in them.
    kept: usize,
}

impl LatelyGiven {
    pub(crate) fn add(&mut self, tuple: Tuple, now: u64) {
        if self.all.len() == MOST {
            self.forget_oldest();
        }
        self.all.push_back(Given {
            tuple,
            until: now + LATELY,
            heard_since: None,
            missed: Vec::new(),
        });
    }

    fn forget_oldest(&mut self) {
        if let Some(given) = self.all.pop_front() {
            self.kept -= given.missed.iter().map(|p| p.len()).sum::<usize>();
        }
    }

    fn forget_old(&mut self, now: u64) {
        while self.all.front().is_some_and(|given| given.until <= now) {
            self.forget_oldest();
        }
    }

    /// The four-tuple's last connection.
    fn find(&mut self, tuple: &Tuple) -> Option<&mut Given> {
        self.all
            .iter_mut()
            .rev()
            .find(|given| given.tuple == *tuple)
    }

    pub(crate) fn has(&mut self, tuple: &Tuple, now: u64) -> bool {
        self.forget_old(now);
        self.find(tuple).is_some()
    }

    /// True when there are none, which costs nothing to ask.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the kernel has had a segment that came at `stamp`.
    pub(crate) fn had(&mut self, tuple: &Tuple, stamp: Option<u64>, now: u64) -> Had {
        self.forget_old(now);
        match (self.find(tuple).map(|given| given.heard_since), stamp) {
            (Some(None), _) => Had::NotYet,
            (Some(Some(since)), Some(stamp)) if stamp < since => Had::No,
            _ => Had::Yes,
        }
    }

    /// Keeps an IP packet that the kernel has not had yet.
    pub(crate) fn keep(&mut self, tuple: &Tuple, packet: Box<[u8]>) {
        let kept = self.kept + packet.len();
        if kept > KEPT_MAX {
            return;
        }
        if let Some(given) = self.find(tuple) {
            given.missed.push(packet);
            self.kept = kept;
        }
    }

    /// The kernel hears its segments now, at `wall_ns`; what it has missed.
    pub(crate) fn heard(&mut self, tuple: &Tuple, wall_ns: u64) -> Vec<Box<[u8]>> {
        let Some(given) = self.find(tuple) else {
            return Vec::new();
        };
        given.heard_since = Some(wall_ns);
        let missed = core::mem::take(&mut given.missed);
        self.kept -= missed.iter().map(|p| p.len()).sum::<usize>();
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> Tuple {
        Tuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], port).into(),
        }
    }

    #[test]
    fn for_a_while() {
        let mut given = LatelyGiven::default();
        given.add(tuple(1), 5);
        given.add(tuple(2), LATELY);
        assert!(given.has(&tuple(1), LATELY) && !given.has(&tuple(3), LATELY));
        assert!(!given.has(&tuple(1), LATELY + 5) && given.has(&tuple(2), LATELY + 5));
        for port in 0..=MOST as u16 {
            given.add(tuple(port), LATELY);
        }
        assert_eq!(given.all.len(), MOST);
    }

    #[test]
    fn what_came_before_the_kernel_heard() {
        let mut given = LatelyGiven::default();
        let packet = |n| vec![n; KEPT_MAX / 2].into_boxed_slice();
        assert_eq!(given.had(&tuple(1), Some(9), 0), Had::Yes);
        given.add(tuple(1), 0);
        assert_eq!(given.had(&tuple(1), Some(9), 0), Had::NotYet);
        assert_eq!(given.had(&tuple(2), Some(9), 0), Had::Yes);
        // Two fill what may be kept; a stranger's is not.
        for n in 0..3 {
            given.keep(&tuple(1), packet(n));
        }
        given.keep(&tuple(2), Box::from([7]));
        assert_eq!(given.heard(&tuple(1), 100), [packet(0), packet(1)]);
        assert_eq!(given.kept, 0);
        assert_eq!(given.had(&tuple(1), Some(99), 0), Had::No);
        for stamp in [Some(100), None] {
            assert_eq!(given.had(&tuple(1), stamp, 0), Had::Yes);
        }
        // The four-tuple again, by another connection.
        given.add(tuple(1), 1);
        given.keep(&tuple(1), Box::from([8]));
        assert!(given.heard(&tuple(2), 200).is_empty());
        assert!(!given.has(&tuple(1), LATELY + 1) && given.kept == 0);
    }
}
