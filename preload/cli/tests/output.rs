//! Standard output without a reader, and without room.

use std::fs::OpenOptions;
use std::io;
use std::process::{Command, Output, Stdio};

const COMMANDS: [&[&str]; 6] = [
    &["status"],
    &["status", "--json"],
    &["ss"],
    &["top", "-n", "1"],
    &["doctor"],
    &["completions", "bash"],
];

fn sidewire(args: &[&str], stdout: impl Into<Stdio>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidewire"))
        .args(args)
        .stdout(stdout)
        .output()
        .unwrap()
}

/// What is said, without the processes of others that do not answer.
fn of_output(output: &Output) -> Vec<String> {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    let lines = said
        .lines()
        .filter(|line| !line.starts_with("sidewire: process "));
    lines.map(str::to_owned).collect()
}

fn full() -> std::fs::File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
fn who_has_read_enough_ends_it_quietly() {
    for args in COMMANDS {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = sidewire(args, writer);
        assert_eq!(output.status.code(), Some(141), "{args:?}: {output:?}");
        assert_eq!(of_output(&output), [""; 0], "{args:?}");
    }
}

#[test]
fn no_room_is_one_line() {
    for args in COMMANDS {
        let output = sidewire(args, full());
        assert_eq!(output.status.code(), Some(125), "{args:?}: {output:?}");
        let said = of_output(&output);
        let begins = "sidewire: standard output: No space left";
        assert!(
            said.len() == 1 && said[0].starts_with(begins),
            "{args:?}: {said:?}"
        );
    }
}

#[test]
fn a_full_standard_error_changes_no_status() {
    let status = Command::new(env!("CARGO_BIN_EXE_sidewire"))
        .args(["run", "--", "/no/such/program"])
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(127));
}
