//! Routes: the kernel's own answer for each destination, cached until something changes.

use super::channel::{Channel, Dump};
use super::device::{DeviceInfo, LinkKind};
use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::raw;
use arrayvec::ArrayString;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// Most cached answers; at the bound the cache starts anew.
const MAX_ROUTES: usize = 8192;

/// rtnetlink groups whose messages may change a route.
const GROUPS: [u32; 8] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_NEXTHOP,
];

/// What a route sets for TCP, where it sets it (RTAX_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Path MTU, bytes; also where the kernel has learned one.
    pub mtu: Option<u32>,
    /// The path MTU is not to be lowered by ICMP.
    pub mtu_locked: bool,
    /// The congestion control is not to be changed by the program.
    pub congctl_locked: bool,
    /// MSS to advertise, bytes.
    pub advmss: Option<u32>,
    /// Largest window to advertise, bytes.
    pub window: Option<u32>,
    /// TTL of packets.
    pub hoplimit: Option<u32>,
    /// Initial congestion window, segments.
    pub initcwnd: Option<u32>,
    /// Initial receive window, segments.
    pub initrwnd: Option<u32>,
    /// Smallest retransmission timeout, milliseconds; it counts where it is locked, as ip(8) always does.
    pub rto_min: Option<u32>,
    /// It is.
    pub rto_min_locked: bool,
    /// Acknowledge at once.
    pub quickack: bool,
    /// Offer ECN.
    pub ecn: bool,
    /// Timestamps count microseconds.
    pub usec_ts: bool,
    /// Send data with a SYN without a cookie, and take such data.
    pub fastopen_no_cookie: bool,
    /// Name of the congestion control.
    pub congctl: Option<ArrayString<TCP_CA_NAME_MAX>>,
    /// Round-trip time, eighths of a millisecond.
    pub rtt: Option<u32>,
    /// It is not to be changed by what connections meet.
    pub rtt_locked: bool,
    /// Its deviation, quarters of a millisecond.
    pub rttvar: Option<u32>,
    /// It is not to be changed.
    pub rttvar_locked: bool,
    /// Slow-start threshold, segments.
    pub ssthresh: Option<u32>,
    /// It is not to be changed.
    pub ssthresh_locked: bool,
    /// Congestion window, segments.
    pub cwnd: Option<u32>,
    /// It is the largest.
    pub cwnd_locked: bool,
    /// How far segments arrive out of their order, segments.
    pub reordering: Option<u32>,
    /// It is not to be changed.
    pub reordering_locked: bool,
}

/// Bytes that the name of a congestion control may have, its end among them.
const TCP_CA_NAME_MAX: usize = 16;

/// How to reach a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The device to leave by.
    pub ifindex: u32,
    /// The source address: the one asked for, or the kernel's choice.
    pub src: Option<IpAddr>,
    /// The next hop, if not the destination itself.
    pub gateway: Option<IpAddr>,
    /// Path MTU, bytes: the metric, or the device's.
    pub mtu: u32,
    /// MSS to advertise by the metric, bytes.
    pub advmss: Option<u32>,
    /// All metrics.
    pub metrics: Metrics,
    /// The destination is an address of this host.
    pub is_local: bool,
    /// The device is the loopback device.
    pub loopback: bool,
    /// A broadcast or multicast destination, to which TCP does not connect (ENETUNREACH).
    pub not_unicast: bool,
    /// The device.
    pub dev: Arc<DeviceInfo>,
}

/// What a lookup depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    dst: IpAddr,
    src: Option<IpAddr>,
    oif: u32,
    mark: u32,
    tos: u8,
}

/// The kernel's routing of one network namespace.
#[derive(Debug)]
pub struct Routes {
    query: Channel,
    monitor: Channel,
    /// Any socket, for device ioctls.
    control: Fd,
    devices: HashMap<u32, Arc<DeviceInfo>>,
    /// Devices of which there was news.
    news: BTreeSet<u32>,
    cache: HashMap<Key, Result<Arc<Route>, Errno>>,
    generation: u64,
}

impl Routes {
    /// Subscribes in the calling thread's network namespace and reads the devices.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS, EAFNOSUPPORT; what a dump says.
    pub fn open() -> Result<Routes, Errno> {
        let monitor = Channel::open(&GROUPS)?;
        let query = Channel::open(&[])?;
        let control = move_high(raw::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?)?;
        let (devices, cache) = (HashMap::new(), HashMap::new());
        let mut routes = Routes {
            query,
            monitor,
            control,
            devices,
            news: BTreeSet::new(),
            cache,
            generation: 0,
        };
        routes.reload()?;
        routes.news.clear();
        Ok(routes)
    }

    /// Polls POLLIN when [`Routes::refresh`] has something to read.
    pub fn fd(&self) -> RawFd {
        self.monitor.fd()
    }

    /// Counts the changes: a route that was looked up under another generation must be looked up again.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A device by its index.
    pub fn device(&self, ifindex: u32) -> Option<&Arc<DeviceInfo>> {
        self.devices.get(&ifindex)
    }

    /// All devices.
    pub fn devices(&self) -> impl Iterator<Item = &Arc<DeviceInfo>> {
        self.devices.values()
    }

    /// Devices that have come, gone, or changed in features, MTU or anything else, each once.
    pub fn take_news(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.news)
    }

    /// Reads waiting notifications; true if something has changed. Lost notifications (ENOBUFS) mean that all is
    /// read anew.
    ///
    /// # Errors
    /// What the kernel says to a dump.
    pub fn refresh(&mut self) -> Result<bool, Errno> {
        let before = self.generation;
        let control = self.control.as_raw_fd();
        let (devices, news) = (&mut self.devices, &mut self.news);
        let generation = &mut self.generation;
        let read = self.monitor.notifications(&mut |message| {
            *generation += 1;
            match message {
                RouteNetlinkMessage::NewLink(m) => {
                    let info = DeviceInfo::of(&m, control);
                    news.insert(info.ifindex);
                    devices.insert(info.ifindex, Arc::new(info));
                }
                RouteNetlinkMessage::DelLink(m) => {
                    news.insert(m.header.index);
                    devices.remove(&m.header.index);
                }
                _ => {}
            }
        });
        match read {
            Err(Errno::ENOBUFS) => self.reload()?,
            other => other?,
        }
        if self.generation != before {
            self.cache.clear();
        }
        Ok(self.generation != before)
    }

    /// Reads all devices anew and forgets all routes.
    fn reload(&mut self) -> Result<(), Errno> {
        let control = self.control.as_raw_fd();
        self.news.extend(self.devices.keys());
        let devices = &mut self.devices;
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.query.dump(&all, &mut |step| match step {
            Dump::Start => devices.clear(),
            Dump::Message(m) => {
                if let RouteNetlinkMessage::NewLink(m) = *m {
                    let info = DeviceInfo::of(&m, control);
                    devices.insert(info.ifindex, Arc::new(info));
                }
            }
        })?;
        self.news.extend(self.devices.keys());
        self.cache.clear();
        self.generation += 1;
        Ok(())
    }

    /// Forgets the answers for one destination, when the engine has learned that they no longer hold (path MTU).
    pub fn forget(&mut self, dst: IpAddr) {
        self.cache.retain(|key, _| key.dst != dst);
    }

    /// How the kernel would route to `dst`: from `src` and out of `oif` where the socket is bound to them, with its
    /// SO_MARK and IP_TOS. Notifications are not read here; see [`Routes::refresh`].
    ///
    /// # Errors
    /// The errno that connect(2) would give: ENETUNREACH, EHOSTUNREACH (unreachable route), EACCES (prohibit),
    /// EINVAL (blackhole; or a source that is not ours), ENODEV.
    pub fn lookup(
        &mut self,
        dst: IpAddr,
        src: Option<IpAddr>,
        oif: Option<u32>,
        mark: u32,
        tos: u8,
    ) -> Result<Arc<Route>, Errno> {
        let key = Key {
            dst,
            src,
            oif: oif.unwrap_or(0),
            mark,
            tos,
        };
        if let Some(answer) = self.cache.get(&key) {
            return answer.clone();
        }
        let answer = self.ask(&key);
        if self.cache.len() >= MAX_ROUTES {
            self.cache.clear();
        }
        self.cache.insert(key, answer.clone());
        answer
    }

    fn ask(&mut self, key: &Key) -> Result<Arc<Route>, Errno> {
        let mut request = RouteMessage::default();
        let bits = if key.dst.is_ipv4() { 32 } else { 128 };
        request.header.address_family = if key.dst.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        request.header.destination_prefix_length = bits;
        request.header.tos = key.tos & TOS_ROUTED;
        request
            .attributes
            .push(RouteAttribute::Destination(key.dst.into()));
        if let Some(src) = key.src.filter(|s| !s.is_unspecified()) {
            request.header.source_prefix_length = bits;
            request.attributes.push(RouteAttribute::Source(src.into()));
        }
        if key.oif != 0 {
            request.attributes.push(RouteAttribute::Oif(key.oif));
        }
        if key.mark != 0 {
            request.attributes.push(RouteAttribute::Mark(key.mark));
        }
        request
            .attributes
            .push(RouteAttribute::IpProto(libc::IPPROTO_TCP as u8));
        let mut answer = None;
        self.query
            .request(RouteNetlinkMessage::GetRoute(request), 0, &mut |m| {
                if let RouteNetlinkMessage::NewRoute(m) = m {
                    answer = Some(m);
                }
            })?;
        self.read(answer.ok_or(Errno::ENETUNREACH)?, key.src)
    }

    /// `src` is the source that was asked for: the kernel names one only where it chose it.
    fn read(&mut self, message: RouteMessage, src: Option<IpAddr>) -> Result<Arc<Route>, Errno> {
        match message.header.kind {
            RouteType::Unreachable => return Err(Errno::EHOSTUNREACH),
            RouteType::Prohibit => return Err(Errno::EACCES),
            RouteType::BlackHole => return Err(Errno::EINVAL),
            _ => {}
        }
        let (mut ifindex, mut gateway, mut metrics) = (0, None, Metrics::default());
        let mut src = src.filter(|s| !s.is_unspecified());
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = index,
                RouteAttribute::PrefSource(a) => src = ip(&a),
                RouteAttribute::Gateway(a) => gateway = ip(&a),
                RouteAttribute::Via(via) => gateway = via_address(&via),
                RouteAttribute::Metrics(list) => list.iter().for_each(|m| metrics.set(m)),
                _ => {}
            }
        }
        let dev = self.device_or_ask(ifindex)?;
        Ok(Arc::new(Route {
            ifindex,
            src,
            gateway,
            mtu: metrics.mtu.unwrap_or(dev.mtu).min(dev.mtu),
            advmss: metrics.advmss,
            metrics,
            is_local: message.header.kind == RouteType::Local,
            loopback: dev.kind == LinkKind::Loopback,
            not_unicast: matches!(
                message.header.kind,
                RouteType::Broadcast | RouteType::Multicast
            ),
            dev,
        }))
    }

    /// The device, also when its notification has not been read yet.
    fn device_or_ask(&mut self, ifindex: u32) -> Result<Arc<DeviceInfo>, Errno> {
        if let Some(dev) = self.devices.get(&ifindex) {
            return Ok(dev.clone());
        }
        let mut request = LinkMessage::default();
        request.header.index = ifindex;
        let mut found = None;
        let control = self.control.as_raw_fd();
        self.query
            .request(RouteNetlinkMessage::GetLink(request), 0, &mut |m| {
                if let RouteNetlinkMessage::NewLink(m) = m {
                    found = Some(Arc::new(DeviceInfo::of(&m, control)));
                }
            })?;
        let dev = found.ok_or(Errno::ENODEV)?;
        self.devices.insert(ifindex, dev.clone());
        Ok(dev)
    }
}

/// The bits of the TOS byte that take part in routing (IPTOS_RT_MASK; ECN does not).
const TOS_ROUTED: u8 = 0x1c;

/// Numbers of metrics in the mask of locked ones.
const RTAX_MTU: u32 = 2;
const RTAX_RTT: u32 = 4;
const RTAX_RTTVAR: u32 = 5;
const RTAX_SSTHRESH: u32 = 6;
const RTAX_CWND: u32 = 7;
const RTAX_REORDERING: u32 = 9;
const RTAX_RTO_MIN: u32 = 13;
const RTAX_CC_ALGO: u32 = 16;
/// Of `features`: ECN.
const RTAX_FEATURE_ECN: u32 = 1;
/// Of `features`: timestamps in microseconds.
const RTAX_FEATURE_TCP_USEC_TS: u32 = 1 << 4;

impl Metrics {
    fn set(&mut self, metric: &RouteMetric) {
        match *metric {
            RouteMetric::Lock(bits) => {
                let locked = |number: u32| bits & (1 << number) != 0;
                self.mtu_locked = locked(RTAX_MTU);
                self.rto_min_locked = locked(RTAX_RTO_MIN);
                self.congctl_locked = locked(RTAX_CC_ALGO);
                self.rtt_locked = locked(RTAX_RTT);
                self.rttvar_locked = locked(RTAX_RTTVAR);
                self.ssthresh_locked = locked(RTAX_SSTHRESH);
                self.cwnd_locked = locked(RTAX_CWND);
                self.reordering_locked = locked(RTAX_REORDERING);
            }
            RouteMetric::Mtu(v) => self.mtu = Some(v),
            RouteMetric::Advmss(v) => self.advmss = Some(v),
            RouteMetric::Window(v) => self.window = Some(v),
            RouteMetric::Hoplimit(v) => self.hoplimit = Some(v),
            RouteMetric::InitCwnd(v) => self.initcwnd = Some(v),
            RouteMetric::InitRwnd(v) => self.initrwnd = Some(v),
            RouteMetric::Rtt(v) => self.rtt = Some(v),
            RouteMetric::RttVar(v) => self.rttvar = Some(v),
            RouteMetric::SsThresh(v) => self.ssthresh = Some(v),
            RouteMetric::Cwnd(v) => self.cwnd = Some(v),
            RouteMetric::Reordering(v) => self.reordering = Some(v),
            RouteMetric::RtoMin(v) => self.rto_min = Some(v),
            RouteMetric::QuickAck(v) => self.quickack = v != 0,
            RouteMetric::Features(bits) => {
                self.ecn = bits & RTAX_FEATURE_ECN != 0;
                self.usec_ts = bits & RTAX_FEATURE_TCP_USEC_TS != 0;
            }
            RouteMetric::FastopenNoCookie(v) => self.fastopen_no_cookie = v != 0,
            RouteMetric::CcAlgo(ref name) => self.congctl = ArrayString::from(name).ok(),
            _ => {}
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

/// The next hop where it is of the other address family.
fn via_address(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(a) => Some((*a).into()),
        RouteVia::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}
