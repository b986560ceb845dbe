//! A host: one stack with its memory, its link and its clock.

use std::net::Ipv4Addr;

use sidewire_engine::errqueue::IcmpPacket;
use sidewire_engine::memory::{Frag, RegionKind};
use sidewire_engine::segment::{Ingress, RxCsum};
use sidewire_engine::stack::Secrets;
use sidewire_engine::sysctl::Sysctl;
use sidewire_engine::{Instant, Io, SocketId, Stack};
use sidewire_uapi::socket::{IPPROTO_ICMP, IPPROTO_TCP};
use sidewire_wire::icmp::IcmpError;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::TcpView;

use crate::clock::Clock;
use crate::gro;
use crate::memory::TestMemory;
use crate::net::{IFINDEX, Packet, TestNet};

/// What a host is made of.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Its address.
    pub addr: Ipv4Addr,
    /// MTU of its link, bytes.
    pub mtu: u32,
    /// Segments that its device cuts a super-frame into, at most; 1 for a device without offload.
    pub gso_max_segs: u16,
    /// Settings.
    pub sysctl: Sysctl,
    /// What its secrets come from.
    pub seed: u64,
}

/// A host.
pub struct Host {
    /// The present.
    pub clock: Clock,
    /// Its stack.
    pub stack: Stack,
    /// Its memory.
    pub memory: TestMemory,
    /// Its link.
    pub net: TestNet,
}

impl Host {
    /// A host at rest.
    #[must_use]
    pub fn new(config: &HostConfig) -> Self {
        let memory = TestMemory::new();
        Self {
            clock: Clock::default(),
            stack: Stack::new(config.sysctl.clone(), secrets(config.seed)),
            net: TestNet::new(&memory, config.addr, config.mtu, config.gso_max_segs),
            memory,
        }
    }

    /// Calls the stack with everything it needs from outside.
    pub fn with<T>(&mut self, f: impl FnOnce(&mut Stack, &mut Io<'_>) -> T) -> T {
        self.net.now = self.clock.now();
        let mut io = Io {
            now: self.clock.now(),
            wall_ns: self.clock.wall_ns(),
            mem: &mut self.memory,
            net: &mut self.net,
        };
        f(&mut self.stack, &mut io)
    }

    /// Receives an IP packet, as one of a batch that [`rx_batch_end`](Self::rx_batch_end) ends.
    /// A packet that is neither TCP nor an ICMP error about it is dropped.
    pub fn rx(&mut self, packet: &[u8]) {
        let Ok(ip) = Ipv4View::parse(packet) else {
            return;
        };
        match ip.protocol() {
            IPPROTO_TCP => self.rx_tcp(packet, &ip),
            IPPROTO_ICMP => {
                let message = ip.payload();
                if let Ok(error) = IcmpError::parse_v4(message) {
                    let packet = IcmpPacket {
                        saddr: ip.src().into(),
                        daddr: ip.dst().into(),
                        iif: IFINDEX,
                        ttl: ip.ttl(),
                        tos: ip.tos(),
                    };
                    let segment = &message[error.segment_at..];
                    self.with(|stack, io| stack.icmp(io, &error, &packet, segment));
                }
            }
            _ => {}
        }
    }

    /// Receives packets that came together, as a device with receive offload hands them over.
    pub fn rx_merged(&mut self, packets: &[Vec<u8>]) {
        let mut rest = packets;
        while let Some(packet) = rest.first() {
            let count = match gro::merge(rest) {
                Some((merged, count)) if count > 1 => {
                    self.deliver(
                        &merged.headers,
                        merged.payload,
                        RxCsum::Good,
                        merged.segs,
                        merged.size,
                    );
                    count
                }
                _ => {
                    self.rx(packet);
                    1
                }
            };
            rest = &rest[count..];
        }
    }

    fn rx_tcp(&mut self, packet: &[u8], ip: &Ipv4View<'_>) {
        let Ok(tcp) = TcpView::parse(ip.payload()) else {
            return;
        };
        let csum = if tcp.checksum_ok(ip.pseudo_header()) {
            RxCsum::Good
        } else {
            RxCsum::Bad
        };
        let headers = &packet[..ip.header_len() + tcp.header_len()];
        self.deliver(headers, tcp.payload().to_vec(), csum, 1, 0);
    }

    fn deliver(&mut self, headers: &[u8], payload: Vec<u8>, csum: RxCsum, segs: u32, size: usize) {
        let len = payload.len() as u32;
        let payload = (len > 0).then(|| Frag {
            mem: self.memory.region(RegionKind::Arena, payload),
            off: 0,
            len,
        });
        let mut ingress = Ingress {
            headers,
            payload,
            csum,
            gso_segs: segs,
            gso_size: size as u32,
            iif: IFINDEX,
            tstamp_ns: self.clock.wall_ns(),
        };
        self.with(|stack, io| stack.rx(io, &mut ingress));
    }

    /// Ends a batch of received packets: acknowledgements and data leave.
    pub fn rx_batch_end(&mut self) {
        self.with(|stack, io| stack.rx_batch_end(io));
    }

    /// The next time at which [`on_timers`](Self::on_timers) has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.stack.next_deadline()
    }

    /// Runs the timers that are due.
    pub fn on_timers(&mut self) {
        self.with(|stack, io| stack.on_timers(io));
    }

    /// The oldest packet that was sent.
    pub fn take_packet(&mut self) -> Option<Packet> {
        self.net.take()
    }

    /// Aborts every socket, and says how many regions of the arenas stay behind: a leak unless 0.
    #[must_use]
    pub fn leaked_regions(mut self) -> usize {
        let mut ids: Vec<SocketId> = Vec::new();
        self.stack.for_each(|id, _| ids.push(id));
        for id in ids {
            self.with(|stack, io| stack.abort(io, id));
        }
        drop(self.stack);
        self.memory.alive(RegionKind::Arena)
    }
}

fn secrets(seed: u64) -> Secrets {
    let part = |n: u64| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..].copy_from_slice(&n.to_le_bytes());
        key
    };
    Secrets {
        isn: part(1),
        ts: part(2),
        fastopen: part(3),
        hash: part(4),
    }
}
