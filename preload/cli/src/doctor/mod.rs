//! `sidewire doctor`: what on this host stands in the way, what accelerated
//! traffic would pass by, and what to do about each.

pub(crate) mod devices;
mod firewall;
pub(crate) mod host;
mod netlink;
mod settings;

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use crate::out::print_all;

/// How much a finding matters, from nothing to do to nothing works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// Something is slower, or not as the host's administrator may expect.
    Warning,
    /// No connection can be accelerated.
    Problem,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    /// What is the case.
    what: String,
    /// What to do about it.
    remedy: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Ok,
            what: what.into(),
            remedy: None,
        }
    }

    fn new(severity: Severity, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            severity,
            what: what.into(),
            remedy: Some(remedy.into()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}", self.severity, self.what)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "\n         -> {remedy}")?;
        }
        Ok(())
    }
}

/// Looks at everything and tells it. Fails when there is a problem.
pub(crate) fn examine() -> ExitCode {
    let mut findings = host::findings();
    findings.extend(devices::findings());
    findings.extend(settings::findings());
    findings.extend(firewall::findings());
    let mut text = String::new();
    for finding in &findings {
        let _ = writeln!(text, "{finding}");
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    let _ = writeln!(
        text,
        "\n{}; {problems} {}, {warnings} {}",
        if problems == 0 {
            "connections can be accelerated here"
        } else {
            "nothing can be accelerated here"
        },
        plural(problems, "problem"),
        plural(warnings, "warning"),
    );
    let status = if problems == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    print_all(&text, status)
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        noun.to_owned()
    } else {
        format!("{noun}s")
    }
}
