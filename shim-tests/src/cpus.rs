//! Which CPUs we may run on, and where the two ends go.

use std::fs;

use anyhow::{Context, Result};

/// The CPUs that this process may use, ascending.
///
/// # Errors
/// When `/proc/self/status` is not as Linux writes it.
pub fn allowed() -> Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .context("no Cpus_allowed_list")?;
    parse(list.trim()).with_context(|| format!("CPU list {list:?}"))
}

/// Where the near and the far end run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On one CPU each.
    TwoCpus,
    /// Both on the same.
    OneCpu,
}

impl Placement {
    /// `two-cpus` or `one-cpu`.
    pub fn name(self) -> &'static str {
        match self {
            Placement::TwoCpus => "two-cpus",
            Placement::OneCpu => "one-cpu",
        }
    }

    /// The CPU of the near and of the far end, of those in `cpus`; `None` when
    /// there are too few.
    pub fn pin(self, cpus: &[usize]) -> Option<(usize, usize)> {
        let (&first, &last) = (cpus.first()?, cpus.last()?);
        match self {
            Placement::TwoCpus => (first != last).then_some((first, last)),
            Placement::OneCpu => Some((last, last)),
        }
    }
}

fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_cpu_lists() {
        assert_eq!(parse("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse("3"), Some(vec![3]));
        assert_eq!(parse(""), None);
        assert!(!allowed().unwrap().is_empty());
    }

    #[test]
    fn placements() {
        assert_eq!(Placement::TwoCpus.pin(&[2, 3, 7]), Some((2, 7)));
        assert_eq!(Placement::TwoCpus.pin(&[2]), None);
        assert_eq!(Placement::OneCpu.pin(&[2, 3]), Some((3, 3)));
    }
}
