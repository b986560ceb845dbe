#![allow(missing_docs)]
use crate::sock::TcpSock;
use crate::time::Instant;
pub fn tsval(sk: &TcpSock, now: Instant) -> u32 {
    (now.as_ms() as u32).wrapping_add(sk.tsoffset)
}
