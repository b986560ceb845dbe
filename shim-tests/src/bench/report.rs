//! What a session leaves behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use super::measurement::{Measurement, Verdict, figure, median};
use crate::table::Table;

/// Where and on what a session ran.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// `uname -sr`.
    pub kernel: String,
    /// From `/proc/cpuinfo`.
    pub cpu: String,
    /// The CPUs that could be used.
    pub cpus: Vec<usize>,
    /// Seconds since 1970.
    pub started: u64,
    /// The source, as git describes it.
    pub source: String,
}

impl Host {
    /// This host.
    pub fn here(cpus: &[usize]) -> Self {
        let said = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output();
            let text = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
            text.unwrap_or_default()
        };
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name"));
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Host {
            kernel: said("uname", &["-sr"]),
            cpu: model
                .unwrap_or_default()
                .trim_matches([' ', '\t', ':'])
                .to_owned(),
            cpus: cpus.to_vec(),
            started: since_1970.map_or(0, |d| d.as_secs()),
            source: said("git", &["describe", "--always", "--dirty"]),
        }
    }
}

/// What the ratios of a table, the JSON and the chart mean.
pub const RATIOS: &str = "Ratios above 1 are better than the kernel: sidewire / kernel where more is better, \
                          kernel / sidewire of times and costs.";

/// A session.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// Where.
    pub host: Host,
    /// Rounds per cell.
    pub rounds: u64,
    /// Every cell's metrics.
    pub measurements: Vec<Measurement>,
    /// Cells that could not be measured, and why.
    pub failures: Vec<(String, String)>,
}

impl Session {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text + "\n").with_context(|| file.display().to_string())
    }

    /// For people; [`RATIOS`] belongs below it.
    pub fn table(&self) -> Table {
        let mut table = Table::new(&[
            "cell", "metric", "kernel", "sidewire", "min", "ratio", "max", "null", "verdict",
        ]);
        for m in &self.measurements {
            table.row([
                m.cell.clone(),
                m.metric.to_owned(),
                figure(median(&m.kernel)),
                figure(median(&m.sidewire)),
                format!("{:.2}", m.ratio.min),
                format!("{:.2}", m.ratio.median),
                format!("{:.2}", m.ratio.max),
                format!("{:.2}..{:.2}", m.null_ratio.min, m.null_ratio.max),
                match m.verdict {
                    Verdict::Better => "better",
                    Verdict::Same => "same",
                    Verdict::Worse => "worse",
                }
                .to_owned(),
            ]);
        }
        table
    }
}
