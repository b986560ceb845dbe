//! Rounds under the stack lock: the frames that wait, then what they and the time make due.

use core::sync::atomic::Ordering;

use crate::stack::{Inner, NetStack};
use crate::thread;

/// Full batches that a call catches up with at most: peers that send without end do not hold it up for ever.
const CATCH_UP: u32 = 16;

/// One round under the stack lock: frames, then timers. Returns whether more frames may wait.
pub(crate) fn round(stack: &'static NetStack, inner: &mut Inner) -> bool {
    if stack.retired() {
        return false;
    }
    let got = inner.take_batch();
    if got.frames > 0 {
        inner.end_batch();
        if !thread::own() {
            stack.driver.rounds.fetch_add(1, Ordering::Relaxed);
        }
    } else {
        inner.read_clock();
    }
    timers_behind_frames(inner);
    got.more
}

/// What time has made due, whatever waits.
pub(crate) fn timers(inner: &mut Inner) {
    inner.read_clock();
    timers_of_now(inner);
}

/// What is due by the time that was read last, and still is when the frames are taken that came before that: whoever lost its
/// CPU after it looked for frames would find an ack late that lies there.
fn timers_behind_frames(inner: &mut Inner) {
    for _ in 0..CATCH_UP {
        if inner.next_deadline() > inner.net.now || inner.take_batch().frames == 0 {
            break;
        }
        inner.end_batch();
    }
    timers_of_now(inner);
}

/// What is due by the time that was read last.
fn timers_of_now(inner: &mut Inner) {
    let (engine, mut io) = inner.split_again();
    let now = io.now;
    if engine.next_deadline() <= now {
        engine.on_timers(&mut io);
    }
    if inner.net.next_deadline() <= now.0 {
        if inner.net.on_timer(now.0) {
            let (engine, mut io) = inner.split_again();
            engine.tx_space(&mut io);
        }
        inner.tell_unreachable();
    }
}

/// Runs `call` behind the frames that wait and before what they make due: acks that have come make room for the bytes of a
/// send, and what they let out leaves together with them. So a program that only sends drives by sending.
pub(crate) fn within_round<R>(
    stack: &'static NetStack,
    inner: &mut Inner,
    call: impl FnOnce(&mut Inner) -> R,
) -> R {
    stack.driver.sends.fetch_add(1, Ordering::Relaxed);
    behind(stack, inner, 1, call)
}

/// [`within_round`] for a call whose answer or effect goes by what has come: in Linux a segment changes the connection's
/// state when it arrives, not when the program looks. Takes all that waits, up to [`CATCH_UP`] batches.
pub(crate) fn up_to_date<R>(
    stack: &'static NetStack,
    inner: &mut Inner,
    call: impl FnOnce(&mut Inner) -> R,
) -> R {
    behind(stack, inner, CATCH_UP, call)
}

fn behind<R>(
    stack: &'static NetStack,
    inner: &mut Inner,
    batches: u32,
    call: impl FnOnce(&mut Inner) -> R,
) -> R {
    if stack.retired() || !inner.frames_wait() {
        return call(inner);
    }
    for left in (0..batches).rev() {
        if !inner.take_batch().more || left == 0 {
            break;
        }
        inner.end_batch();
    }
    let r = call(inner);
    inner.end_batch();
    stack.driver.rounds.fetch_add(1, Ordering::Relaxed);
    timers_behind_frames(inner);
    r
}

/// Takes what waits without sleeping, for a call that would answer "not ready". True when there was something.
pub(crate) fn poll_once(stack: &'static NetStack, inner: &mut Inner) -> bool {
    if !inner.frames_wait() {
        return false;
    }
    round(stack, inner);
    true
}
