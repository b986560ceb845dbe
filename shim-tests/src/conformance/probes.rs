//! The probes, and one of them on both stacks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::compare::{FAR_TOO, PEER_PORT, start_peer};
use crate::conformance::lines::{Difference, Line, differences, parse};
use crate::lab::{DEVICE, FAR, Lab, NEAR};
use crate::library::{Stack, Stats};
use crate::patience::until;
use crate::probe::conformance;
use crate::process::Finished;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance");

/// The folder of the wire probes, and their side of the program under test, which is
/// no probe.
const WIRE: &str = "wire";
const NEAR_SIDE: &str = "near";

/// Who observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The program under test, of its own calls, against `probes/peer.c`.
    Program,
    /// Its peer, of what comes over the wire: `wire/NAME CONTROL DEVICE NEAR` on the
    /// far host, which tells `wire/near CONTROL` under test what to call.
    Wire,
}

impl Kind {
    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Program => "probe",
            Kind::Wire => "wire",
        }
    }
}

/// A C file of `conformance/`.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Its name without `.c`, that of a wire probe with its folder.
    pub name: String,
    /// Who observes.
    pub kind: Kind,
}

/// All of them.
///
/// # Errors
/// When the directory cannot be read.
pub fn all() -> Result<Vec<Probe>> {
    let mut probes = Vec::new();
    for (folder, kind) in [("", Kind::Program), (WIRE, Kind::Wire)] {
        let mut names = sources(&Path::new(SOURCES).join(folder))?;
        names.retain(|name| kind == Kind::Program || name != NEAR_SIDE);
        names.sort();
        probes.extend(names.into_iter().map(|name| Probe {
            name: match kind {
                Kind::Program => name,
                Kind::Wire => format!("{WIRE}/{name}"),
            },
            kind,
        }));
    }
    Ok(probes)
}

/// The names of a folder's C files.
fn sources(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "c") {
            let name = path.file_stem().unwrap_or_default();
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// What came of one probe.
#[derive(Debug)]
pub struct Outcome {
    /// What it printed natively.
    pub native: Vec<Line>,
    /// Where the other stack's run differs.
    pub differences: Vec<Difference>,
    /// Why the other stack's run does not count whatever it printed.
    pub failure: Option<String>,
}

impl Probe {
    /// Runs it natively, and then on `stack`.
    ///
    /// # Errors
    /// When the network cannot be made, or the native run fails: then nothing is
    /// known.
    pub fn run(&self, stack: &Stack) -> Result<Outcome> {
        let native = self.run_on(&Stack::Kernel).context("natively")?;
        let (expected, finished) = parse(&native.output)?;
        ensure!(finished && native.failure.is_none(), "natively: {native}");
        let other = self.run_on(stack).with_context(|| stack.name())?;
        let (got, finished) = parse(&other.output).with_context(|| other.to_string())?;
        let failed = other.failure.is_some() || !finished;
        Ok(Outcome {
            differences: differences(&expected, &got),
            native: expected,
            failure: failed.then(|| other.to_string()),
        })
    }

    /// One run, in a network of its own: what one stack leaves behind there (a
    /// fast-open cookie, a changed sysctl) does not reach the other.
    fn run_on(&self, stack: &Stack) -> Result<Run> {
        let lab = Lab::new(crate::Link::default())?;
        let second = format!("{FAR_TOO}/24");
        lab.far
            .run("ip", ["address", "add", &second, "dev", DEVICE])?;
        // The peer's listener gives fast-open cookies, and takes data with them.
        lab.far.sysctl("net/ipv4/tcp_fastopen", "0x403")?;
        let stats = lab.path("stats.json");
        let port = PEER_PORT.to_string();
        let binary = conformance(&self.name);
        let (observer, other) = match self.kind {
            Kind::Program => {
                let _peer = start_peer(&lab)?;
                let near = lab.near.program(&binary).args([FAR, &port]);
                (near.under(stack).stats(&stats).run()?, None)
            }
            Kind::Wire => {
                let control = lab.path("control");
                let path = control.to_string_lossy().into_owned();
                let far = lab.far.program(&binary).args([&path, DEVICE, NEAR]);
                let far = far.start()?;
                until("the far side's socket", || {
                    Ok(control.exists().then_some(()))
                })?;
                let near = conformance(&format!("{WIRE}/{NEAR_SIDE}"));
                let near = lab.near.program(near).args([&path]).under(stack);
                let near = near.stats(&stats).run()?;
                (far.wait()?, Some(near))
            }
        };
        let mut failure = [Some(&observer), other.as_ref()]
            .into_iter()
            .flatten()
            .filter(|finished| !finished.status.success())
            .map(Finished::to_string)
            .reduce(|a, b| format!("{a}\n{b}"));
        if failure.is_none() && stack.is_sidewire() {
            failure = not_carried(&stats)?;
        }
        Ok(Run {
            output: observer.stdout,
            failure,
        })
    }
}

fn not_carried(stats: &Path) -> Result<Option<String>> {
    let stats = Stats::read(stats)?;
    Ok((stats.connections_engine == 0).then(|| format!("nothing on the engine: {stats:?}")))
}

struct Run {
    output: String,
    failure: Option<String>,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let failure = self.failure.as_deref();
        let last = self.output.lines().last().unwrap_or("(nothing)");
        write!(
            f,
            "{}; its last line: {last}",
            failure.unwrap_or("no \"done\"")
        )
    }
}
