//! Instances that calls wait on, and what the kernel's instances show of ours to whoever polls them.

use core::ffi::{c_int, c_uint};
use core::sync::atomic::Ordering;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{INSTANCES, KNOWN, NESTING, facts, known, known_in, sleepers};
use crate::readiness::interest::Epoll;
use crate::signals;

/// An instance for as long as a call waits on it, which outlives its numbers: Linux holds the file.
pub(crate) struct Used(Arc<Epoll>);

impl Used {
    pub(super) fn new(epfd: c_int) -> Option<Self> {
        if facts(epfd) & KNOWN == 0 {
            return None;
        }
        let _inside = signals::enter();
        // Under the lock: whoever takes its last number sees that it is used.
        let all = INSTANCES.lock();
        let epoll = all.known.get(&epfd)?;
        epoll.users.fetch_add(1, Ordering::SeqCst);
        Some(Self(epoll.clone()))
    }

    pub(super) fn epoll(&self) -> &Epoll {
        &self.0
    }

    /// The kernel's instance shows of ours what is ready by now: Linux `__ep_eventpoll_poll` looks at each item again.
    pub(crate) fn settle(&self) {
        settle(&self.0);
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let last = self.0.users.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.0.closed.load(Ordering::SeqCst) {
            let _inside = signals::enter();
            self.0.dissolve();
        }
    }
}

/// [`Used::settle`] of an instance, after those that stand in it.
fn settle(epoll: &Epoll) {
    settle_inner(epoll);
    epoll.settle(|numbers| {
        numbers
            .iter()
            .any(|n| sleepers(*n).load(Ordering::SeqCst) > 0)
    });
}

/// [`settle`] of what stands in an instance.
pub(super) fn settle_inner(epoll: &Epoll) {
    if !NESTING.load(Ordering::Relaxed) {
        return;
    }
    let numbers = epoll.state.lock().numbers.clone();
    let inner: SmallVec<[Arc<Epoll>; 2]> = {
        let all = INSTANCES.lock();
        let inside = |(outer, inner): &(c_int, c_int)| numbers.contains(outer).then_some(*inner);
        let inner = all.nests.iter().filter_map(inside);
        inner.filter_map(|fd| all.known.get(&fd).cloned()).collect()
    };
    // The kernel allows no circle.
    inner.iter().for_each(|inner| settle(inner));
}

/// For a poll on an instance: what is ready of ours shows in the kernel's instance from now on.
pub(crate) fn watched(fd: c_int) -> Option<Used> {
    let used = Used::new(fd)?;
    used.0.watch();
    Some(used)
}

/// The number is about to be closed, or to lead elsewhere: who waits on the instance goes on with it.
#[inline]
pub(crate) fn keep_for_users(fd: c_int) {
    if facts(fd) & KNOWN != 0
        && let Some(epoll) = known(fd)
        && epoll.users.load(Ordering::SeqCst) > 0
    {
        epoll.keep(fd);
    }
}

/// [`keep_for_users`] for all numbers in `first..=last`.
pub(crate) fn keep_range_for_users(first: c_uint, last: c_uint) {
    known_in(first, last).into_iter().for_each(keep_for_users);
}
