//! Counters of this process, as JSON, to `SIDEWIRE_STATS` when it ends.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use crate::calls::socket;
use crate::{config, process, stack};

/// The counters of every stack of this process, summed.
fn totals() -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    stack::for_each(|stack| {
        stack.with(|inner| {
            for (name, value) in inner.engine.mib().iter() {
                *sums.entry(name).or_insert(0) += value;
            }
        });
    });
    sums
}

/// The counters as one JSON object: what a test asks for first, then every counter under its Linux name.
#[must_use]
pub fn json() -> String {
    let mib = totals();
    let of = |name: &str| mib.get(name).copied().unwrap_or(0);
    let (engine, kernel) = socket::counts();
    let mut text = String::new();
    let frames_in = of("InSegs");
    let frames_out = of("OutSegs") + of("RetransSegs") + of("OutRsts");
    let _ = write!(
        text,
        "{{\"connections_engine\":{engine},\"connections_kernel\":{},\"tx_frames\":{frames_out},\
         \"rx_frames\":{frames_in},\"retransmits\":{}",
        kernel.iter().sum::<u64>(),
        of("RetransSegs"),
    );
    for (name, value) in &mib {
        let _ = write!(text, ",\"{name}\":{value}");
    }
    text.push_str("}\n");
    text
}

/// Writes the counters where the settings say, if they say so and this process has used TCP.
pub fn write() {
    let Some(file) = config::loaded().and_then(|c| c.stats.as_deref()) else {
        return;
    };
    if !process::took_part() {
        return;
    }
    if let Err(e) = std::fs::write(file, json()) {
        crate::warning!("SIDEWIRE_STATS={}: {e}", file.display());
    }
}
