//! `shutdown`.

use core::ffi::c_int;

use sidewire_uapi::TcpState;

use super::{answer_int, errno_of};
use crate::{fdtable, real, signals};

/// `shutdown`.
pub fn shutdown(fd: c_int, how: c_int) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        return real::shutdown(fd, how);
    };
    let _inside = signals::enter();
    let (stack, id) = (file.stack(), file.id());
    // Behind what another thread is sending.
    let _turn = file.sending.lock();
    let r = stack.with(|i| {
        let listened = i.engine.state(id) == TcpState::Listen;
        let (engine, mut io) = i.split();
        let r = engine.shutdown(&mut io, id, how);
        let stopped = listened && i.engine.state(id) == TcpState::Close;
        if stopped {
            // ER-3: it no longer listens.
            if let Some(listener) = file.port.lock().listener.take() {
                i.holders.unlisten(listener);
            }
        }
        r.map(|()| stopped)
    });
    if r == Ok(true) {
        file.set_kernel_listener(None);
    }
    answer_int(r.map(|_| 0).map_err(errno_of))
}
