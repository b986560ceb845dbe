//! Each conformance probe, natively and under the shim; a failure names the rows.
//!
//! What a wire probe sees within some milliseconds depends on nobody else using the CPUs: those run in the long tests,
//! one after the other.

use std::process::ExitCode;

use anyhow::ensure;
use shim_tests::conformance::probes::{Kind, Probe, all};
use shim_tests::conformance::rows::Rows;
use shim_tests::conformance::verdict::Findings;
use shim_tests::{Stack, Suite, TestResult};

fn main() -> ExitCode {
    let probes = match all() {
        Ok(probes) => probes,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut programs = Suite::new("conformance").in_parallel();
    let mut wire = Suite::new("conformance");
    for probe in probes {
        let name = probe.name.clone();
        match probe.kind {
            Kind::Program => {
                programs = programs.both(&name, &[], move |stack| same(&probe, stack));
            }
            Kind::Wire => {
                wire = wire.shim(name, &[], move |stack| same(&probe, stack));
            }
        }
    }
    let outcome = programs.run();
    if outcome != ExitCode::SUCCESS || std::env::var_os("SIDEWIRE_LONG").is_none() {
        return outcome;
    }
    wire.run()
}

fn same(probe: &Probe, stack: &Stack) -> TestResult {
    let rows = Rows::read()?;
    let mut findings = Findings::default();
    findings.add(&rows, probe, &probe.run(stack)?);
    let failures = findings.failures;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
