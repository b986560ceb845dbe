//! When a socket loses its port: Linux `tcp_set_state(TCP_CLOSE)`, which calls `inet_put_port` where SOCK_BINDPORT_LOCK is not
//! set.

use core::ffi::c_int;
use core::mem::take;

use sidewire_uapi::TcpState;

use super::address::kernel_name;
use crate::fdtable;
use crate::file::FileRef;

/// Gives up the port that the kernel chose for `file`, if what used it is over. It is called by the calls that can end a
/// connection, and before those that ask for the port; one that the peer ended keeps its port until then.
pub(super) fn unbind_if_over(file: &FileRef, fd: c_int) {
    let (stack, id) = (file.stack(), file.id());
    if fdtable::get(fd).is_none() {
        // The kernel's by now, which sees to it.
        return;
    }
    if stack.with(|i| i.engine.state(id)) != TcpState::Close {
        return;
    }
    let mut port = file.port.lock();
    if !take(&mut port.used) || port.locked {
        return;
    }
    if port.bound {
        let number = kernel_name(fd).map_or(0, |name| name.port());
        // Where others keep it from listening it stays bound.
        if stack.with(|i| i.holders.unbind(fd, number)).is_err() {
            return;
        }
    }
    port.bound = false;
    drop(port);
    stack.with(|i| i.engine.unbound(id));
}
