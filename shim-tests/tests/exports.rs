//! The library exports the hooks, all of them, nothing else, and without versions.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use shim_tests::library::Library;
use shim_tests::{Need, Suite, TestResult};

const LIST: &str = include_str!("../../preload/shim/exports.txt");

fn main() -> ExitCode {
    Suite::new("exports")
        .test("are_the_list_in_the_tree", &[Need::Library], are_the_list)
        .test("are_unversioned", &[Need::Library], are_unversioned)
        .test("stay_loaded", &[Need::Library], stay_loaded)
        .test("stand_in_for_libc", &[Need::Library], stand_in_for_libc)
        .run()
}

fn symbols(file: &str) -> Result<Vec<String>> {
    let output = Command::new("nm")
        .args(["-D", "--defined-only", file])
        .output()
        .context("nm (Debian: apt-get install binutils)")?;
    ensure!(output.status.success(), "nm {file}: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(str::to_owned)
        .collect())
}

fn listed() -> BTreeSet<&'static str> {
    LIST.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect()
}

fn exported() -> Result<Vec<String>> {
    let library = Library::find()?;
    symbols(library.path().to_str().context("path in UTF-8")?)
}

fn are_the_list() -> TestResult {
    let exported = exported()?;
    let exported: BTreeSet<&str> = exported.iter().map(String::as_str).collect();
    let listed = listed();
    let missing: Vec<_> = listed.difference(&exported).collect();
    let unlisted: Vec<_> = exported.difference(&listed).collect();
    ensure!(
        missing.is_empty() && unlisted.is_empty(),
        "listed but not exported: {missing:?}; exported but not in preload/shim/exports.txt: {unlisted:?}"
    );
    Ok(())
}

/// `-z nodelete`: a program that unloads what it did not load leaves the hooks where they are.
fn stay_loaded() -> TestResult {
    let library = Library::find()?;
    let output = Command::new("readelf")
        .arg("-d")
        .arg(library.path())
        .output()
        .context("readelf (Debian: apt-get install binutils)")?;
    let text = String::from_utf8(output.stdout)?;
    let flags = text.lines().find(|line| line.contains("(FLAGS_1)"));
    ensure!(
        flags.is_some_and(|line| line.contains("NODELETE")),
        "{flags:?}"
    );
    Ok(())
}

fn are_unversioned() -> TestResult {
    let versioned: Vec<_> = exported()?
        .into_iter()
        .filter(|s| s.contains('@'))
        .collect();
    ensure!(
        versioned.is_empty(),
        "a versioned symbol interposes nothing: {versioned:?}"
    );
    Ok(())
}

/// A name that libc does not have is a misspelt hook. The library's own interface is called `sidewire_...`.
fn stand_in_for_libc() -> TestResult {
    let libc = symbols(&libc_path()?)?;
    let libc: BTreeSet<&str> = libc
        .iter()
        .filter_map(|symbol| symbol.split('@').next())
        .collect();
    let strange: Vec<_> = listed()
        .into_iter()
        .filter(|name| !name.starts_with("sidewire_") && !libc.contains(name))
        .collect();
    ensure!(strange.is_empty(), "libc has no {strange:?}");
    Ok(())
}

fn libc_path() -> Result<String> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("/libc.so") || path.contains("/libc-"))
        .map(str::to_owned)
        .context("no libc in /proc/self/maps")
}
