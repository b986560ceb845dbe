//! Transmit timestamps (spec/timestamping.md).

use crate::skb::Skb;
use crate::sock::TcpSock;
use crate::stack::Cx;

/// The device has the buffer: SCHED and SND timestamps.
pub fn tx_sent(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, skb: &Skb) {
    let _ = (sk, cx, skb);
}

/// The peer acked the buffer: ACK timestamp.
pub fn tx_ack(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, skb: &Skb) {
    let _ = (sk, cx, skb);
}
