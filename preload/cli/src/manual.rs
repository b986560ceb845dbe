//! The manual pages and the default settings say what the command and the
//! parser of the settings know, and nothing else.

use std::collections::BTreeSet;

use clap::CommandFactory;

const COMMAND: &str = include_str!("../../../packaging/man/sidewire.1");
const SETTINGS: &str = include_str!("../../../packaging/man/sidewire.toml.5");
const DEFAULTS: &str = include_str!("../../../packaging/config.toml");
const EXPLAINER: &str = include_str!("../../posix/src/explain.rs");
const PARSER: &str = include_str!("../../posix/src/config.rs");

#[test]
fn every_subcommand_and_option_is_in_the_manual() {
    let command = crate::Cli::command();
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        assert!(
            COMMAND.contains(&format!("sidewire {name}")),
            "sidewire.1 has no section on `sidewire {name}`"
        );
        for argument in subcommand.get_arguments() {
            let Some(long) = argument.get_long() else {
                continue;
            };
            let flag = format!("-{long}");
            let explains = |line: &str| line.split(' ').any(|word| word == flag);
            assert!(
                COMMAND
                    .lines()
                    .filter(|l| l.starts_with(".It Fl "))
                    .any(explains),
                "sidewire.1 does not explain `sidewire {name} --{long}`"
            );
        }
    }
    let known: BTreeSet<&str> = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(clap::Arg::get_long)
        .collect();
    for line in COMMAND.lines() {
        if let Some(flag) = line.strip_prefix(".It Fl -") {
            let flag = flag.split(' ').next().unwrap();
            assert!(known.contains(flag), "sidewire.1 explains --{flag}");
        }
    }
}

#[test]
fn every_label_of_an_explained_send_is_in_the_manual() {
    let labels = EXPLAINER
        .split_once("fn name(step: &TraceStep)")
        .and_then(|(_, after)| after.split_once("\n}\n"))
        .expect("the names of the steps");
    let labels: BTreeSet<&str> = labels.0.split('"').skip(1).step_by(2).collect();
    let explained: BTreeSet<&str> = COMMAND
        .lines()
        .skip_while(|line| *line != ".Sh EXPLAINED SENDS")
        .skip(1)
        .take_while(|line| !line.starts_with(".Sh "))
        .filter_map(|line| line.strip_prefix(".It Li "))
        .flat_map(|names| names.split(" , "))
        .collect();
    assert_eq!(explained, labels);
}

/// The keys that the parser names when it refuses one.
fn keys() -> BTreeSet<&'static str> {
    let list = PARSER
        .split_once("const KEYS: &str = \"")
        .and_then(|(_, after)| after.split_once("\";"))
        .expect("the parser's list of keys");
    let key = |c: char| c.is_ascii_lowercase() || c == '_';
    list.0
        .split(|c| !key(c))
        .filter(|k| !k.is_empty())
        .collect()
}

#[test]
fn every_key_is_in_the_manual_and_in_the_default_settings() {
    let explained: BTreeSet<&str> = SETTINGS
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .collect();
    assert_eq!(explained, keys());
    let default: BTreeSet<&str> = DEFAULTS
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
        .map(|(key, _)| key)
        // What is indented belongs to a table.
        .filter(|key| !key.starts_with(' '))
        .collect();
    assert_eq!(default, keys());
}
