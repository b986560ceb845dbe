//! Link-layer addresses of next hops: the kernel's table, kept fresh by subscription. A missing entry is resolved by
//! the kernel where we may ask it (RTM_NEWNEIGH with NTF_USE, CAP_NET_ADMIN), so that its ARP state is shared; else
//! by ARP of our own.

use super::channel::{Channel, Dump};
use super::device::DeviceInfo;
use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::packet::{bind_protocol, filter};
use crate::raw;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sidewire_wire::arp::{self, ArpOperation, ArpPacket};
use sidewire_wire::ethernet::{self, EthernetHeader, EthernetView, MacAddr};
use std::collections::HashMap;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, RawFd};

/// Most entries; at the bound those that nothing waits for are forgotten.
const MAX_NEIGHBOURS: usize = 4096;

/// Requests before an address counts as unreachable, and the time between them (Linux's mcast_solicit and
/// retrans_time_ms; spec ER-21).
const TRIES: u8 = 3;
const RETRANS_NS: u64 = 1_000_000_000;

/// How long an answer to our own request holds before it is confirmed (Linux's base_reachable_time_ms).
const REACHABLE_NS: u64 = 30_000_000_000;

/// How often an address is suspected at most.
const SUSPECT_NS: u64 = 1_000_000_000;

/// How long the kernel is waited for. It gives up by itself after mcast_solicit times retrans_time_ms (3 s), and
/// tells.
const KERNEL_NS: u64 = 10_000_000_000;

/// What is known about a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Its link-layer address.
    Resolved(MacAddr),
    /// Being asked for: [`Neighbours::take_settled`] tells when it is known.
    Pending,
    /// Nobody has answered: EHOSTUNREACH. Asking again starts anew.
    Failed,
}

/// An address that was pending and no longer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The device.
    pub ifindex: u32,
    /// The next hop.
    pub ip: IpAddr,
    /// Its link-layer address; None if nobody has answered (EHOSTUNREACH).
    pub mac: Option<MacAddr>,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Asking {
    /// By the kernel, or with our own requests from this device and address.
    own: Option<Sender>,
    tries: u8,
    deadline: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sender {
    mac: MacAddr,
    ip: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    mac: Option<MacAddr>,
    /// Learned by our own request: to be confirmed after this time.
    confirm_at: Option<u64>,
    asking: Option<Asking>,
    /// When it was last suspected.
    suspected_at: Option<u64>,
}

type Key = (u32, IpAddr);

/// The neighbours of one network namespace. Times are nanoseconds of one monotonic clock.
#[derive(Debug)]
pub struct Neighbours {
    query: Channel,
    monitor: Channel,
    arp: Fd,
    arp_open: bool,
    /// Whether the kernel refused to resolve for us.
    kernel_refuses: bool,
    entries: HashMap<Key, Entry>,
    settled: Vec<Settled>,
}

impl Neighbours {
    /// Subscribes in the calling thread's network namespace and reads the kernel's table. The socket for our own ARP
    /// is opened as well, so that later loss of privileges does no harm.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; EMFILE, ENFILE, ENOBUFS; what a dump says.
    pub fn open() -> Result<Neighbours, Errno> {
        Neighbours::with_arp(move_high(raw::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_NONBLOCK,
            0,
        )?)?)
    }

    /// As [`Neighbours::open`], with an open, non-blocking packet socket for our own ARP.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS; what a dump says.
    pub fn with_arp(arp: Fd) -> Result<Neighbours, Errno> {
        filter::attach(arp.as_raw_fd(), &filter::drop_all())?;
        let mut neighbours = Neighbours {
            monitor: Channel::open(&[libc::RTNLGRP_NEIGH])?,
            query: Channel::open(&[])?,
            arp,
            arp_open: false,
            kernel_refuses: false,
            entries: HashMap::new(),
            settled: Vec::new(),
        };
        neighbours.reload()?;
        Ok(neighbours)
    }

    /// Polls POLLIN when [`Neighbours::refresh`] has a notification to read.
    pub fn fd(&self) -> RawFd {
        self.monitor.fd()
    }

    /// Polls POLLIN when [`Neighbours::refresh`] has an ARP reply to read.
    pub fn arp_fd(&self) -> RawFd {
        self.arp.as_raw_fd()
    }

    /// Never asks the kernel to resolve, as if it had refused.
    pub fn use_own_arp(&mut self) {
        self.kernel_refuses = true;
    }

    /// The link-layer address of next hop `ip` on `dev`; asks for it if it is unknown. `src` is our address on that
    /// link, for our own ARP.
    pub fn resolve(&mut self, now: u64, dev: &DeviceInfo, ip: IpAddr, src: IpAddr) -> Resolution {
        let key = (dev.ifindex, ip);
        let entry = self.entries.get(&key).copied().unwrap_or_default();
        let sender = sender(dev, src);
        if let Some(mac) = entry.mac {
            if entry.asking.is_none() && entry.confirm_at.is_some_and(|t| t <= now) {
                self.ask_own(now, key, entry, sender);
            }
            return Resolution::Resolved(mac);
        }
        if entry.asking.is_some() {
            return Resolution::Pending;
        }
        if self
            .settled
            .iter()
            .any(|s| (s.ifindex, s.ip) == key && s.mac.is_none())
        {
            return Resolution::Failed;
        }
        self.make_room();
        if !self.kernel_refuses {
            match self.ask_kernel(key) {
                Ok(Some(mac)) => {
                    self.entries.insert(
                        key,
                        Entry {
                            mac: Some(mac),
                            ..Entry::default()
                        },
                    );
                    return Resolution::Resolved(mac);
                }
                Ok(None) => {
                    let asking = Asking {
                        own: None,
                        tries: 1,
                        deadline: now + KERNEL_NS,
                    };
                    self.entries.insert(
                        key,
                        Entry {
                            asking: Some(asking),
                            ..Entry::default()
                        },
                    );
                    return Resolution::Pending;
                }
                Err(Errno::EPERM | Errno::EACCES) => self.kernel_refuses = true,
                // The device is gone, or its table is full: our own requests find out.
                Err(_) => {}
            }
        }
        if self.ask_own(now, key, entry, sender) {
            Resolution::Pending
        } else {
            Resolution::Failed
        }
    }

    /// The engine hears nothing from a peer behind this next hop: confirms that its address still holds, at most once a
    /// second, however many connections go by it. Kernel TCP does the same after retransmission timeouts
    /// (dst_negative_advice).
    pub fn suspect(&mut self, now: u64, dev: &DeviceInfo, ip: IpAddr, src: IpAddr) {
        let key = (dev.ifindex, ip);
        let Some(entry) = self
            .entries
            .get(&key)
            .copied()
            .filter(|e| e.asking.is_none())
            .filter(|e| e.suspected_at.is_none_or(|at| now - at >= SUSPECT_NS))
        else {
            return;
        };
        let entry = Entry {
            suspected_at: Some(now),
            ..entry
        };
        self.entries.insert(key, entry);
        if matches!(self.ask_state(key), Ok(State::Fixed(_))) {
            return;
        }
        if self.kernel_refuses || entry.confirm_at.is_some() {
            self.ask_own(now, key, entry, sender(dev, src));
        } else if self.use_entry(key).is_err() {
            self.kernel_refuses = true;
        }
    }

    /// Reads waiting notifications and ARP replies.
    ///
    /// # Errors
    /// What the kernel says to a dump after lost notifications.
    pub fn refresh(&mut self, now: u64) -> Result<(), Errno> {
        let (entries, settled) = (&mut self.entries, &mut self.settled);
        let read = self.monitor.notifications(&mut |message| match message {
            RouteNetlinkMessage::NewNeighbour(m) => {
                if let Some(key) = key(&m) {
                    apply(entries, settled, key, State::of(&m));
                }
            }
            RouteNetlinkMessage::DelNeighbour(m) => {
                if let Some(key) = key(&m) {
                    apply(entries, settled, key, State::Gone);
                }
            }
            _ => {}
        });
        match read {
            Err(Errno::ENOBUFS) => self.reload()?,
            other => other?,
        }
        if self.arp_open {
            self.read_arp(now);
            self.close_arp();
        }
        Ok(())
    }

    /// Repeats our own requests and gives up on those without an answer. To be called at
    /// [`Neighbours::next_deadline`].
    pub fn on_timer(&mut self, now: u64) {
        let due: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, e)| e.asking.is_some_and(|a| a.deadline <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let Some(asking) = &mut entry.asking else {
                continue;
            };
            match asking.own {
                Some(sender) if asking.tries < TRIES => {
                    asking.tries += 1;
                    asking.deadline = now + RETRANS_NS;
                    let known = entry.mac;
                    send_request(&self.arp, key, sender, known);
                }
                _ => {
                    self.entries.remove(&key);
                    self.settled.push(Settled {
                        ifindex: key.0,
                        ip: key.1,
                        mac: None,
                    });
                }
            }
        }
        self.close_arp();
    }

    /// When [`Neighbours::on_timer`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.entries
            .values()
            .filter_map(|e| e.asking.map(|a| a.deadline))
            .min()
    }

    /// What has been resolved or given up since the last call.
    pub fn take_settled(&mut self) -> impl Iterator<Item = Settled> + '_ {
        self.settled.drain(..)
    }

    /// Reads the kernel's whole table. Requests that are under way go on.
    fn reload(&mut self) -> Result<(), Errno> {
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let mut found: Vec<(Key, State)> = Vec::new();
        self.query.dump(&all, &mut |step| match step {
            Dump::Start => found.clear(),
            Dump::Message(m) => {
                if let RouteNetlinkMessage::NewNeighbour(m) = *m {
                    found.extend(key(&m).map(|k| (k, State::of(&m))));
                }
            }
        })?;
        self.entries
            .retain(|_, e| e.asking.is_some() || e.confirm_at.is_some());
        for (key, state) in found.into_iter().take(MAX_NEIGHBOURS) {
            apply(&mut self.entries, &mut self.settled, key, state);
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.entries.len() >= MAX_NEIGHBOURS {
            self.entries.retain(|_, e| e.asking.is_some());
        }
    }

    /// Makes the kernel resolve or confirm an entry, as sending a packet would.
    /// Has the kernel confirm an entry, or make and resolve it. For one that is there for good this must not be done: it would
    /// become like others, and be lost where nobody answers.
    fn use_entry(&mut self, key: Key) -> Result<(), Errno> {
        let mut message = neighbour_message(key);
        message.header.flags = NeighbourFlags::Use;
        let flags = NLM_F_CREATE | NLM_F_ACK;
        self.query.request(
            RouteNetlinkMessage::NewNeighbour(message),
            flags,
            &mut |_| {},
        )
    }

    /// What the kernel knows now, whatever notifications are still to be read.
    fn ask_state(&mut self, key: Key) -> Result<State, Errno> {
        let mut state = State::Unsettled;
        let get = RouteNetlinkMessage::GetNeighbour(neighbour_message(key));
        let answer = self.query.request(get, 0, &mut |m| {
            if let RouteNetlinkMessage::NewNeighbour(m) = m {
                state = State::of(&m);
            }
        });
        match answer {
            Ok(()) => Ok(state),
            Err(Errno::ENOENT) => Ok(State::Gone),
            Err(e) => Err(e),
        }
    }

    /// As [`Neighbours::use_entry`], where the address is not known at once (it is on devices without ARP).
    fn ask_kernel(&mut self, key: Key) -> Result<Option<MacAddr>, Errno> {
        let known = self.ask_state(key)?.address();
        if known.is_some() {
            return Ok(known);
        }
        self.use_entry(key)?;
        Ok(self.ask_state(key)?.address())
    }

    /// Starts our own requests; false if ARP does not apply.
    fn ask_own(&mut self, now: u64, key: Key, entry: Entry, sender: Option<Sender>) -> bool {
        let Some(sender) = sender.filter(|_| key.1.is_ipv4()) else {
            return false;
        };
        if !self.open_arp() {
            return false;
        }
        send_request(&self.arp, key, sender, entry.mac);
        let asking = Asking {
            own: Some(sender),
            tries: 1,
            deadline: now + RETRANS_NS,
        };
        self.entries.insert(
            key,
            Entry {
                asking: Some(asking),
                ..entry
            },
        );
        true
    }

    fn open_arp(&mut self) -> bool {
        if !self.arp_open {
            let fd = self.arp.as_raw_fd();
            self.arp_open = filter::attach(fd, &filter::arp_replies()).is_ok()
                && bind_protocol(fd, ethernet::ETH_P_ARP).is_ok();
        }
        self.arp_open
    }

    /// Lets no ARP frame pass while nothing is being asked.
    fn close_arp(&mut self) {
        let asks = self
            .entries
            .values()
            .any(|e| e.asking.is_some_and(|a| a.own.is_some()));
        if self.arp_open
            && !asks
            && filter::attach(self.arp.as_raw_fd(), &filter::drop_all()).is_ok()
        {
            self.arp_open = false;
        }
    }

    fn read_arp(&mut self, now: u64) {
        let mut frame = [0u8; 64];
        loop {
            // SAFETY: sockaddr_ll is made of integers; all zero is valid.
            let mut from: libc::sockaddr_ll = unsafe { zeroed() };
            let Ok(n) = raw::recvfrom(self.arp.as_raw_fd(), &mut frame, &mut from) else {
                return;
            };
            let Ok(ether) = EthernetView::parse(&frame[..n]) else {
                continue;
            };
            let Ok(reply) = ArpPacket::parse(ether.payload()) else {
                continue;
            };
            if reply.operation != ArpOperation::Reply || reply.sender_mac.is_multicast() {
                continue;
            }
            let key = (from.sll_ifindex as u32, IpAddr::V4(reply.sender_ip));
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            if entry.asking.take_if(|a| a.own.is_some()).is_some() {
                entry.mac = Some(reply.sender_mac);
                entry.confirm_at = Some(now + REACHABLE_NS);
                self.settled.push(Settled {
                    ifindex: key.0,
                    ip: key.1,
                    mac: entry.mac,
                });
            }
        }
    }
}

fn sender(dev: &DeviceInfo, src: IpAddr) -> Option<Sender> {
    match src {
        IpAddr::V4(ip) => Some(Sender { mac: dev.mac, ip }),
        IpAddr::V6(_) => None,
    }
}

/// What the kernel says of an entry.
enum State {
    Valid(MacAddr),
    /// Valid, and nothing that ARP finds changes that.
    Fixed(MacAddr),
    Failed,
    Gone,
    Unsettled,
}

impl State {
    fn of(m: &NeighbourMessage) -> State {
        use NeighbourState::{Delay, Failed, Noarp, Permanent, Probe, Reachable, Stale};
        let mac = m.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::LinkLayerAddress(a) => a.first_chunk().map(|m| MacAddr(*m)),
            _ => None,
        });
        // Who has learned it elsewhere looks after it (NTF_EXT_LEARNED).
        let others = m.header.flags.contains(NeighbourFlags::ExtLearned);
        match (m.header.state, mac) {
            (Permanent | Noarp, Some(mac)) => State::Fixed(mac),
            (Reachable | Stale | Delay | Probe, Some(mac)) if others => State::Fixed(mac),
            (Reachable | Stale | Delay | Probe, Some(mac)) => State::Valid(mac),
            (Failed, _) => State::Failed,
            _ => State::Unsettled,
        }
    }

    fn address(&self) -> Option<MacAddr> {
        match self {
            State::Valid(mac) | State::Fixed(mac) => Some(*mac),
            State::Failed | State::Gone | State::Unsettled => None,
        }
    }
}

/// Takes over what the kernel says. An entry that we are asking for ourselves is settled by whoever learns it first;
/// the kernel's failure does not end our own requests.
fn apply(entries: &mut HashMap<Key, Entry>, settled: &mut Vec<Settled>, key: Key, state: State) {
    let (ifindex, ip) = key;
    match state {
        State::Valid(mac) | State::Fixed(mac) => {
            let entry = entries.entry(key).or_default();
            let waited = entry.mac.is_none() && entry.asking.is_some();
            *entry = Entry {
                mac: Some(mac),
                ..Entry::default()
            };
            if waited {
                settled.push(Settled {
                    ifindex,
                    ip,
                    mac: Some(mac),
                });
            }
        }
        State::Failed | State::Gone => {
            let Some(entry) = entries.get_mut(&key) else {
                return;
            };
            if entry.asking.is_some_and(|a| a.own.is_some()) || entry.confirm_at.is_some() {
                return;
            }
            let asked = entry.asking.is_some();
            // A request stays under way when an old entry is cleared out of its way.
            if asked && matches!(state, State::Gone) {
                return;
            }
            entries.remove(&key);
            if asked {
                settled.push(Settled {
                    ifindex,
                    ip,
                    mac: None,
                });
            }
        }
        State::Unsettled => {}
    }
}

fn key(m: &NeighbourMessage) -> Option<Key> {
    let ip = m.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })?;
    Some((m.header.ifindex, ip))
}

fn neighbour_message(key: Key) -> NeighbourMessage {
    let (ifindex, ip) = key;
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    let (family, address) = match ip {
        IpAddr::V4(a) => (AddressFamily::Inet, NeighbourAddress::Inet(a)),
        IpAddr::V6(a) => (AddressFamily::Inet6, NeighbourAddress::Inet6(a)),
    };
    message.header.family = family;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address));
    message
}

/// Sends a request to everybody, or to the address that is to be confirmed. Errors are as a lost frame: the next try
/// comes.
fn send_request(arp: &Fd, key: Key, sender: Sender, known: Option<MacAddr>) {
    let IpAddr::V4(target_ip) = key.1 else { return };
    let mut frame = [0u8; ethernet::HEADER_LEN + arp::PACKET_LEN];
    let dst = known.unwrap_or(MacAddr::BROADCAST);
    EthernetHeader {
        dst,
        src: sender.mac,
        ethertype: ethernet::ETH_P_ARP,
    }
    .emit(&mut frame);
    let request = ArpPacket {
        operation: ArpOperation::Request,
        sender_mac: sender.mac,
        sender_ip: sender.ip,
        target_mac: MacAddr::UNSPECIFIED,
        target_ip,
    };
    request.emit(&mut frame[ethernet::HEADER_LEN..]);
    // SAFETY: sockaddr_ll is made of integers; all zero is valid.
    let mut to: libc::sockaddr_ll = unsafe { zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = ethernet::ETH_P_ARP.to_be();
    to.sll_ifindex = key.0 as i32;
    let _ = raw::sendto(arp.as_raw_fd(), &frame, libc::MSG_DONTWAIT, &to);
}
