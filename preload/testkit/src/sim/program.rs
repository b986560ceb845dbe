//! A program with one connection: it sends, it receives, it closes.

use std::net::SocketAddr;

use sidewire_engine::calls::{AcceptCall, CloseCall, ConnectCall, RecvCall};
use sidewire_engine::error::Error;
use sidewire_engine::sendmsg::SendCall;
use sidewire_engine::stack::{Caps, Step};
use sidewire_engine::{Instant, SocketId};
use sidewire_uapi::poll::POLLOUT;
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

enum Stage {
    Connecting(SocketId, SocketAddr, ConnectCall),
    Accepting(SocketId),
    Open(SocketId),
    Over,
}

/// The program.
pub struct Program {
    config: ProgramConfig,
    stage: Stage,
    rng: Rng,
    sends_stream: u64,
    receives_stream: u64,
    sent: u64,
    received: u64,
    shut: bool,
    eof: bool,
    next_read: Instant,
}

impl Program {
    fn new(config: &ProgramConfig, stage: Stage, streams: (u64, u64), seed: u64) -> Self {
        Self {
            config: config.clone(),
            stage,
            rng: Rng::new(seed),
            sends_stream: streams.0,
            receives_stream: streams.1,
            sent: 0,
            received: 0,
            shut: false,
            eof: false,
            next_read: Instant::ZERO,
        }
    }

    /// A program that accepts one connection at `local`. `streams` are the seeds of what it sends
    /// and of what it should receive.
    pub fn listen(
        host: &mut Host,
        config: &ProgramConfig,
        local: SocketAddr,
        streams: (u64, u64),
        seed: u64,
    ) -> Self {
        let id = host.stack.socket(false, 0);
        set_buffers(host, id, config);
        host.stack.bound(id, local);
        host.with(|stack, io| stack.listen(io, id, 1))
            .expect("listen");
        Self::new(config, Stage::Accepting(id), streams, seed)
    }

    /// A program that connects; `addrs` are local and remote.
    pub fn connect(
        host: &mut Host,
        config: &ProgramConfig,
        addrs: (SocketAddr, SocketAddr),
        streams: (u64, u64),
        seed: u64,
    ) -> Self {
        let id = host.stack.socket(false, 0);
        set_buffers(host, id, config);
        host.stack.autobound(id, addrs.0);
        let stage = Stage::Connecting(id, addrs.1, ConnectCall::default());
        Self::new(config, stage, streams, seed)
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
        if self.next_read > Instant::ZERO && !self.eof && !self.is_over() {
            self.next_read
        } else {
            Instant::NEVER
        }
    }

    /// Where it stands, for messages.
    #[must_use]
    pub fn describe(&self, host: &Host) -> String {
        let (stage, id) = match self.stage {
            Stage::Connecting(id, ..) => ("connecting", id),
            Stage::Accepting(id) => ("accepting", id),
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
        if let Stage::Connecting(id, remote, call) = &mut self.stage {
            let (id, remote) = (*id, *remote);
            match host.with(|stack, io| stack.connect(io, id, remote, false, call)) {
                Step::Ready(result) => {
                    result.expect("connect");
                    self.stage = Stage::Open(id);
                }
                Step::Wait { .. } => return,
            }
        }
        if let Stage::Accepting(listener) = self.stage {
            let mut call = AcceptCall::default();
            match host.with(|stack, io| stack.accept(io, listener, true, &mut call)) {
                Step::Ready(Ok(child)) => {
                    close(host, listener);
                    self.stage = Stage::Open(child);
                }
                Step::Ready(Err(Error::Again)) => return,
                other => panic!("accept: {other:?}"),
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
        while self.sent < self.config.sends {
            let left = self.config.sends - self.sent;
            let len = (1 + self.rng.below(self.config.write_max)).min(left);
            let bytes: Vec<u8> = (self.sent..self.sent + len)
                .map(|at| stream_byte(self.sends_stream, at))
                .collect();
            let mut iter = ProgramIter::source(&host.memory, &bytes);
            let flags = if self.rng.chance(200_000) && left > len {
                MSG_MORE
            } else {
                0
            };
            let mut call = SendCall::new(flags, &[], None, Caps::default(), true);
            match host.with(|stack, io| stack.sendmsg(io, id, &mut call, &mut iter)) {
                Step::Ready(Ok(n)) => self.sent += n as u64,
                Step::Ready(Err(Error::Again)) => {
                    // As a program that polls: the edge must come.
                    if host.stack.poll(id) & POLLOUT == 0 {
                        host.stack.poll_wanting_out(id);
                    }
                    return;
                }
                other => panic!("send: {other:?}"),
            }
        }
        if !self.shut {
            self.shut = true;
            host.with(|stack, io| stack.shutdown(io, id, SHUT_WR))
                .expect("shutdown");
        }
    }

    fn read(&mut self, host: &mut Host, id: SocketId) {
        while !self.eof && self.next_read <= host.clock.now() {
            let len = 1 + self.rng.below(self.config.read_max) as usize;
            let mut iter = ProgramIter::sink(&host.memory, len);
            let mut call = RecvCall::new(0, true);
            match host.with(|stack, io| stack.recvmsg(io, id, &mut call, &mut iter)) {
                Step::Ready(Ok(0)) => self.eof = true,
                Step::Ready(Ok(n)) => {
                    for byte in iter.received(n) {
                        let at = self.received;
                        let expected = stream_byte(self.receives_stream, at);
                        assert_eq!(byte, expected, "byte {at} of what was received");
                        self.received += 1;
                    }
                    if self.config.read_pause_ns > 0 {
                        self.next_read = host.clock.now() + self.config.read_pause_ns;
                    }
                }
                Step::Ready(Err(Error::Again)) => {
                    self.next_read = Instant::ZERO;
                    return;
                }
                other => panic!("recv: {other:?}"),
            }
        }
    }
}

fn set_buffers(host: &mut Host, id: SocketId, config: &ProgramConfig) {
    for (name, value) in [(SO_SNDBUF, config.sndbuf), (SO_RCVBUF, config.rcvbuf)] {
        if let Some(value) = value {
            let value = value.to_ne_bytes();
            host.with(|stack, io| {
                stack.setsockopt(io, id, SOL_SOCKET, name, &value, Caps::default())
            })
            .expect("setsockopt");
        }
    }
}

fn close(host: &mut Host, id: SocketId) {
    let mut call = CloseCall::default();
    let step = host.with(|stack, io| stack.close(io, id, false, &mut call));
    assert!(
        matches!(step, Step::Ready(())),
        "close without SO_LINGER does not wait"
    );
}
