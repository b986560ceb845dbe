//! The maximum of the last so many rounds, in constant space (Kathleen Nichols' algorithm; Linux `minmax_running_max`).

use serde::{Deserialize, Serialize};

/// A value and the round that it came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    round: u32,
    value: u32,
}

/// The best value of the window, and the second and third best of later parts of it, so that a successor is at hand when
/// the best one ages out. Rounds count modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WindowedMax {
    best: [Sample; 3],
}

impl WindowedMax {
    pub(super) const fn get(&self) -> u32 {
        self.best[0].value
    }

    /// Takes `value` of `round` in; what is more than `window` rounds old no longer counts.
    pub(super) fn update(&mut self, window: u32, round: u32, value: u32) {
        let new = Sample { round, value };
        let age = |s: &Sample| round.wrapping_sub(s.round);
        let [first, second, third] = &mut self.best;
        if value >= first.value || age(third) > window {
            self.best = [new; 3];
            return;
        }
        if value >= second.value {
            (*second, *third) = (new, new);
        } else if value >= third.value {
            *third = new;
        }
        if age(first) > window {
            // The second best takes over, and is perhaps too old itself.
            let shifts = if age(second) > window { 2 } else { 1 };
            for _ in 0..shifts {
                self.best = [self.best[1], self.best[2], new];
            }
        } else if second.round == first.round && age(first) > window / 4 {
            // A quarter of the window without a better one: the second best is to come from what follows.
            (*second, *third) = (new, new);
        } else if third.round == second.round && age(first) > window / 2 {
            *third = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;

    #[test]
    fn the_maximum_ages_out_to_its_successor() {
        let mut max = WindowedMax::default();
        max.update(10, 1, 100);
        max.update(10, 4, 70);
        max.update(10, 6, 80);
        assert_eq!(max.get(), 100);
        max.update(10, 9, 60);
        max.update(10, 11, 50);
        assert_eq!(max.get(), 100, "the tenth round after it");
        max.update(10, 12, 50);
        assert_eq!(max.get(), 80);
        max.update(10, 13, 90);
        assert_eq!(max.get(), 90);
        max.update(10, 40, 5);
        assert_eq!(max.get(), 5, "nothing of the window is left");
    }

    #[test]
    fn rounds_wrap() {
        let mut max = WindowedMax::default();
        max.update(10, u32::MAX - 1, 9);
        max.update(10, 3, 4);
        assert_eq!(max.get(), 9);
        max.update(10, 10, 4);
        assert_eq!(max.get(), 4);
    }

    /// Never above the true maximum, and never below what came in last.
    #[test]
    fn it_is_a_maximum_of_the_window() {
        let (mut max, mut window) = (WindowedMax::default(), VecDeque::new());
        let mut x = 12_345u32;
        for round in 1..2_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = x >> 20;
            max.update(10, round, value);
            window.push_back(value);
            if window.len() > 11 {
                window.pop_front();
            }
            assert!(max.get() >= value);
            assert!(window.contains(&max.get()), "round {round}");
        }
    }
}
