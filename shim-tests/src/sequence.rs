//! Random sequences of socket calls, which have to give the same natively and under the shim, call by call.
//!
//! `probes/sequence.c` makes the calls of a sequence and shows what came of each: connections in all their states.
//! `probes/random_calls.c` chooses its calls itself: what is sent, received and asked on a few connections.
//! `probes/sequence_peer.c` is the peer of both. A seed names a sequence for good.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use crate::compare::{compare, on_the_engine};
use crate::lab::{FAR, Lab, NEAR};
use crate::library::{Stack, Stats};
use crate::probe::probe;
use crate::process::{Finished, Running};
use crate::suite::TestResult;

/// Calls of one sequence.
const CALLS: usize = 60;

/// Where the peer listens.
const PORT: u16 = 7070;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// One of them, as often as its weight says.
    fn weighted<T: Copy>(&mut self, values: &[(usize, T)]) -> T {
        let mut at = self.below(values.iter().map(|(weight, _)| weight).sum());
        for &(weight, value) in values {
            if at < weight {
                return value;
            }
            at -= weight;
        }
        unreachable!("{at} is below the sum of the weights")
    }
}

/// What a line of a sequence does.
#[derive(Clone, Copy)]
enum Call {
    Socket,
    Connect,
    Bind,
    Listen,
    Accept,
    Send,
    Recv,
    Shutdown,
    Close,
    Abort,
    Error,
    PeerName,
    NonBlock,
    AtMark,
    Option,
    FromFar,
    FarSend,
    FarRecv,
    FarShutdown,
    FarClose,
    FarReset,
}

const WEIGHTS: [(usize, Call); 21] = [
    (6, Call::Socket),
    (14, Call::Connect),
    (7, Call::Bind),
    (7, Call::Listen),
    (8, Call::Accept),
    (12, Call::Send),
    (14, Call::Recv),
    (5, Call::Shutdown),
    (3, Call::Close),
    (2, Call::Abort),
    (4, Call::Error),
    (2, Call::PeerName),
    (2, Call::NonBlock),
    (1, Call::AtMark),
    (3, Call::Option),
    (8, Call::FromFar),
    (10, Call::FarSend),
    (4, Call::FarRecv),
    (3, Call::FarShutdown),
    (2, Call::FarClose),
    (2, Call::FarReset),
];

/// Flags of a send: none, MSG_OOB, MSG_DONTROUTE, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_EOR, MSG_CONFIRM and two together.
const SEND_FLAGS: [i32; 9] = [
    0,
    0,
    libc::MSG_OOB,
    libc::MSG_DONTROUTE,
    libc::MSG_DONTWAIT,
    libc::MSG_NOSIGNAL,
    libc::MSG_EOR,
    libc::MSG_CONFIRM,
    libc::MSG_OOB | libc::MSG_NOSIGNAL,
];

const RECV_FLAGS: [i32; 11] = [
    0,
    0,
    libc::MSG_PEEK,
    libc::MSG_OOB,
    libc::MSG_TRUNC,
    libc::MSG_WAITALL,
    libc::MSG_DONTWAIT,
    libc::MSG_PEEK | libc::MSG_TRUNC,
    libc::MSG_PEEK | libc::MSG_OOB,
    libc::MSG_ERRQUEUE,
    libc::MSG_WAITALL | libc::MSG_DONTWAIT,
];

/// Options that act on later calls; those that only hold a value have probes of their own.
const OPTIONS: [(i32, i32, &[i32]); 7] = [
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, &[0, 1, 500, 100_000]),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF, &[-1, 0, 5]),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, &[0, 1]),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG, &[88, 500, 1000, 0]),
];

/// The lines of the sequence that `seed` names.
pub fn sequence(seed: u64) -> Vec<String> {
    let mut random = SplitMix(seed);
    let mut lines = vec!["socket 0".to_owned()];
    lines.extend((1..CALLS).map(|_| line(&mut random)));
    lines
}

fn line(r: &mut SplitMix) -> String {
    let call = r.weighted(&WEIGHTS);
    let which = r.below(60);
    match call {
        Call::Socket => format!("socket {}", r.below(2)),
        Call::Connect => {
            let how = r.weighted(&[
                (14, "peer"),
                (5, "unspec"),
                (3, "closed"),
                (1, "short"),
                (1, "port0"),
                (1, "family"),
            ]);
            format!("connect {which} {how}")
        }
        Call::Bind => format!(
            "bind {which} {} {}",
            r.of(&["any", "near"]),
            r.of(&[0, 0, 1, 2])
        ),
        Call::Listen => format!("listen {which} {}", r.of(&[5, 8, 100])),
        Call::Accept => format!(
            "accept {which} {}",
            r.of(&[0, 0, libc::SOCK_NONBLOCK, libc::SOCK_CLOEXEC, 1])
        ),
        Call::Send => {
            let bytes = r.of(&[0, 1, 1, 10, 100, 1448, 5000]);
            format!("send {which} {bytes} {}", r.of(&SEND_FLAGS))
        }
        Call::Recv => {
            let bytes = r.of(&[0, 1, 10, 3000, 60_000]);
            format!("recv {which} {bytes} {}", r.of(&RECV_FLAGS))
        }
        Call::Shutdown => format!("shutdown {which} {}", r.of(&[0, 1, 1, 2, 3])),
        Call::Close => format!("close {which}"),
        Call::Abort => format!("abort {which}"),
        Call::Error => format!("error {which}"),
        Call::PeerName => format!("peername {which}"),
        Call::NonBlock => format!("nonblock {which} {}", r.below(2)),
        Call::AtMark => format!("atmark {which}"),
        Call::Option => {
            let (level, name, values) = r.of(&OPTIONS);
            format!("option {which} {level} {name} {}", r.of(values))
        }
        Call::FromFar => format!("call {which}"),
        Call::FarSend => {
            let bytes = r.of(&[1, 10, 3000, 20_000]);
            format!(
                "far send {which} {bytes} {}",
                r.of(&[0, 0, 0, libc::MSG_OOB])
            )
        }
        Call::FarRecv => format!("far recv {which} {}", r.of(&[1, 100, 60_000])),
        Call::FarShutdown => format!("far shutdown {which} {}", r.of(&[0, 1, 1, 2])),
        Call::FarClose => format!("far close {which}"),
        Call::FarReset => format!("far reset {which}"),
    }
}

/// Two hosts, and the peer on the far one.
struct Bench {
    lab: Lab,
    _peer: Running,
}

impl Bench {
    fn new() -> Result<Self> {
        let lab = Lab::new(crate::Link::default())?;
        // A send of 300 kB comes to its end while the peer reads nothing.
        let rmem = "4096 4194304 6291456";
        lab.far.sysctl("net/ipv4/tcp_rmem", rmem)?;
        let control = lab.path("control");
        let peer = lab
            .far
            .program(probe("sequence_peer"))
            .args([&*control.to_string_lossy(), &PORT.to_string()])
            .start()?;
        peer.wait_for_output("ready")?;
        Ok(Bench { lab, _peer: peer })
    }

    fn run(&self, lines: &[String], stack: &Stack) -> Result<Finished> {
        let input = self.lab.path("sequence");
        fs::write(&input, lines.join("\n") + "\n").context("the sequence")?;
        let control = self.lab.path("control");
        self.lab
            .near
            .program(probe("sequence"))
            .args([&*control.to_string_lossy(), FAR, &PORT.to_string(), NEAR])
            .under(stack)
            .stats(&self.lab.path("stats.json"))
            .stdin(input)
            .run()
    }
}

/// Runs the sequences of `seeds` natively and then on `stack`, and wants the same of every call.
///
/// # Errors
/// The seed, the calls up to the first that differs, and what both gave; under the shim, that the engine carried nothing.
pub fn same_sequences(seeds: Range<u64>, stack: &Stack) -> TestResult {
    let mut carried = 0;
    for seed in seeds {
        // What one sequence leaves behind (a port in TIME_WAIT) does not reach the next.
        let lines = sequence(seed);
        let native = Bench::new()?.run(&lines, &Stack::Kernel)?.success();
        let native = native.with_context(|| format!("seed {seed}, natively"))?;
        ensure!(native.stdout.ends_with("done\n"), "seed {seed}: {native}");
        let bench = Bench::new()?;
        let other = bench.run(&lines, stack)?;
        compare_calls(&lines, &native, &other)
            .with_context(|| format!("seed {seed}, on {}", stack.name()))?;
        if stack.is_sidewire() {
            carried += Stats::read(&bench.lab.path("stats.json"))?.connections_engine;
        }
    }
    ensure!(
        !stack.is_sidewire() || carried > 0,
        "nothing was on the engine"
    );
    Ok(())
}

/// Runs `probes/random_calls.c` with each of the `seeds` natively and then on `stack`, and wants the same lines.
///
/// # Errors
/// The seed and the differing lines; under the shim, that the engine did not carry all connections.
pub fn same_random_calls(seeds: Range<u64>, stack: &Stack) -> TestResult {
    let bench = Bench::new()?;
    let stats = bench.lab.path("stats.json");
    for seed in seeds {
        let run = |stack: &Stack| {
            let control = bench.lab.path("control");
            let near = bench.lab.near.program(probe("random_calls"));
            near.args([
                &*control.to_string_lossy(),
                FAR,
                &PORT.to_string(),
                NEAR,
                &seed.to_string(),
            ])
            .under(stack)
            .stats(&stats)
            .run()
        };
        let native = run(&Stack::Kernel)?.success();
        let native = native.with_context(|| format!("seed {seed}, natively"))?;
        ensure!(native.stdout.ends_with("done\n"), "seed {seed}: {native}");
        let other = run(stack)?;
        compare(&native.stdout, &other)
            .with_context(|| format!("seed {seed}, on {}", stack.name()))?;
        let other = other.success()?;
        if stack.is_sidewire() {
            let stats = Stats::read(&stats)?;
            ensure!(
                on_the_engine(&stats),
                "seed {seed}: not on the engine: {stats:?}\n{other}"
            );
        }
    }
    Ok(())
}

fn compare_calls(lines: &[String], native: &Finished, other: &Finished) -> TestResult {
    let (mut kernel, mut shim) = (native.stdout.lines(), other.stdout.lines());
    for at in 0..=lines.len() {
        let (expected, got) = (kernel.next(), shim.next());
        if expected != got {
            bail!(
                "call {at} differs\n{}\n    kernel  {}\n    other   {}\n{}: {} {}",
                lines[..lines.len().min(at + 1)].join("\n"),
                expected.unwrap_or("(nothing)"),
                got.unwrap_or("(nothing)"),
                other.name,
                other.status,
                other.stderr
            );
        }
    }
    ensure!(other.status.success(), "{other}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_one_sequence() {
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
        assert_eq!(sequence(7).len(), CALLS);
    }

    #[test]
    fn every_call_comes_up() {
        let all: Vec<String> = (0..40).flat_map(sequence).collect();
        for word in [
            "connect",
            "accept",
            "bind",
            "abort",
            "far send",
            "far reset",
            "call",
        ] {
            assert!(all.iter().any(|line| line.starts_with(word)), "{word}");
        }
    }
}
