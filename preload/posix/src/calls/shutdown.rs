//! `shutdown`.

use core::ffi::c_int;

use sidewire_uapi::TcpState;

use super::unbind::unbind_if_over;
use super::{answer_int, errno_of, handover};
use crate::file::FileRef;
use crate::stack::Inner;
use crate::{fdtable, real, round, signals};

/// `shutdown`.
pub fn shutdown(fd: c_int, how: c_int) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        return real::shutdown(fd, how);
    };
    let _inside = signals::enter();
    let id = file.id();
    if file.leaving() {
        handover::finish(file.stack(), &file, true);
        return real::shutdown(fd, how);
    }
    // Behind what another thread is sending.
    let _turn = file.sending.lock();
    if file.moved() {
        return real::shutdown(fd, how);
    }
    let r = may_stop_listening(&file, |i| {
        let (engine, mut io) = i.split();
        engine.shutdown(&mut io, id, how)
    });
    unbind_if_over(&file, fd);
    answer_int(r.map(|()| 0).map_err(errno_of))
}

/// Runs `f`, after which the socket may listen no more (ER-3, ER-25): its port is then given up.
pub(super) fn may_stop_listening<R>(file: &FileRef, f: impl FnOnce(&mut Inner) -> R) -> R {
    let stack = file.stack();
    let (r, stopped) = stack.with(|i| {
        let id = file.id();
        let listened = i.engine.state(id) == TcpState::Listen;
        let r = round::up_to_date(stack, i, f);
        let stopped = listened && i.engine.state(id) == TcpState::Close;
        if stopped && let Some(listener) = file.port.lock().listener.take() {
            i.holders.unlisten(listener);
        }
        (r, stopped)
    });
    if stopped {
        file.set_kernel_listener(None);
    }
    r
}
