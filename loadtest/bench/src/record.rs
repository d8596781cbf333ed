//! The record of one run, as written to its JSON file.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{exposition::Histogram, quantiles::Quantiles};

/// All measurements of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// Name of the scenario.
    pub scenario: String,
    /// `closed` or `open, 7000/s`; other scenarios describe their layout.
    pub model: String,
    /// Arguments of the command line.
    pub command_line: Vec<String>,
    /// Beginning of the load.
    pub began: DateTime<Utc>,
    /// Figures in the order of the table.
    pub figures: Vec<Figure>,
    /// Number of responses by status code; 0 is a broken connection.
    pub statuses: BTreeMap<u16, u64>,
    /// Rules that had to hold.
    pub checks: Vec<Check>,
    /// The steps of one command, in order.
    pub steps: Vec<Step>,
    /// Histograms of gateways and workers.
    pub stages: Vec<Stage>,
    /// Commands accepted and settled in each second from the beginning of the load.
    pub seconds: Vec<Second>,
}

/// A number with name and unit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Name in the table.
    pub name: String,
    /// `/s`, `ms`, `µs`, `MiB`, or empty.
    pub unit: &'static str,
    /// Value in this unit.
    pub value: f64,
}

/// A rule with the number that it wants and the number that was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// The rule in words.
    pub rule: String,
    /// The number that keeps the rule.
    pub wanted: i64,
    /// The number that was counted.
    pub found: i64,
}

/// One step on the path of a command.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// Name of the step; sub-steps are indented by two spaces.
    pub name: &'static str,
    /// Mean in seconds, or in events where the metric counts events.
    pub mean: f64,
    /// Upper bound of the bucket that holds the median; none where the step is computed from others.
    pub p50_bound: Option<f64>,
    /// Upper bound of the bucket that holds the 99th percentile.
    pub p99_bound: Option<f64>,
    /// The metric, or the formula over metrics.
    pub from: String,
}

/// A histogram of one process during the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    /// Name of the process.
    pub process: String,
    /// Name of the metric.
    pub metric: String,
    /// Labels.
    pub labels: String,
    /// Number of observations.
    pub count: f64,
    /// Mean in seconds, or in events where the metric counts events.
    pub mean: f64,
    /// Upper bound of the bucket that holds the median.
    pub p50_bound: Option<f64>,
    /// Upper bound of the bucket that holds the 99th percentile.
    pub p99_bound: Option<f64>,
    /// Sum of the observations for each second of the run: 1 is one observation under way all the time.
    pub share: f64,
}

/// Counts of one second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Second {
    /// Keys that were answered 202 for the first time.
    pub accepted: u32,
    /// Operations that were committed.
    pub settled: u32,
}

impl Record {
    /// An empty record that begins now.
    pub(crate) fn of(scenario: &str, model: String) -> Self {
        Self {
            scenario: scenario.to_owned(),
            model,
            command_line: std::env::args().skip(1).collect(),
            began: Utc::now(),
            figures: Vec::new(),
            statuses: BTreeMap::new(),
            checks: Vec::new(),
            steps: Vec::new(),
            stages: Vec::new(),
            seconds: Vec::new(),
        }
    }

    /// Adds the quantiles of these samples, which are milliseconds.
    pub(crate) fn push_quantiles(&mut self, name: &str, samples: Vec<f64>) {
        let Quantiles { p50, p95, p99, max } = Quantiles::of(samples);
        for (quantile, value) in [("p50", p50), ("p95", p95), ("p99", p99), ("max", max)] {
            self.push(format!("{name}, {quantile}"), "ms", value);
        }
    }

    /// Adds a figure.
    pub(crate) fn push(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        self.figures.push(Figure { name: name.into(), unit, value });
    }

    /// Returns the value of the figure of this name.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// Stem of the names of its files: time and scenario.
    pub(crate) fn file_stem(&self) -> String {
        format!("{}-{}", self.began.format("%Y%m%dT%H%M%S"), self.scenario)
    }

    /// Returns true where every rule holds.
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(Check::holds)
    }
}

impl Check {
    /// A rule that holds where both numbers are equal.
    pub(crate) fn new(rule: &str, wanted: i64, found: i64) -> Self {
        Self { rule: rule.to_owned(), wanted, found }
    }

    /// Returns true where the rule holds.
    pub(crate) fn holds(&self) -> bool {
        self.wanted == self.found
    }
}

impl Stage {
    /// The summary of a histogram of a run that lasted this many seconds.
    pub(crate) fn of(histogram: &Histogram, seconds: f64) -> Self {
        Self {
            process: histogram.process.clone(),
            metric: histogram.metric.clone(),
            labels: histogram.labels.clone(),
            count: histogram.count,
            mean: histogram.mean(),
            p50_bound: histogram.quantile_bound(0.5),
            p99_bound: histogram.quantile_bound(0.99),
            share: histogram.sum / seconds,
        }
    }
}
