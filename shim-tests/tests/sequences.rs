//! Random sequences of socket calls: each gives what it gives natively.

use std::process::ExitCode;

use shim_tests::Suite;
use shim_tests::sequence::same_sequences;

/// Sequences of one test.
const SEEDS: u64 = 8;

fn add(mut suite: Suite, tests: std::ops::Range<u64>) -> Suite {
    for test in tests {
        let seeds = test * SEEDS..(test + 1) * SEEDS;
        let name = format!("seeds_{}_to_{}", seeds.start, seeds.end - 1);
        suite = suite.shim(name, &[], move |stack| same_sequences(seeds, stack));
    }
    suite
}

fn main() -> ExitCode {
    let suite = Suite::new("sequences")
        .in_parallel()
        .test("repeat_themselves", &[], || {
            same_sequences(0..SEEDS, &shim_tests::Stack::Kernel)
        });
    add(suite, 0..4).long(|suite| add(suite, 4..64)).run()
}
