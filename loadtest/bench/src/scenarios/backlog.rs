//! Scenarios of pools with effects outside Postgres (SMTP, files): the queue is filled while the pool is stopped, then
//! the pool is started alone, and its rate is computed from the commit times of the rows that it writes.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Utc;
use uuid::Uuid;

use crate::{
    args::Args,
    breakdown,
    config::Installation,
    database,
    processes::{Layout, RunningSystem},
    profile,
    record::{Check, Record, Second, Stage},
    series,
    services::Services,
};

const POLL: Duration = Duration::from_millis(500);

/// A scenario that empties a full queue.
pub(crate) trait BacklogScenario {
    /// Name in tables and file names: the items, such as `mails`.
    fn name(&self) -> &'static str;

    /// The pool that is measured.
    fn pool(&self) -> &'static str;

    /// Starts or finds what the pool needs besides Postgres and RabbitMQ.
    async fn prepare(&mut self, installation: &Installation) -> anyhow::Result<()>;

    /// Fills the queue, and stops every process that it started for that; returns the ids of the items.
    async fn fill(
        &mut self,
        args: &Args,
        installation: &Installation,
        services: &Services,
    ) -> anyhow::Result<Vec<Uuid>>;

    /// Commit times of the finished items, microseconds since 1970.
    async fn finished_us(&self, services: &Services, items: &[Uuid]) -> anyhow::Result<Vec<i64>>;

    /// Rules that must hold in the end.
    async fn check(&self, services: &Services, items: &[Uuid]) -> anyhow::Result<Vec<Check>>;
}

/// Measures all runs.
///
/// # Errors
/// Where a process or a server fails.
pub(crate) async fn measure<B: BacklogScenario>(
    args: &Args,
    installation: &Installation,
    mut backlog: B,
) -> anyhow::Result<Vec<Record>> {
    database::recreate(installation).await?;
    let services = Services::connect(installation).await?;
    services.broker.purge().await?;
    backlog.prepare(installation).await?;
    let mut records = Vec::new();
    for index in 1..=args.repeats {
        eprintln!("bench: {}, run {index} of {}: filling the queue", backlog.name(), args.repeats);
        let items = backlog.fill(args, installation, &services).await?;
        database::vacuum_and_checkpoint(&services.database).await?;
        let record = measure_once(args, installation, &services, &backlog, &items).await?;
        series::write(args, &record, index)?;
        records.push(record);
        if !records.iter().all(Record::holds) {
            break;
        }
    }
    Ok(records)
}

async fn measure_once<B: BacklogScenario>(
    args: &Args,
    installation: &Installation,
    services: &Services,
    backlog: &B,
    items: &[Uuid],
) -> anyhow::Result<Record> {
    let layout = Layout { gateways: 0, workers: vec![backlog.pool().to_owned()], ..Layout::of(args) };
    let system = RunningSystem::start(installation, &layout).await?;
    let before = system.snapshot().await?;
    let mut record = Record::of(backlog.name(), format!("`{}` alone", backlog.pool()));
    record.began = Utc::now();
    let profiles = async {
        match args.perf {
            None => Ok(Vec::new()),
            Some(seconds) => profile::record(&system.pids(), seconds, &args.results).await,
        }
    };
    let (left, recordings) = tokio::join!(wait(args, services, backlog, items), profiles);
    let (left, recordings) = (left?, recordings?);
    let after = system.snapshot().await?;
    let memory_mib = system.memory_mib();
    let mut finished_us = backlog.finished_us(services, items).await?;
    system.stop().await?;

    // Items finished before the first reading count neither as items nor as CPU time.
    let began_us = record.began.timestamp_micros();
    finished_us.retain(|at_us| *at_us > began_us);
    let last_us = finished_us.iter().max().copied().context("no item was finished during the measurement")?;
    let (count, seconds) = (finished_us.len() as f64, (last_us - began_us) as f64 / 1e6);
    record.push(backlog.name(), "", count);
    record.push(format!("{} a second", backlog.name()), "/s", count / seconds);
    for (group, cpu_seconds) in after.usage.since(&before.usage).iter().filter(|(group, _)| *group != "driver") {
        record.push(format!("CPU an item, {group}"), "µs", cpu_seconds * 1e6 / count);
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
    record.checks = backlog.check(services, items).await?;
    record.checks.push(Check::new(&format!("all is finished within {:?}", args.drain_limit()), 0, left));
    profile::report(recordings, &args.results.join(record.file_stem())).await?;
    Ok(record)
}

/// Waits until all items are finished, at most the drain limit; returns how many are not.
async fn wait<B: BacklogScenario>(
    args: &Args,
    services: &Services,
    backlog: &B,
    items: &[Uuid],
) -> anyhow::Result<i64> {
    let began = Instant::now();
    loop {
        let waiting = services.broker.waiting().await? > 0;
        if !waiting || began.elapsed() > args.drain_limit() {
            let left = items.len() - backlog.finished_us(services, items).await?.len();
            if left == 0 || began.elapsed() > args.drain_limit() {
                return Ok(i64::try_from(left)?);
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
