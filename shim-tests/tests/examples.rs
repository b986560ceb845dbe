//! The programs of `c-examples/`, natively and with the shim in front.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use shim_tests::counters::Before;
use shim_tests::lab::{DEVICE, FAR, NEAR};
use shim_tests::library::{Stack, Stats};
use shim_tests::netcat::receiver;
use shim_tests::payload::{self, MIB};
use shim_tests::probe::example;
use shim_tests::{Lab, Link, Need, Suite, TestResult};

const PORT: u16 = 7300;

fn main() -> ExitCode {
    let mut suite = Suite::new("examples");
    for server in ["echo_server", "epoll_server"] {
        suite = suite.both(server, &[], move |stack| {
            echoes(stack, server, true)?;
            Ok(())
        });
    }
    suite
        .both("echo_client", &[], |stack| {
            echoes(stack, "epoll_server", false)
        })
        .both("send_file", &[], sends_file)
        .both("accelerated", &[], says_who_carries)
        .both("callback_completion", &[], |stack| {
            sends_own_memory(stack, "callback_completion", COMPLETED, None)
        })
        // A buffer that is filled again too early arrives wrong.
        .both(
            "callback_completion_with_loss",
            &[Need::EgressHook],
            |stack| sends_own_memory(stack, "callback_completion", COMPLETED, Some(20)),
        )
        .both("zerocopy", &[], sends_without_copying)
        .both("tx_timestamps", &[], |stack| {
            let expected = [
                "byte 4 queued",
                "byte 4 taken by the device",
                "byte 4 acknowledged",
            ];
            talks(stack, "tx_timestamps", &["hello"], &expected.join("\n"))
        })
        .both("txtime", &[], |stack| {
            let expected = "sent with a time of departure: 5 bytes";
            talks(stack, "txtime", &["1000", "hello"], expected)
        })
        .both("repair_dump", &[], |stack| {
            let line = "moved, unnoticed";
            let lab = Lab::new(Link::default())?;
            talk(&lab, stack, "repair_dump", &[line], line, 2)
        })
        .both("cmsg_mark", &[Need::EgressHook], marks_its_frames)
        .both("fastopen_client", &[], |stack| opens_fast(stack, false))
        .both("fastopen_server", &[], |stack| opens_fast(stack, true))
        .both("dmabuf", &[], |stack| {
            sends_own_memory(stack, "dmabuf", "sent by offset, and complete", None)
        })
        .run()
}

/// Three clients in turn; `server` or the clients are on the near host.
fn echoes(stack: &Stack, server: &str, server_near: bool) -> TestResult {
    const CLIENTS: u64 = 3;
    let lab = Lab::new(Link::default())?;
    let stats = lab.path("stats.json");
    let (source, sink) = (lab.path("sent"), lab.path("echoed"));
    let sent = payload::write(&source, 2 * MIB)?;
    let port = PORT.to_string();
    let (server_host, client_host, address) = if server_near {
        (&lab.near, &lab.far, NEAR)
    } else {
        (&lab.far, &lab.near, FAR)
    };
    let before = Before::of(&lab)?;
    let mut running = server_host
        .program(example(server))
        .args([port.as_str(), &CLIENTS.to_string()]);
    if server_near {
        running = running.under(stack).stats(&stats);
    }
    let running = running.start()?;
    lab.wait_for_listener(server_host, PORT)?;
    for _ in 0..CLIENTS {
        let mut client = client_host
            .program(example("echo_client"))
            .args([address, &port])
            .stdin(&source)
            .stdout(&sink);
        if !server_near {
            client = client.under(stack).stats(&stats);
        }
        client.run()?.success()?;
        ensure!(payload::sha256(&sink)? == sent, "the echo differs");
    }
    running.wait()?.success()?;
    if stack.is_sidewire() {
        let connections = if server_near { CLIENTS } else { 1 };
        before
            .until_now(&lab, Some(Stats::read(&stats)?))?
            .all_by_engine(connections)?;
    }
    Ok(())
}

fn sends_file(stack: &Stack) -> Result<()> {
    let lab = Lab::new(Link::default())?;
    let stats = lab.path("stats.json");
    let (source, sink) = (lab.path("sent"), lab.path("arrived"));
    payload::write(&source, 2 * MIB + 1)?;
    let port = PORT.to_string();
    let before = Before::of(&lab)?;
    let receiver = receiver(&lab, PORT, &sink)?;
    lab.near
        .program(example("send_file"))
        .args([FAR, &port, &source.to_string_lossy()])
        .under(stack)
        .stats(&stats)
        .run()?
        .success()?;
    receiver.wait()?.success()?;
    let expected = [
        format!("{}\n", 2 * MIB + 1).into_bytes(),
        fs::read(&source)?,
    ]
    .concat();
    ensure!(fs::read(&sink)? == expected, "what arrived differs");
    if stack.is_sidewire() {
        before
            .until_now(&lab, Some(Stats::read(&stats)?))?
            .begun_by_engine(1)?;
    }
    Ok(())
}

/// Runs it against the far host's echo server, and compares what it prints; the one connection has so many `sockets`.
fn talk(
    lab: &Lab,
    stack: &Stack,
    program: &str,
    args: &[&str],
    expected: &str,
    sockets: u64,
) -> TestResult {
    let stats = lab.path("stats.json");
    let port = PORT.to_string();
    let before = Before::of(lab)?;
    let server = lab
        .far
        .program(example("echo_server"))
        .args([port.as_str(), "1"])
        .start()?;
    lab.wait_for_listener(&lab.far, PORT)?;
    let said = lab
        .near
        .program(example(program))
        .args([FAR, &port])
        .args(args.iter().copied())
        .under(stack)
        .stats(&stats)
        .run()?
        .success()?;
    server.wait()?.success()?;
    ensure!(said.stdout.trim_end() == expected, "{said}");
    if stack.is_sidewire() {
        before
            .until_now(lab, Some(Stats::read(&stats)?))?
            .begun_by_engine(sockets)?;
    }
    Ok(())
}

fn talks(stack: &Stack, program: &str, args: &[&str], expected: &str) -> TestResult {
    talk(
        &Lab::new(Link::default())?,
        stack,
        program,
        args,
        expected,
        1,
    )
}

/// Every frame that leaves has the socket's mark and priority.
fn marks_its_frames(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let rules = format!(
        "table netdev marks {{ \
         counter frames {{ }}; counter with_mark {{ }}; counter with_priority {{ }}; \
         chain out {{ type filter hook egress device {DEVICE} priority 0; \
         ip protocol tcp counter name frames; \
         ip protocol tcp meta mark 42 counter name with_mark; \
         ip protocol tcp meta priority 0:5 counter name with_priority; }}; }}"
    );
    lab.near.run("nft", [rules.as_str()])?;
    let expected = "sent with mark 42 and priority 5: 5 bytes";
    talk(&lab, stack, "cmsg_mark", &["42", "5", "hello"], expected, 1)?;
    let counted = |name: &str| -> Result<u64> {
        let listed = lab
            .near
            .run("nft", ["list", "counter", "netdev", "marks", name])?;
        let mut words = listed.split_whitespace();
        words
            .find(|word| *word == "packets")
            .and_then(|_| words.next())
            .and_then(|packets| packets.parse().ok())
            .with_context(|| listed.clone())
    };
    let all = counted("frames")?;
    ensure!(all >= 4, "{all} frames of a whole connection");
    ensure!(counted("with_mark")? == all, "not all {all} are marked");
    ensure!(
        counted("with_priority")? == all,
        "not all {all} have the priority"
    );
    Ok(())
}

/// The second request travels with the SYN. The program under test is the client, or the server.
fn opens_fast(stack: &Stack, server_near: bool) -> TestResult {
    let lab = Lab::new(Link::default())?;
    for host in [&lab.near, &lab.far] {
        host.sysctl("net/ipv4/tcp_fastopen", "3")?;
    }
    let stats = lab.path("stats.json");
    let port = PORT.to_string();
    let (server_host, client_host, address) = if server_near {
        (&lab.near, &lab.far, NEAR)
    } else {
        (&lab.far, &lab.near, FAR)
    };
    let before = Before::of(&lab)?;
    let mut server = server_host
        .program(example("fastopen_server"))
        .args([port.as_str(), "2"]);
    let mut client = client_host
        .program(example("fastopen_client"))
        .args([address, &port, "hello"]);
    let under_test = if server_near {
        &mut server
    } else {
        &mut client
    };
    *under_test = under_test.clone().under(stack).stats(&stats);
    let server = server.start()?;
    lab.wait_for_listener(server_host, PORT)?;
    let said = client.run()?.success()?;
    server.wait()?.success()?;
    ensure!(
        said.stdout == "hello: after the handshake\nhello: with the SYN\n",
        "{said}"
    );
    if stack.is_sidewire() {
        before
            .until_now(&lab, Some(Stats::read(&stats)?))?
            .begun_by_engine(2)?;
    }
    Ok(())
}

fn sends_without_copying(stack: &Stack) -> TestResult {
    sends_memory(stack, "zerocopy", COMPLETED, COMPLETED, None)
}

/// Once to the far host, and once to this one, which stays with the kernel.
fn says_who_carries(stack: &Stack) -> Result<()> {
    let lab = Lab::new(Link::default())?;
    let port = PORT.to_string();
    lab.near.run("ip", ["link", "set", "lo", "up"])?;
    for (host, address, sidewire) in [
        (&lab.far, FAR, "carried by Sidewire: accelerated"),
        (
            &lab.near,
            NEAR,
            "carried by the kernel: an address of this host",
        ),
    ] {
        let server = host
            .program(example("echo_server"))
            .args([port.as_str(), "1"])
            .start()?;
        lab.wait_for_listener(host, PORT)?;
        let said = lab
            .near
            .program(example("accelerated"))
            .args([address, &port, "hello"])
            .under(stack)
            .run()?
            .success()?;
        server.wait()?.success()?;
        let expected = if stack.is_sidewire() {
            sidewire
        } else {
            "carried by the kernel: Sidewire is not in front of this program"
        };
        let lines: Vec<_> = said.stdout.lines().collect();
        ensure!(lines[..2] == ["answer: hello", expected], "{said}");
        let counted = lines.iter().any(|l| l.starts_with("process: tx_frames "));
        ensure!(
            counted == (stack.is_sidewire() && host.id() == lab.far.id()),
            "{said}"
        );
    }
    Ok(())
}

const COMPLETED: &str = "every send completed";

/// Sends a file in a way that only the library has.
fn sends_own_memory(stack: &Stack, program: &str, done: &str, lost: Option<u32>) -> Result<()> {
    let natively = "sent by copying: Sidewire is not in front of this program";
    sends_memory(stack, program, done, natively, lost)
}

/// Sends a file without copying it, and says `done` or `natively` then. One frame in `lost` is lost.
fn sends_memory(
    stack: &Stack,
    program: &str,
    done: &str,
    natively: &str,
    lost: Option<u32>,
) -> Result<()> {
    let lab = Lab::new(Link::default())?;
    if let Some(every) = lost {
        lab.lose_one_in(&lab.near, every)?;
        lab.lose_one_in_on_the_way_to(&lab.far, every)?;
    }
    let stats = lab.path("stats.json");
    let (source, sink) = (lab.path("sent"), lab.path("arrived"));
    let sent = payload::write(&source, 2 * MIB + 1)?;
    let port = PORT.to_string();
    let before = Before::of(&lab)?;
    let receiver = receiver(&lab, PORT, &sink)?;
    let said = lab
        .near
        .program(example(program))
        .args([FAR, &port, &source.to_string_lossy()])
        .under(stack)
        .stats(&stats)
        .run()?
        .success()?;
    receiver.wait()?.success()?;
    ensure!(payload::sha256(&sink)? == sent, "what arrived differs");
    let expected = if stack.is_sidewire() { done } else { natively };
    ensure!(said.stdout.trim_end() == expected, "{said}");
    if stack.is_sidewire() {
        before
            .until_now(&lab, Some(Stats::read(&stats)?))?
            .begun_by_engine(1)?;
        let text = fs::read_to_string(&stats)?;
        ensure!(text.contains("\"BytesCopiedOut\":0,"), "copied: {text}");
    }
    Ok(())
}
