//! Two hosts on one link, and a connection between them: what the engine's integration tests stand on.
#![allow(dead_code)] // each test binary uses its part

use std::net::{Ipv4Addr, SocketAddr};

use sidewire_engine::error::Error;
use sidewire_engine::sendmsg::SendCall;
use sidewire_engine::stack::Caps;
use sidewire_engine::sysctl::Sysctl;
use sidewire_engine::{
    AcceptCall, ConnectCall, Instant, RecvCall, SocketId, Step, sendmsg::NameArg,
};
use sidewire_testkit::host::{Host, HostConfig};
use sidewire_testkit::memory::ProgramIter;
use sidewire_uapi::socket as so;

/// A thread that may do everything.
pub(crate) const ROOT: Caps = Caps {
    net_admin: true,
    net_raw: true,
    ipc_lock: true,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The listener's port.
pub(crate) const PORT: u16 = 5001;
/// One way.
const DELAY_NS: u64 = 1_000_000;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It connects.
    Client,
    /// It listens.
    Server,
}

/// Decides which packet of which side is lost.
pub(crate) type Lose = dyn FnMut(Side, &[u8]) -> bool;

/// Both hosts.
pub(crate) struct Pair {
    /// Hosts, client first.
    pub(crate) hosts: [Host; 2],
    /// Packets that left, by side, since somebody looked.
    pub(crate) seen: Vec<(Side, Vec<u8>)>,
    /// Packets that are lost: asked with the sender and the packet.
    pub(crate) lose: Box<Lose>,
    /// The listener.
    pub(crate) listener: SocketId,
    next_port: u16,
}

impl Pair {
    /// Two hosts and a listener.
    pub(crate) fn new(client: Sysctl, server: Sysctl) -> Self {
        let host = |addr, sysctl, seed| {
            Host::new(&HostConfig {
                addr,
                mtu: 1500,
                gso_max_segs: 64,
                sysctl,
                seed,
            })
        };
        let mut server = host(SERVER, server, 2);
        let listener = server.stack.socket(false, 1);
        server.stack.bound(listener, Self::server_addr());
        server
            .with(|stack, io| stack.listen(io, listener, 8))
            .expect("listen");
        Self {
            hosts: [host(CLIENT, client, 1), server],
            seen: Vec::new(),
            lose: Box::new(|_, _| false),
            listener,
            next_port: 40_000,
        }
    }

    /// The listener's address.
    pub(crate) fn server_addr() -> SocketAddr {
        SocketAddr::from((SERVER, PORT))
    }

    /// The listener's address as `struct sockaddr_in`.
    pub(crate) fn server_sockaddr() -> [u8; 16] {
        let mut out = [0; 16];
        out[..2].copy_from_slice(&so::AF_INET.to_ne_bytes());
        out[2..4].copy_from_slice(&PORT.to_be_bytes());
        out[4..8].copy_from_slice(&SERVER.octets());
        out
    }

    /// A host.
    pub(crate) fn host(&mut self, side: Side) -> &mut Host {
        &mut self.hosts[side as usize]
    }

    /// A client's socket with a port of its own.
    pub(crate) fn client_socket(&mut self) -> SocketId {
        self.next_port += 1;
        let addr = SocketAddr::from((CLIENT, self.next_port));
        let stack = &mut self.hosts[0].stack;
        let id = stack.socket(false, 7);
        stack.autobound(id, addr);
        id
    }

    /// Carries packets both ways until none moves; time passes on the way.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = false;
            for side in [Side::Client, Side::Server] {
                let mut batch = Vec::new();
                while let Some(packet) = self.host(side).take_packet() {
                    self.seen.push((side, packet.bytes.clone()));
                    if !(self.lose)(side, &packet.bytes) {
                        batch.push(packet.bytes);
                    }
                    moved = true;
                }
                if batch.is_empty() {
                    continue;
                }
                self.pass(DELAY_NS);
                let other = self.host(match side {
                    Side::Client => Side::Server,
                    Side::Server => Side::Client,
                });
                for bytes in &batch {
                    other.rx(bytes);
                }
                other.rx_batch_end();
            }
            if !moved {
                return;
            }
        }
    }

    /// What the client has sent already reaches the server; the answers are lost.
    pub(crate) fn settle_in_flight(&mut self) {
        while let Some(packet) = self.host(Side::Client).take_packet() {
            if !(self.lose)(Side::Client, &packet.bytes) {
                self.host(Side::Server).rx(&packet.bytes);
            }
        }
        self.host(Side::Server).rx_batch_end();
        while self.host(Side::Server).take_packet().is_some() {}
    }

    pub(crate) fn pass(&mut self, ns: u64) {
        let at = self.hosts[0].clock.now() + ns;
        for host in &mut self.hosts {
            host.clock.advance_to(at);
        }
    }

    /// Runs timers and packets until `ns` have passed.
    pub(crate) fn run_for(&mut self, ns: u64) {
        let end = self.hosts[0].clock.now() + ns;
        loop {
            self.settle();
            let next = self.hosts.iter().map(|h| h.next_deadline()).min();
            let at = next.unwrap_or(Instant::NEVER).min(end);
            for host in &mut self.hosts {
                host.clock.advance_to(at);
                host.on_timers();
            }
            if at == end {
                self.settle();
                return;
            }
        }
    }

    /// A connection: the client's socket and the accepted one.
    pub(crate) fn connect(&mut self) -> (SocketId, SocketId) {
        let id = self.client_socket();
        let mut call = ConnectCall::default();
        let r = self
            .host(Side::Client)
            .with(|s, io| s.connect(io, id, Self::server_addr(), true, &mut call));
        assert_eq!(r, Step::Ready(Err(Error::InProgress)));
        self.settle();
        let child = self.accept().expect("a child");
        (id, child)
    }

    /// `accept`, non-blocking.
    pub(crate) fn accept(&mut self) -> Result<SocketId, Error> {
        let listener = self.listener;
        let mut call = AcceptCall::default();
        ready(
            self.host(Side::Server)
                .with(|s, io| s.accept(io, listener, true, &mut call)),
        )
    }

    /// A non-blocking `sendmsg`.
    pub(crate) fn send(
        &mut self,
        side: Side,
        id: SocketId,
        flags: i32,
        name: Option<&[u8]>,
        bytes: &[u8],
    ) -> Result<usize, Error> {
        let host = self.host(side);
        let mut iter = ProgramIter::source(&host.memory, bytes);
        let mut call = SendCall::new(flags, &[], name.map(NameArg), ROOT, true);
        ready(host.with(|s, io| s.sendmsg(io, id, &mut call, &mut iter)))
    }

    /// Sends a few bytes, all of which fit.
    pub(crate) fn send_all(&mut self, side: Side, id: SocketId, flags: i32, bytes: &[u8]) {
        assert_eq!(self.send(side, id, flags, None, bytes), Ok(bytes.len()));
        self.settle();
    }

    /// One blocking send of the client's, of as much as one likes, while the server reads on `server`.
    pub(crate) fn transfer(&mut self, id: SocketId, server: SocketId, flags: i32, bytes: &[u8]) {
        let memory = self.host(Side::Client).memory.clone();
        let mut iter = ProgramIter::source(&memory, bytes);
        let mut call = SendCall::new(flags, &[], None, ROOT, false);
        let mut got = Vec::new();
        let mut sent = false;
        for _ in 0..10_000 {
            if !sent {
                let host = self.host(Side::Client);
                let step = host.with(|s, io| s.sendmsg(io, id, &mut call, &mut iter));
                if let Step::Ready(r) = step {
                    assert_eq!(r, Ok(bytes.len()));
                    sent = true;
                }
            }
            self.run_for(10 * DELAY_NS);
            got.extend(self.recv(Side::Server, server).unwrap_or_default());
            if got.len() >= bytes.len() {
                self.settle();
                assert_eq!(got, bytes);
                return;
            }
        }
        panic!("{} of {} bytes arrived", got.len(), bytes.len());
    }

    /// Everything that a non-blocking read finds.
    pub(crate) fn recv(&mut self, side: Side, id: SocketId) -> Result<Vec<u8>, Error> {
        self.recv_with(side, id, 0, 1 << 20).map(|(bytes, _)| bytes)
    }

    /// A non-blocking `recvmsg`.
    pub(crate) fn recv_with(
        &mut self,
        side: Side,
        id: SocketId,
        flags: i32,
        room: usize,
    ) -> Result<(Vec<u8>, RecvCall), Error> {
        let host = self.host(side);
        let mut iter = ProgramIter::sink(&host.memory, room);
        let mut call = RecvCall::new(flags, true);
        let n = if flags & so::MSG_ERRQUEUE != 0 {
            host.with(|s, io| s.recv_errqueue(io, id, &mut call, &mut iter))?
        } else {
            ready(host.with(|s, io| s.recvmsg(io, id, &mut call, &mut iter)))?
        };
        Ok((iter.received(n.min(room)), call))
    }

    /// `setsockopt` with an `int`, as root.
    pub(crate) fn set(&mut self, side: Side, id: SocketId, level: i32, name: i32, v: i32) {
        self.set_bytes(side, id, level, name, &v.to_ne_bytes());
    }

    /// `setsockopt` as root.
    pub(crate) fn set_bytes(&mut self, side: Side, id: SocketId, level: i32, name: i32, v: &[u8]) {
        self.host(side)
            .with(|s, io| s.setsockopt(io, id, level, name, v, ROOT))
            .expect("setsockopt");
    }

    /// `getsockopt` of so many bytes.
    pub(crate) fn get(
        &mut self,
        side: Side,
        id: SocketId,
        level: i32,
        name: i32,
        len: i32,
    ) -> Vec<u8> {
        let mut out = vec![0; 512];
        let n = self
            .host(side)
            .with(|s, io| s.getsockopt(io, id, level, name, len, &mut out))
            .expect("getsockopt");
        out.truncate(n);
        out
    }
}

/// The result of a call that must not sleep.
pub(crate) fn ready<T>(step: Step<Result<T, Error>>) -> Result<T, Error> {
    match step {
        Step::Ready(r) => r,
        Step::Wait { reason, .. } => panic!("sleeps for {reason:?}"),
    }
}

/// Bytes that tell where they stand.
pub(crate) fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}
