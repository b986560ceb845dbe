//! `sidewire run`, with a real program on a real link.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::counters::Before;
use shim_tests::lab::FAR;
use shim_tests::library::{Library, Stack, Stats};
use shim_tests::payload::{self, MIB};
use shim_tests::{Lab, Link, Suite, TestResult};

const PORT: u16 = 7400;

fn main() -> ExitCode {
    Suite::new("command")
        .shim("run_moves_a_file", &[], run_moves_a_file)
        .shim("run_strict_names_the_capability", &[], run_strict)
        .run()
}

/// The command that was built beside the library.
fn sidewire(stack: &Stack) -> Result<String> {
    let library = match stack {
        Stack::Sidewire(library) => library.clone(),
        Stack::Kernel => Library::find()?,
    };
    let command = library.path().with_file_name("sidewire");
    ensure!(
        command.is_file(),
        "{} is not built: run `cargo build --release -p sidewire-cli`",
        command.display()
    );
    Ok(command.to_str().context("path in UTF-8")?.to_owned())
}

fn run_moves_a_file(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (source, sink, stats) = (lab.path("sent"), lab.path("arrived"), lab.path("stats"));
    let sent = payload::write(&source, 4 * MIB)?;
    let port = PORT.to_string();
    let before = Before::of(&lab)?;
    let receiver = lab
        .far
        .program("nc.openbsd")
        .args(["-d", "-l", &port])
        .stdout(&sink)
        .start()?;
    lab.wait_for_listener(&lab.far, PORT)?;
    let sender = lab
        .near
        .program(sidewire(stack)?)
        .args(["run", "--strict", "--", "nc.openbsd", "-N", FAR, &port])
        .stdin(&source)
        .stats(&stats)
        .run()?
        .success()?;
    receiver.wait()?.success()?;
    ensure!(payload::sha256(&sink)? == sent, "what arrived differs");
    ensure!(sender.stderr.is_empty(), "it said {:?}", sender.stderr);
    before
        .until_now(&lab, Some(Stats::read(&stats)?))?
        .all_by_engine(1)
}

fn run_strict(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let refused = lab
        .near
        .program(sidewire(stack)?)
        .args([
            "run",
            "--strict",
            "nc.openbsd",
            "-N",
            FAR,
            &PEER_PORT.to_string(),
        ])
        .wrapped(["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"])
        .run()?;
    ensure!(
        refused.status.code() == Some(125) && refused.stderr.contains("CAP_NET_RAW"),
        "{refused}"
    );
    Ok(())
}
