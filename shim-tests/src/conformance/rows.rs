//! `conformance/rows.toml`: the rows, and what is known of each beforehand.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const ROWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/rows.toml");
const DEVIATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../preload/DEVIATIONS.md");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../preload/testkit/scripts");

/// What a packet script's comment begins with that names the rows it shows.
const SCRIPT_ROWS: &str = "// rows:";

/// One row of the behaviour tables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What it is about.
    pub title: String,
    /// Why no program and no wire can show it.
    pub unseen: Option<String>,
    /// A passage of `preload/DEVIATIONS.md` that allows it to differ.
    pub deviation: Option<String>,
    /// The first kernel that does what the row says.
    pub since: Option<String>,
    /// The last kernel that does.
    pub until: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Title(String),
    Row(Row),
}

/// All rows, in the order of their tables.
#[derive(Debug)]
pub struct Rows {
    rows: Vec<(String, Row)>,
    kernel: (u32, u32),
}

impl Rows {
    /// Reads the list, and holds it against `DEVIATIONS.md`.
    ///
    /// # Errors
    /// When a file is missing or malformed, or an entry is stale.
    pub fn read() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let release = read("/proc/sys/kernel/osrelease")?;
        let kernel = version(release.trim())?;
        Self::parse(&read(ROWS)?, &read(DEVIATIONS)?, kernel).context(ROWS)
    }

    fn parse(text: &str, deviations: &str, kernel: (u32, u32)) -> Result<Self> {
        let tables: BTreeMap<String, BTreeMap<String, Entry>> = toml::from_str(text)?;
        let mut rows = Vec::new();
        for table in tables.into_values() {
            let mut table: Vec<(String, Row)> = table
                .into_iter()
                .map(|(id, entry)| match entry {
                    Entry::Title(title) => (
                        id,
                        Row {
                            title,
                            ..Row::default()
                        },
                    ),
                    Entry::Row(row) => (id, row),
                })
                .collect();
            table.sort_by_key(|(id, _)| natural(id));
            rows.extend(table);
        }
        for (id, row) in &rows {
            ensure!(!row.title.trim().is_empty(), "{id}: no title");
            let reasons = [&row.unseen, &row.deviation];
            let empty = reasons.into_iter().flatten().any(|r| r.trim().is_empty());
            ensure!(!empty, "{id}: no reason");
            if let Some(words) = &row.deviation {
                ensure!(
                    deviations.contains(words.as_str()),
                    "{id}: DEVIATIONS.md does not say {words:?} (any more)"
                );
            }
            for bound in [&row.since, &row.until].into_iter().flatten() {
                version(bound).with_context(|| id.clone())?;
            }
        }
        Ok(Rows { rows, kernel })
    }

    /// The rows with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.rows.iter().map(|(id, row)| (id.as_str(), row))
    }

    /// The row of that id.
    pub fn get(&self, id: &str) -> Option<&Row> {
        self.iter().find(|(other, _)| *other == id).map(|(_, r)| r)
    }

    /// Whether the running kernel is one that does what the row says.
    pub fn applies(&self, row: &Row) -> bool {
        let known = |bound: &Option<String>| bound.as_deref().and_then(|b| version(b).ok());
        known(&row.since).is_none_or(|since| self.kernel >= since)
            && known(&row.until).is_none_or(|until| self.kernel <= until)
    }

    /// The rows that packet scripts show, each with the scripts' names.
    ///
    /// # Errors
    /// When a script cannot be read, or names a row that is not listed.
    pub fn in_scripts(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut scripts: Vec<PathBuf> = fs::read_dir(SCRIPTS)
            .context(SCRIPTS)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        scripts.sort();
        for path in scripts {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(&path).with_context(|| name.to_string())?;
            for id in text
                .lines()
                .filter_map(|l| l.trim().strip_prefix(SCRIPT_ROWS))
            {
                for id in id.split_whitespace() {
                    ensure!(self.get(id).is_some(), "{name}.pkt names {id}: no such row");
                    shown
                        .entry(id.to_owned())
                        .or_default()
                        .push(name.to_string());
                }
            }
        }
        Ok(shown)
    }
}

/// `B3a` as ("B", 3, "a"), so that B10 comes after B3a.
fn natural(id: &str) -> (String, u32, String) {
    let start = id.find(|c: char| c.is_ascii_digit()).unwrap_or(id.len());
    let (prefix, rest) = id.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let (number, suffix) = rest.split_at(end.unwrap_or(rest.len()));
    (
        prefix.to_owned(),
        number.parse().unwrap_or(0),
        suffix.to_owned(),
    )
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Result<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || -> Result<u32> {
        let number = numbers.next().unwrap_or_default();
        number
            .parse()
            .with_context(|| format!("version {release:?}"))
    };
    Ok((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_in_the_tree_is_well_formed() {
        let rows = Rows::read().unwrap();
        rows.in_scripts().unwrap();
        assert!(rows.get("B10").is_some());
    }

    #[test]
    fn an_entry_that_deviations_do_not_back_is_refused() {
        let text = "[t]\nB2 = {title = 'x', deviation = 'no cookies'}\n";
        assert!(Rows::parse(text, "SYN: no cookies", (6, 18)).is_ok());
        assert!(Rows::parse(text, "SYN cookies", (6, 18)).is_err());
        assert!(Rows::parse("[t]\nB2 = {title='x', unseen=' '}\n", "", (6, 18)).is_err());
        assert!(Rows::parse("[t]\nB2 = {title='x', why='y'}\n", "", (6, 18)).is_err());
    }

    #[test]
    fn rows_come_in_the_order_of_their_numbers_and_know_their_kernels() {
        let text =
            "[t]\nB10 = {title='x', since='6.19'}\nB3a = 'y'\nB9 = {title='z', until='6.17'}\n";
        let rows = Rows::parse(text, "", (6, 18)).unwrap();
        let ids: Vec<&str> = rows.iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["B3a", "B9", "B10"]);
        let applies: Vec<bool> = rows.iter().map(|(_, row)| rows.applies(row)).collect();
        assert_eq!(applies, [true, false, false]);
    }
}
