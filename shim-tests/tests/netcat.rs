//! The three netcats, as client and as server, sending and receiving a file.

use std::process::ExitCode;

use anyhow::ensure;
use shim_tests::library::Stack;
use shim_tests::netcat::{Flavour, Part, move_file};
use shim_tests::payload::MIB;
use shim_tests::{Lab, Link, Need, Offloads, Suite, TestResult};

fn main() -> ExitCode {
    let mut suite = Suite::new("netcat");
    for (flavour, name) in [
        (Flavour::OpenBsd, "openbsd"),
        (Flavour::Traditional, "traditional"),
        (Flavour::Ncat, "ncat"),
    ] {
        for part in Part::ALL {
            suite = suite.both(&format!("{name}_{}", part.name()), &[], move |stack| {
                moves(&Lab::new(Link::default())?, stack, flavour, part, 16 * MIB)
            });
        }
    }
    for part in Part::ALL {
        let name = format!("openbsd_{}_with_loss", part.name());
        suite = suite.both(&name, &[Need::EgressHook], move |stack| {
            let lab = Lab::new(Link::default())?;
            for netns in [&lab.near, &lab.far] {
                lab.lose_one_in(netns, 100)?;
                lab.lose_one_in_on_the_way_to(netns, 100)?;
            }
            moves(&lab, stack, Flavour::OpenBsd, part, 16 * MIB)
        });
    }
    suite = suite.both(
        "openbsd_client_sends_into_a_black_hole",
        &[Need::EgressHook],
        |stack| {
            let lab = Lab::new(Link {
                offloads: Offloads::Off,
                ..Link::default()
            })?;
            lab.swallow_above_on_the_way_to(&lab.far, 1200)?;
            lab.near.sysctl("net/ipv4/tcp_mtu_probing", "1")?;
            let sends = Part {
                listens: false,
                sends: true,
            };
            moves(&lab, stack, Flavour::OpenBsd, sends, MIB)
        },
    );
    for part in Part::ALL {
        let name = format!("openbsd_{}_1_gib::sidewire", part.name());
        suite = suite.long(|suite| {
            suite.test(name, &[Need::Library], move || {
                let lab = Lab::new(Link::default())?;
                moves(
                    &lab,
                    &Stack::sidewire()?,
                    Flavour::OpenBsd,
                    part,
                    1024 * MIB,
                )
            })
        });
    }
    suite.run()
}

fn moves(lab: &Lab, stack: &Stack, flavour: Flavour, part: Part, size: u64) -> TestResult {
    let outcome = move_file(lab, stack, flavour, part, size, None)?;
    if stack.is_sidewire() {
        return outcome.carried.all_by_engine(1);
    }
    ensure!(outcome.carried.near.out_segs > 0, "{outcome:?}");
    Ok(())
}
