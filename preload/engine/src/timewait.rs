//! TIME_WAIT remnants: Linux's `struct tcp_timewait_sock`.

/// A remnant.
#[derive(Debug)]
pub struct TimewaitSock {}
