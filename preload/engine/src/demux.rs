//! From a segment's addresses to whom it belongs: Linux's `__inet_lookup`.

use core::hash::BuildHasher;

use siphasher::sip::SipHasher13;

/// Keyed hashing, so that a peer cannot choose collisions.
#[derive(Clone)]
pub struct TupleHash {
    key: [u8; 16],
}

impl TupleHash {
    /// With the stack's hash secret.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }
}

impl BuildHasher for TupleHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.key)
    }
}
