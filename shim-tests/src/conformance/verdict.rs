//! What the outcomes say of each row.

use std::collections::{BTreeMap, BTreeSet};

use crate::conformance::probes::{Kind, Outcome, Probe};
use crate::conformance::rows::{Row, Rows};

/// What was found about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that names it is the same.
    Equal,
    /// Something differs that `DEVIATIONS.md` lists.
    Listed,
    /// Something differs.
    Unequal,
    /// The running kernel is not one that the row speaks of.
    NotApplicable,
    /// Nothing shows it.
    NotShown,
}

impl Verdict {
    /// As the table says it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::Listed => "unequal, listed",
            Verdict::Unequal => "unequal",
            Verdict::NotApplicable => "n/a",
            Verdict::NotShown => "-",
        }
    }
}

/// Which rows are shown by what, and which differ.
#[derive(Debug, Default)]
pub struct Findings {
    shown: BTreeMap<String, BTreeSet<&'static str>>,
    unequal: BTreeSet<String>,
    listed: BTreeSet<String>,
    /// What makes the run a failure, in words.
    pub failures: Vec<String>,
}

impl Findings {
    /// Takes in what came of `probe`.
    pub fn add(&mut self, rows: &Rows, probe: &Probe, outcome: &Outcome) {
        let others = outcome.differences.iter().filter_map(|d| d.other.as_ref());
        let mut unknown = BTreeSet::new();
        for id in outcome.native.iter().chain(others).flat_map(|l| &l.ids) {
            if rows.get(id).is_none() {
                unknown.insert(id.as_str());
            }
            self.show(id, probe.kind.name());
        }
        for id in unknown {
            self.failures
                .push(format!("{} names {id}: no such row", probe.name));
        }
        for difference in &outcome.differences {
            let ids = difference.ids();
            let any = |of: &dyn Fn(&Row) -> bool| ids.iter().any(|id| rows.get(id).is_some_and(of));
            if any(&|row| !rows.applies(row)) {
                continue;
            }
            if any(&|row| row.deviation.is_some()) {
                self.listed.extend(ids.into_iter().map(str::to_owned));
                continue;
            }
            let names: Vec<&str> = ids.iter().copied().collect();
            self.failures
                .push(format!("{}: {}\n{difference}", probe.name, names.join(" ")));
            self.unequal.extend(ids.into_iter().map(str::to_owned));
        }
        if let Some(failure) = &outcome.failure {
            self.failures.push(format!("{}: {failure}", probe.name));
        }
    }

    /// Notes that something shows a row.
    pub fn show(&mut self, id: &str, by: &'static str) {
        self.shown.entry(id.to_owned()).or_default().insert(by);
    }

    /// Says which allowed differences are none (any more). To be asked when every
    /// probe has run.
    pub fn stale(&self, rows: &Rows) -> Vec<String> {
        let stale = |(id, row): (&str, &Row)| {
            let observed = |by: &BTreeSet<&str>| {
                [Kind::Program, Kind::Wire]
                    .iter()
                    .any(|kind| by.contains(kind.name()))
            };
            (row.deviation.is_some()
                && self.shown.get(id).is_some_and(observed)
                && !self.listed.contains(id))
            .then(|| format!("{id} is equal: the deviation in rows.toml is stale"))
        };
        let unseen = |(id, row): (&str, &Row)| {
            (row.unseen.is_some() && self.shown.contains_key(id))
                .then(|| format!("{id} is shown, but rows.toml says that it cannot be"))
        };
        let both = rows.iter().filter_map(stale);
        both.chain(rows.iter().filter_map(unseen)).collect()
    }

    /// What shows a row: `probe`, `wire`, `script`.
    pub fn shown_by(&self, id: &str) -> Option<String> {
        let names = self.shown.get(id)?;
        Some(names.iter().copied().collect::<Vec<_>>().join(", "))
    }

    /// What is known of a row.
    pub fn verdict(&self, rows: &Rows, id: &str, row: &Row) -> Verdict {
        if !rows.applies(row) {
            Verdict::NotApplicable
        } else if self.unequal.contains(id) {
            Verdict::Unequal
        } else if self.listed.contains(id) {
            Verdict::Listed
        } else if self.shown.contains_key(id) {
            Verdict::Equal
        } else {
            Verdict::NotShown
        }
    }
}
