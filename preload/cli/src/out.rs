//! Standard output and standard error, which may have no reader, or no room.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::EXIT_CANCELED;

/// What a shell makes of a program that SIGPIPE ended.
const EXIT_SIGPIPE: u8 = 128 + 13;

/// Prints `text`; the exit status, where that fails.
pub(crate) fn print(text: &str) -> Result<(), ExitCode> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| match e.kind() {
            // Who has read enough, as `head`, is no failure to tell of.
            ErrorKind::BrokenPipe => ExitCode::from(EXIT_SIGPIPE),
            _ => {
                complain(format_args!("standard output: {e}"));
                ExitCode::from(EXIT_CANCELED)
            }
        })
}

/// Prints `text`; the exit status, which is `status` where nothing fails.
pub(crate) fn print_all(text: &str, status: ExitCode) -> ExitCode {
    print(text).err().unwrap_or(status)
}

/// Says what is wrong. Of a standard error that takes nothing, nothing can be said.
pub(crate) fn complain(message: impl Display) {
    let _ = writeln!(io::stderr(), "sidewire: {message}");
}
