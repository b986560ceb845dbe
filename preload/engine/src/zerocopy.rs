//! MSG_ZEROCOPY notification objects (spec/zerocopy.md).

/// A socket's objects and id counter.
#[derive(Debug, Default)]
pub struct ZerocopyState {}

use crate::skb::{Skb, UbufId};
use crate::sock::TcpSock;
use crate::stack::Cx;

/// A buffer left the send queues: its reference to a notification object goes.
pub fn skb_acked(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, skb: &Skb) {
    let _ = (sk, cx, skb);
}

/// A buffer was cut in two: both refer to `ubuf` now.
pub fn skb_split(sk: &mut TcpSock, ubuf: UbufId) {
    let _ = (sk, ubuf);
}
