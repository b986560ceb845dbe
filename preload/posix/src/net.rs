//! Routes, neighbours and the way out: the engine's [`Net`] over the link.

use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU64;

use arrayvec::ArrayVec;
use sidewire_engine::memory::Frag;
use sidewire_engine::net::{
    Dst, FlowKey, HostQueue, MAX_HEADER, Net, Transmit, Tuple, TxTicket, TxTime, TxTstamp,
    TxVerdict,
};
use sidewire_engine::skb::MAX_SKB_FRAGS;
use sidewire_engine::tx_late::TxLate;
use sidewire_engine::{Error, Instant};
use sidewire_link::Errno;
use sidewire_link::epoll::Epoll;
use sidewire_link::frame::{FrameSink, TxFrame};
use sidewire_link::holder::SilentPorts;
use sidewire_link::netlink::{Found, LinkKind, Neighbours, Resolution, Route, Routes, SockDiag};
use sidewire_link::packet::{PacketSink, PacketSocket};
use sidewire_wire::ethernet::MacAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use crate::capture::Capture;
use crate::destination;
use crate::given::LatelyGiven;
use crate::lanes::{self, Carried, Entrances, Lanes, Late, Parcel, Which, iovecs};
use crate::path_mtu::PathMtus;
use crate::stack::monotonic_ns;
use crate::tstamps::{self, Awaited, Told};

/// Frames kept for next hops that are being resolved (Linux keeps about 100 small ones a neighbour, `unres_qlen_bytes`).
const UNRESOLVED_MAX: usize = 64;
/// How long a next hop's link-layer address is used without asking the table again, in nanoseconds.
const HOP_AGE: u64 = 1_000_000_000;

/// Frames of one stretch under the stack's lock from which a long send pauses, so that they leave before they are cold.
const CROWD: usize = 8;
/// How long the packet socket is left alone that was full, while nobody sleeps until it is not, in nanoseconds.
const RETRY: u64 = 100_000;
/// How long one is left alone that is a lane's own: nobody sleeps until it is not.
const OWN_RETRY: u64 = 500_000;

/// Next hops that are kept at hand.
const HOPS: usize = 16;

fn hop_slot(next_hop: IpAddr) -> usize {
    let last = match next_hop {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    usize::from(last) % HOPS
}

/// Set in the tickets of frames that wait for their next hop.
const TICKET_HELD: u64 = 1 << 63;

/// A frame that waits for its next hop.
struct Held {
    ticket: TxTicket,
    next_hop: IpAddr,
    ifindex: u32,
    daddr: IpAddr,
    saddr: IpAddr,
    headers: ArrayVec<u8, MAX_HEADER>,
    frags: ArrayVec<Frag, MAX_SKB_FRAGS>,
    gso_size: u16,
    mark: u32,
    priority: u32,
    tstamp: Option<TxTstamp>,
    txtime: Option<TxTime>,
}

/// The link-layer half of a destination.
#[derive(Clone, Copy)]
struct Hop {
    ifindex: u32,
    next_hop: IpAddr,
    dst_mac: Option<MacAddr>,
    src_mac: MacAddr,
    until: u64,
}

/// A destination whose next hop does not answer: as if the kernel had sent itself an ICMP host unreachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Source of the frame that could not be sent.
    pub saddr: IpAddr,
    /// Its destination.
    pub daddr: IpAddr,
    /// Its ports, source first.
    pub ports: (u16, u16),
    /// Its sequence number.
    pub seq: u32,
    /// Its headers from the TCP header on.
    pub segment: ArrayVec<u8, MAX_HEADER>,
}

/// Counters of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames handed to the device.
    pub tx_frames: u64,
    /// Their bytes, from the IP header on.
    pub tx_bytes: u64,
    /// Frames taken from it.
    pub rx_frames: u64,
    /// Frames that the kernel could not keep for us.
    pub rx_drops: u64,
    /// Payload bytes that the kernel copied to where the program read them.
    pub rx_direct_bytes: u64,
}

/// The engine's network.
pub struct LinkNet {
    sink: PacketSink,
    entrances: Entrances,
    lanes: Arc<Lanes>,
    /// Lanes that have got frames since [`LinkNet::take_laden`], and how many frames.
    laden: Which,
    crowd: usize,
    /// Frames go to the packet socket at once: when each is captured, and where one thread is left.
    direct: bool,
    /// Frames that did not leave, and of which the engine was not told yet.
    late: Vec<Late>,
    /// When a full packet socket is tried again.
    retry_at: u64,
    /// When a lane's own that was full is, nanoseconds of the monotonic clock.
    own_retry_at: u64,
    routes: Routes,
    paths: PathMtus,
    neighbours: Neighbours,
    /// An epoll descriptor over what netlink and ARP have to say.
    events: Epoll,
    held: Vec<Held>,
    /// Frames that were ever held.
    held_count: u64,
    /// Hops in use, by [`hop_slot`].
    hops: [Option<Hop>; HOPS],
    unreachable: Vec<Unreachable>,
    /// When a request for a neighbour is due, nanoseconds of the monotonic clock.
    deadline: u64,
    /// The packet socket was full since this was last looked at.
    full: bool,
    /// Frames whose timestamps have not all come.
    pub(crate) tstamps: Awaited,
    /// Counters.
    pub stats: LinkStats,
    pub(crate) capture: Capture,
    /// Connections that the kernel answers for, whether it has them or not.
    pub(crate) given: LatelyGiven,
    /// Where the kernel leaves the answer to us.
    pub(crate) silent: SilentPorts,
    /// Open all the time: who asks may be a thread of the library's own ([`thread::own`](crate::thread::own)).
    diag: Option<SockDiag>,
    /// The monotonic clock as the engine was told last, nanoseconds.
    pub(crate) now: u64,
}

impl LinkNet {
    /// Opens what it needs in the calling thread's network namespace.
    ///
    /// # Errors
    /// What netlink says.
    pub fn open(socket: &PacketSocket, neighbours: Neighbours) -> Result<Self, Errno> {
        let routes = Routes::open()?;
        let events = Epoll::new()?;
        for fd in [routes.fd(), neighbours.fd(), neighbours.arp_fd()] {
            events.add(fd, libc::EPOLLIN, 0)?;
        }
        let (entrances, lanes) = lanes::open(|| socket.sink());
        let capture = Capture::open();
        Ok(Self {
            sink: socket.sink(),
            entrances,
            lanes: Arc::new(lanes),
            laden: 0,
            crowd: 0,
            direct: capture.wanted(),
            late: Vec::new(),
            retry_at: 0,
            own_retry_at: u64::MAX,
            routes,
            paths: PathMtus::new(),
            neighbours,
            events,
            held: Vec::new(),
            held_count: 0,
            hops: [None; HOPS],
            unreachable: Vec::new(),
            deadline: u64::MAX,
            full: false,
            tstamps: Awaited::default(),
            stats: LinkStats::default(),
            capture,
            given: LatelyGiven::default(),
            silent: SilentPorts::default(),
            diag: SockDiag::open().ok(),
            now: 0,
        })
    }

    /// Every device but lo, by name.
    pub fn device_names(&self) -> impl Iterator<Item = String> + '_ {
        self.routes
            .devices()
            .filter(|d| d.kind != LinkKind::Loopback)
            .map(|d| d.name.clone())
    }

    /// True when the namespace has a device of that index.
    #[must_use]
    pub(crate) fn has_device(&self, ifindex: u32) -> bool {
        self.routes.device(ifindex).is_some()
    }

    /// Polls POLLIN when [`LinkNet::read_events`] has something to read.
    #[must_use]
    pub fn events_fd(&self) -> i32 {
        self.events.as_raw_fd()
    }

    /// Polls POLLOUT when a packet socket that was full takes frames again, and POLLERR when it has timestamps.
    #[must_use]
    pub fn writable_fd(&self) -> i32 {
        self.sink.writable_fd()
    }

    /// When [`LinkNet::on_timer`] is due, in nanoseconds of the monotonic clock; `u64::MAX` for never.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        self.deadline.min(self.own_retry_at)
    }

    /// Reads notifications and ARP replies, and sends what waited for them. True when routes changed.
    pub fn read_events(&mut self) -> bool {
        // A failed dump leaves the old answers in place; the next notification tries again.
        let changed = self.routes.refresh().unwrap_or(true);
        for ifindex in self.routes.take_news() {
            self.sink.forget_device(ifindex);
            self.lanes.forget_device(ifindex);
        }
        let _ = self.neighbours.refresh(monotonic_ns());
        self.settle();
        changed
    }

    /// Repeats requests for neighbours and gives up on silent ones. True when lanes that were full are to be tried again.
    pub fn on_timer(&mut self, now: u64) -> bool {
        if now >= self.deadline {
            self.neighbours.on_timer(now);
            self.settle();
        }
        let retry = now >= self.own_retry_at;
        if retry {
            self.own_retry_at = u64::MAX;
            self.space();
        }
        retry
    }

    /// A lane's own packet socket was full.
    pub(crate) fn retry_own(&mut self) {
        self.own_retry_at = self.own_retry_at.min(monotonic_ns() + OWN_RETRY);
    }

    /// Frames could not be handed over.
    fn keep(&mut self, carried: Carried) {
        self.full |= carried.full;
        if carried.own_full {
            self.retry_own();
        }
        self.late.extend(carried.late);
    }

    /// Destinations given up since the last call.
    pub fn take_unreachable(&mut self) -> Vec<Unreachable> {
        core::mem::take(&mut self.unreachable)
    }

    /// The next timestamp that has come, of a frame that somebody waits for.
    pub(crate) fn next_tstamp(&mut self) -> Option<Told> {
        loop {
            let stamp = self.sink.read_tstamp()?;
            if let Some(told) = self.tstamps.told(&stamp) {
                return Some(told);
            }
        }
    }

    /// True once after the packet socket was full.
    pub fn take_full(&mut self) -> bool {
        core::mem::take(&mut self.full)
    }

    /// The way out of the lanes.
    pub(crate) fn lanes(&self) -> Arc<Lanes> {
        self.lanes.clone()
    }

    /// Lanes to be carried once the stack's lock is dropped.
    pub(crate) fn take_laden(&mut self) -> Which {
        self.crowd = 0;
        core::mem::take(&mut self.laden)
    }

    /// Every lane is to be carried.
    pub(crate) fn lade_all(&mut self) {
        self.laden = lanes::ALL;
    }

    /// The packet socket takes frames again.
    pub(crate) fn space(&mut self) {
        self.lanes.space();
        self.lade_all();
    }

    /// True when a packet socket that was full may be tried again, though nobody has heard that it is not.
    pub(crate) fn retries(&mut self) -> bool {
        let due = self.now >= self.retry_at;
        if due {
            self.retry_at = self.now + RETRY;
        }
        due
    }

    /// A call that sends begins: it pauses for its own frames, not for those before it.
    pub(crate) fn begin_call(&mut self) {
        self.crowd = 0;
    }

    /// The program may have its pages back: no frame that refers to them is on its way after this.
    pub(crate) fn release_pages(&mut self) {
        if self.lanes.wait() {
            let carried = self.lanes.empty();
            self.keep(carried);
        }
    }

    /// Waits until no frame is on its way from here.
    pub(crate) fn drain(&mut self) -> Vec<Late> {
        let carried = self.lanes.drain();
        self.keep(carried);
        self.take_late()
    }

    /// Frames that did not leave, and of which the engine was not told yet.
    pub(crate) fn take_late(&mut self) -> Vec<Late> {
        core::mem::take(&mut self.late)
    }

    /// The engine was told of a frame of this lane that was dropped: others may follow.
    pub(crate) fn resume(&mut self, lane: usize) {
        self.lanes.resume(lane);
        self.laden |= 1 << lane;
    }

    /// From now on frames go to the packet socket at once: there is no other thread for which to drop the lock. Drain first.
    pub(crate) fn go_direct(&mut self) {
        self.direct = true;
    }

    /// Next hops are looked up anew: a device did not take a frame.
    pub(crate) fn forget_hops(&mut self) {
        self.hops = [None; HOPS];
    }

    /// The kernel's route, for decisions that are not the engine's.
    ///
    /// # Errors
    /// As connect(2).
    pub fn lookup(&mut self, key: &FlowKey) -> Result<Arc<Route>, Errno> {
        let oif = (key.oif != 0).then_some(key.oif);
        self.routes
            .lookup(key.daddr, key.saddr, oif, key.mark, key.tos)
    }

    fn settle(&mut self) {
        self.hops = [None; HOPS];
        let settled: Vec<_> = self.neighbours.take_settled().collect();
        for s in settled {
            let (ready, rest) = core::mem::take(&mut self.held)
                .into_iter()
                .partition(|h| h.ifindex == s.ifindex && h.next_hop == s.ip);
            self.held = rest;
            for h in ready {
                match s.mac {
                    Some(mac) => self.send_held(&h, mac),
                    None => self.unreachable.extend(unreachable(&h)),
                }
            }
        }
        self.deadline = self.neighbours.next_deadline().unwrap_or(u64::MAX);
    }

    fn send_held(&mut self, h: &Held, dst_mac: MacAddr) {
        let Some(dev) = self.routes.device(h.ifindex) else {
            return;
        };
        let src_mac = dev.mac;
        let iov = iovecs(&h.frags);
        // Whatever becomes of it: it counted as sent, and a loss is repaired by retransmission.
        let sent = self.sink.send(&TxFrame {
            ifindex: h.ifindex,
            dst_mac: Some(dst_mac),
            src_mac,
            headers: &h.headers,
            frags: &iov,
            gso_size: h.gso_size,
            mark: h.mark,
            priority: h.priority,
            tstamp: h.tstamp.as_ref().map(tstamps::asked),
            txtime: h.txtime.map(tx_time),
        });
        if let (TxVerdict::Sent, Some(t)) = (lanes::verdict(sent), &h.tstamp) {
            self.tstamps.sent(t);
        }
    }

    /// The link-layer half of a frame's way.
    #[inline]
    fn hop(&mut self, f: &Transmit<'_>) -> Result<Hop, TxVerdict> {
        let next_hop = f.dst.gateway.unwrap_or(f.daddr);
        match self.hops[hop_slot(next_hop)] {
            Some(hop)
                if hop.next_hop == next_hop && hop.ifindex == f.dst.oif && hop.until > self.now =>
            {
                Ok(hop)
            }
            _ => self.find_hop(f, next_hop),
        }
    }

    #[cold]
    fn find_hop(&mut self, f: &Transmit<'_>, next_hop: IpAddr) -> Result<Hop, TxVerdict> {
        let now = monotonic_ns();
        let dev = match self.routes.device(f.dst.oif) {
            Some(dev) if dev.up => dev.clone(),
            _ => return Err(TxVerdict::DeviceGone),
        };
        let dst_mac = match dev.kind {
            LinkKind::None => None,
            LinkKind::Ether | LinkKind::Loopback | LinkKind::Other => {
                let found = self.neighbours.resolve(now, &dev, next_hop, f.dst.saddr);
                self.deadline = self.neighbours.next_deadline().unwrap_or(u64::MAX);
                match found {
                    Resolution::Resolved(mac) => Some(mac),
                    Resolution::Pending => return Err(self.hold(f, next_hop)),
                    Resolution::Failed => {
                        // Whoever asked has been told; the next frame asks anew.
                        self.settle();
                        return Err(TxVerdict::Unreachable);
                    }
                }
            }
        };
        let hop = Hop {
            ifindex: dev.ifindex,
            next_hop,
            dst_mac,
            src_mac: dev.mac,
            until: now + HOP_AGE,
        };
        self.hops[hop_slot(next_hop)] = Some(hop);
        Ok(hop)
    }

    fn hold(&mut self, f: &Transmit<'_>, next_hop: IpAddr) -> TxVerdict {
        if self.held.len() >= UNRESOLVED_MAX {
            return TxVerdict::Dropped;
        }
        self.held_count += 1;
        let ticket = TxTicket(NonZeroU64::MIN.saturating_add(self.held_count) | TICKET_HELD);
        self.held.push(Held {
            ticket,
            next_hop,
            ifindex: f.dst.oif,
            daddr: f.daddr,
            saddr: f.dst.saddr,
            headers: own_headers(f),
            frags: f.frags.iter().cloned().collect(),
            gso_size: f.gso_size,
            mark: f.mark,
            priority: f.priority,
            tstamp: f.tstamp,
            txtime: f.txtime,
        });
        TxVerdict::Queued(ticket)
    }
}

fn unreachable(h: &Held) -> Option<Unreachable> {
    // IPv4 headers have their length in the first byte.
    let l4 = usize::from(h.headers.first()? & 0xf) * 4;
    let tcp = h.headers.get(l4..l4 + 8)?;
    let half = |i: usize| u16::from_be_bytes([tcp[i], tcp[i + 1]]);
    Some(Unreachable {
        saddr: h.saddr,
        daddr: h.daddr,
        ports: (half(0), half(2)),
        seq: u32::from(half(4)) << 16 | u32::from(half(6)),
        segment: h.headers[l4..].iter().copied().collect(),
    })
}

fn tx_time(t: TxTime) -> sidewire_link::frame::TxTime {
    sidewire_link::frame::TxTime {
        at: t.at,
        clockid: t.clockid,
        flags: t.flags,
    }
}

impl Net for LinkNet {
    fn route(&mut self, key: &FlowKey) -> Result<Dst, Error> {
        self.paths.expire(self.now);
        let route = self.lookup(key).map_err(destination::error)?;
        if route.not_unicast {
            return Err(Error::NetUnreach);
        }
        let mut dst = destination::of(&route, key, self.route_generation())?;
        self.paths.apply(&mut dst, key.daddr);
        Ok(dst)
    }

    fn pmtu_told(&mut self, dst: &Dst, daddr: IpAddr, until: Instant) {
        self.paths.learn(dst, daddr, until.0);
    }

    fn kernel_answers(&mut self, tuple: &Tuple) -> bool {
        if self.given.has(tuple, self.now) || !self.silent.has(tuple.local) {
            return true;
        }
        let (SocketAddr::V4(local), SocketAddr::V4(remote)) = (tuple.local, tuple.remote) else {
            return false;
        };
        let found = self.diag.as_ref().map(|diag| diag.find(local, remote));
        matches!(found, Some(Ok(Found::Connection)))
    }

    fn route_generation(&self) -> u32 {
        // 0 is the engine's own (`Dst::RESET`).
        let told = self.paths.generation(self.now);
        (self.routes.generation() as u32)
            .wrapping_add(told)
            .wrapping_add(1)
            .max(1)
    }

    fn transmit(&mut self, f: &Transmit<'_>) -> TxVerdict {
        let hop = match self.hop(f) {
            Ok(hop) => hop,
            Err(verdict) => return verdict,
        };
        // The engine is to know whether stamps will come before it asks for the next.
        if self.direct || f.tstamp.is_some() {
            return self.send_behind(f, &hop);
        }
        let ports = ports(f);
        let lane = lanes::of_ports(ports.0, ports.1);
        let mut ticket = self.put(f, &hop, ports);
        // Nobody would send again soon what has no data: a SYN-ACK in a crowd of them.
        if ticket.is_none() && f.frags.is_empty() {
            let carried = self.lanes.drain_one(lane);
            self.keep(carried);
            ticket = self.put(f, &hop, ports);
        }
        self.laden |= 1 << lane;
        let Some(ticket) = ticket else {
            return TxVerdict::NoSpace;
        };
        self.crowd += 1;
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += u64::from(f.headers.len() as u32 + payload_len(f));
        TxVerdict::Queued(ticket)
    }

    fn negative_advice(&mut self, dst: &Dst, daddr: IpAddr) {
        let next_hop = dst.gateway.unwrap_or(daddr);
        let Some(dev) = self.routes.device(dst.oif).filter(|dev| dev.up) else {
            return;
        };
        if dev.kind != LinkKind::None {
            self.neighbours
                .suspect(monotonic_ns(), dev, next_hop, dst.saddr);
            self.deadline = self.neighbours.next_deadline().unwrap_or(u64::MAX);
        }
    }

    fn flush(&mut self) {
        let carried = self.lanes.drain();
        self.keep(carried);
    }

    fn in_host_queue(&mut self, ticket: TxTicket) -> HostQueue {
        if ticket.0.get() & TICKET_HELD == 0 {
            self.entrances.whereabouts(&self.lanes, ticket, self.now)
        } else if self.held.iter().any(|h| h.ticket == ticket) {
            HostQueue::Here
        } else {
            HostQueue::Clear
        }
    }

    fn small_queue(&mut self, tuple: &Tuple, limit: u32) -> HostQueue {
        self.entrances.small_queue(&self.lanes, tuple, limit)
    }

    fn tail_waits(&mut self, tuple: &Tuple, limit: u32) -> HostQueue {
        self.entrances
            .tail_waits(&self.lanes, tuple, limit, self.now)
    }

    fn recall(&mut self, tuple: &Tuple, from: u32) -> Vec<TxLate> {
        let back = self.entrances.recall(&self.lanes, tuple, from);
        for (_, parcel) in &back {
            self.stats.tx_frames -= 1;
            self.stats.tx_bytes -= u64::from(parcel.headers.len() as u32 + parcel.len);
        }
        back.into_iter().map(|(frame, _)| frame).collect()
    }

    fn crowded(&self) -> bool {
        self.crowd >= CROWD
    }
}

/// The ports of a frame, its own first.
fn ports(f: &Transmit<'_>) -> (u16, u16) {
    let port = |i| u16::from_be_bytes([f.headers[f.l4_offset + i], f.headers[f.l4_offset + i + 1]]);
    (port(0), port(2))
}

/// The bytes that follow a frame's headers.
fn payload_len(f: &Transmit<'_>) -> u32 {
    f.frags.iter().map(|f| f.len).sum()
}

/// A copy of a frame's headers, which are no longer than the engine makes them.
fn own_headers(f: &Transmit<'_>) -> ArrayVec<u8, MAX_HEADER> {
    ArrayVec::try_from(f.headers).unwrap_or_else(|e| unreachable!("{e}"))
}

impl LinkNet {
    /// Puts a frame into its lane.
    fn put(&mut self, f: &Transmit<'_>, hop: &Hop, ports: (u16, u16)) -> Option<TxTicket> {
        let fill = |p: &mut Parcel| {
            p.ifindex = hop.ifindex;
            p.dst_mac = hop.dst_mac;
            p.src_mac = hop.src_mac;
            let copied = p.headers.try_extend_from_slice(f.headers);
            copied.unwrap_or_else(|e| unreachable!("{e}"));
            p.frags.extend(f.frags.iter().cloned());
            p.len = payload_len(f);
            p.gso_size = f.gso_size;
            p.mark = f.mark;
            p.priority = f.priority;
            p.txtime = f.txtime.map(tx_time);
        };
        self.entrances.put(&self.lanes, ports, self.now, fill)
    }

    /// Hands a frame to the packet socket at once, behind those that are on their way.
    #[cold]
    fn send_behind(&mut self, f: &Transmit<'_>, hop: &Hop) -> TxVerdict {
        if self.lanes.wait() {
            let carried = self.lanes.drain();
            let no_space = carried.full || carried.own_full;
            self.keep(carried);
            if no_space {
                return TxVerdict::NoSpace;
            }
        }
        let verdict = self.send_now(f, hop);
        let taken = matches!(
            verdict,
            TxVerdict::Sent | TxVerdict::Stamping | TxVerdict::Copied
        );
        if taken && !self.direct {
            let (ports, payload) = (ports(f), payload_len(f));
            self.entrances
                .went_behind(&self.lanes, ports, self.now, payload);
        }
        verdict
    }

    /// Hands a frame of no connection of the engine's to the packet socket.
    pub(crate) fn hand_over(&mut self, frame: &TxFrame<'_>) -> TxVerdict {
        lanes::verdict(self.sink.send(frame))
    }

    /// Hands a frame to the packet socket while the stack is locked.
    fn send_now(&mut self, f: &Transmit<'_>, hop: &Hop) -> TxVerdict {
        let iov = iovecs(f.frags);
        let frame = TxFrame {
            ifindex: hop.ifindex,
            dst_mac: hop.dst_mac,
            src_mac: hop.src_mac,
            headers: f.headers,
            frags: &iov,
            gso_size: f.gso_size,
            mark: f.mark,
            priority: f.priority,
            tstamp: f.tstamp.as_ref().map(tstamps::asked),
            txtime: f.txtime.map(tx_time),
        };
        let verdict = lanes::verdict(self.sink.send(&frame));
        match verdict {
            TxVerdict::Sent => {
                self.stats.tx_frames += 1;
                self.stats.tx_bytes += (frame.headers.len() + frame.payload_len()) as u64;
                self.capture.sent(&frame, f);
                if self.sink.cuts(hop.ifindex) {
                    return TxVerdict::Copied;
                }
                if let Some(t) = f.tstamp.as_ref().filter(|_| self.sink.stamps()) {
                    self.tstamps.sent(t);
                    return TxVerdict::Stamping;
                }
            }
            TxVerdict::NoSpace => self.full = true,
            TxVerdict::DeviceGone => self.forget_hops(),
            _ => {}
        }
        verdict
    }
}
