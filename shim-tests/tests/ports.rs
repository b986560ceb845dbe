//! The port belongs to the program, and the kernel keeps silent on it.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use shim_tests::capture::{Capture, syn_acks};
use shim_tests::compare::{same_as_native, same_as_native_wrapped};
use shim_tests::counters::{KernelTcp, TCP_LISTEN, kernel_sockets};
use shim_tests::iperf3::{Amount, Iperf3, Role};
use shim_tests::lab::{FAR, NEAR};
use shim_tests::library::{Stack, Stats};
use shim_tests::netcat::{Flavour, Part, move_file, move_file_wrapped};
use shim_tests::patience::until;
use shim_tests::payload::MIB;
use shim_tests::probe::probe;
use shim_tests::process::Running;
use shim_tests::{Lab, Link, Suite, TestResult};

const PORT: u16 = 7100;

/// Takes CAP_NET_ADMIN from the program for good.
const WITHOUT_NET_ADMIN: [&str; 5] = [
    "setpriv",
    "--bounding-set=-net_admin",
    "--inh-caps=-net_admin",
    "--ambient-caps=-net_admin",
    "--",
];

fn main() -> ExitCode {
    Suite::new("ports")
        .both("second_program_gets_eaddrinuse", &[], second_program)
        .both("rebind_and_two_remotes", &[], |stack| {
            same_as_native("rebind", stack)
        })
        .both("rebind_without_net_admin", &[], |stack| {
            same_as_native_wrapped("rebind", &WITHOUT_NET_ADMIN, stack)
        })
        .both("privileges_dropped", &[], |stack| {
            same_as_native("privileges", stack)
        })
        .both("a_successor_is_left_alone", &[], |stack| {
            same_as_native("successor", stack)
        })
        .both("a_fork_for_each_that_waits", &[], fork_for_each)
        .shim("a_crowd_is_answered", &[], crowd)
        .both("time_wait_leaves_descriptors", &[], |stack| {
            same_as_native("few_descriptors", stack)
        })
        .both("local_clients_are_served", &[], local_clients)
        .both("kernel_is_silent", &[], kernel_is_silent)
        .both("kernel_is_silent_without_net_admin", &[], |stack| {
            silent_without_net_admin(stack)
        })
        .both("no_answer_from_a_shadow", &[], |stack| {
            no_answer_from_a_shadow(stack, &[])
        })
        .both("no_answer_from_a_shadow_without_net_admin", &[], |stack| {
            no_answer_from_a_shadow(stack, &WITHOUT_NET_ADMIN)
        })
        .both("a_stranger_at_a_clients_port", &[], |stack| {
            strangers(stack, &[], Port::Clients)
        })
        .both(
            "a_stranger_at_a_clients_port_without_net_admin",
            &[],
            |stack| strangers(stack, &WITHOUT_NET_ADMIN, Port::Clients),
        )
        .both("a_stranger_where_the_listener_is_closed", &[], |stack| {
            strangers(stack, &[], Port::Servers(None))
        })
        .both(
            "a_stranger_where_the_listener_is_closed_without_net_admin",
            &[],
            |stack| strangers(stack, &WITHOUT_NET_ADMIN, Port::Servers(None)),
        )
        .both(
            "a_stranger_where_the_listener_is_closed_unprivileged",
            &[],
            |stack| strangers(stack, &[], Port::Servers(Some("1"))),
        )
        .both("nothing_left_after_sigkill", &[], nothing_left)
        .run()
}

/// A server for `count` short connections on the near host.
fn server(lab: &Lab, stack: &Stack, count: u32) -> Result<Running> {
    let server = lab
        .near
        .program(probe("connection_rate"))
        .args(["server", &PORT.to_string(), &count.to_string()])
        .under(stack)
        .stats(&lab.path("stats.json"))
        .start()?;
    lab.wait_for_listener(&lab.near, PORT)?;
    Ok(server)
}

/// Connections that wait when the server forks for the first of them are answered by its children, too.
fn fork_for_each(stack: &Stack) -> TestResult {
    const COUNT: u32 = 20;
    let lab = Lab::new(Link::default())?;
    let (port, count) = (PORT.to_string(), COUNT.to_string());
    let go = lab.path("go").to_string_lossy().into_owned();
    let server = lab
        .near
        .program(probe("fork_burst"))
        .args(["server", &port, &count, &go])
        .under(stack)
        .start()?;
    lab.wait_for_listener(&lab.near, PORT)?;
    let client = lab
        .far
        .program(probe("fork_burst"))
        .args(["client", NEAR, &port, &count, &go])
        .run()?
        .success()?;
    server.wait()?.success()?;
    ensure!(
        client.stdout.trim() == count,
        "{} of {COUNT} answered",
        client.stdout.trim()
    );
    Ok(())
}

/// Of a thousand that connect at once each gets its SYN-ACK the first time.
fn crowd(stack: &Stack) -> TestResult {
    const COUNT: u64 = 1000;
    let lab = Lab::new(Link::default())?;
    let (port, count) = (PORT.to_string(), COUNT.to_string());
    let stats = lab.path("stats.json");
    let server = lab
        .near
        .program(probe("crowd"))
        .args(["server", &port, &count])
        .under(stack)
        .stats(&stats)
        .start()?;
    lab.wait_for_listener(&lab.near, PORT)?;
    lab.far
        .program(probe("crowd"))
        .args(["client", NEAR, &port, &count])
        .run()?
        .success()?;
    server.wait()?.success()?;
    let stats = Stats::read(&stats)?;
    ensure!(stats.connections_engine == COUNT, "{stats:?}");
    ensure!(stats.retransmits == 0, "{stats:?}");
    Ok(())
}

fn second_program(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _server = server(&lab, stack, 1)?;
    let port = PORT.to_string();
    for second in [&Stack::Kernel, stack] {
        for address in ["0.0.0.0", NEAR, "127.0.0.1"] {
            for reuse in [&[][..], &["reuse"]] {
                let tried = lab
                    .near
                    .program(probe("bind_port"))
                    .args([address, &port])
                    .args(reuse.iter().copied())
                    .under(second)
                    .run()?
                    .success()?;
                ensure!(
                    tried.stdout.contains("-1 EADDRINUSE"),
                    "{} bound {address} {reuse:?}: {tried}",
                    second.name()
                );
            }
        }
    }
    Ok(())
}

fn local_clients(stack: &Stack) -> TestResult {
    const EACH: u32 = 5;
    let lab = Lab::new(Link::default())?;
    let server = server(&lab, stack, 4 * EACH)?;
    let each = EACH.to_string();
    for (host, address) in [
        (&lab.near, "127.0.0.1"),
        (&lab.far, NEAR),
        (&lab.near, NEAR),
        (&lab.far, NEAR),
    ] {
        host.program(probe("connection_rate"))
            .args(["client", address, &PORT.to_string(), &each, "1"])
            .run()?
            .success()
            .with_context(|| format!("client of {address}"))?;
    }
    server.wait()?.success()?;
    if stack.is_sidewire() {
        let stats = Stats::read(&lab.path("stats.json"))?;
        ensure!(
            stats.connections_engine == u64::from(2 * EACH)
                && stats.connections_kernel == u64::from(2 * EACH),
            "{stats:?}"
        );
    }
    Ok(())
}

fn kernel_is_silent(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let capture = Capture::start(&lab)?;
    let before = KernelTcp::of(&lab.near)?;
    for part in Part::ALL {
        move_file(&lab, stack, Flavour::OpenBsd, part, MIB, None)?;
    }
    // None of these closes with data unread, as iperf3 does.
    no_resets(&capture)?;
    near_kernel_said_nothing(&lab, stack, before)?;
    for role in [Role::Client, Role::Server] {
        let test = Iperf3::new(role, &["--bidir"], Amount::Bytes(4 * MIB));
        let outcome = test.run(&lab, stack)?;
        if stack.is_sidewire() {
            test.all_by_engine(&outcome)?;
        }
    }
    one_syn_ack_each(&capture)
}

fn silent_without_net_admin(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let capture = Capture::start(&lab)?;
    let before = KernelTcp::of(&lab.near)?;
    for part in Part::ALL {
        let wrapper = WITHOUT_NET_ADMIN;
        let (outcome, _) = move_file_wrapped(&lab, stack, Flavour::OpenBsd, part, MIB, &wrapper)?;
        if stack.is_sidewire() {
            outcome.carried.all_by_engine(1)?;
        }
    }
    no_resets(&capture)?;
    near_kernel_said_nothing(&lab, stack, before)?;
    one_syn_ack_each(&capture)
}

/// SYNs fall into every moment of a listener's beginning and end. The kernel refuses them, but never answers one: the
/// shadow of a listener listens silently or not at all.
fn no_answer_from_a_shadow(stack: &Stack, wrapper: &[&str]) -> TestResult {
    const TIMES: u32 = 1000;
    let lab = Lab::new(Link::default())?;
    let port = PORT.to_string();
    let knocking = lab
        .far
        .program(probe("relisten"))
        .args(["knock", NEAR, &port])
        .start()?;
    until("somebody to knock", || {
        Ok((KernelTcp::of(&lab.near)?.out_rsts > 0).then_some(()))
    })?;
    lab.near
        .program(probe("relisten"))
        .args(["listen", &port, &TIMES.to_string()])
        .wrapped(wrapper.iter().copied())
        .under(stack)
        .stats(&lab.path("stats.json"))
        .run()?
        .success()?;
    knocking.kill();
    let kernel = KernelTcp::of(&lab.near)?;
    if stack.is_sidewire() {
        let stats = Stats::read(&lab.path("stats.json"))?;
        ensure!(
            stats.tx_frames > 0,
            "nobody came while it listened: {stats:?}"
        );
        ensure!(kernel.sent_only_resets(), "{kernel:?}");
    } else {
        ensure!(
            kernel.out_segs > kernel.out_rsts,
            "nobody came while it listened: {kernel:?}"
        );
    }
    Ok(())
}

/// What has a port, beside a connection there.
#[derive(Clone, Copy)]
enum Port {
    /// The connection only: it was opened from there.
    Clients,
    /// A listener had it, of a program that became this user in between.
    Servers(Option<&'static str>),
}

/// Who connects to a port at which only a connection with somebody else lives is refused, once: by the kernel, or by the
/// engine where the kernel is kept silent.
fn strangers(stack: &Stack, wrapper: &[&str], port: Port) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let number = PORT.to_string();
    let run = |program: shim_tests::program::Program| {
        let wrapped = program.wrapped(wrapper.iter().copied());
        wrapped.under(stack).start()
    };
    let (near, far) = match port {
        Port::Clients => {
            let server = lab.far.program("nc").args(["-d", "-l", &number]).start()?;
            lab.wait_for_listener(&lab.far, PORT)?;
            let client = lab.near.program("nc");
            (
                run(client.args(["-d", "-p", &number, FAR, &number]))?,
                server,
            )
        }
        Port::Servers(user) => {
            let server = lab.near.program(probe("one_client"));
            let server = run(server.args(["stays", &number].into_iter().chain(user)))?;
            server.wait_for_output("listening")?;
            let client = lab.far.program("nc").args(["-d", NEAR, &number]).start()?;
            server.wait_for_output("closed")?;
            (server, client)
        }
    };
    until("the connection", || {
        Ok(lab
            .far
            .run("ss", ["-Htn", "state", "established"])?
            .contains(&number)
            .then_some(()))
    })?;
    let capture = Capture::start(&lab)?;
    let stranger = lab
        .far
        .program("nc")
        .args(["-w", "5", NEAR, &number])
        .run()?;
    ensure!(!stranger.status.success(), "{stranger:?}");
    // A second one would have come before what is answered after it.
    lab.far.run("ping", ["-c", "1", NEAR])?;
    let source = format!("{NEAR}:{number}");
    let mut resets = capture.frames()?;
    resets.retain(|frame| frame.flags.contains('R') && frame.source == source);
    ensure!(resets.len() == 1, "{resets:?}");
    near.kill();
    far.kill();
    Ok(())
}

fn no_resets(capture: &Capture) -> TestResult {
    let near = format!("{NEAR}:");
    let mut resets = capture.frames()?;
    resets.retain(|frame| frame.flags.contains('R') && frame.source.starts_with(&near));
    ensure!(resets.is_empty(), "resets: {resets:?}");
    Ok(())
}

fn one_syn_ack_each(capture: &Capture) -> TestResult {
    let frames = capture.frames()?;
    let answers = syn_acks(&frames);
    ensure!(!answers.is_empty(), "nothing was captured");
    for (server, client, count) in answers {
        ensure!(
            count == 1,
            "{server} answered {client} with {count} SYN-ACKs"
        );
    }
    Ok(())
}

fn near_kernel_said_nothing(lab: &Lab, stack: &Stack, before: KernelTcp) -> TestResult {
    if stack.is_sidewire() {
        let kernel = KernelTcp::of(&lab.near)?.since(before);
        ensure!(kernel.out_segs == 0 && kernel.out_rsts == 0, "{kernel:?}");
    }
    Ok(())
}

fn nothing_left(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let port = PORT.to_string();
    let mut programs = Vec::new();
    let far_server = lab
        .far
        .program("iperf3")
        .args(["-s", "-p", &port])
        .start()?;
    lab.wait_for_listener(&lab.far, PORT)?;
    let near_server = lab
        .near
        .program("iperf3")
        .args(["-s", "-p", &port])
        .under(stack)
        .start()?;
    lab.wait_for_listener(&lab.near, PORT)?;
    for (host, peer, stack) in [(&lab.near, FAR, stack), (&lab.far, NEAR, &Stack::Kernel)] {
        let client = host
            .program("iperf3")
            .args([
                "-c",
                peer,
                "-p",
                &port,
                "-t",
                "600",
                "-P",
                "4",
                "--forceflush",
            ])
            .under(stack)
            .start()?;
        client.wait_for_output("bits/sec")?;
        programs.push(client);
    }
    programs[0].kill();
    near_server.kill();
    until("the near kernel to forget the killed programs", || {
        let left = kernel_sockets(&lab.near)?
            .into_iter()
            .filter(|s| s.local_port == PORT && s.state == TCP_LISTEN)
            .count();
        // The kernel's own orphans drain for a while; the shim's holders must not.
        let packet = lab.near.proc_net("packet")?.lines().count() - 1;
        let connections = kernel_sockets(&lab.near)?.len();
        let gone = left == 0 && packet == 0 && (!stack.is_sidewire() || connections == 0);
        Ok(gone.then_some(()))
    })?;
    drop(programs);
    drop(far_server);
    // The port is free at once, and works.
    let outcome = Iperf3::new(Role::Server, &[], Amount::Bytes(4 * MIB)).run(&lab, stack)?;
    ensure!(outcome.bytes > 0, "{outcome:?}");
    let server = server(&lab, stack, 1)?;
    lab.far
        .program(probe("connection_rate"))
        .args(["client", NEAR, &port, "1", "1"])
        .run()?
        .success()?;
    server.wait()?.success()?;
    Ok(())
}
