//! Congestion control: Linux's `tcp_congestion_ops` as an enum, so that a socket's state stays plain data.

/// The algorithm and its state.
#[derive(Clone, Debug, Default)]
pub enum CongestionControl {
    /// RFC 5681.
    #[default]
    Reno,
}
