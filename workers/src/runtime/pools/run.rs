//! The run of a process's pools, from the start of their consumers to the end of the last.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context as _;
use contracts::{
    Queue, WorkQueue,
    amqp::{AmqpSettings, Publisher},
};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    orphaned_queues,
    pool::{Pool, dead_letters},
};
use crate::{
    config,
    runtime::{
        settling::Registry,
        shared::Shared,
        subscription::consume,
        watch::{self, Health},
    },
};

/// The pools that a process runs, and what they need.
#[derive(Clone)]
pub struct Pools {
    /// Work queues; of one that is split, partitions.
    pub queues: Vec<WorkQueue>,
    /// True if it also drains the dead letters.
    pub dead_letters: bool,
    /// Limits and times.
    pub settings: config::Runtime,
    /// The broker.
    pub amqp: AmqpSettings,
    /// Postgres.
    pub database: PgPool,
    /// The handlers.
    pub registry: Registry,
    /// Sends follow-ups, forwards and live updates.
    pub publisher: Publisher,
    /// Takes the state of each consumer.
    pub health: Health,
}

/// Consumes until `stop`; returns when everything in flight is acked or given back.
///
/// # Errors
/// Where a consumer panicked: the process is not to be trusted and must be started anew.
pub async fn run(pools: Pools, stop: CancellationToken) -> anyhow::Result<()> {
    let Pools { queues, settings, amqp, database, publisher, health, .. } = pools;
    let shared = Arc::new(Shared { settings, amqp, database, publisher, health, stop: stop.clone() });
    let registry = Arc::new(pools.registry);
    let mut tasks = JoinSet::new();
    let mut sizes = Vec::new();
    for queue in queues.iter().map(|queue| queue.queue()).collect::<BTreeSet<Queue>>() {
        let pool = Pool::new(queue, &shared, &registry);
        sizes.push((queue, pool.array_size.clone()));
        for work_queue in queues.iter().filter(|work_queue| work_queue.queue() == queue) {
            for number in 0..pool.consumers(*work_queue) {
                tasks.spawn(consume(pool.work(*work_queue, number)));
            }
        }
        tasks.spawn(consume(pool.quarantine()));
        tasks.spawn(orphaned_queues::serve(pool));
    }
    if pools.dead_letters {
        tasks.spawn(consume(dead_letters(&shared, &registry)));
    }
    tasks.spawn(watch::report(shared.amqp.clone(), sizes, shared.database.clone(), stop.clone()));
    shared.health.started();
    join(tasks, &stop).await
}

/// Waits for all tasks; one that panics stops the others.
async fn join(mut tasks: JoinSet<()>, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut panicked = None;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a consumer panicked; the process ends");
            stop.cancel();
            panicked = Some(error);
        }
    }
    panicked.map_or(Ok(()), |error| Err(error).context("a consumer panicked"))
}
