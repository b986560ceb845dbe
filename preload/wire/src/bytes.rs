//! Reads and writes at constant places of fixed-size headers, where the compiler sees the bounds.

/// Big-endian 16 bits at `at`.
#[inline(always)]
pub(crate) const fn be16<const N: usize>(b: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

/// Big-endian 32 bits at `at`.
#[inline(always)]
pub(crate) const fn be32<const N: usize>(b: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// `L` bytes at `at`.
#[inline(always)]
pub(crate) fn array<const L: usize, const N: usize>(b: &[u8; N], at: usize) -> [u8; L] {
    let mut out = [0; L];
    out.copy_from_slice(&b[at..at + L]);
    out
}

/// Writes `value` at `at`.
#[inline(always)]
pub(crate) fn put<const L: usize, const N: usize>(b: &mut [u8; N], at: usize, value: [u8; L]) {
    b[at..at + L].copy_from_slice(&value);
}
