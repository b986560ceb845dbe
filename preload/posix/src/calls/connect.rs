//! `connect`: who carries it, then the handshake.

use core::ffi::c_int;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::sync::atomic::Ordering;

use libc::{sockaddr, socklen_t};
use sidewire_engine::calls::ConnectCall;
use sidewire_engine::metrics::MetricsKey;
use sidewire_engine::net::FlowKey;
use sidewire_engine::opts::SockOpts;
use sidewire_engine::sendmsg::NameArg;
use sidewire_link::Errno;
use sidewire_link::holder::HoldOptions;
use sidewire_link::netlink::LinkKind;
use sidewire_uapi::ip::IP_LOCAL_PORT_RANGE;

use super::address::{GivenAddr, SIN6_LEN_RFC2133, is_v6, shadow_name, unmapped};
use super::bind::reuses_port;
use super::handover::options;
use super::shutdown::may_stop_listening;
use super::socket::{Asked, Reason, count_engine, to_kernel};
use super::unbind::unbind_if_over;
use super::{MOVED, Turn, answer_int, handover, run_on};
use crate::config::rules::Direction;
use crate::file::FileRef;
use crate::lock::MutexGuard;
use crate::stack::Inner;
use crate::{config, driver, fdtable, raw, real, round, signals, syscall, sysctl};

/// `connect`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::connect(fd, addr, len) };
    };
    let mut prepared = None;
    let mut begun = false;
    let r = signals::call(&file, || {
        // Until it has begun nobody gives the socket away: what is prepared is for the engine.
        let turn = file.sending.lock();
        if file.moved() {
            return Err(MOVED);
        }
        options::bring(&file, fd);
        if prepared.is_none() {
            // SAFETY: the program's pointer.
            prepared = Some(unsafe { prepare(&file, fd, addr, len) }?);
        }
        match prepared {
            Some(Way::Kernel(reason, remote)) => {
                drop(turn);
                to_kernel(&file, reason, Asked::ConnectionTo(remote));
                // SAFETY: the caller's arguments.
                match unsafe { real::connect(fd, addr, len) } {
                    0 => Ok(0),
                    _ => Err(raw::errno()),
                }
            }
            Some(Way::Engine(remote)) => handshake(&file, turn, remote, &mut begun),
            Some(Way::Disconnect) | None if file.leaving() => {
                drop(turn);
                handover::finish(file.stack(), &file, true);
                // SAFETY: the caller's arguments.
                match unsafe { real::connect(fd, addr, len) } {
                    0 => Ok(0),
                    _ => Err(raw::errno()),
                }
            }
            Some(Way::Disconnect) | None => {
                may_stop_listening(&file, |i| {
                    let (engine, mut io) = i.split();
                    engine.disconnect(&mut io, file.id());
                });
                Ok(0)
            }
        }
    });
    if r == Err(MOVED) {
        // SAFETY: the caller's arguments.
        let r = unsafe { real::connect(fd, addr, len) };
        // The handshake that this call waited for was over when the kernel got the connection.
        return match raw::errno() {
            libc::EISCONN if r != 0 && begun => 0,
            _ => r,
        };
    }
    if r != Err(libc::EINPROGRESS) {
        // Refused, or dissolved.
        unbind_if_over(&file, fd);
    }
    answer_int(r)
}

#[derive(Clone, Copy)]
enum Way {
    Engine(SocketAddr),
    Kernel(Reason, SocketAddr),
    Disconnect,
}

/// `begun` becomes true with the call's first step, and stays so where it is made again after a signal.
fn handshake(
    file: &FileRef,
    turn: MutexGuard<'_, ()>,
    remote: SocketAddr,
    begun: &mut bool,
) -> Result<c_int, c_int> {
    let stack = file.stack();
    let nonblock = file.nonblock.load(Ordering::Relaxed);
    let mut call = ConnectCall::default();
    run_on(file, Turn::Send, Some(turn), |i, id, signal| {
        *begun = true;
        call.signal = signal;
        round::up_to_date(stack, i, |i| {
            let (engine, mut io) = i.split();
            engine.connect(&mut io, id, remote, nonblock, &mut call)
        })
    })
    .map(|()| 0)
    .inspect_err(|e| {
        if *e == libc::EINPROGRESS {
            // Who connects and then sleeps elsewhere: the pump is to hear the answer.
            stack.driver.wake_pump();
        }
    })
}

/// Checks the address in Linux's order (ER-22 to ER-35), and makes ready what the first SYN needs.
unsafe fn prepare(
    file: &FileRef,
    fd: c_int,
    addr: *const sockaddr,
    len: socklen_t,
) -> Result<Way, c_int> {
    // SAFETY: the program's pointer.
    let given = unsafe { GivenAddr::read(addr, len) }?;
    let (stack, id) = (file.stack(), file.id());
    // Before the socket's state (Linux __inet_stream_connect).
    let given_family = given.family().ok_or(libc::EINVAL)?;
    if given_family == libc::AF_UNSPEC {
        return Ok(Way::Disconnect);
    }
    if !stack.with(|i| i.engine.connect_is_fresh(id)) {
        // The socket's state answers, not the address.
        return Ok(Way::Engine(SocketAddr::from(([0, 0, 0, 0], 0))));
    }
    unbind_if_over(file, fd);
    let v6 = is_v6(file);
    let (family, shortest) = if v6 {
        (libc::AF_INET6, SIN6_LEN_RFC2133)
    } else {
        (libc::AF_INET, size_of::<libc::sockaddr_in>())
    };
    if given.bytes().len() < shortest {
        return Err(libc::EINVAL);
    }
    if given_family != family {
        // An AF_INET6 socket takes AF_INET addresses (Linux tcp_v6_connect says no, inet_stream_connect to v4 yes).
        return Err(libc::EAFNOSUPPORT);
    }
    way_to(
        file,
        fd,
        unmapped(given.parse().ok_or(libc::EINVAL)?),
        false,
    )
}

/// Who carries a connection to `remote`; what the engine needs for it is taken.
fn way_to(file: &FileRef, fd: c_int, remote: SocketAddr, fastopen: bool) -> Result<Way, c_int> {
    let stack = file.stack();
    let IpAddr::V4(daddr) = remote.ip() else {
        return Ok(Way::Kernel(Reason::Ipv6, remote));
    };
    if daddr.is_unspecified() || daddr.is_loopback() {
        return Ok(Way::Kernel(Reason::Local, remote));
    }
    stack.with(driver::hear_network);
    if !config::get().accelerates(Direction::Out, remote) {
        return Ok(Way::Kernel(Reason::Rule, remote));
    }
    stack
        .with(|i| plan(file, i, remote))
        .and_then(|plan| match plan {
            Plan::Kernel(reason) => Ok(Way::Kernel(reason, remote)),
            Plan::From(saddr) => {
                let way = reserve(file, fd, saddr, remote)?;
                if let Way::Engine(_) = way {
                    recall_peer(file, saddr, remote, fastopen);
                }
                Ok(way)
            }
        })
}

/// What a send with MSG_FASTOPEN, which connects, needs before the engine gets it. True when the socket is the kernel's now,
/// which is then to be asked.
///
/// # Errors
/// Those of `connect` for the route and the port (FO-12).
pub(super) fn before_fastopen(file: &FileRef, fd: c_int, name: &[u8]) -> Result<bool, c_int> {
    let (stack, id) = (file.stack(), file.id());
    let remote = stack.with(|i| i.engine.fastopen_connects_to(id, NameArg(name)));
    let Some(remote) = remote else {
        return Ok(false);
    };
    match way_to(file, fd, remote, true)? {
        Way::Kernel(reason, remote) => {
            to_kernel(file, reason, Asked::ConnectionTo(remote));
            Ok(true)
        }
        Way::Engine(_) | Way::Disconnect => Ok(false),
    }
}

/// What other processes know of the peer counts for the connection.
fn recall_peer(file: &FileRef, saddr: IpAddr, remote: SocketAddr, fastopen: bool) {
    let peer = MetricsKey {
        saddr,
        daddr: remote.ip(),
    };
    let (stack, id) = (file.stack(), file.id());
    let asks = stack.with(|i| {
        let (engine, io) = i.split();
        let fastopen = fastopen || engine.sock(id).is_some_and(|sk| sk.opts.fastopen_connect);
        engine.asks_about(io.now, &peer, fastopen)
    });
    if asks {
        stack.recall_peer(&peer);
    }
}

enum Plan {
    Kernel(Reason),
    /// With this source address.
    From(IpAddr),
}

/// An address that stands for many hosts, from which nothing is sent.
fn is_group(inner: &mut Inner, addr: IpAddr) -> bool {
    let key = FlowKey {
        daddr: addr,
        saddr: None,
        oif: 0,
        mark: 0,
        tos: 0,
    };
    let known = matches!(addr, IpAddr::V4(v4) if v4.is_broadcast() || v4.is_multicast());
    known || inner.net.lookup(&key).is_ok_and(|route| route.not_unicast)
}

fn plan(file: &FileRef, inner: &mut Inner, remote: SocketAddr) -> Result<Plan, c_int> {
    let sk = inner.engine.sock(file.id()).ok_or(libc::EBADF)?;
    let local = sk.tuple.local;
    let mut key = FlowKey {
        daddr: remote.ip(),
        saddr: (!local.ip().is_unspecified()).then_some(local.ip()),
        oif: sk.opts.bound_dev_if,
        mark: sk.opts.mark,
        tos: sk.opts.ip_tos,
    };
    let mut found = inner.net.lookup(&key);
    if found.is_err() && key.saddr.is_some_and(|addr| is_group(inner, addr)) {
        // Linux __inet_bind: "use device".
        key.saddr = None;
        found = inner.net.lookup(&key);
    }
    let route = match found {
        Ok(route) => route,
        // The kernel's table said no: so would its connect.
        Err(Errno::EINVAL) => return Err(libc::EINVAL),
        Err(e) => return Err(e.into_raw()),
    };
    if route.not_unicast {
        return Err(libc::ENETUNREACH);
    }
    if route.is_local || route.loopback {
        return Ok(Plan::Kernel(Reason::Local));
    }
    if !matches!(route.dev.kind, LinkKind::Ether | LinkKind::None) {
        return Ok(Plan::Kernel(Reason::Device));
    }
    let saddr = key.saddr.or(route.src).ok_or(libc::EADDRNOTAVAIL)?;
    Ok(Plan::From(saddr))
}

/// IP_LOCAL_PORT_RANGE as the kernel's socket has taken it; 0 for none.
fn port_range(opts: &SockOpts) -> u32 {
    let set = opts.kernels.iter().flat_map(|noted| noted.iter());
    let mut range = set.filter(|o| (o.level, o.name) == (libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE));
    let value = range
        .next()
        .and_then(|o| o.value.as_slice().try_into().ok());
    value.map_or(0, u32::from_ne_bytes)
}

/// A range of ports with the bounds of a socket's own that lie in it (Linux `inet_sk_get_local_port_range`).
fn narrowed(all: RangeInclusive<u16>, own: u32) -> RangeInclusive<u16> {
    let within = |port: u32, or: u16| {
        let port = port as u16;
        if all.contains(&port) { port } else { or }
    };
    within(own, *all.start())..=within(own >> 16, *all.end())
}

/// Takes the holder of the four-tuple; it chooses the port where the program has not.
fn reserve(file: &FileRef, fd: c_int, saddr: IpAddr, remote: SocketAddr) -> Result<Way, c_int> {
    let (stack, id) = (file.stack(), file.id());
    let bound = {
        let mut held = file.port.lock();
        held.begin();
        held.bound
    };
    let port = if bound {
        shadow_name(fd).ok_or(libc::EADDRNOTAVAIL)?.port()
    } else {
        0
    };
    let held = stack.with(|i| {
        let opts = &i.engine.sock(id).ok_or(Errno::EBADF)?.opts;
        let options = HoldOptions {
            mark: opts.mark,
            device: (opts.bound_dev_if != 0)
                .then(|| syscall::bound_device(fd))
                .flatten(),
            reuse: opts.reuseaddr != 0,
            reuse_port: bound && reuses_port(fd),
            port_range: if port == 0 { port_range(opts) } else { 0 },
            shadow: bound.then_some(fd),
        };
        let wanted = SocketAddr::new(saddr, port);
        i.holders.spare_descriptors(&mut i.engine);
        let local = match i.holders.connect(wanted, remote, &options) {
            Ok(local) => local,
            // ER-43: what is left of an earlier connection may hold it.
            Err(e) => {
                let (engine, io) = i.split();
                let ports = match port {
                    0 => narrowed(sysctl::local_port_range(), options.port_range),
                    port => port..=port,
                };
                let claimed = engine.claim_timewait(id, saddr, &ports, remote, io.now);
                claimed.ok_or(e)?
            }
        };
        i.engine.autobound(id, local);
        Ok(())
    });
    match held {
        Ok(()) => {
            count_engine();
            crate::info!("connection to {remote}: carried by the engine");
            Ok(Way::Engine(remote))
        }
        // ER-41: what bind calls "in use" is "not available" to connect.
        Err(Errno::EADDRNOTAVAIL | Errno::EADDRINUSE) => Err(libc::EADDRNOTAVAIL),
        Err(_) => Ok(Way::Kernel(Reason::NoHolder, remote)),
    }
}
