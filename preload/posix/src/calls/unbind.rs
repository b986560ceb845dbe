//! When a socket loses its port: Linux `tcp_set_state(TCP_CLOSE)`, which calls `inet_put_port` where SOCK_BINDPORT_LOCK is not
//! set.

use core::ffi::c_int;
use core::mem::take;

use sidewire_link::fd::duplicate_high;
use sidewire_uapi::TcpState;
use std::os::fd::AsRawFd;

use super::address::kernel_name;
use crate::file::{File, FileRef};
use crate::stack::Inner;
use crate::{fdtable, signals};

/// Gives up the port that the kernel chose for `file`, if what used it is over. It is called by the calls that can end a
/// connection, and before those that ask for the port.
pub(super) fn unbind_if_over(file: &FileRef, fd: c_int) {
    // Else the kernel's by now, which sees to it.
    if fdtable::get(fd).is_some() {
        unbind(file, fd, None);
    }
}

/// The same, when the peer has ended what used the port, which was `of_use` ([`Port::ends_with`](crate::holders::Port)): a call
/// of the program's may have come first. No lock is held, and any thread may be the caller.
pub(crate) fn unbind_after_the_end(file: &'static File, of_use: u32) {
    let Some(file) = FileRef::try_get(file) else {
        return;
    };
    let Some(fd) = fdtable::number_of(&file) else {
        return;
    };
    // The number may be closed meanwhile, and given anew: a close takes it out of the table first, so what has been duplicated
    // is the file's where the table still says so.
    let Ok(own) = duplicate_high(fd) else {
        return;
    };
    // Or by its port: where another descriptor is put in its place by dup2, the table hears of it after that.
    let engine = |i: &mut Inner| Some(i.engine.sock(file.id())?.tuple.local.port());
    let port = file.stack().with(engine);
    let is_it = kernel_name(own.as_raw_fd()).map(|name| name.port()) == port;
    if is_it && fdtable::is_of(fd, &file) {
        unbind(&file, own.as_raw_fd(), Some(of_use));
    }
}

fn unbind(file: &FileRef, fd: c_int, of_use: Option<u32>) {
    let id = file.id();
    let _inside = signals::enter();
    file.stack().with(|i| {
        if i.engine.state(id) != TcpState::Close {
            return;
        }
        let mut port = file.port.lock();
        if of_use.is_some() && of_use != port.ends_with() {
            return;
        }
        if !take(&mut port.used) || port.locked {
            return;
        }
        if port.bound {
            let number = kernel_name(fd).map_or(0, |name| name.port());
            // Where others keep it from listening it stays bound.
            if i.holders.unbind(fd, number).is_err() {
                return;
            }
        }
        port.bound = false;
        drop(port);
        i.engine.unbound(id);
    });
}
