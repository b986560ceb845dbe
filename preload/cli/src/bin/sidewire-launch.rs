//! Starts a program with open packet sockets and without any capability, for
//! `sidewire run`; or, with --ambient, with CAP_NET_RAW and nothing else.
//!
//! Usage: sidewire-launch [--ambient] [--fallback] [NAME=VALUE ...] -- PATH ARG0 [ARGS ...]
//!
//! PATH has a slash: what is looked at is what is executed. With --fallback the
//! program starts without sockets and capability where there are none to be had.
//!
//! This file carries the capability (`cap_net_raw=p`) where an administrator has
//! decided so. The sockets are described in `sidewire_link::reserve`; where
//! a launcher before this one has left them open they are used as they are. With
//! --ambient the capability is raised to the ambient set: a program that gets it
//! that way keeps LD_PRELOAD, which file capabilities of its own would disable.
//! Because they disable it for us, too, the variables that the dynamic linker
//! removes from a privileged program's environment come as arguments.
//!
//! It is short and takes no settings, since it runs with a privilege.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, set_capabilities,
};
use sidewire_link::fd;
use sidewire_link::reserve::{self, LeftOpen};

/// As env(1) and a shell report their own failure, a program that cannot be
/// executed, and one that is not there.
const EXIT_CANCELED: u8 = 125;
const EXIT_CANNOT_INVOKE: u8 = 126;
const EXIT_ENOENT: u8 = 127;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;

fn main() -> ExitCode {
    let (code, message) = launch(env::args_os().skip(1));
    // Of a standard error that takes nothing, nothing can be said.
    let _ = writeln!(io::stderr(), "sidewire-launch: {message}");
    ExitCode::from(code)
}

/// Becomes the program. Returns only when that fails.
fn launch(mut args: impl Iterator<Item = OsString>) -> (u8, String) {
    let mut variables = Vec::new();
    let mut args = args.by_ref().peekable();
    let ambient = args.next_if(|arg| arg == "--ambient").is_some();
    let fallback = args.next_if(|arg| arg == "--fallback").is_some();
    for arg in args.by_ref().take_while(|arg| arg != "--") {
        match split_variable(&arg) {
            Some((name, value)) => variables.push((name.to_owned(), value.to_owned())),
            None => return (EXIT_CANCELED, format!("{}: not NAME=VALUE", arg.display())),
        }
    }
    let (Some(program), Some(arg0)) = (args.next(), args.next()) else {
        return (
            EXIT_CANCELED,
            "see sidewire(1): this is started by `sidewire run`".to_owned(),
        );
    };
    let path = Path::new(&program);
    if let Err((code, reason)) = gains_nothing(path) {
        return (code, format!("{}: {reason}", program.display()));
    }
    let name = OsStr::from_bytes(reserve::VARIABLE.to_bytes());
    let left = env::var_os(name).and_then(|value| LeftOpen::find(value.as_bytes()));
    let privileged = if ambient {
        left.into_iter().for_each(LeftOpen::close);
        keep_net_raw_only().map(|()| Handed::Capability)
    } else if left.as_ref().is_some_and(LeftOpen::usable) {
        drop_all().map(|()| Handed::Already)
    } else {
        left.into_iter().for_each(LeftOpen::close);
        hand_over()
    };
    let handed = match privileged {
        Ok(handed) => handed,
        Err(error) if fallback => match drop_all() {
            Ok(()) if is_full(error) => Handed::NoRoom,
            Ok(()) => Handed::Nothing,
            Err(error) => return (EXIT_CANCELED, format!("capabilities: {error}")),
        },
        Err(error) => return (EXIT_CANCELED, refusal(error)),
    };
    let mut command = Command::new(&program);
    command.arg0(arg0).args(args).envs(variables);
    match &handed {
        Handed::Sockets { place, .. } => command.env(name, place),
        Handed::Already => &mut command,
        Handed::NoRoom => command.env(name, reserve::NO_ROOM),
        Handed::Capability | Handed::Nothing => command.env_remove(name),
    };
    let error = command.exec();
    (exit_code(&error), format!("{}: {error}", program.display()))
}

/// Whether no set of sockets finds room below the limit of descriptors. EINVAL is
/// fcntl's for a number beyond it.
fn is_full(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::INVAL)
}

/// Why the program is not started, and what to do.
fn refusal(error: Errno) -> String {
    let (what, remedy) = if is_full(error) {
        (
            "no room for packet sockets among the descriptors".to_owned(),
            "raise the limit (ulimit -n), close some",
        )
    } else if error == Errno::PERM {
        (
            format!("CAP_NET_RAW is not to be had ({error})"),
            "give this file the capability (getcap shows it), on a file system without nosuid",
        )
    } else {
        (
            format!("no packet sockets: {error}"),
            "see packet(7) for this error",
        )
    };
    format!("{what}; {remedy}, or use --fallback, to start it on the kernel's TCP")
}

fn split_variable(arg: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = arg.as_bytes();
    let at = bytes.iter().position(|&b| b == b'=')?;
    (at > 0).then(|| {
        (
            OsStr::from_bytes(&bytes[..at]),
            OsStr::from_bytes(&bytes[at + 1..]),
        )
    })
}

/// Refuses a program that gains privileges, or of which that cannot be told: it
/// gets neither sockets nor the capability from us.
fn gains_nothing(program: &Path) -> Result<(), (u8, String)> {
    if !program.as_os_str().as_bytes().contains(&b'/') {
        let reason = "not a path; names are looked up by `sidewire run`";
        return Err((EXIT_CANCELED, reason.to_owned()));
    }
    let mode = fs::metadata(program)
        .map_err(|error| (exit_code(&error), error.to_string()))?
        .mode();
    if mode & (S_ISUID | S_ISGID) != 0 {
        let reason = "is set-user-ID or set-group-ID; CAP_NET_RAW is not passed on to it";
        return Err((EXIT_CANCELED, reason.to_owned()));
    }
    let mut value = [0u8; 64];
    match rustix::fs::getxattr(program, "security.capability", &mut value) {
        Ok(0) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Ok(_) | Err(Errno::RANGE) => {
            let reason = "carries file capabilities; CAP_NET_RAW is not passed on to it";
            Err((EXIT_CANCELED, reason.to_owned()))
        }
        Err(error) => Err((EXIT_CANCELED, error.to_string())),
    }
}

fn exit_code(error: &std::io::Error) -> u8 {
    if error.kind() == ErrorKind::NotFound {
        EXIT_ENOENT
    } else {
        EXIT_CANNOT_INVOKE
    }
}

/// What the program gets.
enum Handed {
    /// The capability.
    Capability,
    /// The sockets of a launcher before this one.
    Already,
    /// New sockets.
    Sockets {
        /// They stay open until the program takes our place.
        _open: Vec<OwnedFd>,
        /// Where they are, as [`reserve::VARIABLE`] says it.
        place: String,
    },
    /// Nothing: not even one set finds room below the limit of descriptors.
    NoRoom,
    /// Nothing, for another reason.
    Nothing,
}

/// How many sets fit below the limit of descriptors, with as much room left in
/// the upper quarter, where the library has its own.
fn sets() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(limit / 4).unwrap_or(usize::MAX) / 2;
    (room / reserve::SOCKETS).clamp(1, reserve::SETS)
}

/// Opens the sockets with the capability, and drops it. Where numbers are taken
/// there are fewer.
fn hand_over() -> rustix::io::Result<Handed> {
    set_only(CapabilitySet::NET_RAW, CapabilitySet::empty())?;
    let mut sets = sets();
    let handed = loop {
        match open(sets) {
            Err(error) if is_full(error) && sets > 1 => sets /= 2,
            handed => break handed,
        }
    };
    drop_all()?;
    handed
}

fn drop_all() -> rustix::io::Result<()> {
    clear_ambient_capability_set()?;
    set_only(CapabilitySet::empty(), CapabilitySet::empty())
}

fn open(sets: usize) -> rustix::io::Result<Handed> {
    let claims = memfd_create("sidewire-claims", MemfdFlags::CLOEXEC)?;
    let inode = fstat(&claims)?.st_ino;
    let mut opened = vec![claims];
    for _ in 0..sets * reserve::SOCKETS {
        opened.push(socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?);
    }
    let open = at_adjacent_numbers(&opened)?;
    for fd in &open {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    let place = format!("{}:{sets}:{inode}", open[0].as_raw_fd());
    Ok(Handed::Sockets { _open: open, place })
}

/// Duplicates of all of them, close-on-exec, side by side among the high numbers.
fn at_adjacent_numbers(fds: &[OwnedFd]) -> rustix::io::Result<Vec<OwnedFd>> {
    let mut first = fd::high_base();
    'from: loop {
        let mut duplicates = Vec::with_capacity(fds.len());
        for (fd, number) in fds.iter().zip(first..) {
            let duplicate = fcntl_dupfd_cloexec(fd, number)?;
            let got: RawFd = duplicate.as_raw_fd();
            if got != number {
                // Something that we inherited is in the way.
                first = got;
                continue 'from;
            }
            duplicates.push(duplicate);
        }
        return Ok(duplicates);
    }
}

fn keep_net_raw_only() -> rustix::io::Result<()> {
    clear_ambient_capability_set()?;
    set_only(CapabilitySet::NET_RAW, CapabilitySet::NET_RAW)?;
    configure_capability_in_ambient_set(CapabilitySet::NET_RAW, true)
}

fn set_only(now: CapabilitySet, inheritable: CapabilitySet) -> rustix::io::Result<()> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: now,
            permitted: now,
            inheritable,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_split_at_the_first_equals_sign() {
        let split =
            |arg: &str| split_variable(OsStr::new(arg)).map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(split("A=b=c"), Some(("A".into(), "b=c".into())));
        assert_eq!(split("A="), Some(("A".into(), "".into())));
        assert_eq!(split("=b"), None);
        assert_eq!(split("A"), None);
    }
}
