//! Connections that were given to the kernel a moment ago: it answers for them, also where it does not have them yet, or any
//! more, when what came before is looked at.

use std::collections::VecDeque;

use sidewire_engine::net::Tuple;

/// How long the kernel is left alone with one, in nanoseconds.
const LATELY: u64 = 1_000_000_000;
/// As many are known, at most: the oldest go.
const MOST: usize = 512;

/// Four-tuples, and until when, by the monotonic clock.
#[derive(Default)]
pub(crate) struct LatelyGiven(VecDeque<(Tuple, u64)>);

impl LatelyGiven {
    pub(crate) fn add(&mut self, tuple: Tuple, now: u64) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((tuple, now + LATELY));
    }

    pub(crate) fn has(&mut self, tuple: &Tuple, now: u64) -> bool {
        while self.0.pop_front_if(|(_, until)| *until <= now).is_some() {}
        self.0.iter().any(|(given, _)| given == tuple)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_a_while() {
        let tuple = |port| Tuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], port).into(),
        };
        let mut given = LatelyGiven::default();
        given.add(tuple(1), 5);
        given.add(tuple(2), LATELY);
        assert!(given.has(&tuple(1), LATELY) && !given.has(&tuple(3), LATELY));
        assert!(!given.has(&tuple(1), LATELY + 5) && given.has(&tuple(2), LATELY + 5));
        for port in 0..=MOST as u16 {
            given.add(tuple(port), LATELY);
        }
        assert_eq!(given.0.len(), MOST);
    }
}
