//! `bind` and `listen`.

use core::ffi::c_int;
use core::net::{Ipv4Addr, SocketAddr};

use arrayvec::ArrayVec;
use libc::{sockaddr, socklen_t};
use sidewire_link::Errno;
use sidewire_uapi::TcpState;
use sidewire_uapi::tcp::{self, repair};

use super::address::{GivenAddr, bind_shadow, is_v6, shadow_name};
use super::handover::options;
use super::socket::{Asked, Reason, to_kernel};
use super::unbind::unbind_if_over;
use super::{answer_int, errno_of, handover};
use crate::config::rules::Direction;
use crate::file::FileRef;
use crate::passed_on::LOOPBACK_IFINDEX;
use crate::readiness::epoll;
use crate::{config, fdtable, process, raw, real, reuseport, signals, syscall};

/// Listeners on one port that are accelerated before there is a group: more than one address can be bound.
const GROUP_MAX: usize = 16;

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
    unbind_if_over(&file, fd);
    options::bring(&file, fd);
    let busy = file.stack().with(|i| i.engine.state(file.id())) != TcpState::Close;
    if busy {
        // SAFETY: the caller's arguments.
        raw::set_errno(unsafe { bind_again(&file, addr, len) });
        return -1;
    }
    // SAFETY: the program's pointer.
    let port = unsafe { GivenAddr::read(addr, len) }
        .ok()
        .and_then(|a| a.parse())
        .map_or(0, |a| a.port());
    let try_it = || {
        // SAFETY: the caller's arguments.
        match unsafe { real::bind(fd, addr, len) } {
            0 => Ok(()),
            _ => Err(Errno::new(raw::errno())),
        }
    };
    let repairs = file.stack().with(|i| {
        let sk = i.engine.sock(file.id());
        sk.is_some_and(|sk| sk.repair.on)
    });
    let tried = match try_it() {
        // In repair mode the port may be in use.
        Err(Errno::EADDRINUSE) if repairs => in_repair_mode(fd, try_it),
        Err(Errno::EADDRINUSE) if port != 0 => {
            let stack = file.stack();
            match stack.with(|i| i.holders.bind_over(fd, port, try_it)) {
                Err(Errno::EADDRINUSE)
                    if reuses_port(fd)
                        && (give_group(stack.cookie(), port)
                            || reuseport::ask(stack.cookie(), port)) =>
                {
                    try_it()
                }
                tried => tried,
            }
        }
        tried => tried,
    };
    if let Err(e) = tried {
        if e == Errno::EADDRINUSE {
            // ER-85: Linux has overwritten the address by then, and clears it.
            file.stack().with(|i| i.engine.address_cleared(file.id()));
        }
        raw::set_errno(e.into_raw());
        return -1;
    }
    {
        let mut held = file.port.lock();
        held.bound = true;
        held.locked |= port != 0;
    }
    match shadow_name(fd) {
        Some(local) if !local.ip().is_loopback() => {
            file.stack().with(|i| i.engine.bound(file.id(), local));
        }
        Some(_) => to_kernel(&file, Reason::Local, Asked::Nothing),
        None => to_kernel(&file, Reason::Ipv6, Asked::Nothing),
    }
    0
}

/// Has `bind` bind `fd` while that is in repair mode, where the program may put it into that.
fn in_repair_mode(fd: c_int, bind: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let repair = |how: c_int| syscall::setsockopt(fd, libc::IPPROTO_TCP, tcp::TCP_REPAIR, &how);
    let reuse = syscall::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    repair(repair::ON).map_err(|_| Errno::EADDRINUSE)?;
    let bound = bind();
    let _ = repair(repair::OFF_NO_WP);
    let _ = syscall::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &reuse);
    bound
}

/// ER-48: what is bound already is EINVAL, once the address has passed. A socket of its own is asked about that, since the
/// shadow of an accepted connection is not bound and would say yes.
unsafe fn bind_again(file: &FileRef, addr: *const sockaddr, len: socklen_t) -> c_int {
    let domain = if is_v6(file) {
        libc::AF_INET6
    } else {
        libc::AF_INET
    };
    let Ok(fd) = syscall::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) else {
        return libc::EINVAL;
    };
    // SAFETY: the caller's arguments.
    let refused = unsafe { real::bind(fd, addr, len) } != 0;
    let errno = raw::errno();
    let _ = syscall::close(fd);
    match errno {
        libc::EADDRINUSE => libc::EINVAL,
        _ if refused => errno,
        _ => libc::EINVAL,
    }
}

pub(super) fn reuses_port(fd: c_int) -> bool {
    syscall::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT) == Ok(1)
}

/// Gives the listeners of this process on a port that others may have as well to the kernel, in the network namespace with that
/// cookie: it divides clients among the members of a group, and a holder is no member. True when there was one.
pub(crate) fn give_group(netns: u64, port: u16) -> bool {
    let mut group = ArrayVec::<c_int, GROUP_MAX>::new();
    fdtable::for_each(|fd| {
        let listens = fdtable::get(fd).is_some_and(|file| {
            let held = file.port.lock();
            file.stack().cookie() == netns
                && held
                    .listener
                    .as_ref()
                    .is_some_and(|l| l.local().port() == port)
        });
        if listens && reuses_port(fd) {
            let _ = group.try_push(fd);
        }
    });
    group
        .iter()
        .filter(|fd| handover::give(**fd, Reason::ReusePort).is_ok())
        .count()
        > 0
}

/// Why a listener cannot be the engine's.
fn refusal(file: &FileRef, fd: c_int) -> Option<Reason> {
    if is_v6(file) && syscall::getsockopt_int(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) == Ok(1) {
        return Some(Reason::Ipv6);
    }
    let device = file.stack().with(|i| {
        let sk = i.engine.sock(file.id());
        sk.map(|sk| sk.opts.bound_dev_if)
    });
    (device == Some(LOOPBACK_IFINDEX)).then_some(Reason::Local)
}

/// `listen`. What comes over the wire is the engine's; clients on this host and over IPv6 are the kernel's, at listeners of
/// their own.
pub fn listen(fd: c_int, backlog: c_int) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        return real::listen(fd, backlog);
    };
    let _inside = signals::enter();
    // Nobody gives the socket away meanwhile.
    let _turn = file.sending.lock();
    if file.moved() {
        return real::listen(fd, backlog);
    }
    options::bring(&file, fd);
    let (stack, id) = (file.stack(), file.id());
    if !stack.with(|i| i.engine.may_listen(id)) {
        // Before a port is taken for it.
        raw::set_errno(libc::EINVAL);
        return -1;
    }
    if stack.with(|i| i.engine.state(id)) == TcpState::Listen {
        if file.leaving() {
            return real::listen(fd, backlog);
        }
        let r = stack.with(|i| {
            let (engine, mut io) = i.split();
            engine.listen(&mut io, id, backlog)
        });
        if let Some(l) = &mut file.port.lock().listener {
            let _ = l.set_backlog(backlog);
        }
        return answer_int(r.map(|()| 0).map_err(errno_of));
    }
    unbind_if_over(&file, fd);
    if let Some(reason) = refusal(&file, fd) {
        let asked = shadow_name(fd).map_or(Asked::Nothing, Asked::ListenerOn);
        to_kernel(&file, reason, asked);
        return real::listen(fd, backlog);
    }
    answer_int(start(&file, fd, backlog))
}

fn start(file: &FileRef, fd: c_int, backlog: c_int) -> Result<c_int, c_int> {
    let (stack, id, v6) = (file.stack(), file.id(), is_v6(file));
    if !file.port.lock().bound {
        // ER-56: an ephemeral port, on every address; or on the one that an earlier bind named.
        let kept = stack.with(|i| {
            i.engine
                .sock(id)
                .filter(|sk| sk.bound_addr)
                .map(|sk| sk.tuple.local.ip())
        });
        let address = kept.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        bind_shadow(fd, SocketAddr::new(address, 0), v6)?;
        file.port.lock().bound = true;
    }
    let local = shadow_name(fd).ok_or(libc::EINVAL)?;
    if !config::get().accelerates(Direction::In, local) {
        return listen_in_kernel(file, fd, backlog, Reason::Rule, local);
    }
    // Its siblings are about to listen there as well.
    if process::is_child() && reuses_port(fd) {
        return listen_in_kernel(file, fd, backlog, Reason::ReusePort, local);
    }
    let started = stack.with(|i| {
        let listener = i.holders.listen(local, fd, v6, backlog)?;
        i.engine.autobound(id, local);
        let (engine, mut io) = i.split();
        match engine.listen(&mut io, id, backlog) {
            Ok(()) => Ok(Ok(listener)),
            Err(e) => {
                i.holders.unlisten(listener);
                Ok(Err(errno_of(e)))
            }
        }
    });
    match started {
        Ok(listener) => {
            let listener = listener?;
            file.set_kernel_listener(Some(listener.poll_fd()));
            {
                let mut port = file.port.lock();
                port.listener = Some(listener);
                port.begin();
            }
            epoll::listening(file.record());
            stack.driver.wake_pump();
            Ok(0)
        }
        Err(Errno::EADDRINUSE) if !reuses_port(fd) => Err(libc::EADDRINUSE),
        Err(e) => {
            // With SO_REUSEPORT the port may be others' as well: the group is the kernel's.
            let reason = match e {
                Errno::EADDRINUSE => Reason::ReusePort,
                _ => Reason::NoHolder,
            };
            listen_in_kernel(file, fd, backlog, reason, local)
        }
    }
}

fn listen_in_kernel(
    file: &FileRef,
    fd: c_int,
    backlog: c_int,
    why: Reason,
    local: SocketAddr,
) -> Result<c_int, c_int> {
    to_kernel(file, why, Asked::ListenerOn(local));
    if real::listen(fd, backlog) == 0 {
        Ok(0)
    } else {
        Err(raw::errno())
    }
}
