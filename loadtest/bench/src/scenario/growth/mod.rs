//! Payments on an empty system, and on one that has grown: ten million settled operations, five million registrations
//! with all that hangs on them, and a million events waiting at the broker. The rate must hold, no process may have
//! grown with it, every list must still be read by its index, and pruning must keep up without anybody waiting for it.
//!
//! The events wait in the `registrations` queue, whose pool is left out: what waits for mails and PDFs is taken out and
//! counted by each run.

mod backlog;
mod history;
mod pruning;

use std::{collections::BTreeMap, time::Instant};

use contracts::envelope::MESSAGE_EVENTS_MAX;

use super::{Check, Payments, Scenario, plans};
use crate::{
    args::Args,
    config::Installation,
    database,
    processes::{Layout, System},
    record::Record,
    repeat, series,
    world::World,
};
use history::Sizes;

const BACKLOG_EVENTS: usize = 1_000_000;
const RATIO_TARGET: f64 = 0.85;
const RATE: &str = "settled, end to end";
const MEMORY: &str = "memory, ";
/// What a process of ours may hold more on a grown system than on an empty one.
const MEMORY_TARGET: f64 = 1.25;
const MEMORY_SLACK_MIB: f64 = 32.0;

/// Measures, fills, and measures again.
///
/// # Errors
/// Where a process or a server fails, or the effects do not come.
pub async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let args = &without_backlog_pool(args);
    database::make_anew(installation).await?;
    let world = World::connect(installation).await?;
    world.broker.purge().await?;
    let empty = payments(args, installation, &world, "growth-empty", args.repeats).await?;

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
        sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(&world.database).await?;
    summary.push("database", "MiB", bytes as f64 / f64::from(1 << 20));

    let grown = payments(args, installation, &world, "growth-grown", args.repeats).await?;
    compare(&mut summary, &empty, &grown)?;
    let left = backlog::waiting(installation).await?;
    summary.push("messages of them that still wait", "", f64::from(left));
    let arrays = i64::try_from(events.div_ceil(MESSAGE_EVENTS_MAX))?;
    summary.checks.push(Check::new("the backlog is still there", arrays, i64::from(left).min(arrays)));
    let pruned = pruning::measure(args, installation, &world).await?;
    let plans = plans::check(installation, &world).await?;
    world.broker.purge().await?;
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

/// The payments benchmark, with processes of its own.
async fn payments(
    args: &Args,
    installation: &Installation,
    world: &World,
    name: &str,
    repeats: u16,
) -> anyhow::Result<Vec<Record>> {
    let mut scenario = Payments::under_load();
    let args = &scenario.adapt(args.clone());
    let system = System::start(installation, &Layout::of(args)).await?;
    let started = system.memory_mib();
    let mut records = Vec::new();
    for index in 1..=repeats {
        eprintln!("bench: {name}, run {index} of {repeats}");
        let mut record = repeat::run(args, world, &system, &mut scenario, args.ready_per_second).await?;
        name.clone_into(&mut record.scenario);
        for (group, mib) in &started {
            record.push(format!("memory at the start, {group}"), "MiB", *mib);
        }
        records.push(record);
    }
    system.stop().await?;
    Ok(records)
}

/// The ratio of the rates, and what each process holds more than before.
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
        // The servers are told how much to cache; ours must not keep what they have seen.
        if name.contains("gateway") || name.contains("workers") {
            let held = after <= before * MEMORY_TARGET + MEMORY_SLACK_MIB;
            summary.checks.push(Check::new(&format!("no growth of {name}"), 1, held.into()));
        }
    }
    Ok(())
}
