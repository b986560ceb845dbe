//! `make conformance`: what programs see under the shim, row by row of the
//! behaviour tables, beside what they see on the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, ensure};
use clap::Parser;
use shim_tests::Stack;
use shim_tests::conformance::probes::{Outcome, Probe, all};
use shim_tests::conformance::rows::Rows;
use shim_tests::conformance::verdict::{Findings, Verdict};
use shim_tests::patience::interrupt_on_signals;
use shim_tests::table::Table;
use wildmatch::WildMatch;

/// Runs the probes natively and under the shim, and says for each row of the
/// behaviour tables whether they saw the same.
#[derive(Parser)]
#[command(name = "sidewire-conformance")]
struct Options {
    /// The probes to run; all without any
    probes: Vec<String>,
    /// Show only rows whose id matches
    #[arg(long, value_name = "GLOB", default_value = "*")]
    rows: String,
    /// Show the lines of the probes as well
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    match conformance(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn conformance(options: &Options) -> Result<ExitCode> {
    interrupt_on_signals()?;
    let stack = Stack::sidewire()?;
    let rows = Rows::read()?;
    let mut probes = all()?;
    for name in &options.probes {
        let known = probes.iter().any(|probe| probe.name == *name);
        ensure!(known, "no probe is called {name}");
    }
    let everything = options.probes.is_empty();
    probes.retain(|probe| everything || options.probes.contains(&probe.name));

    let mut findings = Findings::default();
    for (probe, outcome) in run_all(&probes, &stack) {
        match outcome {
            Ok(outcome) => {
                if options.verbose {
                    outcome
                        .native
                        .iter()
                        .for_each(|line| println!("{}", line.text));
                }
                findings.add(&rows, &probe, &outcome);
            }
            Err(error) => findings.failures.push(format!("{}: {error:#}", probe.name)),
        }
    }
    if everything {
        for (id, _) in rows.in_scripts()? {
            findings.show(&id, "script");
        }
        let stale = findings.stale(&rows);
        findings.failures.extend(stale);
    }
    report(options, everything, &rows, &findings)?;
    Ok(if findings.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// As many at a time as there are CPUs: they wait more than they work.
fn run_all(probes: &[Probe], stack: &Stack) -> Vec<(Probe, Result<Outcome>)> {
    let next = Mutex::new(probes.iter());
    let done = Mutex::new(BTreeMap::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let probe = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(probe) = probe else { break };
                    eprintln!("{}", probe.name);
                    let outcome = probe.run(stack);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.insert(probe.name.clone(), (probe.clone(), outcome));
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_values().collect()
}

fn report(options: &Options, everything: bool, rows: &Rows, findings: &Findings) -> Result<()> {
    let pattern = WildMatch::new(&options.rows);
    let mut table = Table::new(&["row", "shown by", "result"]);
    let mut counts: [usize; 4] = [0; 4];
    let mut reasons = Vec::new();
    for (id, row) in rows.iter() {
        let shown = findings.shown_by(id);
        if !pattern.matches(id) || (!everything && shown.is_none()) {
            continue;
        }
        let verdict = findings.verdict(rows, id, row);
        counts[match verdict {
            Verdict::Equal => 0,
            Verdict::Unequal | Verdict::Listed => 1,
            Verdict::NotApplicable => 2,
            Verdict::NotShown => 3,
        }] += 1;
        table.row([
            format!("{id:<7} {}", row.title),
            shown.unwrap_or_else(|| "nothing".to_owned()),
            verdict.name().to_owned(),
        ]);
        match verdict {
            Verdict::Listed => reasons.extend(row.deviation.as_ref().map(|r| (id, r))),
            Verdict::NotShown => reasons.extend(row.unseen.as_ref().map(|r| (id, r))),
            _ => {}
        }
    }
    println!("{table}");
    for (id, reason) in reasons {
        println!("{id:<7} {reason}");
    }
    for failure in &findings.failures {
        println!("\nfailed: {failure}");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("\nbeside Linux {}", release.trim());
    let [equal, unequal, absent, hidden] = counts;
    println!("{equal} rows equal, {unequal} unequal, {absent} n/a, {hidden} not shown");
    Ok(())
}
