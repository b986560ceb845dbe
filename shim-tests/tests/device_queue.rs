//! Frames that wait before the device, or that its queue throws away.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::lab::{DEVICE, FAR};
use shim_tests::library::Stack;
use shim_tests::netcat::{Flavour, Part, move_file};
use shim_tests::payload::MIB;
use shim_tests::{Lab, Link, Need, Suite, TestResult};

fn main() -> ExitCode {
    Suite::new("device_queue")
        .both("what_it_throws_away_was_never_sent", &[], drops)
        .both(
            "a_syn_that_waits_for_its_neighbour_is_not_repeated",
            &[Need::EgressHook],
            unresolved,
        )
        .run()
}

/// A counter of the engine's, by its name.
fn counter(lab: &Lab, stats: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(lab.path(stats))?;
    let stats: serde_json::Value = serde_json::from_str(&text)?;
    stats[name]
        .as_u64()
        .with_context(|| format!("no counter {name} in {text}"))
}

/// A queue that holds five super-frames, and a congestion window that outgrows it.
fn drops(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let shape = "tbf rate 400mbit burst 128kb limit 300kb";
    let replace = ["qdisc", "replace", "dev", DEVICE, "root"];
    lab.near
        .run("tc", replace.into_iter().chain(shape.split(' ')))?;
    let part = Part {
        listens: false,
        sends: true,
    };
    let moved = move_file(&lab, stack, Flavour::OpenBsd, part, 24 * MIB, None)?;
    ensure!(moved.carried.retransmits() == 0, "{:?}", moved.carried);
    if stack.is_sidewire() {
        moved.carried.all_by_engine(1)?;
        let dropped = counter(&lab, "nc-stats.json", "TCPLocalDrop")?;
        ensure!(dropped > 0, "the queue dropped nothing");
    }
    Ok(())
}

/// The first request for the neighbour is lost, and the next one leaves after the first timeout of the SYN.
fn unresolved(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let pause = format!("net.ipv4.neigh.{DEVICE}.retrans_time_ms=1700");
    lab.near.run("sysctl", ["-qw", &pause])?;
    lab.near.run("ip", ["neigh", "flush", "dev", DEVICE])?;
    let rules = format!(
        "table netdev lab {{ counter syns {{ }}; \
         chain out {{ type filter hook egress device {DEVICE} priority 0; \
         arp operation request numgen inc mod 1000 0 drop; \
         tcp flags & (syn|ack) == syn counter name syns; }}; }}"
    );
    lab.near.run("nft", [rules.as_str()])?;
    lab.near
        .program("nc.openbsd")
        .args(["-z", FAR, &PEER_PORT.to_string()])
        .under(stack)
        .run()?
        .success()?;
    let listed = lab
        .near
        .run("nft", ["list", "counter", "netdev", "lab", "syns"])?;
    ensure!(listed.contains("packets 1 "), "{listed}");
    Ok(())
}
