//! `include/sidewire.h`: made from the library's source, and good C and C++.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use shim_tests::library::Library;
use shim_tests::{Need, Suite, TestResult};

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../include/sidewire.h");
const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../preload/shim");
const EXPORTS: &str = include_str!("../../preload/shim/exports.txt");
/// Set by `make header`: writes the header in place of comparing it.
const WRITE: &str = "SIDEWIRE_WRITE_HEADER";

fn main() -> ExitCode {
    Suite::new("header")
        .test("is_what_the_source_says", &[], is_what_the_source_says)
        .test("declares_what_is_exported", &[], declares_what_is_exported)
        .test("is_explained_in_the_manual", &[], is_explained)
        .test("is_good_c11", &[Need::Library], || {
            compiles("gcc", &["-std=c11"], "c")
        })
        .test("is_found_without_pie", &[Need::Library], || {
            compiles("gcc", &["-fno-pie", "-no-pie", "-fno-plt"], "c")
        })
        .test("is_good_cxx17", &[Need::Library], || {
            compiles("g++", &["-std=c++17"], "cpp")
        })
        .run()
}

fn functions() -> impl Iterator<Item = &'static str> {
    EXPORTS.lines().filter(|l| l.starts_with("sidewire_"))
}

fn is_what_the_source_says() -> TestResult {
    let config = cbindgen::Config::from_file(Path::new(SHIM).join("cbindgen.toml"))
        .map_err(anyhow::Error::msg)?;
    let mut fresh = Vec::new();
    cbindgen::Builder::new()
        .with_src(Path::new(SHIM).join("src/api.rs"))
        .with_config(config)
        .generate()?
        .write(&mut fresh);
    if env::var_os(WRITE).is_some() {
        fs::write(HEADER, &fresh)?;
    }
    ensure!(
        fs::read(HEADER).context(HEADER)? == fresh,
        "include/sidewire.h is stale: run `make header`"
    );
    Ok(())
}

/// Every `sidewire_...` symbol is declared, weak, and nothing else is.
fn declares_what_is_exported() -> TestResult {
    let exported: Vec<_> = functions().collect();
    ensure!(!exported.is_empty(), "nothing is exported");
    let header = fs::read_to_string(HEADER)?;
    for name in &exported {
        ensure!(
            header.contains(&format!("{name}(")),
            "the header does not declare {name}"
        );
    }
    let weak = header.matches("SIDEWIRE_WEAK;").count();
    ensure!(
        weak == exported.len(),
        "{weak} weak functions, {} exported",
        exported.len()
    );
    Ok(())
}

fn is_explained() -> TestResult {
    let manual = include_str!("../../packaging/man/libsidewire.3");
    for name in functions() {
        for part in [format!(".Nm {name}"), format!("\n.Fn {name}")] {
            ensure!(
                manual.contains(&part) || manual.contains(&part.replace("Fn", "Fo")),
                "libsidewire.3 has no {part:?}"
            );
        }
    }
    let header = fs::read_to_string(HEADER)?;
    let carriers = header
        .split_whitespace()
        .filter(|word| word.starts_with("SIDEWIRE_CARRIER_"));
    for name in carriers {
        ensure!(
            manual.contains(name),
            "libsidewire.3 does not explain {name}"
        );
    }
    Ok(())
}

/// A program that asks for each function and calls one where there is one: it links alone, and runs alone.
fn program() -> String {
    let mut text = String::from("#include <sidewire.h>\nint main(void)\n{\n    int found = 0;\n");
    for name in functions() {
        text += &format!("    if ({name})\n        found++;\n");
    }
    text + "    if (sidewire_version && sidewire_version() < SIDEWIRE_VERSION)\n        return 100;\n    \
            return found;\n}\n"
}

fn compiles(compiler: &str, how: &[&str], suffix: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("program").with_extension(suffix);
    let binary = dir.path().join("program");
    fs::write(&source, program())?;
    let include = Path::new(HEADER).parent().context("a folder")?;
    let output = Command::new(compiler)
        .args(how)
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(include)
        .arg("-o")
        .arg(&binary)
        .arg(&source)
        .output()
        .with_context(|| format!("{compiler} (Debian: apt-get install gcc g++)"))?;
    ensure!(
        output.status.success(),
        "{compiler} {how:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let alone = Command::new(&binary).env_remove("LD_PRELOAD").status()?;
    ensure!(
        alone.code() == Some(0),
        "without the library it found some: {alone}"
    );
    let library = Library::find()?;
    let behind = Command::new(&binary)
        .env("LD_PRELOAD", library.path())
        .status()?;
    ensure!(
        behind.code() == i32::try_from(functions().count()).ok(),
        "behind the library: {behind}, of {} functions",
        functions().count()
    );
    Ok(())
}
