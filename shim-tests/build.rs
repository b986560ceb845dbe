//! Compiles every C program of `probes/`, `conformance/` and `c-examples/` with the
//! system's compiler.
//!
//! They are programs of their own, not objects to link: the shim goes in front
//! of them as it goes in front of any other program.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "gcc".to_owned());
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rerun-if-changed=../include");
    let ours = ["-D_GNU_SOURCE"];
    // As the README's reader compiles them, who is to see no warning.
    let theirs = ["-Werror"];
    // A directory's programs, where they go, how each is compiled, and what it is linked with.
    let wire = [Path::new("conformance/wire/lib/rawpeer.c")];
    for (from, to, how, with) in [
        ("probes", "probes", ours, &[][..]),
        ("conformance", "conformance", ours, &[]),
        ("conformance/wire", "conformance/wire", ours, &wire),
        ("../c-examples", "examples", theirs, &[]),
    ] {
        println!("cargo::rerun-if-changed={from}");
        compile_all(&compiler, &how, Path::new(from), with, &out_dir.join(to));
    }
}

fn compile_all(compiler: &str, how: &[&str], from: &Path, with: &[&Path], to: &Path) {
    std::fs::create_dir_all(to).expect("OUT_DIR is writable");
    let mut sources: Vec<PathBuf> = std::fs::read_dir(from)
        .unwrap_or_else(|error| panic!("{}: {error}", from.display()))
        .map(|entry| entry.expect("the directory is readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .collect();
    sources.sort();
    for source in sources {
        // The near side of the wire probes is a program by itself.
        let with = if source.ends_with("near.c") {
            &[]
        } else {
            with
        };
        compile(compiler, how, &source, with, to);
    }
}

fn compile(compiler: &str, how: &[&str], source: &Path, with: &[&Path], out_dir: &Path) {
    let name = source.file_stem().expect("a .c file has a stem");
    let status = Command::new(compiler)
        .args(["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra"])
        .args(["-I", "../include"])
        .args(how)
        .args(["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-pthread", "-o"])
        .arg(out_dir.join(name))
        .arg(source)
        .args(with)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{compiler} {}: {status}", source.display()),
        Err(error) => panic!("{compiler}: {error} (Debian: apt-get install gcc libc6-dev)"),
    }
}
