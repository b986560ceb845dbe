//! Each conformance probe, natively and under the shim; a failure names the rows.

use std::process::ExitCode;

use anyhow::ensure;
use shim_tests::conformance::probes::{Probe, all};
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
    let mut suite = Suite::new("conformance").in_parallel();
    for probe in probes {
        let name = probe.name.clone();
        suite = suite.both(&name, &[], move |stack| same(&probe, stack));
    }
    suite.run()
}

fn same(probe: &Probe, stack: &Stack) -> TestResult {
    let rows = Rows::read()?;
    let mut findings = Findings::default();
    findings.add(&rows, probe, &probe.run(stack)?);
    let failures = findings.failures;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
