//! What a process has used of the CPUs.

use std::fs;

use anyhow::{Context, Result};

/// Nanoseconds that a process and all its threads have had on a CPU.
///
/// # Errors
/// When there is no such process.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split(' ').next().context("schedstat")?;
        total += first.parse::<u64>().with_context(|| text.clone())?;
    }
    Ok(total)
}
