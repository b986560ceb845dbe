#![allow(missing_docs)]
use crate::sock::TcpSock;
use crate::stack::Cx;
use crate::timers::Timer;
pub fn tcp_reset_keepalive_timer(sk: &mut TcpSock, cx: &Cx<'_, '_>, ns: u64) {
    sk.timers.set(Timer::Keepalive, cx.now + ns);
}
