//! Dispatch of the scenarios that start processes and clients themselves, and of the helper processes that they start:
//! this program with another first argument.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};

use super::{crowd, fairness, growth, plans, scale_out, stampede, waiters};
use crate::{
    args::{Args, ScenarioName},
    chart,
    config::Installation,
    series,
    services::Services,
    table,
};

/// First arguments that start this program as a helper process.
const DRIVE: &str = "drive";
const SLOW_SMTP: &str = "slow-smtp";

/// Runs the helper process that the command line names; none where it names none.
///
/// # Errors
/// Where the helper process fails.
pub(crate) async fn run_helper_process() -> Option<anyhow::Result<()>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next()?.as_str() {
        DRIVE => Some(crowd::drive().await),
        SLOW_SMTP => Some(slow_smtp(arguments.next(), arguments.next()).await),
        _ => None,
    }
}

/// Runs one scenario and prints, draws and writes its records; returns how many runs broke a rule.
///
/// # Errors
/// Where a process or a server fails, or effects are missing.
pub(crate) async fn run_scenario(
    name: ScenarioName,
    args: &Args,
    installation: &Installation,
) -> anyhow::Result<usize> {
    let records = match name {
        ScenarioName::Stampede => stampede::run(args, installation).await?,
        ScenarioName::Waiters => waiters::run(args, installation).await?,
        ScenarioName::Growth => growth::run(args, installation).await?,
        ScenarioName::Plans => vec![plans::check(installation, &Services::connect(installation).await?).await?],
        ScenarioName::Fairness => fairness::run(args, installation).await?,
        ScenarioName::ScaleOut => scale_out::run(args, installation).await?,
        other => bail!("`{other:?}` is one kind of command under load"),
    };
    for runs in records.chunk_by(|a, b| (&a.scenario, &a.model) == (&b.scenario, &b.model)) {
        for (index, record) in (1..).zip(runs) {
            series::write(args, record, index)?;
        }
        print!("{}", table::render(runs));
        if let Some(first) = runs.first().filter(|first| !first.seconds.is_empty()) {
            chart::draw(runs, &args.results.join(format!("{}.svg", first.file_stem())))?;
        }
    }
    Ok(records.iter().filter(|record| !record.holds()).count())
}

async fn slow_smtp(listen: Option<String>, delay_ms: Option<String>) -> anyhow::Result<()> {
    let listen: SocketAddr = listen.context("slow-smtp ADDRESS DELAY_MS")?.parse()?;
    let delay_ms = delay_ms.context("slow-smtp ADDRESS DELAY_MS")?.parse()?;
    fairness::serve_smtp(listen, Duration::from_millis(delay_ms)).await
}
