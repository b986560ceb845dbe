//! Other things that take a place in the program: allocators, another preloaded library, AddressSanitizer, valgrind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use shim_tests::counters::Before;
use shim_tests::lab::FAR;
use shim_tests::library::{Stack, Stats};
use shim_tests::payload::{self, MIB};
use shim_tests::program::Program;
use shim_tests::{Lab, Link, Suite, TestResult};

const PORT: u16 = 7800;

fn main() -> ExitCode {
    Suite::new("beside")
        .shim("another_library_before", &[], |stack| another(stack, true))
        .shim("another_library_behind", &[], |stack| another(stack, false))
        .shim("address_sanitizer", &[], address_sanitizer)
        .long(|suite| allocators(suite).shim("valgrind", &[], valgrind))
        .run()
}

fn allocators(mut suite: Suite) -> Suite {
    for (name, soname) in [
        ("jemalloc", "libjemalloc.so.2"),
        ("tcmalloc", "libtcmalloc_minimal.so.4"),
    ] {
        for before in [true, false] {
            let place = if before { "before" } else { "behind" };
            suite = suite.shim(format!("{name}_{place}"), &[], move |stack| {
                allocator(stack, soname, before)
            });
        }
    }
    suite
}

/// The library's path.
fn library(stack: &Stack) -> Result<&Path> {
    match stack {
        Stack::Sidewire(library) => Ok(library.path()),
        Stack::Kernel => anyhow::bail!("under the shim only"),
    }
}

/// LD_PRELOAD with another library in front of ours, or behind it.
fn preload(stack: &Stack, other: &str, before: bool) -> Result<String> {
    let ours = library(stack)?.display();
    Ok(if before {
        format!("{other}:{ours}")
    } else {
        format!("{ours}:{other}")
    })
}

/// `program` sends a file to an echo on the far host and gets it back; what it wrote to standard error.
fn echoes(lab: &Lab, program: Program) -> Result<String> {
    let (source, sink, stats) = (lab.path("sent"), lab.path("echoed"), lab.path("stats.json"));
    let sent = payload::write(&source, 2 * MIB)?;
    let port = PORT.to_string();
    let _server = lab
        .far
        .program(shim_tests::probe::example("echo_server"))
        .args([port.as_str(), "1"])
        .start()?;
    lab.wait_for_listener(&lab.far, PORT)?;
    let before = Before::of(lab)?;
    let done = program
        .args([FAR, &port])
        .stdin(&source)
        .stdout(&sink)
        .stats(&stats)
        .run()?
        .success()?;
    ensure!(payload::sha256(&sink)? == sent, "the echo differs\n{done}");
    before
        .until_now(lab, Some(Stats::read(&stats)?))?
        .begun_by_engine(1)?;
    Ok(done.stderr)
}

fn client(lab: &Lab) -> Program {
    lab.near.program(shim_tests::probe::example("echo_client"))
}

/// Counts connects on their way to the next library.
const COUNTS_CONNECTS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <sys/socket.h>
static int seen;
int connect(int fd, const struct sockaddr *a, socklen_t n)
{
	int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
	seen++;
	return next(fd, a, n);
}
__attribute__((destructor)) static void end(void)
{
	fprintf(stderr, "saw %d\n", seen);
}
"#;

fn compile(lab: &Lab, source: &Path, output: &str, flags: &[&str]) -> Result<PathBuf> {
    let output = lab.path(output);
    let gcc = Command::new("gcc")
        .args(["-Wall", "-Werror", "-g"])
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(&output)
        .output()
        .context("gcc")?;
    ensure!(
        gcc.status.success(),
        "{}",
        String::from_utf8_lossy(&gcc.stderr)
    );
    Ok(output)
}

/// One in front sees the call first; behind us there is nothing left to see.
fn another(stack: &Stack, before: bool) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let source = lab.path("other.c");
    fs::write(&source, COUNTS_CONNECTS)?;
    let other = compile(&lab, &source, "other.so", &["-shared", "-fPIC"])?;
    let all = preload(stack, &other.display().to_string(), before)?;
    let said = echoes(&lab, client(&lab).env("LD_PRELOAD", all))?;
    ensure!(said == format!("saw {}\n", u8::from(before)), "{said:?}");
    Ok(())
}

/// A program built with AddressSanitizer, whose library wants to be the first.
fn address_sanitizer(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let include = format!("-I{}", tree.join("include").display());
    let source = tree.join("c-examples/echo_client.c");
    let client = compile(&lab, &source, "client", &["-fsanitize=address", &include])?;
    let client = client.display().to_string();
    let found = Command::new("gcc")
        .arg("-print-file-name=libasan.so")
        .output()
        .context("gcc")?;
    let first = String::from_utf8(found.stdout)?.trim().to_owned();
    let all = preload(stack, &first, true)?;
    let said = echoes(&lab, lab.near.program(client).env("LD_PRELOAD", all))?;
    ensure!(said.is_empty(), "it said {said:?}");
    Ok(())
}

fn allocator(stack: &Stack, soname: &str, before: bool) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let all = preload(stack, soname, before)?;
    let said = echoes(&lab, client(&lab).env("LD_PRELOAD", all))?;
    ensure!(said.is_empty(), "it said {said:?}");
    Ok(())
}

/// Any error that it finds is a failure.
fn valgrind(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let found = [
        "valgrind",
        "--quiet",
        "--error-exitcode=99",
        "--trace-children=yes",
    ];
    let said = echoes(&lab, client(&lab).under(stack).wrapped(found))?;
    ensure!(said.is_empty(), "it said {said:?}");
    Ok(())
}
