//! The C programs of `probes/`, `conformance/` and `c-examples/`, compiled with this crate.

use std::path::PathBuf;

/// The compiled `probes/NAME.c`.
pub fn probe(name: &str) -> String {
    compiled("probes", name)
}

/// The compiled `conformance/NAME.c`.
pub fn conformance(name: &str) -> String {
    compiled("conformance", name)
}

/// The compiled `c-examples/NAME.c`.
pub fn example(name: &str) -> String {
    compiled("examples", name)
}

fn compiled(kind: &str, name: &str) -> String {
    let path = PathBuf::from(env!("OUT_DIR")).join(kind).join(name);
    path.to_string_lossy().into_owned()
}
