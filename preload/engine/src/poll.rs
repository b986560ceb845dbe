//! Readiness levels: Linux's `tcp_poll` (spec/readiness.md RD-1..RD-32).

use crate::stack::{SocketId, Stack};

impl Stack {
    /// The poll mask (`POLLIN` ...) of a socket as it stands; `POLLNVAL` when there is no such socket.
    #[must_use]
    pub fn poll(&self, id: SocketId) -> u32 {
        let _ = id;
        0
    }

    /// Notes that somebody who waits for POLLOUT saw none, so that the edge comes (`SOCK_NOSPACE`, RD-35).
    pub fn poll_wanting_out(&mut self, id: SocketId) {
        let _ = id;
    }
}
