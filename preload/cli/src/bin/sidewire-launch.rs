//! Starts a program with open packet sockets and without any capability, for
//! `sidewire run`; or, with --ambient, with CAP_NET_RAW and nothing else.
//!
//! Usage: sidewire-launch [--ambient] [NAME=VALUE ...] -- PROGRAM ARG0 [ARGS ...]
//!
//! This file carries the capability (`cap_net_raw=p`) where an administrator has
//! decided so. The sockets are described in `sidewire_link::reserve`. With
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
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, set_capabilities,
};
use sidewire_link::{fd, reserve};

/// As env(1) and a shell report their own failure, a program that cannot be
/// executed, and one that is not there.
const EXIT_CANCELED: u8 = 125;
const EXIT_CANNOT_INVOKE: u8 = 126;
const EXIT_ENOENT: u8 = 127;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;

fn main() -> ExitCode {
    let (code, message) = launch(env::args_os().skip(1));
    eprintln!("sidewire-launch: {message}");
    ExitCode::from(code)
}

/// Becomes the program. Returns only when that fails.
fn launch(mut args: impl Iterator<Item = OsString>) -> (u8, String) {
    let mut variables = Vec::new();
    let mut args = args.by_ref().peekable();
    let ambient = args.next_if(|arg| arg == "--ambient").is_some();
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
    if let Some(reason) = gains_privilege(Path::new(&program)) {
        return (EXIT_CANCELED, format!("{}: {reason}", program.display()));
    }
    let privileged = if ambient {
        keep_net_raw_only().map(|()| None)
    } else {
        hand_over().map(Some)
    };
    let handed = match privileged {
        Ok(handed) => handed,
        Err(error) => {
            return (
                EXIT_CANCELED,
                format!(
                    "CAP_NET_RAW is not to be had ({error}): has this file the capability \
                 (getcap), and is it on a file system without nosuid?"
                ),
            );
        }
    };
    let mut command = Command::new(&program);
    command.arg0(arg0).args(args).envs(variables);
    let name = OsStr::from_bytes(reserve::VARIABLE.to_bytes());
    match &handed {
        Some(handed) => command.env(name, &handed.place),
        None => command.env_remove(name),
    };
    let error = command.exec();
    let code = if error.kind() == ErrorKind::NotFound {
        EXIT_ENOENT
    } else {
        EXIT_CANNOT_INVOKE
    };
    (code, format!("{}: {error}", program.display()))
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

/// Why the capability is not passed on to `program`. The kernel empties the
/// ambient set for such programs in any case; this says so.
fn gains_privilege(program: &Path) -> Option<&'static str> {
    let mode = fs::metadata(program).map_or(0, |m| m.mode());
    if mode & (S_ISUID | S_ISGID) != 0 {
        return Some("is set-user-ID or set-group-ID; CAP_NET_RAW is not passed on to it");
    }
    let mut value = [0u8; 64];
    rustix::fs::getxattr(program, "security.capability", &mut value)
        .is_ok_and(|length| length > 0)
        .then_some("carries file capabilities; CAP_NET_RAW is not passed on to it")
}

/// What the program is to find open.
struct HandedOver {
    /// They stay open until the program takes our place.
    _open: Vec<OwnedFd>,
    /// Where they are, as [`reserve::VARIABLE`] says it.
    place: String,
}

/// How many sets fit below the limit of descriptors, with as much room left in
/// the upper quarter, where the library has its own.
fn sets() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(limit / 4).unwrap_or(usize::MAX) / 2;
    (room / reserve::SOCKETS).clamp(1, reserve::SETS)
}

/// Opens the sockets with the capability, and drops it.
fn hand_over() -> rustix::io::Result<HandedOver> {
    set_only(CapabilitySet::NET_RAW, CapabilitySet::empty())?;
    let sets = sets();
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
    clear_ambient_capability_set()?;
    set_only(CapabilitySet::empty(), CapabilitySet::empty())?;
    let open = at_adjacent_numbers(&opened)?;
    for fd in &open {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    let place = format!("{}:{sets}:{inode}", open[0].as_raw_fd());
    Ok(HandedOver { _open: open, place })
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
