//! Sequence arithmetic, RFC 9293 §3.4.

/// True when `a` stands before `b`, modulo 2^32.
#[inline]
#[must_use]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// True when `a` stands after `b`, modulo 2^32.
#[inline]
#[must_use]
pub const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

/// True when `low <= s <= high`, modulo 2^32.
#[inline]
#[must_use]
pub const fn between(s: u32, low: u32, high: u32) -> bool {
    high.wrapping_sub(low) >= s.wrapping_sub(low)
}

/// The later of two sequence numbers.
#[inline]
#[must_use]
pub const fn max_seq(a: u32, b: u32) -> u32 {
    if after(a, b) { a } else { b }
}

/// The earlier of two sequence numbers.
#[inline]
#[must_use]
pub const fn min_seq(a: u32, b: u32) -> u32 {
    if before(a, b) { a } else { b }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    /// Half of the space: what is farther away stands on the other side.
    const HALF: u32 = 1 << 31;

    /// Anywhere, at the wrap as often.
    fn seq() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), (-3000..3000i32).prop_map(i32::cast_unsigned)]
    }

    /// How far a number may stand ahead of another to be after it.
    fn ahead() -> impl Strategy<Value = u32> {
        prop_oneof![1..HALF, 1..3000u32, HALF - 3000..HALF]
    }

    #[test]
    fn order_holds_across_the_wrap() {
        assert!(before(u32::MAX, 0));
        assert!(after(5, u32::MAX - 5));
        assert!(!before(7, 7) && !after(7, 7));
        assert!(between(1, u32::MAX, 3));
        assert!(!between(4, u32::MAX, 3));
        assert_eq!(max_seq(u32::MAX, 2), 2);
        assert_eq!(min_seq(u32::MAX, 2), u32::MAX);
    }

    proptest! {
        #[test]
        fn what_is_ahead_is_after(a in seq(), n in ahead()) {
            let b = a.wrapping_add(n);
            prop_assert!(before(a, b) && after(b, a));
            prop_assert!(!before(b, a) && !after(a, b));
            prop_assert_eq!(b.wrapping_sub(a), n);
            prop_assert_eq!(b.wrapping_sub(n), a);
        }

        /// One of `before`, `after` and equality, but for the opposite point of the circle, which is before on both sides.
        #[test]
        fn any_two_have_one_order(a in seq(), b in seq()) {
            prop_assert!(!before(a, a) && !after(a, a));
            prop_assert_eq!(before(a, b), after(b, a));
            let orders = [before(a, b), after(a, b), a == b];
            let holds = orders.iter().filter(|o| **o).count();
            prop_assert_eq!(holds, if a.wrapping_sub(b) == HALF { 2 } else { 1 });
        }

        #[test]
        fn order_is_kept_within_half_the_space(a in seq(), n in ahead(), part in 0..=1000u32) {
            let m = (u64::from(n) * u64::from(part) / 1000) as u32;
            let (b, c) = (a.wrapping_add(m), a.wrapping_add(n));
            prop_assert!(!after(a, b) && !after(b, c) && before(a, c));
            prop_assert_eq!(before(a, b) && before(b, c), m != 0 && m != n);
        }

        #[test]
        fn order_does_not_depend_on_the_start(a in seq(), b in seq(), by in seq()) {
            prop_assert_eq!(before(a, b), before(a.wrapping_add(by), b.wrapping_add(by)));
            prop_assert_eq!(after(a, b), after(a.wrapping_sub(by), b.wrapping_sub(by)));
        }

        /// From `low` on to `high`, however far that is: the two arcs between two points make the circle.
        #[test]
        fn between_is_one_arc_of_the_circle(s in seq(), low in seq(), high in seq()) {
            prop_assert!(between(low, low, high) && between(high, low, high));
            prop_assert_eq!(between(s, low, low), s == low);
            let (inside, other) = (between(s, low, high), between(s, high, low));
            prop_assert_eq!(inside && other, s == low || s == high);
            prop_assert!(inside || other || low == high);
        }

        #[test]
        fn between_agrees_with_the_order(low in seq(), n in ahead(), m in ahead()) {
            let (s, high) = (low.wrapping_add(m), low.wrapping_add(n));
            prop_assert_eq!(between(s, low, high), !before(s, low) && !after(s, high));
        }

        #[test]
        fn the_later_and_the_earlier(a in seq(), n in ahead()) {
            let b = a.wrapping_add(n);
            prop_assert_eq!((max_seq(a, b), max_seq(b, a)), (b, b));
            prop_assert_eq!((min_seq(a, b), min_seq(b, a)), (a, a));
            prop_assert_eq!((max_seq(a, a), min_seq(a, a)), (a, a));
        }
    }
}
