//! `sidewire ss`: the sockets of running processes, as ss(8) shows the kernel's.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use sidewire_posix::report::{Remnant, Report, Socket};

use crate::live;
use crate::out::print_all;

/// What `sidewire ss` takes: ss(8)'s letters.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Listening and connected sockets
    #[arg(short, long)]
    all: bool,
    /// Listening sockets only
    #[arg(short, long)]
    listening: bool,
    /// Numbers of TCP_INFO
    #[arg(short, long)]
    info: bool,
    /// Timers
    #[arg(short, long)]
    options: bool,
    /// Memory
    #[arg(short, long)]
    memory: bool,
    /// Processes
    #[arg(short, long)]
    processes: bool,
    /// No header
    #[arg(short = 'H', long)]
    no_header: bool,
    /// TCP; there is nothing else
    #[arg(short, long)]
    tcp: bool,
    /// Numbers for names; there are no names
    #[arg(short, long)]
    numeric: bool,
    /// One line for each socket
    #[arg(short = 'O', long)]
    oneline: bool,
    /// Everything that is known, as JSON
    #[arg(long)]
    json: bool,
    /// Only this process
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
}

/// Prints them. A process that was asked for and is not there is a failure.
pub(crate) fn show(options: &Options) -> ExitCode {
    let answers = live::ask_all(options.pid);
    let missed = answers.without(options.pid);
    let reports = answers.reports;
    if options.json {
        return live::print_json(&reports, missed);
    }
    if missed {
        return ExitCode::FAILURE;
    }
    print_all(&table(&reports, options), ExitCode::SUCCESS)
}

fn wanted(socket: &Socket, options: &Options) -> bool {
    let listens = socket.state == "LISTEN";
    match (options.all, options.listening) {
        (true, _) => true,
        (false, true) => listens,
        // As ss(8).
        (false, false) => {
            !["LISTEN", "UNCONN", "TIME-WAIT", "SYN-RECV"].contains(&socket.state.as_str())
        }
    }
}

/// `0.0.0.0:0` is `*` for the port.
fn peer(address: &str) -> String {
    address
        .strip_suffix(":0")
        .map_or_else(|| address.to_owned(), |host| format!("{host}:*"))
}

/// The timer of a connection that no socket is left of.
const TIMEWAIT: &str = "timewait";

/// A row for what no socket is left of.
fn row(remnant: &Remnant) -> Socket {
    Socket {
        state: remnant.state.clone(),
        local: remnant.local.clone(),
        remote: remnant.remote.clone(),
        timer: TIMEWAIT.to_owned(),
        timer_ms: remnant.timer_ms,
        ..Socket::default()
    }
}

/// A time as ss(8) rounds it: minutes, seconds with them below ten, thousandths below ten seconds.
fn time(ms: u64) -> String {
    let (minutes, seconds, thousandths) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
    match (minutes, seconds) {
        (10.., _) | (1.., 0) => format!("{minutes}min"),
        (1.., _) => format!("{minutes}min{seconds}sec"),
        (0, 10..) => format!("{seconds}sec"),
        (0, 1..) if thousandths == 0 => format!("{seconds}sec"),
        (0, 1..) => format!("{seconds}.{thousandths:03}ms"),
        (0, 0) if thousandths == 0 => String::new(),
        (0, 0) => format!("{thousandths:03}ms"),
    }
}

fn table(reports: &[Report], options: &Options) -> String {
    let remnants = reports
        .iter()
        .flat_map(|r| r.remnants.iter().map(row).map(move |s| (r, s)));
    let remnants: Vec<(&Report, Socket)> = remnants.collect();
    let rows: Vec<(&Report, &Socket)> = reports
        .iter()
        .flat_map(|r| r.sockets.iter().map(move |s| (r, s)))
        .chain(remnants.iter().map(|(r, s)| (*r, s)))
        .filter(|(_, s)| wanted(s, options))
        .collect();
    let widest = |header: &str, of: &dyn Fn(&Socket) -> usize| {
        let widths = rows.iter().map(|(_, s)| of(s));
        widths.max().unwrap_or(0).max(header.len())
    };
    let local = widest("Local Address:Port", &|s| s.local.len());
    let remote = widest("Peer Address:Port", &|s| peer(&s.remote).len());
    let mut out = String::new();
    if !options.no_header {
        let last = if options.processes { " Process" } else { "" };
        let _ = writeln!(
            out,
            "{:<10} {:>8} {:>8} {:>local$} {:>remote$}{last}",
            "State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port"
        );
    }
    for (report, s) in rows {
        let _ = write!(
            out,
            "{:<10} {:>8} {:>8} {:>local$} {:>remote$}",
            s.state,
            s.recv_q,
            s.send_q,
            s.local,
            peer(&s.remote)
        );
        if options.processes {
            let _ = write!(out, " {}", owner(report, s));
        }
        if options.options && !s.timer.is_empty() {
            let _ = write!(
                out,
                " timer:({},{},{})",
                s.timer,
                time(s.timer_ms),
                s.timer_retrans
            );
        }
        let more = details(s, options);
        if !more.is_empty() {
            out.push_str(if options.oneline { " " } else { "\n\t " });
            out.push_str(&more);
        }
        out.push('\n');
    }
    out
}

fn owner(report: &Report, s: &Socket) -> String {
    let fd = s.fds.first();
    let fd = fd.map_or_else(String::new, |fd| format!(",fd={fd}"));
    format!("users:((\"{}\",pid={}{fd}))", report.program, report.pid)
}

fn details(s: &Socket, options: &Options) -> String {
    let mut words = Vec::new();
    // No socket is left to tell of.
    if s.timer == TIMEWAIT {
        return String::new();
    }
    if options.memory {
        let [r, rb, w, tb] = s.memory;
        words.push(format!("skmem:(r{r},rb{rb},w{w},tb{tb})"));
    }
    if options.info {
        words.extend(s.options.iter().cloned());
        words.push(s.congestion.clone());
        if let Some((peers, ours)) = s.wscale {
            words.push(format!("wscale:{peers},{ours}"));
        }
        if !s.info.is_empty() {
            words.extend(info(s));
        }
    }
    words.join(" ")
}

/// Bits a second, in ss(8)'s units.
pub(crate) fn rate(bits: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e9, "Gbps"), (1e6, "Mbps"), (1e3, "Kbps")];
    let unit = UNITS.iter().find(|(size, _)| bits >= *size);
    unit.map_or_else(
        || format!("{bits:.0}bps"),
        |(size, name)| format!("{:.2}{name}", bits / size),
    )
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people to read")]
fn info(s: &Socket) -> Vec<String> {
    let get = |name: &str| s.info.get(name).copied().unwrap_or(0);
    let ms = |us: u64| us as f64 / 1000.0;
    let mut words = vec![
        format!("rto:{}", get("rto") / 1000),
        format!("rtt:{}/{}", ms(get("rtt")), ms(get("rttvar"))),
    ];
    let mut push = |label: &str, name: &str, divisor: u64| {
        let value = get(name) / divisor;
        if value > 0 {
            words.push(format!("{label}:{value}"));
        }
    };
    push("ato", "ato", 1000);
    for (label, name) in [
        ("mss", "snd_mss"),
        ("pmtu", "pmtu"),
        ("rcvmss", "rcv_mss"),
        ("advmss", "advmss"),
        ("cwnd", "snd_cwnd"),
    ] {
        push(label, name, 1);
    }
    // Linux's TCP_INFINITE_SSTHRESH is not shown.
    if get("snd_ssthresh") < 0x7fff_ffff {
        push("ssthresh", "snd_ssthresh", 1);
    }
    for name in [
        "bytes_sent",
        "bytes_retrans",
        "bytes_acked",
        "bytes_received",
        "segs_out",
        "segs_in",
        "data_segs_out",
        "data_segs_in",
    ] {
        push(name, name, 1);
    }
    if get("rtt") > 0 {
        let bits = get("snd_cwnd") as f64 * get("snd_mss") as f64 * 8e6 / get("rtt") as f64;
        words.push(format!("send {}", rate(bits)));
    }
    let mut push = |label: &str, name: &str| {
        let value = get(name);
        if value > 0 {
            words.push(format!("{label}:{value}"));
        }
    };
    push("lastsnd", "last_data_sent");
    push("lastrcv", "last_data_recv");
    push("lastack", "last_ack_recv");
    for (label, name) in [
        ("pacing_rate", "pacing_rate"),
        ("delivery_rate", "delivery_rate"),
    ] {
        if get(name) > 0 && get(name) != u64::MAX {
            words.push(format!("{label} {}", rate(get(name) as f64 * 8.0)));
        }
    }
    let busy = get("busy_time");
    if get("delivered") > 0 {
        words.push(format!("delivered:{}", get("delivered")));
    }
    if busy > 0 {
        words.push(format!("busy:{}ms", busy / 1000));
        for name in ["rwnd_limited", "sndbuf_limited"] {
            let limited = get(name);
            if limited > 0 {
                let share = limited as f64 * 100.0 / busy as f64;
                words.push(format!("{name}:{}ms({share:.1}%)", limited / 1000));
            }
        }
    }
    if get("unacked") > 0 {
        words.push(format!("unacked:{}", get("unacked")));
    }
    if get("total_retrans") > 0 {
        words.push(format!(
            "retrans:{}/{}",
            get("retrans"),
            get("total_retrans")
        ));
    }
    for (label, name, common) in [
        ("lost", "lost", 0),
        ("sacked", "sacked", 0),
        ("dsack_dups", "dsack_dups", 0),
        ("reordering", "reordering", 3),
    ] {
        if get(name) != common {
            words.push(format!("{label}:{}", get(name)));
        }
    }
    if get("rcv_rtt") > 0 {
        words.push(format!("rcv_rtt:{}", ms(get("rcv_rtt"))));
    }
    for (label, name) in [
        ("rcv_space", "rcv_space"),
        ("rcv_ssthresh", "rcv_ssthresh"),
        ("notsent", "notsent_bytes"),
    ] {
        if get(name) > 0 {
            words.push(format!("{label}:{}", get(name)));
        }
    }
    if get("min_rtt") > 0 && get("min_rtt") < u64::from(u32::MAX) {
        words.push(format!("minrtt:{}", ms(get("min_rtt"))));
    }
    words.push(format!("snd_wnd:{}", get("snd_wnd")));
    words.push(format!("rcv_wnd:{}", get("rcv_wnd")));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            all: true,
            listening: false,
            info: true,
            options: true,
            memory: true,
            processes: true,
            no_header: false,
            tcp: false,
            numeric: false,
            oneline: false,
            json: false,
            pid: None,
        }
    }

    fn report() -> Report {
        let info = [
            ("rto", 201_000),
            ("rtt", 1500),
            ("rttvar", 250),
            ("snd_mss", 1448),
            ("snd_cwnd", 10),
            ("snd_ssthresh", 0x7fff_ffff),
            ("reordering", 3),
            ("bytes_acked", 7),
            ("snd_wnd", 64_000),
        ];
        let connection = Socket {
            fds: vec![5],
            state: "ESTAB".to_owned(),
            local: "192.0.2.1:40000".to_owned(),
            remote: "192.0.2.2:80".to_owned(),
            send_q: 12,
            timer: "on".to_owned(),
            timer_ms: 180,
            congestion: "cubic".to_owned(),
            options: vec!["ts".to_owned(), "sack".to_owned()],
            wscale: Some((7, 8)),
            info: info.map(|(k, v)| (k.to_owned(), v)).into(),
            ..Socket::default()
        };
        let listener = Socket {
            state: "LISTEN".to_owned(),
            local: "0.0.0.0:80".to_owned(),
            remote: "0.0.0.0:0".to_owned(),
            send_q: 128,
            congestion: "cubic".to_owned(),
            ..Socket::default()
        };
        Report {
            pid: 17,
            program: "nc".to_owned(),
            sockets: vec![connection, listener],
            remnants: vec![Remnant {
                state: "TIME-WAIT".to_owned(),
                local: "192.0.2.1:40002".to_owned(),
                remote: "192.0.2.2:80".to_owned(),
                timer_ms: 9_061,
            }],
            ..Report::default()
        }
    }

    #[test]
    fn it_looks_like_ss() {
        let text = table(&[report()], &options());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "State        Recv-Q   Send-Q Local Address:Port Peer Address:Port Process"
        );
        assert_eq!(
            lines[1],
            "ESTAB             0       12    192.0.2.1:40000      192.0.2.2:80 \
             users:((\"nc\",pid=17,fd=5)) timer:(on,180ms,0)"
        );
        assert_eq!(
            lines[2],
            "\t skmem:(r0,rb0,w0,tb0) ts sack cubic wscale:7,8 rto:201 rtt:1.5/0.25 mss:1448 cwnd:10 \
             bytes_acked:7 send 77.23Mbps snd_wnd:64000 rcv_wnd:0"
        );
        assert!(lines[3].starts_with("LISTEN "));
        assert!(lines[3].contains("0.0.0.0:*"));
        assert_eq!(
            lines[5..],
            [
                "TIME-WAIT         0        0    192.0.2.1:40002      192.0.2.2:80 \
                 users:((\"nc\",pid=17)) timer:(timewait,9.061ms,0)"
            ]
        );
    }

    #[test]
    fn times_are_in_its_forms() {
        let times = [
            7_199_419, 601_500, 599_000, 60_000, 59_120, 9_061, 9_000, 20, 0,
        ]
        .map(time);
        assert_eq!(
            times,
            [
                "119min",
                "10min",
                "9min59sec",
                "1min",
                "59sec",
                "9.061ms",
                "9sec",
                "020ms",
                ""
            ]
        );
    }

    #[test]
    fn letters_choose_the_sockets() {
        let count = |all, listening| {
            let o = Options {
                all,
                listening,
                info: false,
                memory: false,
                no_header: true,
                ..options()
            };
            table(&[report()], &o).lines().count()
        };
        assert_eq!(
            (count(true, false), count(false, true), count(false, false)),
            (3, 1, 1)
        );
    }
}
