//! TCP Fast Open, RFC 7413 (spec/fastopen.md).

/// A client's request in progress: Linux's `struct tcp_fastopen_request`.
#[derive(Debug, Default)]
pub struct FastopenReq {}

/// Cookies and MSS remembered per destination: Linux's tcp_metrics.
#[derive(Debug, Default)]
pub struct MetricsCache {}
