//! Runs a script: moves the clock, feeds segments, compares what leaves.

use std::collections::{BTreeMap, VecDeque};

use sidewire_engine::event::Events;
use sidewire_engine::time::{NSEC_PER_SEC, NSEC_PER_USEC};
use sidewire_engine::{Instant, SocketId};
use sidewire_uapi::socket::SOL_TCP;
use sidewire_uapi::tcp::{TCP_INFO, TCP_INFO_LEN};

use super::ast::{Action, Event, IcmpSpec, PacketSpec, Script, Time};
use super::calls::{File, Job, Pending};
use super::packet::{FIRST_REMOTE_PORT, Flow};
use super::settings::{PORT, Settings};
use super::timeline::{Failure, Timeline, seconds};
use super::{assertion, parse};
use crate::clock::START;
use crate::host::Host;
use crate::net::Packet;

/// How long after the last event a script's calls may still return: no script runs for ever.
const LONGEST_RUN_NS: u64 = 100_000 * NSEC_PER_SEC;
/// Timer runs at one point in time, beyond which the engine does not come to rest.
const MAX_TIMER_RUNS: usize = 10_000;

/// Runs the script `text`.
///
/// # Errors
/// The first line that the engine does not fulfil, or a line that is not understood.
pub fn run(text: &str) -> Result<(), Box<Failure>> {
    let at_line = |line: usize, message: String| {
        let text = text
            .lines()
            .nth(line - 1)
            .unwrap_or_default()
            .trim()
            .to_owned();
        Box::new(Failure {
            line,
            text,
            message,
            timeline: Timeline::default(),
        })
    };
    let script = parse::parse(text).map_err(|e| at_line(e.line, e.message))?;
    let settings = Settings::of(&script).map_err(|(line, message)| at_line(line, message))?;
    let mut runner = Runner::new(&settings);
    for event in &script.events {
        runner
            .run_event(event)
            .map_err(|message| runner.failure(event, message))?;
    }
    runner.finish(&script)
}

/// A run.
pub(super) struct Runner {
    pub(super) host: Host,
    pub(super) files: BTreeMap<i32, File>,
    pub(super) flows: Vec<Flow>,
    /// Index of the flow that `<` and `>` are about.
    pub(super) current: Option<usize>,
    pub(super) next_ephemeral: u16,
    tolerance_us: u64,
    /// Packets that left and that the script did not come to yet.
    sent: VecDeque<Packet>,
    pending: Vec<Pending>,
    /// Sockets whose sleeping writers were woken.
    woken_writers: Vec<SocketId>,
    previous: Instant,
    timeline: Timeline,
}

impl Runner {
    fn new(settings: &Settings) -> Self {
        Self {
            host: Host::new(&settings.host),
            files: BTreeMap::new(),
            flows: Vec::new(),
            current: None,
            next_ephemeral: 32_768,
            tolerance_us: settings.tolerance_us,
            sent: VecDeque::new(),
            pending: Vec::new(),
            woken_writers: Vec::new(),
            previous: START,
            timeline: Timeline::default(),
        }
    }

    fn failure(&self, event: &Event, message: String) -> Box<Failure> {
        Box::new(Failure {
            line: event.line,
            text: event.text.clone(),
            message,
            timeline: self.timeline.clone(),
        })
    }

    fn note(&mut self, what: impl Into<String>) {
        self.timeline.note(self.host.clock.elapsed(), what);
    }

    /// The span in which the event may happen.
    fn span(&self, time: Time) -> (Instant, Instant) {
        let after = |start: Instant, us: u64| start + us * NSEC_PER_USEC;
        match time {
            Time::Any => (self.previous, self.previous + LONGEST_RUN_NS),
            Time::Absolute(at) => (after(START, at), after(START, at)),
            Time::Relative(at) => (after(self.previous, at), after(self.previous, at)),
            Time::AbsoluteRange(from, to) => (after(START, from), after(START, to)),
            Time::RelativeRange(from, to) => (after(self.previous, from), after(self.previous, to)),
        }
    }

    fn run_event(&mut self, event: &Event) -> Result<(), String> {
        let (from, to) = self.span(event.time);
        if let Action::Expect(spec) = &event.action {
            let at = self.expect(spec, from, to)?;
            // What follows is relative to what really happened.
            self.previous = at;
            return Ok(());
        }
        self.advance_to(from)?;
        let begun = self.previous;
        self.previous = from;
        match &event.action {
            Action::Call(call) => {
                self.note(format!("call  {}", event.text));
                let until = event.until.map(|us| match event.time {
                    Time::Relative(_) => begun + us * NSEC_PER_USEC,
                    _ => START + us * NSEC_PER_USEC,
                });
                let job = Job::start(self, call)?;
                self.pending.push(Pending {
                    job,
                    line: event.line,
                    text: event.text.clone(),
                    result: call.result,
                    until,
                    began: from,
                    wake_at: Instant::NEVER,
                });
                self.run_jobs()?;
                self.collect();
                if until.is_none() && self.pending.iter().any(|p| p.line == event.line) {
                    return Err("the call blocks".into());
                }
                Ok(())
            }
            Action::Inject(spec) => self.inject(spec, &event.text),
            Action::InjectIcmp(spec) => self.inject_icmp(spec, &event.text),
            Action::Assert(assertions) => self.check(assertions),
            Action::Expect(_) => unreachable!("handled above"),
        }
    }

    /// Lets time pass, with everything that happens on the way.
    fn advance_to(&mut self, at: Instant) -> Result<(), String> {
        while self.step(at)? {}
        self.host.clock.advance_to(at);
        Ok(())
    }

    /// Goes to the next point in time, not after `limit`, at which something happens.
    fn step(&mut self, limit: Instant) -> Result<bool, String> {
        let sleepers = self
            .pending
            .iter()
            .map(|p| p.wake_at)
            .min()
            .unwrap_or(Instant::NEVER);
        let next = self.host.next_deadline().min(sleepers);
        if next > limit {
            return Ok(false);
        }
        self.host.clock.advance_to(next);
        let mut runs = 0;
        while self.host.next_deadline() <= self.host.clock.now() {
            self.host.on_timers();
            runs += 1;
            if runs > MAX_TIMER_RUNS {
                return Err("the engine's timers do not come to rest".into());
            }
        }
        self.run_jobs()?;
        self.collect();
        Ok(true)
    }

    /// Takes what the engine sent and said.
    fn collect(&mut self) {
        self.take_woken();
        self.host.stack.take_released(|_| {});
        while let Some(packet) = self.host.take_packet() {
            let shown = self.show(&packet);
            self.note(format!("sent  > {shown}"));
            self.sent.push_back(packet);
        }
    }

    fn show(&self, packet: &Packet) -> String {
        for flow in &self.flows {
            if let Ok(seen) = flow.clone().read(&packet.bytes) {
                return seen.to_string();
            }
        }
        match self.current.map(|n| self.flows[n]) {
            Some(mut flow) => flow.read(&packet.bytes).err().unwrap_or_default(),
            None => "a packet of no connection".into(),
        }
    }

    fn take_woken(&mut self) {
        let writers = &mut self.woken_writers;
        self.host.stack.take_events(|_, id, events| {
            if events.contains(Events::OUT) {
                writers.push(id);
            }
        });
    }

    /// Calls that sleep go on, when what they wait for has come. A writer does when it is woken, not before: what wakes it is
    /// part of what is tested.
    fn run_jobs(&mut self) -> Result<(), String> {
        let now = self.host.clock.now();
        self.take_woken();
        let woken = std::mem::take(&mut self.woken_writers);
        for mut pending in std::mem::take(&mut self.pending) {
            let sleeps = pending.began < now && pending.wake_at > now;
            if let Job::Send(fd, ..) = &pending.job
                && sleeps
                && self.files.get(fd).is_some_and(|f| !woken.contains(&f.id))
            {
                self.pending.push(pending);
                continue;
            }
            let Some(outcome) = pending.job.run(self, &mut pending.wake_at)? else {
                if pending.wake_at <= now {
                    return Err(format!("line {}: the call sleeps until now", pending.line));
                }
                self.pending.push(pending);
                continue;
            };
            let in_line =
                |message: String| format!("line {}: {}\n{message}", pending.line, pending.text);
            if pending.until.is_some() {
                let shown = pending.text.clone();
                self.note(format!("return {shown}"));
            }
            outcome.compare(pending.result).map_err(in_line)?;
            let expected = pending.until.unwrap_or(pending.began);
            if self.is_off(now, expected, expected) {
                let expected = seconds(expected - START);
                let actual = seconds(now - START);
                return Err(in_line(format!("it returns at {actual}, not {expected}")));
            }
        }
        Ok(())
    }

    fn is_off(&self, at: Instant, from: Instant, to: Instant) -> bool {
        let tolerance = self.tolerance_us * NSEC_PER_USEC;
        at + tolerance < from || at > to + tolerance
    }

    fn flow(&mut self) -> Result<&mut Flow, String> {
        let current = self.current.ok_or("no connection was begun")?;
        Ok(&mut self.flows[current])
    }

    fn inject(&mut self, spec: &PacketSpec, text: &str) -> Result<(), String> {
        if self.current.is_none() {
            self.flows.push(Flow::new(PORT, FIRST_REMOTE_PORT));
            self.current = Some(self.flows.len() - 1);
        }
        self.note(format!("recv  {text}"));
        let packet = self.flow()?.build(spec);
        self.receive(&packet)
    }

    fn inject_icmp(&mut self, spec: &IcmpSpec, text: &str) -> Result<(), String> {
        self.note(format!("recv  {text}"));
        let packet = self.flow()?.build_icmp(spec);
        self.receive(&packet)
    }

    fn receive(&mut self, packet: &[u8]) -> Result<(), String> {
        self.host.rx(packet);
        self.host.rx_batch_end();
        self.run_jobs()?;
        self.collect();
        Ok(())
    }

    /// Throws away what left and was not looked at, and says how many segments that were.
    pub(super) fn drain(&mut self) -> usize {
        std::mem::take(&mut self.sent).len()
    }

    /// Waits for the next segment, and returns when it left.
    fn expect(&mut self, spec: &PacketSpec, from: Instant, to: Instant) -> Result<Instant, String> {
        let tolerance_us = self.tolerance_us;
        let limit = to + tolerance_us * NSEC_PER_USEC;
        while self.sent.is_empty() && self.step(limit)? {}
        let Some(packet) = self.sent.pop_front() else {
            self.host.clock.advance_to(limit);
            return Err("nothing was sent".into());
        };
        let flow = self.flow()?;
        let seen = flow.read(&packet.bytes)?;
        if let Some(actual) = flow.matches(spec, &seen, tolerance_us) {
            return Err(format!("actual: > {actual}"));
        }
        if self.is_off(packet.at, from, to) {
            let actual = seconds(packet.at - START);
            let expected = if from == to {
                seconds(from - START)
            } else {
                format!("{} to {}", seconds(from - START), seconds(to - START))
            };
            return Err(format!("it was sent at {actual}, not {expected}"));
        }
        Ok(packet.at)
    }

    fn check(&mut self, assertions: &[(String, assertion::Expr)]) -> Result<(), String> {
        let file = self.files.values().rev().find(|file| !file.listening);
        let id = file.ok_or("no connected socket to look at")?.id;
        let mut info = [0; TCP_INFO_LEN];
        let len = TCP_INFO_LEN as i32;
        let got = self
            .host
            .with(|stack, io| stack.getsockopt(io, id, SOL_TCP, TCP_INFO, len, &mut info))
            .map_err(|e| format!("TCP_INFO: {}", e.errno()))?;
        if got != TCP_INFO_LEN {
            return Err(format!("TCP_INFO has {got} bytes"));
        }
        for (text, expr) in assertions {
            if expr.eval(&info)? == 0 {
                let fields = expr.fields(&info).join(", ");
                return Err(format!("assertion `{text}` does not hold: {fields}"));
            }
        }
        Ok(())
    }

    /// The end: no call sleeps, nothing was sent that nobody expected, and no memory stays behind.
    fn finish(mut self, script: &Script) -> Result<(), Box<Failure>> {
        let Some(last) = script.events.last() else {
            return Ok(());
        };
        let tolerance = self.tolerance_us * NSEC_PER_USEC;
        let ends = self.pending.iter().filter_map(|p| p.until).max();
        if let Some(end) = ends {
            self.advance_to(end + tolerance)
                .map_err(|message| self.failure(last, message))?;
        }
        if let Some(pending) = self.pending.first() {
            return Err(Box::new(Failure {
                line: pending.line,
                text: pending.text.clone(),
                message: "the call does not return".into(),
                timeline: self.timeline.clone(),
            }));
        }
        if let Some(packet) = self.sent.pop_front() {
            let message = format!("nobody expected > {}", self.show(&packet));
            return Err(self.failure(last, message));
        }
        let leaked = self.host.leaked_regions();
        if leaked > 0 {
            return Err(Box::new(Failure {
                line: last.line,
                text: last.text.clone(),
                message: format!("{leaked} regions of memory are never given back"),
                timeline: self.timeline,
            }));
        }
        Ok(())
    }
}
