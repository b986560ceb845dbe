//! Network namespaces, as root or inside an unprivileged user namespace.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::patience::PATIENCE;
use crate::process::Running;
use crate::program::Program;

/// Where a namespace's rights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// We are root and may make network namespaces directly.
    Root,
    /// Only inside a user namespace of our own.
    User,
    /// Neither is allowed here.
    None,
}

/// What this host allows.
pub fn privilege() -> Privilege {
    static FOUND: OnceLock<Privilege> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let allowed = |flags: &[&str]| {
            Command::new("unshare")
                .args(flags)
                .arg("true")
                .output()
                .is_ok_and(|o| o.status.success())
        };
        if allowed(&["-n"]) {
            Privilege::Root
        } else if allowed(&["-U", "-r", "-n"]) {
            Privilege::User
        } else {
            Privilege::None
        }
    })
}

/// A network namespace, alive as long as this value.
pub struct Netns {
    holder: Running,
    user_namespace: bool,
}

impl Netns {
    /// A new namespace with `lo` up and nothing else.
    ///
    /// # Errors
    /// When the host allows none.
    pub fn new() -> Result<Self> {
        match privilege() {
            Privilege::Root => Self::hold(Command::new("unshare"), false),
            Privilege::User => Self::unprivileged(),
            Privilege::None => bail!(
                "no network namespace can be made here: run as root, or allow user namespaces"
            ),
        }
    }

    /// A new namespace with the rights of an ordinary user's, also when we are
    /// root: inside, the limits of the host (`rmem_max`) cannot be overridden.
    ///
    /// # Errors
    /// When the host allows no user namespace.
    pub fn unprivileged() -> Result<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["-U", "-r"]);
        Self::hold(unshare, true)
    }

    /// A second namespace with the same rights as `self`, so that the two can be
    /// joined.
    ///
    /// # Errors
    /// As [`Netns::new`].
    pub fn sibling(&self) -> Result<Self> {
        if !self.user_namespace {
            return Self::new();
        }
        let mut unshare = Command::new("nsenter");
        unshare.args(["--target", &self.id().to_string()]);
        unshare.args(["--user", "--preserve-credentials", "unshare"]);
        Self::hold(unshare, true)
    }

    fn hold(mut unshare: Command, user_namespace: bool) -> Result<Self> {
        unshare.args(["-n", "setpriv", "--pdeathsig", "KILL"]);
        unshare.args(["sh", "-c", "echo ready; exec sleep infinity"]);
        let holder = Running::start("namespace holder".to_owned(), unshare, true, PATIENCE)?;
        holder.wait_for_output("ready")?;
        let netns = Netns {
            holder,
            user_namespace,
        };
        netns.run("ip", ["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The process id that holds it, for `/proc/ID/net` and `ip link set netns`.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// A program to be started in it.
    pub fn program(&self, name: impl Into<String>) -> Program {
        Program::new(self.enter(), name.into())
    }

    /// Runs a tool in it to a successful end and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run<'a>(&self, tool: &str, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        Ok(self.program(tool).args(args).run()?.success()?.stdout)
    }

    /// Sets a sysctl of the namespace, named as its path below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // The file shows the namespace of who opens it: a program inside must.
        self.run("sh", ["-c", "echo \"$1\" >\"/proc/sys/$0\"", key, value])
            .with_context(|| format!("sysctl {key} = {value}"))?;
        Ok(())
    }

    /// A file below its `/proc/net`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/net/{file}", self.id());
        fs::read_to_string(&path).with_context(|| path)
    }

    fn enter(&self) -> Vec<String> {
        let mut words = vec![
            "nsenter".to_owned(),
            format!("--target={}", self.id()),
            "--net".to_owned(),
        ];
        if self.user_namespace {
            words.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        // Whatever happens to us, nothing that we started outlives us.
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        words
    }
}
