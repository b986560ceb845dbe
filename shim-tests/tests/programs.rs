//! Programs that people run: servers with their own event loops, threads, forks and pipes, and their clients. What they
//! move arrives whole, on either stack, and under the shim the engine carries it.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use shim_tests::counters::Before;
use shim_tests::lab::{FAR, NEAR};
use shim_tests::library::{Stack, Stats};
use shim_tests::netns::Netns;
use shim_tests::payload::{self, MIB};
use shim_tests::process::Running;
use shim_tests::{Lab, Link, Suite, TestResult};

const PORT: u16 = 7400;
/// Where a program in the middle listens.
const FRONT: u16 = 7401;
/// The file that the web servers have.
const FILE: &str = "file";

fn main() -> ExitCode {
    Suite::new("programs")
        .both("curl", &[], curl)
        .both("python_http_server", &[], python_http_server)
        .both("socat_sends", &[], |stack| socat(stack, true))
        .both("socat_receives", &[], |stack| socat(stack, false))
        .long(|suite| {
            suite
                .both("nginx", &[], nginx)
                .both("haproxy", &[], haproxy)
                .both("redis_server", &[], redis_server)
                .both("redis_benchmark", &[], redis_benchmark)
                .both("memcached", &[], memcached)
        })
        .run()
}

/// A directory with [`FILE`]; its checksum.
fn web_root(lab: &Lab, size: u64) -> Result<(String, String)> {
    let root = lab.path("www");
    fs::create_dir(&root)?;
    let sum = payload::write(&root.join(FILE), size)?;
    Ok((root.display().to_string(), sum))
}

/// Fetches [`FILE`] from HOST:PORT `times` times over one connection, and compares.
fn fetch(lab: &Lab, from: &Netns, stack: &Stack, host: &str, port: u16, sum: &str) -> TestResult {
    let got = lab.path("got");
    let url = format!("http://{host}:{port}/{FILE}");
    let out = got.display().to_string();
    from.program("curl")
        .args(["-sS", "--fail", "-o", "/dev/null", &url])
        .args(["-o", &out, &url])
        .under(stack)
        .stats(&lab.path("stats.json"))
        .run()?
        .success()?;
    ensure!(payload::sha256(&got)? == sum, "the file differs");
    Ok(())
}

/// That the program under test, if it was under the shim, had `connections` on the engine.
fn carried(lab: &Lab, stack: &Stack, before: Before, connections: u64) -> TestResult {
    if !stack.is_sidewire() {
        return Ok(());
    }
    let stats = Stats::read(&lab.path("stats.json"))?;
    before
        .until_now(lab, Some(stats))?
        .all_by_engine_but_late_resets(connections)
}

/// A server with a thread for each connection, which ends in order at SIGTERM.
const WEB_SERVER: &str = r"
import functools, http.server, signal, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
handler = functools.partial(Handler, directory=sys.argv[1])
http.server.ThreadingHTTPServer(('', int(sys.argv[2])), handler).serve_forever()
";

fn python_server(lab: &Lab, host: &Netns, stack: &Stack, root: &str) -> Result<Running> {
    let server = host
        .program("python3")
        .args(["-c", WEB_SERVER, root, &PORT.to_string()])
        .under(stack)
        .stats(&lab.path("stats.json"))
        .start()?;
    lab.wait_for_listener(host, PORT)?;
    Ok(server)
}

fn curl(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (root, sum) = web_root(&lab, 16 * MIB)?;
    let _server = python_server(&lab, &lab.far, &Stack::Kernel, &root)?;
    let before = Before::of(&lab)?;
    fetch(&lab, &lab.near, stack, FAR, PORT, &sum)?;
    carried(&lab, stack, before, 1)
}

fn python_http_server(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (root, sum) = web_root(&lab, 16 * MIB)?;
    let before = Before::of(&lab)?;
    let server = python_server(&lab, &lab.near, stack, &root)?;
    fetch(&lab, &lab.far, &Stack::Kernel, NEAR, PORT, &sum)?;
    server.signal(libc::SIGTERM)?;
    server.wait()?.success()?;
    carried(&lab, stack, before, 1)
}

fn socat(stack: &Stack, sends: bool) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (source, sink) = (lab.path("sent"), lab.path("arrived"));
    let sum = payload::write(&source, 16 * MIB + 7)?;
    let file = format!("FILE:{}", source.display());
    let create = format!("OPEN:{},creat,trunc", sink.display());
    let before = Before::of(&lab)?;
    let listen = format!("TCP4-LISTEN:{PORT},reuseaddr");
    let (receiving, sending, address) = if sends {
        (&lab.far, &lab.near, FAR)
    } else {
        (&lab.near, &lab.far, NEAR)
    };
    let stats = lab.path("stats.json");
    let mut receiver = receiving.program("socat").args(["-u", &listen, &create]);
    let mut sender =
        sending
            .program("socat")
            .args(["-u".to_owned(), file, format!("TCP4:{address}:{PORT}")]);
    if sends {
        sender = sender.under(stack).stats(&stats);
    } else {
        receiver = receiver.under(stack).stats(&stats);
    }
    let receiver = receiver.start()?;
    lab.wait_for_listener(receiving, PORT)?;
    sender.run()?.success()?;
    receiver.wait()?.success()?;
    ensure!(payload::sha256(&sink)? == sum, "the file differs");
    if sends && stack.is_sidewire() {
        // It ends before all is acknowledged: the kernel may have the rest.
        return before
            .until_now(&lab, Some(Stats::read(&stats)?))?
            .begun_by_engine(1);
    }
    carried(&lab, stack, before, 1)
}

/// One process with its epoll loop and sendfile; SIGQUIT ends it when its clients are served.
fn nginx_server(lab: &Lab, host: &Netns, stack: &Stack, root: &str) -> Result<Running> {
    let dir = lab.dir().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr;\n\
         events {{ }}\n\
         http {{ access_log off; {temporary} sendfile on; tcp_nopush on;\n\
         server {{ listen {PORT}; root {root}; }} }}\n"
    );
    let path = lab.path("nginx.conf");
    fs::write(&path, config)?;
    let server = host
        .program("/usr/sbin/nginx")
        .args(["-e", "stderr", "-c", &path.display().to_string()])
        .under(stack)
        .stats(&lab.path("stats.json"))
        .start()?;
    lab.wait_for_listener(host, PORT)?;
    Ok(server)
}

fn nginx(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (root, sum) = web_root(&lab, 64 * MIB)?;
    let before = Before::of(&lab)?;
    let server = nginx_server(&lab, &lab.near, stack, &root)?;
    for _ in 0..4 {
        fetch(&lab, &lab.far, &Stack::Kernel, NEAR, PORT, &sum)?;
    }
    server.signal(libc::SIGQUIT)?;
    server.wait()?.success()?;
    carried(&lab, stack, before, 4)
}

/// Both ends of a proxy with threads, which splices between them.
fn haproxy(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let (root, sum) = web_root(&lab, 64 * MIB)?;
    let _server = nginx_server(&lab, &lab.far, &Stack::Kernel, &root)?;
    let config = format!(
        "global\n  nbthread 2\n\
         defaults\n  mode http\n  option splice-auto\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend front\n  bind {NEAR}:{FRONT}\n  default_backend back\n\
         backend back\n  server far {FAR}:{PORT}\n"
    );
    let path = lab.path("haproxy.cfg");
    fs::write(&path, config)?;
    let before = Before::of(&lab)?;
    let proxy = lab
        .near
        .program("/usr/sbin/haproxy")
        .args(["-db", "-f", &path.display().to_string()])
        .under(stack)
        .stats(&lab.path("proxy.json"))
        .start()?;
    lab.wait_for_listener(&lab.near, FRONT)?;
    fetch(&lab, &lab.far, &Stack::Kernel, NEAR, FRONT, &sum)?;
    proxy.signal(libc::SIGUSR1)?;
    proxy.wait()?.success()?;
    if stack.is_sidewire() {
        let stats = Stats::read(&lab.path("proxy.json"))?;
        before.until_now(&lab, Some(stats))?.begun_by_engine(2)?;
    }
    Ok(())
}

fn redis(lab: &Lab, host: &Netns, address: &str, stack: &Stack) -> Result<Running> {
    let port = PORT.to_string();
    let dir = lab.dir().display().to_string();
    let server = host
        .program("redis-server")
        .args(["--port", &port, "--bind", address, "--dir", &dir])
        .args(["--save", "", "--appendonly", "no", "--protected-mode", "no"])
        .under(stack)
        .stats(&lab.path("stats.json"))
        .start()?;
    lab.wait_for_listener(host, PORT)?;
    Ok(server)
}

fn redis_cli(from: &Netns, address: &str, words: &[&str]) -> Result<String> {
    let port = PORT.to_string();
    let answer = from
        .program("redis-cli")
        .args(["-h", address, "-p", &port])
        .args(words.iter().copied())
        .run()?
        .success()?;
    Ok(answer.stdout.trim_end().to_owned())
}

fn benchmark(from: &Netns, address: &str, stack: &Stack, lab: &Lab) -> TestResult {
    let port = PORT.to_string();
    let done = from
        .program("redis-benchmark")
        .args(["-h", address, "-p", &port, "--csv", "-c", "20"])
        .args(["-n", "20000", "-d", "300", "-t", "set,get"])
        .under(stack)
        .stats(&lab.path("benchmark.json"))
        .run()?
        .success()?;
    let both = ["\"SET\"", "\"GET\""];
    ensure!(both.iter().all(|t| done.stdout.contains(t)), "{done}");
    Ok(())
}

/// A server that forks to save its data, and goes on.
fn redis_server(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let server = redis(&lab, &lab.near, NEAR, stack)?;
    benchmark(&lab.far, NEAR, &Stack::Kernel, &lab)?;
    let ask = |words: &[&str]| redis_cli(&lab.far, NEAR, words);
    ensure!(ask(&["set", "key", "value"])? == "OK");
    ensure!(ask(&["bgsave"])?.starts_with("Background saving"));
    ensure!(ask(&["get", "key"])? == "value");
    server.wait_for_output("Background saving terminated with success")?;
    ensure!(ask(&["get", "key"])? == "value");
    ask(&["shutdown", "nosave"])?;
    server.wait()?.success()?;
    if stack.is_sidewire() {
        let stats = Stats::read(&lab.path("stats.json"))?;
        ensure!(
            stats.connections_engine > 20 && stats.connections_kernel > 0,
            "{stats:?}"
        );
    }
    Ok(())
}

fn redis_benchmark(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _server = redis(&lab, &lab.far, FAR, &Stack::Kernel)?;
    let before = Before::of(&lab)?;
    benchmark(&lab.near, FAR, stack, &lab)?;
    if stack.is_sidewire() {
        let stats = Stats::read(&lab.path("benchmark.json"))?;
        let connections = stats.connections_engine;
        ensure!(connections >= 20, "{stats:?}");
        before
            .until_now(&lab, Some(stats))?
            .all_by_engine(connections)?;
    }
    Ok(())
}

/// Values of several sizes, by threads of a client with a connection each.
const MEMCACHED_CLIENT: &str = r"
import socket, sys, threading
failed = []
def work(number):
    try:
        f = socket.create_connection((sys.argv[1], int(sys.argv[2]))).makefile('rwb')
        for n in range(500):
            key, value = b'%d_%d' % (number, n % 50), (b'%d-%d;' % (number, n)) * (1 + n % 200)
            f.write(b'set %s 0 0 %d\r\n%s\r\nget %s\r\n' % (key, len(value), value, key))
            f.flush()
            assert f.readline() == b'STORED\r\n'
            assert f.readline() == b'VALUE %s 0 %d\r\n' % (key, len(value))
            assert f.readline() == value + b'\r\n' and f.readline() == b'END\r\n'
    except BaseException as error:
        failed.append(error)
        raise
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
sys.exit(len(failed))
";

/// Worker threads that get their connections from the one that accepts.
fn memcached(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let before = Before::of(&lab)?;
    let port = PORT.to_string();
    let server = lab
        .near
        .program("memcached")
        .args(["-u", "root", "-l", NEAR, "-p", &port, "-U", "0", "-t", "4"])
        .under(stack)
        .stats(&lab.path("stats.json"))
        .start()?;
    lab.wait_for_listener(&lab.near, PORT)?;
    let client = lab
        .far
        .program("python3")
        .args(["-c", MEMCACHED_CLIENT, NEAR, &port])
        .start()
        .context("python3")?;
    client.wait()?.success()?;
    server.signal(libc::SIGTERM)?;
    server.wait()?.success()?;
    carried(&lab, stack, before, 8)
}
