//! `sk_error_queue`: what `recvmsg(MSG_ERRQUEUE)` reads (spec/zerocopy.md, spec/timestamping.md).

/// The queue.
#[derive(Debug, Default)]
pub struct ErrQueue {}
