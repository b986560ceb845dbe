//! What a process has used of the CPUs.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

/// Nanoseconds that each thread of a process has had on a CPU.
#[derive(Debug)]
pub struct CpuTimes(HashMap<String, u64>);

impl CpuTimes {
    /// Those of the threads that are there now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let mut times = HashMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // A thread may end meanwhile.
            let Ok(text) = fs::read_to_string(task.join("schedstat")) else {
                continue;
            };
            let first = text.split(' ').next().context("schedstat")?;
            let ns = first.parse().with_context(|| text.clone())?;
            times.insert(task.display().to_string(), ns);
        }
        Ok(Self(times))
    }

    /// What the threads that are there now have had since `before`, in nanoseconds. One that has ended counts no more.
    #[must_use]
    pub fn since(&self, before: &Self) -> u64 {
        let had = |thread| before.0.get(thread).copied().unwrap_or(0);
        self.0
            .iter()
            .map(|(thread, ns)| ns - had(thread.as_str()))
            .sum()
    }
}
