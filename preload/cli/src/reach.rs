//! Whether LD_PRELOAD reaches a program at all.
//!
//! The dynamic linker ignores it silently for a program that gains privileges,
//! and is not there in a static one. Said before the start, with the remedy.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

/// How many interpreters in a row Linux follows (binfmt_script).
const MAX_SCRIPT_DEPTH: usize = 4;
/// Linux reads this much of a file to find its interpreter (BINPRM_BUF_SIZE).
const BINPRM_BUF_SIZE: usize = 256;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;

/// Why a program cannot be started with the shim in front.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such program.
    NotFound(String),
    /// It is there but cannot be read or executed.
    NotExecutable(String),
    /// The shim would not take effect.
    OutOfReach(String),
}

/// What a file is, as far as the dynamic linker cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    foreign: bool,
    is_static: bool,
    gains_ids: bool,
    file_capabilities: bool,
}

/// The file that `name` starts, found as execvp(3) does.
///
/// # Errors
/// When there is none.
pub(crate) fn find(name: &OsStr) -> Result<PathBuf, Refusal> {
    let shown = name.to_string_lossy();
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match fs::metadata(&path) {
            Ok(_) => Ok(path),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Refusal::NotFound(format!("{shown}: no such program")))
            }
            Err(error) => Err(Refusal::NotExecutable(format!("{shown}: {error}"))),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path)
        // An empty entry is the working directory; a name without a slash would be looked for again.
        .map(|dir| {
            if dir.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                dir
            }
        })
        .map(|dir| dir.join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|m| m.is_file())
                && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
        })
        .ok_or_else(|| Refusal::NotFound(format!("{shown}: not found in PATH")))
}

/// Whether the shim would be loaded into `program`, or into its interpreter when
/// it is a script.
///
/// # Errors
/// Why not, and what to do.
pub(crate) fn check(program: &Path) -> Result<(), Refusal> {
    let mut file = program.to_path_buf();
    for _ in 0..=MAX_SCRIPT_DEPTH {
        match interpreter(&file)? {
            Some(next) => file = next,
            None => return judge(&file, facts(&file)?),
        }
    }
    Err(Refusal::NotExecutable(format!(
        "{}: too many interpreters in a row",
        program.display()
    )))
}

fn unreadable(file: &Path, error: &std::io::Error) -> Refusal {
    Refusal::NotExecutable(format!("{}: {error}", file.display()))
}

/// The interpreter of a script, `None` for anything else.
fn interpreter(file: &Path) -> Result<Option<PathBuf>, Refusal> {
    let mut start = Vec::with_capacity(BINPRM_BUF_SIZE);
    File::open(file)
        .and_then(|f| f.take(BINPRM_BUF_SIZE as u64).read_to_end(&mut start))
        .map_err(|error| unreadable(file, &error))?;
    Ok(parse_interpreter(&start))
}

fn parse_interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let mut words = line.split(|b| b" \t".contains(b)).filter(|w| !w.is_empty());
    let first = Path::new(OsStr::from_bytes(words.next()?));
    // `#!/usr/bin/env python3` ends in python3.
    if first.file_name() == Some(OsStr::new("env"))
        && let Some(name) = words.find(|w| !w.starts_with(b"-") && !w.contains(&b'='))
        && let Ok(found) = find(OsStr::from_bytes(name))
    {
        return Some(found);
    }
    Some(first.to_path_buf())
}

fn facts(file: &Path) -> Result<Facts, Refusal> {
    let metadata = fs::metadata(file).map_err(|error| unreadable(file, &error))?;
    let (uid, gid) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let data = fs::read(file).map_err(|error| unreadable(file, &error))?;
    let mode = metadata.mode();
    Ok(Facts {
        gains_ids: (mode & S_ISUID != 0 && metadata.uid() != uid)
            || (mode & S_ISGID != 0 && metadata.gid() != gid),
        // Root keeps LD_PRELOAD: file capabilities add nothing to what it has.
        file_capabilities: uid != 0 && has_file_capabilities(file),
        ..linkage(&data)
    })
}

fn has_file_capabilities(file: &Path) -> bool {
    let mut value = [0u8; 64];
    rustix::fs::getxattr(file, "security.capability", &mut value).is_ok_and(|length| length > 0)
}

/// The machine that we are built for, as ELF files name it.
pub(crate) fn our_machine() -> u16 {
    match std::env::consts::ARCH {
        "aarch64" => EM_AARCH64,
        _ => EM_X86_64,
    }
}

/// What an ELF file says of itself. What is no ELF file at all is left to exec.
fn linkage(data: &[u8]) -> Facts {
    if !data.starts_with(b"\x7fELF") {
        return Facts::default();
    }
    let Ok(header) = FileHeader64::<Endianness>::parse(data) else {
        return Facts {
            foreign: true,
            ..Facts::default()
        };
    };
    let Ok(endian) = header.endian() else {
        return Facts::default();
    };
    let segments = header.program_headers(endian, data).unwrap_or(&[]);
    Facts {
        foreign: header.e_machine(endian) != our_machine(),
        is_static: segments.iter().all(|s| s.p_type(endian) != PT_INTERP),
        ..Facts::default()
    }
}

fn judge(file: &Path, facts: Facts) -> Result<(), Refusal> {
    let file = file.display();
    let reason = if facts.foreign {
        format!("{file} is built for another machine; the library has to be built for the same")
    } else if facts.is_static {
        format!(
            "{file} is linked statically, so nothing can be loaded into it; \
             use a dynamically linked build of it"
        )
    } else if facts.gains_ids {
        format!(
            "{file} is set-user-ID or set-group-ID, and the dynamic linker ignores LD_PRELOAD \
             for it; run it as the user it belongs to, or use a copy without that bit"
        )
    } else if facts.file_capabilities {
        format!(
            "{file} carries file capabilities, and the dynamic linker ignores LD_PRELOAD for it; \
             use a copy without them (`cp {file} .`), or run as root"
        )
    } else {
        return Ok(());
    };
    Err(Refusal::OutOfReach(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_named() {
        let file = Path::new("/bin/x");
        let refused = |facts: Facts| match judge(file, facts) {
            Err(Refusal::OutOfReach(text)) => text,
            other => panic!("{other:?}"),
        };
        let none = Facts::default();
        assert_eq!(judge(file, none), Ok(()));
        assert!(
            refused(Facts {
                is_static: true,
                ..none
            })
            .contains("statically")
        );
        assert!(
            refused(Facts {
                gains_ids: true,
                ..none
            })
            .contains("set-user-ID")
        );
        assert!(
            refused(Facts {
                file_capabilities: true,
                ..none
            })
            .contains("capabilities")
        );
        assert!(
            refused(Facts {
                foreign: true,
                ..none
            })
            .contains("another machine")
        );
    }

    #[test]
    fn interpreters_are_followed() {
        assert_eq!(
            parse_interpreter(b"#! /bin/sh -e\n"),
            Some("/bin/sh".into())
        );
        assert_eq!(parse_interpreter(b"#!/bin/sh"), Some("/bin/sh".into()));
        assert_eq!(parse_interpreter(b"#!\n"), None);
        assert_eq!(parse_interpreter(b"\x7fELF"), None);
        let through_env = parse_interpreter(b"#!/usr/bin/env -S LANG=C sh\n").unwrap();
        assert_eq!(through_env.file_name(), Some(OsStr::new("sh")));
    }

    #[test]
    fn rubbish_is_no_panic() {
        assert_eq!(linkage(b""), Facts::default());
        assert!(linkage(b"\x7fELF").foreign);
        let ourselves = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(linkage(&ourselves), Facts::default());
        for length in 0..64 {
            linkage(&ourselves[..length]);
        }
    }
}
