//! `sidewire plot`: the connections of a capture, drawn: what was sent and acknowledged when, the congestion window and the
//! round trips, the throughput.

mod page;
#[cfg(test)]
mod tests;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::EXIT_CANCELED;
use crate::out::complain;

/// What `sidewire plot` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A pcapng file, as --pcap writes it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The SVG file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Connections that are drawn: those with the most bytes
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    connections: u16,
}

/// Reads, and draws.
pub(crate) fn draw(options: &Options) -> ExitCode {
    match attempt(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(message);
            ExitCode::from(EXIT_CANCELED)
        }
    }
}

fn attempt(options: &Options) -> Result<(), String> {
    let file = options.file.display();
    let mut connections = trace::read(&options.file).map_err(|e| format!("{file}: {e}"))?;
    connections.sort_by_key(|c| std::cmp::Reverse(c.bytes()));
    connections.truncate(options.connections.into());
    if connections.is_empty() {
        return Err(format!("{file}: no TCP connection that moved data"));
    }
    let page = page::svg(&connections)?;
    std::fs::write(&options.output, page).map_err(|e| format!("{}: {e}", options.output.display()))
}
