//! Counters of this process, as JSON, to `SIDEWIRE_STATS` when it ends.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use sidewire_link::frame::FrameSource;

use crate::calls::socket;
use crate::net::LinkStats;
use crate::{config, process, stack};

/// The counters of every stack of this process, summed: the engine's, and the link's.
fn totals() -> (BTreeMap<&'static str, u64>, LinkStats) {
    let mut mib = BTreeMap::new();
    let mut link = LinkStats::default();
    stack::for_each(|stack| {
        stack.with(|inner| {
            for (name, value) in inner.engine.mib().iter() {
                *mib.entry(name).or_insert(0) += value;
            }
            // The kernel's count; asking sets it back.
            inner.net.stats.rx_drops += u64::from(inner.source.take_drops());
            let stats = inner.net.stats;
            link.tx_frames += stats.tx_frames;
            link.tx_bytes += stats.tx_bytes;
            link.rx_frames += stats.rx_frames;
            link.rx_drops += stats.rx_drops;
        });
    });
    (mib, link)
}

/// The counters as one JSON object: what a test asks for first, then every counter under its Linux name.
#[must_use]
pub fn json() -> String {
    let (mib, link) = totals();
    let (engine, kernel) = socket::counts();
    let first = [
        ("connections_engine", engine),
        ("connections_kernel", kernel.iter().sum()),
        ("tx_frames", link.tx_frames),
        ("tx_bytes", link.tx_bytes),
        ("rx_frames", link.rx_frames),
        ("rx_drops", link.rx_drops),
        ("retransmits", mib.get("RetransSegs").copied().unwrap_or(0)),
    ];
    let mut text = String::new();
    for (name, value) in first.into_iter().chain(mib) {
        let before = if text.is_empty() { '{' } else { ',' };
        let _ = write!(text, "{before}\"{name}\":{value}");
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
