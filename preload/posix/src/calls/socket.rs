//! `socket`, and how a socket becomes ours or the kernel's.

use core::ffi::{CStr, c_int};
use core::fmt;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use sidewire_engine::SocketId;
use sidewire_engine::stack::Caps;
use std::os::unix::fs::MetadataExt;

use super::handover::Repairing;
use crate::file::{File, FileRef};
use crate::readiness::epoll;
use crate::stack::{self, NetStack};
use crate::{carrier, copy, fdtable, process, real, signals};

/// Why the kernel carries a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// No packet socket to be had.
    NoPacketSocket,
    /// The destination or the local address is of this host.
    Local,
    /// An IPv6 address.
    Ipv6,
    /// A listener with SO_REUSEPORT whose port others have as well.
    ReusePort,
    /// The device has no Ethernet-like header.
    Device,
    /// Nothing could be found that keeps the kernel silent on the port.
    NoHolder,
    /// Descriptor number beyond the table.
    Descriptor,
    /// Shared with another process, by fork, exec or spawn.
    Shared,
    /// The program gave it to the kernel.
    HandedOver,
    /// A rule of the settings says so.
    Rule,
    /// An option that the engine does not have.
    Option,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; REASONS] = [
        Self::NoPacketSocket,
        Self::Local,
        Self::Ipv6,
        Self::ReusePort,
        Self::Device,
        Self::NoHolder,
        Self::Descriptor,
        Self::Shared,
        Self::HandedOver,
        Self::Rule,
        Self::Option,
    ];
}

impl Reason {
    /// The reason, as people are told.
    #[must_use]
    pub const fn words(self) -> &'static CStr {
        match self {
            Self::NoPacketSocket => c"no packet socket without CAP_NET_RAW",
            Self::Local => c"an address of this host",
            Self::Ipv6 => c"IPv6",
            Self::ReusePort => c"port shared by SO_REUSEPORT",
            Self::Device => c"device without an Ethernet-like header",
            Self::NoHolder => c"port cannot be held",
            Self::Descriptor => c"descriptor number too large",
            Self::Shared => c"shared with another process",
            Self::HandedOver => c"handed over",
            Self::Rule => c"a rule of the settings",
            Self::Option => c"an option that the engine does not have",
        }
    }
}

/// Number of [`Reason`]s.
pub const REASONS: usize = 11;

static KERNEL: [AtomicU64; REASONS] = [const { AtomicU64::new(0) }; REASONS];
static ENGINE: AtomicU64 = AtomicU64::new(0);

/// What was asked for when the kernel got a socket: for who reads that it did.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    Nothing,
    ConnectionTo(SocketAddr),
    ListenerOn(SocketAddr),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::ConnectionTo(remote) => write!(f, ", connection to {remote}"),
            Self::ListenerOn(local) => write!(f, ", listener on {local}"),
        }
    }
}

/// Counts a socket that the kernel carries, and remembers why.
pub(super) fn count_kernel(fd: c_int, reason: Reason) {
    left(fd, reason, Asked::Nothing);
    KERNEL[reason as usize].fetch_add(1, Ordering::Relaxed);
}

/// Remembers why the kernel carries the socket, and tells who wants to know.
fn left(fd: c_int, reason: Reason, asked: Asked) {
    carrier::remember(fd, reason);
    let why = reason.words().to_str().unwrap_or_default();
    crate::info!("descriptor {fd}{asked}: carried by the kernel: {why}");
}

/// Counts a connection that the engine carries.
pub(super) fn count_engine() {
    ENGINE.fetch_add(1, Ordering::Relaxed);
}

/// Connections of the engine so far, and what went to the kernel by reason.
#[must_use]
pub fn counts() -> (u64, [u64; REASONS]) {
    (
        ENGINE.load(Ordering::Relaxed),
        core::array::from_fn(|i| KERNEL[i].load(Ordering::Relaxed)),
    )
}

/// True for the sockets that the engine can carry.
fn is_tcp(domain: c_int, kind: c_int, protocol: c_int) -> bool {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    matches!(domain, libc::AF_INET | libc::AF_INET6)
        && kind & !flags == libc::SOCK_STREAM
        && matches!(protocol, 0 | libc::IPPROTO_TCP)
}

/// `socket`.
pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let fd = real::socket(domain, kind, protocol);
    if fd < 0 {
        return fd;
    }
    forget_stale(fd);
    if !is_tcp(domain, kind, protocol) || signals::in_vfork() || !process::enabled() {
        return fd;
    }
    let _inside = signals::enter();
    if process::parted() {
        count_kernel(fd, Reason::Shared);
        return fd;
    }
    match stack::for_socket(fd) {
        Ok(stack) => {
            copy::set_handler_in_place(signals::catch_faults(copy::fixup));
            let v6 = domain == libc::AF_INET6;
            let id = stack.with(|i| {
                i.files += 1;
                i.engine.socket(v6, 0)
            });
            let nonblock = kind & libc::SOCK_NONBLOCK != 0;
            adopt(stack, fd, id, v6, nonblock);
        }
        Err(why) => {
            count_kernel(fd, Reason::NoPacketSocket);
            process::unavailable(why);
        }
    }
    fd
}

/// The calling thread's capabilities, as far as the first user namespace knows them (Linux `file_ns_capable`).
fn opener() -> Caps {
    /// Linux `PROC_USER_INIT_INO`.
    const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
    match std::fs::metadata("/proc/self/ns/user") {
        Ok(ns) if ns.ino() == FIRST_USER_NAMESPACE => super::caps(),
        _ => Caps::default(),
    }
}

/// Makes a descriptor that the kernel gave anew ours, with the engine's socket `id` behind it.
pub(super) fn adopt(stack: &'static NetStack, fd: c_int, id: SocketId, v6: bool, nonblock: bool) {
    let file = File::open(Some(stack), id, v6);
    file.nonblock.store(nonblock, Ordering::Relaxed);
    let cookie = file.record().cookie();
    stack.with(|i| {
        i.engine.set_user(id, cookie);
        if !i.engine.sysctl().tstamp_allow_data {
            i.engine.opened_by(id, opener());
        }
    });
    match fdtable::install(fd, file) {
        Ok(stale) => drop(stale),
        Err(file) => {
            count_kernel(fd, Reason::Descriptor);
            drop(file);
        }
    }
}

/// The kernel gave this number anew: what the table has under it was closed behind our back.
pub fn forget_stale(fd: c_int) {
    forget_socket(fd);
    epoll::forget(fd);
}

/// [`forget_stale`] of a socket of ours.
pub(super) fn forget_socket(fd: c_int) {
    if fdtable::is_ours(fd) {
        drop(fdtable::remove(fd));
    }
}

/// The kernel takes the socket over: every descriptor of the file becomes a plain one.
pub(super) fn to_kernel(file: &FileRef, reason: Reason, asked: Asked) {
    KERNEL[reason as usize].fetch_add(1, Ordering::Relaxed);
    let record = file.record();
    let repairing = Repairing::of(file);
    fdtable::remove_file(record, |fd| {
        if let Some(repairing) = &repairing {
            repairing.set(fd);
        }
        left(fd, reason, asked);
    });
    for w in record.wait.dissolve() {
        w.to_kernel(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_named() {
        let address = ([192, 0, 2, 1], 80).into();
        let said = [
            Asked::Nothing,
            Asked::ConnectionTo(address),
            Asked::ListenerOn(address),
        ];
        assert_eq!(
            said.map(|asked| asked.to_string()),
            [
                "",
                ", connection to 192.0.2.1:80",
                ", listener on 192.0.2.1:80"
            ]
        );
    }
}
