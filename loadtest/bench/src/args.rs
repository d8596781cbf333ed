//! The command line: scenarios, load, number of runs, processes and settings.

use std::{path::PathBuf, time::Duration};

/// Measures gateways and workers that it starts itself; `loadtest/bench/run` prepares the services and the builds.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "bench")]
pub(crate) struct Args {
    /// Scenarios to measure, one after the other [default: payments].
    #[arg(value_enum)]
    pub scenarios: Vec<ScenarioName>,

    /// Keep-alive connections of the driver.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=19_000))]
    pub connections: u16,

    /// Open model: requests arrive at this rate, whether or not the earlier ones are answered. A percentage, such as
    /// `70%`, is taken of the rate that the closed model settles, which is then measured first. Without this option
    /// the model is closed: each connection sends its next request when the last is answered.
    #[arg(long = "rate", value_name = "PER_SECOND|PERCENT%", value_parser = rate)]
    pub rate_wanted: Option<Rate>,

    /// `rate_wanted` in requests a second, computed by `series`; none in the closed model.
    #[arg(skip)]
    pub rate: Option<u32>,

    /// Settled commands a second of the closed model, where they are known, so that `--rate 70%` need not measure
    /// them.
    #[arg(long, value_name = "PER_SECOND", requires = "rate_wanted", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub of: Option<u32>,

    /// `approvals`, `pdf` and `mail`: number of items.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub items: u32,

    /// Longest drain, seconds. The run is broken if effects are missing after it.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    pub drain_limit: u16,

    /// Profiles gateways, workers and the driver with `perf` for this many seconds of each run, which costs some CPU.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    pub perf: Option<u16>,

    /// Length of the measured load, seconds, after the warm-up.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    pub duration: u16,

    /// Length of the warm-up, seconds. It is drained before the measurement begins.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=600))]
    pub warm_up: u16,

    /// Runs of each scenario; the table shows medians and spread.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub repeats: u16,

    /// Requests that are sent again later under the same key, for each 100 requests.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=50))]
    pub duplicates_percent: u8,

    /// Commands rendered for each second of load; the load ends early when they run out.
    #[arg(long, default_value_t = 14_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub ready_per_second: u32,

    /// Registrations: seats and waitlist places of each of the twelve course batches, so that both run out.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    pub seats: Option<i32>,

    /// `stampede` and `waiters`: number of clients, each with its own connection.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=38_000))]
    pub clients: u32,

    /// Factor on all sizes of `stampede`, `waiters`, `growth` and `fairness`, for quick trials.
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    pub scale: f64,

    /// Threads of the load driver.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub driver_threads: u8,

    /// Gateway processes; the connections are spread over them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub gateways: u8,

    /// The pools of a worker process, with commas; once a process. `email` and `documents` stay off unless named;
    /// `documents` is a process of its own.
    #[arg(long, value_name = "POOLS", default_values_t = [
        "registrations".to_owned(), "payments,invoicing,notifications,dead-letters,clock".to_owned()])]
    pub workers: Vec<String>,

    /// Setting of gateways and workers, such as `REGISTRAR__DATABASE__POOL_MAX=4`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub env: Vec<(String, String)>,

    /// Setting of the gateways only; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub gateway_env: Vec<(String, String)>,

    /// Setting of the workers only, such as `REGISTRAR__RUNTIME__PREFETCH=128`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub workers_env: Vec<(String, String)>,

    /// Keeps the data that is there instead of creating an empty database for each scenario.
    #[arg(long)]
    pub keep_data: bool,

    /// Folder for the results.
    #[arg(long, default_value = "target/bench")]
    pub results: PathBuf,
}

/// Names of the scenarios; each is a file of `scenarios/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ScenarioName {
    /// `POST /v1/payments`, each for one student and their held seat.
    Payments,
    /// `POST /v1/registrations` on twelve course batches by signed-in students.
    RegistrationsKnown,
    /// `POST /v1/registrations` on twelve course batches by visitors with new addresses.
    RegistrationsNew,
    /// Payments one at a time on one connection, each with `Prefer: wait=10`.
    Unloaded,
    /// Two accountants approve submitted payments, 500 a request, until the last invoice is issued.
    Approvals,
    /// Rendering of issued invoices as PDFs, with no pool but `documents` running.
    Pdf,
    /// Sending of queued mails to Postfix's smtp-sink, with no pool but `email` running.
    Mail,
    /// 20,000 connections, then one registration on each within two seconds, all for one course batch.
    Stampede,
    /// 20,000 clients that wait for results, by event stream or long poll.
    Waiters,
    /// Payments on an empty and on a grown system (ten million operations, a million queued events), pruning, query
    /// plans.
    Growth,
    /// Query plans of every list endpoint, on the data that is there.
    Plans,
    /// Latency of registrations at a steady rate beside bulk decisions, a slow mail server and a mail outage.
    Fairness,
    /// Payments with 1, 2 and 4 worker processes, 1 and 2 gateways, and a partitioned queue.
    ScaleOut,
}

/// Arrival rate of the open model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Requests a second.
    PerSecond(u32),
    /// Percentage of the rate that the closed model settles end to end.
    Percent(u8),
}

impl Args {
    /// Length of the measured load.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.duration.into())
    }

    /// Number of clients of `stampede` and `waiters`: even, at least four.
    pub(crate) fn clients(&self) -> usize {
        self.scaled(self.clients as usize).max(4).next_multiple_of(2)
    }

    /// A size times `--scale`, at least 1.
    pub(crate) fn scaled(&self, size: usize) -> usize {
        ((size as f64 * self.scale) as usize).max(1)
    }

    /// Longest drain.
    pub(crate) fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain_limit.into())
    }

    /// Length of the warm-up.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up.into())
    }
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0).ok_or_else(|| "above 0 and at most 1".to_owned())
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is wanted")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn rate(text: &str) -> Result<Rate, String> {
    let rate = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|percent| (1..=200).contains(percent)).map(Rate::Percent),
        None => text.parse().ok().filter(|rate| (1..=200_000).contains(rate)).map(Rate::PerSecond),
    };
    rate.ok_or_else(|| "1 to 200000 a second, or 1% to 200%, is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_or_a_share() {
        assert_eq!((rate("7000"), rate("70%")), (Ok(Rate::PerSecond(7_000)), Ok(Rate::Percent(70))));
        assert!(["", "0", "0%", "%", "201%", "many"].iter().all(|text| rate(text).is_err()));
    }
}
