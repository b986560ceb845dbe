//! The socket calls, readiness, signals and bad pointers: C probes that print
//! every outcome, compared with what the kernel gives.

use std::ops::Range;
use std::process::ExitCode;

use shim_tests::Suite;
use shim_tests::compare::{
    same_as_native, same_as_native_alone, same_as_native_on_one_cpu, shared_as_native,
};
use shim_tests::segments::{KINDS, same_random_segments};
use shim_tests::sequence::same_random_calls;

/// Seeds of one test of random calls or segments.
const SEEDS: u64 = 8;

/// Tests of random calls, each with seeds of its own.
fn random_calls(mut suite: Suite, tests: Range<u64>) -> Suite {
    for test in tests {
        let seeds = test * SEEDS..(test + 1) * SEEDS;
        let name = format!("random_calls_{}_to_{}", seeds.start, seeds.end - 1);
        suite = suite.both(&name, &[], move |stack| same_random_calls(seeds, stack));
    }
    suite
}

/// The same for random segments of each kind.
fn random_segments(mut suite: Suite, tests: Range<u64>) -> Suite {
    for test in tests {
        for kind in KINDS {
            let seeds = test * SEEDS..(test + 1) * SEEDS;
            let name = format!(
                "random_segments_{kind}_{}_to_{}",
                seeds.start,
                seeds.end - 1
            );
            suite = suite.both(&name, &[], move |stack| {
                same_random_segments(kind, seeds, stack)
            });
        }
    }
    suite
}

fn main() -> ExitCode {
    let mut suite = Suite::new("calls");
    for name in [
        "calls",
        "poll_select",
        "epoll",
        "epoll_by_ring",
        "signals",
        "ep_threads",
        "sig_handlers",
        "heap_interrupted",
        "cancels",
        "arrived",
        "stdio_streams",
        "processes",
        "sharing",
        "port_range",
        "senders",
        "paced",
        "splices",
        "splice_pipes",
        "ep_polled",
        "ep_twins",
        "set_ids",
        "odd_calls",
        "odd_values",
        "mask_waits",
        "message_rows",
        "owner_told",
        "send_ends",
        "zerocopy_receive",
        "by_number",
        "ends_amid",
        "range_lingers",
        "exec_fails",
        "polled_files",
        "wake_order",
        "exec_lingers",
    ] {
        suite = suite.both(name, &[], move |stack| same_as_native(name, stack));
    }
    for name in [
        "errno_kept",
        "ep_fork",
        "inherited",
        "used_while_shared",
        "forks_amid",
        "passed",
        "moved_asleep",
        "moved_queue",
        "odd_states",
        "vfork_passes",
        "moved_ended",
        "moved_again",
        "spawned",
        "moved_options",
        "moved_repairing",
        "many_streams",
        "lowered_user",
        "reuse_group",
        "reuse_strangers",
        "not_stderr",
        "ep_local",
        "bound_oddly",
    ] {
        suite = suite.both(name, &[], move |stack| shared_as_native(name, stack));
    }
    random_segments(random_calls(suite, 0..1), 0..1)
        .long(|suite| random_segments(random_calls(suite, 1..32), 1..32))
        .both("ep_prompt", &[], |stack| {
            same_as_native_on_one_cpu("ep_prompt", stack)
        })
        .both("sig_actions", &[], |stack| {
            same_as_native_alone("sig_actions", stack)
        })
        .run()
}
