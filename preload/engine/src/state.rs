//! State changes that every half of the machine makes: Linux's `tcp_set_state`, `tcp_done`, `tcp_reset`.

use sidewire_uapi::tcp::TcpState;

use crate::error::Error;
use crate::errqueue::sk_error_report;
use crate::event::Events;
use crate::fastopen::client::tcp_fastopen_active_disable_ofo_check;
use crate::mib::Counter;
use crate::sndbuf::tcp_write_queue_purge;
use crate::sock::{TcpSock, shutdown};
use crate::stack::{Cx, Shared};
use crate::timers::{IcskPending, TimerTable};

/// What Linux's `sk_state_change` wakes: everybody, who then look at the level.
pub(crate) const STATE_CHANGE: Events = Events::IN
    .union(Events::OUT)
    .union(Events::RDHUP)
    .union(Events::HUP);

/// Enters `state` and keeps the counters. The stack takes a socket in CLOSE out of its tables when it settles.
pub(crate) fn tcp_set_state(sk: &mut TcpSock, sh: &mut Shared, state: TcpState) {
    if state == TcpState::Close && sk.in_state(&[TcpState::Established, TcpState::CloseWait]) {
        sh.mib.inc(Counter::EstabResets);
    }
    sk.state = state;
}

/// Stops every timer (Linux `tcp_clear_xmit_timers`).
pub(crate) fn tcp_clear_xmit_timers(sk: &mut TcpSock) {
    sk.timers = TimerTable::default();
    sk.icsk_pending = IcskPending::None;
    sk.ack.pending = 0;
}

/// The connection is over (Linux `tcp_done`). An orphan goes when the stack settles.
pub fn tcp_done(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    if sk.in_state(&[TcpState::SynSent, TcpState::SynRecv]) {
        cx.sh.mib.inc(Counter::AttemptFails);
    }
    tcp_set_state(sk, cx.sh, TcpState::Close);
    tcp_clear_xmit_timers(sk);
    sk.fastopen_rsk = false;
    sk.shutdown = shutdown::MASK;
    if sk.orphan {
        tcp_fastopen_active_disable_ofo_check(sk, cx);
    } else {
        cx.wake(sk, STATE_CHANGE);
    }
}

/// [`tcp_done`] with an error that the program is told (Linux `tcp_done_with_error`).
pub fn tcp_done_with_error(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, err: Error) {
    sk.sk_err = Some(err);
    tcp_write_queue_purge(sk, cx);
    tcp_done(sk, cx);
    if !sk.orphan {
        sk_error_report(sk, cx);
    }
}

/// A valid RST came (Linux `tcp_reset`; ER-12 to ER-15).
pub(crate) fn tcp_reset(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) {
    let err = match sk.state {
        TcpState::SynSent => Error::ConnRefused,
        TcpState::CloseWait => Error::Pipe,
        TcpState::Close => return,
        _ => Error::ConnReset,
    };
    tcp_done_with_error(sk, cx, err);
}

/// Whether leaving this state by force needs a RST (Linux `tcp_need_reset`).
pub(crate) fn tcp_need_reset(state: TcpState) -> bool {
    matches!(
        state,
        TcpState::Established
            | TcpState::CloseWait
            | TcpState::FinWait1
            | TcpState::FinWait2
            | TcpState::SynRecv
    )
}

/// What a close or shutdown of the send side makes of a state, and whether it sends a FIN (Linux `tcp_close_state`).
pub(crate) fn tcp_close_state(sk: &mut TcpSock, sh: &mut Shared) -> bool {
    let (next, fin) = match sk.state {
        TcpState::Established | TcpState::SynRecv => (TcpState::FinWait1, true),
        TcpState::CloseWait => (TcpState::LastAck, true),
        TcpState::FinWait1 => (TcpState::FinWait1, false),
        TcpState::FinWait2 => (TcpState::FinWait2, false),
        TcpState::LastAck => (TcpState::LastAck, false),
        TcpState::Closing => (TcpState::Closing, false),
        TcpState::SynSent
        | TcpState::TimeWait
        | TcpState::Close
        | TcpState::Listen
        | TcpState::NewSynRecv => (TcpState::Close, false),
    };
    tcp_set_state(sk, sh, next);
    fin
}
