//! `sidewire bench`: Sidewire against the kernel's TCP, cell by cell, each round
//! kernel, Sidewire, kernel on the same link in the same minute.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use shim_tests::Stack;
use shim_tests::bench::cell::{Cell, Load};
use shim_tests::bench::chart;
use shim_tests::bench::measurement::{Measurement, Round};
use shim_tests::bench::report::{Host, RATIOS, Session};
use shim_tests::bench::rmem_max::RmemMax;
use shim_tests::cpus::allowed;
use shim_tests::patience::{interrupt_on_signals, interrupted};

/// Compares Sidewire with the kernel's TCP (cubic): both ends pinned, runs
/// interleaved, and the kernel against itself for the noise of each cell.
#[derive(Parser)]
#[command(name = "sidewire bench", bin_name = "sidewire bench")]
struct Options {
    /// A few cells only
    #[arg(long)]
    quick: bool,
    /// Only cells whose name contains this; may be given again
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Names the cells and ends
    #[arg(long)]
    list: bool,
    /// Rounds per cell, each one kernel, one Sidewire and one null run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=999))]
    rounds: u64,
    /// Seconds of each bulk run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Measure the kernel in Sidewire's place: shows what the bench itself sees
    #[arg(long)]
    kernel_only: bool,
    /// Where results.json and ratios.svg go
    #[arg(long, default_value = "target/bench", value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match bench(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sidewire bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<ExitCode> {
    let cells = if options.quick {
        Cell::quick()
    } else {
        Cell::all()
    };
    let cells = Cell::chosen(cells, &options.only)?;
    if options.list {
        for cell in &cells {
            println!("{}", cell.name());
        }
        return Ok(ExitCode::SUCCESS);
    }

    interrupt_on_signals()?;
    let stack = if options.kernel_only {
        Stack::Kernel
    } else {
        Stack::sidewire()?
    };
    let cpus = allowed()?;
    let rmem_max = RmemMax::note()?;
    fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let mut session = Session {
        host: Host::here(&cpus),
        rounds: options.rounds,
        measurements: Vec::new(),
        failures: Vec::new(),
    };
    let count = cells.len();
    for (index, cell) in cells.iter().enumerate() {
        let name = cell.name();
        println!("[{}/{count}] {name}", index + 1);
        match measure(cell, &stack, &cpus, &rmem_max, options) {
            Ok(rounds) => {
                let found = Measurement::of(&name, &rounds);
                for m in &found {
                    println!("        {}", m.told());
                }
                session.measurements.extend(found);
            }
            Err(_) if interrupted() => {
                println!("interrupted; what was measured so far is kept");
                break;
            }
            Err(error) => {
                println!("        failed: {error:#}");
                session.failures.push((name, format!("{error:#}")));
            }
        }
    }
    drop(rmem_max);

    let (json, svg) = (
        options.out.join("results.json"),
        options.out.join("ratios.svg"),
    );
    session.write(&json)?;
    let title = format!("Sidewire against the kernel's TCP, {}", session.host.kernel);
    fs::write(&svg, chart::svg(&title, &session.measurements))
        .with_context(|| svg.display().to_string())?;
    println!("\n{}\n{RATIOS}", session.table());
    println!("{} and {}", json.display(), svg.display());
    for (cell, why) in &session.failures {
        eprintln!("failed: {cell}: {why}");
    }
    Ok(if session.failures.is_empty() && !interrupted() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn measure(
    cell: &Cell,
    stack: &Stack,
    cpus: &[usize],
    rmem_max: &RmemMax,
    options: &Options,
) -> Result<Vec<Round>> {
    // Only packet sockets and SO_RCVBUF feel the limit: it matters in bulk.
    if matches!(cell.load, Load::Bulk { .. }) {
        rmem_max.set(cell.rmem_max)?;
    }
    let time = Duration::from_secs(options.seconds);
    let run = |stack: &Stack| {
        cell.run(stack, cpus, time)
            .with_context(|| format!("on {}", stack.name()))
    };
    (0..options.rounds)
        .map(|_| {
            Ok(Round {
                kernel: run(&Stack::Kernel)?,
                sidewire: run(stack)?,
                null: run(&Stack::Kernel)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_the_command_whatever_the_file_is() {
        let help = Options::try_parse_from(["/x/sidewire-bench", "--help"]);
        let help = help.err().unwrap().to_string();
        assert!(help.contains("Usage: sidewire bench ["), "{help}");
    }
}
