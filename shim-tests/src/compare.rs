//! A C probe run natively and under the shim, what it printed compared line by
//! line.

use anyhow::{Result, bail, ensure};

use crate::cpus::allowed;
use crate::lab::{DEVICE, FAR, Lab};
use crate::library::{Stack, Stats};
use crate::probe::probe;
use crate::process::{Finished, Running};
use crate::suite::TestResult;

/// The port of [`start_peer`].
pub const PEER_PORT: u16 = 7070;

/// The far host's second address, as the probes know it.
pub(crate) const FAR_TOO: &str = "192.0.2.3";

/// How many differing lines a failure shows.
const MAX_DIFFERENCES: usize = 40;

/// Starts `probes/peer.c` on the far host.
///
/// # Errors
/// When it does not come to listen.
pub fn start_peer(lab: &Lab) -> Result<Running> {
    start_peer_on(lab, None)
}

fn start_peer_on(lab: &Lab, cpu: Option<usize>) -> Result<Running> {
    let peer = lab
        .far
        .program(probe("peer"))
        .args([PEER_PORT.to_string()])
        .cpu(cpu)
        .start()?;
    lab.wait_for_listener(&lab.far, PEER_PORT)?;
    Ok(peer)
}

/// Runs `probes/NAME.c HOST PORT` against the peer, natively and then on
/// `stack`, and wants the same lines. On the kernel that shows that the probe
/// itself is deterministic.
///
/// # Errors
/// The differing lines; a probe that fails; under the shim, a probe of which the
/// engine carried nothing.
pub fn same_as_native(name: &str, stack: &Stack) -> TestResult {
    same(name, stack, Setting::default(), on_the_engine)
}

/// [`same_as_native`], with probe and peer on one CPU.
///
/// # Errors
/// As [`same_as_native`].
pub fn same_as_native_on_one_cpu(name: &str, stack: &Stack) -> TestResult {
    let one = Setting {
        cpu: allowed()?.last().copied(),
        ..Setting::default()
    };
    same(name, stack, one, on_the_engine)
}

/// [`same_as_native`], with another command in front of the probe ([`wrapped`](crate::program::Program::wrapped)).
///
/// # Errors
/// As [`same_as_native`].
pub fn same_as_native_wrapped(name: &str, wrapper: &[&str], stack: &Stack) -> TestResult {
    let wrapped = Setting {
        wrapper,
        ..Setting::default()
    };
    same(name, stack, wrapped, on_the_engine)
}

/// [`same_as_native`], for a probe that shares connections with other processes:
/// they begin on the engine, and go on in the kernel.
///
/// # Errors
/// As [`same_as_native`].
pub fn shared_as_native(name: &str, stack: &Stack) -> TestResult {
    same(name, stack, Setting::default(), |stats| {
        stats.connections_engine > 0 && stats.connections_kernel > 0
    })
}

pub(crate) fn on_the_engine(stats: &Stats) -> bool {
    stats.connections_engine > 0 && stats.connections_kernel == 0
}

/// Where and how a probe runs.
#[derive(Clone, Copy, Default)]
struct Setting<'a> {
    /// Of both ends.
    cpu: Option<usize>,
    wrapper: &'a [&'a str],
}

fn same(
    name: &str,
    stack: &Stack,
    setting: Setting<'_>,
    carried: impl Fn(&Stats) -> bool,
) -> TestResult {
    let lab = Lab::new(crate::Link::default())?;
    // A second host to talk to, for the probes that want one.
    let second = format!("{FAR_TOO}/24");
    lab.far
        .run("ip", ["address", "add", &second, "dev", DEVICE])?;
    let _peer = start_peer_on(&lab, setting.cpu)?;
    let run = |stack: &Stack| -> Result<Finished> {
        lab.near
            .program(probe(name))
            .args([FAR, &PEER_PORT.to_string()])
            .cpu(setting.cpu)
            .wrapped(setting.wrapper.iter().copied())
            .under(stack)
            .stats(&lab.path("stats.json"))
            .run()
    };
    let native = run(&Stack::Kernel)?.success()?;
    ensure!(native.stdout.ends_with("done\n"), "{native}");
    let other = run(stack)?;
    compare(&native.stdout, &other)?;
    let other = other.success()?;
    if stack.is_sidewire() {
        let stats = Stats::read(&lab.path("stats.json"))?;
        ensure!(carried(&stats), "not on the engine: {stats:?}\n{other}");
    }
    Ok(())
}

/// Runs `probes/NAME.c`, which needs no network, natively and on `stack`, and
/// wants the same lines.
///
/// # Errors
/// As [`same_as_native`].
pub fn same_as_native_alone(name: &str, stack: &Stack) -> TestResult {
    let lab = Lab::new(crate::Link::default())?;
    let native = lab.near.program(probe(name)).run()?.success()?;
    ensure!(!native.stdout.is_empty(), "{native}");
    let other = lab.near.program(probe(name)).under(stack).run()?;
    compare(&native.stdout, &other)?;
    other.success()?;
    Ok(())
}

/// Wants the same lines of `other` as of a native run.
pub(crate) fn compare(native: &str, other: &Finished) -> Result<()> {
    let mut differences = Vec::new();
    let mut section = "";
    let (mut left, mut right) = (native.lines(), other.stdout.lines());
    loop {
        let (expected, got) = (left.next(), right.next());
        if expected.is_none() && got.is_none() {
            break;
        }
        if let Some(title) = expected.and_then(|line| line.strip_prefix("# ")) {
            section = title;
        }
        if expected != got {
            differences.push(format!(
                "{section}:\n    kernel  {}\n    other   {}",
                expected.unwrap_or("(nothing)"),
                got.unwrap_or("(nothing)")
            ));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let count = differences.len();
    differences.truncate(MAX_DIFFERENCES);
    bail!(
        "{count} lines differ\n{}\n{}: {}\n{}",
        differences.join("\n"),
        other.name,
        other.status,
        other.stderr
    )
}
