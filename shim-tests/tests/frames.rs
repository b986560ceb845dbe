//! What single frames are given beside their bytes: marks, times of departure, timestamps.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::lab::{DEVICE, FAR};
use shim_tests::library::{Stack, Stats};
use shim_tests::probe::probe;
use shim_tests::process::Finished;
use shim_tests::{Lab, Link, Need, Suite, TestResult};

fn main() -> ExitCode {
    let egress = &[Need::EgressHook];
    Suite::new("frames")
        .both("a_message_goes_by_the_sockets_mark", egress, |stack| {
            marks(stack, "false", [0, 0])
        })
        .shim("a_message_has_its_own_mark", egress, |stack| {
            marks(stack, "true", [1, 1])
        })
        .both("a_time_of_departure_is_taken", &[], departs)
        .both("stamps_tell_when_the_device_had_it", &[], waits_in_a_queue)
        .run()
}

/// `probes/NAME.c` against the peer, one connection on the engine.
fn run(lab: &Lab, stack: &Stack, name: &str, args: &[&str], own: &str) -> Result<Finished> {
    let _peer = start_peer(lab)?;
    let stats = lab.path("stats.json");
    let said = lab
        .near
        .program(probe(name))
        .args([FAR, &PEER_PORT.to_string()])
        .args(args.iter().copied())
        .env("SIDEWIRE_MESSAGE_OPTIONS", own)
        .under(stack)
        .stats(&stats)
        .run()?
        .success()?;
    if stack.is_sidewire() {
        ensure!(Stats::read(&stats)?.connections_engine == 1, "{said}");
    }
    Ok(said)
}

/// Three messages that would share a segment: how many frames have the marks of the first two.
fn marks(stack: &Stack, own: &str, expected: [u64; 2]) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let rules = format!(
        "table netdev marks {{ counter seven {{ }}; counter nine {{ }}; \
         chain out {{ type filter hook egress device {DEVICE} priority 0; \
         meta mark 7 counter name seven; meta mark 9 counter name nine; }}; }}"
    );
    lab.near.run("nft", [rules.as_str()])?;
    let said = run(&lab, stack, "message_options", &["mark"], own)?;
    ensure!(said.stdout == "seven\nnine\nnone\n", "{said}");
    let mut counted = [0; 2];
    for (count, name) in counted.iter_mut().zip(["seven", "nine"]) {
        let listed = lab
            .near
            .run("nft", ["list", "counter", "netdev", "marks", name])?;
        let mut words = listed.split_whitespace().skip_while(|w| *w != "packets");
        *count = words
            .nth(1)
            .and_then(|packets| packets.parse().ok())
            .with_context(|| listed.clone())?;
    }
    ensure!(counted == expected, "{counted:?} frames");
    Ok(())
}

/// Nothing on this link keeps times; the frame arrives all the same.
fn departs(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let said = run(&lab, stack, "message_options", &["txtime", "60000"], "true")?;
    ensure!(said.stdout == "later\nbefore its time\n", "{said}");
    Ok(())
}

/// 6000 bytes through a bucket of 2 KB at 100 KB a second: the last segment, which has the stamp, waits.
fn waits_in_a_queue(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let shape = "qdisc replace dev DEVICE root tbf rate 800kbit burst 2kb latency 2000ms";
    let words = shape
        .split(' ')
        .map(|w| if w == "DEVICE" { DEVICE } else { w });
    lab.near.run("tc", words)?;
    let said = run(&lab, stack, "stamp_gap", &["6000", "25"], "false")?;
    ensure!(said.stdout == "it waited\n", "{said}");
    Ok(())
}
