//! `setsockopt` and `getsockopt`: who answers.
//!
//! *Engine* options depend on the connection's state. *Shadow* options are the kernel's to judge (capabilities, names of
//! devices, what is reserved with it), and the engine is told. What the engine does not know is the shadow's, answer and
//! errno; so is every level that is not TCP's. Values that would matter if the connection went to the kernel after all are
//! set on both, or brought there when it does ([`options`]).

use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering;

use libc::socklen_t;
use sidewire_engine::Error;
use sidewire_engine::opts::KERNELS_OPTION_MAX;
use sidewire_engine::stack::Caps;
use sidewire_uapi::socket as so;
use sidewire_uapi::tcp::{self, TcpState};
use smallvec::SmallVec;

use super::address::{encode, is_v6};
use super::handover::{self, options};
use super::socket::Reason;
use super::{answer_int, caps, errno_of, zerocopy_receive};
use crate::file::FileRef;
use crate::{copy, fdtable, raw, real, round, signals};

/// Longest value that is taken in or handed out, in bytes (SO_ATTACH_FILTER and TCP_REPAIR_OPTIONS are shorter).
const VALUE_MAX: usize = 4096;
/// Values up to that many bytes, TCP_INFO's among them, take no memory of the heap.
const VALUE_USUAL: usize = 256;

/// Room for a value of `n` bytes, zeros.
fn value_of(n: usize) -> SmallVec<[u8; VALUE_USUAL]> {
    SmallVec::from_elem(0, n.clamp(VALUE_USUAL, VALUE_MAX))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The kernel decides and stores; the engine does not need it.
    Shadow,
    /// The kernel decides; the engine is told.
    ShadowFirst,
    /// The engine decides; the shadow is told, for a later fallback.
    Both,
    /// The engine alone.
    Engine,
}

/// Who answers a set.
fn who_sets(level: c_int, name: c_int) -> Who {
    match (level, name) {
        (
            libc::SOL_SOCKET,
            so::SO_REUSEADDR
            | so::SO_REUSEPORT
            | so::SO_MARK
            | so::SO_PRIORITY
            | so::SO_BINDTODEVICE
            | so::SO_BINDTOIFINDEX
            // These want the capability of the first user namespace.
            | so::SO_DEBUG
            | so::SO_SNDBUFFORCE
            | so::SO_RCVBUFFORCE,
        ) => Who::ShadowFirst,
        (libc::SOL_SOCKET, so::SO_ATTACH_FILTER | so::SO_ATTACH_BPF | so::SO_DETACH_FILTER) => {
            Who::Shadow
        }
        // State, or effects on the wire, that the shadow must not have.
        (libc::SOL_SOCKET, so::SO_ZEROCOPY | so::SO_TXTIME | so::SO_PEEK_OFF)
        | (
            libc::IPPROTO_TCP,
            tcp::TCP_REPAIR
            | tcp::TCP_REPAIR_QUEUE
            | tcp::TCP_QUEUE_SEQ
            | tcp::TCP_REPAIR_OPTIONS
            | tcp::TCP_REPAIR_WINDOW
            | tcp::TCP_ULP
            | tcp::TCP_FASTOPEN
            | tcp::TCP_FASTOPEN_CONNECT
            | tcp::TCP_FASTOPEN_KEY
            | tcp::TCP_FASTOPEN_NO_COOKIE
            | tcp::TCP_TIMESTAMP
            | tcp::TCP_QUICKACK
            | tcp::TCP_DEFER_ACCEPT
            | tcp::TCP_WINDOW_CLAMP,
        ) => Who::Engine,
        (libc::SOL_SOCKET | libc::IPPROTO_TCP | libc::IPPROTO_IP, _) => Who::Both,
        _ => Who::Shadow,
    }
}

/// Options of the engine's for which a capability counts: to ask for it is a system call.
fn privileged(level: c_int, name: c_int) -> bool {
    match level {
        libc::SOL_SOCKET => matches!(name, so::SO_TXTIME),
        libc::IPPROTO_TCP => matches!(name, tcp::TCP_REPAIR | libc::TCP_CONGESTION),
        _ => false,
    }
}

fn connection(state: TcpState) -> bool {
    !matches!(state, TcpState::Close | TcpState::Listen)
}

/// Options with which the kernel carries what is not connected yet: they change the header, or how a route is found.
fn kernels_only(level: c_int, name: c_int, value: &[u8]) -> bool {
    let known = match level {
        libc::IPPROTO_IP => matches!(name, libc::IP_OPTIONS | libc::IP_TRANSPARENT),
        libc::IPPROTO_TCP => signs(name),
        _ => false,
    };
    known && value.iter().any(|b| *b != 0)
}

/// Options by which segments are signed (RFC 2385, RFC 5925).
fn signs(name: c_int) -> bool {
    matches!(name, tcp::TCP_MD5SIG | tcp::TCP_MD5SIG_EXT)
        || (tcp::TCP_AO_ADD_KEY..=tcp::TCP_AO_INFO).contains(&name)
}

fn timestamping(level: c_int, name: c_int) -> bool {
    level == libc::SOL_SOCKET && matches!(name, so::SO_TIMESTAMPING | so::SO_TIMESTAMPING_NEW)
}

/// Options that only the shadow can answer.
fn shadow_gets(level: c_int, name: c_int) -> bool {
    match level {
        libc::SOL_SOCKET => matches!(
            name,
            so::SO_TYPE
                | so::SO_PROTOCOL
                | so::SO_DOMAIN
                | so::SO_COOKIE
                | so::SO_NETNS_COOKIE
                | so::SO_PEERCRED
                | so::SO_PEERSEC
                | so::SO_BINDTODEVICE
                | so::SO_BINDTOIFINDEX
                | so::SO_REUSEPORT
        ),
        libc::IPPROTO_TCP | libc::IPPROTO_IP => false,
        _ => true,
    }
}

/// True for what the engine says of options that it does not have.
fn unknown(e: Error) -> bool {
    matches!(e, Error::NoProtoOpt | Error::OpNotSupp)
}

/// `setsockopt`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::setsockopt(fd, level, name, value, len) };
    };
    let _inside = signals::enter();
    // SAFETY: the caller's arguments.
    match unsafe { set(&file, fd, level, name, value, len) } {
        // SAFETY: the same.
        Err(_) if file.moved_meanwhile() => unsafe {
            real::setsockopt(fd, level, name, value, len)
        },
        done => answer_int(done),
    }
}

unsafe fn set(
    file: &FileRef,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> Result<c_int, c_int> {
    // SAFETY: the caller's arguments.
    let shadow = || match unsafe { real::setsockopt(fd, level, name, value, len) } {
        0 => Ok(0),
        _ => Err(raw::errno()),
    };
    let who = who_sets(level, name);
    let shadow_for_children = || {
        shadow()?;
        if children_have(level, name) {
            // SAFETY: the caller's arguments.
            unsafe { note(file, level, name, value, len) };
        }
        Ok(0)
    };
    if who == Who::Shadow || file.leaving() {
        return shadow_for_children();
    }
    if (len as c_int) < 0 {
        return Err(libc::EINVAL);
    }
    let n = (len as usize).min(VALUE_MAX);
    let mut buf = value_of(n);
    // SAFETY: the caller's arguments.
    if !unsafe { read_value(&mut buf[..n], value.cast()) } {
        // The kernel cannot read it either, and knows what comes before EFAULT.
        return shadow();
    }
    if (level, name) == (libc::IPPROTO_TCP, tcp::TCP_ULP) && !buf.starts_with(b"tls") {
        return shadow();
    }
    let caps = || match privileged(level, name) {
        true => caps(),
        false => Caps::default(),
    };
    let engine = |caps: Caps| {
        // Behind what another thread is sending.
        let _turn = file.sending.lock();
        let stack = file.stack();
        stack.with(|i| {
            round::up_to_date(stack, i, |i| {
                let (engine, mut io) = i.split();
                engine.setsockopt(&mut io, file.id(), level, name, &buf[..n], caps)?;
                Ok(engine.state(file.id()))
            })
        })
    };
    if kernels_only(level, name, &buf[..n]) {
        let state = file.stack().with(|i| i.engine.state(file.id()));
        match state {
            TcpState::Close | TcpState::Listen => {
                let done = shadow()?;
                let given = handover::give(fd, Reason::Option);
                return given.map(|()| done).map_err(|_| libc::EOPNOTSUPP);
            }
            // What would not be signed must not look as if it were.
            _ if signs(name) => {
                if n < size_of::<c_int>() {
                    return Err(libc::EINVAL);
                }
                engine(caps()).map_err(errno_of)?;
                return Err(libc::EOPNOTSUPP);
            }
            _ => return shadow(),
        }
    }
    match who {
        Who::ShadowFirst => {
            shadow_for_children()?;
            let all = Caps {
                net_admin: true,
                net_raw: true,
                ipc_lock: true,
            };
            match (level, name) {
                // The kernel knows the device by name; the engine by number.
                (libc::SOL_SOCKET, so::SO_BINDTODEVICE) => bind_device(file, fd, all),
                _ => match engine(all) {
                    Err(e) if !unknown(e) => return Err(errno_of(e)),
                    _ => {}
                },
            }
            Ok(0)
        }
        Who::Both => match engine(caps()) {
            Ok(state) if connection(state) && options::moves(level, name) => {
                file.options_apart.store(true, Ordering::Relaxed);
                Ok(0)
            }
            Ok(_) => {
                let errno = raw::errno();
                let _ = shadow();
                raw::set_errno(errno);
                Ok(0)
            }
            // The shadow, which is not connected, knows other reasons.
            Err(e) if unknown(e) && !timestamping(level, name) => shadow_for_children(),
            Err(e) => Err(errno_of(e)),
        },
        Who::Engine | Who::Shadow => engine(caps()).map(|_| 0).map_err(errno_of),
    }
}

/// True for an option that Linux's children have of their listener and the engine does not give them: those that the kernel's
/// socket keeps, but for what is done rather than kept (memberships, filters) and for what the engine tells of each socket.
fn children_have(level: c_int, name: c_int) -> bool {
    /// IP_ADD_MEMBERSHIP to MCAST_MSFILTER, in both protocols' numbers.
    const MEMBERSHIPS: core::ops::RangeInclusive<c_int> = libc::IP_ADD_MEMBERSHIP..=48;
    match level {
        libc::SOL_SOCKET => !matches!(
            name,
            so::SO_ATTACH_FILTER
                | so::SO_ATTACH_BPF
                | so::SO_DETACH_FILTER
                | so::SO_ATTACH_REUSEPORT_CBPF
                | so::SO_ATTACH_REUSEPORT_EBPF
                | so::SO_INCOMING_CPU
                | so::SO_REUSEADDR
                | so::SO_SNDBUFFORCE
                | so::SO_RCVBUFFORCE
                | so::SO_MARK
                | so::SO_PRIORITY
                | so::SO_DEBUG
        ),
        libc::IPPROTO_IP => name != libc::IP_MULTICAST_TTL && !MEMBERSHIPS.contains(&name),
        libc::IPPROTO_IPV6 => !matches!(
            name,
            libc::IPV6_ADDRFORM
                | libc::IPV6_ADD_MEMBERSHIP
                | libc::IPV6_DROP_MEMBERSHIP
                | libc::IPV6_JOIN_ANYCAST
                | libc::IPV6_LEAVE_ANYCAST
                | 42..=48
        ),
        _ => false,
    }
}

/// Reads an option's value. Most are shorter than the length that a program may give, so the page on which the value begins is
/// enough.
///
/// # Safety
/// `value` is the program's pointer; it may be anything.
unsafe fn read_value(buf: &mut [u8], value: *const u8) -> bool {
    const PAGE: usize = 4096;
    let in_page = (PAGE - value as usize % PAGE).min(buf.len());
    // SAFETY: the destination holds as many bytes.
    unsafe {
        copy::from_program(buf.as_mut_ptr(), value, buf.len()).is_ok()
            || (in_page < buf.len() && copy::from_program(buf.as_mut_ptr(), value, in_page).is_ok())
    }
}

/// Notes what was set for the children.
///
/// # Safety
/// `value` is the program's pointer to `len` bytes.
unsafe fn note(file: &FileRef, level: c_int, name: c_int, value: *const c_void, len: socklen_t) {
    let mut buf = [0u8; KERNELS_OPTION_MAX];
    let Some(buf) = buf.get_mut(..len as usize) else {
        return;
    };
    // SAFETY: the destination holds as many bytes.
    if unsafe { copy::from_program(buf.as_mut_ptr(), value.cast(), buf.len()) }.is_ok() {
        file.stack()
            .with(|i| i.engine.kernels_option(file.id(), level, name, buf));
    }
}

/// Tells the engine which device SO_BINDTODEVICE chose.
fn bind_device(file: &FileRef, fd: c_int, caps: Caps) {
    let index =
        crate::syscall::getsockopt_int(fd, libc::SOL_SOCKET, so::SO_BINDTOIFINDEX).unwrap_or(0);
    let _ = file.stack().with(|i| {
        let (engine, mut io) = i.split();
        engine.setsockopt(
            &mut io,
            file.id(),
            libc::SOL_SOCKET,
            so::SO_BINDTOIFINDEX,
            &index.to_ne_bytes(),
            caps,
        )
    });
}

/// `getsockopt`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::getsockopt(fd, level, name, value, len) };
    };
    let _inside = signals::enter();
    // SAFETY: the caller's arguments.
    match unsafe { get(&file, fd, level, name, value, len) } {
        // SAFETY: the same.
        Err(_) if file.moved_meanwhile() => unsafe {
            real::getsockopt(fd, level, name, value, len)
        },
        done => answer_int(done),
    }
}

unsafe fn get(
    file: &FileRef,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Result<c_int, c_int> {
    // SAFETY: the caller's arguments.
    let shadow = || match unsafe { real::getsockopt(fd, level, name, value, len) } {
        0 => Ok(0),
        _ => Err(raw::errno()),
    };
    if shadow_gets(level, name) || file.leaving() {
        return shadow();
    }
    if (level, name) == (libc::SOL_SOCKET, so::SO_INCOMING_CPU) {
        shadow()?;
        // SAFETY: the program's pointers, to which the kernel has just written.
        return unsafe { incoming_cpu(file, value, len) };
    }
    if (level, name) == (libc::SOL_SOCKET, so::SO_PEERNAME) {
        // SAFETY: the program's pointers.
        return unsafe { peer_name(file, value, len) };
    }
    if (level, name) == (libc::IPPROTO_TCP, tcp::TCP_ZEROCOPY_RECEIVE) {
        // SAFETY: the program's pointers.
        return unsafe { zerocopy_receive::get(file, fd, value, len) };
    }
    // SAFETY: any bytes make a number.
    let room = unsafe { copy::read_value(len) }.map_err(|_| libc::EFAULT)? as c_int;
    if room < 0 {
        return Err(libc::EINVAL);
    }
    let n = (room as usize).min(VALUE_MAX);
    let mut buf = value_of(n);
    // Some options read their value first.
    // SAFETY: the destination holds `n` bytes.
    if unsafe { copy::from_program(buf.as_mut_ptr(), value.cast(), n) }.is_err() {
        buf.fill(0);
    }
    let stack = file.stack();
    let got = stack.with(|i| {
        round::up_to_date(stack, i, |i| {
            let (engine, mut io) = i.split();
            engine.getsockopt(&mut io, file.id(), level, name, room, &mut buf)
        })
    });
    match got {
        Ok(got) => {
            let n = got.min(buf.len());
            // SAFETY: a live buffer; the program's pointers, given for writing.
            let (value, len) = unsafe {
                (
                    || copy::to_program(value.cast(), buf.as_ptr(), n),
                    || copy::write_value(len, &(got as socklen_t)),
                )
            };
            // Linux sk_getsockopt ends with the length, do_tcp_getsockopt and do_ip_getsockopt with the value.
            let stored = if level == libc::SOL_SOCKET {
                value().and_then(|()| len())
            } else {
                len().and_then(|()| value())
            };
            stored.map(|()| 0).map_err(|_| libc::EFAULT)
        }
        Err(e) if unknown(e) => shadow(),
        Err(Error::Inval) if (level, name) == (libc::IPPROTO_TCP, tcp::TCP_SAVED_SYN) => {
            // SO-64: too little room; the length says how much there has to be.
            let needed = file.stack().with(|i| {
                let sk = i.engine.sock(file.id());
                sk.and_then(|sk| Some(sk.saved_syn.as_ref()?.len()))
            });
            if let Some(needed) = needed {
                // SAFETY: the program's pointer, given for writing.
                unsafe { copy::write_value(len, &(needed as socklen_t)) }
                    .map_err(|_| libc::EFAULT)?;
            }
            Err(libc::EINVAL)
        }
        Err(e) => Err(errno_of(e)),
    }
}

/// SO_INCOMING_CPU of a connection: where its frames are handled, which is where its program waits for them.
unsafe fn incoming_cpu(
    file: &FileRef,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Result<c_int, c_int> {
    let state = file.stack().with(|i| i.engine.state(file.id()));
    if !matches!(state, TcpState::Close | TcpState::Listen) {
        // SAFETY: takes no argument.
        let cpu = unsafe { libc::sched_getcpu() }.to_ne_bytes();
        // SAFETY: any bytes make a number.
        let room = unsafe { copy::read_value(len) }.map_err(|_| libc::EFAULT)? as usize;
        // SAFETY: a live buffer; the program's pointer, given for writing.
        unsafe { copy::to_program(value.cast(), cpu.as_ptr(), room.min(cpu.len())) }
            .map_err(|_| libc::EFAULT)?;
    }
    Ok(0)
}

/// SO_PEERNAME: the name must not be shorter than what is asked for.
unsafe fn peer_name(
    file: &FileRef,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Result<c_int, c_int> {
    // SAFETY: any bytes make a number.
    let room = unsafe { copy::read_value(len) }.map_err(|_| libc::EFAULT)? as c_int;
    let room = usize::try_from(room).map_err(|_| libc::EINVAL)?;
    let stack = file.stack();
    let peer = stack.with(|i| round::up_to_date(stack, i, |i| i.engine.peername(file.id())));
    let (bytes, n) = encode(peer.map_err(|_| libc::ENOTCONN)?, is_v6(file));
    if room > n {
        return Err(libc::EINVAL);
    }
    // SAFETY: a live buffer of at least `room` bytes; the program's pointer, given for writing.
    unsafe { copy::to_program(value.cast(), bytes.as_ptr(), room) }.map_err(|_| libc::EFAULT)?;
    Ok(0)
}
