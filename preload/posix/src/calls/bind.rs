//! `bind` and `listen`.

use core::ffi::c_int;
use core::net::SocketAddr;
use core::sync::atomic::Ordering;

use libc::{sockaddr, socklen_t};
use sidewire_uapi::TcpState;

use super::address::{is_v6, shadow_name};
use super::socket::{Reason, count_engine, to_kernel};
use super::{answer_int, errno_of};
use crate::file::FileRef;
use crate::{fdtable, raw, real, signals, syscall};

/// `bind`: the kernel checks and reserves; the engine is told.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::bind(fd, addr, len) };
    };
    let _inside = signals::enter();
    let busy = file.stack().with(|i| i.engine.state(file.id())) != TcpState::Close;
    if busy {
        // ER-48; the shadow of an accepted connection is not bound and would say yes.
        raw::set_errno(libc::EINVAL);
        return -1;
    }
    // SAFETY: the caller's arguments.
    if unsafe { real::bind(fd, addr, len) } != 0 {
        return -1;
    }
    file.port.lock().bound = true;
    match shadow_name(fd) {
        Some(local) if !local.ip().is_loopback() => {
            file.stack().with(|i| i.engine.bound(file.id(), local));
        }
        Some(_) => to_kernel(&file, Reason::Local),
        None => to_kernel(&file, Reason::Ipv6),
    }
    0
}

/// Why a listener cannot be the engine's.
fn refusal(file: &FileRef, fd: c_int) -> Option<Reason> {
    if syscall::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT) == Ok(1) {
        return Some(Reason::ReusePort);
    }
    if is_v6(file)
        && syscall::getsockopt_int(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) == Ok(1)
    {
        return Some(Reason::Ipv6);
    }
    None
}

/// `listen`. The shadow becomes a real listener, for clients on this host; what comes over the wire is the engine's.
pub fn listen(fd: c_int, backlog: c_int) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        return real::listen(fd, backlog);
    };
    let _inside = signals::enter();
    let (stack, id) = (file.stack(), file.id());
    match stack.with(|i| i.engine.state(id)) {
        TcpState::Listen => {
            let r = stack.with(|i| {
                let (engine, mut io) = i.split();
                engine.listen(&mut io, id, backlog)
            });
            let _ = syscall::listen(fd, backlog);
            return answer_int(r.map(|()| 0).map_err(errno_of));
        }
        TcpState::Close => {}
        _ => {
            raw::set_errno(libc::EINVAL);
            return -1;
        }
    }
    if let Some(reason) = refusal(&file, fd) {
        to_kernel(&file, reason);
        return real::listen(fd, backlog);
    }
    answer_int(start(&file, fd, backlog))
}

fn start(file: &FileRef, fd: c_int, backlog: c_int) -> Result<c_int, c_int> {
    let (stack, id) = (file.stack(), file.id());
    if !file.port.lock().bound {
        // ER-56: an ephemeral port, on every address.
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        super::address::bind_shadow(fd, any, is_v6(file))?;
    }
    let local = shadow_name(fd).ok_or(libc::EINVAL)?;
    // Silent towards the wire before it listens.
    let silent = stack.with(|i| i.holders.listen(local, fd));
    if silent.is_err() {
        to_kernel(file, Reason::NoHolder);
        return if real::listen(fd, backlog) == 0 {
            Ok(0)
        } else {
            Err(raw::errno())
        };
    }
    let listening = syscall::listen(fd, backlog).map_err(|e| e.into_raw());
    let r = listening.and_then(|()| {
        stack.with(|i| {
            i.engine.autobound(id, local);
            let (engine, mut io) = i.split();
            engine.listen(&mut io, id, backlog).map_err(errno_of)
        })
    });
    if let Err(e) = r {
        stack.with(|i| i.holders.unlisten(local));
        return Err(e);
    }
    // `accept` looks into its queue without sleeping; the program's own O_NONBLOCK is the file's.
    if let Ok(flags) = syscall::fcntl(fd, libc::F_GETFL, 0) {
        let _ = syscall::fcntl(fd, libc::F_SETFL, (flags | libc::O_NONBLOCK) as usize);
    }
    {
        let mut port = file.port.lock();
        port.bound = true;
        port.listening = Some(local);
    }
    file.listening.store(true, Ordering::Release);
    count_engine();
    stack.driver.wake_pump();
    Ok(0)
}
