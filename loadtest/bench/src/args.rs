//! The command line: which scenarios, how hard, how often, and with what processes and settings.

use std::{path::PathBuf, time::Duration};

/// Measures the running instance's programs; see `loadtest/bench/run`, which prepares everything that this needs.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "bench")]
pub struct Args {
    /// What to measure, one after the other; none: payments.
    #[arg(value_enum)]
    pub scenarios: Vec<ScenarioName>,

    /// Keep-alive connections of the driver.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=19_000))]
    pub connections: u16,

    /// The open model: requests that arrive a second, whatever the answers do, or so much of the closed maximum, such as
    /// `70%`, which is then measured first. Without it the model is closed: each connection sends its next request when
    /// it has its answer.
    #[arg(long = "rate", value_name = "PER_SECOND|PERCENT%", value_parser = rate)]
    pub rate_wanted: Option<Rate>,

    /// What that comes to, a second; none: the closed model.
    #[arg(skip)]
    pub rate: Option<u32>,

    /// The closed maximum, where it is known already.
    #[arg(long, value_name = "PER_SECOND", requires = "rate_wanted", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub of: Option<u32>,

    /// `approvals`, `pdf` and `mail`: how many.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub items: u32,

    /// How long the drain may take, seconds; what is left then breaks the run.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    pub drain_limit: u16,

    /// Profiles each of our processes with `perf` for so many seconds of each run's load; it costs them a little.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    pub perf: Option<u16>,

    /// How long load is put on, seconds, after the warm-up.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    pub duration: u16,

    /// How long the warm-up lasts, seconds. It is drained before anything is counted.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=600))]
    pub warm_up: u16,

    /// Runs of each scenario; the table shows medians and spread.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub repeats: u16,

    /// Of a hundred requests, how many are sent a second time under the same key, later.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=50))]
    pub duplicates_percent: u8,

    /// Commands made ready for each second of load; the load ends early where they run out.
    #[arg(long, default_value_t = 14_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub ready_per_second: u32,

    /// Registrations: seats of each of the twelve batches, and as many places on its waitlist, so that they run out.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    pub seats: Option<i32>,

    /// `stampede` and `waiters`: clients, a connection each.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=38_000))]
    pub clients: u32,

    /// For tries: every size of `stampede`, `waiters`, `growth` and `fairness` times this.
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    pub scale: f64,

    /// Threads of the driver.
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

    /// A setting of gateways and workers, such as `REGISTRAR__DATABASE__POOL_MAX=4`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub env: Vec<(String, String)>,

    /// The same for the gateways alone.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub gateway_env: Vec<(String, String)>,

    /// The same for the workers alone, such as `REGISTRAR__RUNTIME__PREFETCH=128`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub workers_env: Vec<(String, String)>,

    /// Go on with the data that is there, instead of an empty database for each scenario.
    #[arg(long)]
    pub keep_data: bool,

    /// Where the results go.
    #[arg(long, default_value = "target/bench")]
    pub results: PathBuf,
}

/// The names of the scenarios; each is a file of `scenario/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ScenarioName {
    /// `POST /v1/payments`, a student and a held seat each.
    Payments,
    /// `POST /v1/registrations` on twelve batches, by students who are signed in.
    RegistrationsKnown,
    /// The same by visitors with new addresses.
    RegistrationsNew,
    /// Payments one after the other on one connection, each with `Prefer: wait=10`.
    Unloaded,
    /// Two accountants approve submitted payments, 500 a request, until the last invoice is issued.
    Approvals,
    /// Issued invoices become PDFs, with the pool `documents` alone on the machine.
    Pdf,
    /// Queued mails go to Postfix's smtp-sink, with the pool `email` alone on the machine.
    Mail,
    /// 20,000 connections, then a registration each within two seconds, on one batch.
    Stampede,
    /// 20,000 clients that listen or poll, until all is settled.
    Waiters,
    /// Payments on an empty system and on ten million operations with a million events waiting; pruning; the plans.
    Growth,
    /// The plan of every list endpoint, on the data that is there.
    Plans,
    /// Registrations at a steady rate beside decisions in bulk, a slow mail server, and none.
    Fairness,
    /// Payments with 1, 2 and 4 worker processes and 1 and 2 gateways.
    ScaleOut,
}

/// How hard the open model drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Requests a second.
    PerSecond(u32),
    /// Of what the closed model reaches end to end.
    Percent(u8),
}

impl Args {
    /// How long load is put on.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.duration.into())
    }

    /// Clients of `stampede` and `waiters`, an even number at least four.
    pub fn clients(&self) -> usize {
        self.scaled(self.clients as usize).max(4).next_multiple_of(2)
    }

    /// A size, to scale; at least 1.
    pub fn scaled(&self, size: usize) -> usize {
        ((size as f64 * self.scale) as usize).max(1)
    }

    /// How long the drain may take.
    pub fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain_limit.into())
    }

    /// How long the warm-up lasts.
    pub fn warm_up(&self) -> Duration {
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
