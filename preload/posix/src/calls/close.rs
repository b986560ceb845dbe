//! `close`, and what the last one does.

use core::ffi::c_int;
use core::sync::atomic::Ordering;

use sidewire_engine::Step;
use sidewire_engine::calls::CloseCall;
use sidewire_engine::event::Events;

use super::Queued;
use crate::driver::{self, Woken};
use crate::file::{File, FileRef};
use crate::lock::MutexGuard;
use crate::readiness::epoll;
use crate::stack::Inner;
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
    if !file.usable() {
        // The connection is the parent's, or an undertaker's.
        return;
    }
    let _inside = signals::enter();
    let mut listener = core::mem::take(&mut *file.port.lock()).listener;
    end(file, None, CloseCall::default(), |inner| {
        inner.files -= 1;
        if let Some(listener) = listener.take() {
            inner.holders.unlisten(listener);
        }
    });
    file.stack().driver.wake_pump();
}

/// The program ends, or becomes another one: the connection ends, whoever has the file, and where it `lingers` that is waited
/// for.
pub(crate) fn end_with_program(file: &FileRef, lingers: bool) {
    let id = file.id();
    // What another thread is sending counts as sent first.
    let turn = file.sending.lock();
    let over = |i: &mut Inner| i.engine.sock(id).is_some_and(|sk| sk.orphan);
    if file.stack().with(over) {
        // By another of its numbers.
        return;
    }
    let mut call = CloseCall::default();
    // A signal ends the lingering before it begins.
    call.signal = !lingers;
    end(file, Some(turn), call, |inner| {
        // The port is the next program's.
        if let Some(listener) = file.port.lock().listener.take() {
            inner.holders.unlisten(listener);
        }
    });
}

/// Ends what the engine has of `file`; waits where SO_LINGER says so, until a signal comes. What is `left` is done in the
/// section in which that is over. The `turn` to send is kept until it has begun.
fn end(
    file: &File,
    mut turn: Option<MutexGuard<'_, ()>>,
    mut call: CloseCall,
    mut left: impl FnMut(&mut Inner),
) {
    let (stack, id) = (file.stack(), file.id());
    let nonblock = file.nonblock.load(Ordering::Relaxed);
    let waiter = Waiter::new();
    let mut queued = None;
    loop {
        let step = stack.with(|inner| {
            waiter.reset();
            // Unread data that has come ends it by a RST (ER-72).
            let step = round::up_to_date(stack, inner, |inner| {
                let (engine, mut io) = inner.split();
                engine.close(&mut io, id, nonblock, &mut call)
            });
            match step {
                Step::Ready(()) => left(inner),
                Step::Wait { .. } if queued.is_none() => {
                    // SAFETY: `queued` takes it out before the waiter goes, which is declared before it.
                    unsafe { file.wait.add(&waiter, Events::all().bits()) };
                    queued = Some(Queued {
                        file,
                        waiter: &waiter,
                    });
                }
                Step::Wait { .. } => {}
            }
            step
        });
        drop(turn.take());
        match step {
            Step::Ready(()) => break,
            Step::Wait { deadline, .. } => {
                let woken = driver::sleep(stack, &waiter, deadline, &mut [], None);
                call.signal = woken == Woken::Signal;
            }
        }
    }
}
