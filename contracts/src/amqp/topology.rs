//! Exchanges and queues, derived from [`Queue::ALL`]. Declared by every program that connects, with the same arguments
//! on RabbitMQ 3.10 and 4.x; everything that may change later belongs into policies, not here.
//!
//! A work queue dead-letters into its quarantine, the quarantine into `dead`, and a retry queue back into `commands`.
//! The partitions of a queue share the quarantine of its pool, and the whole queue is always declared beside them:
//! events that are still routed to it are not lost.

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable},
};

use crate::{Partitions, Queue, WorkQueue};

/// Direct; the routing key is the queue.
pub const COMMANDS: &str = "commands";
/// Headers; the header `delay` picks the rung, the routing key stays the queue's.
pub const RETRY: &str = "retry";
/// Direct; quarantines and the queue `dead`.
pub const DEAD: &str = "dead";
/// Fanout; live updates for every gateway.
pub const LIVE: &str = "live";
/// Fanout; the alternate exchange of `commands`, so that no message is dropped for lack of a route.
pub const UNROUTABLE: &str = "unroutable";
/// The header that picks the rung of the retry ladder.
pub const DELAY_HEADER: &str = "delay";

/// Deliveries of a work queue before the broker moves a message to quarantine. A crash of a consumer counts against
/// every message that it held, so this limit only selects suspects; the quarantine finds the one that causes crashes.
const DELIVERY_LIMIT: i64 = 5;
/// Deliveries in quarantine, where each event is tried singly, before the broker moves it to `dead`.
const QUARANTINE_DELIVERY_LIMIT: i64 = 2;
/// Practically unlimited: `dead` must never drop a message, and 4.x would default to 20.
const DEAD_DELIVERY_LIMIT: i64 = 1_000_000;

/// The rungs of the retry ladder.
pub const LADDER: [Rung; 4] = [
    Rung { name: "5s", delay: Duration::from_secs(5) },
    Rung { name: "30s", delay: Duration::from_secs(30) },
    Rung { name: "5m", delay: Duration::from_secs(5 * 60) },
    Rung { name: "30m", delay: Duration::from_secs(30 * 60) },
];

/// One rung: a queue in which an event waits before its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The queue is `retry.<name>`.
    pub name: &'static str,
    /// The waiting time.
    pub delay: Duration,
}

impl Rung {
    /// The rung for the n-th retry (from 0); the last one repeats.
    pub fn for_attempt(attempt: u16) -> Self {
        LADDER[usize::from(attempt).min(LADDER.len() - 1)]
    }

    /// The queue's name.
    pub fn queue(&self) -> String {
        format!("retry.{}", self.name)
    }
}

/// The name of the queue in which a pool tries suspected events singly.
pub fn quarantine(queue: Queue) -> String {
    format!("{}.quarantine", queue.name())
}

/// The names of all queues that we declare, for tools and tests.
pub fn queue_names(partitions: Partitions) -> Vec<String> {
    let mut names: Vec<String> = Queue::ALL.into_iter().map(|queue| queue.name().to_owned()).collect();
    names.extend(partitions_of_all(partitions).map(|partition| partition.to_string()));
    names.extend(Queue::ALL.into_iter().map(quarantine));
    names.extend(LADDER.iter().map(Rung::queue));
    names.extend([DEAD.to_owned(), UNROUTABLE.to_owned()]);
    names
}

/// Declares all exchanges, queues and bindings; declaring again changes nothing.
///
/// # Errors
/// Where a queue exists with other arguments, or the channel ends.
pub async fn declare(channel: &Channel, partitions: Partitions) -> lapin::Result<()> {
    declare_exchanges(channel).await?;
    for queue in Queue::ALL {
        let quarantine = quarantine(queue);
        declare_queue(channel, queue.name(), work_arguments(DELIVERY_LIMIT, DEAD, Some(&quarantine))).await?;
        bind(channel, queue.name(), COMMANDS, queue.name(), FieldTable::default()).await?;
        declare_queue(channel, &quarantine, work_arguments(QUARANTINE_DELIVERY_LIMIT, DEAD, Some(DEAD))).await?;
        bind(channel, &quarantine, DEAD, &quarantine, FieldTable::default()).await?;
    }
    for partition in partitions_of_all(partitions) {
        let name = partition.to_string();
        let mut arguments = work_arguments(DELIVERY_LIMIT, DEAD, Some(&quarantine(partition.queue())));
        // One consumer at a time, however many subscribe: another takes over when it is gone, and the order is kept.
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        declare_queue(channel, &name, arguments).await?;
        bind(channel, &name, COMMANDS, &name, FieldTable::default()).await?;
    }
    for rung in LADDER {
        let mut arguments = work_arguments(DEAD_DELIVERY_LIMIT, COMMANDS, None);
        let ttl_ms = i64::try_from(rung.delay.as_millis()).expect("a rung lasts minutes");
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl_ms));
        declare_queue(channel, &rung.queue(), arguments).await?;
        let mut matching = FieldTable::default();
        matching.insert("x-match".into(), AMQPValue::LongString("all".into()));
        matching.insert(DELAY_HEADER.into(), AMQPValue::LongString(rung.name.into()));
        bind(channel, &rung.queue(), RETRY, "", matching).await?;
    }
    declare_queue(channel, DEAD, quorum(DEAD_DELIVERY_LIMIT)).await?;
    bind(channel, DEAD, DEAD, DEAD, FieldTable::default()).await?;
    declare_queue(channel, UNROUTABLE, quorum(DEAD_DELIVERY_LIMIT)).await?;
    bind(channel, UNROUTABLE, UNROUTABLE, "", FieldTable::default()).await
}

/// The number of messages and consumers of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The queue.
    pub queue: String,
    /// Messages that are ready; each is an array of up to 64 events.
    pub messages: u32,
    /// Consumers subscribed now.
    pub consumers: u32,
}

/// The depth of every queue that we declare.
///
/// # Errors
/// Where a queue is missing, or the channel ends.
pub async fn depths(channel: &Channel, partitions: Partitions) -> lapin::Result<Vec<Depth>> {
    let mut depths = Vec::new();
    for name in queue_names(partitions) {
        depths.push(depth(channel, name).await?);
    }
    Ok(depths)
}

/// The queues that another partitioning has left behind: the whole queue where it is split now (it is always declared),
/// and the partitions beyond the present count, up to the first that does not exist. Such a queue may still hold
/// events, or receive some from the retry ladder.
///
/// # Errors
/// Where the connection ends.
pub async fn orphaned_queues(
    connection: &Connection,
    queue: Queue,
    partitions: Partitions,
) -> lapin::Result<Vec<(WorkQueue, Depth)>> {
    let mut found = Vec::new();
    if !Partitions::may_split(queue) {
        return Ok(found);
    }
    let beyond = if partitions.splits(queue) { partitions.count(queue) } else { 0 };
    let whole = partitions.splits(queue).then_some(WorkQueue::whole(queue));
    let channel = connection.create_channel().await?;
    for orphan in whole.into_iter().chain((beyond..Partitions::MAX).map(|number| WorkQueue::partition(queue, number))) {
        match depth(&channel, orphan.to_string()).await {
            Ok(depth) => found.push((orphan, depth)),
            // The refusal has closed the channel.
            Err(error) if is_not_found(&error) => return Ok(found),
            Err(error) => return Err(error),
        }
    }
    channel.close(200, "bye".into()).await?;
    Ok(found)
}

/// The partitions of all queues that are split.
fn partitions_of_all(partitions: Partitions) -> impl Iterator<Item = WorkQueue> {
    Queue::ALL.into_iter().flat_map(move |queue| partitions.queues(queue)).filter(|queue| queue.is_partition())
}

async fn depth(channel: &Channel, name: String) -> lapin::Result<Depth> {
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await?;
    Ok(Depth { queue: name, messages: queue.message_count(), consumers: queue.consumer_count() })
}

fn is_not_found(error: &lapin::Error) -> bool {
    let not_found = AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND);
    matches!(error.kind(), ErrorKind::ProtocolError(refusal) if *refusal.kind() == not_found)
}

async fn declare_exchanges(channel: &Channel) -> lapin::Result<()> {
    let mut alternate = FieldTable::default();
    alternate.insert("alternate-exchange".into(), AMQPValue::LongString(UNROUTABLE.into()));
    for (name, kind, arguments) in [
        (UNROUTABLE, ExchangeKind::Fanout, FieldTable::default()),
        (COMMANDS, ExchangeKind::Direct, alternate.clone()),
        (RETRY, ExchangeKind::Headers, alternate.clone()),
        (DEAD, ExchangeKind::Direct, alternate),
        (LIVE, ExchangeKind::Fanout, FieldTable::default()),
    ] {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(name.into(), kind, options, arguments).await?;
    }
    Ok(())
}

fn quorum(delivery_limit: i64) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(delivery_limit));
    arguments
}

fn work_arguments(delivery_limit: i64, dead_letter_exchange: &str, routing_key: Option<&str>) -> FieldTable {
    let mut arguments = quorum(delivery_limit);
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(dead_letter_exchange.into()));
    if let Some(routing_key) = routing_key {
        arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(routing_key.into()));
    }
    // Without reject-publish, at-least-once silently falls back to at-most-once.
    arguments.insert("x-dead-letter-strategy".into(), AMQPValue::LongString("at-least-once".into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    arguments
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, arguments).await.map(|_| ())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str, arguments: FieldTable) -> lapin::Result<()> {
    channel.queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), arguments).await
}
