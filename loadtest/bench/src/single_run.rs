//! One run of a scenario: render, warm up, measure, drain, count. CPU time and metrics are read before the first
//! request and after the last effect, so that each figure belongs to exactly the commands that were sent between.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use contracts::Queue;

use crate::{
    args::Args,
    breakdown, database,
    load::{self, Load, LoadOutcome, Model, Sample},
    processes::{RunningSystem, SystemSnapshot},
    profile,
    record::{Check, Record, Second, Stage},
    scenario::Scenario,
    services::Services,
    settled::{self, SettledOperation},
};
use uuid::Uuid;

const POLL: Duration = Duration::from_millis(50);
/// Factor on the time of the last count of pending effects to the pause before the next, so that counting takes at
/// most a quarter of the drain.
const PAUSE_FACTOR: u32 = 3;
/// Time limit of a load whose number of requests is given by the scenario.
const FIXED_WITHIN: Duration = Duration::from_secs(600);
/// Statuses of an accepted command; 200 answers a `Prefer: wait` that was settled in time.
const ACCEPTED: [u16; 2] = [200, 202];

/// All readings of one run.
struct Measured {
    outcome: LoadOutcome,
    commands: usize,
    before: SystemSnapshot,
    after: SystemSnapshot,
    memory_mib: BTreeMap<String, f64>,
    settled: Vec<SettledOperation>,
    last_effect_us: i64,
}

/// Runs the scenario once.
///
/// # Errors
/// Where a process or a server fails, or effects of the warm-up are missing. Missing effects of the measurement are a
/// broken rule of the record.
pub(crate) async fn measure<S: Scenario>(
    args: &Args,
    services: &Services,
    system: &RunningSystem,
    scenario: &mut S,
    ready_per_second: u32,
) -> anyhow::Result<Record> {
    let (warm_up, measured) = counts(args, scenario, ready_per_second);
    let model = args.rate.map_or(Model::Closed, Model::Open);
    let requests = Arc::new(scenario.make(services, warm_up + measured).await?);
    database::vacuum_and_checkpoint(&services.database).await?;
    let fixed = scenario.requests().is_some();
    let mut load = Load {
        range: 0..warm_up,
        requests,
        gateways: system.gateways.clone(),
        connections: args.connections.into(),
        threads: args.driver_threads.into(),
        model,
        duration: if fixed { FIXED_WITHIN } else { args.warm_up() },
        duplicates_percent: args.duplicates_percent.into(),
    };
    let warm = load::run(load.clone()).await?.sent;
    let left = drain(services, scenario, load.requests.operations(warm.clone()), args.drain_limit()).await?;
    ensure!(left == 0, "the warm-up is not drained: {left} effects are missing after {:?}", args.drain_limit());
    for queue in [Queue::Email, Queue::Documents] {
        services.broker.take_unconsumed(queue).await?;
    }

    load.range = warm.end..load.requests.len();
    load.duration = if fixed { FIXED_WITHIN } else { args.duration() };
    let before = system.snapshot().await?;
    let (outcome, recordings) = tokio::join!(load::run(load.clone()), record_profiles(args, system));
    let (outcome, recordings) = (outcome?, recordings?);
    let memory_mib = system.memory_mib();
    let operations = load.requests.operations(outcome.sent.clone());
    scenario.sent(outcome.sent.end);
    let left = drain(services, scenario, operations, args.drain_limit()).await?;
    let after = system.snapshot().await?;
    let mails = services.broker.take_unconsumed(Queue::Email).await?;
    let settled = settled::operations(&services.database, operations).await?;
    let last_effect_us = scenario.last_effect_us(services, operations).await?;
    let commands = operations.len();
    let mut record =
        describe(scenario, model, &Measured { outcome, commands, before, after, memory_mib, settled, last_effect_us });
    record.checks = scenario.check(services, operations, mails.distinct).await?;
    record.checks.push(Check::new(&format!("every effect came within {:?}", args.drain_limit()), 0, left));
    profile::report(recordings, &args.results.join(record.file_stem())).await?;
    Ok(record)
}

/// Numbers of requests of the warm-up and of the measurement.
fn counts<S: Scenario>(args: &Args, scenario: &S, ready_per_second: u32) -> (usize, usize) {
    let count = |duration: Duration| (duration.as_secs_f64() * f64::from(ready_per_second)).ceil() as usize;
    scenario.requests().unwrap_or_else(|| (count(args.warm_up()), count(args.duration())))
}

async fn record_profiles(args: &Args, system: &RunningSystem) -> anyhow::Result<Vec<profile::Recording>> {
    match args.perf {
        None => Ok(Vec::new()),
        Some(seconds) => profile::record(&system.pids(), seconds, &args.results).await,
    }
}

/// Waits until no effect is missing, at most `limit`; returns how many are missing then. RabbitMQ is asked first,
/// which costs Postgres nothing.
pub(crate) async fn drain<S: Scenario>(
    services: &Services,
    scenario: &S,
    operations: &[Uuid],
    limit: Duration,
) -> anyhow::Result<i64> {
    let began = Instant::now();
    loop {
        let over = began.elapsed() > limit;
        let polled = Instant::now();
        if over || services.broker.waiting().await? == 0 {
            let pending = scenario.pending(services, operations).await?;
            if over || pending == 0 {
                return Ok(pending);
            }
        }
        tokio::time::sleep(POLL.max(polled.elapsed() * PAUSE_FACTOR)).await;
    }
}

fn describe<S: Scenario>(scenario: &S, model: Model, measured: &Measured) -> Record {
    let Measured { outcome, settled, .. } = measured;
    let commands = measured.commands as f64;
    let began_us = outcome.began.timestamp_micros();
    let answered: Vec<&Sample> = outcome.samples.iter().filter(|sample| ACCEPTED.contains(&sample.status)).collect();
    let last_answer_us = answered.iter().map(|sample| sample.due_us + sample.took_us).max().unwrap_or_default();
    let last_commit_us = settled.iter().map(|s| s.committed_us).max().unwrap_or_default().max(measured.last_effect_us);
    let load_seconds = last_answer_us as f64 / 1e6;
    let whole_seconds = ((last_commit_us - began_us) as f64 / 1e6).max(load_seconds);
    let mut record = Record { began: outcome.began, ..Record::of(scenario.name(), model.to_string()) };
    let histograms = measured.after.metrics.since(&measured.before.metrics).histograms();
    record.stages = histograms.iter().map(|histogram| Stage::of(histogram, whole_seconds)).collect();
    record.steps = breakdown::steps(&record.stages, scenario.pool());
    record.seconds = seconds(outcome, settled, measured.commands / outcome.sent.len().max(1));
    for sample in &outcome.samples {
        *record.statuses.entry(sample.status).or_default() += 1;
    }
    record.push("commands", "", commands);
    record.push("accepted", "/s", commands / load_seconds);
    record.push("answered 2xx, duplicates included", "/s", answered.len() as f64 / load_seconds);
    record.push_quantiles("accept", answered.iter().map(|sample| sample.took_us as f64 / 1e3).collect());
    let refused = settled.iter().filter(|settled| !settled.succeeded).count();
    record.push("settled as a rejection", "", refused as f64);
    record.push("settled, end to end", "/s", settled.len() as f64 / whole_seconds);
    let latencies = settled.iter().map(|s| (s.committed_us - s.accepted_us) as f64 / 1e3).collect();
    record.push_quantiles("accept → settled", latencies);
    let drain_us = last_commit_us - began_us - i64::try_from(last_answer_us).unwrap_or_default();
    record.push("drain after the last answer", "ms", drain_us.max(0) as f64 / 1e3);
    record.push("first request → last effect", "s", whole_seconds);
    push_cpu(&mut record, measured, commands, whole_seconds);
    for (group, mib) in &measured.memory_mib {
        record.push(format!("memory, {group}"), "MiB", *mib);
    }
    record
}

/// Adds CPU time by group, and of all groups but the driver.
fn push_cpu(record: &mut Record, measured: &Measured, commands: f64, seconds: f64) {
    let mut used = measured.after.usage.since(&measured.before.usage);
    // CPU time of the driver during the load, without the drain and the readings.
    let driver = measured.outcome.driver_cpu.as_secs_f64();
    used.insert("driver".to_owned(), driver);
    let micros = |cpu_seconds: f64| cpu_seconds * 1e6 / commands;
    let system: f64 = used.iter().filter(|(group, _)| *group != "driver").map(|(_, cpu_seconds)| cpu_seconds).sum();
    for (group, cpu_seconds) in &used {
        record.push(format!("CPU a command, {group}"), "µs", micros(*cpu_seconds));
    }
    record.push("CPU a command, all but the driver", "µs", micros(system));
    record.push("CPU a request, driver", "µs", driver * 1e6 / measured.outcome.samples.len() as f64);
    record.push("cores in use", "", used.values().sum::<f64>() / seconds);
}

/// Accepted and settled commands by second; each request is `commands_a_request` commands.
fn seconds(outcome: &LoadOutcome, settled: &[SettledOperation], commands_a_request: usize) -> Vec<Second> {
    let began_us = outcome.began.timestamp_micros();
    let mut seconds: Vec<Second> = Vec::new();
    let mut count = |at_us: u64, commands: usize, of: fn(&mut Second) -> &mut u32| {
        let index = usize::try_from(at_us / 1_000_000).unwrap_or_default();
        if seconds.len() <= index {
            seconds.resize(index + 1, Second::default());
        }
        *of(&mut seconds[index]) += commands as u32;
    };
    for sample in outcome.samples.iter().filter(|sample| ACCEPTED.contains(&sample.status) && !sample.duplicate) {
        count(sample.due_us + sample.took_us, commands_a_request, |second| &mut second.accepted);
    }
    for settled in settled {
        count(u64::try_from(settled.committed_us - began_us).unwrap_or_default(), 1, |second| &mut second.settled);
    }
    seconds
}
