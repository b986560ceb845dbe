//! Interleaved runs of one cell, and the ratios between them.

use serde::Serialize;

use super::cell::{Metric, Sample};

/// Lowest, middle and highest of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The lowest.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of `values`; `None` when there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Spread { min, median, max })
    }
}

/// One round: the kernel, Sidewire, and the kernel again.
#[derive(Clone, Debug)]
pub struct Round {
    /// The kernel, before.
    pub kernel: Sample,
    /// Sidewire.
    pub sidewire: Sample,
    /// The kernel, after: against the first it is the null run.
    pub null: Sample,
}

/// How a cell came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The median lies above what the kernel reaches against itself.
    Better,
    /// The median lies within that.
    Same,
    /// The median lies below it.
    Worse,
}

/// One metric of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// The cell's name.
    pub cell: String,
    /// The metric's name with its unit.
    pub metric: &'static str,
    /// Whether a higher value is better. Ratios above 1 always are.
    pub more_is_better: bool,
    /// The kernel's values, in the order of the runs.
    pub kernel: Vec<f64>,
    /// Sidewire's, each from the same round.
    pub sidewire: Vec<f64>,
    /// The kernel's second ones, each from the same round.
    pub null: Vec<f64>,
    /// Sidewire against the kernel, round by round, above 1 when better: where less is better it is the kernel's value by
    /// Sidewire's.
    pub ratio: Spread,
    /// The kernel against itself, in the same way: the noise of this cell.
    pub null_ratio: Spread,
    /// What follows.
    pub verdict: Verdict,
}

impl Measurement {
    /// The metrics of `cell`, from its rounds; none without rounds.
    pub fn of(cell: &str, rounds: &[Round]) -> Vec<Self> {
        let Some(first) = rounds.first() else {
            return Vec::new();
        };
        first
            .kernel
            .iter()
            .filter_map(|&(metric, _)| Self::of_metric(cell, metric, rounds))
            .collect()
    }

    /// One line for people.
    pub fn told(&self) -> String {
        let (ratio, null) = (self.ratio, self.null_ratio);
        format!(
            "{}: {}, the kernel {}{}; {:.2} as good ({:.2}..{:.2}), the kernel against itself {:.2}..{:.2}",
            self.metric,
            figure(median(&self.sidewire)),
            figure(median(&self.kernel)),
            if self.more_is_better {
                ""
            } else {
                " (less is better)"
            },
            ratio.median,
            ratio.min,
            ratio.max,
            null.min,
            null.max
        )
    }

    fn of_metric(cell: &str, metric: Metric, rounds: &[Round]) -> Option<Self> {
        let values = |sample: fn(&Round) -> &Sample| -> Vec<f64> {
            let of = |round| sample(round).iter().find(|(m, _)| *m == metric);
            rounds.iter().filter_map(of).map(|&(_, v)| v).collect()
        };
        let kernel = values(|round| &round.kernel);
        let sidewire = values(|round| &round.sidewire);
        let null = values(|round| &round.null);
        let against_kernel = |ours: &[f64]| {
            let ratio = |(&ours, &theirs): (&f64, &f64)| {
                if metric.more_is_better() {
                    ours / theirs
                } else {
                    theirs / ours
                }
            };
            let ratios: Vec<f64> = ours.iter().zip(&kernel).map(ratio).collect();
            Spread::of(&ratios)
        };
        let ratio = against_kernel(&sidewire)?;
        let null_ratio = against_kernel(&null)?;
        Some(Measurement {
            cell: cell.to_owned(),
            metric: metric.name(),
            more_is_better: metric.more_is_better(),
            verdict: verdict(ratio, null_ratio),
            kernel,
            sidewire,
            null,
            ratio,
            null_ratio,
        })
    }
}

/// The middle of `values`, NaN without any.
pub(super) fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}

/// A value for people.
pub(super) fn figure(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn verdict(ratio: Spread, null: Spread) -> Verdict {
    if ratio.median > null.max {
        Verdict::Better
    } else if ratio.median < null.min {
        Verdict::Worse
    } else {
        Verdict::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(&[]), None);
        let spread = Spread::of(&[3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 10.0));
    }

    #[test]
    fn above_one_is_better_whatever_the_metric() {
        let round = |kernel, sidewire, null| Round {
            kernel: vec![(Metric::Throughput, kernel), (Metric::CpuPerGigabyte, 1.0)],
            sidewire: vec![
                (Metric::Throughput, sidewire),
                (Metric::CpuPerGigabyte, 0.5),
            ],
            null: vec![(Metric::Throughput, null), (Metric::CpuPerGigabyte, 0.4)],
        };
        let found = Measurement::of("c", &[round(10.0, 20.0, 11.0), round(10.0, 30.0, 9.0)]);
        assert_eq!(found.len(), 2);
        assert!((found[0].ratio.median - 2.5).abs() < 1e-9);
        assert_eq!(found[0].verdict, Verdict::Better);
        assert!((found[1].ratio.median - 2.0).abs() < 1e-9);
        assert_eq!(found[1].verdict, Verdict::Worse);
        let told = "CPU s/GB: 0.50, the kernel 1.00 (less is better); 2.00 as good (2.00..2.00), \
                    the kernel against itself 2.50..2.50";
        assert_eq!(found[1].told(), told);
        let told = "Gbit/s: 25.00, the kernel 10.00; 2.50 as good (2.00..3.00), the kernel against itself 0.90..1.10";
        assert_eq!(found[0].told(), told);
        assert!(Measurement::of("c", &[]).is_empty());
    }
}
