//! A worker process, from its start to the end of its drain: signals, health, metrics, the pools, the clock. Shared by
//! `workers run` and the programs that serve one pool.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use contracts::{
    WorkQueue,
    amqp::{AmqpSettings, Publisher},
};
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::WorkerSettings,
    database,
    runtime::{self, Registry},
    telemetry,
};

/// The work of one process.
#[derive(Clone, Debug)]
pub struct WorkerProcess {
    /// The program and its pools, as the broker and Postgres show them.
    pub name: String,
    /// Work queues; of one that is split, partitions.
    pub queues: Vec<WorkQueue>,
    /// It also drains the dead letters.
    pub dead_letters: bool,
    /// It also runs the clock.
    pub clock: bool,
    /// Consumers a pool, in place of `runtime.consumers`.
    pub consumers: Option<u32>,
    /// Makes the handlers.
    pub registry: fn(&WorkerSettings) -> anyhow::Result<Registry>,
}

/// The threads of a process, as `runtime.threads` says.
///
/// # Errors
/// Where the system gives no threads.
pub fn threads(settings: &WorkerSettings) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(settings.runtime.threads()).enable_all().build()
}

/// Runs it until SIGTERM; then the deliveries that it holds are finished and acked.
///
/// # Errors
/// Settings that cannot be used, or a metrics port that is taken. A broker or database that is away is waited for.
pub async fn run(process: WorkerProcess, mut settings: WorkerSettings) -> anyhow::Result<()> {
    if let Some(consumers) = process.consumers {
        settings.runtime.consumers = consumers;
        settings.check()?;
    }
    #[cfg(feature = "fault-injection")]
    if let Some(fault) = settings.planted {
        crate::fault_injection::inject(fault);
    }
    // Before anything else: a signal that comes during the start must not kill the process outright.
    let stop = CancellationToken::new();
    let health = runtime::Health::new();
    listen_for_signals(stop.clone(), health.clone())?;
    check_connections(&process.queues, &settings)?;
    let database = database::settling_pool(&settings.database, &process.name).context("database.url")?;
    let amqp = AmqpSettings::new(settings.amqp.url.expose_secret(), process.name.clone()).split(settings.partitions);
    let publisher = Publisher::start(amqp.clone());
    telemetry::serve(settings.metrics_listen, health.clone()).await?;
    let clock = process
        .clock
        .then(|| tokio::spawn(clock::run(database.clone(), publisher.clone(), settings.clock.clone(), stop.clone())));
    let consuming = runtime::run(
        runtime::Pools {
            queues: process.queues,
            dead_letters: process.dead_letters,
            settings: settings.runtime.clone(),
            amqp,
            database: database.clone(),
            registry: (process.registry)(&settings)?,
            publisher,
            health: health.clone(),
        },
        stop.clone(),
    );
    tracing::info!(process = process.name, "started");
    consuming.await?;
    stop.cancelled().await;
    if let Some(clock) = clock {
        clock.await.context("the clock panicked")??;
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), database.close()).await;
    tracing::info!("in-flight deliveries are settled and acked");
    Ok(())
}

/// Each partition's consumer needs a connection, as `WorkerSettings::check` asserts of those of a whole queue.
fn check_connections(queues: &[WorkQueue], settings: &WorkerSettings) -> anyhow::Result<()> {
    let partitions = queues.iter().filter(|queue| queue.is_partition()).count();
    ensure!(
        settings.database.pool_max as usize >= partitions,
        "database.pool_max is below the {partitions} partitions that this process serves; each needs a connection, raise \
         pool_max or name fewer partitions in --pools"
    );
    Ok(())
}

fn listen_for_signals(stop: CancellationToken, health: runtime::Health) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop; finishing what is in flight");
        health.drain();
        stop.cancel();
    });
    Ok(())
}
