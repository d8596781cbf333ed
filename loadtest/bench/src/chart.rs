//! The chart of a scenario, one SVG: accepted and settled commands in each second of the first run, and the latency
//! quantiles of all runs.

use std::path::Path;

use anyhow::anyhow;
use plotters::{coord::Shift, prelude::*};

use crate::record::Record;

const SIZE: (u32, u32) = (960, 760);
const ACCEPTED: RGBColor = RGBColor(31, 119, 180);
const SETTLED: RGBColor = RGBColor(214, 92, 32);
/// Factor on the highest latency, so that the legend is drawn above the dots.
const LEGEND_ROOM: f64 = 12.0;
const LABEL_SIDE: f64 = 0.03;
const QUANTILES: [&str; 4] = ["p50", "p95", "p99", "max"];

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the runs of one scenario.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn draw(records: &[Record], path: &Path) -> anyhow::Result<()> {
    let Some(first) = records.first() else { return Ok(()) };
    let latencies_known = first.figure("accept, p50").is_some();
    let size = if latencies_known { SIZE } else { (SIZE.0, SIZE.1 / 2) };
    let root = SVGBackend::new(path, size).into_drawing_area();
    let drawn = (|| {
        root.fill(&WHITE)?;
        let root = root.titled(&format!("{}, {}", first.scenario, first.model), ("sans-serif", 22))?;
        let (upper, lower) = root.split_vertically(SIZE.1 / 2);
        throughput(&upper, first)?;
        if latencies_known {
            latencies(&lower, records)?;
        }
        root.present()
    })();
    drawn.map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn throughput(area: &Canvas<'_>, record: &Record) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let most = record.seconds.iter().map(|second| second.accepted.max(second.settled)).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .caption("commands a second", ("sans-serif", 16))
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0..record.seconds.len().saturating_sub(1).max(1), 0..most + most / 3 + 1)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("second of the load").draw()?;
    for (name, colour, of) in [
        ("accepted", ACCEPTED, (|second| second.accepted) as fn(&crate::record::Second) -> u32),
        ("settled (committed)", SETTLED, |second| second.settled),
    ] {
        // A pool that runs without gateways accepts nothing.
        if record.seconds.iter().all(|counts| of(counts) == 0) {
            continue;
        }
        let points = record.seconds.iter().enumerate().map(|(second, counts)| (second, of(counts)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}

/// One dot for each run and quantile.
fn latencies(area: &Canvas<'_>, records: &[Record]) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let value = |record: &Record, name: &str, quantile: &str| {
        record.figure(&format!("{name}, {quantile}")).unwrap_or_default().max(0.1)
    };
    let names = [("accept", ACCEPTED), ("accept → settled", SETTLED)];
    let all = records.iter().flat_map(|r| names.iter().flat_map(move |(name, _)| QUANTILES.map(|q| value(r, name, q))));
    let (least, most) = all.fold((f64::MAX, 1.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .caption("latency, ms (logarithmic; a dot each run)", ("sans-serif", 16))
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.5..3.5, (least / 2.0..most * LEGEND_ROOM).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(QUANTILES.len())
        .x_label_formatter(&|at: &f64| {
            QUANTILES.get(at.round().max(0.0) as usize).copied().unwrap_or_default().to_owned()
        })
        .y_label_formatter(&|ms| if *ms < 1.0 { format!("{ms:.1}") } else { format!("{ms:.0}") })
        .draw()?;
    for (side, (name, colour)) in [-0.08, 0.08].into_iter().zip(names) {
        let dots = records.iter().flat_map(|record| {
            QUANTILES.iter().enumerate().map(move |(at, q)| (at as f64 + side, value(record, name, q)))
        });
        chart
            .draw_series(dots.clone().map(|at| Circle::new(at, 4, colour.filled())))?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 10, y), 4, colour.filled()));
        // Values of the first run as text.
        let figures = dots.take(QUANTILES.len()).map(|(x, ms)| {
            Text::new(format!("{ms:.1}"), (x + LABEL_SIDE, ms), ("sans-serif", 13).into_font().color(&colour))
        });
        chart.draw_series(figures)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}
