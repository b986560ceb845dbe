//! The socket calls, readiness, signals and bad pointers: C probes that print
//! every outcome, compared with what the kernel gives.

use std::process::ExitCode;

use shim_tests::Suite;
use shim_tests::compare::{same_as_native, same_as_native_alone, shared_as_native};

fn main() -> ExitCode {
    let mut suite = Suite::new("calls");
    for name in [
        "calls",
        "poll_select",
        "epoll",
        "signals",
        "ep_threads",
        "sig_handlers",
        "stdio_streams",
        "processes",
        "sharing",
    ] {
        suite = suite.both(name, &[], move |stack| same_as_native(name, stack));
    }
    for name in ["sig_actions", "ep_local"] {
        suite = suite.both(name, &[], move |stack| same_as_native_alone(name, stack));
    }
    suite
        .both("inherited", &[], |stack| {
            shared_as_native("inherited", stack)
        })
        .run()
}
