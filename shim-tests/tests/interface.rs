//! The C interface behind the library, call by call.

use std::process::ExitCode;

use anyhow::ensure;
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::lab::FAR;
use shim_tests::library::Stack;
use shim_tests::probe::probe;
use shim_tests::{Lab, Link, Suite, TestResult};

/// What `probes/interface.c` prints.
const EXPECTED: &str = include_str!("interface.txt");

fn main() -> ExitCode {
    Suite::new("interface")
        .shim("says_and_does_what_the_header_says", &[], says_and_does)
        .run()
}

fn says_and_does(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    lab.near.run("ip", ["link", "set", "lo", "up"])?;
    let _peer = start_peer(&lab)?;
    let finished = lab
        .near
        .program(probe("interface"))
        .args([FAR, &PEER_PORT.to_string()])
        .under(stack)
        .run()?;
    for (expected, got) in EXPECTED.lines().zip(finished.stdout.lines()) {
        ensure!(
            expected == got,
            "expected: {expected}\n     got: {got}\n{finished}"
        );
    }
    let finished = finished.success()?;
    ensure!(finished.stdout == EXPECTED, "{finished}");
    Ok(())
}
