//! The way in gets its ring, when it is worth one, on a thread of its own: the pump watches deadlines meanwhile. Several rings,
//! where there are several connections by then.

use sidewire_link::Errno;
use sidewire_link::packet::{MAX_SPREAD, Prepared, Turn};
use std::sync::Arc;

use crate::deferred::DeferredQueues;
use crate::stack::{Inner, NetStack};
use crate::{syscall, thread};

/// Stack of the thread, in bytes.
const STACK_SIZE: usize = 128 * 1024;

/// Connections from which on there are several rings: one is often for control only.
const SEVERAL: usize = 3;
/// RLIMIT_NOFILE from which on there may be several: each takes a descriptor, which the program has a right to.
const MIN_NOFILE: u64 = 1024;

/// True when the way in is to have several rings.
pub(crate) fn several(inner: &Inner) -> bool {
    inner.engine.tuples().take(SEVERAL).count() == SEVERAL && syscall::nofile_limit() >= MIN_NOFILE
}

/// Starts the thread, once. Without it the way in stays as it is.
pub(crate) fn start(stack: &'static NetStack) {
    let Some(turn) = stack.take_turn().map(Arc::new) else {
        return;
    };
    let _ = thread::spawn("sidewire-ring", STACK_SIZE, move || {
        let connections: Vec<_> = stack.with(|inner| {
            let tuples = inner.engine.tuples().take(MAX_SPREAD);
            tuples.map(|t| (t.local.port(), t.remote.port())).collect()
        });
        // Frames come meanwhile, which the program is to take.
        let spawn = |job: Box<dyn FnOnce() + Send>| {
            thread::spawn("sidewire-ring", STACK_SIZE, move || {
                syscall::step_back();
                job();
            })
        };
        let Ok(prepared) = turn.prepare(connections.into_iter(), spawn) else {
            return;
        };
        // One that is not used after all goes when the lock is free again: to close it takes the kernel some 10 ms.
        let mut prepared = Some(prepared);
        let turned = stack.with(|inner| {
            let before = inner.holders.way_in();
            let turned = go(stack, inner, &turn, &mut prepared);
            if turned.is_err() && !stack.retired() {
                let _ = inner.holders.filter_to(before);
            }
            turned
        });
        if turned.is_ok() {
            turn.settle();
        }
    });
}

/// Frames come by what is prepared from now on.
fn go(
    stack: &NetStack,
    inner: &mut Inner,
    turn: &Turn,
    prepared: &mut Option<Prepared>,
) -> Result<(), Errno> {
    if stack.retired() {
        return Err(Errno::EBUSY);
    }
    let ready = prepared.as_ref().ok_or(Errno::EBADF)?;
    inner.take_all(|inner| {
        let Inner {
            source, holders, ..
        } = inner;
        turn.begin(ready, source, |way_in| holders.filter_to(way_in))
    })?;
    let rcvbuf = ready.rcvbuf();
    let way_in = (stack.driver)
        .frames_come_by(&mut inner.source, |source| turn.complete(prepared, source))?;
    inner.holders.filter_is_at(way_in);
    if let Some(queues) = DeferredQueues::of(&inner.source, rcvbuf) {
        inner.deferred = Some(stack.defer_by(|| queues));
    }
    Ok(())
}
