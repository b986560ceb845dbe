//! Running processes under the library, and what they tell of themselves (`sidewire_posix::inspection`).

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sidewire_posix::inspection::directories;
use sidewire_posix::report::Report;

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The sockets of the processes that we may ask: those of our user, of every user for root.
fn doors() -> Vec<(i32, PathBuf)> {
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
            let name = e.file_name();
            let pid = name.to_str()?.strip_suffix(".sock")?.parse().ok()?;
            Some((pid, e.path()))
        })
        .collect();
    doors.sort();
    doors
}

/// Asks a process. `None` when it is gone; what it left behind is removed.
fn ask(door: &Path) -> io::Result<Option<Report>> {
    let stream = match UnixStream::connect(door) {
        Ok(stream) => stream,
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            let _ = fs::remove_file(door);
            return Ok(None);
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
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
    let mut memory = File::from(passed);
    let mut text = Vec::new();
    memory.rewind()?;
    memory.read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

/// What every process tells that we may ask, or the one with this number. One that does not answer is a line on standard
/// error.
pub(crate) fn reports(pid: Option<i32>) -> Vec<Report> {
    let doors = doors().into_iter();
    doors
        .filter(|(number, _)| pid.is_none_or(|pid| pid == *number))
        .filter_map(|(number, door)| match ask(&door) {
            Ok(report) => report,
            Err(e) => {
                eprintln!("sidewire: process {number} does not answer: {e}");
                None
            }
        })
        .collect()
}
