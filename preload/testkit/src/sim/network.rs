//! The ways between two hosts: delay, rate, a queue, and misfortune.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;

use sidewire_engine::Instant;
use sidewire_engine::time::{NSEC_PER_MSEC, NSEC_PER_SEC};

use sidewire_uapi::socket::IPPROTO_ICMP;
use sidewire_wire::icmp::{self, IcmpErrorKind};
use sidewire_wire::ipv4::{self, Ipv4Header, Ipv4View};

use crate::rng::Rng;

const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// One end of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Who connected.
    Client,
    /// Who accepted.
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A way in one direction. Chances are in a million.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Time on the way, nanoseconds.
    pub delay_ns: u64,
    /// Bytes a second that leave the queue; 0 for no limit.
    pub rate: u64,
    /// Bytes that the queue holds; what comes on top is lost.
    pub queue: u64,
    /// A packet is lost.
    pub loss: u32,
    /// A packet arrives twice.
    pub duplicate: u32,
    /// A packet takes up to [`reorder_ns`](Self::reorder_ns) longer.
    pub reorder: u32,
    /// Longest additional time, nanoseconds.
    pub reorder_ns: u64,
    /// One bit of a packet flips.
    pub corrupt: u32,
    /// Largest packet that passes, bytes; the sender of a larger one is told.
    pub mtu: u32,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay_ns: 5 * NSEC_PER_MSEC,
            rate: 0,
            queue: 1 << 20,
            loss: 0,
            duplicate: 0,
            reorder: 0,
            reorder_ns: 10 * NSEC_PER_MSEC,
            corrupt: 0,
            mtu: u32::MAX,
        }
    }
}

/// Both ways, with the packets on them.
#[derive(Debug)]
pub struct Network {
    forth: Way,
    back: Way,
    rng: Rng,
    disturbed: u64,
}

#[derive(Debug)]
struct Way {
    config: LinkConfig,
    /// When the queue will be empty.
    busy_until: Instant,
    /// By time of arrival, then by number.
    packets: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    count: u64,
}

impl Way {
    fn new(config: &LinkConfig) -> Self {
        Self {
            config: config.clone(),
            busy_until: Instant::ZERO,
            packets: BinaryHeap::new(),
            count: 0,
        }
    }

    fn push(&mut self, at: Instant, packet: Vec<u8>) {
        self.count += 1;
        self.packets.push(Reverse((at, self.count, packet)));
    }

    fn next(&self) -> Instant {
        self.packets
            .peek()
            .map_or(Instant::NEVER, |Reverse((at, ..))| *at)
    }
}

impl Network {
    /// An empty network.
    #[must_use]
    pub fn new(forth: &LinkConfig, back: &LinkConfig, seed: u64) -> Self {
        Self {
            forth: Way::new(forth),
            back: Way::new(back),
            rng: Rng::new(seed),
            disturbed: 0,
        }
    }

    fn towards(&mut self, side: Side) -> &mut Way {
        match side {
            Side::Server => &mut self.forth,
            Side::Client => &mut self.back,
        }
    }

    /// Packets that met with misfortune.
    #[must_use]
    pub fn disturbed(&self) -> u64 {
        self.disturbed
    }

    /// When the next packet arrives, on either side.
    #[must_use]
    pub fn next_arrival(&self) -> Instant {
        self.forth.next().min(self.back.next())
    }

    /// A packet that has arrived at `side`.
    pub fn arrival(&mut self, side: Side, now: Instant) -> Option<Vec<u8>> {
        let way = self.towards(side);
        if way.next() > now {
            return None;
        }
        way.packets.pop().map(|Reverse((.., packet))| packet)
    }

    /// `from` sends a packet.
    pub fn send(&mut self, from: Side, now: Instant, mut packet: Vec<u8>) {
        let config = self.towards(from.other()).config.clone();
        if packet.len() > config.mtu as usize {
            self.disturbed += 1;
            let delay = config.delay_ns;
            self.towards(from)
                .push(now + delay, too_big(&packet, config.mtu));
            return;
        }
        let rng = &mut self.rng;
        let fate = [
            config.loss,
            config.duplicate,
            config.reorder,
            config.corrupt,
        ]
        .map(|chance| rng.chance(chance));
        let [lost, doubled, delayed, spoilt] = fate;
        let extra = rng.below(config.reorder_ns);
        if spoilt {
            let bit = rng.below(packet.len() as u64 * 8) as usize;
            packet[bit / 8] ^= 1 << (bit % 8);
        }
        let way = self.towards(from.other());
        let mut leaves = now;
        if let Some(ns) = (packet.len() as u64 * NSEC_PER_SEC).checked_div(config.rate) {
            let backlog = (way.busy_until - now) * config.rate / NSEC_PER_SEC;
            if backlog + packet.len() as u64 > config.queue {
                self.disturbed += 1;
                return;
            }
            leaves = way.busy_until.max(now) + ns;
            way.busy_until = leaves;
        }
        let at = leaves + config.delay_ns;
        if !lost {
            if doubled {
                way.push(at + extra, packet.clone());
            }
            way.push(if delayed { at + extra } else { at }, packet);
        }
        self.disturbed += u64::from(lost || doubled || delayed || spoilt);
    }
}

/// A router's answer to a packet larger than the next link's MTU.
fn too_big(packet: &[u8], mtu: u32) -> Vec<u8> {
    let offending = Ipv4View::parse(packet).expect("an IP packet of our own");
    let mut message = vec![0; icmp::HEADER_LEN + icmp::MAX_QUOTE_LEN];
    let kind = IcmpErrorKind::PacketTooBig(mtu);
    let len = icmp::emit_v4_error(kind, packet, &mut message).expect("room for any error");
    message.truncate(len);
    let header = Ipv4Header {
        tos: 0,
        total_len: (ipv4::HEADER_LEN + len) as u16,
        id: 0,
        dont_fragment: false,
        ttl: 64,
        protocol: IPPROTO_ICMP,
        src: ROUTER,
        dst: offending.src(),
    };
    let mut answer = vec![0; ipv4::HEADER_LEN];
    assert!(header.emit(&mut answer).is_some());
    answer.extend_from_slice(&message);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_keep_their_order_on_a_quiet_link() {
        let mut network = Network::new(&LinkConfig::default(), &LinkConfig::default(), 1);
        let now = Instant(NSEC_PER_SEC);
        for n in 0..10 {
            network.send(Side::Client, now, vec![n; 20]);
        }
        assert!(
            network
                .arrival(Side::Client, network.next_arrival())
                .is_none()
        );
        let at = network.next_arrival();
        assert_eq!(at - now, 5 * NSEC_PER_MSEC);
        assert!(network.arrival(Side::Server, now).is_none());
        for n in 0..10 {
            assert_eq!(network.arrival(Side::Server, at).unwrap()[0], n);
        }
        assert_eq!(network.disturbed(), 0);
    }

    #[test]
    fn rate_and_queue_bound_what_passes() {
        let slow = LinkConfig {
            rate: 1_000,
            queue: 250,
            ..LinkConfig::default()
        };
        let mut network = Network::new(&slow, &slow, 1);
        let now = Instant(NSEC_PER_SEC);
        for _ in 0..3 {
            network.send(Side::Server, now, vec![0; 100]);
        }
        assert_eq!(network.disturbed(), 1, "the third finds the queue full");
        let mut arrivals = Vec::new();
        while network.next_arrival() != Instant::NEVER {
            let at = network.next_arrival();
            arrivals.push((at - now) / NSEC_PER_MSEC);
            assert!(network.arrival(Side::Client, at).is_some());
        }
        assert_eq!(arrivals, [105, 205]);
    }

    #[test]
    fn misfortune_strikes_as_often_as_asked() {
        let bad = LinkConfig {
            loss: 100_000,
            ..LinkConfig::default()
        };
        let mut network = Network::new(&bad, &bad, 7);
        for _ in 0..10_000 {
            network.send(Side::Client, Instant(1), vec![0; 20]);
        }
        assert!(
            (800..1200).contains(&network.disturbed()),
            "{}",
            network.disturbed()
        );
    }
}
