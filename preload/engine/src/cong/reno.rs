//! RFC 5681 congestion control.

use crate::sock::TcpSock;

/// Half the window, at least 2 segments.
pub(super) fn ssthresh(sk: &TcpSock) -> u32 {
    (sk.snd_cwnd >> 1).max(2)
}
