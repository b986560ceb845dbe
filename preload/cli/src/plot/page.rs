//! The page: a row for each connection, with three charts.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::trace::{Connection, Flow};

/// Size of a chart, in pixels of the page.
const WIDTH: u32 = 560;
const HEIGHT: u32 = 340;
/// Charts of a connection.
const CHARTS: u32 = 3;
/// Points of a curve, at most: more cannot be told apart.
const POINTS: usize = 1500;
/// Retransmissions that are marked, at most.
const MARKS: usize = 2000;
/// Columns of the throughput chart.
const COLUMNS: usize = 100;

pub(super) const SENT: RGBColor = RGBColor(31, 119, 180);
pub(super) const AGAIN: RGBColor = RGBColor(214, 39, 40);
pub(super) const ACKED: RGBColor = RGBColor(44, 160, 44);
pub(super) const WINDOW: RGBColor = RGBColor(150, 150, 150);
pub(super) const CWND: RGBColor = RGBColor(255, 127, 14);
pub(super) const ROUND_TRIP: RGBColor = RGBColor(148, 103, 189);
pub(super) const RATE: RGBColor = RGBColor(23, 130, 140);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), String>;

fn told(e: impl std::fmt::Display) -> String {
    format!("drawing: {e}")
}

/// The page as SVG.
///
/// # Errors
/// What keeps it from being drawn, in words.
pub(super) fn svg(connections: &[Connection]) -> Result<String, String> {
    let mut text = String::new();
    let rows = connections.len() as u32;
    {
        let size = (WIDTH * CHARTS, HEIGHT * rows);
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(told)?;
        let areas = root.split_evenly((connections.len(), CHARTS as usize));
        for (connection, areas) in connections.iter().zip(areas.chunks(CHARTS as usize)) {
            if let [sequence, window, rate] = areas {
                time_sequence(sequence, connection)?;
                windows(window, connection)?;
                throughput(rate, connection)?;
            }
        }
        root.present().map_err(told)?;
    }
    Ok(text)
}

/// Thins a curve out: of each stretch of time the last point stays.
fn thinned<T: Copy>(points: &[T], at: impl Fn(&T) -> f64, lasts: f64) -> Vec<T> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a column"
    )]
    let column = |p: &T| (at(p) / lasts * POINTS as f64) as usize;
    let mut kept: Vec<T> = Vec::with_capacity(POINTS);
    for p in points {
        match kept.last_mut() {
            Some(last) if column(last) == column(p) => *last = *p,
            _ => kept.push(*p),
        }
    }
    kept
}

/// A unit of bytes that suits the largest value.
fn unit(largest: u64) -> (f64, &'static str) {
    match largest {
        0..10_000 => (1.0, "bytes"),
        10_000..10_000_000 => (1e3, "kB"),
        _ => (1e6, "MB"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes to draw")]
fn scaled(bytes: u64, unit: f64) -> f64 {
    bytes as f64 / unit
}

macro_rules! chart {
    ($area:expr, $title:expr, $x:expr, $y:expr, $unit:expr) => {{
        let mut chart = ChartBuilder::on($area)
            .caption($title, ("sans-serif", 14))
            .margin(8)
            .right_y_label_area_size(44)
            .x_label_area_size(32)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..$x, 0.0..$y)
            .map_err(told)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("seconds")
            .y_desc($unit)
            .draw()
            .map_err(told)?;
        chart
    }};
}

macro_rules! line {
    ($chart:expr, $draw:ident, $points:expr, $color:expr, $label:expr) => {
        $chart
            .$draw(LineSeries::new($points, $color.stroke_width(2)))
            .map_err(told)?
            .label($label)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], $color));
    };
}

macro_rules! legend {
    ($chart:expr) => {
        $chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(WINDOW)
            .draw()
            .map_err(told)?
    };
}

/// The end of the x axis.
fn end(c: &Connection) -> f64 {
    c.lasts.max(1e-6)
}

/// The window's edge, so far as it lies near what was sent: a large window would press the curves flat.
fn near_edge(flow: &Flow) -> u64 {
    flow.bytes() + flow.bytes() / 8
}

fn time_sequence(area: &Area<'_>, c: &Connection) -> Drawn {
    let (flow, word) = c.main_flow();
    let (unit, name) = unit(flow.bytes());
    let title = format!("{} – {}: {word}", c.local, c.remote);
    let top = near_edge(flow).max(1);
    let mut chart = chart!(area, title, end(c), scaled(top, unit), name);
    let acks = thinned(&flow.acks, |a| a.at, end(c));
    let edges = acks.iter().map(|a| (a.at, scaled(a.edge.min(top), unit)));
    line!(chart, draw_series, edges, WINDOW, "window");
    let data = thinned(&flow.data, |d| d.at, end(c));
    let sent = data.iter().filter(|d| !d.again);
    let sent = sent.map(|d| (d.at, scaled(d.to, unit)));
    line!(chart, draw_series, sent, SENT, word);
    let acked = acks.iter().map(|a| (a.at, scaled(a.upto, unit)));
    line!(chart, draw_series, acked, ACKED, "acknowledged");
    let again: Vec<_> = flow.data.iter().filter(|d| d.again).take(MARKS).collect();
    if !again.is_empty() {
        let marks = again
            .iter()
            .map(|d| Circle::new((d.at, scaled(d.from, unit)), 2, AGAIN.filled()));
        chart
            .draw_series(marks)
            .map_err(told)?
            .label("retransmitted")
            .legend(|(x, y)| Circle::new((x + 8, y), 3, AGAIN.filled()));
    }
    legend!(chart);
    Ok(())
}

fn windows(area: &Area<'_>, c: &Connection) -> Drawn {
    let (flow, _) = c.main_flow();
    let largest = |points: &[(f64, u64)]| points.iter().map(|p| p.1).max().unwrap_or(0);
    let top = largest(&c.cwnd).max(largest(&flow.in_flight)).max(1);
    let (unit, name) = unit(top);
    let trips = if c.srtt.is_empty() {
        &flow.round_trips
    } else {
        &c.srtt
    };
    let longest = trips.iter().map(|p| p.1).fold(1e-3, f64::max);
    let title = "congestion window, in flight (left); round trip (right)";
    let chart = chart!(area, title, end(c), scaled(top, unit) * 1.1, name);
    let mut chart = chart.set_secondary_coord(0.0..end(c), 0.0..longest * 1.2);
    chart
        .configure_secondary_axes()
        .y_desc("ms")
        .draw()
        .map_err(told)?;
    let in_flight = thinned(&flow.in_flight, |p| p.0, end(c));
    let in_flight = in_flight.iter().map(|p| (p.0, scaled(p.1, unit)));
    line!(chart, draw_series, in_flight, SENT, "in flight");
    if !c.cwnd.is_empty() {
        let cwnd = thinned(&c.cwnd, |p| p.0, end(c));
        let cwnd = cwnd.iter().map(|p| (p.0, scaled(p.1, unit)));
        line!(chart, draw_series, cwnd, CWND, "cwnd");
    }
    let trips = thinned(trips, |p| p.0, end(c));
    line!(
        chart,
        draw_secondary_series,
        trips,
        ROUND_TRIP,
        "round trip"
    );
    legend!(chart);
    Ok(())
}

fn throughput(area: &Area<'_>, c: &Connection) -> Drawn {
    let width = end(c) / COLUMNS as f64;
    let rates = |flow: &Flow| {
        let mut columns = [0u64; COLUMNS];
        for d in flow.data.iter().filter(|d| !d.again) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a column"
            )]
            let column = ((d.at / width) as usize).min(COLUMNS - 1);
            columns[column] += d.to - d.from;
        }
        columns.map(|bytes| scaled(bytes * 8, 1e6) / width)
    };
    let (sent, received) = (rates(&c.out), rates(&c.back));
    let top = sent.iter().chain(&received).copied().fold(1e-3, f64::max);
    let mut chart = chart!(area, "throughput", end(c), top * 1.1, "Mbit/s");
    let curve = |rates: [f64; COLUMNS]| {
        let points = rates.into_iter().enumerate();
        points.map(move |(i, rate)| ((i as f64 + 0.5) * width, rate))
    };
    line!(chart, draw_series, curve(sent), RATE, "sent");
    line!(chart, draw_series, curve(received), CWND, "received");
    legend!(chart);
    Ok(())
}
