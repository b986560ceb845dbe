//! `sidewire status`: running processes, what is carried by whom and why, and what was counted.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use sidewire_posix::report::Report;

use crate::live;
use crate::out::print_all;

/// What `sidewire status` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only this process
    #[arg(value_name = "PID")]
    pid: Option<i32>,
    /// Everything that is known, as JSON
    #[arg(long)]
    json: bool,
}

/// Prints it. A process that was asked for and is not there is a failure.
pub(crate) fn show(options: &Options) -> ExitCode {
    let answers = live::ask_all(options.pid);
    let missed = answers.without(options.pid);
    let live::Answers { reports, silent } = answers;
    if options.json {
        return live::print_json(&reports, missed);
    }
    if missed {
        return ExitCode::FAILURE;
    }
    let text = if reports.is_empty() && silent == 0 {
        "No process of yours is running under Sidewire and has used TCP.\n".to_owned()
    } else {
        let blocks: Vec<String> = reports.iter().map(block).collect();
        blocks.join("\n")
    };
    print_all(&text, ExitCode::SUCCESS)
}

fn block(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} ({}): {} on the engine, {} on the kernel, {} in TIME_WAIT; library {}",
        report.program,
        report.pid,
        plural(report.sockets.len(), "socket"),
        report.kernel.len(),
        report.time_wait,
        report.version
    );
    for k in &report.kernel {
        let _ = writeln!(
            out,
            "  descriptor {} ({}) is the kernel's: {}",
            k.fd, k.local, k.why
        );
    }
    let counted = report.counters.iter().filter(|(_, value)| **value > 0);
    for (name, value) in counted {
        let _ = writeln!(out, "  {name:<24} {value:>16}");
    }
    out
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidewire_posix::report::KernelSocket;

    #[test]
    fn says_who_carries_what() {
        let report = Report {
            pid: 9,
            program: "nc".to_owned(),
            version: "1.2".to_owned(),
            counters: [("InSegs".to_owned(), 3), ("Never".to_owned(), 0)].into(),
            kernel: vec![KernelSocket {
                fd: 4,
                local: "127.0.0.1:5".to_owned(),
                why: "its address is one of this host".to_owned(),
            }],
            ..Report::default()
        };
        assert_eq!(
            block(&report),
            "nc (9): 0 sockets on the engine, 1 on the kernel, 0 in TIME_WAIT; library 1.2\n\
             \x20 descriptor 4 (127.0.0.1:5) is the kernel's: its address is one of this host\n\
             \x20 InSegs                                  3\n"
        );
    }
}
