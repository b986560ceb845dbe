//! Running processes under the library, and what they tell of themselves (`sidewire_posix::inspection`).

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sidewire_posix::inspection::{directories, listener_of, parse_socket_name, pid_namespace};
use sidewire_posix::report::Report;

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A process's socket: its number and pid namespace, and the file.
type Door = (i32, u64, PathBuf);

/// The sockets of the processes that we may ask: those of our user, of every user for root.
fn doors() -> Vec<Door> {
    let uid = rustix::process::geteuid();
    let mut places: Vec<PathBuf> = directories(uid.as_raw()).into();
    if uid.is_root() {
        let inside = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten();
        places.extend(inside("/run/user").map(|user| user.path().join("sidewire")));
        let ours = |name: &str| name.starts_with("sidewire-");
        let of_users = inside("/tmp").filter(|e| e.file_name().to_str().is_some_and(ours));
        places.extend(of_users.map(|e| e.path()));
        places.sort();
        places.dedup();
    }
    let files = places.iter().filter_map(|dir| fs::read_dir(dir).ok());
    let mut doors: Vec<_> = files
        .flatten()
        .flatten()
        .filter_map(|e| {
            let (pid, namespace) = parse_socket_name(e.file_name().to_str()?)?;
            Some((pid, namespace, e.path()))
        })
        .collect();
    doors.sort();
    doors
}

/// Largest report that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// Whether a file in our own user's directory may be removed; another's is not ours to tidy.
fn ours(door: &Path) -> bool {
    let uid = rustix::process::geteuid().as_raw();
    let directory = door.parent().and_then(|d| fs::symlink_metadata(d).ok());
    directory.is_some_and(|d| d.is_dir() && d.uid() == uid)
}

/// Control characters out of what another user's process says, before they reach a terminal.
fn tame(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = text.replace(char::is_control, "?"),
        serde_json::Value::Array(all) => all.iter_mut().for_each(tame),
        serde_json::Value::Object(all) => all.values_mut().for_each(tame),
        _ => {}
    }
}

/// Asks the process behind a door, if it is the `wanted` one by the number that it has in our pid namespace. Where it
/// has none there, it is shown by its `own` one. `None` when it is another or gone; what is left of it is removed.
fn ask(door: &Path, own: i32, wanted: Option<i32>) -> io::Result<Option<Report>> {
    let stream = match UnixStream::connect(door) {
        Ok(stream) => stream,
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            if ours(door) {
                let _ = fs::remove_file(door);
            }
            return Ok(None);
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let seen = listener_of(&stream)?;
    if wanted.is_some() && seen != wanted {
        return Ok(None);
    }
    let pid = seen.unwrap_or(own);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        &stream,
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
    let report: Report = serde_json::from_value(report)?;
    Ok(Some(Report { pid, ..report }))
}

/// What every process tells that we may ask, or the one with this number. One that does not answer is a line on standard
/// error.
pub(crate) fn reports(pid: Option<i32>) -> Vec<Report> {
    let here = pid_namespace();
    let doors = doors().into_iter();
    doors
        // A name of our own namespace says enough.
        .filter(|(number, namespace, _)| pid.is_none_or(|pid| pid == *number || *namespace != here))
        .filter_map(|(number, _, door)| match ask(&door, number, pid) {
            Ok(report) => report,
            Err(e) => {
                eprintln!("sidewire: process {number} does not answer: {e}");
                None
            }
        })
        .collect()
}

/// Prints what is known, for programs.
pub(crate) fn print_json(reports: &[Report]) -> ExitCode {
    match serde_json::to_string_pretty(reports) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("sidewire: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut value = serde_json::json!({"a": ["x\u{1b}[2Jy", 1], "b": "plain"});
        tame(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["x?[2Jy", 1], "b": "plain"}));
    }
}
