//! Running processes under the library, and what they tell of themselves (`sidewire_posix::inspection`).

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, socket_with,
};
use sidewire_posix::inspection::{listener_of, pid_namespace};
use sidewire_posix::report::Report;

use crate::EXIT_CANCELED;
use crate::doors::{Door, doors};
use crate::out::{complain, print_all};

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Processes that are asked at the same time.
const AT_ONCE: usize = 64;

/// Largest report that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// Control characters out of what another user's process says, before they reach a terminal.
fn tame(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = text.replace(char::is_control, "?"),
        serde_json::Value::Array(all) => all.iter_mut().for_each(tame),
        serde_json::Value::Object(all) => all.values_mut().for_each(tame),
        _ => {}
    }
}

/// What came of asking.
enum Answer {
    Report(Box<Report>),
    /// It is another than the one that is wanted, or gone.
    Nobody,
    /// It is there and says nothing: a line about it.
    Silent(String),
}

/// What all of them said.
pub(crate) struct Answers {
    /// What those tell that answer.
    pub(crate) reports: Vec<Report>,
    /// How many do not answer.
    pub(crate) silent: usize,
}

impl Answers {
    /// Says so when `pid` was to be asked, and is not there to answer; true when it has not answered.
    pub(crate) fn without(&self, pid: Option<i32>) -> bool {
        let Some(pid) = pid.filter(|_| self.reports.is_empty()) else {
            return false;
        };
        // Who is silent has had a line.
        if self.silent == 0 {
            complain(format_args!(
                "no process {pid} of yours is running under Sidewire and has used TCP"
            ));
        }
        true
    }
}

/// A connection to the socket; waits for a place in its queue, which is full when the process does not take visitors in.
fn knock(door: &Door) -> rustix::io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    connect(&socket, &SocketAddrUnix::new(&door.path)?)?;
    Ok(socket)
}

/// Asks the process behind a door, if it is the `wanted` one by the number that it has in our pid namespace. Where it
/// has none there, it is shown by its own one. What is left of one that is gone is removed.
fn ask(door: &Door, wanted: Option<i32>) -> Answer {
    let until = Instant::now() + PATIENCE;
    let in_vain = |pid: Option<i32>, error: io::Error| {
        // Who cannot be told to be the wanted one is none of its visitors' business.
        if pid.is_none() && wanted.is_some() && door.namespace != pid_namespace() {
            return Answer::Nobody;
        }
        Answer::Silent(silence(door, pid, &error))
    };
    let stream = match knock(door) {
        Ok(stream) => stream,
        Err(Errno::CONNREFUSED) => {
            if door.ours {
                let _ = fs::remove_file(&door.path);
            }
            return Answer::Nobody;
        }
        Err(Errno::NOENT) => return Answer::Nobody,
        Err(e) => return in_vain(None, e.into()),
    };
    let pid = match listener_of(&stream) {
        Ok(pid) if wanted.is_some() && pid != wanted => return Answer::Nobody,
        Ok(pid) => pid,
        Err(e) => return in_vain(None, e.into()),
    };
    match receive(&stream, until) {
        Ok(Some(report)) => Answer::Report(Box::new(Report {
            pid: pid.unwrap_or(door.number),
            ..report
        })),
        Ok(None) => Answer::Nobody,
        Err(e) => in_vain(pid, e),
    }
}

/// What is said of a process that does not answer.
fn silence(door: &Door, pid: Option<i32>, error: &io::Error) -> String {
    let here = (door.namespace == pid_namespace()).then_some(door.number);
    let Some(pid) = pid.or(here) else {
        let number = door.number;
        return format!("process {number} of another pid namespace does not answer: {error}");
    };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.trim_end().replace(char::is_control, "?");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|l| l.strip_prefix("State:\t"));
    let why = match state.and_then(|state| state.chars().next()) {
        Some('T' | 't') => "it is stopped".to_owned(),
        _ if error.kind() == io::ErrorKind::WouldBlock => {
            format!("nothing within {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    };
    format!("process {pid} ({name}) does not answer: {why}")
}

/// The report that the process hands out; `None` when it shows us out.
fn receive(stream: &OwnedFd, until: Instant) -> io::Result<Option<Report>> {
    // Zero would be for ever.
    let left = until.saturating_duration_since(Instant::now());
    let left = left.max(Duration::from_millis(1));
    set_socket_timeout(stream, Timeout::Recv, Some(left))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let Some(passed) = passed else {
        return Ok(None);
    };
    // Not from a pipe, which could keep us for ever.
    let mut memory = File::from(passed);
    if !memory.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    memory.rewind()?;
    memory.take(LARGEST).read_to_end(&mut text)?;
    let mut report: serde_json::Value = serde_json::from_slice(&text)?;
    tame(&mut report);
    Ok(Some(serde_json::from_value(report)?))
}

/// What every process tells that we may ask, or the one with this number. One that does not answer is a line on standard
/// error, and keeps nobody waiting for longer than [`PATIENCE`].
pub(crate) fn ask_all(pid: Option<i32>) -> Answers {
    let here = pid_namespace();
    let mut doors = doors();
    // A name of our own namespace says enough.
    doors.retain(|door| pid.is_none_or(|pid| pid == door.number || door.namespace != here));
    let mut answers = Answers {
        reports: Vec::new(),
        silent: 0,
    };
    for some in doors.chunks(AT_ONCE) {
        let said: Vec<Answer> = thread::scope(|scope| {
            let asked: Vec<_> = some
                .iter()
                .map(|door| scope.spawn(move || ask(door, pid)))
                .collect();
            asked.into_iter().filter_map(|t| t.join().ok()).collect()
        });
        for answer in said {
            match answer {
                Answer::Report(report) => answers.reports.push(*report),
                Answer::Nobody => {}
                Answer::Silent(line) => {
                    complain(line);
                    answers.silent += 1;
                }
            }
        }
    }
    answers
}

/// Prints what is known, for programs. A failure where who was asked for is `missed`.
pub(crate) fn print_json(reports: &[Report], missed: bool) -> ExitCode {
    let status = if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    };
    match serde_json::to_string_pretty(reports) {
        Ok(text) => print_all(&(text + "\n"), status),
        Err(e) => {
            complain(e);
            ExitCode::from(EXIT_CANCELED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_asked_for_is_missed() {
        let mut answers = Answers {
            reports: Vec::new(),
            silent: 0,
        };
        assert!(!answers.without(None) && answers.without(Some(1)));
        answers.silent = 1;
        assert!(answers.without(Some(1)));
        answers.reports.push(Report::default());
        assert!(!answers.without(Some(1)));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut value = serde_json::json!({"a": ["x\u{1b}[2Jy", 1], "b": "plain"});
        tame(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["x?[2Jy", 1], "b": "plain"}));
    }
}
