//! What this process carries, for whoever looks from outside: `sidewire status`, `ss` and `top` (see [`crate::inspection`]).

use core::ffi::c_int;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sidewire_engine::Instant;
use sidewire_engine::info::tcp_get_info;
use sidewire_engine::sock::TcpSock;
use sidewire_engine::timers::{IcskPending, Timer};
use sidewire_engine::timewait::TimewaitSock;
use sidewire_link::fd::is_internal;
use sidewire_uapi::TcpState;

use crate::calls::address;
use crate::carrier::{self, Carrier};
use crate::stack::{self, NetStack};
use crate::{fdtable, stats, syscall};

/// A process and its sockets at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Process id.
    pub pid: i32,
    /// Its name, as `/proc/PID/comm` has it.
    pub program: String,
    /// Version of the library.
    pub version: String,
    /// Counters of all its stacks: those of `SIDEWIRE_STATS`.
    pub counters: BTreeMap<String, u64>,
    /// Sockets of the engine.
    pub sockets: Vec<Socket>,
    /// TCP sockets of the kernel's.
    pub kernel: Vec<KernelSocket>,
    /// Connections in TIME_WAIT.
    pub time_wait: usize,
    /// Each of them; none of a process with a library that does not tell.
    #[serde(default)]
    pub remnants: Vec<Remnant>,
}

/// A connection that has ended here first, and that no descriptor belongs to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Remnant {
    /// `TIME-WAIT`, or `FIN-WAIT-2` where the peer has not finished.
    pub state: String,
    /// Address and port.
    pub local: String,
    /// Address and port.
    pub remote: String,
    /// Milliseconds that it has left.
    pub timer_ms: u64,
}

/// A socket of the engine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Socket {
    /// Descriptors; none for what the program has closed or not yet accepted.
    pub fds: Vec<i32>,
    /// Name as ss(8) has it.
    pub state: String,
    /// Address and port.
    pub local: String,
    /// Address and port; port 0 when not connected.
    pub remote: String,
    /// Bytes that the program has not read; of a listener, connections that wait.
    pub recv_q: u32,
    /// Bytes that are not acknowledged; of a listener, the backlog.
    pub send_q: u32,
    /// What is armed: `on`, `persist`, `keepalive`; empty for nothing.
    pub timer: String,
    /// Milliseconds until it fires.
    pub timer_ms: u64,
    /// Times that it has fired in a row.
    pub timer_retrans: u32,
    /// Bytes of memory charged: received, receive bound, queued to send, send bound.
    pub memory: [u32; 4],
    /// Congestion control.
    pub congestion: String,
    /// Options of the handshake: `ts`, `sack`, `ecn`, and the like.
    pub options: Vec<String>,
    /// Window scale: the peer's, ours.
    pub wscale: Option<(u8, u8)>,
    /// The numbers of TCP_INFO, by their names there without `tcpi_`, in its units.
    pub info: BTreeMap<String, u64>,
}

/// A TCP socket that the kernel carries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KernelSocket {
    /// Its descriptor.
    pub fd: i32,
    /// Address and port.
    pub local: String,
    /// Why, in words.
    pub why: String,
}

/// The name of a state in ss(8).
fn state_name(state: TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTAB",
        TcpState::SynSent => "SYN-SENT",
        TcpState::SynRecv | TcpState::NewSynRecv => "SYN-RECV",
        TcpState::FinWait1 => "FIN-WAIT-1",
        TcpState::FinWait2 => "FIN-WAIT-2",
        TcpState::TimeWait => "TIME-WAIT",
        TcpState::Close => "UNCONN",
        TcpState::CloseWait => "CLOSE-WAIT",
        TcpState::LastAck => "LAST-ACK",
        TcpState::Listen => "LISTEN",
        TcpState::Closing => "CLOSING",
    }
}

/// The retransmission timer, else keepalive, as ss(8) names them.
fn timer(sk: &TcpSock, now: Instant) -> (&'static str, u64) {
    let (name, at) = match sk.icsk_pending {
        IcskPending::None => ("keepalive", sk.timers.at(Timer::Keepalive)),
        IcskPending::Probe0 => ("persist", sk.timers.at(Timer::Retransmit)),
        _ => ("on", sk.timers.at(Timer::Retransmit)),
    };
    if at == Instant::NEVER {
        return ("", 0);
    }
    (name, at.us_since(now) / 1000)
}

fn remnant(tw: &TimewaitSock, now: Instant) -> Remnant {
    let state = if tw.fin_wait2 {
        TcpState::FinWait2
    } else {
        TcpState::TimeWait
    };
    Remnant {
        state: state_name(state).to_owned(),
        local: tw.tuple.local.to_string(),
        remote: tw.tuple.remote.to_string(),
        timer_ms: tw.deadline.us_since(now) / 1000,
    }
}

fn info(sk: &TcpSock, now: Instant) -> BTreeMap<String, u64> {
    let i = tcp_get_info(sk, now);
    let all: [(&str, u64); 41] = [
        ("rto", i.tcpi_rto.into()),
        ("rtt", i.tcpi_rtt.into()),
        ("rttvar", i.tcpi_rttvar.into()),
        ("min_rtt", i.tcpi_min_rtt.into()),
        ("ato", i.tcpi_ato.into()),
        ("snd_mss", i.tcpi_snd_mss.into()),
        ("pmtu", i.tcpi_pmtu.into()),
        ("rcv_mss", i.tcpi_rcv_mss.into()),
        ("advmss", i.tcpi_advmss.into()),
        ("snd_cwnd", i.tcpi_snd_cwnd.into()),
        ("snd_ssthresh", i.tcpi_snd_ssthresh.into()),
        ("bytes_sent", i.tcpi_bytes_sent),
        ("bytes_retrans", i.tcpi_bytes_retrans),
        ("bytes_acked", i.tcpi_bytes_acked),
        ("bytes_received", i.tcpi_bytes_received),
        ("segs_out", i.tcpi_segs_out.into()),
        ("segs_in", i.tcpi_segs_in.into()),
        ("data_segs_out", i.tcpi_data_segs_out.into()),
        ("data_segs_in", i.tcpi_data_segs_in.into()),
        ("last_data_sent", i.tcpi_last_data_sent.into()),
        ("last_data_recv", i.tcpi_last_data_recv.into()),
        ("last_ack_recv", i.tcpi_last_ack_recv.into()),
        ("pacing_rate", i.tcpi_pacing_rate),
        ("delivery_rate", i.tcpi_delivery_rate),
        ("delivered", i.tcpi_delivered.into()),
        ("busy_time", i.tcpi_busy_time),
        ("rwnd_limited", i.tcpi_rwnd_limited),
        ("sndbuf_limited", i.tcpi_sndbuf_limited),
        ("unacked", i.tcpi_unacked.into()),
        ("retrans", i.tcpi_retrans.into()),
        ("total_retrans", i.tcpi_total_retrans.into()),
        ("lost", i.tcpi_lost.into()),
        ("sacked", i.tcpi_sacked.into()),
        ("dsack_dups", i.tcpi_dsack_dups.into()),
        ("reordering", i.tcpi_reordering.into()),
        ("rcv_rtt", i.tcpi_rcv_rtt.into()),
        ("rcv_space", i.tcpi_rcv_space.into()),
        ("rcv_ssthresh", i.tcpi_rcv_ssthresh.into()),
        ("notsent_bytes", i.tcpi_notsent_bytes.into()),
        ("snd_wnd", i.tcpi_snd_wnd.into()),
        ("rcv_wnd", i.tcpi_rcv_wnd.into()),
    ];
    all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn socket(sk: &TcpSock, now: Instant) -> Socket {
    let listen = sk.listen.as_ref().filter(|_| sk.state == TcpState::Listen);
    let (recv_q, send_q) = match listen {
        Some(l) => (l.accept_queue.len() as u32, l.backlog),
        None => (
            sk.rcv_nxt.wrapping_sub(sk.copied_seq),
            sk.write_seq.wrapping_sub(sk.snd_una),
        ),
    };
    let options = [
        (sk.tstamp_ok, "ts"),
        (sk.sack_ok, "sack"),
        (sk.ecn_flags & sidewire_engine::sock::ecn::OK != 0, "ecn"),
        (sk.syn_data_acked, "fastopen"),
    ];
    let (timer, timer_ms) = timer(sk, now);
    Socket {
        fds: Vec::new(),
        state: state_name(sk.state).to_owned(),
        local: sk.tuple.local.to_string(),
        remote: sk.tuple.remote.to_string(),
        recv_q,
        send_q,
        timer: timer.to_owned(),
        timer_ms,
        timer_retrans: sk.retransmits.into(),
        memory: [sk.rmem_alloc, sk.rcvbuf, sk.wmem_queued, sk.sndbuf],
        congestion: sk.ca.name().to_owned(),
        options: options
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| name.to_owned())
            .collect(),
        wscale: sk.wscale_ok.then_some((sk.snd_wscale, sk.rcv_wscale)),
        info: if listen.is_some() {
            BTreeMap::new()
        } else {
            info(sk, now)
        },
    }
}

/// Why the kernel carries a socket, in words; `None` for what it does not, or what is no TCP socket.
fn why(fd: c_int) -> Option<String> {
    Some(match carrier::of(fd).ok()? {
        Carrier::Engine | Carrier::NotTcp => return None,
        Carrier::Disabled => "disabled by the settings".to_owned(),
        Carrier::Kernel(reason) => reason.words().to_string_lossy().into_owned(),
        Carrier::Unknown => "it came from another process, or was opened long ago".to_owned(),
    })
}

fn kernel_sockets() -> Vec<KernelSocket> {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = open.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> = numbers
        .filter(|fd| !is_internal(*fd))
        .filter_map(|fd| {
            Some(KernelSocket {
                fd,
                why: why(fd)?,
                local: address::kernel_name(fd)?.to_string(),
            })
        })
        .collect();
    found.sort_by_key(|k| k.fd);
    found
}

impl Report {
    /// Looks at every stack of this process, one lock at a time.
    pub(crate) fn collect() -> Report {
        let mut report = Report {
            pid: syscall::getpid(),
            program: std::fs::read_to_string("/proc/self/comm")
                .map(|s| s.trim_end().to_owned())
                .unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Report::default()
        };
        stats::for_each(|name, value| {
            report.counters.insert(name.to_owned(), value);
        });
        let mut descriptors: HashMap<_, Vec<i32>> = HashMap::new();
        fdtable::for_each(|fd| {
            if let Some(file) = fdtable::get(fd).filter(|f| f.usable()) {
                let socket = (core::ptr::from_ref(file.stack()), file.id());
                descriptors.entry(socket).or_default().push(fd);
            }
        });
        stack::for_each(|stack: &'static NetStack| {
            stack.with(|inner| {
                let now = Instant(stack::monotonic_ns());
                report.time_wait += inner.engine.timewait_count();
                let remnants = inner.engine.timewaits().map(|tw| remnant(tw, now));
                report.remnants.extend(remnants);
                inner.engine.for_each(|id, sk| {
                    report.sockets.push(Socket {
                        fds: descriptors
                            .remove(&(core::ptr::from_ref(stack), id))
                            .unwrap_or_default(),
                        ..socket(sk, now)
                    });
                });
            });
        });
        report.kernel = kernel_sockets();
        report
    }
}
