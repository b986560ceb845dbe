//! What an ordinary user gets from the launcher: packet sockets, and no capability.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use shim_tests::counters::Before;
use shim_tests::lab::FAR;
use shim_tests::library::{Stack, Stats};
use shim_tests::netcat::receiver;
use shim_tests::payload::{self, MIB};
use shim_tests::probe::probe;
use shim_tests::program::Program;
use shim_tests::{Lab, Link, Suite, TestResult};

const PORT: u16 = 7410;

fn main() -> ExitCode {
    Suite::new("ordinary_user")
        .shim("sockets_do_without_the_capability", &[], without_capability)
        .shim("sockets_are_shared_out", &[], shared_out)
        .shim("sockets_are_of_one_namespace", &[], one_namespace)
        .shim("without_a_free_descriptor", &[], no_free_descriptor)
        .shim("ended_processes_leave_no_socket_at_work", &[], ended)
        .shim("a_vfork_child_leaves_the_sockets_alone", &[], vfork_dup)
        .run()
}

/// An installation whose launcher has the file capability.
struct Installed {
    library: PathBuf,
    command: PathBuf,
}

impl Installed {
    fn new(lab: &Lab, stack: &Stack) -> Result<Self> {
        let Stack::Sidewire(built) = stack else {
            bail!("the launcher is for the shim");
        };
        let built = built.path().parent().context("a directory")?;
        let dir = lab.path("installed");
        fs::create_dir(&dir)?;
        for name in ["libsidewire.so", "sidewire-launch"] {
            fs::copy(built.join(name), dir.join(name)).with_context(|| name.to_owned())?;
        }
        let launcher = dir.join("sidewire-launch").display().to_string();
        lab.near.run("setcap", ["cap_net_raw=p", &launcher])?;
        Ok(Installed {
            library: dir.join("libsidewire.so"),
            command: built.join("sidewire"),
        })
    }

    /// `sidewire` on the near host, where root is nobody in particular (SECBIT_NOROOT).
    fn command(&self, lab: &Lab) -> Program {
        lab.near
            .program(self.command.display().to_string())
            .env("SIDEWIRE_LIBRARY", &self.library)
            .wrapped(["setpriv", "--securebits", "+noroot"])
            .wrapped(["--inh-caps", "-all", "--ambient-caps", "-all"])
    }
}

/// The sets of capabilities in a /proc/PID/status.
fn capabilities(status: &str) -> Vec<(&str, u64)> {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
    let set = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line?.trim_start_matches(':').trim(), 16).ok()
    };
    sets.into_iter()
        .filter_map(|name| Some((name, set(name)?)))
        .collect()
}

/// A netcat that another program executes: neither has a capability, and the engine carries the connection.
fn without_capability(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let user = Installed::new(&lab, stack)?;
    let (source, sink, stats) = (lab.path("sent"), lab.path("arrived"), lab.path("stats"));
    let sent = payload::write(&source, 4 * MIB)?;
    let before = Before::of(&lab)?;
    let receiver = receiver(&lab, PORT, &sink)?;
    let script = format!("cat /proc/$$/status; exec nc.openbsd -N {FAR} {PORT}");
    let sender = user
        .command(&lab)
        .args(["run", "--strict", "--", "sh", "-c", &script])
        .stdin(&source)
        .stats(&stats)
        .run()?
        .success()?;
    receiver.wait()?.success()?;
    ensure!(payload::sha256(&sink)? == sent, "what arrived differs");
    ensure!(sender.stderr.is_empty(), "it said {:?}", sender.stderr);
    let sets = capabilities(&sender.stdout);
    ensure!(
        sets.len() == 4 && sets.iter().all(|(_, set)| *set == 0),
        "{sets:x?}"
    );
    before
        .until_now(&lab, Some(Stats::read(&stats)?))?
        .all_by_engine(1)
}

/// Five processes of one program, where there are sockets for four; when one has ended, another program gets its.
/// The first of them begins by closing every descriptor that it can find.
const PROCESSES: &str = r#"
import os, socket, subprocess, sys

os.closerange(3, 100)
address = (sys.argv[1], int(sys.argv[2]))

def start():
    told, tell = os.pipe()
    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = socket.create_connection(address)
        held.send(b"x")
        os.write(tell, b"1")
        os.read(wait, 1)
        sys.exit(0)
    assert os.read(told, 1) == b"1"
    return pid, go

def end(process):
    os.write(process[1], b"1")
    assert os.waitpid(process[0], 0)[1] == 0

running = [start() for _ in range(5)]
end(running.pop(0))
subprocess.run(["nc.openbsd", "-N", *sys.argv[1:]], stdin=subprocess.DEVNULL, check=True)
for process in running:
    end(process)
"#;

fn shared_out(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let user = Installed::new(&lab, stack)?;
    let (program, counters) = (lab.path("processes.py"), lab.path("counters"));
    fs::write(&program, PROCESSES)?;
    fs::create_dir(&counters)?;
    let _sink = lab
        .far
        .program("ncat")
        .args(["-k", "-l", "--recv-only", &PORT.to_string()])
        .stdout("/dev/null")
        .start()?;
    lab.wait_for_listener(&lab.far, PORT)?;
    // A limit of 64 descriptors makes four pairs.
    let script = format!(
        "ulimit -n 64; exec \"$0\" run -- python3 {} {FAR} {PORT}",
        program.display()
    );
    let ran = lab
        .near
        .program("sh")
        .args(["-c", &script, &user.command.display().to_string()])
        .env("SIDEWIRE_LIBRARY", &user.library)
        .wrapped(["setpriv", "--securebits", "+noroot"])
        .wrapped(["--inh-caps", "-all", "--ambient-caps", "-all"])
        .stats(&counters.join("%p"))
        .run()?
        .success()?;
    let said: Vec<&str> = ran.stderr.lines().collect();
    ensure!(
        said.len() == 1 && said[0].contains("handed over are all in use"),
        "it said {said:?}"
    );
    let mut carried = (0, 0);
    for file in fs::read_dir(&counters)? {
        let stats = Stats::read(&file?.path())?;
        carried.0 += stats.connections_engine;
        carried.1 += stats.connections_kernel;
    }
    ensure!(carried == (5, 1), "(engine, kernel): {carried:?}");
    Ok(())
}

/// Where the limit leaves no number for a packet socket the launcher refuses, and with `--fallback` the kernel carries.
fn no_free_descriptor(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let user = Installed::new(&lab, stack)?;
    let sink = lab.path("arrived");
    let run = |options: &[&str]| {
        let netcat = ["--", "nc.openbsd", "-N", FAR, &PORT.to_string()].map(str::to_owned);
        let take = "import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
[os.dup2(0, number) for number in range(48, 64)]
os.execv(sys.argv[1], sys.argv[1:])";
        user.command(&lab)
            .args(["run"])
            .args(options.iter().copied())
            .args(netcat)
            .wrapped(["python3", "-c", take, "/usr/bin/env"])
            .stdin("/etc/hostname")
            .run()
    };
    let refused = run(&[])?;
    ensure!(
        refused.status.code() == Some(125)
            && refused.stderr
                == "sidewire-launch: no room for packet sockets among the descriptors; raise the limit (ulimit -n), \
                    close some, or use --fallback, to start it on the kernel's TCP\n",
        "{refused}"
    );
    let receiver = receiver(&lab, PORT, &sink)?;
    let started = run(&["--fallback"])?.success()?;
    receiver.wait()?.success()?;
    ensure!(
        started.stderr
            == "sidewire: no packet socket was handed over, for want of free descriptors below the limit (ulimit -n); \
                TCP stays with the kernel\n",
        "{started}"
    );
    ensure!(fs::read(&sink)? == fs::read("/etc/hostname")?);
    Ok(())
}

/// Processes that end in several ways, while the program that they come of goes on. Each time nothing may be left at
/// work: `ss` knows the protocols and the rings of packet sockets.
const ENDS: &str = r#"
import os, signal, socket, subprocess, sys, time

address = (sys.argv[1], int(sys.argv[2]))

def at_work():
    shown = subprocess.run(["ss", "-0aeO"], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if "ring_rx" in line or " ip:" in line or " arp:" in line]

def nothing_left(after):
    end = time.monotonic() + 10
    while at_work():
        assert time.monotonic() < end, f"{after}: {at_work()}"
        time.sleep(0.01)

def client():
    return subprocess.Popen(["nc.openbsd", "-N", *sys.argv[1:]], stdin=subprocess.DEVNULL)

def connecting(then):
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = socket.create_connection(address)
        held.send(b"x")
        then(tell)
    os.waitpid(pid, 0)
    return told

# At work while it lives, so that what is looked for can be seen.
def look(_):
    assert len([line for line in at_work() if "ring_rx" in line]) == 1, at_work()
    os._exit(0)

told = connecting(look)
nothing_left("_exit")

for _ in range(3):
    clients = [client() for _ in range(4)]
    assert [client.wait() for client in clients] == [0] * 4
nothing_left("clients")

# Another program takes its place.
connecting(lambda _: os.execvp("true", ["true"]))
nothing_left("exec")

# A child of its own stays.
def leave_a_child(tell):
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.write(tell, b"%d\n" % os.getpid())
        signal.pause()
    os.close(wait)
    os._exit(0)

told = connecting(leave_a_child)
child = int(os.read(told, 20))
nothing_left("a child that stays")
os.kill(child, signal.SIGKILL)

# It is killed: the next one sees to it.
connecting(lambda _: os.kill(os.getpid(), signal.SIGKILL))
assert at_work(), "SIGKILL leaves the sockets as they are"
assert client().wait() == 0
nothing_left("SIGKILL")
"#;

fn ended(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let user = Installed::new(&lab, stack)?;
    let program = lab.path("ends.py");
    fs::write(&program, ENDS)?;
    let _sink = lab
        .far
        .program("ncat")
        .args(["-k", "-l", "--recv-only", &PORT.to_string()])
        .stdout("/dev/null")
        .start()?;
    lab.wait_for_listener(&lab.far, PORT)?;
    let ran = user
        .command(&lab)
        .args(["run", "--strict", "--", "python3"])
        .args([
            program.display().to_string(),
            FAR.to_owned(),
            PORT.to_string(),
        ])
        .run()?
        .success()?;
    ensure!(ran.stderr.is_empty(), "it said {:?}", ran.stderr);
    Ok(())
}

fn vfork_dup(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let user = Installed::new(&lab, stack)?;
    let ran = user
        .command(&lab)
        .args(["run", "--strict", "--", &probe("vfork_dup")])
        .run()?
        .success()?;
    ensure!(ran.stdout == "dup2 1 dup3 1 own 20\n", "{ran}");
    Ok(())
}

/// In a network namespace that the program makes for itself the kernel carries, and says so.
fn one_namespace(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let user = Installed::new(&lab, stack)?;
    // Without a mapping of users, what unshare(1) becomes has no capability in the new namespaces either.
    let connect = ["unshare", "-Un", "nc.openbsd", "-N", "-w", "1", FAR, "7410"];
    for (options, line) in [
        (&["run"][..], "belong to another network namespace"),
        (&["run", "--strict"][..], "SIDEWIRE_STRICT: stopping"),
    ] {
        let ran = user
            .command(&lab)
            .args(options.iter().copied())
            .args(["--"])
            .args(connect)
            .run()?;
        let said = ran.stderr.lines().filter(|said| said.contains(line));
        ensure!(said.count() == 1, "{ran}");
    }
    Ok(())
}
