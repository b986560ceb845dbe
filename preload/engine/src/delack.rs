#![allow(missing_docs)]
use crate::sock::TcpSock;
use crate::stack::{Cx, Shared};
pub mod pending {
    pub const PUSHED: u8 = 4;
    pub const SCHED: u8 = 1;
}
pub fn inet_csk_ack_scheduled(sk: &TcpSock) -> bool {
    sk.ack.pending & 1 != 0
}
pub fn inet_csk_in_pingpong_mode(sk: &TcpSock, sh: &Shared) -> bool {
    u32::from(sk.ack.pingpong) >= sh.sysctl.tcp_pingpong_thresh
}
pub fn inet_csk_enter_pingpong_mode(sk: &mut TcpSock, sh: &Shared) {
    sk.ack.pingpong = sh.sysctl.tcp_pingpong_thresh as u8;
}
pub fn tcp_cleanup_rbuf(_sk: &mut TcpSock, _cx: &mut Cx<'_, '_>, _n: usize) {}
