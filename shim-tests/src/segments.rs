//! Random segments from a peer that is made of frames, between random calls of the program's: each has to show the same natively
//! and under the shim, on the wire, in what calls give and in tcp_info.
//!
//! `probes/random_segments.c` chooses and sends them; `probes/hands_wire.c` gives it the far host's wire. A seed names a run.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use crate::compare::compare;
use crate::lab::{DEVICE, Lab, NEAR, SUBNET};
use crate::library::{Stack, Stats};
use crate::probe::probe;
use crate::process::{Finished, Running};
use crate::suite::TestResult;

/// What the segments meet.
pub const KINDS: [&str; 6] = [
    "established",
    "closing",
    "connecting",
    "listening",
    "paths",
    "delayed",
];

/// What would hang on time, of near's host: no tail loss probes and compressed acks; no limit of acks to what is out of the
/// window; and no run knows the round-trip times of another.
const SETTINGS: [(&str, &str); 5] = [
    ("tcp_early_retrans", "0"),
    ("tcp_comp_sack_nr", "0"),
    ("tcp_invalid_ratelimit", "0"),
    ("tcp_challenge_ack_limit", "2147483647"),
    ("tcp_no_metrics_save", "1"),
];

/// How often a seed that differs is run again.
const ATTEMPTS: usize = 3;

/// Two hosts, of which the far one has no TCP of its own in this.
struct Bench {
    lab: Lab,
    _far: Running,
}

impl Bench {
    fn new() -> Result<Self> {
        let lab = Lab::new(crate::Link::default())?;
        for (name, value) in SETTINGS {
            lab.near.sysctl(&format!("net/ipv4/{name}"), value)?;
        }
        // A run is over before a retransmission is due.
        let route = ["route", "replace", SUBNET, "dev", DEVICE, "src", NEAR];
        let how = [
            "proto", "kernel", "scope", "link", "congctl", "cubic", "rto_min", "10s",
        ];
        lab.near.run("ip", [route.as_slice(), &how].concat())?;
        let control = lab.path("control");
        let far = lab.far.program(probe("hands_wire"));
        let far = far.args([&*control.to_string_lossy(), DEVICE, NEAR]);
        let far = far.start()?;
        far.wait_for_output("ready")?;
        Ok(Bench { lab, _far: far })
    }

    fn stats(&self, seed: u64) -> std::path::PathBuf {
        self.lab.path(&format!("stats-{seed}.json"))
    }

    fn start(&self, kind: &str, seed: u64, stack: &Stack) -> Result<Running> {
        let control = self.lab.path("control");
        self.lab
            .near
            .program(probe("random_segments"))
            .args([
                &*control.to_string_lossy(),
                DEVICE,
                NEAR,
                &seed.to_string(),
                kind,
            ])
            .under(stack)
            .stats(&self.stats(seed))
            .start()
    }

    /// All at the same time: each seed has a peer of its own, and mostly waits.
    fn run(&self, kind: &str, seeds: Range<u64>, stack: &Stack) -> Result<Vec<Finished>> {
        let running: Vec<Running> = seeds
            .map(|seed| self.start(kind, seed, stack))
            .collect::<Result<_>>()?;
        running.into_iter().map(Running::wait).collect()
    }
}

fn same_lines(native: Finished, other: Finished) -> TestResult {
    let native = native.success()?;
    ensure!(native.stdout.ends_with("done\n"), "{native}");
    compare(&native.stdout, &other)?;
    other.success()?;
    Ok(())
}

/// A difference may be a host's that was too busy for what is waited for: the engine's own stays.
fn again(kind: &str, seed: u64, stack: &Stack) -> TestResult {
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        let run = |stack| -> Result<Finished> {
            let mut finished = Bench::new()?.run(kind, seed..seed + 1, stack)?;
            finished.pop().context("one seed, one run")
        };
        outcome = same_lines(run(&Stack::Kernel)?, run(stack)?);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Runs `probes/random_segments.c` for `kind` with each of the `seeds` natively and then on `stack`, and wants the same lines.
///
/// # Errors
/// The seed and the differing lines; under the shim, that the engine did not carry all connections.
pub fn same_random_segments(kind: &str, seeds: Range<u64>, stack: &Stack) -> TestResult {
    // Each stack has hosts of its own: the kernel keeps path MTUs of which ICMP told, and orphans that go on.
    let native = Bench::new()?.run(kind, seeds.clone(), &Stack::Kernel)?;
    let bench = Bench::new()?;
    let other = bench.run(kind, seeds.clone(), stack)?;
    let mut carried = 0;
    for ((seed, native), other) in seeds.zip(native).zip(other) {
        let what = || format!("{kind}, seed {seed}, on {}", stack.name());
        same_lines(native, other)
            .or_else(|_| again(kind, seed, stack))
            .with_context(what)?;
        if stack.is_sidewire() {
            let stats = Stats::read(&bench.stats(seed))?;
            ensure!(
                stats.connections_kernel == 0,
                "{}: not on the engine: {stats:?}",
                what()
            );
            carried += stats.connections_engine;
        }
    }
    ensure!(
        !stack.is_sidewire() || carried > 0,
        "nothing was on the engine"
    );
    Ok(())
}
