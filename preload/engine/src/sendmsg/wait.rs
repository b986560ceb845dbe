//! Sleeping in a send, as values: for the connection (section C) and for memory (section H).

use sidewire_uapi::TcpState;
use sidewire_uapi::socket::MSG_DONTWAIT;

use super::{Exit, Phase, SendCall, tcp_passive_fastopen};
use crate::error::Error;
use crate::push::sk_stream_memory_free;
use crate::sock::{TcpSock, shutdown};
use crate::stack::{Cx, WaitReason};
use crate::time::{HZ, Instant, JIFFY_NS};

/// When the call's patience ends: SO_SNDTIMEO from the first time that it is asked (B6, H6).
fn deadline(sk: &TcpSock, cx: &Cx<'_, '_>, call: &mut SendCall<'_>) -> Instant {
    let nonblock = call.has(MSG_DONTWAIT);
    call.progress
        .timeo
        .deadline(cx.now, nonblock, sk.opts.sndtimeo)
}

/// When a sleep ends by itself.
pub(super) fn wake_at(sk: &TcpSock, cx: &Cx<'_, '_>, call: &mut SendCall<'_>) -> Instant {
    let end = deadline(sk, cx, call);
    call.progress.vm_wait.map_or(end, |at| at.min(end))
}

/// A signal ends the call: EINTR when a timeout was set, else restartable (H5; Linux `sock_intr_errno`).
fn interrupted(call: &mut SendCall<'_>, deadline: Instant) -> Exit {
    call.restartable = deadline == Instant::NEVER;
    Exit::DoError(Error::Intr)
}

/// B6, B8 and section C (Linux `sk_stream_wait_connect`).
pub(super) fn sk_stream_wait_connect(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
) -> Result<(), Exit> {
    let end = deadline(sk, cx, call);
    if matches!(sk.state, TcpState::Established | TcpState::CloseWait) || tcp_passive_fastopen(sk) {
        return Ok(());
    }
    if let Some(err) = sk.sk_err.take() {
        return Err(Exit::DoError(err)); // C1
    }
    if !matches!(sk.state, TcpState::SynSent | TcpState::SynRecv) {
        return Err(Exit::DoError(Error::Pipe)); // C2
    }
    if cx.now >= end {
        return Err(Exit::DoError(Error::Again)); // C3, C5
    }
    if call.signal {
        return Err(interrupted(call, end)); // C4
    }
    call.progress.phase = Phase::Connect;
    Err(Exit::Wait(WaitReason::Connect)) // C5
}

/// H2, H3 (Linux `sk_stream_wait_memory`): `Ok` when a new buffer may be made.
pub(super) fn sk_stream_wait_memory(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
) -> Result<(), Exit> {
    let end = deadline(sk, cx, call);
    sk.async_nospace = true;
    if sk.sk_err.is_some() || sk.shutdown & shutdown::SEND != 0 {
        return Err(Exit::DoError(Error::Pipe));
    }
    if cx.now >= end {
        sk.nospace = true; // H3
        return Err(Exit::DoError(Error::Again));
    }
    if call.signal {
        return Err(interrupted(call, end));
    }
    // Who sleeps hears of room without a signal.
    sk.async_nospace = false;
    call.progress.vm_wait = call.progress.vm_wait.filter(|at| cx.now < *at);
    if call.progress.vm_wait.is_none() && sk_stream_memory_free(sk, &cx.sh.sysctl, false) {
        return Ok(());
    }
    sk.nospace = true;
    call.progress.phase = Phase::Memory;
    Err(Exit::Wait(WaitReason::Memory))
}

/// The arena is empty although the socket is below its own limit: sleep 2 to 2 + HZ/5 jiffies (H9).
pub(super) fn vm_wait(cx: &mut Cx<'_, '_>, call: &mut SendCall<'_>) {
    let jiffies = 2 + u64::from(cx.jitter((HZ / 5) as u32));
    call.progress.vm_wait = Some(cx.now + jiffies * JIFFY_NS);
}
