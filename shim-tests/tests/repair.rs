//! Connections that move by TCP_REPAIR: from one stack to the other, and back.

use std::process::ExitCode;

use anyhow::ensure;
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::lab::{DEVICE, FAR};
use shim_tests::library::{Stack, Stats};
use shim_tests::patience::until;
use shim_tests::probe::probe;
use shim_tests::{Lab, Link, Suite, TestResult};

fn main() -> ExitCode {
    Suite::new("repair")
        .test("from_kernel_to_kernel", &[], || {
            moves(&Stack::Kernel, &Stack::Kernel)
        })
        .shim("from_kernel_to_engine", &[], |stack| {
            moves(&Stack::Kernel, stack)
        })
        .shim("from_engine_to_kernel", &[], |stack| {
            moves(stack, &Stack::Kernel)
        })
        .shim("from_engine_to_engine", &[], |stack| moves(stack, stack))
        .run()
}

/// A process on `from` takes the connection down with bytes in both queues, unread, unacknowledged and unsent; one on `to`
/// builds it up. No frame passes meanwhile, either way. The stream is whole.
fn moves(from: &Stack, to: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let image = lab.path("image");
    let exists = |what: &str| {
        let file = lab.path(&format!("image.{what}"));
        until(what, || Ok(file.exists().then_some(())))
    };
    let program = |how: &str| {
        let args = [FAR, &PEER_PORT.to_string(), &image.to_string_lossy(), how].map(String::from);
        lab.near.program(probe("repair_move")).args(args)
    };
    let stats = [lab.path("down.json"), lab.path("up.json")];

    let down = program("down").under(from).stats(&stats[0]).start()?;
    exists("ready")?;
    let rules = format!(
        "table netdev cut {{ chain in {{ type filter hook ingress device {DEVICE} priority 0; drop; }}; }}"
    );
    for host in [&lab.near, &lab.far] {
        host.run("nft", [rules.as_str()])?;
    }
    std::fs::write(lab.path("image.cut"), [])?;
    let said = down.wait()?.success()?;
    ensure!(said.stdout == "unread 40000, queued 1\n", "{said}");

    let up = program("up").under(to).stats(&stats[1]).start()?;
    exists("built")?;
    for host in [&lab.near, &lab.far] {
        host.run("nft", ["delete table netdev cut"])?;
    }
    let said = up.wait()?.success()?;
    let whole = "300000 bytes sent, 300000 back, then 0\n";
    ensure!(said.stdout == whole, "{said}");
    for (stack, stats) in [(from, &stats[0]), (to, &stats[1])] {
        if stack.is_sidewire() {
            ensure!(Stats::read(stats)?.connections_engine == 1, "{said}");
        }
    }
    Ok(())
}
