//! The C programs of `probes/`, compiled with this crate.

use std::path::PathBuf;

/// The compiled `probes/NAME.c`.
pub fn probe(name: &str) -> String {
    let path = PathBuf::from(env!("OUT_DIR")).join(name);
    path.to_string_lossy().into_owned()
}
