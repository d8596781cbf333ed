//! `workers run`: the named pools in one process, until SIGTERM; then in-flight deliveries are settled and acked.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use contracts::{
    Partitions, Queue, WorkQueue,
    amqp::{AmqpSettings, Publisher},
};
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{clock, config::WorkerSettings, database, registry, runtime, telemetry};

/// The pools to run, and their consumers.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Pools of this process: registrations, payments, invoicing, documents, notifications, email, dead-letters, clock;
    /// or `all`. Of a queue that is split, `payments` is all partitions, and `payments.0` one of them.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub pools: Vec<Pool>,

    /// Consumers a pool; overrides `runtime.consumers`. A partition has one.
    #[arg(long)]
    pub consumers: Option<u32>,
}

/// A pool, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    /// All pools.
    All,
    /// A work queue, or a partition of one.
    Queue(WorkQueue),
    /// The pool that moves dead letters into their table.
    DeadLetters,
    /// The clock.
    Clock,
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "all" => Ok(Pool::All),
            "dead-letters" => Ok(Pool::DeadLetters),
            "clock" => Ok(Pool::Clock),
            _ => WorkQueue::from_name(name).map(Pool::Queue).ok_or_else(|| {
                let names: Vec<_> = Queue::ALL.into_iter().map(Queue::name).collect();
                format!("there is no pool `{name}`; there are {}, dead-letters, clock, all", names.join(", "))
            }),
        }
    }
}

/// Runs the pools.
///
/// # Errors
/// Settings that cannot be used, or a metrics port that is taken. A broker or database that is away is no error: it waits.
pub async fn run(args: RunArgs, mut settings: WorkerSettings) -> anyhow::Result<()> {
    if let Some(consumers) = args.consumers {
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
    let has = |pool: Pool| args.pools.contains(&Pool::All) || args.pools.contains(&pool);
    let name = format!("workers {}", args_text(&args.pools));
    let queues = queues(&args.pools, settings.partitions)?;
    check_connections(&queues, &settings)?;
    let database = database::settling_pool(&settings.database, &name).context("database.url")?;
    let amqp = AmqpSettings::new(settings.amqp.url.expose_secret(), name).split(settings.partitions);
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
    tracing::info!("in-flight deliveries are settled and acked");
    Ok(())
}

/// Returns the queues of these pools: of one that is split, all partitions, or those that are named.
fn queues(pools: &[Pool], partitions: Partitions) -> anyhow::Result<Vec<WorkQueue>> {
    let mut queues = BTreeSet::new();
    for pool in pools {
        match pool {
            Pool::All => queues.extend(Queue::ALL.into_iter().flat_map(|queue| partitions.queues(queue))),
            Pool::Queue(named) if named.is_partition() => {
                let there = partitions.queues(named.queue());
                ensure!(there.contains(named), "--pools: {}", no_partition(*named, partitions));
                queues.insert(*named);
            }
            Pool::Queue(whole) => queues.extend(partitions.queues(whole.queue())),
            Pool::DeadLetters | Pool::Clock => {}
        }
    }
    Ok(queues.into_iter().collect())
}

fn no_partition(named: WorkQueue, partitions: Partitions) -> String {
    let queue = named.queue();
    match partitions.queues(queue).as_slice() {
        [first, .., last] => {
            format!("there is no partition `{named}`; there are {first} to {last}, as partitions.{} says", queue.name())
        }
        _ => format!("there is no partition `{named}`, as `{0}` is whole; partitions.{0} splits it", queue.name()),
    }
}

/// Checks that each partition's consumer has a connection, as `WorkerSettings::check` does for those of a whole queue.
fn check_connections(queues: &[WorkQueue], settings: &WorkerSettings) -> anyhow::Result<()> {
    let partitions = queues.iter().filter(|queue| queue.is_partition()).count();
    ensure!(
        settings.database.pool_max as usize >= partitions,
        "database.pool_max is below the {partitions} partitions that this process serves; each needs a connection, raise \
         pool_max or name fewer partitions in --pools"
    );
    Ok(())
}

fn args_text(pools: &[Pool]) -> String {
    let names: Vec<_> = pools
        .iter()
        .map(|pool| match pool {
            Pool::All => "all".to_owned(),
            Pool::Queue(queue) => queue.to_string(),
            Pool::DeadLetters => "dead-letters".to_owned(),
            Pool::Clock => "clock".to_owned(),
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
        tracing::info!("asked to stop; finishing what is in flight");
        health.drain();
        stop.cancel();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pools: &str, payments: u16) -> Result<Vec<String>, String> {
        let pools: Vec<Pool> = pools.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let partitions = Partitions::of_payments(payments).expect("not too many");
        let queues = queues(&pools, partitions).map_err(|error| error.to_string())?;
        Ok(queues.iter().map(WorkQueue::to_string).collect())
    }

    #[test]
    fn a_pool_is_its_queue_or_all_partitions_of_it() {
        let expect = |pools, payments, expected: &[&str]| assert_eq!(names(pools, payments).expect(pools), expected);
        expect("payments,clock", 1, &["payments"]);
        expect("payments,email", 3, &["payments.0", "payments.1", "payments.2", "email"]);
        expect("payments.2,payments.0,payments.2", 3, &["payments.0", "payments.2"]);
        expect(
            "all",
            2,
            &["registrations", "payments.0", "payments.1", "invoicing", "documents", "notifications", "email"],
        );
    }

    #[test]
    fn a_partition_that_is_not_there_is_refused_with_those_that_are() {
        let refused = |pools, payments| names(pools, payments).expect_err(pools);
        assert!(refused("payments.3", 3).contains("payments.0 to payments.2"), "{}", refused("payments.3", 3));
        assert!(refused("payments.0", 1).contains("partitions.payments"), "{}", refused("payments.0", 1));
        assert!(refused("email.0", 3).contains("there is no pool `email.0`"), "{}", refused("email.0", 3));
    }
}
