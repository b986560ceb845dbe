//! What held the sender back, and for how long (Linux `tcp_chrono_start`): `tcpi_busy_time`, `tcpi_rwnd_limited`,
//! `tcpi_sndbuf_limited`.

use crate::sock::TcpSock;
use crate::stack::Cx;
use crate::time::Instant;

/// What is being timed; a higher one takes precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChronoKind {
    /// Data is queued or in flight.
    Busy = 1,
    /// The peer's window is the limit.
    RwndLimited = 2,
    /// Our send buffer is the limit.
    SndbufLimited = 3,
}

fn tcp_chrono_set(sk: &mut TcpSock, kind: u8, now: Instant) {
    let spent = now.us_since(sk.chrono.start);
    match sk.chrono.kind {
        1 => sk.chrono.busy_us += spent,
        2 => sk.chrono.rwnd_limited_us += spent,
        3 => sk.chrono.sndbuf_limited_us += spent,
        _ => {}
    }
    sk.chrono.start = now;
    sk.chrono.kind = kind;
}

/// Starts timing `kind` unless something of higher rank is being timed.
#[inline]
pub fn tcp_chrono_start(sk: &mut TcpSock, cx: &Cx<'_, '_>, kind: ChronoKind) {
    if kind as u8 > sk.chrono.kind {
        tcp_chrono_set(sk, kind as u8, cx.now);
    }
}

/// Stops timing `kind`: back to busy, or to nothing when both queues are empty.
#[inline]
pub fn tcp_chrono_stop(sk: &mut TcpSock, cx: &Cx<'_, '_>, kind: ChronoKind) {
    if sk.rtx_queue.is_empty() && sk.write_queue.is_empty() {
        tcp_chrono_set(sk, 0, cx.now);
    } else if kind as u8 == sk.chrono.kind {
        tcp_chrono_set(sk, ChronoKind::Busy as u8, cx.now);
    }
}
