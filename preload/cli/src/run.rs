//! `sidewire run`: the program takes our place, with the shim in front.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum, ValueHint};
use sidewire_link::Errno;
use sidewire_link::packet::PacketSocket;
use sidewire_link::reserve::{self, LeftOpen};
use sidewire_posix::config::{self, Capability, Config};

use crate::reach::{self, Refusal};
use crate::{Failure, doctor, installation, launcher};

/// A program that cannot be executed, and one that is not there, as a shell
/// reports them.
const EXIT_CANNOT_INVOKE: u8 = 126;
const EXIT_ENOENT: u8 = 127;

/// How much the library writes to standard error.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// Nothing but what ends the program.
    Off,
    /// What does not work as it should.
    Warn,
    /// Also what is carried by whom, and why.
    Info,
}

/// What `sidewire run` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// End the program, and all that it starts, where it turns out later that the engine cannot work
    #[arg(long, conflicts_with = "fallback")]
    strict: bool,

    /// Start the program on the kernel's TCP, rather than not at all, where the engine cannot work
    #[arg(long)]
    fallback: bool,

    /// How much to write to standard error
    #[arg(long, value_name = "LEVEL")]
    log: Option<Level>,

    /// Use the keys of [profile.NAME] in the settings
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// Congestion control of new sockets: cubic, reno or bbr
    #[arg(long, value_name = "NAME", value_parser = congestion)]
    congestion: Option<String>,

    /// What a program gets that may open no packet socket: open ones, or CAP_NET_RAW for it and all that it starts
    #[arg(long, value_name = "WHAT", value_parser = capability)]
    capability: Option<Capability>,

    /// Set one setting; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,

    /// Write the program's frames to a pcapng file
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,

    /// Tell what each send goes through, on standard error or in a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "stderr")]
    explain: Option<PathBuf>,

    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "PROGRAM ARGS",
        value_hint = ValueHint::CommandWithArguments
    )]
    command: Vec<OsString>,
}

impl Options {
    /// The settings as far as they count before the start: what the options, `--set`, the environment and the files say,
    /// in this order. What is wrong in them is told by the library, which reads them again.
    fn config(&self) -> Config {
        let profile = self.profile.clone().or_else(config::profile);
        let mut config = Config::load(profile.as_deref(), |_| {});
        for (key, value) in &self.settings {
            match (key.as_str(), config::with(key, value)) {
                ("capability", Ok(set)) => config.capability = set.capability,
                ("enabled", Ok(set)) => config.enabled = set.enabled,
                _ => {}
            }
        }
        config.capability = self.capability.unwrap_or(config.capability);
        config
    }
}

/// Becomes the program. Returns only when that fails.
pub(crate) fn run(options: &Options) -> Failure {
    match prepare(options) {
        Ok(mut command) => {
            let error = command.exec();
            let code = if error.kind() == ErrorKind::NotFound {
                EXIT_ENOENT
            } else {
                EXIT_CANNOT_INVOKE
            };
            Failure {
                code,
                message: format!("{}: {error}", command.get_program().to_string_lossy()),
            }
        }
        Err(failure) => failure,
    }
}

fn prepare(options: &Options) -> Result<Command, Failure> {
    let (name, args) = options
        .command
        .split_first()
        .ok_or_else(|| Failure::canceled("no program given"))?;
    let program = reach::find(name).map_err(refused)?;
    reach::check(&program).map_err(refused)?;
    let library = installation::library().map_err(Failure::canceled)?;
    let config = options.config();
    let launcher = match PacketSocket::open() {
        Err(error) => {
            let launcher = launcher::find(&library).filter(|_| error == Errno::EPERM);
            if launcher.is_none() && !left_open() {
                demand(options, &config, || {
                    doctor::host::missing_packet_socket(error)
                })?;
            }
            launcher
        }
        Ok(_) => None,
    };
    if doctor::devices::any_usable() == Some(false) {
        demand(options, &config, doctor::devices::missing)?;
    }
    let preload = preload(&library, env::var_os("LD_PRELOAD")).map_err(Failure::canceled)?;

    let mut command = match launcher {
        Some(launcher) => {
            let mut command = Command::new(launcher);
            if config.capability == Capability::Ambient {
                command.arg(launcher::AMBIENT);
            }
            if options.fallback || !config.enabled {
                command.arg(launcher::FALLBACK);
            }
            command.args(launcher::variables(&preload)).arg("--");
            command.arg(program).arg(name);
            command
        }
        None => {
            let mut command = Command::new(program);
            // argv[0] as it was typed: programs look at it.
            command.arg0(name).env("LD_PRELOAD", preload);
            command
        }
    };
    command.args(args);
    for (key, value) in &options.settings {
        command.env(config::variable(key), value);
    }
    if let Some(name) = &options.profile {
        command.env("SIDEWIRE_PROFILE", name);
    }
    if let Some(name) = &options.congestion {
        command.env("SIDEWIRE_CONGESTION", name);
    }
    if options.strict || options.fallback {
        command.env("SIDEWIRE_STRICT", if options.strict { "1" } else { "0" });
    }
    if let Some(level) = options.log.and_then(|level| level.to_possible_value()) {
        command.env("SIDEWIRE_LOG", level.get_name());
    }
    if let Some(file) = &options.pcap {
        command.env("SIDEWIRE_PCAP", absolute(file)?);
    }
    if let Some(file) = &options.explain {
        let file = if file == Path::new("stderr") {
            file.clone()
        } else {
            absolute(file)?
        };
        command.env("SIDEWIRE_EXPLAIN", file);
    }
    Ok(command)
}

/// The program may change its directory before it opens a socket.
fn absolute(file: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(file)
        .map_err(|error| Failure::canceled(format!("{}: {error}", file.display())))
}

fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::NotFound(message) => Failure {
            code: EXIT_ENOENT,
            message,
        },
        Refusal::NotExecutable(message) => Failure {
            code: EXIT_CANNOT_INVOKE,
            message,
        },
        Refusal::OutOfReach(message) => Failure::canceled(message),
    }
}

/// Refuses to start the program for want of what the engine needs, unless the user takes the kernel's TCP instead.
fn demand(
    options: &Options,
    config: &Config,
    missing: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if options.fallback || !config.enabled {
        return Ok(());
    }
    Err(Failure::canceled(format!(
        "{}; or --fallback, to start it on the kernel's TCP",
        missing()
    )))
}

/// Whether a launcher before us has left packet sockets open, which the program inherits.
fn left_open() -> bool {
    let place = env::var_os(OsStr::from_bytes(reserve::VARIABLE.to_bytes()));
    place
        .and_then(|place| LeftOpen::find(place.as_bytes()))
        .is_some_and(|left| left.usable())
}

/// LD_PRELOAD with our library first and what was there behind it.
fn preload(library: &Path, others: Option<OsString>) -> Result<OsString, String> {
    let ours = library.as_os_str();
    let separator = |b: &u8| b": \t\n".contains(b);
    if ours.as_bytes().iter().any(separator) {
        return Err(format!(
            "{}: the dynamic linker takes a blank or a colon in this path for its end; \
             move the library",
            library.display()
        ));
    }
    let mut all = ours.to_owned();
    let others = others.unwrap_or_default();
    for other in others.as_bytes().split(|b| separator(b)) {
        if !other.is_empty() && other != ours.as_bytes() {
            all.push(":");
            all.push(OsStr::from_bytes(other));
        }
    }
    Ok(all)
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a setting is KEY=VALUE")?;
    config::check(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

fn capability(value: &str) -> Result<Capability, String> {
    Ok(config::with("capability", value)?.capability)
}

fn congestion(name: &str) -> Result<String, String> {
    config::check("congestion", name)?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_stay_behind_ours() {
        let preload = |others: &str| preload(Path::new("/l/libsidewire.so"), Some(others.into()));
        assert_eq!(preload("").unwrap(), "/l/libsidewire.so");
        assert_eq!(
            preload("/a.so /b.so:/l/libsidewire.so").unwrap(),
            "/l/libsidewire.so:/a.so:/b.so"
        );
        assert!(super::preload(Path::new("/a b/x.so"), None).is_err());
    }

    #[test]
    fn settings_become_variables() {
        assert_eq!(
            setting("stats=/tmp/a=b"),
            Ok(("stats".to_owned(), "/tmp/a=b".to_owned()))
        );
        assert_eq!(config::variable("stats"), "SIDEWIRE_STATS");
        assert!(setting("stats").is_err());
        for wrong in ["=1", "lgo=info", "log=loud"] {
            let message = setting(wrong).unwrap_err();
            let (key, value) = wrong.split_once('=').unwrap();
            assert!(
                message.contains(key) && message.contains(value),
                "{message}"
            );
            assert!(message.contains("allowed"), "{message}");
        }
    }
}
