//! `sidewire demo`: unmodified iperf3 and nc with the shim in front, next to the
//! same programs on the kernel's TCP, on one private link in one session.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use shim_tests::bench::measurement::Spread;
use shim_tests::cpus::{Placement, allowed};
use shim_tests::iperf3::{Amount, Iperf3, Role};
use shim_tests::netcat::{Flavour, Part, move_file};
use shim_tests::patience::{interrupt_on_signals, interrupted};
use shim_tests::payload::MIB;
use shim_tests::table::Table;
use shim_tests::{Lab, Link, Stack};

/// Runs iperf3 and nc over Sidewire and over the kernel's TCP, on a private link
/// between two network namespaces, and prints both side by side.
#[derive(Parser)]
#[command(name = "sidewire demo", bin_name = "sidewire demo")]
struct Options {
    /// Seconds of each iperf3 run
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Pairs of runs (kernel, Sidewire) per line; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,
    /// Size of the file that nc moves, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4096))]
    size: u64,
}

/// One run of one program.
struct Run {
    bits_per_second: f64,
    retransmits: u64,
    sha256: Option<String>,
}

/// What both stacks did for one line of the table.
#[derive(Default)]
struct Pairs {
    kernel: Vec<Run>,
    sidewire: Vec<Run>,
}

type Scenario = Box<dyn Fn(&Stack) -> Result<Run>>;

fn main() -> ExitCode {
    match demo(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sidewire demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(options: &Options) -> Result<ExitCode> {
    interrupt_on_signals()?;
    let sidewire = Stack::sidewire()?;
    let cpus = allowed()?;
    let placement = if cpus.len() > 1 {
        Placement::TwoCpus
    } else {
        Placement::OneCpu
    };
    let pin = placement.pin(&cpus).context("no CPU")?;
    println!(
        "Two network namespaces on a veth pair, MTU 1500, offloads on; the peer is always the\n\
         kernel's TCP (cubic). Program on CPU {}, peer on CPU {}. Medians of {} interleaved runs.\n",
        pin.0, pin.1, options.rounds
    );

    let mut table = Table::new(&[
        "program under test",
        "Gbit/s",
        "kernel Gbit/s",
        "ratio",
        "retransmits",
        "kernel's",
        "SHA-256",
    ]);
    let mut failures = Vec::new();
    for (name, scenario) in scenarios(options, pin) {
        match measure(&name, &scenario, &sidewire, options.rounds) {
            Ok(pairs) => table.row(line(&name, &pairs)),
            Err(_) if interrupted() => {
                println!("\ninterrupted; the namespaces and files are gone");
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => {
                println!(" failed");
                table.row([name.clone(), "failed".to_owned()]);
                failures.push(format!("{name}: {error:#}"));
            }
        }
    }
    println!("\n{table}");
    for failure in &failures {
        eprintln!("failed: {failure}\n");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn scenarios(options: &Options, pin: (usize, usize)) -> Vec<(String, Scenario)> {
    let mut scenarios: Vec<(String, Scenario)> = Vec::new();
    let time = Amount::Time(Duration::from_secs(options.seconds));
    let iperf3: [(&str, Role, &[&str]); 6] = [
        ("iperf3 -c", Role::Client, &[]),
        ("iperf3 -c -R", Role::Client, &["-R"]),
        ("iperf3 -c -P 8", Role::Client, &["-P", "8"]),
        ("iperf3 -c --bidir", Role::Client, &["--bidir"]),
        ("iperf3 -s (receives)", Role::Server, &[]),
        ("iperf3 -s (sends)", Role::Server, &["-R"]),
    ];
    for (name, role, args) in iperf3 {
        let mut test = Iperf3::new(role, args, time);
        test.cpus = Some(pin);
        let run = move |stack: &Stack| {
            let outcome = test.run(&Lab::new(Link::default())?, stack)?;
            if stack.is_sidewire() {
                test.all_by_engine(&outcome)?;
            }
            Ok(Run {
                bits_per_second: outcome.bits_per_second,
                retransmits: outcome.carried.retransmits(),
                sha256: None,
            })
        };
        scenarios.push((name.to_owned(), Box::new(run)));
    }
    for part in Part::ALL {
        let name = format!(
            "nc{} {} {} MiB",
            if part.listens { " -l" } else { "" },
            if part.sends { "sends" } else { "receives" },
            options.size
        );
        let size = options.size * MIB;
        let run = move |stack: &Stack| {
            let lab = Lab::new(Link::default())?;
            let outcome = move_file(&lab, stack, Flavour::OpenBsd, part, size, Some(pin))?;
            if stack.is_sidewire() {
                outcome.carried.all_by_engine(1)?;
            }
            Ok(Run {
                bits_per_second: outcome.bits_per_second,
                retransmits: outcome.carried.retransmits(),
                sha256: Some(outcome.sha256),
            })
        };
        scenarios.push((name, Box::new(run)));
    }
    scenarios
}

fn measure(name: &str, scenario: &Scenario, sidewire: &Stack, rounds: u64) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    for _ in 0..rounds {
        for stack in [&Stack::Kernel, sidewire] {
            progress(&format!("{name}: {}", stack.name()));
            let run = scenario(stack).with_context(|| format!("on {}", stack.name()))?;
            println!(" {:.2} Gbit/s", run.bits_per_second / 1e9);
            match stack {
                Stack::Kernel => pairs.kernel.push(run),
                Stack::Sidewire(_) => pairs.sidewire.push(run),
            }
        }
    }
    Ok(pairs)
}

fn progress(text: &str) {
    print!("  {text:<34}");
    // A closed standard output is found out by the next println.
    let _ = std::io::stdout().flush();
}

fn line(name: &str, pairs: &Pairs) -> Vec<String> {
    let rate = |runs: &[Run]| {
        let rates: Vec<f64> = runs.iter().map(|run| run.bits_per_second).collect();
        Spread::of(&rates).map_or(f64::NAN, |rates| rates.median)
    };
    let retransmits = |runs: &[Run]| runs.iter().map(|run| run.retransmits).sum::<u64>();
    let (sidewire, kernel) = (rate(&pairs.sidewire), rate(&pairs.kernel));
    let digest = pairs.sidewire.last().and_then(|run| run.sha256.as_deref());
    vec![
        name.to_owned(),
        format!("{:.2}", sidewire / 1e9),
        format!("{:.2}", kernel / 1e9),
        format!("{:.2}", sidewire / kernel),
        retransmits(&pairs.sidewire).to_string(),
        retransmits(&pairs.kernel).to_string(),
        digest.map_or_else(
            || "-".to_owned(),
            |sha256| format!("same ({})", &sha256[..8]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_the_command_whatever_the_file_is() {
        let help = Options::try_parse_from(["/x/sidewire-demo", "--help"]);
        let help = help.err().unwrap().to_string();
        assert!(help.contains("Usage: sidewire demo ["), "{help}");
    }
}
