//! From a segment's addresses to whom it belongs: Linux's `__inet_lookup`.

use core::hash::BuildHasher;

use siphasher::sip::SipHasher13;

use crate::mib::Counter;
use crate::segment::Ingress;
use crate::stack::{Io, RequestId, SocketId, Stack, TimewaitId};

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

impl Stack {
    /// Takes one received frame. Its acks, and what it allows to be sent, go out at [`Stack::rx_batch_end`].
    pub fn rx(&mut self, io: &mut Io<'_>, frame: &mut Ingress<'_>) {
        let _ = (io, frame);
        self.sh.mib.inc(Counter::InSegs);
    }

    /// The driver has no more frames for now.
    pub fn rx_batch_end(&mut self, io: &mut Io<'_>) {
        let _ = io;
        self.sh.batch.clear();
    }

    /// The packet socket is writable again.
    pub fn tx_space(&mut self, io: &mut Io<'_>) {
        let _ = io;
        self.sh.tx_blocked.clear();
    }

    /// The route table changed: sockets look theirs up again at their next frame.
    pub fn route_changed(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    pub(crate) fn sock_timers(&mut self, io: &mut Io<'_>, id: SocketId) {
        let _ = io;
        self.settle(id);
    }

    pub(crate) fn reqsk_timer(&mut self, io: &mut Io<'_>, id: RequestId) {
        let _ = (io, id);
    }

    pub(crate) fn timewait_timer(&mut self, io: &mut Io<'_>, id: TimewaitId) {
        let _ = (io, id);
    }

    pub(crate) fn insert_timewait(&mut self, tw: alloc::boxed::Box<crate::timewait::TimewaitSock>) {
        let _ = tw;
    }
}
