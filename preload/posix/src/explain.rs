//! `sidewire run --explain`: what each send went through, in words, to standard error or a file.
//!
//! The engine records ([`sidewire_engine::trace`]); the words are put together when the call is over and no lock is held.

use core::fmt::{self, Write as _};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use sidewire_engine::sendmsg::Zc;
use sidewire_engine::sock::nagle;
use sidewire_engine::trace::{ControlMessage, Held, Trace, TraceStep, Zerocopy};
use sidewire_engine::{Error, WaitReason};
use sidewire_link::fd::Fd;
use sidewire_link::file_limit;
use sidewire_uapi::socket as so;
use sidewire_uapi::timestamping as sof;
use std::os::fd::AsRawFd;
use syscalls::{Errno, Sysno, syscall};

use crate::config::{self, Explain};
use crate::file::File;
use crate::{fdtable, raw, signals};

/// Lines of one call; a screen has not many more.
const LINES_MAX: usize = 40;
/// Where the words begin, behind the name of the step.
const COLUMN: usize = 24;

/// True when the settings ask for records.
#[inline]
fn wanted() -> bool {
    config::loaded().is_some_and(|c| c.explain.is_some())
}

/// A record for a call, when the settings ask for one.
#[inline]
pub(crate) fn record() -> Option<Box<Trace>> {
    wanted().then(|| Box::new(Trace::new()))
}

/// A send that is being recorded: what it was called with.
#[derive(Clone, Copy)]
pub(crate) struct Called {
    /// The program's call.
    pub(crate) name: &'static str,
    /// As far as they are known.
    pub(crate) bytes: Option<usize>,
    pub(crate) flags: i32,
}

/// The line above the steps.
fn header(file: &'static File, called: Called) -> String {
    let _inside = signals::enter();
    let peer = file.stack().with(|i| i.engine.peer(file.id()));
    let mut text = format!("sidewire: {}", called.name);
    if let Some(fd) = fdtable::number_of(file) {
        let _ = write!(text, " on {fd}");
    }
    if let Ok(peer) = peer {
        let _ = write!(text, " to {peer}");
    }
    if let Some(bytes) = called.bytes {
        let _ = write!(text, ", {}", count(bytes, "byte"));
    }
    let _ = writeln!(text, ", flags {}", Names(called.flags as u32, FLAGS));
    text
}

/// Writes down, if the settings ask for it, that a call failed with `error` before the engine had it. Gives the error back.
#[cold]
pub(crate) fn refused(file: &'static File, name: &'static str, flags: i32, error: i32) -> i32 {
    if wanted() {
        let called = Called {
            name,
            bytes: None,
            flags,
        };
        let mut text = header(file, called);
        refusal(&mut text, error);
        write_out(text.as_bytes());
    }
    error
}

fn refusal(text: &mut String, error: i32) {
    let error = Errno::new(error).name().unwrap_or("an error");
    step_line(text, "out_err", format_args!("{error}, before tcp_sendmsg"));
}

/// Writes down what a send went through.
#[cold]
pub(crate) fn tell(file: &'static File, called: Called, trace: &Trace) {
    let mut text = header(file, called);
    let steps = trace.steps();
    let shown = if steps.len() <= LINES_MAX {
        steps.len()
    } else {
        // The last ones say how it ended.
        LINES_MAX / 2
    };
    let (first, rest) = steps.split_at(shown);
    for step in first {
        line(&mut text, step);
    }
    let last = rest.len().min(LINES_MAX / 2);
    let (hidden, last) = rest.split_at(rest.len() - last);
    if !hidden.is_empty() {
        let _ = writeln!(text, "  ... {} more", hidden.len());
    }
    for step in last {
        line(&mut text, step);
    }
    if trace.lost() > 0 {
        let _ = writeln!(text, "  ... and {} that were not recorded", trace.lost());
    }
    write_out(text.as_bytes());
}

/// The file is opened for each call: a descriptor that stays would have to be hidden from the program and its children.
fn write_out(text: &[u8]) {
    let file = match config::loaded().and_then(|c| c.explain.as_ref()) {
        Some(Explain::File(file)) => config::of_process(file),
        Some(Explain::Stderr) => return raw::write_stderr(text),
        None => return,
    };
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
        return;
    };
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: a path that ends with 0.
    let opened = unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o666) };
    let written = opened.and_then(|fd| {
        let fd = Fd::from_raw(fd as i32);
        // SAFETY: the kernel reads a live slice.
        let write = || unsafe { syscall!(Sysno::write, fd.as_raw_fd(), text.as_ptr(), text.len()) };
        file_limit::within(write)
    });
    if let Err(e) = written {
        let e = io::Error::from(e);
        crate::warning!("SIDEWIRE_EXPLAIN={}: {e}", file.display());
    }
}

fn line(text: &mut String, step: &TraceStep) {
    step_line(text, name(step), format_args!("{}", Words(step)));
}

fn step_line(text: &mut String, name: &str, words: fmt::Arguments<'_>) {
    let _ = writeln!(text, "  {name:<COLUMN$}{words}");
}

/// The function or label of Linux's that the step belongs to.
fn name(step: &TraceStep) -> &'static str {
    match step {
        TraceStep::SockcmCookie { .. } => "sockcm_cookie",
        TraceStep::Zerocopy(_) => "zerocopy",
        TraceStep::Dmabuf { .. } => "dmabuf",
        TraceStep::Fastopen { .. } => "tcp_sendmsg_fastopen",
        TraceStep::Connected(_) | TraceStep::NotConnected { .. } => "sk_stream_wait_connect",
        TraceStep::Unwritable { err: Some(_) } => "sk_err",
        TraceStep::Unwritable { err: None } => "sk_shutdown",
        TraceStep::Repair(_) => "repair",
        TraceStep::SendMss { .. } => "tcp_send_mss",
        TraceStep::NewSegment { .. } => "new_segment",
        TraceStep::Chunk { zc: Zc::Copy, .. } => "copy",
        TraceStep::Chunk { .. } => "reference",
        TraceStep::NoRoom => "tcp_mark_push",
        TraceStep::Fault => "copy",
        TraceStep::PushFull { forced: true } => "forced_push",
        TraceStep::PushFull { forced: false } => "tcp_push_one",
        TraceStep::WaitForMemory { .. } => "wait_for_space",
        TraceStep::FlushBacklog => "sk_flush_backlog",
        TraceStep::Waited { fastopen: true, .. } => "inet_wait_for_connect",
        TraceStep::Waited { reason, .. } => match reason {
            WaitReason::Memory => "sk_stream_wait_memory",
            _ => "sk_stream_wait_connect",
        },
        TraceStep::TxTimestamp { .. } => "tcp_tx_timestamp",
        TraceStep::Push { .. } => "tcp_push",
        TraceStep::WriteXmit { .. } => "tcp_write_xmit",
        TraceStep::Failed { .. } => "out_err",
        TraceStep::Returned { .. } => "out",
    }
}

/// What the step came to.
struct Words<'a>(&'a TraceStep);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            TraceStep::SockcmCookie {
                tsflags,
                control,
                ref messages,
                more,
                err,
            } => {
                match (control, messages.is_empty()) {
                    (0, _) => f.write_str("no control messages")?,
                    // Not one whose length can be.
                    (n, true) => write!(f, "{} of control messages", count(n, "byte"))?,
                    (_, false) => {
                        for (n, message) in messages.iter().enumerate() {
                            f.write_str(if n > 0 { ", " } else { "" })?;
                            message_words(f, *message)?;
                        }
                    }
                }
                if more > 0 {
                    write!(f, ", and {more} more")?;
                }
                if tsflags != 0 {
                    write!(f, ", timestamps {}", Names(tsflags, TSFLAGS))?;
                }
                match err {
                    Some(err) => write!(f, "; {} is kept for later", errno(err)),
                    None => Ok(()),
                }
            }
            TraceStep::Zerocopy(zerocopy) => zerocopy_words(f, zerocopy),
            TraceStep::Dmabuf { id, err: None } => write!(f, "binding {id}"),
            TraceStep::Dmabuf { id, err: Some(err) } => write!(f, "binding {id}: {}", errno(err)),
            TraceStep::Fastopen { copied_syn, err } => {
                write!(f, "{} in the SYN", count(copied_syn, "byte"))?;
                err.map_or(Ok(()), |err| write!(f, ", {}", errno(err)))
            }
            TraceStep::Connected(state) => {
                write!(f, "{}: may send", format!("{state:?}").to_uppercase())
            }
            TraceStep::NotConnected { state, err } => {
                write!(f, "{}: {}", format!("{state:?}").to_uppercase(), errno(err))
            }
            TraceStep::Unwritable { err: Some(err) } => write!(f, "{} is pending", errno(err)),
            TraceStep::Unwritable { err: None } => f.write_str("the send side is shut"),
            TraceStep::Repair(queue) => write!(f, "queue {queue:?}"),
            TraceStep::SendMss { mss_now, size_goal } => {
                write!(f, "mss_now {mss_now}, size_goal {size_goal}")
            }
            TraceStep::NewSegment {
                wmem_queued,
                sndbuf,
                notsent,
            } => write!(
                f,
                "a new buffer: wmem_queued {wmem_queued} < sndbuf {sndbuf}, {notsent} unsent"
            ),
            TraceStep::Chunk {
                bytes,
                chunks,
                before,
                ..
            } => {
                write!(f, "{}", count(bytes as usize, "byte"))?;
                if chunks > 1 {
                    write!(f, " in {chunks} chunks")?;
                }
                match before {
                    0 => f.write_str(" into it"),
                    n => write!(f, " behind the {n} of the unsent tail"),
                }
            }
            TraceStep::FlushBacklog => f.write_str("pauses: frames leave, acks come in"),
            TraceStep::NoRoom => f.write_str("the tail takes no further fragment"),
            TraceStep::Fault => f.write_str("the memory cannot be read; the chunk is undone"),
            TraceStep::PushFull { forced: true } => {
                f.write_str("half of the largest window is unpushed: PSH, all may go")
            }
            TraceStep::PushFull { forced: false } => {
                f.write_str("the buffer is full and the first")
            }
            TraceStep::WaitForMemory {
                wmem_queued,
                sndbuf,
                notsent,
            } => write!(
                f,
                "no buffer: wmem_queued {wmem_queued}, sndbuf {sndbuf}, {notsent} unsent"
            ),
            TraceStep::Waited { ns, signal, .. } => {
                write!(f, "slept {}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000)?;
                f.write_str(if signal { ", until a signal" } else { "" })
            }
            TraceStep::TxTimestamp { tsflags } => write!(f, "{}", Names(tsflags, TSFLAGS)),
            TraceStep::Push {
                psh,
                forced,
                urgent,
                autocork,
                nonagle,
            } => {
                f.write_str(match (psh, forced) {
                    (false, _) => "no PSH: MSG_MORE",
                    (true, false) => "PSH",
                    (true, true) => "PSH, forced",
                })?;
                f.write_str(if urgent {
                    "; urgent pointer behind the last byte"
                } else {
                    ""
                })?;
                write!(f, "; nonagle {}", Names(u32::from(nonagle), NONAGLE))?;
                f.write_str(if autocork {
                    "; held back: autocork"
                } else {
                    ""
                })
            }
            TraceStep::WriteXmit {
                segments,
                bytes,
                notsent,
                held,
                snd_cwnd,
                in_flight,
                snd_wnd,
            } => {
                match segments {
                    0 => f.write_str("nothing sent")?,
                    n => write!(
                        f,
                        "{}, {} sent",
                        count(n as usize, "segment"),
                        count(bytes as usize, "byte")
                    )?,
                }
                if notsent > 0 {
                    write!(f, "; {notsent} held back: {}", held_words(held))?;
                }
                write!(
                    f,
                    "; cwnd {snd_cwnd}, in flight {in_flight}, snd_wnd {snd_wnd}"
                )
            }
            TraceStep::Failed { err, sigpipe } => {
                write!(f, "{}", errno(err))?;
                f.write_str(if sigpipe { ", SIGPIPE" } else { "" })
            }
            TraceStep::Returned { copied, copied_syn } => {
                write!(f, "returns {}", copied + copied_syn)
            }
        }
    }
}

fn message_words(f: &mut fmt::Formatter<'_>, message: ControlMessage) -> fmt::Result {
    let ControlMessage {
        level,
        ty,
        len,
        value,
    } = message;
    if level != so::SOL_SOCKET {
        return write!(f, "level {level} type {ty} (not looked at)");
    }
    let (name, size) = match ty {
        so::SCM_RIGHTS => return f.write_str("SCM_RIGHTS"),
        so::SCM_CREDENTIALS => return f.write_str("SCM_CREDENTIALS"),
        so::SO_MARK => ("SO_MARK", 4),
        so::SO_PRIORITY => ("SO_PRIORITY", 4),
        so::SO_TIMESTAMPING => ("SO_TIMESTAMPING", 4),
        so::SO_TIMESTAMPING_NEW => ("SO_TIMESTAMPING_NEW", 4),
        so::SCM_TXTIME => ("SCM_TXTIME", 8),
        so::SCM_TS_OPT_ID => ("SCM_TS_OPT_ID", 4),
        so::SCM_DEVMEM_DMABUF => ("SCM_DEVMEM_DMABUF", 4),
        _ => return write!(f, "type {ty} of {}", count(len, "byte")),
    };
    if len != size {
        return write!(f, "{name} of {}", count(len, "byte"));
    }
    match ty {
        so::SO_TIMESTAMPING | so::SO_TIMESTAMPING_NEW => {
            write!(f, "{name} {}", Names(value as u32, TSFLAGS))
        }
        so::SCM_TXTIME => write!(f, "{name} {value} ns"),
        _ => write!(f, "{name} {value}"),
    }
}

fn zerocopy_words(f: &mut fmt::Formatter<'_>, zerocopy: Zerocopy) -> fmt::Result {
    let how = |sg| {
        if sg {
            "pages are referenced"
        } else {
            "copied: no route to a device that takes fragments"
        }
    };
    match zerocopy {
        Zerocopy::None => f.write_str("not asked for"),
        Zerocopy::NoBytes => f.write_str("no bytes: no notification"),
        Zerocopy::NotEnabled => f.write_str("SO_ZEROCOPY is not set: copied"),
        Zerocopy::NoBufs => f.write_str("no notification to be had"),
        Zerocopy::Id { id, range, sg } => {
            write!(
                f,
                "id {id}, a notification of {}; {}",
                count(range as usize, "id"),
                how(sg)
            )
        }
        Zerocopy::Caller { sg } => write!(f, "the caller's completion; {}", how(sg)),
        Zerocopy::Splice => f.write_str("pages of a file or pipe are referenced"),
    }
}

fn held_words(held: Held) -> String {
    let words = match held {
        Held::Nothing => "they are being put together",
        Held::Pacing => "pacing",
        Held::SmallQueue => "enough waits before the device",
        Held::Cwnd => "congestion window",
        Held::Rwnd => "the peer's window",
        Held::Cork => "cork",
        Held::Nagle => "Nagle, a small segment is in flight",
        Held::TsoDefer => "a larger frame will do soon",
        Held::PushOne => "one buffer at a time",
        Held::NoMemory => "no memory to cut a buffer",
        Held::Xmit(e) => return format!("the link, {e:?}"),
    };
    words.to_owned()
}

fn errno(err: Error) -> &'static str {
    err.errno().name().unwrap_or("an error")
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

type Named = &'static [(u32, &'static str)];

/// Bits by their names, and what has none as a number.
struct Names(u32, Named);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(mut rest, names) = *self;
        if rest == 0 {
            return f.write_str("0");
        }
        let mut before = "";
        for (bit, name) in names {
            if rest & bit != 0 {
                rest &= !bit;
                write!(f, "{before}{name}")?;
                before = "|";
            }
        }
        if rest != 0 {
            write!(f, "{before}{rest:#x}")?;
        }
        Ok(())
    }
}

const FLAGS: Named = &[
    (so::MSG_OOB as u32, "MSG_OOB"),
    (so::MSG_DONTROUTE as u32, "MSG_DONTROUTE"),
    (so::MSG_DONTWAIT as u32, "MSG_DONTWAIT"),
    (so::MSG_EOR as u32, "MSG_EOR"),
    (so::MSG_NOSIGNAL as u32, "MSG_NOSIGNAL"),
    (so::MSG_MORE as u32, "MSG_MORE"),
    (so::MSG_BATCH as u32, "MSG_BATCH"),
    (so::MSG_ZEROCOPY as u32, "MSG_ZEROCOPY"),
    (so::MSG_SPLICE_PAGES as u32, "MSG_SPLICE_PAGES"),
    (so::MSG_FASTOPEN as u32, "MSG_FASTOPEN"),
];

const TSFLAGS: Named = &[
    (sof::SOF_TIMESTAMPING_TX_HARDWARE, "TX_HARDWARE"),
    (sof::SOF_TIMESTAMPING_TX_SOFTWARE, "TX_SOFTWARE"),
    (sof::SOF_TIMESTAMPING_TX_SCHED, "TX_SCHED"),
    (sof::SOF_TIMESTAMPING_TX_ACK, "TX_ACK"),
    (sof::SOF_TIMESTAMPING_TX_COMPLETION, "TX_COMPLETION"),
    (sof::SOF_TIMESTAMPING_SOFTWARE, "SOFTWARE"),
    (sof::SOF_TIMESTAMPING_RAW_HARDWARE, "RAW_HARDWARE"),
    (sof::SOF_TIMESTAMPING_OPT_ID, "OPT_ID"),
    (sof::SOF_TIMESTAMPING_OPT_CMSG, "OPT_CMSG"),
    (sof::SOF_TIMESTAMPING_OPT_TSONLY, "OPT_TSONLY"),
    (sof::SOF_TIMESTAMPING_OPT_STATS, "OPT_STATS"),
    (sof::SOF_TIMESTAMPING_OPT_ID_TCP, "OPT_ID_TCP"),
];

const NONAGLE: Named = &[
    (nagle::OFF as u32, "TCP_NAGLE_OFF"),
    (nagle::CORK as u32, "TCP_NAGLE_CORK"),
    (nagle::PUSH as u32, "TCP_NAGLE_PUSH"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn one(step: TraceStep) -> String {
        let mut text = String::new();
        line(&mut text, &step);
        text
    }

    #[test]
    fn a_step_is_a_line() {
        let step = TraceStep::SendMss {
            mss_now: 1448,
            size_goal: 65_160,
        };
        assert_eq!(
            one(step),
            "  tcp_send_mss            mss_now 1448, size_goal 65160\n"
        );
        let step = TraceStep::WriteXmit {
            segments: 0,
            bytes: 0,
            notsent: 6,
            held: Held::Nagle,
            snd_cwnd: 10,
            in_flight: 1,
            snd_wnd: 64_240,
        };
        assert!(
            one(step).contains("nothing sent; 6 held back: Nagle, a small segment is in flight;")
        );
        let step = TraceStep::Waited {
            reason: WaitReason::Memory,
            fastopen: false,
            ns: 12_345_678,
            signal: false,
        };
        assert_eq!(one(step), "  sk_stream_wait_memory   slept 12.345 ms\n");
        let step = TraceStep::NotConnected {
            state: sidewire_uapi::TcpState::FinWait2,
            err: Error::Pipe,
        };
        assert_eq!(one(step), "  sk_stream_wait_connect  FINWAIT2: EPIPE\n");
        let step = TraceStep::Push {
            psh: true,
            forced: false,
            urgent: true,
            autocork: false,
            nonagle: 0,
        };
        assert_eq!(
            one(step),
            "  tcp_push                PSH; urgent pointer behind the last byte; nonagle 0\n"
        );
    }

    #[test]
    fn control_messages_by_name() {
        let message = |ty, len, value| ControlMessage {
            level: so::SOL_SOCKET,
            ty,
            len,
            value,
        };
        let told = |messages: &[ControlMessage], more, tsflags, err| {
            let step = TraceStep::SockcmCookie {
                tsflags,
                control: 24 * messages.len().max(1),
                messages: messages.iter().copied().collect(),
                more,
                err,
            };
            let line = one(step);
            let words = line.strip_prefix("  sockcm_cookie           ");
            words.unwrap().trim_end().to_owned()
        };
        let all = [
            message(so::SO_MARK, 4, 7),
            message(so::SO_PRIORITY, 4, 3),
            message(
                so::SO_TIMESTAMPING,
                4,
                u64::from(sof::SOF_TIMESTAMPING_TX_ACK),
            ),
            message(so::SCM_TXTIME, 8, 5_000_000_000),
            message(so::SCM_DEVMEM_DMABUF, 4, 9),
            message(so::SCM_TS_OPT_ID, 4, 11),
        ];
        let tsflags = sof::SOF_TIMESTAMPING_TX_ACK | sof::SOF_TIMESTAMPING_SOFTWARE;
        assert_eq!(
            told(&all, 0, tsflags, Some(Error::Inval)),
            "SO_MARK 7, SO_PRIORITY 3, SO_TIMESTAMPING TX_ACK, SCM_TXTIME 5000000000 ns, SCM_DEVMEM_DMABUF 9, \
             SCM_TS_OPT_ID 11, timestamps TX_ACK|SOFTWARE; EINVAL is kept for later"
        );
        let odd = [
            ControlMessage {
                level: 0,
                ..message(8, 4, 1)
            },
            message(so::SCM_RIGHTS, 4, 1),
            message(so::SO_PRIORITY, 3, 0),
            message(77, 1, 0),
        ];
        assert_eq!(
            told(&odd, 2, 0, None),
            "level 0 type 8 (not looked at), SCM_RIGHTS, SO_PRIORITY of 3 bytes, type 77 of 1 byte, and 2 more"
        );
        assert_eq!(
            told(&[], 0, 0, Some(Error::Inval)),
            "24 bytes of control messages; EINVAL is kept for later"
        );
    }

    #[test]
    fn a_call_that_the_engine_does_not_see_is_a_line() {
        let mut text = String::new();
        refusal(&mut text, libc::EMSGSIZE);
        assert_eq!(
            text,
            "  out_err                 EMSGSIZE, before tcp_sendmsg\n"
        );
        assert_eq!(
            one(TraceStep::Zerocopy(Zerocopy::NoBytes)),
            "  zerocopy                no bytes: no notification\n"
        );
    }

    #[test]
    fn flags_by_name() {
        assert_eq!(Names(0, FLAGS).to_string(), "0");
        let flags = (so::MSG_MORE | so::MSG_ZEROCOPY | so::MSG_PEEK) as u32;
        assert_eq!(Names(flags, FLAGS).to_string(), "MSG_MORE|MSG_ZEROCOPY|0x2");
    }
}
