//! One splice at a time from one pipe: Linux's pipe lock, which `splice_to_socket` holds until the socket has what it takes, as
//! far as this process's threads go. What is sent here is only looked at before, so that the pipe keeps what the socket refuses.

use std::sync::Arc;

use super::splice::PipeId;

use crate::lock::Mutex;

/// Of each pipe from which somebody splices: held by whoever has the turn.
static PIPES: Mutex<Vec<(PipeId, Arc<Mutex<()>>)>> = Mutex::new(Vec::new());

/// Locks the list before a fork, and unlocks it after, in parent and child.
pub(crate) fn across_fork(before: bool) {
    if before {
        core::mem::forget(PIPES.lock());
    } else {
        // SAFETY: this thread locked it before the fork.
        unsafe { PIPES.force_unlock() };
    }
}

/// In the child of a fork, which has none of the threads that have turns.
pub(crate) fn forked() {
    PIPES.lock().clear();
}

/// A turn. Whoever waits for one does so without a signal's ending that, as Linux's `mutex_lock`.
pub(super) struct PipeTurn {
    pipe: PipeId,
    held: Arc<Mutex<()>>,
}

impl PipeTurn {
    pub(super) fn take(pipe: PipeId) -> Self {
        let held = {
            let mut pipes = PIPES.lock();
            match pipes.iter().find(|(known, _)| *known == pipe) {
                Some((_, held)) => held.clone(),
                None => {
                    let held = Arc::default();
                    pipes.push((pipe, Arc::clone(&held)));
                    held
                }
            }
        };
        core::mem::forget(held.lock());
        Self { pipe, held }
    }
}

impl Drop for PipeTurn {
    fn drop(&mut self) {
        // SAFETY: `take` locked it.
        unsafe { self.held.force_unlock() };
        let mut pipes = PIPES.lock();
        // The list's and this one: nobody waits.
        if Arc::strong_count(&self.held) == 2 {
            pipes.retain(|(pipe, _)| *pipe != self.pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn one_pipe_is_one_turn() {
        let [a, b] = [1, 2].map(|ino| PipeId { dev: u64::MAX, ino });
        let given_back = AtomicBool::new(false);
        let first = PipeTurn::take(a);
        let _other = PipeTurn::take(b);
        std::thread::scope(|s| {
            s.spawn(|| {
                let _second = PipeTurn::take(a);
                assert!(given_back.load(Ordering::SeqCst));
            });
            std::thread::yield_now();
            given_back.store(true, Ordering::SeqCst);
            drop(first);
        });
        assert!(!PIPES.lock().iter().any(|(pipe, _)| *pipe == a));
    }
}
