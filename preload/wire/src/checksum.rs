//! The Internet checksum (RFC 1071).
//!
//! Sums are kept folded to 16 bits and in the value of big-endian words, so that they can be
//! stored, added and compared without a thought for the machine's byte order.

use core::net::{Ipv4Addr, Ipv6Addr};

/// Ones-complement sum of `data`, taken as starting on an even offset; an odd last byte counts
/// as the high half of a word.
#[inline]
pub fn sum(data: &[u8]) -> u16 {
    // 32-bit words in 64-bit sums: no carry to look after below 16 GiB, and the loop over blocks
    // becomes vector code.
    let mut total = 0u64;
    let (blocks, rest) = data.as_chunks::<32>();
    if !blocks.is_empty() {
        let mut lanes = [0u64; 8];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        total = lanes.iter().sum();
    }
    let (words, tail) = rest.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(total))
}

/// Adds the sum of bytes which begin `offset` bytes after those of `sum`.
#[inline]
pub const fn combine(sum: u16, other: u16, offset: usize) -> u16 {
    add(
        sum,
        if offset % 2 == 1 {
            other.swap_bytes()
        } else {
            other
        },
    )
}

/// Ones-complement addition of two sums.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (value, carry) = a.overflowing_add(b);
    value + carry as u16
}

/// What belongs into the checksum field when all words summed up to `sum`.
#[inline]
pub const fn finish(sum: u16) -> u16 {
    !sum
}

/// Does `sum`, taken over everything including the checksum field, prove the bytes intact?
#[inline]
pub const fn is_valid(sum: u16) -> bool {
    sum == 0xffff
}

/// The field after one of the summed 16-bit words changed (RFC 1624, equation 3).
#[inline]
pub const fn update(field: u16, old: u16, new: u16) -> u16 {
    !add(add(!field, !old), new)
}

/// Sum of the IPv4 pseudo header. `len` is that of the transport header and its payload.
///
/// Unfinished checksums (`VIRTIO_NET_HDR_F_NEEDS_CSUM`) have this very value in their field.
#[inline]
pub fn pseudo_header_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u32) -> u16 {
    let mut total = u64::from(src.to_bits()) + u64::from(dst.to_bits());
    total += u64::from(protocol) + u64::from(len);
    fold(total)
}

/// Sum of the IPv6 pseudo header. `len` is that of the transport header and its payload.
#[inline]
pub fn pseudo_header_v6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, len: u32) -> u16 {
    let addresses = add(sum(&src.octets()), sum(&dst.octets()));
    add(addresses, fold(u64::from(next_header) + u64::from(len)))
}

#[inline(always)]
const fn fold(total: u64) -> u16 {
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff) + ((total >> 16) & 0xffff) + (total >> 32);
    let total = (total & 0xffff) + (total >> 16);
    ((total & 0xffff) + (total >> 16)) as u16
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    fn plainly(data: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in data.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&data), 0xddf2);
        assert_eq!(finish(sum(&data)), 0x220d);
    }

    #[test]
    fn nothing_sums_to_zero() {
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0; 64]), 0);
        assert_eq!(sum(&[0xff; 64]), 0xffff);
    }

    #[test]
    fn pseudo_headers_are_the_sum_of_their_bytes() {
        let (a, b) = (
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::new(198, 51, 100, 250),
        );
        let v4 = [192, 0, 2, 1, 198, 51, 100, 250, 0, 6, 0xfe, 0xdc];
        assert_eq!(pseudo_header_v4(a, b, 6, 0xfedc), plainly(&v4));
        let (a, b) = (
            Ipv6Addr::new(0xfd91, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::LOCALHOST,
        );
        let mut v6 = std::vec::Vec::new();
        v6.extend_from_slice(&a.octets());
        v6.extend_from_slice(&b.octets());
        v6.extend_from_slice(&[0, 1, 2, 3, 0, 0, 0, 6]);
        assert_eq!(pseudo_header_v6(a, b, 6, 0x10203), plainly(&v6));
    }

    proptest! {
        #[test]
        fn equals_the_plain_sum(data in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(sum(&data), plainly(&data));
        }

        #[test]
        fn parts_combine(data in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            let at = at.min(data.len());
            let whole = combine(sum(&data[..at]), sum(&data[at..]), at);
            prop_assert_eq!(whole, sum(&data));
        }

        #[test]
        fn an_updated_field_stays_valid(
            mut data in prop::collection::vec(any::<u8>(), 40..=40),
            new in any::<u16>(),
        ) {
            data[0] |= 1;
            data[20] = 0;
            data[21] = 0;
            let field = finish(sum(&data));
            let old = u16::from_be_bytes([data[10], data[11]]);
            data[10..12].copy_from_slice(&new.to_be_bytes());
            data[20..22].copy_from_slice(&update(field, old, new).to_be_bytes());
            prop_assert!(is_valid(sum(&data)));
        }
    }
}
