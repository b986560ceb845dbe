//! The thread that stands in when no thread of the program drives.
//!
//! It is in one of three moods. *Parked*: it sleeps until the engine's next deadline or a kick, because nothing is open or
//! because a leader is there and has been asleep for a while; the leader kicks it when it leaves. *Ticking*: the program has
//! driven since the last tick, so it takes what lies there, looks again a little later, and leaves the packet socket to the
//! program meanwhile: an ack is late by a tick at most, and a peer's loss probe comes after no less than two of its own
//! kernel's ticks (RFC 8985 §7.2; eight milliseconds where that has 250 of them a second). *Armed*:
//! nobody has driven for a whole tick: it polls the packet socket itself, at no cost until a frame comes. A leader that
//! finds it armed takes the role and kicks it once. So a ping-pong never wakes it, and a program that computes still acks.
//! A program that makes one send after another drives by them: found armed, it leaves the frames to the sends again. One that
//! accepts what waits is left the time for it: an accept takes longer here than in Linux, and its queue would overflow.
//! In every mood it watches the engine's deadlines.

use core::sync::atomic::Ordering;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use libc::pollfd;

use crate::company::Company;
use crate::driver;
use crate::inspection::Inspection;
use crate::lock::Mutex;
use crate::round::{round, timers};
use crate::stack::{Inner, NetStack, monotonic_ns};
use crate::{syscall, thread, turn, vfork};

/// Shortest tick, in nanoseconds.
const TICK_MIN: u64 = 1_000_000;
/// Longest tick, in nanoseconds: a program that keeps driving is looked at this rarely.
const TICK_MAX: u64 = 3_000_000;
/// How late a tick may be, in nanoseconds: it waits for an interrupt that comes anyhow (as a rule the kernel's own tick),
/// rather than make one of its own.
const TICK_SLACK: u64 = 2_000_000;
/// How late a deadline may be, in nanoseconds.
const DEADLINE_SLACK: u64 = 1_000;
/// So many sends, none later than a tick after the one before, are a run by which the program drives.
const RUN_OF_SENDS: u64 = 4;
/// How long a program that accepts may do something else, or wait for a CPU, before its frames are taken for it, in
/// nanoseconds.
const ACCEPTS_PAUSE: u64 = 20_000_000;
/// Stack of the thread, in bytes.
const STACK_SIZE: usize = 256 * 1024;

/// What the pump also waits for, which is none of the link's business, and how.
struct Outside {
    company: Company,
    inspection: Option<Inspection>,
    /// The thread's timer slack, in nanoseconds; 0 when nobody has set it.
    slack: u64,
}

impl Outside {
    fn open() -> Outside {
        Outside {
            company: Company::new(),
            inspection: Inspection::open(),
            slack: 0,
        }
    }

    fn slack(&mut self, ns: u64) {
        if self.slack != ns {
            self.slack = ns;
            syscall::timer_slack(ns);
        }
    }
}

/// The program's sends, as the pump sees them go on. Frames do not show them while the pump takes all that come.
#[derive(Default)]
struct Sends {
    seen: u64,
    /// When they last went on, by the monotonic clock in nanoseconds.
    at: u64,
    in_run: u64,
}

impl Sends {
    /// True when they have gone on since the last look, in a run.
    fn go_on(&mut self, now: u64, sends: u64) -> bool {
        let new = sends - self.seen;
        if new == 0 {
            return false;
        }
        self.in_run = if now - self.at <= TICK_MAX {
            self.in_run + new
        } else {
            0
        };
        (self.seen, self.at) = (sends, now);
        self.in_run >= RUN_OF_SENDS
    }
}

/// The program's accepts, as the pump sees them go on.
#[derive(Default)]
struct Accepts {
    seen: u64,
    /// When they last went on, by the monotonic clock in nanoseconds.
    at: u64,
}

impl Accepts {
    /// True when they have gone on of late.
    fn go_on(&mut self, now: u64, accepts: u64) -> bool {
        if core::mem::replace(&mut self.seen, accepts) != accepts {
            self.at = now;
        }
        self.seen > 0 && now - self.at <= ACCEPTS_PAUSE
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Parked,
    Ticking,
    Armed,
}

/// Whose the frames are that come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    /// The program's; but without a leader none lies there from one tick to the next.
    Programs,
    /// The same; but the program accepts what overfills its queue: all frames are left to it.
    Accepting,
    /// The pump's, which waits for none.
    Taken,
    /// The pump's.
    Awaited,
}

/// Has a stack opened by the thread that is then its pump: to open one takes more stack than a thread of the program's may
/// have left.
pub(crate) fn start<E: Send + 'static>(
    open: impl FnOnce() -> Result<&'static NetStack, E> + Send + 'static,
) -> Result<&'static NetStack, E> {
    let open = Arc::new(Mutex::new(Some(open)));
    let (opened, result) = sync_channel(1);
    let theirs = open.clone();
    let spawned = thread::spawn("sidewire-pump", STACK_SIZE, move || {
        let Some(open) = theirs.lock().take() else {
            return;
        };
        let stack = open();
        let found = stack.as_ref().ok().copied();
        // While the program's thread still waits: it may count on the number of its next descriptor.
        let outside = Outside::open();
        if opened.send(stack).is_ok()
            && let Some(stack) = found
        {
            run(stack, outside);
        }
    });
    if spawned.is_ok()
        && let Ok(stack) = result.recv()
    {
        return stack;
    }
    let open = open.lock().take();
    let Some(open) = open else {
        unreachable!("nobody else has opened it");
    };
    let stack = open()?;
    // RLIMIT_NPROC: whoever calls drives; a program that computes for long acks late.
    stack.driver.no_pump.store(true, Ordering::Relaxed);
    Ok(stack)
}

fn run(stack: &'static NetStack, mut outside: Outside) {
    let d = &stack.driver;
    let mut seen = (u64::MAX, u64::MAX);
    let mut sends = Sends::default();
    let mut accepts = Accepts::default();
    let mut tick = TICK_MIN;
    loop {
        if d.left_to_pump.swap(false, Ordering::SeqCst) {
            stack.with(|inner| inner.net.lade_all());
        }
        if d.turn_wanted.load(Ordering::SeqCst) {
            turn::start(stack);
        }
        vfork::serve();
        let now = monotonic_ns();
        let activity = (
            d.rounds.load(Ordering::Relaxed),
            d.sleeps.load(Ordering::Relaxed),
        );
        let accepting = accepts.go_on(now, d.accepts.load(Ordering::Relaxed))
            && stack.with(|inner| inner.engine.accept_queue_crowded());
        let mood = if d.has_leader() {
            if activity.1 == seen.1 {
                Mood::Parked
            } else {
                Mood::Ticking
            }
        } else if sends.go_on(now, d.sends.load(Ordering::Relaxed)) || accepting || activity != seen
        {
            Mood::Ticking
        } else if stack.with(|inner| inner.files == 0 && inner.engine.tuples().next().is_none()) {
            Mood::Parked
        } else {
            Mood::Armed
        };
        // The program is in a run of sends, or has just left it to do something else.
        let run = d.autocorked.load(Ordering::Relaxed);
        tick = if mood == Mood::Ticking && activity != seen && !run {
            (tick * 2).min(TICK_MAX)
        } else {
            TICK_MIN
        };
        seen = activity;
        match mood {
            Mood::Ticking => {
                let frames = if accepting {
                    Frames::Accepting
                } else {
                    Frames::Programs
                };
                watch(stack, &mut outside, now + tick, frames);
            }
            Mood::Parked => {
                d.pump_parked.store(true, Ordering::SeqCst);
                // A leader that left just before saw no flag: then we may not park.
                let frames = if d.has_leader() {
                    Frames::Programs
                } else {
                    Frames::Taken
                };
                watch(stack, &mut outside, u64::MAX, frames);
                d.pump_parked.store(false, Ordering::SeqCst);
            }
            Mood::Armed => {
                if d.pump_takes() {
                    watch(stack, &mut outside, u64::MAX, Frames::Awaited);
                    d.pump_leaves();
                }
            }
        }
    }
}

/// Does what time has made due, then sleeps until the engine's next deadline, `at` or a kick. `at` may pass by as much as
/// [`TICK_SLACK`] while no deadline comes in between.
fn watch(stack: &'static NetStack, outside: &mut Outside, at: u64, frames: Frames) {
    let late = at.saturating_add(TICK_SLACK);
    let next = stack.with(|inner| {
        let ours = matches!(frames, Frames::Taken | Frames::Awaited);
        // A leader has been told of what lies there.
        let due = || inner.next_deadline() <= monotonic_ns();
        let more = if frames == Frames::Accepting {
            timers(inner);
            false
        } else {
            (!stack.driver.has_leader() || due()) && round(stack, inner)
        };
        if ours && more {
            return None;
        }
        // An undertaker has what a retired stack had.
        let next = if stack.retired() {
            u64::MAX
        } else {
            inner.next_deadline()
        };
        stack
            .driver
            .pump_until
            .store(late.min(next).max(1), Ordering::Relaxed);
        Some(next)
    });
    let Some(next) = next else {
        return;
    };
    outside.slack(if late < next {
        TICK_SLACK
    } else {
        DEADLINE_SLACK
    });
    sleep(stack, outside, at.min(next), frames == Frames::Awaited);
}

/// Sleeps until `at` or a kick; with `armed` also until a frame, netlink or send space.
fn sleep(stack: &'static NetStack, outside: &mut Outside, at: u64, armed: bool) {
    let d = &stack.driver;
    let mut fds = [
        want(d.pump_wake.as_raw_fd()),
        want(-1),
        want(-1),
        outside.company.poll_entry(),
        want(outside.inspection.as_ref().map_or(-1, Inspection::fd)),
        want(-1),
    ];
    fds[5].events = 0;
    if armed {
        stack.bring_deferred();
        [fds[1].fd, fds[2].fd, fds[5].fd] = d.frame_fds();
        if d.want_tx.load(Ordering::Relaxed) {
            fds[5].events = libc::POLLOUT;
        }
    }
    let timeout = match at.min(outside.company.look_at()) {
        u64::MAX => u64::MAX,
        at => at.saturating_sub(monotonic_ns()),
    };
    let polled = syscall::ppoll(&mut fds, timeout, None);
    d.pump_until.store(0, Ordering::Relaxed);
    if polled.is_err() {
        return;
    }
    if fds[3].revents != 0 || outside.company.look_at() <= monotonic_ns() {
        outside.company.look();
    }
    if fds[4].revents != 0
        && let Some(inspection) = &outside.inspection
        && !inspection.answer()
    {
        outside.inspection = None;
    }
    if fds[0].revents != 0 {
        syscall::eventfd_drain(d.pump_wake.as_raw_fd());
    }
    if fds[2].revents != 0 {
        driver::netlink(stack);
    }
    if fds[5].revents & libc::POLLOUT != 0 {
        driver::tx_space(stack);
    }
    if (fds[1].revents | fds[5].revents) & libc::POLLERR != 0 {
        stack.with(Inner::tell_tstamps);
    }
}

fn want(fd: i32) -> pollfd {
    pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}
