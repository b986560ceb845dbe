//! A bound socket gives up its port, as Linux's `tcp_set_state(TCP_CLOSE)` has it where the program did not choose the port.

use super::port::SILENT_TTL;
use crate::Errno;
use crate::raw;
use crate::socket_name as name;
use sidewire_uapi::ip::{IP_MINTTL, IPV6_MINHOPCOUNT};
use sidewire_uapi::tcp::{TCP_REPAIR, repair};
use std::os::fd::RawFd;

/// Unbinds the program's socket `shadow`, which is bound to port 0's choice. Its name goes on showing the port, and its
/// options stay.
///
/// There is no call for it: the socket listens for a moment, which is then dissolved. Meanwhile it hears next to nothing:
/// packets have to have a TTL of 255.
///
/// # Errors
/// EADDRINUSE without CAP_NET_ADMIN where others on the port do not allow a listener; it stays bound then. EMFILE and the
/// like do not come up.
pub fn unbind(shadow: RawFd) -> Result<(), Errno> {
    let hops = [
        (libc::IPPROTO_IP, IP_MINTTL),
        (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    ];
    let before = hops.map(|(level, option)| {
        // An AF_INET socket has no hop count of IPv6.
        let value = raw::getsockopt(shadow, level, option, 0i32).ok()?;
        raw::setsockopt(shadow, level, option, &SILENT_TTL).ok()?;
        Some(value)
    });
    let reuse = raw::getsockopt(shadow, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0i32)?;
    let set = |option, value: i32| raw::setsockopt(shadow, libc::SOL_SOCKET, option, &value);
    // In repair mode the port may be in use.
    let repairs = raw::setsockopt(shadow, libc::IPPROTO_TCP, TCP_REPAIR, &repair::ON).is_ok();
    if !repairs {
        set(libc::SO_REUSEADDR, 1)?;
    }
    let result = raw::listen(shadow, 0).and_then(|()| name::disconnect(shadow));
    if repairs {
        let off = repair::OFF_NO_WP;
        raw::setsockopt(shadow, libc::IPPROTO_TCP, TCP_REPAIR, &off)?;
    }
    set(libc::SO_REUSEADDR, reuse)?;
    for ((level, option), value) in hops.into_iter().zip(before) {
        if let Some(value) = value {
            raw::setsockopt(shadow, level, option, &value)?;
        }
    }
    result
}
