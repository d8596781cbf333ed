//! One run, as it is written to its JSON file.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{breakdown::Step, exposition::Histogram, quantiles::Quantiles, scenario::Check};

/// Everything that was measured in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// What was posted.
    pub scenario: String,
    /// `closed`, or `open, 7000/s`.
    pub model: String,
    /// Connections, processes and settings.
    pub command_line: Vec<String>,
    /// When the load began.
    pub began: DateTime<Utc>,
    /// In the order of the table.
    pub figures: Vec<Figure>,
    /// Answers by status; 0 is a broken connection.
    pub statuses: BTreeMap<u16, u64>,
    /// What had to hold.
    pub checks: Vec<Check>,
    /// The way of one command, step by step.
    pub steps: Vec<Step>,
    /// From the programs' metrics.
    pub stages: Vec<Stage>,
    /// Second by second from the load's beginning.
    pub seconds: Vec<Second>,
}

/// A number with its name and unit.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// As the table shows it.
    pub name: String,
    /// `/s`, `ms`, `µs`, `MiB` or nothing.
    pub unit: &'static str,
    /// The number.
    pub value: f64,
}

/// How often and how long something took, by the programs' own account.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// Who took it.
    pub process: String,
    /// The metric.
    pub metric: String,
    /// Its labels.
    pub labels: String,
    /// How often.
    pub count: f64,
    /// Seconds, or events.
    pub mean: f64,
    /// The upper bound of the median's bucket.
    pub p50_bound: Option<f64>,
    /// The upper bound of the 99th percentile's bucket.
    pub p99_bound: Option<f64>,
    /// All of it together, per second of the run: 1 is one thing all the time.
    pub share: f64,
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Second {
    /// Keys answered 202 for the first time.
    pub accepted: u32,
    /// Operations committed.
    pub settled: u32,
}

impl Record {
    /// One of a scenario that is not a run of commands alone, to be filled.
    pub fn of(scenario: &str, model: String) -> Self {
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

    /// Adds the quantiles of these samples, milliseconds.
    pub fn push_quantiles(&mut self, name: &str, samples: Vec<f64>) {
        let Quantiles { p50, p95, p99, max } = Quantiles::of(samples);
        for (quantile, value) in [("p50", p50), ("p95", p95), ("p99", p99), ("max", max)] {
            self.push(format!("{name}, {quantile}"), "ms", value);
        }
    }

    /// Adds a figure.
    pub fn push(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        self.figures.push(Figure { name: name.into(), unit, value });
    }

    /// A figure by its name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// What its files are called: when and what.
    pub fn file_stem(&self) -> String {
        format!("{}-{}", self.began.format("%Y%m%dT%H%M%S"), self.scenario)
    }

    /// Whether every rule holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(Check::holds)
    }
}

impl Stage {
    /// Of a histogram over this many seconds.
    pub fn of(histogram: &Histogram, seconds: f64) -> Self {
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
