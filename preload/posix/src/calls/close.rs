//! `close`, and what the last one does.

use core::ffi::c_int;
use core::sync::atomic::Ordering;

use sidewire_engine::Step;
use sidewire_engine::calls::CloseCall;
use sidewire_engine::event::Events;

use crate::driver::{self, Woken};
use crate::file::File;
use crate::readiness::epoll;
use crate::wait::Waiter;
use crate::{fdtable, raw, real, round, signals};
use sidewire_link::fd::is_internal;

/// `close`.
pub fn close(fd: c_int) -> c_int {
    if !fdtable::is_ours(fd) {
        if is_internal(fd) {
            raw::set_errno(libc::EBADF);
            return -1;
        }
        epoll::forget(fd);
        return real::close(fd);
    }
    signals::test_cancel(None);
    let _inside = signals::enter();
    if signals::held::any() {
        signals::held::bury();
    }
    // First the entry, then the number: another thread may get the number as soon as the kernel has it back.
    let file = fdtable::remove(fd);
    let r = {
        let _whole = signals::cancel::Off::new();
        real::close(fd)
    };
    drop(file);
    r
}

/// The last reference went: the engine ends the connection in the background; with SO_LINGER this waits.
pub(crate) fn release(file: &'static File) {
    let (stack, id) = (file.stack(), file.id());
    if !file.usable() {
        // The connection is the parent's, or an undertaker's.
        return;
    }
    let _inside = signals::enter();
    let nonblock = file.nonblock.load(Ordering::Relaxed);
    let mut listener = core::mem::take(&mut *file.port.lock()).listener;
    let mut call = CloseCall::default();
    let waiter = Waiter::new();
    let mut waits = false;
    loop {
        let step = stack.with(|inner| {
            waiter.reset();
            // Unread data that has come ends it by a RST (ER-72).
            let step = round::up_to_date(stack, inner, |inner| {
                let (engine, mut io) = inner.split();
                engine.close(&mut io, id, nonblock, &mut call)
            });
            match step {
                Step::Ready(()) => {
                    inner.files -= 1;
                    if let Some(listener) = listener.take() {
                        inner.holders.unlisten(listener);
                    }
                }
                Step::Wait { .. } if !waits => {
                    waits = true;
                    // SAFETY: taken out below, before the waiter goes.
                    unsafe { file.wait.add(&waiter, Events::all().bits()) };
                }
                Step::Wait { .. } => {}
            }
            step
        });
        match step {
            Step::Ready(()) => break,
            Step::Wait { deadline, .. } => {
                let woken = driver::sleep(stack, &waiter, deadline, &mut [], None);
                call.signal = woken == Woken::Signal;
            }
        }
    }
    if waits {
        file.wait.remove(&waiter);
    }
    stack.driver.wake_pump();
}
