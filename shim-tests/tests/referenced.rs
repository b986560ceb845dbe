//! Bytes that stay where they are: of sends, in the program's memory and in files; received ones, in the kernel until they
//! are read.

use std::fs;
use std::process::ExitCode;

use anyhow::ensure;
use shim_tests::compare::{PEER_PORT, start_peer};
use shim_tests::iperf3::{Amount, Iperf3, Role};
use shim_tests::lab::{DEVICE, FAR};
use shim_tests::library::{Stack, Stats};
use shim_tests::netcat::receiver;
use shim_tests::payload::{self, MIB};
use shim_tests::probe::{example, probe};
use shim_tests::{Lab, Link, Suite, TestResult};

const PORT: u16 = 7600;

fn main() -> ExitCode {
    Suite::new("referenced")
        .both("retransmitted_as_it_is_by_then", &[], |stack| {
            overwritten(stack, "pages", b'b')
        })
        .shim("retransmitted_as_it_was", &[], |stack| {
            overwritten(stack, "copy", b'a')
        })
        .both("sendfile", &[], sends_file)
        .both("truncated_file", &[], |stack| gone(stack, "file"))
        .both("unmapped_pages", &[], |stack| gone(stack, "pages"))
        .shim("received_where_it_is_read", &[], received)
        .run()
}

/// The first copy of the bytes is lost, and they are overwritten before they are sent again.
fn overwritten(stack: &Stack, rtx: &str, arrives: u8) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let rules = format!(
        "table netdev lab {{ chain in {{ type filter hook ingress device {DEVICE} priority 0; \
         meta length > 1000 numgen inc mod 1000 0 drop; }}; }}"
    );
    lab.far.run("nft", [rules.as_str()])?;
    let (sink, port) = (lab.path("arrived"), PORT.to_string());
    let receiver = receiver(&lab, PORT, &sink)?;
    lab.near
        .program(probe("overwritten"))
        .args([FAR, &port])
        .env("SIDEWIRE_ZEROCOPY_RTX", rtx)
        .under(stack)
        .run()?
        .success()?;
    receiver.wait()?.success()?;
    let expected = vec![arrives; 1000];
    let arrived = fs::read(&sink)?;
    ensure!(arrived == expected, "{}", String::from_utf8_lossy(&arrived));
    Ok(())
}

/// No byte of the file is copied in user space.
fn sends_file(stack: &Stack) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let stats = lab.path("stats.json");
    let (source, sink) = (lab.path("sent"), lab.path("arrived"));
    let size = 5 * MIB + 12_345;
    payload::write(&source, size)?;
    let port = PORT.to_string();
    let receiver = receiver(&lab, PORT, &sink)?;
    lab.near
        .program(example("send_file"))
        .args([FAR, &port, &source.to_string_lossy()])
        .under(stack)
        .stats(&stats)
        .run()?
        .success()?;
    receiver.wait()?.success()?;
    let header = format!("{size}\n");
    let expected = [header.clone().into_bytes(), fs::read(&source)?].concat();
    ensure!(fs::read(&sink)? == expected, "what arrived differs");
    if stack.is_sidewire() {
        let copied = format!("\"BytesCopiedOut\":{},", header.len());
        let text = fs::read_to_string(&stats)?;
        ensure!(
            text.contains(&copied),
            "more than the header copied: {text}"
        );
    }
    Ok(())
}

/// What comes in large frames is copied once, by the kernel: where the host lets the packet socket keep them.
fn received(stack: &Stack) -> TestResult {
    let lab = Lab::unprivileged(Link::default())?;
    // The ring comes when the first frames have shown that it is worth one.
    let size = 512 * MIB;
    let outcome = Iperf3::new(Role::Client, &["-R"], Amount::Bytes(size)).run(&lab, stack)?;
    outcome.carried.all_by_engine_but_late_resets(2)?;
    let direct = outcome.carried.stats.map_or(0, |s| s.rx_direct_bytes);
    let rmem_max = fs::read_to_string("/proc/sys/net/core/rmem_max")?;
    if rmem_max.trim().parse::<u64>()? < 2 * MIB {
        ensure!(direct == 0, "{direct} bytes by a ring that holds all");
    } else {
        ensure!(direct > size / 2, "only {direct} bytes of {size}");
    }
    Ok(())
}

/// A file that is truncated before its bytes are sent, or pages that are unmapped, end the connection, not the process, and one
/// line says so; the kernel has the pages. Zerocopy sends complete in any case.
fn gone(stack: &Stack, what: &str) -> TestResult {
    let lab = Lab::new(Link::default())?;
    let _peer = start_peer(&lab)?;
    let stats = lab.path("stats.json");
    let said = lab
        .near
        .program(probe("truncated"))
        .args([FAR, &PEER_PORT.to_string(), what])
        .under(stack)
        .stats(&stats)
        .run()?
        .success()?;
    let expected = if stack.is_sidewire() {
        ensure!(Stats::read(&stats)?.connections_engine == 2, "{said}");
        let lines = said.stderr.lines();
        ensure!(
            lines.filter(|line| line.contains("is reset")).count() == 1,
            "{said}"
        );
        "EFAULT\ncomplete\n"
    } else {
        "all sent\ncomplete\n"
    };
    ensure!(said.stdout == expected, "{said}");
    Ok(())
}
