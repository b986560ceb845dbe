//! What a probe printed, and where two of its runs differ.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use similar::{Algorithm, DiffOp, capture_diff_slices};

/// The last line of a probe that came to its end.
const DONE: &str = "done";

/// One observation: `[IDS] text: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The rows that it shows.
    pub ids: Vec<String>,
    /// All of it.
    pub text: String,
    /// The length of the part that says what was observed.
    key: usize,
}

impl Line {
    fn parse(text: &str) -> Result<Self> {
        let (ids, rest) = text
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "))
            .with_context(|| format!("not \"[ROWS] text: value\": {text:?}"))?;
        let ids: Vec<String> = ids.split_whitespace().map(str::to_owned).collect();
        ensure!(!ids.is_empty(), "a line for no row: {text:?}");
        let start = text.len() - rest.len();
        let key = start + rest.find(": ").unwrap_or(rest.len());
        Ok(Line {
            ids,
            text: text.to_owned(),
            key,
        })
    }

    /// What was observed, without the value.
    fn key(&self) -> &str {
        &self.text[..self.key]
    }
}

/// Splits what a probe printed, up to its "done"; the flag says whether it came
/// to that.
///
/// # Errors
/// When a line is not of the form.
pub fn parse(output: &str) -> Result<(Vec<Line>, bool)> {
    let mut lines = Vec::new();
    let mut texts = output.lines();
    while let Some(text) = texts.next() {
        if text == DONE {
            if let Some(more) = texts.next() {
                bail!("a line after \"done\": {more:?}");
            }
            return Ok((lines, true));
        }
        lines.push(Line::parse(text)?);
    }
    Ok((lines, false))
}

/// A line that the other stack's run does not have, or has differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The kernel's line.
    pub native: Option<Line>,
    /// The other stack's.
    pub other: Option<Line>,
}

impl Difference {
    /// The rows that it concerns.
    pub fn ids(&self) -> BTreeSet<&str> {
        let lines = [&self.native, &self.other].into_iter().flatten();
        lines
            .flat_map(|l| l.ids.iter().map(String::as_str))
            .collect()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |line: &Option<Line>| {
            line.as_ref()
                .map_or_else(|| "(nothing)".to_owned(), |line| line.text.clone())
        };
        write!(
            f,
            "    kernel  {}\n    other   {}",
            text(&self.native),
            text(&self.other)
        )
    }
}

/// Where the two differ. Lines are matched by what they observe, so that one that
/// is missing or too many does not touch those after it.
pub fn differences(native: &[Line], other: &[Line]) -> Vec<Difference> {
    let keys = |lines: &[Line]| -> Vec<String> {
        lines.iter().map(|line| line.key().to_owned()).collect()
    };
    let mut found = Vec::new();
    let lone = |lines: &[Line], mine: bool| -> Vec<Difference> {
        let difference = |line: &Line| {
            let line = Some(line.clone());
            let (native, other) = if mine { (None, line) } else { (line, None) };
            Difference { native, other }
        };
        lines.iter().map(difference).collect()
    };
    for op in capture_diff_slices(Algorithm::Myers, &keys(native), &keys(other)) {
        let (old, new) = (&native[op.old_range()], &other[op.new_range()]);
        if let DiffOp::Equal { .. } = op {
            found.extend(
                old.iter()
                    .zip(new)
                    .filter(|(a, b)| a != b)
                    .map(|(a, b)| Difference {
                        native: Some(a.clone()),
                        other: Some(b.clone()),
                    }),
            );
        } else {
            found.extend(lone(old, false));
            found.extend(lone(new, true));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        parse(text).unwrap().0
    }

    #[test]
    fn a_missing_line_leaves_those_after_it_alone() {
        let native = lines("[A1] a: 1\n[A2 A3] b: 2\n[A4] c: 3\n[A5] d: 4\n");
        let other = lines("[A1] a: 1\n[A4] c: 3\n[A5] d: 5\n");
        let found = differences(&native, &other);
        let ids: Vec<Vec<&str>> = found
            .iter()
            .map(|d| d.ids().into_iter().collect())
            .collect();
        assert_eq!(ids, [vec!["A2", "A3"], vec!["A5"]]);
        assert!(found[0].other.is_none());
        assert_eq!(differences(&other, &native)[0].native, None);
        assert!(differences(&native, &native).is_empty());
    }

    #[test]
    fn lines_have_ids_and_nothing_follows_the_end() {
        assert!(parse("hello\n").is_err());
        assert!(parse("[] a: 1\n").is_err());
        assert!(parse("done\n[A1] a: 1\n").is_err());
        assert!(parse("[A1] a: 1\ndone\n").unwrap().1);
        assert!(!parse("[A1] a: 1\n").unwrap().1);
    }
}
