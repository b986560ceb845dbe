//! `sidewire top`: the busiest connections of running processes, again and again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::ops::Add;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use sidewire_posix::report::{Report, Socket};

use crate::live;
use crate::out::print;
use crate::ss::rate;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What `sidewire top` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Seconds between two looks
    #[arg(short, long, default_value_t = 1.0, value_parser = seconds)]
    delay: f64,
    /// Looks before it ends; endless without
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Connections that are shown
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    lines: u16,
    /// Only this process
    #[arg(value_name = "PID")]
    pid: Option<i32>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=3600.0).contains(&value) {
        Ok(value)
    } else {
        Err("allowed: 0.1 to 3600".to_owned())
    }
}

/// What tells one connection from another.
type Key = (i32, String, String);

fn key(report: &Report, s: &Socket) -> Key {
    (report.pid, s.local.clone(), s.remote.clone())
}

/// Bytes sent and received so far.
fn bytes(s: &Socket) -> (u64, u64) {
    let get = |name: &str| s.info.get(name).copied().unwrap_or(0);
    (get("bytes_acked"), get("bytes_received"))
}

/// Looks until it has looked often enough, or standard output is gone. A process that was asked for and is not there, or not
/// any more, is a failure.
pub(crate) fn show(options: &Options) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let mut before: HashMap<Key, (u64, u64)> = HashMap::new();
    let mut since = Instant::now();
    let mut left = options.count.unwrap_or(u64::MAX);
    loop {
        let answers = live::ask_all(options.pid);
        if answers.without(options.pid) {
            return ExitCode::FAILURE;
        }
        let reports = answers.reports;
        let now = Instant::now();
        let screen = screen(&reports, &before, now - since, options.lines.into());
        let clear = if terminal { CLEAR } else { "" };
        if let Err(status) = print(&format!("{clear}{screen}")) {
            return status;
        }
        left -= 1;
        if left == 0 {
            return ExitCode::SUCCESS;
        }
        let sockets = reports
            .iter()
            .flat_map(|r| r.sockets.iter().map(move |s| (r, s)));
        before = sockets.map(|(r, s)| (key(r, s), bytes(s))).collect();
        since = now;
        std::thread::sleep(Duration::from_secs_f64(options.delay));
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people to read")]
fn screen(
    reports: &[Report],
    before: &HashMap<Key, (u64, u64)>,
    passed: Duration,
    lines: usize,
) -> String {
    let seconds = passed.as_secs_f64().max(1e-3);
    let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 * 8.0 / seconds;
    let mut rows: Vec<(f64, f64, &Report, &Socket)> = reports
        .iter()
        .flat_map(|r| r.sockets.iter().map(move |s| (r, s)))
        .filter(|(_, s)| !s.info.is_empty() && s.state != "UNCONN")
        .map(|(r, s)| {
            let (sent, received) = bytes(s);
            let then = before.get(&key(r, s)).copied();
            let (sent_then, received_then) = then.unwrap_or((sent, received));
            let rates = (
                per_second(sent, sent_then),
                per_second(received, received_then),
            );
            (rates.0, rates.1, r, s)
        })
        .collect();
    rows.sort_by(|a, b| (b.0 + b.1).total_cmp(&(a.0 + a.1)));
    // Of none, Iterator::sum makes -0.
    let sum =
        |of: fn(&(f64, f64, &Report, &Socket)) -> f64| rows.iter().map(of).fold(0.0, Add::add);
    let mut out = format!(
        "Processes: {}, connections: {}, sent: {}, received: {}\n\n",
        reports.len(),
        rows.len(),
        rate(sum(|r| r.0)),
        rate(sum(|r| r.1))
    );
    let _ = writeln!(
        out,
        "{:>7} {:<12} {:<21} {:<21} {:>11} {:>11} {:>8} {:>6} {:>7}  State",
        "PID", "Program", "Local", "Peer", "Sent", "Received", "RTT ms", "cwnd", "Retrans"
    );
    for (sent, received, report, s) in rows.iter().take(lines) {
        let get = |name: &str| s.info.get(name).copied().unwrap_or(0);
        let _ = writeln!(
            out,
            "{:>7} {:<12} {:<21} {:<21} {:>11} {:>11} {:>8.3} {:>6} {:>7}  {}",
            report.pid,
            report.program,
            s.local,
            s.remote,
            rate(*sent),
            rate(*received),
            get("rtt") as f64 / 1000.0,
            get("snd_cwnd"),
            get("total_retrans"),
            s.state
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(port: u16, acked: u64) -> Socket {
        Socket {
            state: "ESTAB".to_owned(),
            local: format!("192.0.2.1:{port}"),
            remote: "192.0.2.2:80".to_owned(),
            info: [("bytes_acked".to_owned(), acked)].into(),
            ..Socket::default()
        }
    }

    #[test]
    fn nothing_moves_where_nobody_is() {
        let text = screen(&[], &HashMap::new(), Duration::from_secs(1), 20);
        let line = "Processes: 0, connections: 0, sent: 0bps, received: 0bps\n";
        assert!(text.starts_with(line), "{text}");
    }

    #[test]
    fn the_busiest_comes_first() {
        let report = Report {
            pid: 3,
            program: "x".to_owned(),
            sockets: vec![socket(1, 1000), socket(2, 9000)],
            ..Report::default()
        };
        let before = report
            .sockets
            .iter()
            .map(|s| (key(&report, s), (500, 0)))
            .collect();
        let text = screen(&[report], &before, Duration::from_secs(2), 1);
        assert!(
            text.starts_with("Processes: 1, connections: 2, sent: 36.00Kbps,"),
            "{text}"
        );
        let shown: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(shown.len(), 1);
        assert!(shown[0].contains("192.0.2.1:2 ") && shown[0].contains("34.00Kbps"));
    }
}
