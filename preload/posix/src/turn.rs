//! The way in gets its ring, when it is worth one, on a thread of its own: the pump watches deadlines meanwhile. Several rings,
//! where there are several connections by then, or when they turn out to be in each other's way.

use sidewire_engine::mib::Counter;
use sidewire_link::Errno;
use sidewire_link::packet::{MAX_SPREAD, Prepared, Turn};

use crate::deferred::DeferredQueues;
use crate::stack::{Inner, NetStack, monotonic_ns};
use crate::{syscall, thread};

/// Stack of the thread, in bytes: the program's thread-local storage lies in it, too.
const STACK_SIZE: usize = 256 * 1024;

/// Connections from which on there are several rings: one is often for control only.
const SEVERAL: usize = 3;
/// RLIMIT_NOFILE from which on there may be several: each takes a descriptor, which the program has a right to.
const MIN_NOFILE: u64 = 1024;

/// Segments received from which on there are several at once. A process cannot end while they are being made, which takes longer
/// than most programs that fetch some files live.
const MUCH: u64 = 300;

/// How long, in nanoseconds, the way in is in want of a ring before it is made: a process cannot end while that goes on, and
/// then has it to give back, together some 30 ms.
const LASTING: u64 = 20_000_000;

/// True when the way in is to have a ring, or several.
pub(crate) fn wanted(inner: &mut Inner) -> bool {
    if inner.crowded() {
        return true;
    }
    inner.source.wants_ring() && {
        let now = monotonic_ns();
        now - *inner.ring_wanted_at.get_or_insert(now) >= LASTING
    }
}

/// True when the way in is to have several rings.
pub(crate) fn several(inner: &Inner) -> bool {
    let bulk = inner.engine.mib().get(Counter::InSegs) >= MUCH
        && inner.source.bulky()
        && inner.engine.tuples().take(SEVERAL).count() == SEVERAL;
    (bulk || inner.crowded()) && syscall::nofile_limit() >= MIN_NOFILE
}

/// Starts the thread. Without it the way in stays as it is.
pub(crate) fn start(stack: &'static NetStack) {
    let Some(turn) = stack.take_turn() else {
        return;
    };
    let _ = thread::spawn("sidewire-ring", STACK_SIZE, move || {
        let (has_one, connections) = stack.with(|inner| {
            let tuples = inner.engine.tuples().take(MAX_SPREAD);
            let ports: Vec<_> = tuples.map(|t| (t.local.port(), t.remote.port())).collect();
            (inner.deferred.is_some(), ports)
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
        // Only several are better than one.
        if has_one && !prepared.several() {
            return;
        }
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
        if let Ok(Several(several)) = turned {
            turn.settle();
            if !several {
                stack.turn_again(turn);
            }
        }
    });
}

/// Whether frames come by several rings.
struct Several(bool);

/// Frames come by what is prepared from now on.
fn go(
    stack: &NetStack,
    inner: &mut Inner,
    turn: &Turn,
    prepared: &mut Option<Prepared>,
) -> Result<Several, Errno> {
    if stack.retired() {
        return Err(Errno::EBUSY);
    }
    let ready = prepared.as_ref().ok_or(Errno::EBADF)?;
    inner.bring_deferred();
    inner.take_all(|inner| {
        let Inner {
            source, holders, ..
        } = inner;
        turn.begin(ready, source, |way_in| holders.filter_to(way_in))
    })?;
    inner.bring_deferred();
    let rcvbuf = ready.rcvbuf();
    let way_in = (stack.driver)
        .frames_come_by(&mut inner.source, |source| turn.complete(prepared, source))?;
    inner.holders.filter_is_at(way_in);
    inner.deferred = DeferredQueues::of(&inner.source, rcvbuf).map(|q| stack.defer_by(q));
    let several = inner.deferred.as_ref().is_some_and(DeferredQueues::several);
    Ok(Several(several))
}
