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
    use super::*;

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
}
