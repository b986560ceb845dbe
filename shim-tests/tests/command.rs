//! The `sidewire` command, with real programs on a real link.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::counters::Before;
use shim_tests::lab::{FAR, NEAR};
use shim_tests::library::{Library, Stack, Stats};
use shim_tests::netcat::receiver;
use shim_tests::netns::{Privilege, privilege};
use shim_tests::patience::until;
use shim_tests::payload::{self, MIB};
use shim_tests::process::Running;
use shim_tests::program::Program;
use shim_tests::{Lab, Link, Need, Suite, TestResult};

const PORT: u16 = 7400;

fn main() -> ExitCode {
    Suite::new("command")
        .shim("run_moves_a_file", &[], run_moves_a_file)
        .shim("run_explains_a_send", &[], run_explains_a_send)
        .shim("a_file_limit_is_one_line", &[], file_limit)
        .shim("run_asks_for_the_capability", &[], run_without_capability)
        .shim("status_ss_and_top_look_inside", &[], look_inside)
        .shim("run_chooses_congestion_control", &[], chooses_congestion)
        .shim("status_tells_pid_namespaces_apart", &[], pid_namespaces)
        .shim("status_waits_for_nobody_who_is_stopped", &[], stopped)
        .shim(
            "status_sees_through_mount_namespaces",
            &[],
            mount_namespaces,
        )
        .shim("status_sees_into_user_namespaces", &[], user_namespaces)
        .shim("log_tells_who_carries", &[], log_tells)
        .shim("rules_choose_who_carries", &[], rules_choose)
        .shim("plot_draws_a_capture", &[Need::EgressHook], |stack| {
            capture_with_loss(&Lab::new(Link::default())?, stack)?;
            Ok(())
        })
        .long(|suite| suite.shim("tshark_reads_a_capture", &[Need::EgressHook], tshark_reads))
        .shim("demo_prints_its_table", &[], demo_prints_its_table)
        .shim("demo_cleans_up_when_interrupted", &[], demo_interrupted)
        .test("bench_writes_its_results", &[Need::Library], bench_writes)
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

/// A server with a client, seen from outside while it runs; and no more when it was killed.
fn look_inside(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let port = PORT.to_string();
    let server = lab
        .near
        .program("nc.openbsd")
        .args(["-d", "-k", "-l", &port])
        .under(stack)
        .start()?;
    lab.wait_for_listener(&lab.near, PORT)?;
    let _client = lab
        .far
        .program("nc.openbsd")
        .args(["-d", NEAR, &port])
        .start()?;
    let pid = server.id().to_string();
    let command = sidewire(stack)?;
    let ask = |words: &[&str]| {
        let asked = lab.near.program(&command).args(words.iter().copied());
        Ok::<_, anyhow::Error>(asked.run()?.success()?.stdout)
    };
    wait_for_answer(&lab, &command, &server)?;
    let line = until("the connection in ss", || {
        let table = ask(&["ss", "-HOtinp", "--pid", &pid])?;
        Ok(table
            .lines()
            .find(|l| l.starts_with("ESTAB"))
            .map(str::to_owned))
    })?;
    let name = format!("{NEAR}:{PORT}");
    let owner = format!("users:((\"nc.openbsd\",pid={pid},fd=");
    let parts = [
        &name,
        FAR,
        &owner,
        "ts sack cubic wscale:",
        " mss:1448 ",
        " cwnd:10 ",
    ];
    for part in parts {
        ensure!(line.contains(part), "{part:?} is not in {line:?}");
    }
    let listening = ask(&["ss", "-Hl", "--pid", &pid])?;
    ensure!(
        listening.starts_with("LISTEN") && listening.lines().count() == 1,
        "{listening}"
    );
    let status = ask(&["status", &pid])?;
    let first = format!("nc.openbsd ({pid}): 2 sockets on the engine, 0 on the kernel,");
    ensure!(
        status.starts_with(&first) && status.contains("PassiveOpens"),
        "{status}"
    );
    let top = ask(&["top", "-n", "1", &pid])?;
    ensure!(
        top.contains("connections: 1,") && top.contains(&name),
        "{top}"
    );
    let json: serde_json::Value = serde_json::from_str(&ask(&["ss", "--json", "--pid", &pid])?)?;
    ensure!(json[0]["counters"]["PassiveOpens"] == 1, "{json}");

    server.kill();
    let gone = lab.near.program(&command).args(["status", &pid]).run()?;
    ensure!(
        gone.status.code() == Some(1)
            && gone
                .stderr
                .starts_with(&format!("sidewire: no process {pid} ")),
        "{gone}"
    );
    Ok(())
}

/// Two servers, each the first process of a pid namespace: seen from outside under the numbers that they have there,
/// and from inside one of them as number 1.
fn pid_namespaces(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let serve = |port: u16| {
        let server = lab
            .near
            .program("nc.openbsd")
            .args(["-d", "-k", "-l", &port.to_string()])
            .under(stack)
            .wrapped(["unshare", "--pid", "--fork", "--kill-child"])
            .start()?;
        lab.wait_for_listener(&lab.near, port)?;
        Ok::<_, anyhow::Error>(server)
    };
    // Nobody else's: as root we see the other tests' processes, too.
    let ports = [PORT + 10, PORT + 11];
    let _servers = [serve(ports[0])?, serve(ports[1])?];
    let command = sidewire(stack)?;
    let listens_at = |pid: &str, port: u16| {
        let table = lab.near.run(&command, ["ss", "-Hl", "--pid", pid])?;
        let name = format!(":{port} ");
        Ok::<_, anyhow::Error>(table.lines().count() == 1 && table.contains(&name))
    };
    for port in ports {
        let ours = |report: &&serde_json::Value| {
            let sockets = report["sockets"].as_array().into_iter().flatten();
            sockets
                .filter_map(|s| s["local"].as_str())
                .any(|local| local.ends_with(&format!(":{port}")))
        };
        let pid = until("the server's report", || {
            let reports = lab.near.run(&command, ["status", "--json"])?;
            let reports: serde_json::Value = serde_json::from_str(&reports)?;
            let report = reports.as_array().and_then(|all| all.iter().find(ours));
            Ok(report.map(|report| report["pid"].to_string()))
        })?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        ensure!(name == "nc.openbsd\n", "process {pid} is {name:?}");
        ensure!(listens_at(&pid, port)?, "{pid} does not listen at {port}");
        let inside = [
            "--target", &pid, "--pid", &command, "ss", "-Hl", "--pid", "1",
        ];
        let table = lab.near.run("nsenter", inside)?;
        ensure!(
            table.lines().count() == 1 && table.contains(&format!(":{port} ")),
            "inside: {table}"
        );
    }
    Ok(())
}

/// A netcat that listens at `port`, below `wrapper`.
fn listener(lab: &Lab, stack: &Stack, port: u16, wrapper: &[&str]) -> Result<Running> {
    let server = lab
        .near
        .program("nc.openbsd")
        .args(["-d", "-k", "-l", &port.to_string()])
        .under(stack)
        .wrapped(wrapper.iter().copied())
        .start()?;
    Ok(server)
}

/// Waits until a server answers visitors: it listens a moment before.
fn wait_for_answer(lab: &Lab, command: &str, server: &Running) -> Result<()> {
    let pid = server.id().to_string();
    until("an answer from the server", || {
        let asked = lab.near.program(command);
        let asked = asked.args(["ss", "-Hl", "--pid", &pid]).run()?;
        Ok((!asked.stdout.is_empty()).then_some(()))
    })
}

/// Fills the queue of visitors at the socket of a process that is stopped, and holds it full until its input ends.
const FILL: &str = r#"
import glob, os, socket, sys

name = f"{sys.argv[1]}-{os.stat('/proc/self/ns/pid').st_ino}.sock"
door, = glob.glob(f"/run/user/*/sidewire/{name}") + glob.glob(f"/tmp/sidewire-*/{name}")
held = []
try:
    while True:
        visitor = socket.socket(socket.AF_UNIX)
        visitor.setblocking(False)
        visitor.connect(door)
        held.append(visitor)
except BlockingIOError:
    print(f"full of {len(held)}", flush=True)
os.read(0, 1)
"#;

/// A process that is stopped, its queue of visitors full, keeps nobody waiting, and another one is shown all the same.
fn stopped(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let command = sidewire(stack)?;
    let ports = [PORT, PORT + 1];
    let [still, going] = ports.map(|port| listener(&lab, stack, port, &[]));
    let (still, going) = (still?, going?);
    for server in [&still, &going] {
        wait_for_answer(&lab, &command, server)?;
    }
    let pid = still.id().to_string();
    still.signal(libc::SIGSTOP)?;
    until("the process to stop", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(status.contains("State:\tT").then_some(()))
    })?;
    let said = format!("sidewire: process {pid} (nc.openbsd) does not answer: it is stopped\n");
    // Visitors that it still lets into the queue, then a full queue.
    let mut filler = None;
    for full in [false, true] {
        if full {
            let input = lab.path("nothing");
            lab.near
                .run("mkfifo", [input.to_str().context("a path in UTF-8")?])?;
            let filling = lab
                .near
                .program("sh")
                .args(["-c", "exec python3 -c \"$0\" \"$1\" <>\"$2\"", FILL, &pid])
                .args([input.display().to_string()])
                .start()?;
            filling.wait_for_output("full of")?;
            filler = Some(filling);
        }
        let asked = lab
            .near
            .program(&command)
            .args(["status"])
            .run()?
            .success()?;
        let other = format!("nc.openbsd ({}): 1 socket on the engine", going.id());
        ensure!(
            asked.stderr.contains(&said) && asked.stdout.contains(&other),
            "full: {full}: {asked}"
        );
        let asked = lab.near.program(&command).args(["status", &pid]).run()?;
        ensure!(
            asked.status.code() == Some(1) && asked.stderr == said && asked.stdout.is_empty(),
            "full: {full}: {asked}"
        );
    }
    drop(filler);
    still.signal(libc::SIGCONT)?;
    until("an answer", || {
        let asked = lab.near.program(&command).args(["status", &pid]).run()?;
        Ok(asked.status.success().then_some(()))
    })
}

/// A server with a /tmp and a /run of its own is seen from outside, and not twice.
fn mount_namespaces(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let command = sidewire(stack)?;
    // The library stays where it is, also where that is below /tmp.
    let script = "mount -t tmpfs none /run && mkdir /run/library && mount --bind \"$0\" /run/library && \
                  mount -t tmpfs none /tmp && mkdir -p \"$0\" && mount --move /run/library \"$0\" && exec \"$@\"";
    let library = Path::new(&command).parent().context("a directory")?;
    let library = library.to_str().context("path in UTF-8")?;
    let hidden = ["unshare", "--mount", "sh", "-c", script, library];
    // The same directories, in another mount namespace.
    let shared = ["unshare", "--mount"];
    let ports = [PORT, PORT + 1];
    let servers = [
        listener(&lab, stack, ports[0], &hidden)?,
        listener(&lab, stack, ports[1], &shared)?,
    ];
    for (server, port) in servers.iter().zip(ports) {
        wait_for_answer(&lab, &command, server)?;
        let pid = server.id().to_string();
        let table = lab.near.run(&command, ["ss", "-Hl", "--pid", &pid])?;
        ensure!(
            table.lines().count() == 1 && table.contains(&format!(":{port} ")),
            "{port}: {table}"
        );
    }
    Ok(())
}

/// A server in a user namespace, where its user is root: seen from there by that root, and from outside by its user and
/// by root.
fn user_namespaces(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let command = sidewire(stack)?;
    // As root we can be an ordinary user first; an ordinary user's lab is in a user namespace already.
    let user: &[&str] = match privilege() {
        Privilege::Root => &[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ],
        _ => &[],
    };
    let wrapper = match privilege() {
        Privilege::Root => [user, &["unshare", "-Urn"]].concat(),
        _ => Vec::new(),
    };
    let server = listener(&lab, stack, PORT, &wrapper)?;
    let pid = server.id().to_string();
    let listens = |table: &str| table.lines().count() == 1 && table.contains(&format!(":{PORT} "));
    wait_for_answer(&lab, &command, &server)?;
    let ask = |wrapper: &[&str]| {
        let words = [wrapper, &[&command, "ss", "-Hl", "--pid", &pid]].concat();
        let asked = Command::new(words[0]).args(&words[1..]).output()?;
        ensure!(asked.status.success(), "{asked:?}");
        Ok::<_, anyhow::Error>(String::from_utf8(asked.stdout)?)
    };
    let inside = [
        "nsenter",
        "--target",
        &pid,
        "--user",
        "--preserve-credentials",
    ];
    for wrapper in [&[][..], user, &[user, &inside[..]].concat()] {
        let table = ask(wrapper)?;
        ensure!(listens(&table), "{wrapper:?}: {table:?}");
    }
    Ok(())
}

/// `--congestion`, seen by the program and from outside.
fn chooses_congestion(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _receiver = receiver(&lab, PORT, Path::new("/dev/null"))?;
    let stats = lab.path("stats");
    let program = format!(
        "import socket
s = socket.create_connection((\"{FAR}\", {PORT}))
print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b\"\\0\").decode())
"
    );
    let ran = lab
        .near
        .program(sidewire(stack)?)
        .args([
            "run",
            "--strict",
            "--congestion",
            "reno",
            "--",
            "python3",
            "-c",
            &program,
        ])
        .stats(&stats)
        .run()?
        .success()?;
    ensure!(ran.stdout == "reno\n", "{ran}");
    ensure!(Stats::read(&stats)?.connections_engine == 1, "{ran}");
    Ok(())
}

/// `--log info`: a connection of the engine's in each direction, and one of the kernel's.
fn log_tells(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let port = PORT.to_string();
    let run = |options: &[&str], netcat: &[&str]| {
        let words = [
            &["run", "--log", "info"],
            options,
            &["--", "nc.openbsd"],
            netcat,
        ]
        .concat();
        Ok::<_, anyhow::Error>(lab.near.program(sidewire(stack)?).args(words))
    };
    let out = ["-N", FAR, &port];
    for (options, line) in [
        (
            &[][..],
            format!("connection to {FAR}:{port}: carried by the engine"),
        ),
        (
            &["--profile", "kernel"],
            format!(
                "descriptor 3, connection to {FAR}:{port}: carried by the kernel: a rule of the settings"
            ),
        ),
    ] {
        let settings = lab.path("settings");
        fs::write(&settings, RULES)?;
        let receiver = receiver(&lab, PORT, Path::new("/dev/null"))?;
        let sent = run(options, &out)?
            .env("SIDEWIRE_CONFIG", &settings)
            .run()?
            .success()?;
        receiver.wait()?.success()?;
        ensure!(sent.stderr == format!("sidewire: {line}\n"), "{sent}");
    }
    let server = run(&[], &["-d", "-l", &port])?.start()?;
    lab.wait_for_listener(&lab.near, PORT)?;
    lab.far
        .program("nc.openbsd")
        .args(["-N", NEAR, &port])
        .run()?
        .success()?;
    let served = server.wait()?.success()?;
    let line = format!("sidewire: connection from {FAR}:");
    ensure!(
        served.stderr.starts_with(&line) && served.stderr.ends_with(": carried by the engine\n"),
        "{served}"
    );
    Ok(())
}

/// A user's settings, with a rule in a profile, and one for another port.
const RULES: &str = "\
[[rule]]
port = 1
accelerate = false
[profile.kernel]
[[profile.kernel.rule]]
program = \"nc.openbsd\"
direction = \"out\"
address = \"192.0.2.0/24\"
port = \"7400-7401\"
accelerate = false
";

fn rules_choose(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let settings = lab.path("sidewire");
    fs::create_dir(&settings)?;
    fs::write(settings.join("config.toml"), RULES)?;
    let (port, stats) = (PORT.to_string(), lab.path("stats"));
    for (options, by_kernel) in [(&["run"][..], 0), (&["run", "--profile", "kernel"][..], 1)] {
        let receiver = receiver(&lab, PORT, Path::new("/dev/null"))?;
        let sent = lab
            .near
            .program(sidewire(stack)?)
            .args(options.iter().copied())
            .args(["--", "nc.openbsd", "-N", FAR, &port])
            .env("XDG_CONFIG_HOME", lab.dir())
            .stats(&stats)
            .run()?
            .success()?;
        receiver.wait()?.success()?;
        ensure!(sent.stderr.is_empty(), "it said {:?}", sent.stderr);
        let got = Stats::read(&stats)?;
        ensure!(
            got.connections_kernel == by_kernel && got.connections_engine == 1 - by_kernel,
            "{options:?}: {got:?}"
        );
    }
    Ok(())
}

/// A transfer with losses on the way, captured and drawn; the capture.
fn capture_with_loss(lab: &Lab, stack: &Stack) -> Result<String> {
    let (source, capture, page) = (lab.path("sent"), lab.path("pcapng"), lab.path("svg"));
    payload::write(&source, 4 * MIB)?;
    lab.lose_one_in_on_the_way_to(&lab.far, 60)?;
    let port = PORT.to_string();
    let receiver = receiver(lab, PORT, Path::new("/dev/null"))?;
    let (capture, page) = (capture.display().to_string(), page.display().to_string());
    let command = sidewire(stack)?;
    lab.near
        .program(&command)
        .args([
            "run",
            "--pcap",
            &capture,
            "--",
            "nc.openbsd",
            "-N",
            FAR,
            &port,
        ])
        .stdin(&source)
        .run()?
        .success()?;
    receiver.wait()?.success()?;
    lab.near
        .program(&command)
        .args(["plot", &capture, "-o", &page])
        .run()?
        .success()?;
    let drawn = fs::read_to_string(&page)?;
    let title = format!(" – {FAR}:{PORT}: sent");
    for part in [&title, "retransmitted", "cwnd", "round trip", "throughput"] {
        ensure!(drawn.contains(part), "{part:?} is not on the page");
    }
    Ok(capture)
}

/// Another program reads the capture, with the reasons.
fn tshark_reads(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let capture = capture_with_loss(&lab, stack)?;
    let read = lab
        .near
        .program("tshark")
        .args([
            "-r",
            &capture,
            "-T",
            "fields",
            "-e",
            "tcp.analysis.retransmission",
        ])
        .args(["-e", "frame.comment"])
        .run()?
        .success()?;
    ensure!(
        !read.stderr.contains("appears to have been cut short"),
        "{read}"
    );
    let remarks = |line: &&str| line.contains("retransmission: fast, RACK; cwnd=");
    ensure!(read.stdout.lines().any(|line| remarks(&line)), "{read}");
    let plain = |line: &str| line.contains("cwnd=") && line.contains("srtt_us=");
    ensure!(
        read.stdout.lines().filter(|l| plain(l)).count() > 50,
        "{read}"
    );
    Ok(())
}

fn run_moves_a_file(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (source, sink, stats) = (lab.path("sent"), lab.path("arrived"), lab.path("stats"));
    let sent = payload::write(&source, 4 * MIB)?;
    let port = PORT.to_string();
    let before = Before::of(&lab)?;
    let receiver = receiver(&lab, PORT, &sink)?;
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

/// What the library writes at a limit of file sizes: its own lines, and no SIGXFSZ.
fn file_limit(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (source, file) = (lab.path("line"), lab.path("limited"));
    fs::write(&source, "hello\n")?;
    for key in ["pcap", "stats", "explain"] {
        let receiver = receiver(&lab, PORT, Path::new("/dev/null"))?;
        let setting = format!("{key}={}", file.display());
        let sender = lab
            .near
            .program(sidewire(stack)?)
            .args(["run", "--set", &setting, "--", "nc.openbsd", "-N", FAR])
            .args([PORT.to_string()])
            .wrapped(["prlimit", "--fsize=0"])
            .stdin(&source)
            .run()?
            .success()?;
        receiver.wait()?.success()?;
        let begins = format!("sidewire: SIDEWIRE_{}=", key.to_uppercase());
        ensure!(
            sender.stderr.starts_with(&begins) && sender.stderr.lines().count() == 1,
            "{sender}"
        );
    }
    Ok(())
}

/// What `--explain` says of a netcat that sends a line of six bytes.
const EXPLAINED: &str = "\
sidewire: write on 3 to 192.0.2.2:7400, 6 bytes, flags 0
  sockcm_cookie           no control messages
  zerocopy                not asked for
  sk_stream_wait_connect  ESTABLISHED: may send
  tcp_send_mss            mss_now 1448, size_goal N
  new_segment             a new buffer: wmem_queued 0 < sndbuf N, 0 unsent
  copy                    6 bytes into it
  tcp_push                PSH; nonagle 0
  tcp_write_xmit          1 segment, 6 bytes sent; cwnd 10, in flight 1, snd_wnd N
  out                     returns 6
";

fn run_explains_a_send(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (source, file) = (lab.path("line"), lab.path("explained"));
    fs::write(&source, "hello\n")?;
    let port = PORT.to_string();
    let in_file = format!("--explain={}", file.display());
    for option in ["--explain", &in_file] {
        let receiver = receiver(&lab, PORT, Path::new("/dev/null"))?;
        let sender = lab
            .near
            .program(sidewire(stack)?)
            .args(["run", option, "--", "nc.openbsd", "-N", FAR, &port])
            .stdin(&source)
            .run()?
            .success()?;
        receiver.wait()?.success()?;
        let said = if option == "--explain" {
            sender.stderr
        } else {
            ensure!(sender.stderr.is_empty(), "it said {:?}", sender.stderr);
            fs::read_to_string(&file)?
        };
        // What depends on the host's tcp_wmem and tcp_rmem.
        let said = ["size_goal ", "sndbuf ", "snd_wnd "]
            .into_iter()
            .fold(said, |text, name| without_number(&text, name));
        ensure!(said == EXPLAINED, "{option}:\n{said}");
    }
    Ok(())
}

/// The text with N for the number behind `name`.
fn without_number(text: &str, name: &str) -> String {
    match text.split_once(name) {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}{name}N{rest}")
        }
        None => text.to_owned(),
    }
}

/// Without CAP_NET_RAW nothing starts, and with `--fallback` the kernel carries after one line.
fn run_without_capability(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (_peer, port) = (start_peer(&lab)?, PEER_PORT.to_string());
    let run = |options: &[&str]| {
        lab.near
            .program(sidewire(stack)?)
            .args([&["run"], options, &["--", "nc.openbsd", "-N", FAR, &port]].concat())
            .wrapped(["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"])
            .run()
    };
    let before = Before::of(&lab)?;
    for options in [&[][..], &["--strict"]] {
        let refused = run(options)?;
        let said = ["CAP_NET_RAW", "--fallback"].map(|word| refused.stderr.contains(word));
        ensure!(
            refused.status.code() == Some(125) && said == [true; 2],
            "{refused}"
        );
    }
    let carried = before.until_now(&lab, None)?;
    ensure!(carried.near.out_segs == 0, "{carried:?}");
    let started = run(&["--fallback"])?.success()?;
    ensure!(
        started.stderr
            == "sidewire: no packet socket without CAP_NET_RAW; TCP stays with the kernel\n",
        "{started}"
    );
    let carried = before.until_now(&lab, None)?;
    ensure!(carried.near.out_segs > 0, "{carried:?}");
    Ok(())
}

/// The demo, with a directory for its files that can be looked at afterwards.
fn demo(lab: &Lab, stack: &Stack) -> Result<Program> {
    let Stack::Sidewire(library) = stack else {
        bail!("the demo is about the shim");
    };
    let files = lab.path("demo");
    fs::create_dir(&files)?;
    Ok(lab
        .near
        .program(env!("CARGO_BIN_EXE_sidewire-demo"))
        .args(["--rounds", "1", "--seconds", "1", "--size", "16"])
        .env("SIDEWIRE_LIBRARY", library.path())
        .env("TMPDIR", &files)
        .patience(Duration::from_secs(180)))
}

fn demo_prints_its_table(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let shown = demo(&lab, stack)?.run()?.success()?;
    for program in [
        "iperf3 -c ",
        "iperf3 -c -R ",
        "iperf3 -c -P 8 ",
        "iperf3 -c --bidir ",
        "iperf3 -s ",
        "nc sends 16 MiB ",
        "nc receives 16 MiB ",
    ] {
        // Once in the progress, once in the table.
        let lines = shown.stdout.lines();
        let row = lines.rev().find(|line| line.starts_with(program));
        let row = row.with_context(|| format!("no row {program:?}\n{shown}"))?;
        ensure!(!row.contains("failed"), "{row}");
        ensure!(
            !program.starts_with("nc") || row.contains("same ("),
            "{row}"
        );
    }
    ensure!(
        fs::read_dir(lab.path("demo"))?.next().is_none(),
        "files stay"
    );
    Ok(())
}

fn demo_interrupted(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let demo = demo(&lab, stack)?.start()?;
    demo.wait_for_output("Gbit/s\n")?;
    demo.signal(libc::SIGINT)?;
    let ended = demo.wait()?;
    ensure!(
        !ended.status.success() && ended.stdout.contains("interrupted"),
        "{ended}"
    );
    ensure!(
        fs::read_dir(lab.path("demo"))?.next().is_none(),
        "files stay"
    );
    Ok(())
}

fn bench_writes() -> TestResult {
    let lab = Lab::new(Link::default())?;
    let out = lab.path("bench");
    lab.near
        .program(env!("CARGO_BIN_EXE_sidewire-bench"))
        .args([
            "--kernel-only",
            "--rounds",
            "1",
            "--only",
            "one-cpu/round-trip",
        ])
        .args(["--out", &out.to_string_lossy()])
        .run()?
        .success()?;
    let results: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("results.json"))?)?;
    let measured = results["measurements"].as_array().context("measurements")?;
    ensure!(measured.len() == 2, "{results}");
    for m in measured {
        for ratio in ["ratio", "null_ratio"] {
            ensure!(m[ratio]["median"].as_f64().is_some_and(|r| r > 0.0), "{m}");
        }
    }
    ensure!(
        fs::read_to_string(out.join("ratios.svg"))?
            .matches("<circle")
            .count()
            == 2
    );
    Ok(())
}
