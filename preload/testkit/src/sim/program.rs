//! A program with one connection: it sends, it receives, it closes.

use std::net::SocketAddr;

use sidewire_engine::calls::{CloseCall, ConnectCall, RecvCall};
use sidewire_engine::error::Error;
use sidewire_engine::event::Events;
use sidewire_engine::sendmsg::SendCall;
use sidewire_engine::stack::{Caps, Step, WaitReason};
use sidewire_engine::{Instant, SocketId};
use sidewire_uapi::poll::{POLLERR, POLLHUP, POLLIN, POLLOUT};
use sidewire_uapi::socket::{MSG_MORE, SHUT_WR, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET};

use crate::host::Host;
use crate::memory::ProgramIter;
use crate::rng::{Rng, stream_byte};

/// What a program does.
#[derive(Clone, Debug)]
pub struct ProgramConfig {
    /// Bytes that it sends in all.
    pub sends: u64,
    /// Largest single write, bytes.
    pub write_max: u64,
    /// Largest single read, bytes.
    pub read_max: u64,
    /// Pause after each read, nanoseconds; 0 for none.
    pub read_pause_ns: u64,
    /// `SO_SNDBUF`, if it sets it.
    pub sndbuf: Option<i32>,
    /// `SO_RCVBUF`, if it sets it.
    pub rcvbuf: Option<i32>,
    /// Chance in a million, at each step, that its socket is frozen to bytes and thawed.
    pub freeze: u32,
}

impl Default for ProgramConfig {
    fn default() -> Self {
        Self {
            sends: 0,
            write_max: 20_000,
            read_max: 70_000,
            read_pause_ns: 0,
            sndbuf: None,
            rcvbuf: None,
            freeze: 0,
        }
    }
}

/// Seeds of the bytes in both directions, seen from one end.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// What this end sends.
    pub sends: u64,
    /// What it receives.
    pub receives: u64,
}

impl Streams {
    /// Seen from the other end.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            sends: self.receives,
            receives: self.sends,
        }
    }
}

impl ProgramConfig {
    /// Sets the buffer sizes of a socket.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn set_buffers(&self, host: &mut Host, id: SocketId) {
        for (name, value) in [(SO_SNDBUF, self.sndbuf), (SO_RCVBUF, self.rcvbuf)] {
            if let Some(value) = value {
                let value = value.to_ne_bytes();
                host.with(|stack, io| {
                    stack.setsockopt(io, id, SOL_SOCKET, name, &value, Caps::default())
                })
                .expect("setsockopt");
            }
        }
    }
}

enum Stage {
    Connecting(SocketId, SocketAddr, ConnectCall),
    Open(SocketId),
    Over,
}

/// The program.
pub struct Program {
    config: ProgramConfig,
    stage: Stage,
    rng: Rng,
    streams: Streams,
    sent: u64,
    received: u64,
    shut: bool,
    eof: bool,
    /// An event told to look, since the last call that would have slept.
    readable: bool,
    writable: bool,
    /// Not before then, when it reads with pauses.
    next_read: Instant,
}

impl Program {
    fn new(config: &ProgramConfig, stage: Stage, streams: Streams, seed: u64) -> Self {
        Self {
            config: config.clone(),
            stage,
            rng: Rng::new(seed),
            streams,
            sent: 0,
            received: 0,
            shut: false,
            eof: false,
            readable: true,
            writable: true,
            next_read: Instant::ZERO,
        }
    }

    /// A program with a connection that was accepted.
    #[must_use]
    pub fn accepted(config: &ProgramConfig, id: SocketId, streams: Streams, seed: u64) -> Self {
        Self::new(config, Stage::Open(id), streams, seed)
    }

    /// A program that connects; `addrs` are local and remote.
    pub fn connect(
        host: &mut Host,
        config: &ProgramConfig,
        addrs: (SocketAddr, SocketAddr),
        streams: Streams,
        seed: u64,
    ) -> Self {
        let id = host.stack.socket(false, 0);
        config.set_buffers(host, id);
        host.stack.autobound(id, addrs.0);
        let stage = Stage::Connecting(id, addrs.1, ConnectCall::default());
        Self::new(config, stage, streams, seed)
    }

    /// An event of socket `id`, which may be this program's.
    pub fn wake(&mut self, id: SocketId, events: Events) {
        let mine = match self.stage {
            Stage::Connecting(mine, ..) | Stage::Open(mine) => mine,
            Stage::Over => return,
        };
        if mine == id {
            let end = Events::ERR | Events::HUP;
            self.readable |= events.intersects(Events::IN | Events::RDHUP | end);
            self.writable |= events.intersects(Events::OUT | end);
        }
    }

    /// Has everything been read that the peer sends?
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.eof
    }

    /// Has it closed its connection?
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// When it goes on by itself.
    #[must_use]
    pub fn wakes_at(&self) -> Instant {
        let pausing = self.readable && self.next_read > Instant::ZERO;
        if pausing && !self.eof && !self.is_over() {
            self.next_read
        } else {
            Instant::NEVER
        }
    }

    /// Checks that what it waits for has not come without an event.
    ///
    /// # Panics
    /// When a wake-up was lost.
    pub fn check_asleep(&self, host: &Host) {
        let Stage::Open(id) = self.stage else { return };
        let mask = host.stack.poll_level(id);
        let due = mask & (POLLIN | POLLERR | POLLHUP) != 0 && !self.eof;
        assert!(
            self.readable || !due,
            "readable ({mask:#x}), and no event: {}",
            self.describe(host)
        );
        let waits = self.sent < self.config.sends && !self.writable;
        assert!(
            !waits || mask & POLLOUT == 0,
            "writable, and no event: {}",
            self.describe(host)
        );
    }

    /// Where it stands, for messages.
    #[must_use]
    pub fn describe(&self, host: &Host) -> String {
        let (stage, id) = match self.stage {
            Stage::Connecting(id, ..) => ("connecting", id),
            Stage::Open(id) => ("open", id),
            Stage::Over => return "a program that has ended".into(),
        };
        let state = host.stack.state(id);
        let queued = host
            .stack
            .sock(id)
            .map_or(0, |sk| sk.write_seq.wrapping_sub(sk.snd_una));
        let (sent, of, received) = (self.sent, self.config.sends, self.received);
        format!(
            "{stage} in {state:?}: sent {sent} of {of}, {queued} not acked, received {received}"
        )
    }

    /// Does what can be done without waiting.
    ///
    /// # Panics
    /// When a call fails, or bytes are not what the peer sent.
    pub fn go(&mut self, host: &mut Host) {
        if let Stage::Connecting(id, remote, call) = &mut self.stage
            && std::mem::take(&mut self.writable)
        {
            let (id, remote) = (*id, *remote);
            match host.with(|stack, io| stack.connect(io, id, remote, false, call)) {
                Step::Ready(result) => {
                    result.expect("connect");
                    self.stage = Stage::Open(id);
                    (self.readable, self.writable) = (true, true);
                }
                Step::Wait { .. } => return,
            }
        }
        if let Stage::Open(id) = &mut self.stage
            && self.rng.chance(self.config.freeze)
        {
            let frozen = *id;
            *id = host.with(|stack, io| {
                let bytes = stack.freeze(io, frozen).expect("freeze");
                stack.thaw(io, &bytes).expect("thaw")
            });
            (self.readable, self.writable) = (true, true);
        }
        if let Stage::Open(id) = self.stage {
            self.write(host, id);
            self.read(host, id);
            if self.shut && self.eof {
                close(host, id);
                self.stage = Stage::Over;
            }
        }
    }

    fn write(&mut self, host: &mut Host, id: SocketId) {
        while self.writable && self.sent < self.config.sends {
            let left = self.config.sends - self.sent;
            let len = (1 + self.rng.below(self.config.write_max)).min(left);
            let bytes: Vec<u8> = (self.sent..self.sent + len)
                .map(|at| stream_byte(self.streams.sends, at))
                .collect();
            let mut iter = ProgramIter::source(&host.memory, &bytes);
            let flags = if self.rng.chance(200_000) && left > len {
                MSG_MORE
            } else {
                0
            };
            let mut call = SendCall::new(flags, &[], None, Caps::default(), true);
            let mut step = || host.with(|stack, io| stack.sendmsg(io, id, &mut call, &mut iter));
            let outcome = loop {
                match step() {
                    Step::Wait {
                        reason: WaitReason::Backlog,
                        ..
                    } => {}
                    outcome => break outcome,
                }
            };
            match outcome {
                Step::Ready(Ok(n)) => self.sent += n as u64,
                Step::Ready(Err(Error::Again)) => self.writable = false,
                other => panic!("send: {other:?}"),
            }
        }
        if !self.shut && self.sent == self.config.sends {
            self.shut = true;
            host.with(|stack, io| stack.shutdown(io, id, SHUT_WR))
                .expect("shutdown");
        }
    }

    fn read(&mut self, host: &mut Host, id: SocketId) {
        while self.readable && !self.eof && self.next_read <= host.clock.now() {
            let len = 1 + self.rng.below(self.config.read_max) as usize;
            let mut iter = ProgramIter::sink(&host.memory, len);
            let mut call = RecvCall::new(0, true);
            match host.with(|stack, io| stack.recvmsg(io, id, &mut call, &mut iter)) {
                Step::Ready(Ok(0)) => self.eof = true,
                Step::Ready(Ok(n)) => {
                    for byte in iter.received(n) {
                        let at = self.received;
                        let expected = stream_byte(self.streams.receives, at);
                        assert_eq!(byte, expected, "byte {at} of what was received");
                        self.received += 1;
                    }
                    if self.config.read_pause_ns > 0 {
                        self.next_read = host.clock.now() + self.config.read_pause_ns;
                    }
                }
                Step::Ready(Err(Error::Again)) => {
                    self.readable = false;
                    self.next_read = Instant::ZERO;
                }
                other => panic!("recv: {other:?}"),
            }
        }
    }
}

/// Closes a socket that does not linger.
///
/// # Panics
/// When that would wait.
pub(super) fn close(host: &mut Host, id: SocketId) {
    let mut call = CloseCall::default();
    let step = host.with(|stack, io| stack.close(io, id, false, &mut call));
    assert!(
        matches!(step, Step::Ready(())),
        "close without SO_LINGER does not wait"
    );
}
