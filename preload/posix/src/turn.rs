//! The way in gets its ring, when it is worth one, on a thread of its own: the pump watches deadlines meanwhile.

use sidewire_link::Errno;

use crate::deferred::DeferredFrames;
use crate::stack::{Inner, NetStack};
use crate::thread;

/// Stack of the thread, in bytes.
const STACK_SIZE: usize = 128 * 1024;

/// Starts the thread, once. Without it the way in stays as it is.
pub(crate) fn start(stack: &'static NetStack) {
    let Some(turn) = stack.take_turn() else {
        return;
    };
    let _ = thread::spawn("sidewire-ring", STACK_SIZE, move || {
        let Ok(prepared) = turn.prepare() else {
            return;
        };
        // One that is not used after all goes when the lock is free again: to close it takes the kernel some 10 ms.
        let mut prepared = Some(prepared);
        let turned = stack.with(|inner| {
            if stack.retired() {
                return Err(Errno::EBUSY);
            }
            let ready = prepared.as_ref().ok_or(Errno::EBADF)?;
            inner.take_all(|inner| {
                let Inner {
                    source, holders, ..
                } = inner;
                turn.begin(ready, source, |fd| holders.filter_to(fd))
            })?;
            let rcvbuf = ready.rcvbuf();
            let source = &mut inner.source;
            let changed = stack
                .driver
                .frames_come_by(|| turn.complete(&mut prepared, source));
            if let Err(e) = changed {
                let _ = inner.holders.filter_again();
                return Err(e);
            }
            if let Some(queue) = inner.source.queue() {
                inner.deferred = Some(stack.defer_by(|| DeferredFrames::new(queue, rcvbuf)));
            }
            Ok(())
        });
        if turned.is_ok() {
            turn.settle();
        }
    });
}
