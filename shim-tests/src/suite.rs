//! Registers the tests of one subject, each with what it needs from the host,
//! and lets none be skipped that `skips.toml` does not name.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;

use crate::library::{Library, Stack};
use crate::netns::{Privilege, privilege};

/// The outcome of one test.
pub type TestResult = Result<()>;

const SKIPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/skips.toml");

/// Something that a host may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Network namespaces, by root or by user namespace.
    Namespaces,
    /// `libsidewire.so`, built.
    Library,
    /// nftables with the netdev egress hook.
    EgressHook,
}

impl Need {
    /// Every need.
    pub const ALL: [Need; 3] = [Need::Namespaces, Need::Library, Need::EgressHook];

    /// Its name in `skips.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Need::Namespaces => "namespaces",
            Need::Library => "library",
            Need::EgressHook => "egress-hook",
        }
    }

    /// What is wrong, if this host lacks it.
    fn missing(self) -> Option<String> {
        match self {
            Need::Namespaces => (privilege() == Privilege::None)
                .then(|| "neither root nor user namespaces are to be had".to_owned()),
            Need::Library => Library::find().err().map(|e| e.to_string()),
            Need::EgressHook => {
                static FOUND: OnceLock<Option<String>> = OnceLock::new();
                FOUND.get_or_init(egress_hook_missing).clone()
            }
        }
    }
}

fn egress_hook_missing() -> Option<String> {
    let rules = "table netdev t { chain c { type filter hook egress device lo priority 0; }; }";
    let mut unshare = Command::new("unshare");
    if privilege() == Privilege::User {
        unshare.args(["-U", "-r"]);
    }
    match unshare.args(["-n", "nft", rules]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SkipList {
    #[serde(default)]
    skip: Vec<Skip>,
}

/// One permitted skip.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    /// `file::test`, a `*` at the end stands for any rest.
    test: String,
    /// The environment: the [`Need`] that it lacks.
    lacks: String,
    /// Why that is acceptable there.
    reason: String,
}

impl Skip {
    /// Says once why its tests are skipped.
    fn tell(&self, missing: &str) {
        static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(self.test.clone()) {
            eprintln!("{} is skipped: {missing} ({})", self.test, self.reason);
        }
    }

    fn covers(&self, test: &str, need: Need) -> bool {
        let named = match self.test.strip_suffix('*') {
            Some(start) => test.starts_with(start),
            None => test == self.test,
        };
        named && self.lacks == need.name()
    }
}

fn parse_skips(text: &str) -> Result<Vec<Skip>> {
    let list: SkipList = toml::from_str(text)?;
    for skip in &list.skip {
        ensure!(!skip.reason.trim().is_empty(), "{}: no reason", skip.test);
        ensure!(
            Need::ALL.iter().any(|need| need.name() == skip.lacks),
            "{}: nothing is called {:?}",
            skip.test,
            skip.lacks
        );
    }
    Ok(list.skip)
}

type Body = Box<dyn FnOnce() -> TestResult + Send>;

struct Entry {
    name: String,
    needs: Vec<Need>,
    body: Body,
}

/// Set when the long tests are to run.
const LONG: &str = "SIDEWIRE_LONG";

/// The tests of one file.
pub struct Suite {
    file: &'static str,
    entries: Vec<Entry>,
    parallel: bool,
}

impl Suite {
    /// An empty suite for `tests/FILE.rs`.
    pub fn new(file: &'static str) -> Self {
        Suite {
            file,
            entries: Vec::new(),
            parallel: false,
        }
    }

    /// Lets them run at the same time: each has a network of its own, and none
    /// measures a rate.
    #[must_use]
    pub fn in_parallel(mut self) -> Self {
        self.parallel = true;
        self
    }

    /// Adds a test that needs namespaces and `needs`.
    #[must_use]
    pub fn test(
        mut self,
        name: impl Into<String>,
        needs: &[Need],
        body: impl FnOnce() -> TestResult + Send + 'static,
    ) -> Self {
        self.entries.push(Entry {
            name: name.into(),
            needs: [&[Need::Namespaces], needs].concat(),
            body: Box::new(body),
        });
        self
    }

    /// What `more` adds takes long: it is there when `SIDEWIRE_LONG` is set
    /// (`make check-long`).
    #[must_use]
    pub fn long(self, more: impl FnOnce(Self) -> Self) -> Self {
        if std::env::var_os(LONG).is_none() {
            return self;
        }
        more(self)
    }

    /// Adds a test of the shim.
    #[must_use]
    pub fn shim(
        self,
        name: impl Into<String>,
        needs: &[Need],
        body: impl FnOnce(&Stack) -> TestResult + Send + 'static,
    ) -> Self {
        let needs = [&[Need::Library], needs].concat();
        self.test(name, &needs, move || body(&Stack::sidewire()?))
    }

    /// Adds a test twice: natively, which shows that the test itself holds, and
    /// under the shim.
    #[must_use]
    pub fn both(
        self,
        name: &str,
        needs: &[Need],
        body: impl FnOnce(&Stack) -> TestResult + Clone + Send + 'static,
    ) -> Self {
        let native = body.clone();
        self.test(format!("{name}::kernel"), needs, move || {
            native(&Stack::Kernel)
        })
        .shim(format!("{name}::sidewire"), needs, body)
    }

    /// Runs them, one at a time unless the command line or [`Suite::in_parallel`]
    /// says otherwise: they share the CPUs that some of them measure.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        if !self.parallel {
            arguments.test_threads.get_or_insert(1);
        }
        let skips = fs::read_to_string(SKIPS)
            .context(SKIPS)
            .and_then(|text| parse_skips(&text).context(SKIPS));
        let skips = match skips {
            Ok(skips) => skips,
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        };
        let file = self.file;
        let trials = self
            .entries
            .into_iter()
            .map(|entry| trial(file, entry, &skips))
            .collect();
        libtest_mimic::run(&arguments, trials).exit_code()
    }
}

fn trial(file: &str, entry: Entry, skips: &[Skip]) -> Trial {
    let Entry { name, needs, body } = entry;
    let full_name = format!("{file}::{name}");
    for need in needs {
        let Some(missing) = need.missing() else {
            continue;
        };
        if let Some(skip) = skips.iter().find(|skip| skip.covers(&full_name, need)) {
            skip.tell(&missing);
            return Trial::test(name, || Ok(())).with_ignored_flag(true);
        }
        let message = format!(
            "this host lacks {}: {missing}; to skip the test here, say why in shim-tests/skips.toml",
            need.name()
        );
        return Trial::test(name, move || Err(Failed::from(message)));
    }
    Trial::test(name, move || {
        body().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_in_the_tree_is_well_formed() {
        parse_skips(&fs::read_to_string(SKIPS).unwrap()).unwrap();
    }

    #[test]
    fn a_skip_names_test_environment_and_reason() {
        let list = parse_skips(
            "[[skip]]\ntest = 'netcat::ncat_*'\nlacks = 'egress-hook'\nreason = 'old kernel'\n",
        )
        .unwrap();
        assert!(list[0].covers("netcat::ncat_sends", Need::EgressHook));
        assert!(!list[0].covers("netcat::ncat_sends", Need::Library));
        assert!(!list[0].covers("iperf3::ncat_sends", Need::EgressHook));
        assert!(parse_skips("[[skip]]\ntest='a'\nlacks='library'\nreason=' '\n").is_err());
        assert!(parse_skips("[[skip]]\ntest='a'\nlacks='luck'\nreason='b'\n").is_err());
        assert!(parse_skips("[[skip]]\ntest='a'\nwhy='b'\n").is_err());
    }
}
