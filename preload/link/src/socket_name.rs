//! Internet socket names as the kernel has them.

use crate::Errno;
use crate::raw;
use std::mem::zeroed;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;

fn v4(a: &SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: a.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(a.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

fn v6(a: &SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as u16,
        sin6_port: a.port().to_be(),
        sin6_flowinfo: a.flowinfo(),
        sin6_addr: libc::in6_addr {
            s6_addr: a.ip().octets(),
        },
        sin6_scope_id: a.scope_id(),
    }
}

/// The address family of a name.
pub(crate) fn family(name: &SocketAddr) -> i32 {
    if name.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }
}

/// bind(2).
pub(crate) fn bind(fd: RawFd, name: &SocketAddr) -> Result<(), Errno> {
    match name {
        SocketAddr::V4(a) => raw::bind(fd, &v4(a)),
        SocketAddr::V6(a) => raw::bind(fd, &v6(a)),
    }
}

/// connect(2).
pub(crate) fn connect(fd: RawFd, name: &SocketAddr) -> Result<(), Errno> {
    match name {
        SocketAddr::V4(a) => raw::connect(fd, &v4(a)),
        SocketAddr::V6(a) => raw::connect(fd, &v6(a)),
    }
}

/// connect(2) to nobody: the socket lets go of its names.
pub(crate) fn disconnect(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: sockaddr is made of integers; all zero is valid, and names AF_UNSPEC.
    let nobody: libc::sockaddr = unsafe { zeroed() };
    raw::connect(fd, &nobody)
}

/// getsockname(2) of an internet socket.
pub(crate) fn local(fd: RawFd) -> Result<SocketAddr, Errno> {
    // SAFETY: sockaddr_in6 is made of integers; all zero is valid. It is large enough for both families.
    let name: libc::sockaddr_in6 = raw::getsockname(fd, unsafe { zeroed() })?;
    let port = u16::from_be(name.sin6_port);
    if i32::from(name.sin6_family) == libc::AF_INET6 {
        let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
        return Ok(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into());
    }
    // sockaddr_in has its address where sockaddr_in6 has the flow information.
    let ip = Ipv4Addr::from(name.sin6_flowinfo.to_ne_bytes());
    Ok(SocketAddrV4::new(ip, port).into())
}
