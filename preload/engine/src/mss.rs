//! How large a segment may be, and how large a buffer grows (Linux `tcp_sync_mss`, `tcp_send_mss`; `rows.toml` send-path D).

use core::net::IpAddr;

use sidewire_uapi::socket::MSG_OOB;

use crate::header::tcp_established_options_size;
use crate::init_sock::TCP_MSS_DEFAULT;
use crate::net::Dst;
use crate::output::route_again;
use crate::sock::TcpSock;
use crate::stack::Cx;
use crate::state_process::TCPOLEN_TSTAMP_ALIGNED;
use crate::sysctl::Sysctl;

/// Linux's `MAX_TCP_HEADER + 1`: what a device's gso_max_size loses to headers (D5).
const GSO_HEADER_RESERVE: u32 = 321;
/// Linux's `ip_rt_min_advmss`.
const MIN_ADVMSS: u32 = 256;
/// gso_max_size before a route is known.
const GSO_LEGACY_MAX_SIZE: u32 = 65_536;
/// TCP header without options.
pub(crate) const TCP_HEADER: u32 = 20;

/// TCP header bytes with timestamps or without (Linux `tp->tcp_header_len`).
#[must_use]
pub const fn tcp_header_len(timestamps: bool) -> u32 {
    if timestamps {
        TCP_HEADER + TCPOLEN_TSTAMP_ALIGNED as u32
    } else {
        TCP_HEADER
    }
}

/// IP header bytes of the socket's family on the wire.
#[inline]
#[must_use]
pub fn net_header_len(sk: &TcpSock) -> u32 {
    match sk.tuple.remote.ip() {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// Payload bytes of the largest super-frame (Linux `sk_gso_max_size`).
#[inline]
#[must_use]
pub fn sk_gso_max_size(sk: &TcpSock) -> u32 {
    sk.dst
        .as_ref()
        .map_or(GSO_LEGACY_MAX_SIZE, |d| d.gso_max_size)
        .saturating_sub(GSO_HEADER_RESERVE)
}

/// Segments of the largest super-frame, at least 1 (Linux `sk_gso_max_segs`); 1 on a device without GSO.
#[inline]
#[must_use]
pub fn sk_gso_max_segs(sk: &TcpSock) -> u32 {
    if sk_gso_max_size(sk) == 0 {
        return 1;
    }
    sk.dst
        .as_ref()
        .map_or(u32::from(u16::MAX), |d| u32::from(d.gso_max_segs))
        .max(1)
}

/// The MSS that a route lets us announce (Linux `ipv4_default_advmss` and its IPv6 sister).
#[must_use]
pub fn dst_metric_advmss(dst: &Dst, headers: u32) -> u16 {
    let mss = if dst.advmss != 0 {
        dst.advmss
    } else {
        dst.mtu.saturating_sub(headers + TCP_HEADER).max(MIN_ADVMSS)
    };
    mss.min(u32::from(u16::MAX) - headers - TCP_HEADER) as u16
}

/// The MSS that a SYN announces: less than the one before where a router has told of a smaller MTU meanwhile.
pub(crate) fn tcp_advertise_mss(sk: &mut TcpSock) -> u16 {
    let headers = net_header_len(sk);
    if let Some(dst) = &sk.dst {
        sk.advmss = sk.advmss.min(dst_metric_advmss(dst, headers));
    }
    sk.advmss
}

/// `mss`, bounded by TCP_MAXSEG (Linux `tcp_mss_clamp`).
#[must_use]
pub fn tcp_mss_clamp(user_mss: u16, mss: u16) -> u16 {
    if user_mss != 0 && user_mss < mss {
        user_mss
    } else {
        mss
    }
}

/// Bounds a size by half of the largest window that the peer ever announced (D3; Linux `tcp_bound_to_half_wnd`).
#[inline]
#[must_use]
pub fn tcp_bound_to_half_wnd(sk: &TcpSock, size: u32) -> u32 {
    let cutoff = if sk.max_window > TCP_MSS_DEFAULT {
        sk.max_window >> 1
    } else {
        sk.max_window
    };
    if cutoff != 0 && size > cutoff {
        cutoff.max(68 - sk.tcp_header_len)
    } else {
        size
    }
}

/// Payload bytes of a segment on a path of `pmtu` bytes (D1, D2; Linux `tcp_mtu_to_mss`).
#[must_use]
pub fn tcp_mtu_to_mss(sk: &TcpSock, pmtu: u32, sysctl: &Sysctl) -> u32 {
    let mss = pmtu
        .saturating_sub(net_header_len(sk) + TCP_HEADER)
        .min(u32::from(sk.mss_clamp))
        .max(sysctl.tcp_min_snd_mss);
    mss - (sk.tcp_header_len - TCP_HEADER)
}

/// Takes a new path MTU over; returns the MSS that follows from it.
pub fn tcp_sync_mss(sk: &mut TcpSock, cx: &Cx<'_, '_>, pmtu: u32) -> u32 {
    let sysctl = &cx.sh.sysctl;
    sk.mtup.search_high = sk.mtup.search_high.min(pmtu);
    let mut mss = tcp_bound_to_half_wnd(sk, tcp_mtu_to_mss(sk, pmtu, sysctl));
    sk.pmtu_cookie = pmtu;
    if sk.mtup.enabled {
        mss = mss.min(tcp_mtu_to_mss(sk, sk.mtup.search_low, sysctl));
    }
    sk.mss_cache = mss;
    mss
}

/// The MSS for the next segment: smaller while SACK blocks have to be sent.
#[inline]
pub fn tcp_current_mss(sk: &mut TcpSock, cx: &mut Cx<'_, '_>) -> u32 {
    // A frame made for the route of yesterday might not fit.
    let _ = route_again(sk, cx);
    let mtu = sk.dst.as_ref().map_or(0, |d| d.mtu);
    let mut mss = sk.mss_cache;
    if mtu != 0 && mtu != sk.pmtu_cookie {
        mss = tcp_sync_mss(sk, cx, mtu);
    }
    let usual = sk.tcp_header_len - TCP_HEADER;
    let options = tcp_established_options_size(sk);
    (mss + usual).saturating_sub(options).max(1)
}

/// `(mss_now, size_goal)`: the segment, and the size that a buffer may grow to (D4).
pub fn tcp_send_mss(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, flags: u32) -> (u32, u32) {
    let mss_now = tcp_current_mss(sk, cx);
    if flags & MSG_OOB as u32 != 0 {
        return (mss_now, mss_now);
    }
    (mss_now, tcp_xmit_size_goal(sk, mss_now))
}

fn tcp_xmit_size_goal(sk: &mut TcpSock, mss_now: u32) -> u32 {
    let limit = tcp_bound_to_half_wnd(sk, sk_gso_max_size(sk));
    let mut goal = sk.gso_segs * mss_now;
    // The division is for changes only.
    if limit < goal || limit >= goal + mss_now {
        sk.gso_segs = (limit / mss_now).min(sk_gso_max_segs(sk));
        goal = sk.gso_segs * mss_now;
    }
    goal.max(mss_now)
}
