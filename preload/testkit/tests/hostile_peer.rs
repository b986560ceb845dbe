//! A peer that sends anything: segments near and far from the window, with any flags and any
//! options. Whatever comes, the stack keeps its invariants, and what it sends is well formed (the
//! test's link checks that).

use std::net::{Ipv4Addr, SocketAddr};

use sidewire_engine::calls::{AcceptCall, CloseCall, ConnectCall, RecvCall};
use sidewire_engine::sendmsg::SendCall;
use sidewire_engine::stack::{Caps, Step};
use sidewire_engine::sysctl::Sysctl;
use sidewire_engine::time::NSEC_PER_MSEC;
use sidewire_engine::{Instant, SocketId};
use sidewire_testkit::host::{Host, HostConfig};
use sidewire_testkit::memory::ProgramIter;
use sidewire_testkit::rng::Rng;
use sidewire_uapi::TcpState;
use sidewire_uapi::socket::{IPPROTO_TCP, SHUT_WR};
use sidewire_wire::checksum;
use sidewire_wire::icmp::{self, IcmpErrorKind};
use sidewire_wire::ipv4::{self, Ipv4Header, Ipv4View};
use sidewire_wire::tcp::{self, TcpFlags, TcpHeader, TcpOptions, TcpView};

const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PORT: u16 = 80;
const RUNS: u64 = 150;
const STEPS: u32 = 400;

struct Attack {
    host: Host,
    rng: Rng,
    listener: SocketId,
    open: Vec<SocketId>,
    /// Sequence and acknowledgement numbers last seen from the host: what makes a segment plausible.
    last: (u32, u32),
    last_packet: Vec<u8>,
}

impl Attack {
    fn new(seed: u64) -> Self {
        let mut host = Host::new(&HostConfig {
            addr: US,
            mtu: 1500,
            gso_max_segs: 65_535,
            sysctl: Sysctl::default(),
            seed,
        });
        let listener = host.stack.socket(false, 0);
        host.stack.bound(listener, SocketAddr::new(US.into(), PORT));
        host.with(|stack, io| stack.listen(io, listener, 10))
            .expect("listen");
        let rng = Rng::new(seed);
        Self {
            host,
            rng,
            listener,
            open: Vec::new(),
            last: (0, 0),
            last_packet: Vec::new(),
        }
    }

    fn near(&mut self, n: u32) -> u32 {
        match self.rng.below(8) {
            0 => self.rng.next() as u32,
            1 => n.wrapping_sub(self.rng.below(3) as u32),
            2 => n.wrapping_add(self.rng.below(100_000) as u32),
            3 => n.wrapping_sub(self.rng.below(100_000) as u32),
            _ => n.wrapping_add(self.rng.below(3_000) as u32),
        }
    }

    /// Opens a connection as a good peer would, unless the port has one.
    fn handshake(&mut self) {
        let src = 1_000 + self.rng.below(3) as u16;
        let isn = self.rng.next() as u32;
        self.receive(&segment((src, PORT), (isn, 0), 0x02, 60_000));
        self.receive(&segment(
            (src, PORT),
            (self.last.1, self.last.0),
            0x10,
            60_000,
        ));
    }

    fn receive(&mut self, packet: &[u8]) {
        self.host.rx(packet);
        self.host.rx_batch_end();
        self.take_packets();
    }

    fn take_packets(&mut self) {
        while let Some(packet) = self.host.take_packet() {
            let ip = Ipv4View::parse(&packet.bytes).expect("IPv4");
            let tcp = TcpView::parse(ip.payload()).expect("TCP");
            self.last = (tcp.end_seq(), tcp.ack_seq());
            self.last_packet = packet.bytes;
        }
    }

    /// A segment with a right checksum and anything else.
    fn segment(&mut self) -> Vec<u8> {
        let options_len = 4 * self.rng.below(11) as usize;
        let payload_len = match self.rng.below(4) {
            0 => self.rng.below(1_400) as usize,
            1 => self.rng.below(10) as usize,
            _ => 0,
        };
        let mut segment = vec![0; tcp::HEADER_LEN + options_len + payload_len];
        // Peer ports: few, so that segments meet connections.
        let src = 1_000 + self.rng.below(3) as u16;
        let dst = if self.rng.chance(800_000) {
            PORT
        } else {
            40_000
        };
        segment[..2].copy_from_slice(&src.to_be_bytes());
        segment[2..4].copy_from_slice(&dst.to_be_bytes());
        let (snd, rcv) = self.last;
        let (seq, ack) = (self.near(rcv), self.near(snd));
        segment[4..8].copy_from_slice(&seq.to_be_bytes());
        segment[8..12].copy_from_slice(&ack.to_be_bytes());
        segment[12] = ((tcp::HEADER_LEN + options_len) as u8 / 4) << 4;
        let usual = [0x02, 0x10, 0x10, 0x10, 0x18, 0x12, 0x11, 0x04, 0x14, 0x30];
        let flags = usual.get(self.rng.below(14) as usize);
        segment[13] = flags.copied().unwrap_or(self.rng.next() as u8);
        segment[14..16].copy_from_slice(&(self.rng.next() as u16).to_be_bytes());
        segment[18..20].copy_from_slice(&(self.rng.below(2_000) as u16).to_be_bytes());
        let kinds = [0, 1, 1, 2, 3, 4, 5, 8, 34, 254, 4, 10, 3];
        for byte in &mut segment[tcp::HEADER_LEN..tcp::HEADER_LEN + options_len] {
            let known = kinds.get(self.rng.below(26) as usize);
            *byte = known.copied().unwrap_or(self.rng.next() as u8);
        }
        finished(segment)
    }

    /// An ICMP error about the last packet that was sent.
    fn icmp(&mut self) -> Vec<u8> {
        let kind = match self.rng.below(3) {
            0 => IcmpErrorKind::PacketTooBig(self.rng.below(2_000) as u32),
            1 => IcmpErrorKind::Unreachable(self.rng.below(16) as u8),
            _ => IcmpErrorKind::TimeExceeded(0),
        };
        let mut message = vec![0; icmp::HEADER_LEN + icmp::MAX_QUOTE_LEN];
        let len = icmp::emit_v4_error(kind, &self.last_packet, &mut message).expect("room");
        packet(sidewire_uapi::socket::IPPROTO_ICMP, &message[..len])
    }

    fn program(&mut self) {
        let listener = self.listener;
        let mut accept = AcceptCall::default();
        let step = self
            .host
            .with(|s, io| s.accept(io, listener, true, &mut accept));
        if let Step::Ready(Ok(child)) = step {
            self.open.push(child);
        }
        if self.open.is_empty() && self.rng.chance(100_000) {
            let id = self.host.stack.socket(false, 0);
            self.host
                .stack
                .autobound(id, SocketAddr::new(US.into(), 40_000));
            let remote = SocketAddr::new(PEER.into(), 1_000);
            let mut call = ConnectCall::default();
            let _ = self
                .host
                .with(|s, io| s.connect(io, id, remote, true, &mut call));
            self.open.push(id);
        }
        let Some(id) = self.open.get(self.rng.below(4) as usize).copied() else {
            return;
        };
        let len = self.rng.below(20_000) as usize;
        match self.rng.below(8) {
            0 => {
                self.open.retain(|open| *open != id);
                let mut call = CloseCall::default();
                let _ = self.host.with(|s, io| s.close(io, id, true, &mut call));
            }
            1 => drop(self.host.with(|s, io| s.shutdown(io, id, SHUT_WR))),
            2..5 => {
                let mut iter = ProgramIter::source(&self.host.memory, &vec![7; len]);
                let mut call = SendCall::new(0, &[], None, Caps::default(), true);
                let _ = self
                    .host
                    .with(|s, io| s.sendmsg(io, id, &mut call, &mut iter));
            }
            _ => {
                let mut iter = ProgramIter::sink(&self.host.memory, len);
                let mut call = RecvCall::new(0, true);
                let _ = self
                    .host
                    .with(|s, io| s.recvmsg(io, id, &mut call, &mut iter));
            }
        }
    }

    fn step(&mut self) {
        let pause = if self.rng.chance(20_000) { 100_000 } else { 30 };
        let at = self.host.clock.now() + self.rng.below(pause) * NSEC_PER_MSEC;
        while self.host.next_deadline() <= at && self.host.next_deadline() != Instant::NEVER {
            self.host.clock.advance_to(self.host.next_deadline());
            self.host.on_timers();
        }
        self.host.clock.advance_to(at);
        if self.open.len() < 2 && self.rng.chance(200_000) {
            self.handshake();
        }
        let packet = match self.rng.below(20) {
            0 if !self.last_packet.is_empty() => self.icmp(),
            _ => self.segment(),
        };
        self.host.rx(&packet);
        if self.rng.chance(700_000) {
            self.host.rx_batch_end();
        }
        self.program();
        self.host.stack.take_events(|_, _, _| {});
        self.host.stack.take_released(|_| {});
        self.take_packets();
        self.host.stack.for_each(|_, sock| sock.check());
        assert_eq!(self.host.stack.state(self.listener), TcpState::Listen);
    }
}

/// A segment without options and payload.
fn segment(ports: (u16, u16), numbers: (u32, u32), flags: u8, window: u16) -> Vec<u8> {
    let header = TcpHeader {
        src_port: ports.0,
        dst_port: ports.1,
        seq: numbers.0,
        ack_seq: numbers.1,
        flags: TcpFlags::from_bits_retain(flags),
        window,
        urg_ptr: 0,
    };
    let mut segment = vec![0; tcp::HEADER_LEN];
    assert!(header.emit(&TcpOptions::default(), &mut segment).is_some());
    finished(segment)
}

/// The packet of a segment, with its checksum.
fn finished(mut segment: Vec<u8>) -> Vec<u8> {
    let len = segment.len() as u32;
    let pseudo_header = checksum::pseudo_header_v4(PEER, US, IPPROTO_TCP, len);
    let sum = checksum::add(pseudo_header, checksum::sum(&segment));
    tcp::set_checksum(&mut segment, checksum::finish(sum));
    packet(IPPROTO_TCP, &segment)
}

fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv4Header {
        tos: 0,
        total_len: (ipv4::HEADER_LEN + payload.len()) as u16,
        id: 0,
        dont_fragment: true,
        ttl: 64,
        protocol,
        src: PEER,
        dst: US,
    };
    let mut packet = vec![0; ipv4::HEADER_LEN];
    assert!(header.emit(&mut packet).is_some());
    packet.extend_from_slice(payload);
    packet
}

#[test]
fn anything_may_come() {
    let mut connections = 0;
    for seed in 0..RUNS {
        println!("seed {seed}");
        let mut attack = Attack::new(seed);
        for _ in 0..STEPS {
            attack.step();
            connections += attack.open.len();
        }
        assert_eq!(attack.host.leaked_regions(), 0);
    }
    assert!(
        connections > 0,
        "the peer never came as far as a connection"
    );
}
