//! A connection that is over, and an attempt that failed: the kernel's socket has what is unread and the error that nobody
//! has fetched.
//!
//! The kernel's table has no place for it, so that the socket becomes a connection for a moment, in repair mode and without a
//! packet on the wire, and the peer ends it by `lo`. For an attempt it tries the port of this host's that refuses.

use core::ffi::c_int;
use core::net::SocketAddr;

use libc::sockaddr;
use sidewire_engine::error::Error;
use sidewire_engine::sock::TcpSock;
use sidewire_link::Errno;
use sidewire_link::fd::Fd;
use sidewire_uapi::tcp::{self, repair};
use sidewire_wire::tcp::TcpFlags;
use std::os::fd::AsRawFd;
use syscalls::{Sysno, syscall};

use super::from_peer::FromPeer;
use super::options::Values;
use super::{bind_to, fill, make_room, unread};
use crate::calls::address::{bind_shadow, encode, is_v6, shadow_name};
use crate::file::FileRef;
use crate::stack::NetStack;
use crate::syscall;

/// Ports of the peer's that are tried: a TIME_WAIT of the connection itself may be in the way of its own.
const TRIES: u16 = 4;

/// What is left of a connection.
struct Ended {
    local: SocketAddr,
    remote: SocketAddr,
    v6: bool,
    /// The attempt failed: there was no connection.
    refused: bool,
    /// And then SHUT_* (Linux SS_DISCONNECTING).
    disconnecting: bool,
    err: Option<Error>,
    copied_seq: u32,
    received: Vec<u8>,
}

impl Ended {
    /// None where nothing has been connected since the socket was made, or disconnected.
    fn of(sk: &TcpSock, v6: bool) -> Option<Self> {
        let attempt = sk.ss_connecting || sk.ss_disconnecting;
        if !(sk.ss_connected || attempt) {
            return None;
        }
        Some(Self {
            local: sk.tuple.local,
            remote: sk.tuple.remote,
            v6,
            refused: attempt && sk.snd_una == sk.iss,
            disconnecting: sk.ss_disconnecting,
            err: sk.sk_err,
            copied_seq: sk.copied_seq,
            received: unread(sk).ok()?,
        })
    }

    /// Makes the kernel's socket `fd` a connection that has ended so.
    fn restore(&self, fd: c_int, stack: &'static NetStack) -> Result<(), Errno> {
        let set = |name, value: u32| syscall::setsockopt(fd, libc::IPPROTO_TCP, name, &value);
        bind_to(fd, self.local, self.v6).map_err(Errno::new)?;
        make_room(fd, libc::SO_RCVBUFFORCE, self.received.len());
        set(tcp::TCP_REPAIR_QUEUE, repair::RECV_QUEUE as u32)?;
        set(tcp::TCP_QUEUE_SEQ, self.copied_seq)?;
        let remote = (0..TRIES)
            .map(|n| SocketAddr::new(self.remote.ip(), self.remote.port() ^ n))
            .find(|to| {
                let (name, len) = encode(*to, self.v6);
                // SAFETY: a live name of that length.
                unsafe { syscall!(Sysno::connect, fd, name.as_ptr(), len) }.is_ok()
            })
            .ok_or(Errno::EADDRNOTAVAIL)?;
        fill(fd, &self.received).map_err(Errno::new)?;
        set(tcp::TCP_REPAIR_QUEUE, repair::NO_QUEUE as u32)?;
        let seq = self.copied_seq.wrapping_add(self.received.len() as u32);
        let mut from_peer = FromPeer {
            // Of the connection: another port may have been bound since.
            local: shadow_name(fd).unwrap_or(self.local),
            remote,
            seq,
            ack_seq: 0,
            window: 0,
            timestamps: None,
            flags: TcpFlags::RST,
        };
        if self.err == Some(Error::Pipe) {
            // A RST behind a FIN.
            from_peer.flags = TcpFlags::FIN | TcpFlags::ACK;
            from_peer.arrives(fd, stack, libc::POLLRDHUP);
            from_peer.flags = TcpFlags::RST;
            from_peer.seq = seq.wrapping_add(1);
        }
        if from_peer.arrives(fd, stack, libc::POLLHUP) {
            set(tcp::TCP_REPAIR, repair::OFF_NO_WP as u32)
        } else {
            Err(Errno::ETIMEDOUT)
        }
    }
}

/// Lets the socket behind `fd`, which is closed, show what the engine's does. Without the capability, or where nothing comes in
/// by `lo`, it is one that was never connected.
pub(super) fn give(stack: &'static NetStack, file: &FileRef, fd: c_int) {
    let v6 = is_v6(file);
    let (ended, shut) = stack.with(|i| {
        let (ended, shut) = match i.engine.sock(file.id()) {
            Some(sk) => (Ended::of(sk, v6), sk.shutdown),
            None => (None, 0),
        };
        (ended.map(|ended| (ended, Values::of(i, file.id()))), shut)
    });
    let Some((mut ended, options)) = ended else {
        remember_shutdown(fd, shut);
        return;
    };
    let bound_since = {
        let port = file.port.lock();
        port.bound && !port.used
    };
    if ended.refused {
        refuse(fd, ended.local, v6);
        if ended.disconnecting {
            remember_shutdown(fd, shut);
        }
    } else {
        let repair = |how: c_int| syscall::setsockopt(fd, libc::IPPROTO_TCP, tcp::TCP_REPAIR, &how);
        if repair(repair::ON).is_err() {
            return;
        }
        if ended.restore(fd, stack).is_err() {
            // Silent in repair mode.
            disconnect(fd);
            let _ = repair(repair::OFF_NO_WP);
            ended.err = None;
        }
    }
    if bound_since {
        // The end of what uses it has given the port up.
        let _ = bind_shadow(fd, ended.local, v6);
    }
    options.set(fd);
    if ended.err.is_none() {
        // Fetched already, or only that of the disconnect.
        let _ = syscall::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_ERROR);
    }
}

/// SHUT_* of what is not connected: the call fails, and is remembered. `shut` is Linux's `sk_shutdown`.
fn remember_shutdown(fd: c_int, shut: u8) {
    if let Some(how) = shut.checked_sub(1) {
        // SAFETY: no pointers.
        let _ = unsafe { syscall!(Sysno::shutdown, fd, c_int::from(how)) };
    }
}

fn disconnect(fd: c_int) {
    let nobody = sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    // SAFETY: a live name of that length.
    let _ = unsafe { syscall!(Sysno::connect, fd, &raw const nobody, size_of::<sockaddr>()) };
}

/// An attempt without blocking, at a port of this host's that is taken and has no listener.
fn refuse(fd: c_int, local: SocketAddr, v6: bool) {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let Ok(closed) = syscall::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) else {
        return;
    };
    let closed = Fd::from_raw(closed);
    let any_port = SocketAddr::new(local.ip(), 0);
    let port = bind_shadow(closed.as_raw_fd(), any_port, v6)
        .ok()
        .and_then(|()| shadow_name(closed.as_raw_fd()))
        .map_or(0, |name| name.port());
    let Ok(flags) = syscall::fcntl(fd, libc::F_GETFL, 0) else {
        return;
    };
    let _ = syscall::fcntl(fd, libc::F_SETFL, (flags | libc::O_NONBLOCK) as usize);
    let (name, len) = encode(SocketAddr::new(local.ip(), port), v6);
    // SAFETY: a live name of that length.
    let _ = unsafe { syscall!(Sysno::connect, fd, name.as_ptr(), len) };
    let _ = syscall::fcntl(fd, libc::F_SETFL, flags as usize);
}
