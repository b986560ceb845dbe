#![allow(missing_docs)]
use crate::sock::TcpSock;
use crate::stack::Cx;
pub fn tcp_send_mss(sk: &mut TcpSock, _cx: &mut Cx<'_, '_>, _flags: u32) -> (u32, u32) {
    let m = sk.mss_cache;
    (m, m * 40)
}
pub fn tcp_push_pending(_sk: &mut TcpSock, _cx: &mut Cx<'_, '_>, _m: u32, _n: u8) {}
pub fn tcp_push_pending_frames(_sk: &mut TcpSock, _cx: &mut Cx<'_, '_>) {}
pub fn tcp_push_one(_sk: &mut TcpSock, _cx: &mut Cx<'_, '_>, _m: u32) {}
pub fn tcp_rate_check_app_limited(_sk: &mut TcpSock) {}
pub fn tcp_slow_start_after_idle_check(_sk: &mut TcpSock, _cx: &mut Cx<'_, '_>) {}
pub fn tcp_send_window_probe(_sk: &mut TcpSock, _cx: &mut Cx<'_, '_>) {}
