//! What the engine is told of a route.

use sidewire_engine::Error;
use sidewire_engine::cong::CongestionControl;
use sidewire_engine::net::{Dst, FlowKey, Locked, PathMetrics, RouteMetrics};
use sidewire_link::Errno;
use sidewire_link::netlink::{DeviceInfo, Metrics, Route};

/// Why there is no route, as the engine has it.
pub(crate) fn error(e: Errno) -> Error {
    match e {
        Errno::EHOSTUNREACH => Error::HostUnreach,
        Errno::EACCES => Error::Access,
        Errno::EINVAL => Error::Inval,
        Errno::EADDRNOTAVAIL => Error::AddrNotAvail,
        Errno::ENODEV => Error::NoDev,
        _ => Error::NetUnreach,
    }
}

/// What the engine is told of a route.
pub(crate) fn of(route: &Route, key: &FlowKey, generation: u32) -> Result<Dst, Error> {
    let dev: &DeviceInfo = &route.dev;
    let saddr = key.saddr.or(route.src).ok_or(Error::AddrNotAvail)?;
    Ok(Dst {
        oif: route.ifindex,
        gateway: route.gateway,
        saddr,
        mtu: route.mtu,
        advmss: route.advmss.unwrap_or(0),
        gso_max_size: dev.gso_max_size,
        gso_max_segs: u16::try_from(dev.gso_max_segs).unwrap_or(u16::MAX),
        // Linux sk_setup_caps: whatever the device does, a route to it gathers, and validate_xmit_skb joins the pieces.
        sg: true,
        zerocopy_copied: dev.copies,
        copied_in_cutting: !dev.features.sg,
        metrics: metrics(&route.metrics),
        generation,
    })
}

/// What the engine is told of the metrics of a route. A congestion control that it lacks becomes its default; what the user
/// chose for the program counts for more.
fn metrics(m: &Metrics) -> RouteMetrics {
    let chosen = crate::config::get().congestion.is_some();
    let congctl = m
        .congctl
        .as_ref()
        .filter(|_| !chosen)
        .map(|name| CongestionControl::by_name(name).unwrap_or_default().name());
    let rto_min_ms = m.rto_min.filter(|_| m.rto_min_locked).unwrap_or(0);
    RouteMetrics {
        window: m.window.unwrap_or(0),
        initcwnd: m.initcwnd.unwrap_or(0),
        initrwnd: m.initrwnd.unwrap_or(0),
        rto_min_us: rto_min_ms.saturating_mul(1000),
        hoplimit: u8::try_from(m.hoplimit.unwrap_or(0)).unwrap_or(u8::MAX),
        mtu_locked: m.mtu_locked,
        quickack: m.quickack,
        ecn: m.ecn,
        usec_ts: m.usec_ts,
        fastopen_no_cookie: m.fastopen_no_cookie,
        congctl,
        congctl_locked: m.congctl_locked && !chosen,
        path: path_metrics(m),
    }
}

fn path_metrics(m: &Metrics) -> PathMetrics {
    let locked = [
        (m.rtt_locked, Locked::RTT),
        (m.rttvar_locked, Locked::RTTVAR),
        (m.ssthresh_locked, Locked::SSTHRESH),
        (m.cwnd_locked, Locked::CWND),
        (m.reordering_locked, Locked::REORDERING),
    ];
    // The parts of a millisecond are those of the estimates.
    let us = |ms: Option<u32>| ms.unwrap_or(0).saturating_mul(1000);
    PathMetrics {
        rtt_us: us(m.rtt),
        rttvar_us: us(m.rttvar),
        ssthresh: m.ssthresh.unwrap_or(0),
        cwnd: m.cwnd.unwrap_or(0),
        reordering: m.reordering.unwrap_or(0),
        locked: locked.into_iter().filter(|l| l.0).map(|l| l.1).collect(),
    }
}
