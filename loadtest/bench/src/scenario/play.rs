//! Scenarios that are more than one kind of command under load: each lays out its processes and its clients itself. And
//! the helpers that such a scenario starts as processes of their own, which are this program too.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};

use super::{crowd, fairness, growth, plans, scale_out, stampede, waiters};
use crate::{
    args::{Args, ScenarioName},
    config::Installation,
    picture, series, table,
    world::World,
};

/// What the first argument may be besides a scenario: what this process was started for by another one of this program.
const DRIVE: &str = "drive";
const SLOW_SMTP: &str = "slow-smtp";

/// Plays the helper that the command line asks for; none: it asks for something else.
///
/// # Errors
/// Where the helper fails.
pub async fn help() -> Option<anyhow::Result<()>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next()?.as_str() {
        DRIVE => Some(crowd::drive().await),
        SLOW_SMTP => Some(slow_smtp(arguments.next(), arguments.next()).await),
        _ => None,
    }
}

/// Plays one scenario, prints, draws and writes what came of it; answers how many runs broke a rule.
///
/// # Errors
/// Where a process or a server fails, or the effects do not come.
pub async fn play(name: ScenarioName, args: &Args, installation: &Installation) -> anyhow::Result<usize> {
    let records = match name {
        ScenarioName::Stampede => stampede::run(args, installation).await?,
        ScenarioName::Waiters => waiters::run(args, installation).await?,
        ScenarioName::Growth => growth::run(args, installation).await?,
        ScenarioName::Plans => vec![plans::check(installation, &World::connect(installation).await?).await?],
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
            picture::draw(runs, &args.results.join(format!("{}.svg", first.file_stem())))?;
        }
    }
    Ok(records.iter().filter(|record| !record.holds()).count())
}

async fn slow_smtp(listen: Option<String>, delay_ms: Option<String>) -> anyhow::Result<()> {
    let listen: SocketAddr = listen.context("slow-smtp ADDRESS DELAY_MS")?.parse()?;
    let delay_ms = delay_ms.context("slow-smtp ADDRESS DELAY_MS")?.parse()?;
    fairness::serve_smtp(listen, Duration::from_millis(delay_ms)).await
}
