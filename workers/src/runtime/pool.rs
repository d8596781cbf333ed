//! The pools of one process: for each its consumers and one for its quarantine, sharing a publisher and a database pool.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use anyhow::Context as _;
use chrono::Utc;
use contracts::{
    KeyHash, Queue, WorkQueue,
    amqp::{AmqpSettings, Publisher, Target, topology},
};
use futures::{FutureExt, future::BoxFuture};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    collect::Deliveries,
    consumer::{Context, Interrupted, Settler, consume},
    dead_letters::DeadLetterSettler,
    disposition::{Disposition, Outbound},
    health::{Health, State},
    orphaned_queues,
    queue_depths::{ArraySize, watch},
    raw_event::{RawEvent, Undecodable},
    registry::Registry,
};
use crate::config;

/// What a process runs.
#[derive(Clone)]
pub struct Pools {
    /// Work queues; of one that is split, partitions.
    pub queues: Vec<WorkQueue>,
    /// Whether it also drains the dead letters.
    pub dead_letters: bool,
    /// How it consumes.
    pub settings: config::Runtime,
    /// The broker.
    pub amqp: AmqpSettings,
    /// Postgres.
    pub database: PgPool,
    /// The handlers.
    pub registry: Registry,
    /// Follow-ups and forwards leave through it.
    pub publisher: Publisher,
    /// Where the consumers say how they are.
    pub health: Health,
}

/// Consumes until `stop`; returns when everything in hand is acked or given back.
///
/// # Errors
/// Where a consumer panicked: the process is not to be trusted and must be started anew.
pub async fn run(pools: Pools, stop: CancellationToken) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let pool_settler: Arc<dyn Settler> = Arc::new(PoolSettler);
    let mut sizes = Vec::new();
    for pool in pools.queues.iter().map(|queue| queue.queue()).collect::<BTreeSet<Queue>>() {
        let size = ArraySize::new();
        sizes.push((pool, size.clone()));
        for queue in pools.queues.iter().filter(|queue| queue.queue() == pool) {
            for number in 0..pools.consumers(*queue) {
                let context = pools.context(*queue, number, false, size.clone(), &stop);
                tasks.spawn(consume(context, pools.amqp.clone(), Arc::clone(&pool_settler)));
            }
        }
        tasks.spawn(orphaned_queues::serve(pools.clone(), pool, size, Arc::clone(&pool_settler), stop.clone()));
        let context = pools.context(WorkQueue::whole(pool), 0, true, ArraySize::new(), &stop);
        tasks.spawn(consume(context, pools.amqp.clone(), Arc::new(QuarantineSettler(pool))));
    }
    if pools.dead_letters {
        let context = pools.dead_context(&stop);
        tasks.spawn(consume(context, pools.amqp.clone(), Arc::new(DeadLetterSettler)));
    }
    tasks.spawn(watch(pools.amqp.clone(), sizes, pools.database.clone(), stop.clone()));
    pools.health.started();
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

impl Pools {
    /// Consumers of this queue in this process: a partition's batches commit one after the other.
    pub fn consumers(&self, queue: WorkQueue) -> u32 {
        match queue.queue() {
            _ if queue.is_partition() => 1,
            Queue::Invoicing | Queue::Notifications => self.settings.follow_up_consumers,
            _ => self.settings.consumers,
        }
    }

    pub(super) fn context(
        &self,
        queue: WorkQueue,
        number: u32,
        quarantine: bool,
        array_size: ArraySize,
        stop: &CancellationToken,
    ) -> Context {
        let pool_name = queue.queue().name();
        let queue_name = if quarantine { topology::quarantine(queue.queue()) } else { queue.to_string() };
        let consumer = format!("{queue_name}-{number}-{}", std::process::id());
        self.health.set(&consumer, State::BrokerAway);
        Context {
            pool_name,
            consumer,
            queue: queue_name,
            single_active: queue.is_partition(),
            partitions: self.amqp.partitions,
            source: format!("/workers/{pool_name}"),
            rows_max: if quarantine { 1 } else { self.settings.batch_max },
            deliveries_max: if quarantine { 1 } else { usize::MAX },
            prefetch: if quarantine { 1 } else { self.settings.prefetch },
            array_size,
            settings: self.settings.clone(),
            database: self.database.clone(),
            publisher: self.publisher.clone(),
            registry: self.registry.clone(),
            health: self.health.clone(),
            stop: stop.clone(),
        }
    }

    fn dead_context(&self, stop: &CancellationToken) -> Context {
        let consumer = format!("dead-letters-{}", std::process::id());
        self.health.set(&consumer, State::BrokerAway);
        Context {
            pool_name: "dead-letters",
            consumer,
            queue: topology::DEAD.to_owned(),
            single_active: false,
            partitions: self.amqp.partitions,
            source: "/workers/dead-letters".to_owned(),
            rows_max: self.settings.batch_max,
            deliveries_max: usize::MAX,
            prefetch: self.settings.prefetch,
            array_size: ArraySize::new(),
            settings: self.settings.clone(),
            database: self.database.clone(),
            publisher: self.publisher.clone(),
            registry: self.registry.clone(),
            health: self.health.clone(),
            stop: stop.clone(),
        }
    }
}

/// Settles what stands in a work queue.
struct PoolSettler;

impl Settler for PoolSettler {
    fn settle<'a>(
        &'a self,
        context: &'a Context,
        deliveries: Deliveries,
    ) -> BoxFuture<'a, Result<Outbound, Interrupted>> {
        async move {
            let mut outbound = Outbound::default();
            outbound.publish.extend(deliveries.undecodable.into_iter().map(park_undecodable));
            for group in by_kind(deliveries.events) {
                settle_group(context, &group, &mut outbound).await?;
            }
            Ok(outbound)
        }
        .boxed()
    }
}

/// Tries suspects alone: an array is first taken apart, so that whoever kills the process is alone when it does.
struct QuarantineSettler(Queue);

impl Settler for QuarantineSettler {
    fn settle<'a>(
        &'a self,
        context: &'a Context,
        deliveries: Deliveries,
    ) -> BoxFuture<'a, Result<Outbound, Interrupted>> {
        async move {
            if deliveries.events.len() <= 1 {
                return PoolSettler.settle(context, deliveries).await;
            }
            let mut outbound = Outbound::default();
            outbound.publish.extend(deliveries.undecodable.into_iter().map(park_undecodable));
            outbound
                .publish
                .extend(deliveries.events.into_iter().map(|event| (Target::Quarantine(self.0), event.bytes)));
            Ok(outbound)
        }
        .boxed()
    }
}

fn park_undecodable(undecodable: Undecodable) -> (Target, bytes::Bytes) {
    tracing::warn!(reason = undecodable.reason, bytes = undecodable.bytes.len(), "undecodable");
    (Target::Undecodable, undecodable.bytes)
}

/// Groups by kind, keeping the order within a kind, and of each partition key over all kinds: an event joins the last
/// group of its kind unless something of its key stands in a later group, which it must not overtake.
fn by_kind(events: Vec<RawEvent>) -> Vec<Vec<RawEvent>> {
    let mut groups: Vec<Vec<RawEvent>> = Vec::new();
    // Two keys of one hash cost a group more, no order.
    let mut newest: HashMap<KeyHash, usize> = HashMap::with_capacity(events.len());
    for event in events {
        let behind = newest.entry(event.key()).or_default();
        let of_kind = groups.iter().rposition(|group| group[0].kind == event.kind);
        *behind = of_kind.filter(|group| group >= behind).unwrap_or(groups.len());
        match groups.get_mut(*behind) {
            Some(group) => group.push(event),
            None => groups.push(vec![event]),
        }
    }
    groups
}

async fn settle_group(context: &Context, group: &[RawEvent], outbound: &mut Outbound) -> Result<(), Interrupted> {
    #[cfg(feature = "planted-bugs")]
    for event in group {
        super::fault_injection::die_of(event).await;
    }
    let started = Instant::now();
    let dispositions = match context.registry.registered(&group[0].kind) {
        Some(kind) => kind.settler.settle(context, group).await?,
        None => group
            .iter()
            .map(|event| Disposition::Poison {
                class: "unknown_kind",
                text: format!("nobody settles `{}`", event.kind),
            })
            .collect(),
    };
    context.stage("settle_kind", started);
    let (pool, kind) = (context.pool_name, metric_kind(&group[0].kind));
    let ages = metrics::histogram!("settled_age_seconds", "pool" => pool, "kind" => kind);
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let now = Utc::now();
    for (event, fate) in group.iter().zip(dispositions) {
        *counts.entry(disposition.outcome()).or_default() += 1;
        if let Disposition::Settled { .. } = fate {
            ages.record((now - event.accepted_at).as_seconds_f64().max(0.0));
        }
        outbound.add(event, fate, context.settings.attempts_max, context.partitions);
    }
    for (outcome, count) in counts {
        metrics::counter!("events_total", "pool" => pool, "kind" => kind, "outcome" => outcome).increment(count);
    }
    Ok(())
}

/// Kinds come from outside: an unknown one must not become a label of its own.
pub(super) fn metric_kind(kind: &str) -> &'static str {
    contracts::catalog::Kind::named(kind).map_or("unknown", |kind| kind.name)
}
