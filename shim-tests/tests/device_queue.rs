//! Frames that wait before the device, or that its queue throws away.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::lab::{DEVICE, FAR};
use shim_tests::library::Stack;
use shim_tests::netcat::{Flavour, Part, move_file, receiver};
use shim_tests::payload::MIB;
use shim_tests::probe::probe;
use shim_tests::{Lab, Link, Need, Suite, TestResult};

fn main() -> ExitCode {
    Suite::new("device_queue")
        .both("little_waits_in_it", &[], small_queue)
        .both("what_it_throws_away_was_never_sent", &[], drops)
        .shim("full_at_the_end", &[], full_at_end)
        .both("numbers_stay_the_programs", &[], numbers)
        .both(
            "a_syn_that_waits_for_its_neighbour_is_not_repeated",
            &[Need::EgressHook],
            unresolved,
        )
        .both("a_neighbour_gets_another_address", &[], another_address)
        .both("a_permanent_neighbour_stays", &[], permanent)
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

/// The near device gets this queue.
fn queue(lab: &Lab, shape: &str) -> TestResult {
    let replace = ["qdisc", "replace", "dev", DEVICE, "root"];
    lab.near
        .run("tc", replace.into_iter().chain(shape.split(' ')))?;
    Ok(())
}

/// Bytes that wait before the device now.
fn waiting(lab: &Lab) -> Result<u64> {
    let shown = lab
        .near
        .run("tc", ["-s", "-j", "qdisc", "show", "dev", DEVICE])?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    shown[0]["backlog"]
        .as_u64()
        .with_context(|| format!("no backlog in {shown}"))
}

/// A device that is slower than the sender, with a queue that would hold whatever is put into it: some super-frames are, as
/// `tcp_small_queue_check` has it, though the congestion window grows with the queue. What waits there is not sent again.
fn small_queue(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    queue(&lab, "tbf rate 50mbit burst 128kb limit 8mb")?;
    // One connection only: of iperf3's two, the one for control asks at the end whether a peer without a CPU is still there.
    let part = Part {
        listens: false,
        sends: true,
    };
    let (moved, most) = std::thread::scope(|scope| -> Result<_> {
        let run = scope.spawn(|| move_file(&lab, stack, Flavour::OpenBsd, part, 6 * MIB, None));
        let mut most = 0;
        while !run.is_finished() {
            most = most.max(waiting(&lab)?);
        }
        let moved = run.join().map_err(|_| anyhow!("the run panicked"))??;
        Ok((moved, most))
    })?;
    // The kernel has three there; a fourth slips in while the round-trip time is still that of an empty queue.
    let some = 5 * 68_000;
    ensure!((1..=some).contains(&most), "{most} bytes waited");
    ensure!(moved.carried.retransmits() == 0, "{:?}", moved.carried);
    if stack.is_sidewire() {
        moved.carried.all_by_engine(1)?;
    }
    Ok(())
}

/// A queue that holds less than the two super-frames that may wait there.
fn drops(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    queue(&lab, "tbf rate 400mbit burst 128kb limit 100kb")?;
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

/// What a lane's own packet socket has no room for when the process ends leaves when it has.
fn full_at_end(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    queue(&lab, "tbf rate 16mbit burst 128kb limit 8mb")?;
    let sink = lab.path("arrived");
    let receiver = receiver(&lab, PEER_PORT, &sink)?;
    let finished = lab
        .near
        .program(probe("full_at_end"))
        .args([FAR, &PEER_PORT.to_string()])
        .under(stack)
        .run()?
        .success()?;
    let sent: u64 = finished.stdout.trim().parse()?;
    receiver.wait()?.success()?;
    let arrived = fs::metadata(&sink)?.len();
    ensure!(arrived == sent, "{arrived} of {sent} bytes arrived");
    Ok(())
}

/// A program counts on the lowest free number for its next descriptor, also while the library opens some of its own: a packet
/// socket before which much waits, one for a ring, what the pump looks at.
fn numbers(stack: &Stack) -> TestResult {
    for _ in 0..3 {
        let lab = Lab::new(Link::default())?;
        queue(&lab, "tbf rate 50mbit burst 128kb limit 8mb")?;
        let receiver = receiver(&lab, PEER_PORT, &lab.path("arrived"))?;
        let finished = lab
            .near
            .program(probe("lowest_number"))
            .args([FAR, &PEER_PORT.to_string(), &(6 * MIB).to_string()])
            .under(stack)
            .run()?
            .success()?;
        receiver.wait()?.success()?;
        ensure!(finished.stdout == "0 wrong\n", "{}", finished.stdout);
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

/// A neighbour whose address is another one from now on, which nobody says: its entry is stale, and is asked for anew when
/// nothing more is heard of the peer.
fn another_address(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    for (name, value) in [("delay_first_probe_time", 1), ("retrans_time_ms", 200)] {
        let setting = format!("net.ipv4.neigh.{DEVICE}.{name}={value}");
        lab.near.run("sysctl", ["-qw", &setting])?;
    }
    let fifo = lab.path("go");
    let fifo_name = fifo.to_str().context("a path in UTF-8")?;
    lab.near.run("mkfifo", [fifo_name])?;
    let running = lab
        .near
        .program(probe("another_address"))
        .args([FAR, &PEER_PORT.to_string(), fifo_name])
        .under(stack)
        .start()?;
    running.wait_for_output("before")?;
    let known = lab.near.run("ip", ["-j", "neigh", "show", FAR])?;
    let known: serde_json::Value = serde_json::from_str(&known)?;
    let old = known[0]["lladdr"].as_str().context("no entry")?;
    let stale = ["lladdr", old, "dev", DEVICE, "nud", "stale"];
    let change = ["neigh", "change", FAR];
    lab.near.run("ip", change.into_iter().chain(stale))?;
    let new = ["link", "set", DEVICE, "address", "02:00:00:00:00:99"];
    lab.far.run("ip", new)?;
    fs::write(&fifo, "x")?;
    let finished = running.wait()?.success()?;
    ensure!(finished.stdout == "before\nafter\n", "{}", finished.stdout);
    Ok(())
}

/// An entry that the administrator made for good survives timeouts: who is behind it may not answer ARP.
fn permanent(stack: &Stack) -> TestResult {
    const SILENT: &str = "192.0.2.77";
    let lab = Lab::new(Link::default())?;
    let entry = [
        SILENT,
        "lladdr",
        "02:00:00:00:00:77",
        "dev",
        DEVICE,
        "nud",
        "permanent",
    ];
    lab.near
        .run("ip", ["neigh", "add"].into_iter().chain(entry))?;
    // The first SYN is sent again after a second.
    let finished = lab
        .near
        .program("nc")
        .args(["-w", "2", SILENT, "7"])
        .under(stack)
        .start()?
        .wait()?;
    ensure!(!finished.status.success(), "somebody answered");
    let shown = lab.near.run("ip", ["-j", "neigh", "show", SILENT])?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let state = shown[0]["state"][0].as_str();
    ensure!(state == Some("PERMANENT"), "{shown}");
    Ok(())
}
