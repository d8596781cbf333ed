//! The table on stdout: medians and spread of the runs, statuses, rules, and the time of one command by step.

use std::fmt::Write as _;

use crate::{
    quantiles,
    record::{Record, Stage, Step},
};

/// Renders all runs of one scenario.
pub(crate) fn render(records: &[Record]) -> String {
    let mut text = String::new();
    let Some(first) = records.first() else { return text };
    let runs =
        if records.len() == 1 { "one run".to_owned() } else { format!("median and spread of {}", records.len()) };
    let _ = writeln!(text, "\n{} ({}; bench {}), {runs}", first.scenario, first.model, first.command_line.join(" "));
    for figure in &first.figures {
        let mut values: Vec<f64> = records.iter().filter_map(|record| record.figure(&figure.name)).collect();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else { continue };
        let median = quantiles::at(&values, 0.5);
        let spread =
            if values.len() > 1 { format!("{:>12} – {}", number(*least), number(*most)) } else { String::new() };
        let _ = writeln!(text, "  {:<36} {:>12} {:<4} {spread}", figure.name, number(median), figure.unit);
    }
    for (index, record) in records.iter().enumerate() {
        let statuses: Vec<String> = record.statuses.iter().map(|(status, n)| format!("{status}: {n}")).collect();
        let verdict = if record.holds() { "all hold" } else { "BROKEN" };
        let _ = writeln!(
            text,
            "  run {}: answers {}; {} checks: {verdict}",
            index + 1,
            statuses.join(", "),
            record.checks.len()
        );
        for check in record.checks.iter().filter(|check| !check.holds()) {
            let _ = writeln!(text, "    BROKEN  {}: {} wanted, {} found", check.rule, check.wanted, check.found);
        }
    }
    text + &steps(&first.steps) + &stages(first)
}

/// Renders the steps of one command.
fn steps(steps: &[Step]) -> String {
    let mut text = String::new();
    if !steps.is_empty() {
        text += "\n  where the time of one command goes (first run; means, and bounds of the quantiles' buckets)\n";
        let _ = writeln!(text, "  {:<46} {:>10} {:>10} {:>10}  from", "", "mean", "p50 ≤", "p99 ≤");
    }
    for step in steps {
        let events = step.from.ends_with("_events");
        let unit = |value: f64| if events { format!("{value:.1}") } else { format!("{:.2} ms", value * 1e3) };
        let bound = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), unit);
        let (mean, p50, p99) = (unit(step.mean), bound(step.p50_bound), bound(step.p99_bound));
        let _ = writeln!(text, "  {:<46} {mean:>10} {p50:>10} {p99:>10}  {}", step.name, step.from);
    }
    text
}

/// Renders all histograms of one run.
fn stages(record: &Record) -> String {
    if record.stages.is_empty() {
        return String::new();
    }
    let mut text =
        String::from("\n  all timings (first run; `at once`: how many of them ran at the same time, on average)\n");
    let _ = writeln!(text, "  {:<78} {:>9} {:>10} {:>9} {:>9} {:>9}", "", "times", "mean", "p50 ≤", "p99 ≤", "at once");
    for stage in &record.stages {
        let name = format!("{:<10} {}{}", stage.process, stage.metric, braced(&stage.labels));
        let unit = |value: f64| if timed(stage) { format!("{:.2} ms", value * 1e3) } else { format!("{value:.1}") };
        let bound = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), unit);
        let share = if timed(stage) { format!("{:.2}", stage.share) } else { String::new() };
        let _ = writeln!(
            text,
            "  {name:<78} {:>9.0} {:>10} {:>9} {:>9} {share:>9}",
            stage.count,
            unit(stage.mean),
            bound(stage.p50_bound),
            bound(stage.p99_bound),
        );
    }
    text
}

fn timed(stage: &Stage) -> bool {
    stage.metric.ends_with("_seconds")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.replace('"', "")) }
}

/// Formats a number with about three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
