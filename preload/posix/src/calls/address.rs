//! `sockaddr`s in and out, `getsockname`, `getpeername`.

use core::ffi::{c_int, c_void};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{sockaddr, socklen_t};

use super::{answer_int, errno_of};
use crate::file::FileRef;
use crate::{copy, fdtable, real, round, signals, syscall};

/// Longest address that the kernel takes (Linux sizeof(struct sockaddr_storage)).
const ADDR_MAX: usize = 128;

/// An address as the program gave it.
#[derive(Clone, Copy)]
pub(super) struct GivenAddr {
    bytes: [u8; ADDR_MAX],
    len: usize,
}

impl GivenAddr {
    /// Linux's `move_addr_to_kernel`.
    ///
    /// # Safety
    /// `addr` is the program's, it may be anything.
    pub(super) unsafe fn read(addr: *const sockaddr, len: socklen_t) -> Result<Self, c_int> {
        let mut this = Self {
            bytes: [0; ADDR_MAX],
            len: len as usize,
        };
        if (len as c_int) < 0 || this.len > ADDR_MAX {
            return Err(libc::EINVAL);
        }
        // SAFETY: the destination holds `len` bytes.
        unsafe { copy::from_program(this.bytes.as_mut_ptr(), addr.cast(), this.len) }
            .map_err(|_| libc::EFAULT)?;
        Ok(this)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The family, when there are bytes for one.
    pub(super) fn family(&self) -> Option<c_int> {
        let b = self.bytes().first_chunk::<2>()?;
        Some(c_int::from(u16::from_ne_bytes(*b)))
    }

    /// The address, of either family; `None` when it is too short or of another one.
    pub(super) fn parse(&self) -> Option<SocketAddr> {
        parse(self.bytes())
    }
}

fn parse(b: &[u8]) -> Option<SocketAddr> {
    let half = |at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
    match c_int::from(u16::from_ne_bytes(*b.first_chunk()?)) {
        libc::AF_INET if b.len() >= size_of::<libc::sockaddr_in>() => {
            let ip = Ipv4Addr::new(b[4], b[5], b[6], b[7]);
            Some(SocketAddrV4::new(ip, half(2)).into())
        }
        libc::AF_INET6 if b.len() >= SIN6_LEN_RFC2133 => {
            let ip: [u8; 16] = b[8..24].try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), half(2), 0, 0).into())
        }
        _ => None,
    }
}

/// Shortest `sockaddr_in6` that Linux takes: without the scope.
pub(super) const SIN6_LEN_RFC2133: usize = 24;

/// The engine's form of an address: v4-mapped ones are IPv4.
pub(super) fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(a) => match a.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddrV4::new(ip, a.port()).into(),
            None => addr,
        },
        SocketAddr::V4(_) => addr,
    }
}

/// The `sockaddr` bytes of an address as a socket of the given family shows it.
pub(super) fn encode(addr: SocketAddr, v6: bool) -> ([u8; 28], usize) {
    let mut b = [0u8; 28];
    b[2..4].copy_from_slice(&addr.port().to_be_bytes());
    if v6 {
        let ip = match addr.ip() {
            IpAddr::V6(ip) => ip,
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv6Addr::UNSPECIFIED,
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        };
        b[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        b[8..24].copy_from_slice(&ip.octets());
        return (b, size_of::<libc::sockaddr_in6>());
    }
    b[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    if let IpAddr::V4(ip) = addr.ip() {
        b[4..8].copy_from_slice(&ip.octets());
    }
    (b, size_of::<libc::sockaddr_in>())
}

/// Linux's `move_addr_to_user`: as much as there is room for, and the true length.
///
/// # Safety
/// The pointers are what the program gave for writing.
pub(super) unsafe fn write_out(
    bytes: &[u8],
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> Result<(), c_int> {
    // SAFETY: any bytes make a number; the program gave the pointers for writing.
    unsafe {
        let room = copy::read_value(len).map_err(|_| libc::EFAULT)? as c_int;
        if room < 0 {
            return Err(libc::EINVAL);
        }
        let n = bytes.len().min(room as usize);
        copy::to_program(addr.cast(), bytes.as_ptr(), n).map_err(|_| libc::EFAULT)?;
        copy::write_value(len, &(bytes.len() as socklen_t)).map_err(|_| libc::EFAULT)
    }
}

/// The kernel's local name of a socket.
pub(crate) fn kernel_name(fd: c_int) -> Option<SocketAddr> {
    let ss = syscall::getsockname(fd).ok()?;
    // SAFETY: reads the initialised bytes of the structure.
    let bytes = unsafe {
        core::slice::from_raw_parts(
            (&raw const ss).cast::<u8>(),
            size_of::<libc::sockaddr_storage>(),
        )
    };
    parse(bytes)
}

/// The shadow's local name in the engine's form; `None` for a real IPv6 address.
pub(super) fn shadow_name(fd: c_int) -> Option<SocketAddr> {
    match unmapped(kernel_name(fd)?) {
        SocketAddr::V6(a) if a.ip().is_unspecified() => {
            Some(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, a.port()).into())
        }
        SocketAddr::V6(_) => None,
        v4 => Some(v4),
    }
}

/// `bind` of the shadow to an address in the engine's form.
pub(super) fn bind_shadow(fd: c_int, addr: SocketAddr, v6: bool) -> Result<(), c_int> {
    let (bytes, len) = encode(addr, v6);
    syscall::bind(fd, bytes.as_ptr().cast::<c_void>(), len as u32).map_err(|e| e.into_raw())
}

/// `getsockname`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::getsockname(fd, addr, len) };
    };
    let _inside = signals::enter();
    let local = file.stack().with(|i| i.engine.local(file.id()));
    match local {
        // A port that was given up still shows; the shadow may never have had it.
        Some(local) if !local.ip().is_unspecified() || local.port() != 0 => {
            let (bytes, n) = encode(local, is_v6(&file));
            // SAFETY: the program's pointers.
            answer_int(unsafe { write_out(&bytes[..n], addr, len) }.map(|()| 0))
        }
        // SAFETY: the caller's arguments.
        _ => unsafe { real::getsockname(fd, addr, len) },
    }
}

/// `getpeername`.
///
/// # Safety
/// The contract of the C function.
pub unsafe fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    let Some(file) = fdtable::get(fd) else {
        // SAFETY: the caller's arguments.
        return unsafe { real::getpeername(fd, addr, len) };
    };
    let _inside = signals::enter();
    let stack = file.stack();
    let peer = stack.with(|i| round::up_to_date(stack, i, |i| i.engine.peer(file.id())));
    if peer.is_err() && file.moved_meanwhile() {
        // SAFETY: the caller's arguments.
        return unsafe { real::getpeername(fd, addr, len) };
    }
    answer_int(peer.map_err(errno_of).and_then(|peer| {
        let (bytes, n) = encode(peer, is_v6(&file));
        // SAFETY: the program's pointers.
        unsafe { write_out(&bytes[..n], addr, len) }.map(|()| 0)
    }))
}

/// AF_INET6?
pub(super) fn is_v6(file: &FileRef) -> bool {
    file.v6.load(core::sync::atomic::Ordering::Relaxed)
}
