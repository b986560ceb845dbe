//! What the shim does when there is nothing to do, or when it may not.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::counters::KernelTcp;
use shim_tests::cpu_time::CpuTimes;
use shim_tests::cpus;
use shim_tests::lab::{FAR, Lab};
use shim_tests::library::{Stack, Stats};
use shim_tests::netcat::{Flavour, Part, move_file_wrapped};
use shim_tests::netns::{Privilege, privilege};
use shim_tests::payload::MIB;
use shim_tests::probe::probe;
use shim_tests::{Link, Suite, TestResult};

/// Takes CAP_NET_RAW from the program for good.
const WITHOUT_NET_RAW: [&str; 5] = [
    "setpriv",
    "--bounding-set=-net_raw",
    "--inh-caps=-net_raw",
    "--ambient-caps=-net_raw",
    "--",
];

fn main() -> ExitCode {
    Suite::new("quiet")
        .shim("ls_notices_nothing", &[], ls_notices_nothing)
        .both("idle_in_poll", &[], |stack| idle(stack, "poll"))
        .both("idle_in_epoll", &[], |stack| idle(stack, "epoll"))
        .both("idle_elsewhere", &[], |stack| idle(stack, "elsewhere"))
        .shim("acks_while_it_computes", &[], acks_while_it_computes)
        .both("sends_drive", &[], sends_drive)
        .both("timers_without_a_thread", &[], timers_without_a_thread)
        .shim("without_net_raw_on_the_kernel", &[], without_net_raw)
        .shim("with_little_memory_on_the_kernel", &[], little_memory)
        .shim("without_net_raw_strict_stops", &[], without_net_raw_strict)
        .run()
}

/// Who computes is stood in for: each frame wakes the pump, none waits until it looks again.
fn acks_while_it_computes(stack: &Stack) -> TestResult {
    const PORT: u16 = 7998;
    // Less than the first window: beyond it acks are delayed.
    const BURSTS: usize = 16;
    let lab = Lab::new(Link::default())?;
    let sender = lab
        .far
        .program(probe("bursts"))
        .args([PORT.to_string(), BURSTS.to_string()])
        .start()?;
    lab.wait_for_listener(&lab.far, PORT)?;
    let (trace, over) = (lab.path("trace"), lab.path("over"));
    let computes = lab
        .near
        .program(probe("computes"))
        .args([FAR, &PORT.to_string(), &over.to_string_lossy()])
        .under(stack)
        .wrapped(["strace", "-f", "-e", "trace=ppoll", "-o"])
        .wrapped([trace.to_string_lossy()])
        .start()?;
    sender.wait()?.success()?;
    fs::write(&over, "")?;
    computes.wait()?.success()?;
    let trace = fs::read_to_string(&trace)?;
    let ended = |how: &str| trace.lines().filter(|line| line.contains(how)).count();
    let (woken, looked) = (ended("revents=POLLIN"), ended("(Timeout)"));
    ensure!(
        woken >= BURSTS / 2 && looked < 3 * BURSTS / 4,
        "woken {woken} times, looked {looked} times by itself"
    );
    Ok(())
}

/// One send after another, on one CPU with the peer: the sends take the acknowledgements along, and the pump, which waited for
/// frames before, is not woken by each.
fn sends_drive(stack: &Stack) -> TestResult {
    const PORT: u16 = 7997;
    const SENDS: u64 = 5000;
    let lab = Lab::new(Link::default())?;
    let cpu = *cpus::allowed()?.first().context("no CPU")?;
    let peer = lab
        .far
        .program(probe("send_rate"))
        .args(["server", &PORT.to_string(), "1"])
        .cpu(cpu)
        .start()?;
    lab.wait_for_listener(&lab.far, PORT)?;
    let sends = lab
        .near
        .program(probe("run_of_sends"))
        .args([FAR, &PORT.to_string(), &SENDS.to_string()])
        .under(stack)
        .cpu(cpu)
        .run()?
        .success()?;
    peer.wait()?.success()?;
    let sleeps: u64 = sends.stdout.trim().parse()?;
    ensure!(
        sleeps < SENDS / 4,
        "the pump slept {sleeps} times in {SENDS} sends"
    );
    Ok(())
}

/// A program that may not have a second thread, and a host that says nothing: connect gives up when it has to.
fn timers_without_a_thread(stack: &Stack) -> TestResult {
    const PORT: u16 = 7999;
    let lab = Lab::new(Link::default())?;
    let silence = format!(
        "table ip t {{ chain i {{ type filter hook input priority 0; tcp dport {PORT} drop; }}; }}"
    );
    lab.far.run("nft", [silence.as_str()])?;
    lab.near
        .run("sysctl", ["-w", "net.ipv4.tcp_syn_retries=1"])?;
    let mut client = lab.near.program(Flavour::OpenBsd.program());
    client = client.args(["-v", FAR, &PORT.to_string()]);
    if let Stack::Sidewire(library) = stack {
        // Where an ordinary user finds it.
        fs::set_permissions(lab.dir(), Permissions::from_mode(0o755))?;
        let copy = lab.path("libsidewire.so");
        fs::copy(library.path(), &copy)?;
        client = client.env("LD_PRELOAD", copy);
    }
    if privilege() == Privilege::Root {
        // The limit is not for root.
        client = client.wrapped([
            "setpriv",
            "--reuid=65534",
            "--inh-caps=+net_raw,+net_admin",
            "--ambient-caps=+net_raw,+net_admin",
        ]);
    }
    let before = KernelTcp::of(&lab.near)?;
    // Three seconds; without timers it would be what else happens on the link that ends it.
    let patience = Duration::from_secs(20);
    let ended = client
        .wrapped(["prlimit", "--nproc=1"])
        .patience(patience)
        .run()?;
    ensure!(
        !ended.status.success() && ended.stderr.contains("timed out"),
        "{ended:?}"
    );
    let sent = KernelTcp::of(&lab.near)?.out_segs - before.out_segs;
    ensure!((sent == 0) == stack.is_sidewire(), "the kernel sent {sent}");
    Ok(())
}

fn ls_notices_nothing(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let run = |stack: &Stack| {
        let trace = lab.path(stack.name());
        let ls = lab
            .near
            .program("ls")
            .args(["-l", "/etc"])
            .under(stack)
            .wrapped(["strace", "-f", "-o"])
            .wrapped([trace.to_string_lossy()])
            .run()?
            .success()?;
        let trace = fs::read_to_string(&trace)?;
        let exec = trace.rfind("execve(").context("no execve in the trace")?;
        Ok::<_, anyhow::Error>((ls, trace[exec..].to_owned()))
    };
    let (native, native_trace) = run(&Stack::Kernel)?;
    let (shimmed, trace) = run(stack)?;
    ensure!(shimmed.stdout == native.stdout, "the listing differs");
    ensure!(shimmed.stderr.is_empty(), "it wrote {:?}", shimmed.stderr);

    let tasks: BTreeSet<&str> = trace.lines().filter_map(|l| l.split(' ').next()).collect();
    ensure!(tasks.len() <= 2, "it started something: {tasks:?}");
    // ls itself asks for the names of users, over a socket of its own.
    let calls = |trace: &str, call: &str| trace.matches(call).count();
    for call in [
        "clone",
        "fork(",
        "socket(",
        "eventfd",
        "epoll_create",
        "timerfd",
        "write(",
    ] {
        let (more, native) = (calls(&trace, call), calls(&native_trace, call));
        ensure!(more == native, "{call} {more} times, natively {native}");
    }
    let opened = |trace: &str| -> BTreeSet<String> {
        trace
            .lines()
            .filter(|line| line.contains("open") && !line.contains("= -1"))
            .filter_map(|line| line.split('"').nth(1).map(str::to_owned))
            .collect()
    };
    let native_files = opened(&native_trace);
    let more: Vec<String> = opened(&trace)
        .into_iter()
        .filter(|file| !native_files.contains(file))
        // The linker's own: the library and the libraries it is linked to.
        .filter(|file| !file.contains(".so"))
        .collect();
    ensure!(more.is_empty(), "it opened {more:?}");
    Ok(())
}

/// A hundred connections with nothing to read, one with what nobody reads, and broadcasts.
fn idle(stack: &Stack, how: &str) -> TestResult {
    const SECONDS: u64 = 5;
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let stats = lab.path("stats.json");
    let idle = lab
        .near
        .program(probe("idle"))
        .args([FAR, &PEER_PORT.to_string(), "100", how])
        .under(stack)
        .stats(&stats)
        .start()?;
    idle.wait_for_output("ready\n")?;
    let before = CpuTimes::of(idle.id())?;
    lab.far
        .program(probe("broadcast"))
        .args(["192.0.2.255", "1000", &SECONDS.to_string()])
        .run()?
        .success()?;
    let used = CpuTimes::of(idle.id())?.since(&before);
    ensure!(!idle.has_ended(), "it was woken: {}", idle.stdout());
    let limit = SECONDS * 1_000_000_000 / 100;
    ensure!(
        used < limit,
        "{used} ns of CPU in {SECONDS} s, at most {limit}"
    );
    if stack.is_sidewire() {
        let kernel = shim_tests::counters::KernelTcp::of(&lab.near)?;
        ensure!(kernel.out_segs == 0, "not on the engine: {kernel:?}");
    }
    Ok(())
}

fn without_net_raw(stack: &Stack) -> TestResult {
    on_the_kernel(stack, &WITHOUT_NET_RAW, "CAP_NET_RAW")
}

/// Too little for the arenas: a program that asks for no more than that works.
fn little_memory(stack: &Stack) -> TestResult {
    on_the_kernel(stack, &["prlimit", "--data=4194304"], "RLIMIT_DATA")
}

fn on_the_kernel(stack: &Stack, wrapped: &[&str], missing: &str) -> TestResult {
    let lab = Lab::new(Link::default())?;
    for part in Part::ALL {
        let (outcome, near) = move_file_wrapped(&lab, stack, Flavour::OpenBsd, part, MIB, wrapped)?;
        let stats = outcome.carried.stats.context("no counters")?;
        ensure!(
            stats.connections_engine == 0 && stats.connections_kernel == 1,
            "{stats:?}"
        );
        let lines: Vec<&str> = near.stderr.lines().collect();
        ensure!(
            lines.len() == 1 && lines[0].contains(missing),
            "one line should name what is missing: {lines:?}"
        );
    }
    Ok(())
}

fn without_net_raw_strict(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let stopped = lab
        .near
        .program("nc.openbsd")
        .args(["-N", FAR, &PEER_PORT.to_string()])
        .under(stack)
        .env("SIDEWIRE_STRICT", "1")
        .stats(&lab.path("stats.json"))
        .wrapped(WITHOUT_NET_RAW)
        .run()?;
    ensure!(!stopped.status.success(), "it went on: {stopped}");
    let lines: Vec<&str> = stopped.stderr.lines().collect();
    ensure!(
        lines.len() == 1 && lines[0].contains("CAP_NET_RAW"),
        "one line should name what is missing: {lines:?}"
    );
    if let Ok(stats) = Stats::read(&lab.path("stats.json")) {
        ensure!(stats.connections_kernel == 0, "{stats:?}");
    }
    Ok(())
}
