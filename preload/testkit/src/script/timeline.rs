//! What happened, for the message of a script that fails.

use std::collections::VecDeque;
use std::fmt;

/// Entries that a failure shows.
const SHOWN: usize = 24;

/// The last entries of a run.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    entries: VecDeque<(u64, String)>,
}

impl Timeline {
    /// Notes what happened `at` nanoseconds after the start.
    pub fn note(&mut self, at: u64, what: impl Into<String>) {
        if self.entries.len() == SHOWN {
            self.entries.pop_front();
        }
        self.entries.push_back((at, what.into()));
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, what) in &self.entries {
            writeln!(f, "    {} {what}", seconds(*at))?;
        }
        Ok(())
    }
}

/// Nanoseconds as seconds with six decimals.
#[must_use]
pub fn seconds(ns: u64) -> String {
    let us = ns / 1_000;
    format!("{:3}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// Why a script failed.
#[derive(Debug)]
pub struct Failure {
    /// Line in the script, from 1.
    pub line: usize,
    /// The line's text.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What happened before.
    pub timeline: Timeline,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}: {}", self.line, self.text)?;
        for line in self.message.lines() {
            writeln!(f, "  {line}")?;
        }
        write!(f, "  timeline:\n{}", self.timeline)
    }
}
