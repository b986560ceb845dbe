//! Network namespaces for a test: the test runs again in a child process with a namespace of its own, and can make
//! further ones, each with a thread that lives in it.

#![allow(dead_code)]

use std::process::Command;
use std::sync::mpsc;

const INSIDE: &str = "SIDEWIRE_TEST_NETNS";

/// In the test runner: runs the test `name` again in its own network namespace, and fails if it fails; returns false.
/// In that child: returns true.
pub(crate) fn enter(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        sh("ip link set lo up");
        return true;
    }
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    let how = if root { "-n" } else { "-Urn" };
    let exe = std::env::current_exe().expect("path of the test");
    let out = Command::new("unshare")
        .arg(how)
        .arg(exe)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare(1) runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("1 passed"),
        "in its namespace {name} failed: {}\n{text}{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    false
}

/// Runs a shell command in the calling thread's namespace; fails the test if it fails. Returns what it printed.
pub(crate) fn sh(command: &str) -> String {
    let out = Command::new("sh")
        .args(["-ec", command])
        .output()
        .expect("sh runs");
    assert!(
        out.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

type Job = Box<dyn FnOnce() + Send>;

/// A further network namespace, with a thread in it.
pub(crate) struct Netns {
    tid: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Netns {
    /// Makes a namespace with only lo, up.
    pub(crate) fn new() -> Netns {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: unshare concerns the calling thread only; gettid has no preconditions.
            unsafe {
                assert_eq!(
                    libc::unshare(libc::CLONE_NEWNET),
                    0,
                    "{}",
                    std::io::Error::last_os_error()
                );
                tell.send(libc::gettid()).expect("the maker waits");
            }
            sh("ip link set lo up");
            for job in queue {
                job();
            }
        });
        let tid = told.recv().expect("the namespace's thread runs");
        Netns {
            tid,
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    /// For `ip link ... netns`.
    pub(crate) fn tid(&self) -> i32 {
        self.tid
    }

    /// Runs `job` in the namespace and waits for its result.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job: Job = Box::new(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let _ = tell.send(result);
        });
        self.jobs
            .as_ref()
            .expect("open")
            .send(job)
            .expect("the thread runs");
        told.recv()
            .expect("a result")
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a shell command in the namespace.
    pub(crate) fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.run(move || sh(&command))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Joins the calling thread's namespace and `peer` by a veth pair: `va` here with 10.9.0.1/24 and 02::a1, `vb` there
/// with 10.9.0.2/24 and 02::b2. No IPv6, so that the link is silent by itself.
pub(crate) fn veth(peer: &Netns) {
    sh(&format!(
        "ip link add name va type veth peer name vb netns {}",
        peer.tid()
    ));
    let end = |dev: &str, mac: &str, ip: &str| {
        format!(
            "echo 1 > /proc/sys/net/ipv6/conf/{dev}/disable_ipv6
             ip link set {dev} address {mac}
             ip addr add {ip}/24 dev {dev}
             ip link set {dev} up"
        )
    };
    sh(&end("va", "02:00:00:00:00:a1", "10.9.0.1"));
    peer.sh(&end("vb", "02:00:00:00:00:b2", "10.9.0.2"));
    // Until the kernel has noticed that both are up, they take frames and drop them.
    while !sh("ip link show va").contains("state UP")
        || !peer.sh("ip link show vb").contains("state UP")
    {}
}

/// The index of a device in the calling thread's namespace.
pub(crate) fn ifindex(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).expect("no NUL");
    // SAFETY: a NUL-terminated name.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "device {name:?}");
    index
}
