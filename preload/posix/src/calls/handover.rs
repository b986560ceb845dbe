//! Connections and listeners given to the kernel, alive: for a program that shares them with another process.
//!
//! The visible descriptor is a kernel socket already. TCP_REPAIR puts the connection's state into it, so that whoever has
//! the descriptor, after fork, exec or spawn, has the connection. That takes CAP_NET_ADMIN. A listener needs nothing: it
//! listens.
//!
//! Between the end of our holder and the kernel's own socket a listener that hears nothing keeps the port ([`guard`]), and
//! the socket hears nothing until it is complete. What comes meanwhile comes to it by the loopback device afterwards
//! ([`crate::passed_on`]).

mod ended;
mod from_peer;
pub(super) mod options;
mod repairing;

use core::ffi::c_int;
use core::net::SocketAddr;

use sidewire_engine::calls::CloseCall;
use sidewire_engine::event::Events;
use sidewire_engine::header::tsval;
use sidewire_engine::memory::{Fault, Frag};
use sidewire_engine::net::Tuple;
use sidewire_engine::repair::RepairQueue;
use sidewire_engine::seq::after;
use sidewire_engine::sock::{TcpSock, nagle, shutdown};
use sidewire_engine::time::Instant;
use sidewire_engine::{SocketId, Step};
use sidewire_link::Errno;
use sidewire_link::fd::{Fd, duplicate_high, move_high};
use sidewire_link::packet::filter;
use sidewire_uapi::TcpState;
use sidewire_uapi::tcp::{self, repair};
use std::os::fd::AsRawFd;
use syscalls::{Sysno, syscall};

use self::from_peer::FromPeer;
pub(super) use self::repairing::Repairing;
use super::address::{bind_shadow, encode, is_v6, shadow_name};
use super::socket::{Asked, Reason, to_kernel};
use crate::file::FileRef;
use crate::holders::Listener;
use crate::readiness::epoll;
use crate::stack::{Inner, NetStack, monotonic_ns, wall_ns};
use crate::{copy, fdtable, privilege, round, signals, syscall};

/// Why a connection stays the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No CAP_NET_ADMIN.
    Capability,
    /// In a state that TCP_REPAIR cannot make: opening.
    State(TcpState),
    /// The kernel did not take it; the connection is lost.
    Kernel(c_int),
}

/// A copy of what the kernel has to know (Linux `do_tcp_setsockopt`, TCP_REPAIR and its kin).
struct Image {
    local: SocketAddr,
    remote: SocketAddr,
    v6: bool,
    snd_una: u32,
    copied_seq: u32,
    /// Sent and not acknowledged.
    sent: Vec<u8>,
    /// Never sent.
    unsent: Vec<u8>,
    received: Vec<u8>,
    mss_clamp: u32,
    /// TCP_MAXSEG of the program's, 0 for none.
    maxseg: u32,
    options: Vec<[u32; 2]>,
    window: [u32; 5],
    tsval: Option<u32>,
    nodelay: bool,
    peers_fin: Option<FromPeer>,
    finished: bool,
    /// SHUT_WR of before it was connected.
    mute: bool,
    /// SHUT_RD of the program's.
    deaf: bool,
    /// The program has it in repair mode, with this queue.
    repairing: Option<RepairQueue>,
}

/// Appends the payload of `frags` behind `skip` bytes. Pages of the program's and of files may have gone.
fn append<'a>(
    out: &mut Vec<u8>,
    frags: impl Iterator<Item = &'a Frag>,
    mut skip: usize,
) -> Result<(), Fault> {
    for f in frags {
        let from = skip.min(f.len as usize);
        let (at, len) = (out.len(), f.len as usize - from);
        out.resize(at + len, 0);
        // SAFETY: the vector has room for them; a source that is not there is a fault.
        unsafe { copy::from_program(out[at..].as_mut_ptr(), f.ptr().wrapping_add(from), len) }?;
        skip -= from;
    }
    Ok(())
}

/// What the program has not read.
fn unread(sk: &TcpSock) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    for skb in &sk.receive_queue {
        let skip = (sk.copied_seq.wrapping_sub(skb.seq) as i32).max(0) as usize;
        append(&mut out, core::iter::once(&skb.frag), skip)?;
    }
    Ok(out)
}

/// The earlier one.
fn min_seq(a: u32, b: u32) -> u32 {
    if after(a, b) { b } else { a }
}

/// Binds the kernel's socket behind `fd` to where the connection is, if it is not bound: its name does not say, since it
/// still shows a port that was given up.
fn bind_to(fd: c_int, local: SocketAddr, v6: bool) -> Result<(), c_int> {
    match bind_shadow(fd, local, v6) {
        Err(libc::EINVAL) if shadow_name(fd).is_some_and(|name| name.port() == local.port()) => {
            Ok(())
        }
        bound => bound,
    }
}

/// A buffer that takes what is queued, where the kernel's default does not. `name` is SO_SNDBUFFORCE or SO_RCVBUFFORCE.
fn make_room(fd: c_int, name: c_int, bytes: usize) {
    if bytes > DEFAULT_ROOM {
        let size = (2 * bytes) as c_int;
        let _ = syscall::setsockopt(fd, libc::SOL_SOCKET, name, &size);
    }
}

impl Image {
    fn of(sk: &TcpSock, v6: bool, now: Instant) -> Result<Self, Refused> {
        let finished = match sk.state {
            TcpState::Established | TcpState::CloseWait => false,
            TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck => true,
            other => return Err(Refused::State(other)),
        };
        // What is not there any more ends the connection when it is sent: until then it stays where it is.
        let gone = |Fault| Refused::State(sk.state);
        let (mut sent, mut unsent) = (Vec::new(), Vec::new());
        for skb in &sk.rtx_queue {
            let skip = (sk.snd_una.wrapping_sub(skb.seq) as i32).max(0) as usize;
            append(&mut sent, skb.frags.iter(), skip).map_err(gone)?;
        }
        for skb in &sk.write_queue {
            append(&mut unsent, skb.frags.iter(), 0).map_err(gone)?;
        }
        let received = unread(sk).map_err(gone)?;
        // SHUT_WR sends no FIN before there is a connection, and then there is none to be sent.
        let mute = !finished && sk.shutdown & shutdown::SEND != 0;
        // A FIN of ours that is acknowledged counts in snd_una; the kernel sends its own at the same place.
        let fin_acked = sk.state == TcpState::FinWait2;
        let mut options = vec![[TCPOPT_MSS, sk.mss_clamp.into()]];
        if sk.wscale_ok {
            let shifts = u32::from(sk.snd_wscale) | u32::from(sk.rcv_wscale) << 16;
            options.push([TCPOPT_WINDOW, shifts]);
        }
        if sk.sack_ok {
            options.push([TCPOPT_SACK_PERMITTED, 0]);
        }
        if sk.tstamp_ok {
            options.push([TCPOPT_TIMESTAMP, 0]);
        }
        // The lowest bit chooses the unit; the value may only grow.
        let usec_ts = u32::from(sk.tcp_usec_ts);
        let tsval = tsval(sk, now).wrapping_add(2) & !1 | usec_ts;
        let tsval = sk.tstamp_ok.then_some(tsval);
        let peers_fin = FromPeer::fin_of(sk, tsval);
        // Announced last may be what begins behind the peer's FIN; the window ends where it did.
        let rcv_wup = match &peers_fin {
            Some(fin) if after(sk.rcv_wup, fin.seq) => fin.seq,
            _ => sk.rcv_wup,
        };
        // Nothing has come yet to a connection that TCP_REPAIR made, and TCP_REPAIR_WINDOW does not take any number.
        let snd_wl1 = if after(sk.snd_wl1, sk.rcv_nxt.wrapping_add(sk.rcv_wnd)) {
            sk.rcv_nxt.wrapping_sub(1)
        } else {
            sk.snd_wl1
        };
        Ok(Self {
            local: sk.tuple.local,
            remote: sk.tuple.remote,
            v6,
            snd_una: sk.snd_una.wrapping_sub(fin_acked.into()),
            // The program may have read the peer's FIN, which is sent anew.
            copied_seq: peers_fin
                .as_ref()
                .map_or(sk.copied_seq, |fin| min_seq(fin.seq, sk.copied_seq)),
            sent,
            unsent,
            received,
            mss_clamp: sk.mss_clamp.into(),
            maxseg: sk.opts.maxseg.into(),
            options,
            window: [
                snd_wl1,
                sk.snd_wnd,
                sk.max_window.max(sk.snd_wnd),
                sk.rcv_wnd + sk.rcv_wup.wrapping_sub(rcv_wup),
                rcv_wup,
            ],
            tsval,
            nodelay: sk.nonagle & nagle::OFF != 0,
            deaf: sk.shutdown & shutdown::RCV != 0 && peers_fin.is_none(),
            peers_fin,
            finished,
            mute,
            repairing: sk.repair.on.then_some(sk.repair.queue),
        })
    }

    /// Makes the kernel's socket `fd`, in repair mode already, this connection.
    fn restore(&self, fd: c_int, stack: &'static NetStack) -> Result<(), c_int> {
        let set = |name, value: u32| {
            syscall::setsockopt(fd, libc::IPPROTO_TCP, name, &value).map_err(|e| e.into_raw())
        };
        let queue = |which: i32| set(tcp::TCP_REPAIR_QUEUE, which as u32);
        bind_to(fd, self.local, self.v6)?;
        make_room(
            fd,
            libc::SO_SNDBUFFORCE,
            self.sent.len() + self.unsent.len(),
        );
        make_room(fd, libc::SO_RCVBUFFORCE, self.received.len());
        filter::attach(fd, &filter::drop_all()).map_err(|e| e.into_raw())?;
        queue(repair::SEND_QUEUE)?;
        set(tcp::TCP_QUEUE_SEQ, self.snd_una)?;
        queue(repair::RECV_QUEUE)?;
        set(tcp::TCP_QUEUE_SEQ, self.copied_seq)?;
        if self.mute {
            // SAFETY: no pointers. It fails, and is remembered.
            let _ = unsafe { syscall!(Sysno::shutdown, fd, libc::SHUT_WR) };
        }
        // The kernel computes the segment size when it connects, and the options below do not make it look again.
        set(libc::TCP_MAXSEG, self.mss_clamp)?;
        let (name, len) = encode(self.remote, self.v6);
        // SAFETY: a live name of that length.
        unsafe { syscall!(Sysno::connect, fd, name.as_ptr(), len) }.map_err(|e| e.into_raw())?;
        set(libc::TCP_MAXSEG, self.maxseg)?;
        let len = size_of_val(self.options.as_slice());
        // SAFETY: a live slice of that length.
        unsafe {
            syscall!(
                Sysno::setsockopt,
                fd,
                libc::IPPROTO_TCP,
                tcp::TCP_REPAIR_OPTIONS,
                self.options.as_ptr(),
                len
            )
        }
        .map_err(|e| e.into_raw())?;
        if let Some(tsval) = self.tsval {
            set(tcp::TCP_TIMESTAMP, tsval)?;
        }
        queue(repair::RECV_QUEUE)?;
        fill(fd, &self.received)?;
        queue(repair::SEND_QUEUE)?;
        fill(fd, &self.sent)?;
        queue(repair::NO_QUEUE)?;
        syscall::setsockopt(fd, libc::IPPROTO_TCP, tcp::TCP_REPAIR_WINDOW, &self.window)
            .map_err(|e| e.into_raw())?;
        if self.nodelay {
            set(libc::TCP_NODELAY, 1)?;
        }
        syscall::setsockopt(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0)
            .map_err(|e| e.into_raw())?;
        if self.repairing.is_some() {
            // What is sent now, a FIN too, only counts as sent.
            queue(repair::SEND_QUEUE)?;
        } else {
            // The peer is not to be asked for its window: no segment of it was lost.
            set(tcp::TCP_REPAIR, repair::OFF_NO_WP as u32)?;
        }
        stack.with(|inner| heard(stack, inner, &self.tuple()));
        fill(fd, &self.unsent)?;
        let fin = self.peers_fin.as_ref();
        let fin_missing = fin.is_some_and(|fin| !fin.arrives(fd, stack, libc::POLLRDHUP));
        for (how, due) in [
            // The reader at least is told the end.
            (libc::SHUT_RD, fin_missing || self.deaf),
            (libc::SHUT_WR, self.finished),
        ] {
            if due {
                // SAFETY: no pointers.
                let _ = unsafe { syscall!(Sysno::shutdown, fd, how) };
            }
        }
        if let Some(chosen) = self.repairing {
            queue(chosen as i32)?;
        }
        Ok(())
    }

    fn tuple(&self) -> Tuple {
        Tuple {
            local: self.local,
            remote: self.remote,
        }
    }
}

/// Queued bytes that the kernel takes without being asked for larger buffers.
const DEFAULT_ROOM: usize = 8 * 1024;

const TCPOPT_MSS: u32 = 2;
const TCPOPT_WINDOW: u32 = 3;
const TCPOPT_SACK_PERMITTED: u32 = 4;
const TCPOPT_TIMESTAMP: u32 = 8;

/// Sends all of `bytes` into the queue that is chosen.
fn fill(fd: c_int, bytes: &[u8]) -> Result<(), c_int> {
    /// What the kernel takes in repair mode at a time.
    const CHUNK: usize = 16 * 1024;
    let mut rest = bytes;
    while !rest.is_empty() {
        let n = rest.len().min(CHUNK);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the kernel reads a live slice.
        let done = unsafe { syscall!(Sysno::sendto, fd, rest.as_ptr(), n, flags, 0, 0) };
        match done {
            Ok(n) => rest = &rest[n..],
            Err(e) => return Err(e.into_raw()),
        }
    }
    Ok(())
}

/// A listener on `local` that hears nothing. A four-tuple cannot be in the kernel's table twice, and a port without a
/// socket answers RST.
fn guard(local: SocketAddr) -> Result<Fd, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    let family = if local.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let guard = move_high(Fd::from_raw(syscall::socket(family, kind, 0)?))?;
    let fd = guard.as_raw_fd();
    filter::attach(fd, &filter::drop_all())?;
    // In repair mode the port may be in use.
    syscall::setsockopt(fd, libc::IPPROTO_TCP, tcp::TCP_REPAIR, &repair::ON)?;
    let (name, len) = encode(local, local.is_ipv6());
    syscall::bind(fd, name.as_ptr().cast(), len as u32)?;
    syscall::listen(fd, 1)?;
    Ok(guard)
}

/// Takes the connection out of the engine; its port is free for the kernel's socket then, behind the guard.
fn take_out(
    stack: &'static NetStack,
    inner: &mut Inner,
    file: &FileRef,
) -> Result<(Image, options::Values, Option<Fd>), Refused> {
    let id = file.id();
    let v6 = is_v6(file);
    take_last_batches(stack, inner);
    inner.drain();
    let options = options::Values::of(inner, id);
    let (engine, mut io) = inner.split();
    let sk = engine.sock(id).ok_or(Refused::State(TcpState::Close))?;
    let image = Image::of(sk, v6, io.now)?;
    let tuple = sk.tuple;
    engine
        .freeze(&mut io, id)
        .map_err(|_| Refused::State(TcpState::Established))?;
    inner.net.given.add(tuple, monotonic_ns());
    // Where the guard cannot be had, the peer's next segment may be answered by RST.
    file.set_moved();
    let guard = guard(tuple.local).ok();
    inner.holders.release(&tuple);
    Ok((image, options, guard))
}

/// The kernel hears the connection's segments now: it gets what came meanwhile.
fn heard(stack: &'static NetStack, inner: &mut Inner, tuple: &Tuple) {
    for packet in inner.net.given.heard(tuple, wall_ns()) {
        inner.net.by_loopback(&packet);
    }
    // The rest is in the ring, and this process may be about to execute another program.
    take_last_batches(stack, inner);
}

/// Takes what came before a socket goes.
fn take_last_batches(stack: &'static NetStack, inner: &mut Inner) {
    for _ in 0..LAST_BATCHES {
        if !round::poll_once(stack, inner) {
            break;
        }
    }
}

/// As many batches of frames, at most.
const LAST_BATCHES: usize = 64;

/// Options of a listener that its kernel's socket does not have yet.
const LISTENERS_OPTIONS: [c_int; 3] = [
    libc::TCP_DEFER_ACCEPT,
    libc::TCP_WINDOW_CLAMP,
    libc::TCP_FASTOPEN,
];

/// The kernel's socket listens from now on, at once: nobody is to find a port where nobody does. What came in by the engine
/// before, and handshakes that have begun, are still accepted from there ([`finish`]). Refused, it stays.
///
/// TIME_WAIT remnants of the port end: a holder for each would take the program's descriptors, and a client that comes back
/// from its port would meet silence.
fn listener(file: &FileRef, fd: c_int, why: Reason) -> Result<(), Refused> {
    let id = file.id();
    let stack = file.stack();
    let own = duplicate_high(fd).map_err(|e| Refused::Kernel(e.into_raw()))?;
    // Without the capability nothing keeps the kernel silent beside its own listener.
    let keeps = may_repair(fd);
    epoll::listens_no_more(file.record());
    let done = stack.with(|inner| {
        let Some(held) = file.port.lock().listener.take() else {
            return Err(Refused::State(TcpState::Listen));
        };
        inner.engine.end_timewaits_at(held.local());
        let Inner {
            engine, holders, ..
        } = inner;
        engine.take_released(|tuple| holders.release(&tuple));
        if !keeps && held.is_shared() {
            // Two could not listen there.
            file.port.lock().listener = Some(held);
            return Err(Refused::Capability);
        }
        // Now, because it takes long. They hold their port by themselves, and let the kernel's listener in.
        holders.part(&held, true);
        take_last_batches(stack, inner);
        succeed(inner, id, held, fd, keeps).map_err(|(held, refused)| {
            file.port.lock().listener = Some(held);
            refused
        })?;
        if !keeps {
            // Where the peer's next segment is answered by RST it is told so now.
            close(inner, id);
        }
        file.set_kernel_listener(Some(own.as_raw_fd()));
        file.port.lock().leaving = Some((own, why));
        Ok(())
    });
    // At the kernel's socket, or at the holder again.
    epoll::listening(file.record());
    done?;
    // Whoever sleeps polls what was there before.
    file.wait.wake(file.record(), Events::all().bits());
    finish_locked(stack, file, false);
    Ok(())
}

/// Whether the calling thread may put `fd`, which is not connected, into repair mode.
fn may_repair(fd: c_int) -> bool {
    let repair = |how: c_int| syscall::setsockopt(fd, libc::IPPROTO_TCP, tcp::TCP_REPAIR, &how);
    // Which it takes away.
    let reuse = syscall::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap_or(0);
    let may = repair(repair::ON).is_ok();
    if may {
        let _ = repair(repair::OFF_NO_WP);
        let _ = syscall::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &reuse);
    }
    may
}

/// The socket behind `fd` takes the place of a listener and its holder.
fn succeed(
    inner: &mut Inner,
    id: SocketId,
    held: Listener,
    fd: c_int,
    keeps: bool,
) -> Result<(), (Listener, Refused)> {
    let (engine, mut io) = inner.split();
    let backlog = engine.sock(id).and_then(|sk| sk.listen.as_ref());
    let backlog = backlog.map_or(libc::SOMAXCONN, |l| {
        c_int::try_from(l.backlog).unwrap_or(c_int::MAX)
    });
    let unaccepted = if keeps {
        engine.unaccepted(id)
    } else {
        Vec::new()
    };
    for name in LISTENERS_OPTIONS {
        let mut value = [0; size_of::<c_int>()];
        let len = value.len() as c_int;
        let got = engine.getsockopt(&mut io, id, libc::IPPROTO_TCP, name, len, &mut value);
        if got.is_ok() && value != [0; size_of::<c_int>()] {
            let _ = syscall::setsockopt(fd, libc::IPPROTO_TCP, name, &value);
        }
    }
    let done = inner.holders.succeed(held, &unaccepted, fd, backlog);
    done.map_err(|(held, e)| {
        let refused = match e {
            Errno::EPERM | Errno::EADDRINUSE => Refused::Capability,
            e => Refused::Kernel(e.into_raw()),
        };
        (held, refused)
    })?;
    let (engine, mut io) = inner.split();
    engine.leave_listening(&mut io, id);
    Ok(())
}

fn close(inner: &mut Inner, id: SocketId) {
    let (engine, mut io) = inner.split();
    let closed = engine.close(&mut io, id, true, &mut CloseCall::default());
    debug_assert!(
        matches!(closed, Step::Ready(())),
        "a listener does not linger"
    );
}

/// A listener in whose place the kernel listens becomes a plain socket, when nothing is left to be accepted; what is left is
/// reset with `all`. True when it is one.
pub(super) fn finish(stack: &'static NetStack, file: &FileRef, all: bool) -> bool {
    let _inside = signals::enter();
    let _turn = file.sending.lock();
    finish_locked(stack, file, all)
}

/// [`finish`], by whoever has [`File::sending`](crate::file::File::sending).
fn finish_locked(stack: &'static NetStack, file: &FileRef, all: bool) -> bool {
    let left = stack.with(|inner| {
        if !all && !inner.engine.has_left(file.id()) {
            return None;
        }
        let left = file.port.lock().leaving.take()?;
        close(inner, file.id());
        file.set_kernel_listener(None);
        file.set_moved();
        Some(left)
    });
    // `own` stands in the kernel's epoll instances until the program's own descriptor does.
    if let Some((_own, why)) = left {
        to_kernel(file, why, Asked::Nothing);
    }
    file.moved()
}

/// Gives the socket behind `fd` to the kernel: every descriptor of it is a plain one afterwards. What is not connected and
/// does not listen is one by itself.
///
/// # Errors
/// [`Refused`]; but for [`Refused::Kernel`] nothing changed.
pub(crate) fn give(fd: c_int, why: Reason) -> Result<(), Refused> {
    let Some(file) = fdtable::get(fd) else {
        return Ok(());
    };
    let _inside = signals::enter();
    let stack = file.stack();
    // A send that pauses ends first; what sleeps on the socket goes on when the kernel has all of it.
    let _turn = file.sending.lock();
    if file.moved() {
        return Ok(());
    }
    // The program may close the number meanwhile, and get it for another socket.
    let own = duplicate_high(fd).ok();
    if !fdtable::is_of(fd, &file) {
        return Ok(());
    }
    let fd = own.as_ref().map_or(fd, AsRawFd::as_raw_fd);
    let _raised = privilege::raise();
    match stack.with(|i| i.engine.state(file.id())) {
        TcpState::Listen if file.leaving() => return Ok(()),
        TcpState::Listen => {
            return listener(&file, fd, why);
        }
        TcpState::Close => {
            options::bring(&file, fd);
            ended::give(stack, &file, fd);
            stack.with(|_| file.set_moved());
            to_kernel(&file, why, Asked::Nothing);
            return Ok(());
        }
        _ => {}
    }
    // Asks for the capability before anything is done.
    let on = repair::ON;
    syscall::setsockopt(fd, libc::IPPROTO_TCP, tcp::TCP_REPAIR, &on)
        .map_err(|_| Refused::Capability)?;
    let done =
        stack
            .with(|inner| take_out(stack, inner, &file))
            .and_then(|(image, options, _guard)| {
                let done = image.restore(fd, stack);
                options.set(fd);
                done.map_err(Refused::Kernel)
            });
    if let Err(Refused::State(_)) = done {
        let off = repair::OFF_NO_WP;
        let _ = syscall::setsockopt(fd, libc::IPPROTO_TCP, tcp::TCP_REPAIR, &off);
        return done;
    }
    to_kernel(&file, why, Asked::Nothing);
    done
}

/// [`give`], for a program that asks for it. What is the kernel's already stays so.
///
/// # Errors
/// EBADF; EPERM without CAP_NET_ADMIN and EBUSY in a state that TCP_REPAIR cannot make, where nothing changed; ECONNABORTED
/// when the kernel did not take the connection, which is lost.
pub fn hand_over(fd: c_int) -> Result<(), c_int> {
    syscall::fcntl(fd, libc::F_GETFD, 0).map_err(|e| e.into_raw())?;
    give(fd, Reason::HandedOver).map_err(|refused| match refused {
        Refused::Capability => libc::EPERM,
        Refused::State(_) => libc::EBUSY,
        Refused::Kernel(_) => libc::ECONNABORTED,
    })
}
