//! Listeners: SYN queue, accept queue, request socks (Linux's `inet_connection_sock.c`, `tcp_minisocks.c`).

/// A listener's queues.
#[derive(Debug, Default)]
pub struct ListenState {}

/// A handshake in progress: Linux's `struct tcp_request_sock`.
#[derive(Debug)]
pub struct RequestSock {}
