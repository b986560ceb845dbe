//! iperf3 as client and as server, in every mode, and with loss.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use shim_tests::counters::Before;
use shim_tests::iperf3::{Amount, Iperf3, Role};
use shim_tests::lab::NEAR;
use shim_tests::library::{Stack, Stats};
use shim_tests::patience::until;
use shim_tests::payload::MIB;
use shim_tests::{Lab, Link, Need, Offloads, Suite, TestResult};

const MODES: [(&str, &[&str]); 5] = [
    ("default", &[]),
    ("reverse", &["-R"]),
    ("parallel", &["-P", "8"]),
    ("bidir", &["--bidir"]),
    ("parallel_reverse", &["-P", "8", "-R"]),
];

fn main() -> ExitCode {
    let mut suite = Suite::new("iperf3");
    for (role, role_name) in [(Role::Client, "client"), (Role::Server, "server")] {
        for (mode, args) in MODES {
            suite = suite.both(&format!("{role_name}_{mode}"), &[], move |stack| {
                moves(&Lab::new(Link::default())?, stack, role, args, 64 * MIB)
            });
        }
    }
    for (mtu, offloads, shape) in [
        (9000, Offloads::On, "mtu_9000"),
        (1500, Offloads::Off, "no_offloads"),
        (9000, Offloads::Off, "mtu_9000_no_offloads"),
        (576, Offloads::On, "mtu_576"),
    ] {
        for (args, direction) in [(&[][..], "sends"), (&["-R"], "receives")] {
            let name = format!("client_{direction}_{shape}");
            suite = suite.both(&name, &[], move |stack| {
                let lab = Lab::new(Link { mtu, offloads })?;
                moves(&lab, stack, Role::Client, args, 32 * MIB)
            });
        }
    }
    for (mode, args) in MODES {
        let name = format!("client_{mode}_for_long::sidewire");
        suite = suite.long(|suite| {
            suite.test(name, &[Need::Library], move || {
                let lab = Lab::new(Link::default())?;
                moves(&lab, &Stack::sidewire()?, Role::Client, args, 8192 * MIB)
            })
        });
    }
    suite
        .both("client_as_an_ordinary_user", &[], |stack| {
            let lab = Lab::unprivileged(Link::default())?;
            moves(&lab, stack, Role::Client, &[], 64 * MIB)
        })
        .both("server_daemon", &[], daemon)
        .both("client_64_streams", &[], |stack| {
            let lab = Lab::new(Link::default())?;
            moves(&lab, stack, Role::Client, &["-P", "64"], 64 * MIB)
        })
        .both("server_64_streams_reverse", &[], |stack| {
            let lab = Lab::new(Link::default())?;
            moves(&lab, stack, Role::Server, &["-P", "64", "-R"], 64 * MIB)
        })
        .both("client_one_percent_loss", &[Need::EgressHook], |stack| {
            lossy(stack, Role::Client, &[])
        })
        .both("server_one_percent_loss", &[Need::EgressHook], |stack| {
            lossy(stack, Role::Server, &["-R"])
        })
        .both("client_overtaken", &[Need::EgressHook], |stack| {
            overtaken(stack, Role::Client)
        })
        .both("server_overtaken", &[Need::EgressHook], |stack| {
            overtaken(stack, Role::Server)
        })
        .both("client_small_writes", &[], |stack| {
            let lab = Lab::new(Link::default())?;
            moves(&lab, stack, Role::Client, &["-l", "100", "-N"], MIB)
        })
        .run()
}

fn moves(lab: &Lab, stack: &Stack, role: Role, args: &[&str], bytes: u64) -> TestResult {
    let test = Iperf3::new(role, args, Amount::Bytes(bytes));
    let outcome = test.run(lab, stack)?;
    if stack.is_sidewire() {
        return test.all_by_engine(&outcome);
    }
    ensure!(outcome.carried.near.out_segs > 0, "{outcome:?}");
    Ok(())
}

/// One frame in two hundred is refused by the sender's own device, and as many are lost on the way.
fn lossy(stack: &Stack, role: Role, args: &[&str]) -> Result<()> {
    let lab = Lab::new(Link::default())?;
    for netns in [&lab.near, &lab.far] {
        lab.lose_one_in(netns, 200)?;
        lab.lose_one_in_on_the_way_to(netns, 200)?;
    }
    moves(&lab, stack, role, args, 64 * MIB)
}

/// Frames of MTU size, of which one in fifty is overtaken by others, both ways.
fn overtaken(stack: &Stack, role: Role) -> Result<()> {
    let link = Link {
        offloads: Offloads::Off,
        ..Link::default()
    };
    let lab = Lab::new(link)?;
    for netns in [&lab.near, &lab.far] {
        lab.overtake_one_in(netns, 50, "20mbit")?;
    }
    let test = Iperf3::new(role, &[], Amount::Bytes(32 * MIB));
    let outcome = test.run(&lab, stack)?;
    if stack.is_sidewire() {
        // What was overtaken by the end of its connection is reset, natively as well.
        let connections = test.streams() + 1;
        outcome.carried.all_by_engine_but_late_resets(connections)?;
    }
    // The kernel at the far end has seen it, as the receiver or as the sender.
    let counters = ["TcpExtTCPOFOQueue", "TcpExtTCPSACKReorder"];
    let text = lab
        .far
        .run("nstat", ["-asz"].iter().chain(&counters).copied())?;
    let seen = text
        .lines()
        .filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    ensure!(seen.sum::<u64>() > 0, "nothing was overtaken: {text}");
    Ok(())
}

/// A program that nobody waits for: it is told to end when this is dropped.
struct Daemon<'a> {
    lab: &'a Lab,
    pid_file: PathBuf,
}

impl Daemon<'_> {
    /// Its process id, once it has written it.
    fn id(&self) -> Option<String> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let id = text.trim_matches(['\0', '\n', ' ']).to_owned();
        (!id.is_empty()).then_some(id)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id() {
            // It is gone already when the test went well.
            let _ = self.lab.near.program("kill").args(["-KILL", &id]).run();
        }
    }
}

/// Forks, closes its descriptors and goes on in the child, before its first
/// socket.
fn daemon(stack: &Stack) -> Result<()> {
    let lab = Lab::new(Link::default())?;
    let (pid_file, stats) = (lab.path("pid"), lab.path("stats.json"));
    let daemon = Daemon {
        lab: &lab,
        pid_file,
    };
    let before = Before::of(&lab)?;
    lab.near
        .program("iperf3")
        .args(["-s", "-1", "-D", "-I", &daemon.pid_file.to_string_lossy()])
        .under(stack)
        .stats(&stats)
        .run()?
        .success()?;
    lab.wait_for_listener(&lab.near, 5201)?;
    // It takes the file away before it ends.
    let id = until("the daemon's process id", || Ok(daemon.id()))?;
    lab.far
        .program("iperf3")
        .args(["-c", NEAR, "-n", "16M"])
        .run()?
        .success()?;
    until("the daemon to end", || {
        let running = Path::new("/proc").join(&id).exists();
        Ok((!running).then_some(()))
    })?;
    if stack.is_sidewire() {
        before
            .until_now(&lab, Some(Stats::read(&stats)?))?
            .all_by_engine(2)?;
    }
    Ok(())
}
