//! The life of a consumer: connect, subscribe, settle deliveries again and again, and build everything anew when
//! anything breaks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contracts::amqp::{Backoff, open, topology};
use lapin::{
    Channel, Connection, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::sync::mpsc;

use super::{
    acknowledge::{Settled, acknowledge_all},
    collect::{Collected, Stop, collect},
    spec::SubscriptionSpec,
};
use crate::runtime::{shared::Interrupted, watch::ConsumerState};

/// Longest wait before the next attempt to connect or to reach Postgres.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// Settled groups of deliveries that wait for the acknowledging task.
const SETTLED_WAITING_MAX: usize = 2;

/// Consumes until the process stops.
pub async fn consume(spec: SubscriptionSpec) {
    let shared = &spec.pool.shared;
    let mut backoff = Backoff::new(RETRY_DELAY_MAX);
    while !shared.stop.is_cancelled() {
        match connect_and_serve(&spec).await {
            Ok(End::Stopped) => break,
            Ok(End::DatabaseAway) => {
                spec.report(ConsumerState::Paused);
                wait_until_database_answers(&spec).await;
                backoff = Backoff::new(RETRY_DELAY_MAX);
            }
            Ok(End::Lost { why, served }) => {
                spec.report(ConsumerState::Unsubscribed);
                tracing::warn!(consumer = spec.consumer, why, "the subscription was lost");
                if served {
                    backoff = Backoff::new(RETRY_DELAY_MAX);
                }
            }
            Err(why) => {
                spec.report(ConsumerState::BrokerAway);
                tracing::warn!(consumer = spec.consumer, why, "the broker cannot be reached");
            }
        }
        shared.sleep_or_stop(backoff.next_delay()).await;
    }
}

/// The reason why a connection ended.
enum End {
    Stopped,
    DatabaseAway,
    /// `served`: whether there was a subscription before.
    Lost {
        why: String,
        served: bool,
    },
}

impl End {
    fn unserved(why: impl Into<String>) -> Self {
        End::Lost { why: why.into(), served: false }
    }

    fn lost(why: impl Into<String>) -> Self {
        End::Lost { why: why.into(), served: true }
    }
}

/// One connection: subscribe, then settle until something ends.
async fn connect_and_serve(spec: &SubscriptionSpec) -> Result<End, String> {
    let connection = open(&spec.pool.shared.amqp).await.map_err(|error| format!("{error:?}"))?;
    let (channel, consumer) = match subscribe(spec, &connection).await {
        Ok(subscribed) => subscribed,
        Err(end) => return Ok(end),
    };
    spec.report(ConsumerState::Idle);
    tracing::info!(consumer = spec.consumer, queue = spec.queue, "consuming");
    let end = serve_and_drain(spec, channel, consumer).await;
    let _ = tokio::time::timeout(Duration::from_secs(2), connection.close(200, "bye".into())).await;
    Ok(end)
}

/// Subscribes as soon as the publisher is connected: otherwise what settling asks to publish could not leave, its
/// clients would not be notified, and the deliveries would come again.
async fn subscribe(spec: &SubscriptionSpec, connection: &Connection) -> Result<(Channel, Consumer), End> {
    let shared = &spec.pool.shared;
    let connected = tokio::select! {
        () = shared.stop.cancelled() => return Err(End::Stopped),
        connected = shared.publisher.wait_connected(shared.amqp.connect_timeout) => connected,
    };
    if !connected {
        return Err(End::unserved("the broker answers, but nothing can be published"));
    }
    match tokio::time::timeout(shared.amqp.connect_timeout, open_consumer(spec, connection)).await {
        Ok(Ok(subscribed)) => Ok(subscribed),
        Ok(Err(error)) => Err(End::unserved(error.to_string())),
        Err(_) => Err(End::unserved("subscribing took too long")),
    }
}

async fn open_consumer(spec: &SubscriptionSpec, connection: &Connection) -> lapin::Result<(Channel, Consumer)> {
    let shared = &spec.pool.shared;
    let channel = connection.create_channel().await?;
    topology::declare(&channel, shared.partitions()).await?;
    channel.basic_qos(spec.role.prefetch(&shared.settings), BasicQosOptions::default()).await?;
    let (queue, tag) = (spec.queue.as_str().into(), spec.consumer.as_str().into());
    let consumer = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
    Ok((channel, consumer))
}

/// Settles until something ends; where the process stops, what is settled is still acked within `drain_ms`.
async fn serve_and_drain(spec: &SubscriptionSpec, channel: Channel, mut consumer: Consumer) -> End {
    let (settled, to_acknowledge) = mpsc::channel(SETTLED_WAITING_MAX);
    let mut acknowledging = tokio::spawn(acknowledge_all(Arc::clone(&spec.pool), channel.clone(), to_acknowledge));
    let end = tokio::select! {
        end = serve(spec, &channel, &mut consumer, &settled) => end,
        result = &mut acknowledging => End::lost(format!("acknowledging ended: {result:?}")),
    };
    drop(settled);
    if matches!(end, End::Stopped) {
        // Cancelling would make the next consumer of a partition active while deliveries are still held here, and it
        // would overtake them; closing the channel gives them back first.
        if !spec.role.is_single_active() {
            let _ = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await;
        }
        let drain_limit = Duration::from_millis(spec.pool.shared.settings.drain_ms);
        let drained = tokio::time::timeout(drain_limit, &mut acknowledging).await;
        tracing::info!(consumer = spec.consumer, drained = matches!(drained, Ok(Ok(Ok(())))), "stopped consuming");
    }
    acknowledging.abort();
    end
}

/// Collects and settles deliveries, and hands them over to be acknowledged.
async fn serve(
    spec: &SubscriptionSpec,
    channel: &Channel,
    consumer: &mut Consumer,
    settled: &mpsc::Sender<Settled>,
) -> End {
    // The broker gives a partition's deliveries to one consumer until that is gone: one that got any is the active one.
    let mut active = !spec.role.is_single_active();
    loop {
        spec.report(ConsumerState::Idle);
        let collected = match collect(spec, channel, consumer, active).await {
            Ok(collected) => collected,
            Err(Stop::Cancelled) => return End::Stopped,
            Err(Stop::Lost(why)) => return End::lost(why),
        };
        active = true;
        spec.report(ConsumerState::Busy);
        let to_acknowledge = match settle(spec, collected).await {
            Ok(settled) => settled,
            Err(Interrupted::Stopping) => return End::Stopped,
            Err(Interrupted::DatabaseAway) => return End::DatabaseAway,
        };
        if settled.send(to_acknowledge).await.is_err() {
            return End::lost("the channel ended before the ack");
        }
    }
}

async fn settle(spec: &SubscriptionSpec, collected: Collected) -> Result<Settled, Interrupted> {
    let Collected { deliveries, len, last_tag, .. } = collected;
    metrics::histogram!("batch_events", "pool" => spec.pool.name).record(deliveries.events.len() as f64);
    spec.array_size.record(deliveries.events.len(), len);
    let started = Instant::now();
    let outbound = spec.settler.settle(&spec.pool, deliveries).await?;
    spec.pool.stage("settle_batch", started);
    Ok(Settled { outbound, last_tag })
}

async fn wait_until_database_answers(spec: &SubscriptionSpec) {
    let shared = &spec.pool.shared;
    let mut backoff = Backoff::new(RETRY_DELAY_MAX);
    tracing::warn!(consumer = spec.consumer, "paused until the database answers");
    while !shared.stop.is_cancelled() {
        if sqlx::query("SELECT 1").execute(&shared.database).await.is_ok() {
            return;
        }
        shared.sleep_or_stop(backoff.next_delay()).await;
    }
}
