//! Pools whose work leaves the building, each alone on the machine: its queue is filled while it is stopped, then it is
//! started, and what it has done is read from its own rows by the times of their commits.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Utc;
use uuid::Uuid;

use super::Check;
use crate::{
    args::Args,
    breakdown,
    config::Installation,
    database,
    processes::{Layout, System},
    profile,
    record::{Record, Second, Stage},
    series,
    world::World,
};

const POLL: Duration = Duration::from_millis(500);

/// A pool with much to do.
pub trait Backlog {
    /// As tables and files call it, and what it makes.
    fn name(&self) -> &'static str;

    /// The pool.
    fn pool(&self) -> &'static str;

    /// What must be there before the pool starts, and as long as it runs: a server.
    async fn prepare(&mut self, installation: &Installation) -> anyhow::Result<()>;

    /// Fills its queue, with nothing left running; answers by what the pieces are found again.
    async fn fill(&mut self, args: &Args, installation: &Installation, world: &World) -> anyhow::Result<Vec<Uuid>>;

    /// When each finished piece was committed, microseconds since 1970.
    async fn finished_us(&self, world: &World, pieces: &[Uuid]) -> anyhow::Result<Vec<i64>>;

    /// What must hold in the end.
    async fn check(&self, world: &World, pieces: &[Uuid]) -> anyhow::Result<Vec<Check>>;
}

/// All runs.
///
/// # Errors
/// Where a process or a server fails.
pub async fn measure<B: Backlog>(
    args: &Args,
    installation: &Installation,
    mut backlog: B,
) -> anyhow::Result<Vec<Record>> {
    database::make_anew(installation).await?;
    let world = World::connect(installation).await?;
    world.broker.purge().await?;
    backlog.prepare(installation).await?;
    let mut records = Vec::new();
    for index in 1..=args.repeats {
        eprintln!("bench: {}, run {index} of {}: filling the queue", backlog.name(), args.repeats);
        let pieces = backlog.fill(args, installation, &world).await?;
        database::settle_down(&world.database).await?;
        let record = work_off(args, installation, &world, &backlog, &pieces).await?;
        series::write(args, &record, index)?;
        records.push(record);
        if !records.iter().all(Record::holds) {
            break;
        }
    }
    Ok(records)
}

async fn work_off<B: Backlog>(
    args: &Args,
    installation: &Installation,
    world: &World,
    backlog: &B,
    pieces: &[Uuid],
) -> anyhow::Result<Record> {
    let layout = Layout { gateways: 0, workers: vec![backlog.pool().to_owned()], ..Layout::of(args) };
    let system = System::start(installation, &layout).await?;
    let before = system.snapshot().await?;
    let mut record = Record::of(backlog.name(), format!("`{}` alone", backlog.pool()));
    record.began = Utc::now();
    let profiles = async {
        match args.perf {
            None => Ok(Vec::new()),
            Some(seconds) => profile::record(&system.pids(), seconds, &args.results).await,
        }
    };
    let (left, recordings) = tokio::join!(wait(args, world, backlog, pieces), profiles);
    let (left, recordings) = (left?, recordings?);
    let after = system.snapshot().await?;
    let memory_mib = system.memory_mib();
    let mut finished_us = backlog.finished_us(world, pieces).await?;
    system.stop().await?;

    // What was done between the start and the first reading belongs to neither account.
    let began_us = record.began.timestamp_micros();
    finished_us.retain(|at_us| *at_us > began_us);
    let last_us = finished_us.iter().max().copied().context("nothing was done while it was measured")?;
    let (count, seconds) = (finished_us.len() as f64, (last_us - began_us) as f64 / 1e6);
    record.push(backlog.name(), "", count);
    record.push(format!("{} a second", backlog.name()), "/s", count / seconds);
    for (group, cpu_seconds) in after.usage.since(&before.usage).iter().filter(|(group, _)| *group != "driver") {
        record.push(format!("CPU a piece, {group}"), "µs", cpu_seconds * 1e6 / count);
    }
    for (group, mib) in memory_mib {
        record.push(format!("memory, {group}"), "MiB", mib);
    }
    let histograms = after.metrics.since(&before.metrics).histograms();
    record.stages = histograms.iter().map(|histogram| Stage::of(histogram, seconds)).collect();
    record.steps = breakdown::steps(&record.stages, backlog.pool());
    record.seconds = vec![Second::default(); seconds as usize + 1];
    for at_us in finished_us {
        record.seconds[((at_us - began_us) / 1_000_000) as usize].settled += 1;
    }
    record.checks = backlog.check(world, pieces).await?;
    record.checks.push(Check::new(&format!("all is done within {:?}", args.drain_limit()), 0, left));
    profile::report(recordings, &args.results.join(record.file_stem())).await?;
    Ok(record)
}

/// Waits until all is done, and answers how much is not when the time is over.
async fn wait<B: Backlog>(args: &Args, world: &World, backlog: &B, pieces: &[Uuid]) -> anyhow::Result<i64> {
    let began = Instant::now();
    loop {
        let waiting = world.broker.waiting().await? > 0;
        if !waiting || began.elapsed() > args.drain_limit() {
            let left = pieces.len() - backlog.finished_us(world, pieces).await?.len();
            if left == 0 || began.elapsed() > args.drain_limit() {
                return Ok(i64::try_from(left)?);
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
