//! iperf3 as client and as server, in every mode, and with loss.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use shim_tests::iperf3::{Amount, Iperf3, Role};
use shim_tests::library::Stack;
use shim_tests::payload::MIB;
use shim_tests::{Lab, Link, Need, Suite, TestResult};

const MODES: [(&str, &[&str]); 5] = [
    ("default", &[]),
    ("reverse", &["-R"]),
    ("parallel", &["-P", "8"]),
    ("bidir", &["--bidir"]),
    ("parallel_reverse", &["-P", "8", "-R"]),
];

fn main() -> ExitCode {
    let mut suite = Suite::new("iperf3");
    for (role, role_name) in [(Role::Client, "client"), (Role::Server, "server")] {
        for (mode, args) in MODES {
            suite = suite.both(&format!("{role_name}_{mode}"), &[], move |stack| {
                moves(&Lab::new(Link::default())?, stack, role, args, 64 * MIB)
            });
        }
    }
    suite
        .both("client_64_streams", &[], |stack| {
            let lab = Lab::new(Link::default())?;
            moves(&lab, stack, Role::Client, &["-P", "64"], 64 * MIB)
        })
        .both("server_64_streams_reverse", &[], |stack| {
            let lab = Lab::new(Link::default())?;
            moves(&lab, stack, Role::Server, &["-P", "64", "-R"], 64 * MIB)
        })
        .both("client_one_percent_loss", &[Need::EgressHook], |stack| {
            lossy(stack, Role::Client, &[])
        })
        .both("server_one_percent_loss", &[Need::EgressHook], |stack| {
            lossy(stack, Role::Server, &["-R"])
        })
        .both("client_small_writes", &[], |stack| {
            let lab = Lab::new(Link::default())?;
            moves(&lab, stack, Role::Client, &["-l", "100", "-N"], MIB)
        })
        .run()
}

fn moves(lab: &Lab, stack: &Stack, role: Role, args: &[&str], bytes: u64) -> TestResult {
    let test = Iperf3::new(role, args, Amount::Bytes(bytes));
    let outcome = test.run(lab, stack)?;
    if stack.is_sidewire() {
        // The control connection comes on top of the streams.
        return outcome.carried.all_by_engine(test.streams() + 1);
    }
    ensure!(outcome.carried.near.out_segs > 0, "{outcome:?}");
    Ok(())
}

fn lossy(stack: &Stack, role: Role, args: &[&str]) -> Result<()> {
    let lab = Lab::new(Link::default())?;
    lab.lose_one_in(&lab.near, 100)?;
    lab.lose_one_in(&lab.far, 100)?;
    moves(&lab, stack, role, args, 64 * MIB)
}
