//! The program that gives ordinary users' programs packet sockets, or the
//! capability for them, where an administrator has set it up.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

const LAUNCHER: &str = "sidewire-launch";
/// Its option for the capability instead of sockets.
pub(crate) const AMBIENT: &str = "--ambient";
/// Its option to start the program without sockets where none can be opened.
pub(crate) const FALLBACK: &str = "--fallback";

/// What glibc removes from the environment of a privileged program, besides
/// LD_*: the launcher is one, and the program is to see it all.
const REMOVED_BY_LD_SO: [&str; 13] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_TRACE",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TMPDIR",
    "TZDIR",
];

/// The launcher beside the library, if it carries a capability and we may
/// execute it.
pub(crate) fn find(library: &Path) -> Option<PathBuf> {
    let path = library.with_file_name(LAUNCHER);
    let mut value = [0u8; 64];
    let capable = rustix::fs::getxattr(&path, "security.capability", &mut value)
        .is_ok_and(|length| length > 0);
    (capable && rustix::fs::access(&path, Access::EXEC_OK).is_ok()).then_some(path)
}

/// The variables that the launcher has to be told, as NAME=VALUE.
pub(crate) fn variables(preload: &OsStr) -> Vec<OsString> {
    env::vars_os()
        .filter(|(name, _)| {
            name != "LD_PRELOAD"
                && (name.as_bytes().starts_with(b"LD_")
                    || REMOVED_BY_LD_SO.iter().any(|removed| name == removed))
        })
        .chain([("LD_PRELOAD".into(), preload.to_owned())])
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect()
}
