//! From fields to header bytes: IP and TCP, options, the unfinished checksum.

use core::net::IpAddr;

use sidewire_wire::checksum::{pseudo_header_v4, pseudo_header_v6};
use sidewire_wire::ipv4::Ipv4Header;
use sidewire_wire::ipv6::Ipv6Header;
use sidewire_wire::tcp::{TcpHeader, TcpOptions, set_checksum};

use crate::mss::tcp_advertise_mss;
use crate::net::{Dst, MAX_HEADER, RouteMetrics, Tuple};
use crate::skb::tcphdr;
use crate::sock::TcpSock;
use crate::sysctl::Sysctl;
use crate::time::Instant;

/// IP protocol number of TCP.
const IPPROTO_TCP: u8 = 6;
/// `IP_PMTUDISC_WANT` and `IP_PMTUDISC_DO`: the modes that set DF (Linux `ip_dont_fragment`).
const IP_PMTUDISC_WANT: u8 = 1;
const IP_PMTUDISC_DO: u8 = 2;
/// The bits of the TOS byte that are ECN's.
pub(crate) const INET_ECN_MASK: u8 = 3;
/// Bytes that timestamps take, padding included.
pub const TCPOLEN_TSTAMP_ALIGNED: u32 = 12;

/// What the IP header needs beside addresses and length.
#[derive(Clone, Copy, Debug, Default)]
pub struct IpFields {
    /// TOS or traffic class, ECN bits included.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification; IPv6 derives its flow label from it.
    pub id: u16,
    /// Don't Fragment.
    pub df: bool,
}

/// Headers of one frame.
#[derive(Debug)]
pub struct Headers {
    buf: [u8; MAX_HEADER],
    len: usize,
    /// Where the TCP header begins.
    pub l4_offset: usize,
}

impl Headers {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[..self.len]
    }

    /// Builds the headers of a segment with `payload` bytes behind them. `None` when the two addresses are of different
    /// families.
    #[must_use]
    pub fn build(
        tuple: &Tuple,
        ip: &IpFields,
        tcp: &TcpHeader,
        options: &TcpOptions,
        payload: u32,
    ) -> Option<Self> {
        let mut buf = [0; MAX_HEADER];
        let l4_offset = match tuple.remote.ip() {
            IpAddr::V4(_) => sidewire_wire::ipv4::HEADER_LEN,
            IpAddr::V6(_) => sidewire_wire::ipv6::HEADER_LEN,
        };
        let tcp_len = tcp.emit(options, &mut buf[l4_offset..])?;
        let l4_len = tcp_len as u32 + payload;
        let sum = match (tuple.local.ip(), tuple.remote.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Ipv4Header {
                    tos: ip.tos,
                    total_len: (l4_offset as u32 + l4_len) as u16,
                    id: ip.id,
                    dont_fragment: ip.df,
                    ttl: ip.ttl,
                    protocol: IPPROTO_TCP,
                    src,
                    dst,
                }
                .emit(&mut buf)?;
                pseudo_header_v4(src, dst, IPPROTO_TCP, l4_len)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                Ipv6Header {
                    traffic_class: ip.tos,
                    flow_label: u32::from(ip.id),
                    payload_len: l4_len as u16,
                    next_header: IPPROTO_TCP,
                    hop_limit: ip.ttl,
                    src,
                    dst,
                }
                .emit(&mut buf)?;
                pseudo_header_v6(src, dst, IPPROTO_TCP, l4_len)
            }
            _ => return None,
        };
        set_checksum(&mut buf[l4_offset..], sum);
        Some(Self {
            buf,
            len: l4_offset + tcp_len,
            l4_offset,
        })
    }
}

/// TTL: the socket's, else the route's, else the namespace's (Linux `ip_select_ttl`).
#[must_use]
pub fn ttl(opt: i16, dst: Option<&Dst>, sysctl: &Sysctl) -> u8 {
    u8::try_from(opt).unwrap_or_else(|_| match dst.map_or(0, |d| d.metrics.hoplimit) {
        0 => sysctl.ip_default_ttl,
        of_route => of_route,
    })
}

/// True when routers are to drop what is too large for them, and to say so.
#[must_use]
pub fn ip_dont_fragment(sk: &TcpSock) -> bool {
    dont_fragment(sk.opts.ip_mtu_discover, sk.route_metrics())
}

/// The same by IP_MTU_DISCOVER and the route.
pub(crate) const fn dont_fragment(pmtudisc: u8, route: &RouteMetrics) -> bool {
    match pmtudisc {
        IP_PMTUDISC_DO => true,
        IP_PMTUDISC_WANT => !route.mtu_locked,
        _ => false,
    }
}

/// IP fields of a socket's next frame. The identification is not advanced here.
#[must_use]
pub fn ip_fields(sk: &TcpSock, sysctl: &Sysctl) -> IpFields {
    IpFields {
        tos: sk.opts.ip_tos,
        ttl: ttl(sk.opts.ip_ttl, sk.dst.as_ref(), sysctl),
        id: sk.ip_id,
        df: ip_dont_fragment(sk),
    }
}

/// Our timestamp clock, shifted by the connection's own offset.
#[inline]
#[must_use]
pub fn tsval(sk: &TcpSock, now: Instant) -> u32 {
    tcp_time_stamp_ts(sk, now).wrapping_add(sk.tsoffset)
}

/// What the timestamps of the connection count (Linux `tcp_time_stamp_ts`).
#[inline]
#[must_use]
pub const fn tcp_time_stamp_ts(sk: &TcpSock, at: Instant) -> u32 {
    tcp_clock_ts(sk.tcp_usec_ts, at)
}

/// The clock in microseconds or milliseconds (Linux `tcp_clock_ts`).
#[inline]
#[must_use]
pub const fn tcp_clock_ts(usec_ts: bool, at: Instant) -> u32 {
    if usec_ts {
        at.as_us() as u32
    } else {
        tcp_time_stamp(at)
    }
}

/// Milliseconds of the clock (Linux `tcp_time_stamp_ms`).
#[inline]
#[must_use]
pub const fn tcp_time_stamp(now: Instant) -> u32 {
    now.as_ms() as u32
}

/// Bytes that options take in an established connection's next segment, pending SACK blocks included
/// (Linux `tcp_established_options`).
#[inline]
#[must_use]
pub fn tcp_established_options_size(sk: &TcpSock) -> u32 {
    let mut size = if sk.tstamp_ok {
        TCPOLEN_TSTAMP_ALIGNED
    } else {
        0
    };
    let sacks = u32::from(sk.num_sacks) + u32::from(sk.duplicate_sack.is_some());
    if sacks > 0 {
        let room = (sidewire_wire::tcp_options::MAX_OPTIONS_LEN as u32 - size - 4) / 8;
        size += 4 + 8 * sacks.min(room);
    }
    size
}

/// Options of a segment of an established connection.
#[must_use]
pub fn tcp_established_options(sk: &TcpSock, now: Instant) -> TcpOptions {
    let mut options = TcpOptions::default();
    if sk.tstamp_ok {
        options.timestamps = Some((tsval(sk, now), sk.ts_recent));
    }
    if sk.num_sacks > 0 || sk.duplicate_sack.is_some() {
        options.sack = sk
            .duplicate_sack
            .iter()
            .chain(&sk.selective_acks[..usize::from(sk.num_sacks)])
            .map(|b| (b.start_seq, b.end_seq))
            .collect();
    }
    options
}

/// Options of our SYN, and of the SYN-ACK of a simultaneous open, which offers the same whatever the peer's SYN had (Linux
/// `tcp_syn_options`, TM-32).
#[must_use]
pub fn tcp_syn_options(sk: &mut TcpSock, sysctl: &Sysctl, flags: u8, now: Instant) -> TcpOptions {
    let answer = flags & tcphdr::ACK != 0;
    TcpOptions {
        mss: Some(tcp_advertise_mss(sk)),
        wscale: sysctl.tcp_window_scaling.then_some(sk.rcv_wscale),
        sack_permitted: sysctl.tcp_sack,
        timestamps: (sysctl.tcp_timestamps != 0).then(|| (tsval(sk, now), sk.ts_recent)),
        fastopen: match &sk.fastopen_req {
            Some(req) if !answer => req.cookie,
            _ => None,
        },
        ..TcpOptions::default()
    }
}

#[cfg(test)]
mod tests;
