//! `workers run`: the named pools in one process, until SIGTERM; then what is in hand is finished and acked.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use anyhow::Context as _;
use contracts::{
    Queue,
    amqp::{AmqpSettings, Publisher},
};
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{clock, config::Settings, database, registry, runtime, telemetry};

/// Which pools, and how many consumers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pools of this process: registrations, payments, invoicing, documents, notifications, email, dead-letters, clock;
    /// or `all`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub pools: Vec<Pool>,

    /// Consumers a pool; overrides `runtime.consumers`.
    #[arg(long)]
    pub consumers: Option<u32>,
}

/// One pool, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    /// Everything.
    All,
    /// A work queue.
    Queue(Queue),
    /// The drain of the dead letters.
    DeadLetters,
    /// What becomes due with time.
    Clock,
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "all" => Ok(Pool::All),
            "dead-letters" => Ok(Pool::DeadLetters),
            "clock" => Ok(Pool::Clock),
            _ => Queue::from_name(name).map(Pool::Queue).ok_or_else(|| {
                let names: Vec<_> = Queue::ALL.into_iter().map(Queue::name).collect();
                format!("there is no pool `{name}`; there are {}, dead-letters, clock, all", names.join(", "))
            }),
        }
    }
}

/// Runs the pools.
///
/// # Errors
/// Settings that cannot be used, or a metrics port that is taken. A broker or database that is away is waited for.
pub async fn run(args: Args, mut settings: Settings) -> anyhow::Result<()> {
    if let Some(consumers) = args.consumers {
        settings.runtime.consumers = consumers;
        settings.check()?;
    }
    #[cfg(feature = "planted-bugs")]
    if let Some(plant) = settings.planted {
        runtime::planted::plant(plant);
    }
    // Before anything else: a signal that comes during the start must not kill the process outright.
    let stop = CancellationToken::new();
    let health = runtime::Health::new();
    listen_for_signals(stop.clone(), health.clone())?;
    let pools: BTreeSet<Pool> = args.pools.iter().copied().collect();
    let has = |pool: Pool| pools.contains(&Pool::All) || pools.contains(&pool);
    let queues: Vec<Queue> = Queue::ALL.into_iter().filter(|queue| has(Pool::Queue(*queue))).collect();
    let name = format!("workers {}", args_text(&args.pools));
    let database = database::settling_pool(&settings.database, &name).context("database.url")?;
    let amqp = AmqpSettings::new(settings.amqp.url.expose_secret(), name);
    let publisher = Publisher::start(amqp.clone());
    telemetry::serve(settings.metrics_listen, health.clone()).await?;
    let clock = has(Pool::Clock)
        .then(|| tokio::spawn(clock::run(database.clone(), publisher.clone(), settings.clock.clone(), stop.clone())));
    let consuming = runtime::run(
        runtime::Pools {
            queues,
            dead_letters: has(Pool::DeadLetters),
            settings: settings.runtime.clone(),
            amqp,
            database: database.clone(),
            registry: registry::registry(&settings)?,
            publisher,
            health: health.clone(),
        },
        stop.clone(),
    );
    tracing::info!(pools = args_text(&args.pools), "started");
    consuming.await?;
    stop.cancelled().await;
    if let Some(clock) = clock {
        clock.await.context("the clock panicked")??;
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), database.close()).await;
    tracing::info!("everything in hand is finished");
    Ok(())
}

fn args_text(pools: &[Pool]) -> String {
    let names: Vec<_> = pools
        .iter()
        .map(|pool| match pool {
            Pool::All => "all",
            Pool::Queue(queue) => queue.name(),
            Pool::DeadLetters => "dead-letters",
            Pool::Clock => "clock",
        })
        .collect();
    names.join(",")
}

fn listen_for_signals(stop: CancellationToken, health: runtime::Health) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop; finishing what is in hand");
        health.drain();
        stop.cancel();
    });
    Ok(())
}
