//! The socket calls, readiness, signals and bad pointers: C probes that print
//! every outcome, compared with what the kernel gives.

use std::process::ExitCode;

use shim_tests::Suite;
use shim_tests::compare::{
    same_as_native, same_as_native_alone, same_as_native_on_one_cpu, shared_as_native,
};

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
        "stdio_streams",
        "processes",
        "sharing",
        "port_range",
        "senders",
        "paced",
        "splices",
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
    ] {
        suite = suite.both(name, &[], move |stack| same_as_native(name, stack));
    }
    for name in [
        "errno_kept",
        "ep_fork",
        "inherited",
        "passed",
        "moved_asleep",
        "moved_queue",
        "odd_states",
        "vfork_passes",
        "moved_ended",
        "moved_again",
        "spawned",
        "moved_options",
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
    suite
        .both("ep_prompt", &[], |stack| {
            same_as_native_on_one_cpu("ep_prompt", stack)
        })
        .both("sig_actions", &[], |stack| {
            same_as_native_alone("sig_actions", stack)
        })
        .run()
}
