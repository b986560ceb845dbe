//! Two stacks joined by a simulated network, with programs on top.
//!
//! A run follows from a [`Profile`] and a seed alone. The programs go on only when an event wakes
//! them, so that a lost wake-up shows. After each step the run checks that the sockets' invariants
//! hold and that what stands on the wire is right ([`observer`]); at the end, that every byte
//! arrived, that both stacks are empty when TIME_WAIT is over, and that no memory is lost. A run
//! that neither ends nor moves is a failure.

pub mod network;
pub mod observer;
pub mod program;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use sidewire_engine::calls::AcceptCall;
use sidewire_engine::error::Error;
use sidewire_engine::memory::RegionKind;
use sidewire_engine::sock::TcpSock;
use sidewire_engine::stack::Step;
use sidewire_engine::sysctl::Sysctl;
use sidewire_engine::time::{NSEC_PER_MSEC, NSEC_PER_SEC};
use sidewire_engine::{Instant, SocketId};

use crate::clock::START;
use crate::host::{Host, HostConfig};
use crate::net::Trouble;
use crate::rng::Rng;
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::TcpView;

use network::{LinkConfig, Network, Side};
use observer::Observer;
use program::{Program, ProgramConfig, Streams};

/// Virtual time after which a run that has not ended is stuck.
const LONGEST_RUN_NS: u64 = 3_600 * NSEC_PER_SEC;
/// Steps at one point of time, beyond which nothing comes to rest.
const MAX_STEPS_AT_ONCE: u32 = 100_000;

/// How long a device that refused a frame has no room.
const ROOM_AFTER_NS: u64 = NSEC_PER_MSEC;

const CLIENT_ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER_ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVER_PORT: u16 = 5001;
const FIRST_CLIENT_PORT: u16 = 40_000;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Profile {
    /// MTU of both links, bytes.
    pub mtu: u32,
    /// The way from client to server.
    pub forth: LinkConfig,
    /// The way back.
    pub back: LinkConfig,
    /// Connections at once.
    pub connections: u16,
    /// What each client does.
    pub client: ProgramConfig,
    /// What the server does with each connection.
    pub server: ProgramConfig,
    /// Settings of both.
    pub sysctl: Sysctl,
    /// Do the devices put together what arrives together?
    pub gro: bool,
    /// Chance in a million that a device has no room for a frame.
    pub no_space: u32,
    /// Chance in a million that a queueing discipline drops a frame and says so.
    pub dropped: u32,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            mtu: 1500,
            forth: LinkConfig::default(),
            back: LinkConfig::default(),
            connections: 1,
            client: ProgramConfig {
                sends: 400_000,
                ..ProgramConfig::default()
            },
            server: ProgramConfig::default(),
            sysctl: Sysctl::default(),
            gro: true,
            no_space: 0,
            dropped: 0,
        }
    }
}

/// What a run came to, for tests that look further.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Virtual time from the first SYN to the last byte read, nanoseconds.
    pub transfer_ns: u64,
    /// Packets that the network lost, doubled, delayed or spoilt.
    pub disturbed: u64,
    /// Data segments that left more than once.
    pub retransmitted: u64,
}

/// Runs `profile` with `seed`.
///
/// # Panics
/// When anything is wrong; the message names the seed.
pub fn run(profile: &Profile, seed: u64) -> Summary {
    watch(profile, seed, &mut |_, _| {})
}

/// The same, and shows `look` the clients' sockets after each step, with the virtual time since the
/// beginning, nanoseconds.
///
/// # Panics
/// As [`run`].
pub fn watch(profile: &Profile, seed: u64, look: &mut dyn FnMut(u64, &TcpSock)) -> Summary {
    let guard = SeedInMessage(seed);
    let mut sim = Sim::new(profile, seed);
    let summary = sim.run(look);
    sim.finish();
    std::mem::forget(guard);
    summary
}

/// Says the seed when a run panics.
struct SeedInMessage(u64);

impl Drop for SeedInMessage {
    fn drop(&mut self) {
        eprintln!("simulation failed with seed {}", self.0);
    }
}

/// One host with its programs.
struct End {
    side: Side,
    host: Host,
    programs: Vec<Program>,
    /// When the device that had no room has some.
    room_at: Instant,
}

struct Sim {
    ends: [End; 2],
    /// Who accepts, until all have come.
    listener: Option<SocketId>,
    server_config: ProgramConfig,
    network: Network,
    /// By the client's port.
    connections: BTreeMap<u16, Connection>,
    gro: bool,
    rng: Rng,
    now: Instant,
}

/// What is known about a connection.
struct Connection {
    /// As the client sees them.
    streams: Streams,
    observer: Observer,
    accepted: bool,
}

impl Sim {
    fn new(profile: &Profile, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut end = |side, addr| {
            let mut host = Host::new(&HostConfig {
                addr,
                mtu: profile.mtu,
                gso_max_segs: 65_535,
                sysctl: profile.sysctl.clone(),
                seed: rng.next(),
            });
            host.net.set_trouble(Trouble {
                no_space: profile.no_space,
                dropped: profile.dropped,
                rng: Rng::new(rng.next()),
            });
            End {
                side,
                host,
                programs: Vec::new(),
                room_at: Instant::NEVER,
            }
        };
        let ends = [
            end(Side::Client, CLIENT_ADDR),
            end(Side::Server, SERVER_ADDR),
        ];
        let mut sim = Self {
            ends,
            listener: None,
            server_config: profile.server.clone(),
            network: Network::new(&profile.forth, &profile.back, rng.next()),
            connections: BTreeMap::new(),
            gro: profile.gro,
            rng,
            now: START,
        };
        sim.listen(profile.connections);
        for n in 0..profile.connections {
            sim.connect(FIRST_CLIENT_PORT + n, &profile.client);
        }
        sim
    }

    fn listen(&mut self, connections: u16) {
        let host = &mut self.ends[Side::Server as usize].host;
        let id = host.stack.socket(false, 0);
        self.server_config.set_buffers(host, id);
        host.stack
            .bound(id, SocketAddr::new(SERVER_ADDR.into(), SERVER_PORT));
        host.with(|stack, io| stack.listen(io, id, connections.into()))
            .expect("listen");
        self.listener = Some(id);
    }

    fn connect(&mut self, port: u16, config: &ProgramConfig) {
        let streams = Streams {
            sends: self.rng.next(),
            receives: self.rng.next(),
        };
        let observer = Observer::new(streams.sends, streams.receives);
        self.connections.insert(
            port,
            Connection {
                streams,
                observer,
                accepted: false,
            },
        );
        let end = &mut self.ends[Side::Client as usize];
        let local = SocketAddr::new(CLIENT_ADDR.into(), port);
        let remote = SocketAddr::new(SERVER_ADDR.into(), SERVER_PORT);
        let program = Program::connect(
            &mut end.host,
            config,
            (local, remote),
            streams,
            self.rng.next(),
        );
        end.programs.push(program);
    }

    fn run(&mut self, look: &mut dyn FnMut(u64, &TcpSock)) -> Summary {
        let mut steps_at_once = 0;
        let mut transferred = None;
        loop {
            self.step();
            let client = &self.ends[Side::Client as usize].host;
            let since = self.now - START;
            client.stack.for_each(|_, sock| look(since, sock));
            let all_accepted = self.connections.values().all(|c| c.accepted);
            let mut programs = self.ends.iter().flat_map(|end| &end.programs);
            if transferred.is_none() && all_accepted && programs.all(Program::has_all) {
                transferred = Some(self.now);
            }
            let next = self.next_event();
            if next == Instant::NEVER {
                break;
            }
            assert!(next - START < LONGEST_RUN_NS, "stuck: {}", self.describe());
            steps_at_once = if next > self.now {
                0
            } else {
                steps_at_once + 1
            };
            assert!(steps_at_once < MAX_STEPS_AT_ONCE, "nothing comes to rest");
            self.now = self.now.max(next);
        }
        let transferred = transferred.unwrap_or_else(|| panic!("stuck: {}", self.describe()));
        let retransmitted = self
            .connections
            .values()
            .map(|c| c.observer.retransmitted());
        Summary {
            transfer_ns: transferred - START,
            disturbed: self.network.disturbed(),
            retransmitted: retransmitted.map(|(forth, back)| forth + back).sum(),
        }
    }

    fn describe(&self) -> String {
        let show = |end: &End| {
            let unfinished = end.programs.iter().filter(|program| !program.is_over());
            let shown: Vec<_> = unfinished
                .map(|program| program.describe(&end.host))
                .collect();
            format!("{:?}: {}", end.side, shown.join("; "))
        };
        self.ends.iter().map(show).collect::<Vec<_>>().join(" | ")
    }

    fn next_event(&self) -> Instant {
        let of_end = |end: &End| {
            let programs = end.programs.iter().map(Program::wakes_at).min();
            end.host
                .next_deadline()
                .min(end.room_at)
                .min(programs.unwrap_or(Instant::NEVER))
        };
        let ends = of_end(&self.ends[0]).min(of_end(&self.ends[1]));
        ends.min(self.network.next_arrival())
    }

    /// Everything that happens now.
    fn step(&mut self) {
        for end in &mut self.ends {
            end.host.clock.advance_to(self.now);
            if end.host.next_deadline() <= self.now {
                end.host.on_timers();
            }
            let arrivals = std::iter::from_fn(|| self.network.arrival(end.side, self.now));
            let received: Vec<_> = arrivals.collect();
            if self.gro {
                end.host.rx_merged(&received);
            } else {
                received.iter().for_each(|packet| end.host.rx(packet));
            }
            if !received.is_empty() {
                end.host.rx_batch_end();
            }
            if end.room_at <= self.now {
                end.room_at = Instant::NEVER;
                end.host.with(|stack, io| stack.tx_space(io));
            }
        }
        self.wake_programs();
        self.accept();
        for end in &mut self.ends {
            end.programs
                .iter_mut()
                .for_each(|program| program.go(&mut end.host));
            if end.host.net.take_refused() {
                end.room_at = self.now + ROOM_AFTER_NS;
            }
            end.host.stack.take_released(|_| {});
            while let Some(packet) = end.host.take_packet() {
                let port = client_port(end.side, &packet.bytes);
                let connection = self.connections.get_mut(&port).expect("a known connection");
                connection.observer.sent(end.side, &packet.bytes);
                self.network.send(end.side, self.now, packet.bytes);
            }
            end.host.stack.for_each(|_, sock| check(sock));
        }
    }

    fn wake_programs(&mut self) {
        for end in &mut self.ends {
            let programs = &mut end.programs;
            end.host.stack.take_events(|_, id, events| {
                programs
                    .iter_mut()
                    .for_each(|program| program.wake(id, events));
            });
            programs
                .iter()
                .for_each(|program| program.check_asleep(&end.host));
        }
    }

    /// The server takes whoever has come.
    fn accept(&mut self) {
        let end = &mut self.ends[Side::Server as usize];
        while let Some(listener) = self.listener {
            let mut call = AcceptCall::default();
            let child = match end
                .host
                .with(|s, io| s.accept(io, listener, true, &mut call))
            {
                Step::Ready(Ok(child)) => child,
                Step::Ready(Err(Error::Again)) => return,
                other => panic!("accept: {other:?}"),
            };
            let port = end.host.stack.peer(child).expect("a peer").port();
            let connection = self.connections.get_mut(&port).expect("a known connection");
            assert!(!connection.accepted, "port {port} was accepted twice");
            connection.accepted = true;
            let streams = connection.streams.reversed();
            let seed = self.rng.next();
            end.programs
                .push(Program::accepted(&self.server_config, child, streams, seed));
            if self.connections.values().all(|c| c.accepted) {
                program::close(&mut end.host, listener);
                self.listener = None;
            }
        }
    }

    /// Nothing more will happen: what is left behind?
    fn finish(self) {
        for end in self.ends {
            let (side, stack) = (end.side, &end.host.stack);
            assert!(stack.quiescent(), "{side:?} has something to send");
            let mut sockets = 0;
            stack.for_each(|_, _| sockets += 1);
            assert_eq!(sockets, 0, "sockets that {side:?} kept");
            assert_eq!(stack.tuples().count(), 0, "tuples that {side:?} kept");
            assert_eq!(
                stack.timewait_count(),
                0,
                "TIME_WAIT remnants that {side:?} kept"
            );
            let regions = end.host.memory.alive(RegionKind::Arena);
            assert!(
                regions <= 1,
                "{regions} regions that {side:?} kept, beside a page in use"
            );
            assert_eq!(
                end.host.leaked_regions(),
                0,
                "regions that {side:?} never gave back"
            );
        }
    }
}

/// A socket's invariants, and that received memory is charged to the byte: no time stamps wait on
/// error queues here.
fn check(sock: &TcpSock) {
    sock.check();
    let queued = sock.receive_queue.iter().chain(&sock.ofo_queue);
    assert_eq!(
        sock.rmem_alloc,
        queued.map(|skb| skb.truesize).sum(),
        "rmem_alloc"
    );
}

/// The client's port of a packet that `side` sends.
fn client_port(side: Side, packet: &[u8]) -> u16 {
    let ip = Ipv4View::parse(packet).expect("an IP packet");
    let tcp = TcpView::parse(ip.payload()).expect("a TCP segment");
    match side {
        Side::Client => tcp.src_port(),
        Side::Server => tcp.dst_port(),
    }
}
