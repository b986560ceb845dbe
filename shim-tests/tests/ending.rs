//! How connections and processes end: with everything delivered, or with the
//! error that Linux gives.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::cpu_time::CpuTimes;
use shim_tests::lab::{DEVICE, FAR, NEAR, SUBNET};
use shim_tests::library::Stack;
use shim_tests::netcat::{Flavour, Part, move_file, receiver};
use shim_tests::patience::until;
use shim_tests::payload::{self, MIB};
use shim_tests::probe::probe;
use shim_tests::{Lab, Link, Need, Suite, TestResult};

const PORT: u16 = 7200;

/// How `probes/ends.c` ends.
const WAYS: [&str; 7] = [
    "return",
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "thread",
    "exec",
];

fn main() -> ExitCode {
    let mut suite = Suite::new("ending");
    for (flavour, name) in [
        (Flavour::OpenBsd, "openbsd"),
        (Flavour::Traditional, "traditional"),
        (Flavour::Ncat, "ncat"),
    ] {
        let needs = [Need::EgressHook];
        suite = suite.both(
            &format!("{name}_on_a_slow_lossy_link"),
            &needs,
            move |stack| slow_and_lossy(stack, flavour),
        );
    }
    for how in WAYS {
        suite = suite.both(&format!("delivered_after_{how}"), &[], move |stack| {
            delivered_after(stack, how)
        });
    }
    suite
        .both("a_server_that_ends_is_started_again", &[], |stack| {
            started_again(stack, None)
        })
        .both("a_server_of_another_user_is_started_again", &[], |stack| {
            started_again(stack, Some("1"))
        })
        .both("peer_killed_and_restarted", &[], peer_killed)
        .both("metrics_outlive_the_process", &[], metrics_outlive)
        .shim("undertaker_sleeps", &[], undertaker_sleeps)
        .shim("a_panic_is_one_line_and_aborts", &[], panics)
        .run()
}

/// A fault inside: one line, and nothing of the program's runs any more, not its exit handlers either.
fn panics(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let ended = lab
        .near
        .program(probe("no_randomness"))
        .args([FAR, &PEER_PORT.to_string()])
        .under(stack)
        .run()?;
    ensure!(ended.status.signal() == Some(libc::SIGABRT), "{ended}");
    ensure!(ended.stdout == "connecting\n", "{ended}");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    ensure!(
        lines.len() == 1
            && lines[0].starts_with("sidewire: internal error: getrandom: ")
            && lines[0].contains("syscall.rs:"),
        "{ended}"
    );
    Ok(())
}

/// The program ends as soon as it has handed over its last byte; on a link that
/// is slower than that, the stack still has most of it then.
fn slow_and_lossy(stack: &Stack, flavour: Flavour) -> TestResult {
    const SIZE: u64 = MIB;
    let lab = Lab::new(Link::default())?;
    lab.slow_down(&lab.near, "16mbit")?;
    lab.lose_one_in(&lab.near, 50)?;
    lab.lose_one_in(&lab.far, 50)?;
    lab.lose_one_in_on_the_way_to(&lab.far, 50)?;
    let (source, sink) = (lab.path("sent"), lab.path("arrived"));
    let sent = payload::write(&source, SIZE)?;
    let port = PORT.to_string();
    let receiver = receiver(&lab, PORT, &sink)?;
    // OpenBSD's waits for the peer's end by itself.
    let (early, waits): (&[&str], bool) = match flavour {
        Flavour::OpenBsd => (&["-N"], true),
        Flavour::Traditional => (&["-q", "0"], false),
        Flavour::Ncat => (&["--send-only"], false),
    };
    lab.near
        .program(flavour.program())
        .args(early.iter().copied())
        .args([FAR, &port])
        .stdin(&source)
        .under(stack)
        .run()?
        .success()?;
    let when_it_ended = std::fs::metadata(&sink)?.len();
    receiver.wait()?.success()?;
    let arrived = payload::sha256(&sink)?;
    ensure!(
        arrived == sent,
        "{} of {SIZE} bytes arrived, {when_it_ended} of them before the program ended",
        std::fs::metadata(&sink)?.len()
    );
    ensure!(
        waits || when_it_ended < SIZE,
        "the program waited for its data: this shows nothing"
    );
    Ok(())
}

/// A server that closes nothing when it ends is followed by the next one on its port, whatever clients stay: its listener goes
/// with it. As `user`, if it gives its privileges up in between.
fn started_again(stack: &Stack, user: Option<&str>) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let port = PORT.to_string();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let server = lab
            .near
            .program(probe("one_client"))
            .args(["exits", &port].into_iter().chain(user))
            .under(stack)
            .start()?;
        server.wait_for_output("listening")?;
        // Says a byte, and stays.
        let stays = format!("exec 3<>/dev/tcp/{NEAR}/{PORT}; printf x >&3; exec sleep 100");
        clients.push(lab.far.program("bash").args(["-c", &stays]).start()?);
        server.wait()?.success()?;
    }
    for client in clients {
        client.kill();
    }
    Ok(())
}

/// However a process ends by its own will, what it has sent arrives.
fn delivered_after(stack: &Stack, how: &str) -> TestResult {
    const SIZE: u64 = MIB;
    let lab = Lab::new(Link::default())?;
    // The end of the last thread is noticed within a second (DEVIATIONS).
    let rate = if how == "thread" { "4mbit" } else { "32mbit" };
    lab.slow_down(&lab.near, rate)?;
    let (source, sink) = (lab.path("sent"), lab.path("arrived"));
    let sent = payload::write(&source, SIZE)?;
    let port = PORT.to_string();
    let receiver = receiver(&lab, PORT, &sink)?;
    let source = source.to_string_lossy().into_owned();
    lab.near
        .program(probe("ends"))
        .args([FAR, &port, how, &source])
        .under(stack)
        .run()?
        .success()?;
    let when_it_ended = std::fs::metadata(&sink)?.len();
    receiver.wait()?.success()?;
    ensure!(
        payload::sha256(&sink)? == sent,
        "{} of {SIZE} bytes arrived, {when_it_ended} of them before the program ended",
        std::fs::metadata(&sink)?.len()
    );
    ensure!(
        when_it_ended < SIZE,
        "the program waited for its data: this shows nothing"
    );
    Ok(())
}

/// What a process leaves behind uses no CPU while it waits, also when somebody speaks to a connection that is closed.
fn undertaker_sleeps(stack: &Stack) -> TestResult {
    const SECONDS: u64 = 2;
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let port = PEER_PORT.to_string();
    lab.near
        .program(probe("leaves"))
        .args([FAR, &port])
        .under(stack)
        .run()?
        .success()?;
    let connected = || -> Result<usize> {
        let all = lab.far.run("ss", ["-Htn", "sport", "=", &port])?;
        Ok(all.lines().filter(|l| !l.starts_with("TIME-WAIT")).count())
    };
    until("both connections", || Ok((connected()? == 2).then_some(())))?;
    let undertaker = undertaker_of(&lab)?;
    let before = CpuTimes::of(undertaker)?;
    let open = lab.path("open");
    fs::write(&open, "open\n")?;
    lab.far
        .program(Flavour::OpenBsd.program())
        .args(["-N", FAR, &port])
        .stdin(&open)
        .run()?
        .success()?;
    // The late one is answered with RST.
    until("one to be left", || Ok((connected()? == 1).then_some(())))?;
    lab.far
        .program(probe("broadcast"))
        .args(["192.0.2.255", "1000", &SECONDS.to_string()])
        .run()?
        .success()?;
    let used = CpuTimes::of(undertaker)?.since(&before);
    let limit = SECONDS * 1_000_000_000 / 20;
    lab.near.run("kill", [undertaker.to_string().as_str()])?;
    ensure!(
        used < limit,
        "{used} ns of CPU in {SECONDS} s, at most {limit}"
    );
    Ok(())
}

/// The process that the near host's last program left behind.
fn undertaker_of(lab: &Lab) -> Result<u32> {
    let netns = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net"));
    let near = netns(lab.near.id())?;
    fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|&pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sidewire-end\n")
                && netns(pid).is_ok_and(|ns| ns == near)
        })
        .context("nobody was left behind")
}

/// What a connection leaves behind, here what its route sets for the peer, counts for that of the next process, though the
/// route sets it no longer.
fn metrics_outlive(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let port = PEER_PORT.to_string();
    let route = |metrics: &[&str]| {
        let to = ["route", "replace", SUBNET, "dev", DEVICE, "src", NEAR];
        lab.near.run("ip", [&to, metrics].concat())
    };
    let reordering = || -> Result<String> {
        let program = lab.near.program(probe("reordering"));
        let finished = program.args([FAR, &port]).under(stack).run()?.success()?;
        Ok(finished.stdout.trim().to_owned())
    };
    route(&["proto", "kernel", "scope", "link", "reordering", "9"])?;
    ensure!(reordering()? == "3", "a first connection");
    route(&["proto", "kernel", "scope", "link"])?;
    // Its end may still be under way.
    until("a connection that knows of the first one", || {
        Ok((reordering()? == "9").then_some(()))
    })
}

fn peer_killed(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let source = lab.path("endless");
    payload::write(&source, 64 * MIB)?;
    let port = PORT.to_string();
    lab.slow_down(&lab.near, "100mbit")?;
    for _ in 0..2 {
        let sink = lab.path("partly");
        let receiver = receiver(&lab, PORT, &sink)?;
        let sender = lab
            .near
            .program("nc.traditional")
            .args(["-q", "0", FAR, &port])
            .stdin(&source)
            .under(stack)
            .patience(Duration::from_secs(30))
            .start()?;
        until("data to arrive", || {
            Ok((std::fs::metadata(&sink)?.len() > MIB).then_some(()))
        })?;
        receiver.kill();
        // It is told of the reset and ends; how it says so is its own affair.
        sender.wait()?;
    }
    lab.full_speed(&lab.near)?;
    let part = Part {
        listens: false,
        sends: true,
    };
    move_file(&lab, stack, Flavour::OpenBsd, part, 4 * MIB, None)?;
    Ok(())
}
