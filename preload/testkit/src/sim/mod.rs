//! Two stacks joined by a simulated network, with two programs on top.
//!
//! A run follows from a [`Profile`] and a seed alone. After each step it checks that both sockets'
//! invariants hold and that what stands on the wire is right ([`observer`]); at the end, that every
//! byte arrived, both connections ended, and no memory is lost. A run that neither ends nor moves
//! is a failure.

pub mod network;
pub mod observer;
pub mod program;

use std::net::{Ipv4Addr, SocketAddr};

use sidewire_engine::Instant;
use sidewire_engine::sysctl::Sysctl;
use sidewire_engine::time::{NSEC_PER_MSEC, NSEC_PER_SEC};

use crate::clock::START;
use crate::host::{Host, HostConfig};
use crate::net::Trouble;
use crate::rng::Rng;
use network::{LinkConfig, Network, Side};
use observer::Observer;
use program::{Program, ProgramConfig};

/// Virtual time after which a run that has not ended is stuck.
const LONGEST_RUN_NS: u64 = 3_600 * NSEC_PER_SEC;
/// Steps at one point of time, beyond which nothing comes to rest.
const MAX_STEPS_AT_ONCE: u32 = 100_000;

/// How long a device that refused a frame has no room.
const ROOM_AFTER_NS: u64 = NSEC_PER_MSEC;

const CLIENT_ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER_ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVER_PORT: u16 = 5001;
const CLIENT_PORT: u16 = 40_000;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Profile {
    /// MTU of both links, bytes.
    pub mtu: u32,
    /// The way from client to server.
    pub forth: LinkConfig,
    /// The way back.
    pub back: LinkConfig,
    /// What the client does.
    pub client: ProgramConfig,
    /// What the server does.
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
    let guard = SeedInMessage(seed);
    let mut sim = Sim::new(profile, seed);
    let summary = sim.run();
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

struct Sim {
    client: Host,
    server: Host,
    network: Network,
    observer: Observer,
    client_program: Program,
    server_program: Program,
    gro: bool,
    /// When a device that had no room has some, by side.
    room_at: [Instant; 2],
    now: Instant,
}

impl Sim {
    fn new(profile: &Profile, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut host = |addr| {
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
            host
        };
        let mut client = host(CLIENT_ADDR);
        let mut server = host(SERVER_ADDR);
        let (stream_forth, stream_back) = (rng.next(), rng.next());
        let client_addr = SocketAddr::new(CLIENT_ADDR.into(), CLIENT_PORT);
        let server_addr = SocketAddr::new(SERVER_ADDR.into(), SERVER_PORT);
        let server_program = Program::listen(
            &mut server,
            &profile.server,
            server_addr,
            (stream_back, stream_forth),
            rng.next(),
        );
        let client_program = Program::connect(
            &mut client,
            &profile.client,
            (client_addr, server_addr),
            (stream_forth, stream_back),
            rng.next(),
        );
        Self {
            network: Network::new(&profile.forth, &profile.back, rng.next()),
            observer: Observer::new(stream_forth, stream_back),
            client,
            server,
            client_program,
            server_program,
            gro: profile.gro,
            room_at: [Instant::NEVER; 2],
            now: START,
        }
    }

    fn run(&mut self) -> Summary {
        let mut steps_at_once = 0;
        let mut transferred = None;
        loop {
            self.step();
            if transferred.is_none()
                && self.client_program.has_all()
                && self.server_program.has_all()
            {
                transferred = Some(self.now);
            }
            if self.client_program.is_over() && self.server_program.is_over() {
                break;
            }
            let next = self.next_event();
            assert!(
                next != Instant::NEVER && next - START < LONGEST_RUN_NS,
                "stuck: {}, {}",
                self.client_program.describe(&self.client),
                self.server_program.describe(&self.server)
            );
            steps_at_once = if next > self.now {
                0
            } else {
                steps_at_once + 1
            };
            assert!(steps_at_once < MAX_STEPS_AT_ONCE, "nothing comes to rest");
            self.now = self.now.max(next);
        }
        let (forth, back) = self.observer.retransmitted();
        Summary {
            transfer_ns: transferred.expect("all was read before the end") - START,
            disturbed: self.network.disturbed(),
            retransmitted: forth + back,
        }
    }

    fn next_event(&self) -> Instant {
        self.client
            .next_deadline()
            .min(self.server.next_deadline())
            .min(self.network.next_arrival())
            .min(self.client_program.wakes_at())
            .min(self.server_program.wakes_at())
            .min(self.room_at[0])
            .min(self.room_at[1])
    }

    /// Everything that happens now.
    fn step(&mut self) {
        let sides = [
            (Side::Client, &mut self.client, &mut self.client_program),
            (Side::Server, &mut self.server, &mut self.server_program),
        ];
        for (side, host, program) in sides {
            host.clock.advance_to(self.now);
            if host.next_deadline() <= self.now {
                host.on_timers();
            }
            let mut received = Vec::new();
            while let Some(packet) = self.network.arrival(side, self.now) {
                received.push(packet);
            }
            if self.gro {
                host.rx_merged(&received);
            } else {
                received.iter().for_each(|packet| host.rx(packet));
            }
            if !received.is_empty() {
                host.rx_batch_end();
            }
            let room_at = &mut self.room_at[side as usize];
            if *room_at <= self.now {
                *room_at = Instant::NEVER;
                host.with(|stack, io| stack.tx_space(io));
            }
            program.go(host);
            if host.net.take_refused() {
                *room_at = self.now + ROOM_AFTER_NS;
            }
            host.stack.take_events(|_, _, _| {});
            host.stack.take_released(|_| {});
            while let Some(packet) = host.take_packet() {
                self.observer.sent(side, &packet.bytes);
                self.network.send(side, self.now, packet.bytes);
            }
            host.stack.for_each(|_, sock| sock.check());
        }
    }

    /// Lets the rest play out (TIME_WAIT), then counts what was left behind.
    fn finish(self) {
        for (name, host) in [("client", self.client), ("server", self.server)] {
            let leaked = host.leaked_regions();
            assert_eq!(leaked, 0, "regions that the {name} never gave back");
        }
    }
}
