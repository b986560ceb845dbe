//! One line to standard error at a time, by level.
//!
//! Lines are formatted on the stack and written by one system call: a log line allocates nothing, takes no lock and may be
//! written from anywhere.

use core::fmt::{self, Write};

use crate::config::{self, Level};
use crate::raw;

/// Longest line, in bytes, its end included; what does not fit is cut off.
const LINE: usize = 512;

struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes().take(LINE - 1 - self.len) {
            self.bytes[self.len] = if byte == b'\n' { b' ' } else { byte };
            self.len += 1;
        }
        Ok(())
    }
}

/// Writes `sidewire: ...` whatever the level.
pub fn line(text: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; LINE],
        len: 0,
    };
    let _ = line.write_str("sidewire: ");
    let _ = line.write_fmt(text);
    line.bytes[line.len] = b'\n';
    raw::write_stderr(&line.bytes[..=line.len]);
}

/// Writes a line if the configured level lets it through. Before the configuration is read, nothing is.
pub fn at(level: Level, text: fmt::Arguments<'_>) {
    if config::loaded().is_some_and(|c| level <= c.log) {
        line(text);
    }
}

/// A line about something that does not work as it should.
#[macro_export]
macro_rules! warning {
    ($($arg:tt)*) => { $crate::log::at($crate::config::Level::Warn, format_args!($($arg)*)) };
}

/// A line about a decision.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::at($crate::config::Level::Info, format_args!($($arg)*)) };
}
