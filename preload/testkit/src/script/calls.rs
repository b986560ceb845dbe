//! The system calls of a script, on the engine's calls.

use std::net::{IpAddr, SocketAddr};

use sidewire_engine::calls::{AcceptCall, CloseCall, ConnectCall, RecvCall};
use sidewire_engine::error::Error;
use sidewire_engine::sendmsg::{NameArg, SendCall};
use sidewire_engine::stack::{Caps, Step, StepResult};
use sidewire_engine::time::NSEC_PER_MSEC;
use sidewire_engine::{Instant, SocketId};
use sidewire_uapi::Errno;
use sidewire_uapi::ioctl::FIONBIO;
use sidewire_uapi::poll::{POLLERR, POLLHUP, POLLNVAL};
use sidewire_uapi::socket::{
    AF_UNSPEC, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO,
    SOCK_NONBLOCK, SOL_SOCKET,
};

use super::ast::{Call, CallResult, Expr};
use super::packet::{Flow, pattern};
use super::runner::Runner;
use super::settings::{LOCAL_ADDR, PORT, REMOTE_ADDR};
use crate::memory::ProgramIter;

/// Lowest descriptor of a script, as after stdin, stdout and stderr.
const FIRST_FD: i32 = 3;
const O_NONBLOCK: i64 = 0o4000;
const F_GETFL: i64 = 3;
const F_SETFL: i64 = 4;
/// `sockaddr_in` of the peer, for calls that carry a destination.
const REMOTE_SOCKADDR: [u8; 16] = {
    let [a, b, c, d] = REMOTE_ADDR.octets();
    let [p, q] = PORT.to_be_bytes();
    [2, 0, p, q, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
};

/// A descriptor.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Its socket.
    pub(super) id: SocketId,
    /// Does it listen?
    pub(super) listening: bool,
    nonblock: bool,
    bound: bool,
    /// Place in the stream of the next byte to write; the first is 1.
    write_at: u32,
    /// Place in the peer's stream of the next byte to read.
    read_at: Option<u32>,
    /// Index of its connection.
    flow: Option<usize>,
}

impl File {
    fn new(id: SocketId, nonblock: bool) -> Self {
        Self {
            id,
            listening: false,
            nonblock,
            bound: false,
            write_at: 1,
            read_at: None,
            flow: None,
        }
    }
}

/// A call that has not returned.
pub(super) struct Pending {
    /// How far it is.
    pub(super) job: Job,
    /// Line in the script.
    pub(super) line: usize,
    /// Its text.
    pub(super) text: String,
    /// What it should return.
    pub(super) result: CallResult,
    /// When it should return, if it blocks.
    pub(super) until: Option<Instant>,
    /// When it was called.
    pub(super) began: Instant,
    /// When its own timeout ends.
    pub(super) wake_at: Instant,
}

/// What a call returned.
#[derive(Debug)]
pub(super) struct Outcome {
    result: CallResult,
    /// What it handed out that the script did not say.
    complaint: Option<String>,
}

impl Outcome {
    fn value(value: i64) -> Self {
        Self {
            result: CallResult::Value(value),
            complaint: None,
        }
    }

    fn of<T>(result: Result<T, Error>, value: impl FnOnce(T) -> i64) -> Self {
        match result {
            Ok(t) => Self::value(value(t)),
            Err(error) => Self::errno(error.errno()),
        }
    }

    fn errno(errno: Errno) -> Self {
        Self {
            result: CallResult::Error(errno),
            complaint: None,
        }
    }

    fn expecting<T: PartialEq + std::fmt::Debug>(
        mut self,
        what: &str,
        actual: T,
        expected: T,
    ) -> Self {
        if actual != expected {
            self.complaint = Some(format!("{what} is {actual:?}, not {expected:?}"));
        }
        self
    }

    /// Compares with what the script says.
    ///
    /// # Errors
    /// The difference.
    pub(super) fn compare(&self, expected: CallResult) -> Result<(), String> {
        if expected != CallResult::Any && expected != self.result {
            return Err(format!(
                "it returns {}, not {}",
                show(self.result),
                show(expected)
            ));
        }
        self.complaint.clone().map_or(Ok(()), Err)
    }
}

fn show(result: CallResult) -> String {
    match result {
        CallResult::Any => "?".into(),
        CallResult::Value(value) => value.to_string(),
        CallResult::Error(errno) => format!("-1 {errno}"),
    }
}

/// A call in progress.
pub(super) enum Job {
    /// It has returned.
    Done(Option<Outcome>),
    /// `send` and its kin.
    Send(i32, SendCall<'static>, ProgramIter),
    /// `recv` and its kin, with the `msg_flags` that should come.
    Recv(i32, RecvCall, ProgramIter, Option<i64>),
    /// `accept`, with the flags of the new descriptor.
    Accept(SocketId, bool, bool, AcceptCall),
    /// `connect`.
    Connect(SocketId, bool, SocketAddr, ConnectCall),
    /// `close`.
    Close(SocketId, bool, CloseCall),
    /// `poll`: what it waits for, and until when.
    Poll(Vec<PollEntry>, Instant),
}

/// One entry of `poll`.
pub(super) struct PollEntry {
    fd: i32,
    events: u32,
    revents: i64,
}

impl Job {
    /// Begins a call.
    ///
    /// # Errors
    /// Arguments that the runner does not understand.
    pub(super) fn start(runner: &mut Runner, call: &Call) -> Result<Self, String> {
        let args = Args(&call.args);
        if call.name == "socket" {
            let nonblock = args.int(1)? & i64::from(SOCK_NONBLOCK) != 0;
            let id = runner.host.stack.socket(false, 0);
            return Ok(Self::done(Outcome::value(
                runner.install(File::new(id, nonblock)).into(),
            )));
        }
        if call.name == "poll" {
            return poll(runner, &args);
        }
        if call.name == "remote_port" {
            runner.speak_from(args.int(0)? as u16);
            return Ok(Self::done(Outcome::value(0)));
        }
        if call.name == "drain" {
            return Ok(Self::done(Outcome::value(runner.drain() as i64)));
        }
        let fd = args.int(0)? as i32;
        let Some(file) = runner.files.get(&fd).cloned() else {
            return Ok(Self::done(Outcome::errno(Errno::EBADF)));
        };
        let id = file.id;
        Ok(match call.name.as_str() {
            "bind" => {
                runner
                    .host
                    .stack
                    .bound(id, SocketAddr::new(LOCAL_ADDR.into(), PORT));
                runner.file(fd).bound = true;
                Self::done(Outcome::value(0))
            }
            "listen" => {
                let backlog = args.int(1)? as i32;
                let result = runner.host.with(|stack, io| stack.listen(io, id, backlog));
                runner.file(fd).listening = result.is_ok();
                Self::done(Outcome::of(result, |()| 0))
            }
            "accept" | "accept4" => {
                let flags = if call.name == "accept4" {
                    args.int(3)?
                } else {
                    0
                };
                let child_nonblock = flags & i64::from(SOCK_NONBLOCK) != 0;
                Self::Accept(id, file.nonblock, child_nonblock, AcceptCall::default())
            }
            "connect" => connect(runner, fd, &file, &args),
            "shutdown" => {
                let how = args.int(1)? as i32;
                let result = runner.host.with(|stack, io| stack.shutdown(io, id, how));
                Self::done(Outcome::of(result, |()| 0))
            }
            "close" => {
                runner.files.remove(&fd);
                Self::Close(id, file.nonblock, CloseCall::default())
            }
            "write" => send(runner, fd, &file, args.int(2)?, 0, false),
            "send" => send(runner, fd, &file, args.int(2)?, args.int(3)?, false),
            "sendto" => {
                let named = args.0.get(4) == Some(&Expr::Ellipsis);
                send(runner, fd, &file, args.int(2)?, args.int(3)?, named)
            }
            "sendmsg" => {
                let len = iov_len(args.fields(1)?)?;
                send(runner, fd, &file, len, args.int(2)?, false)
            }
            "read" => recv(runner, fd, &file, args.int(2)?, 0, None)?,
            "recv" | "recvfrom" => recv(runner, fd, &file, args.int(2)?, args.int(3)?, None)?,
            "recvmsg" => {
                let fields = args.fields(1)?;
                let len = iov_len(fields)?;
                let msg_flags = fields.iter().find(|(name, _)| name == "msg_flags");
                let msg_flags = msg_flags.map(|(_, value)| int(value)).transpose()?;
                recv(runner, fd, &file, len, args.int(2)?, msg_flags)?
            }
            "setsockopt" => Self::done(setsockopt(runner, id, &args)?),
            "getsockopt" => Self::done(getsockopt(runner, id, &args)?),
            "ioctl" => Self::done(ioctl(runner, fd, id, &args)?),
            "fcntl" => Self::done(fcntl(runner, fd, &args)?),
            name => return Err(format!("unknown system call `{name}`")),
        })
    }

    fn done(outcome: Outcome) -> Self {
        Self::Done(Some(outcome))
    }

    /// Goes on with the call; `None` while it sleeps, until `wake_at` at most.
    ///
    /// # Errors
    /// Received bytes that the peer did not send.
    pub(super) fn run(
        &mut self,
        runner: &mut Runner,
        wake_at: &mut Instant,
    ) -> Result<Option<Outcome>, String> {
        let step = match self {
            Self::Done(outcome) => return Ok(outcome.take()),
            Self::Send(fd, call, iter) => {
                let fd = *fd;
                let id = runner.file(fd).id;
                let step = runner
                    .host
                    .with(|stack, io| stack.sendmsg(io, id, call, iter));
                if let Step::Ready(Ok(n)) = step
                    && let Some(file) = runner.files.get_mut(&fd)
                {
                    file.write_at = file.write_at.wrapping_add(n as u32);
                }
                returned(step, |n| n as i64)
            }
            Self::Recv(fd, call, iter, msg_flags) => {
                let id = runner.file(*fd).id;
                let step = runner
                    .host
                    .with(|stack, io| stack.recvmsg(io, id, call, iter));
                if let Step::Ready(Ok(n)) = step {
                    check_received(runner, *fd, call.flags, iter, n)?;
                }
                let msg_flags = msg_flags.filter(|_| matches!(step, Step::Ready(Ok(_))));
                returned(step, |n| n as i64).map(|outcome| match msg_flags {
                    Some(flags) => outcome.expecting("msg_flags", call.msg_flags.into(), flags),
                    None => outcome,
                })
            }
            Self::Accept(id, nonblock, child_nonblock, call) => {
                let (id, nonblock) = (*id, *nonblock);
                let step = runner
                    .host
                    .with(|stack, io| stack.accept(io, id, nonblock, call));
                returned(step, |child| runner.accepted(child, *child_nonblock).into())
            }
            Self::Connect(id, nonblock, remote, call) => {
                let (id, nonblock, to) = (*id, *nonblock, *remote);
                let step = runner
                    .host
                    .with(|stack, io| stack.connect(io, id, to, nonblock, call));
                returned(step, |()| 0)
            }
            Self::Close(id, nonblock, call) => {
                let (id, nonblock) = (*id, *nonblock);
                match runner
                    .host
                    .with(|stack, io| stack.close(io, id, nonblock, call))
                {
                    Step::Ready(()) => Ok(Outcome::value(0)),
                    Step::Wait { deadline, .. } => Err(deadline),
                }
            }
            Self::Poll(entries, deadline) => ready(runner, entries, *deadline),
        };
        Ok(match step {
            Ok(outcome) => Some(outcome),
            Err(deadline) => {
                *wake_at = deadline;
                None
            }
        })
    }
}

/// The outcome of a call that returned, or the deadline of one that sleeps.
fn returned<T>(step: StepResult<T>, value: impl FnOnce(T) -> i64) -> Result<Outcome, Instant> {
    match step {
        Step::Ready(result) => Ok(Outcome::of(result, value)),
        Step::Wait { deadline, .. } => Err(deadline),
    }
}

/// The arguments of a call.
struct Args<'a>(&'a [Expr]);

impl<'a> Args<'a> {
    fn get(&self, n: usize) -> Result<&'a Expr, String> {
        self.0
            .get(n)
            .ok_or_else(|| format!("argument {} is missing", n + 1))
    }

    fn int(&self, n: usize) -> Result<i64, String> {
        int(self.get(n)?)
    }

    fn fields(&self, n: usize) -> Result<&'a [(String, Expr)], String> {
        match self.get(n)? {
            Expr::Struct(fields) => Ok(fields),
            other => Err(format!("a structure expected, not {other:?}")),
        }
    }
}

/// A number, also in brackets as calls take it by pointer.
fn int(expr: &Expr) -> Result<i64, String> {
    match expr {
        Expr::Int(value) => Ok(*value),
        Expr::List(list) if list.len() == 1 => int(&list[0]),
        other => Err(format!("a number expected, not {other:?}")),
    }
}

fn field(fields: &[(String, Expr)], name: &str) -> Result<i64, String> {
    let found = fields.iter().find(|(n, _)| n == name);
    int(&found.ok_or_else(|| format!("`{name}` is missing"))?.1)
}

/// The bytes of `msg_iov=[{..., 100}, {..., 200}]`.
fn iov_len(fields: &[(String, Expr)]) -> Result<i64, String> {
    if let Some((name, _)) = fields.iter().find(|(name, _)| name == "msg_control") {
        return Err(format!("`{name}` is not supported"));
    }
    let iov = fields
        .iter()
        .find(|(name, _)| name == "msg_iov")
        .map(|(_, value)| value);
    let Some(Expr::List(entries)) = iov else {
        return Err("`msg_iov` is missing".into());
    };
    entries
        .iter()
        .map(|entry| match entry {
            Expr::Struct(fields) if fields.len() == 2 => int(&fields[1].1),
            other => Err(format!("`{{..., LENGTH}}` expected, not {other:?}")),
        })
        .sum()
}

impl Runner {
    fn install(&mut self, file: File) -> i32 {
        let free = (FIRST_FD..).find(|fd| !self.files.contains_key(fd));
        let fd = free.expect("fewer files than numbers");
        self.files.insert(fd, file);
        fd
    }

    fn file(&mut self, fd: i32) -> &mut File {
        self.files
            .get_mut(&fd)
            .expect("a call's descriptor is closed after it")
    }

    /// `<` and `>` are about the peer's port `port` from now on.
    fn speak_from(&mut self, port: u16) {
        let known = self
            .flows
            .iter()
            .position(|f| f.remote_port == port && f.local_port == PORT);
        self.current = Some(known.unwrap_or_else(|| {
            self.flows.push(Flow::new(PORT, port));
            self.flows.len() - 1
        }));
    }

    fn accepted(&mut self, child: SocketId, nonblock: bool) -> i32 {
        // A child that was reset has no peer any more.
        let remote = self.host.stack.peer(child).ok();
        let flow = match remote {
            Some(remote) => self
                .flows
                .iter()
                .position(|f| f.remote_port == remote.port()),
            None => self.current,
        };
        self.install(File {
            flow,
            ..File::new(child, nonblock)
        })
    }
}

fn connect(runner: &mut Runner, fd: i32, file: &File, args: &Args<'_>) -> Job {
    let id = file.id;
    if let Some(Expr::Struct(fields)) = args.0.get(1)
        && field(fields, "sa_family") == Ok(AF_UNSPEC.into())
    {
        runner.host.with(|stack, io| stack.disconnect(io, id));
        return Job::done(Outcome::value(0));
    }
    if runner.host.stack.connect_is_fresh(id) {
        let local_port = if file.bound {
            PORT
        } else {
            // Linux's connect prefers even ports (spec ER-42).
            runner.next_ephemeral += 2;
            let local = SocketAddr::new(LOCAL_ADDR.into(), runner.next_ephemeral);
            runner.host.stack.autobound(id, local);
            local.port()
        };
        runner.flows.push(Flow::new(local_port, PORT));
        runner.current = Some(runner.flows.len() - 1);
        let flow = runner.current;
        let file = runner.file(fd);
        *file = File {
            flow,
            write_at: 1,
            read_at: None,
            ..file.clone()
        };
    }
    let remote = SocketAddr::new(IpAddr::V4(REMOTE_ADDR), PORT);
    Job::Connect(id, file.nonblock, remote, ConnectCall::default())
}

fn send(runner: &Runner, fd: i32, file: &File, len: i64, flags: i64, named: bool) -> Job {
    let len = len.max(0) as u32;
    let bytes: Vec<u8> = (0..len)
        .map(|n| pattern(file.write_at.wrapping_add(n)))
        .collect();
    let iter = ProgramIter::source(&runner.host.memory, &bytes);
    let name = named.then_some(NameArg(&REMOTE_SOCKADDR));
    let call = SendCall::new(flags as i32, &[], name, Caps::default(), file.nonblock);
    Job::Send(fd, call, iter)
}

fn recv(
    runner: &Runner,
    fd: i32,
    file: &File,
    len: i64,
    flags: i64,
    msg_flags: Option<i64>,
) -> Result<Job, String> {
    let flags = flags as i32;
    if flags & MSG_ERRQUEUE != 0 {
        return Err("MSG_ERRQUEUE is not supported".into());
    }
    let iter = ProgramIter::sink(&runner.host.memory, len.max(0) as usize);
    Ok(Job::Recv(
        fd,
        RecvCall::new(flags, file.nonblock),
        iter,
        msg_flags,
    ))
}

/// Compares what was read with what the peer sent, and notes how far the reader is.
fn check_received(
    runner: &mut Runner,
    fd: i32,
    flags: i32,
    iter: &ProgramIter,
    n: usize,
) -> Result<(), String> {
    if flags & MSG_OOB != 0 {
        return Ok(());
    }
    let Some(flow) = runner
        .file(fd)
        .flow
        .and_then(|n| runner.flows.get(n).copied())
    else {
        return Ok(());
    };
    let first = flow.remote_isn().unwrap_or(0).wrapping_add(1);
    let file = runner.file(fd);
    let at = *file.read_at.get_or_insert(first);
    if flags & MSG_TRUNC == 0 {
        for (k, byte) in iter.received(n).iter().enumerate() {
            let place = at.wrapping_add(k as u32);
            if *byte != pattern(place) {
                return Err(format!(
                    "byte {place} that was read is not what the peer sent"
                ));
            }
        }
    }
    if flags & MSG_PEEK == 0 {
        file.read_at = Some(at.wrapping_add(n as u32));
    }
    Ok(())
}

fn setsockopt(runner: &mut Runner, id: SocketId, args: &Args<'_>) -> Result<Outcome, String> {
    let (level, name) = (args.int(1)? as i32, args.int(2)? as i32);
    let mut value = option_value(level, name, args.get(3)?)?;
    let len = args.int(4)?;
    value.resize(usize::try_from(len).map_err(|_| "a negative length")?, 0);
    let caps = Caps::default();
    let result = runner
        .host
        .with(|stack, io| stack.setsockopt(io, id, level, name, &value, caps));
    Ok(Outcome::of(result, |()| 0))
}

fn getsockopt(runner: &mut Runner, id: SocketId, args: &Args<'_>) -> Result<Outcome, String> {
    let (level, name) = (args.int(1)? as i32, args.int(2)? as i32);
    let len = args.int(4)? as i32;
    let mut out = vec![0; usize::try_from(len).unwrap_or(0)];
    let result = runner
        .host
        .with(|stack, io| stack.getsockopt(io, id, level, name, len, &mut out));
    let outcome = Outcome::of(result, |_| 0);
    let (Ok(got), Expr::List(_) | Expr::Struct(_) | Expr::Text(_)) = (result, args.get(3)?) else {
        return Ok(outcome);
    };
    out.truncate(got);
    let mut expected = option_value(level, name, args.get(3)?)?;
    expected.resize(got, 0);
    let as_int = |bytes: &[u8]| match bytes.try_into() {
        Ok(bytes) => i32::from_ne_bytes(bytes).to_string(),
        Err(_) => format!("{bytes:?}"),
    };
    Ok(outcome.expecting("the value", as_int(&out), as_int(&expected)))
}

/// An option's value as bytes: an int, a string, `struct linger` or `struct timeval`.
fn option_value(level: i32, name: i32, value: &Expr) -> Result<Vec<u8>, String> {
    let fields = match value {
        Expr::Text(text) => return Ok(text.clone().into_bytes()),
        Expr::Struct(fields) => fields,
        other => return Ok((int(other)? as i32).to_ne_bytes().to_vec()),
    };
    match (level, name) {
        (SOL_SOCKET, SO_LINGER) => {
            let (on, seconds) = (field(fields, "onoff")?, field(fields, "linger")?);
            Ok([(on as i32).to_ne_bytes(), (seconds as i32).to_ne_bytes()].concat())
        }
        (SOL_SOCKET, SO_RCVTIMEO | SO_SNDTIMEO) => {
            let (sec, usec) = (field(fields, "tv_sec")?, field(fields, "tv_usec")?);
            Ok([sec.to_ne_bytes(), usec.to_ne_bytes()].concat())
        }
        _ => Err("a structure for an option that has none".into()),
    }
}

fn ioctl(runner: &mut Runner, fd: i32, id: SocketId, args: &Args<'_>) -> Result<Outcome, String> {
    let (request, expected) = (args.int(1)?, args.int(2)?);
    if request as u64 == FIONBIO {
        runner.file(fd).nonblock = expected != 0;
        return Ok(Outcome::value(0));
    }
    let result = runner
        .host
        .with(|stack, io| stack.ioctl_int(io, id, request as u32));
    let outcome = Outcome::of(result, |_| 0);
    Ok(match result {
        Ok(value) => outcome.expecting("the value", i64::from(value), expected),
        Err(_) => outcome,
    })
}

fn fcntl(runner: &mut Runner, fd: i32, args: &Args<'_>) -> Result<Outcome, String> {
    const O_RDWR: i64 = 2;
    match args.int(1)? {
        F_GETFL => {
            let nonblock = runner.file(fd).nonblock;
            Ok(Outcome::value(
                O_RDWR | if nonblock { O_NONBLOCK } else { 0 },
            ))
        }
        F_SETFL => {
            runner.file(fd).nonblock = args.int(2)? & O_NONBLOCK != 0;
            Ok(Outcome::value(0))
        }
        other => Err(format!("unknown fcntl command {other}")),
    }
}

fn poll(runner: &Runner, args: &Args<'_>) -> Result<Job, String> {
    let Expr::List(list) = args.get(0)? else {
        return Err("a list of entries expected".into());
    };
    let mut entries = Vec::new();
    for entry in list {
        let Expr::Struct(fields) = entry else {
            return Err("`{fd=, events=}` expected".into());
        };
        entries.push(PollEntry {
            fd: field(fields, "fd")? as i32,
            events: field(fields, "events")? as u32,
            revents: field(fields, "revents").unwrap_or(0),
        });
    }
    let deadline = match args.int(2)? {
        timeout @ 0.. => runner.host.clock.now() + timeout as u64 * NSEC_PER_MSEC,
        _ => Instant::NEVER,
    };
    Ok(Job::Poll(entries, deadline))
}

fn ready(
    runner: &mut Runner,
    entries: &[PollEntry],
    deadline: Instant,
) -> Result<Outcome, Instant> {
    let revents: Vec<i64> = entries
        .iter()
        .map(|entry| match runner.files.get(&entry.fd) {
            Some(file) => {
                runner.host.stack.poll(file.id) & (entry.events | POLLERR | POLLHUP | POLLNVAL)
            }
            None => POLLNVAL,
        })
        .map(i64::from)
        .collect();
    let count = revents.iter().filter(|r| **r != 0).count();
    if count == 0 && runner.host.clock.now() < deadline {
        return Err(deadline);
    }
    let expected: Vec<i64> = entries.iter().map(|entry| entry.revents).collect();
    Ok(Outcome::value(count as i64).expecting("revents", revents, expected))
}
