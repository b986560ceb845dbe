//! All ratios of a session on one page, as SVG: for each metric of each cell the
//! kernel against itself as a grey band, Sidewire's spread as a line on it, its
//! median as a dot. Right of the middle is better than the kernel.

use std::fmt::Write;

use super::measurement::{Measurement, Verdict};

const LABELS: f64 = 470.0;
const PLOT: f64 = 520.0;
const FIGURES: f64 = 70.0;
const ROW: f64 = 18.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 34.0;
/// Ratios at the left and right edge of the plot; what lies outside is drawn on
/// the edge.
const EDGES: (f64, f64) = (0.25, 4.0);
const GRID: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// The chart of `measurements`.
pub fn svg(title: &str, measurements: &[Measurement]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred rows")]
    let rows = measurements.len() as f64;
    let (width, height) = (LABELS + PLOT + FIGURES, TOP + rows * ROW + BOTTOM);
    let mut page = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut page, 10.0, 20.0, "start", 15, title);
    let legend = "grey: the kernel against itself; line: min to max; dot: median; \
                  right of 1 is better than the kernel";
    text(&mut page, 10.0, 38.0, "start", 11, legend);
    for ratio in GRID {
        let x = x_of(ratio);
        let weight = if (ratio - 1.0).abs() < f64::EPSILON {
            1.5
        } else {
            0.5
        };
        line(
            &mut page,
            (x, TOP - 6.0),
            (x, height - BOTTOM + 6.0),
            "#999",
            weight,
        );
        text(
            &mut page,
            x,
            height - BOTTOM + 20.0,
            "middle",
            11,
            &ratio.to_string(),
        );
    }
    let mut y = TOP + ROW / 2.0;
    for m in measurements {
        row(&mut page, y, m);
        y += ROW;
    }
    page.push_str("</svg>\n");
    page
}

fn row(page: &mut String, y: f64, m: &Measurement) {
    let label = format!("{} · {}", m.cell, m.metric);
    text(page, LABELS - 8.0, y + 4.0, "end", 11, &label);
    let (from, to) = (x_of(m.null_ratio.min), x_of(m.null_ratio.max));
    let _ = writeln!(
        page,
        "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#ddd\"/>",
        y - 6.0,
        (to - from).max(1.0),
        12.0
    );
    let colour = match m.verdict {
        Verdict::Better => "#1a7f37",
        Verdict::Same => "#57606a",
        Verdict::Worse => "#cf222e",
    };
    line(
        page,
        (x_of(m.ratio.min), y),
        (x_of(m.ratio.max), y),
        colour,
        2.0,
    );
    let _ = writeln!(
        page,
        "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>",
        x_of(m.ratio.median)
    );
    let figure = format!("{:.2}", m.ratio.median);
    text(page, LABELS + PLOT + 12.0, y + 4.0, "start", 11, &figure);
}

fn x_of(ratio: f64) -> f64 {
    let (low, high) = EDGES;
    let position = (ratio.clamp(low, high) / low).ln() / (high / low).ln();
    LABELS + position * PLOT
}

fn line(page: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, weight: f64) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" \
         stroke-width=\"{weight}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(page: &mut String, x: f64, y: f64, anchor: &str, size: u32, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        page,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::super::measurement::{Measurement, Round};
    use super::*;
    use crate::bench::cell::Metric;

    #[test]
    fn one_row_per_measurement() {
        let sample = |v| vec![(Metric::Throughput, v)];
        let round = Round {
            kernel: sample(1.0),
            sidewire: sample(9.0),
            null: sample(1.1),
        };
        let page = svg("a < b", &Measurement::of("cell", &[round]));
        assert!(page.contains("a &lt; b"));
        assert!(page.contains("cell · Gbit/s"));
        assert_eq!(page.matches("<circle").count(), 1);
        assert!((x_of(9.0) - (LABELS + PLOT)).abs() < 1e-9);
        assert!((x_of(1.0) - (LABELS + PLOT / 2.0)).abs() < 1e-9);
    }
}
