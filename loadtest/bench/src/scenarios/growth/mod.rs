//! Payments on an empty system, and on a grown one: ten million settled operations, five million registrations with
//! their payments, invoices and notifications, and a million events waiting at RabbitMQ. The rate must hold, no
//! process may use more memory, every list must be read by an index, and pruning must keep up without blocking a
//! statement.
//!
//! The events wait in the queue `registrations`, whose pool does not run. The queues of mails and PDFs cannot be used,
//! since each run takes out and counts their events.

mod backlog;
mod history;
mod pruning;

use std::{collections::BTreeMap, time::Instant};

use contracts::envelope::MESSAGE_EVENTS_MAX;

use super::{PaymentsScenario, plans};
use crate::{
    args::Args,
    config::Installation,
    database,
    processes::{Layout, RunningSystem},
    record::{Check, Record},
    scenario::Scenario,
    series,
    services::Services,
    single_run,
};
use history::Sizes;

const BACKLOG_EVENTS: usize = 1_000_000;
const RATIO_TARGET: f64 = 0.85;
const RATE: &str = "settled, end to end";
const MEMORY: &str = "memory, ";
/// Allowed memory of a gateway or worker process on the grown system, relative to the empty one.
const MEMORY_TARGET: f64 = 1.25;
const MEMORY_SLACK_MIB: f64 = 32.0;

/// Measures the empty system, fills it, and measures again, then pruning and plans.
///
/// # Errors
/// Where a process or a server fails, or effects are missing.
pub(crate) async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let args = &without_backlog_pool(args);
    database::recreate(installation).await?;
    let services = Services::connect(installation).await?;
    services.broker.purge().await?;
    let empty = payments(args, installation, &services, "growth-empty", args.repeats).await?;

    let mut summary = Record::of("growth", "payments, empty against grown".to_owned());
    let began = Instant::now();
    let sizes = Sizes::of(|size| args.scaled(size));
    history::fill(installation, &sizes).await?;
    summary.push("operations", "", sizes.operations as f64);
    summary.push("registrations", "", sizes.registrations as f64);
    summary.push("time to fill the database", "s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let events = args.scaled(BACKLOG_EVENTS);
    backlog::publish(installation, events).await?;
    summary.push("events that wait at the broker", "", events as f64);
    summary.push("time to publish them", "s", began.elapsed().as_secs_f64());
    let bytes: i64 =
        sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(&services.database).await?;
    summary.push("database", "MiB", bytes as f64 / f64::from(1 << 20));

    let grown = payments(args, installation, &services, "growth-grown", args.repeats).await?;
    compare(&mut summary, &empty, &grown)?;
    let left = backlog::waiting(installation).await?;
    summary.push("messages of them that still wait", "", f64::from(left));
    let arrays = i64::try_from(events.div_ceil(MESSAGE_EVENTS_MAX))?;
    summary.checks.push(Check::new("the backlog is still there", arrays, i64::from(left).min(arrays)));
    let pruned = pruning::measure(args, installation, &services).await?;
    let plans = plans::check(installation, &services).await?;
    services.broker.purge().await?;
    Ok([empty, grown, pruned, vec![plans, summary]].concat())
}

fn without_backlog_pool(args: &Args) -> Args {
    let others = |pools: &String| {
        let others: Vec<&str> = pools.split(',').filter(|pool| *pool != backlog::QUEUE.name()).collect();
        others.join(",")
    };
    let workers = args.workers.iter().map(others).filter(|pools| !pools.is_empty()).collect();
    Args { workers, ..args.clone() }
}

/// Measures payments, on processes of its own.
async fn payments(
    args: &Args,
    installation: &Installation,
    services: &Services,
    name: &str,
    repeats: u16,
) -> anyhow::Result<Vec<Record>> {
    let mut scenario = PaymentsScenario::under_load();
    let args = &scenario.adapt(args.clone());
    let system = RunningSystem::start(installation, &Layout::of(args)).await?;
    let started = system.memory_mib();
    let mut records = Vec::new();
    for index in 1..=repeats {
        eprintln!("bench: {name}, run {index} of {repeats}");
        let mut record = single_run::measure(args, services, &system, &mut scenario, args.ready_per_second).await?;
        name.clone_into(&mut record.scenario);
        for (group, mib) in &started {
            record.push(format!("memory at the start, {group}"), "MiB", *mib);
        }
        records.push(record);
    }
    system.stop().await?;
    Ok(records)
}

/// Adds the ratio of the rates and the memory of each process before and after.
fn compare(summary: &mut Record, empty: &[Record], grown: &[Record]) -> anyhow::Result<()> {
    let (before, after) = (series::median(empty, RATE)?, series::median(grown, RATE)?);
    summary.push("settled, empty", "/s", before);
    summary.push("settled, grown", "/s", after);
    summary.push("grown ÷ empty", "", after / before);
    summary.checks.push(Check::new("the rate holds to 0.85", 1, (after / before >= RATIO_TARGET).into()));
    let mut larger = BTreeMap::new();
    for figure in empty.iter().flat_map(|record| &record.figures).filter(|figure| figure.name.starts_with(MEMORY)) {
        let (before, after) = (series::median(empty, &figure.name)?, series::median(grown, &figure.name)?);
        larger.insert(figure.name.clone(), (before, after));
    }
    for (name, (before, after)) in larger {
        summary.push(format!("{name}, empty"), "MiB", before);
        summary.push(format!("{name}, grown"), "MiB", after);
        // Postgres and RabbitMQ may cache by their settings; gateways and workers must not grow.
        if name.contains("gateway") || name.contains("workers") {
            let held = after <= before * MEMORY_TARGET + MEMORY_SLACK_MIB;
            summary.checks.push(Check::new(&format!("no growth of {name}"), 1, held.into()));
        }
    }
    Ok(())
}
