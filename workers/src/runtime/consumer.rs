//! One consumer's life: connect, subscribe, settle batch after batch, and build everything anew when anything breaks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contracts::{
    Partitions,
    amqp::{AmqpSettings, Backoff, Publisher, open, topology},
};
use futures::future::BoxFuture;
use lapin::{
    Channel, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    collect::{Deliveries, Stop, next_deliveries},
    disposition::Outbound,
    finisher::{Finish, finish_all},
    health::{Health, State},
    queue_depths::ArraySize,
    registry::Registry,
};
use crate::config;

/// What everybody who settles for one consumer shares.
#[derive(Clone)]
pub struct Context {
    pub(super) pool_name: &'static str,
    /// The queue it consumes.
    pub(super) queue: String,
    /// Whether the broker lets one consumer at a time have deliveries: a partition, whose order must hold.
    pub(super) single_active: bool,
    pub(super) partitions: Partitions,
    /// For health.
    pub(super) consumer: String,
    /// CloudEvents `source` of its follow-ups.
    pub(super) source: String,
    pub(super) rows_max: usize,
    pub(super) deliveries_max: usize,
    pub(super) prefetch: u16,
    pub(super) array_size: ArraySize,
    pub(super) settings: config::Runtime,
    pub(super) database: PgPool,
    pub(super) publisher: Publisher,
    pub(super) registry: Registry,
    pub(super) health: Health,
    pub(super) stop: CancellationToken,
}

/// Why a batch was left unsettled; nothing of it may be acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The process stops.
    Stopping,
    /// Postgres has been away for too long: give the deliveries back.
    DatabaseAway,
}

/// Turns one batch into what it owes the broker.
pub trait Settler: Send + Sync {
    /// Settles a batch, whatever it holds.
    fn settle<'a>(
        &'a self,
        context: &'a Context,
        deliveries: Deliveries,
    ) -> BoxFuture<'a, Result<Outbound, Interrupted>>;
}

impl Context {
    /// Records how long a stage took.
    pub(super) fn stage(&self, stage: &'static str, since: Instant) {
        metrics::histogram!("stage_seconds", "pool" => self.pool_name, "stage" => stage)
            .record(since.elapsed().as_secs_f64());
    }

    pub(super) fn weight(&self, kind: &str) -> usize {
        self.registry.registered(kind).map_or(1, |kind| kind.weight)
    }

    /// Waits a moment for Postgres.
    ///
    /// # Errors
    /// [`Interrupted`] where the process stops meanwhile, or Postgres has been away since too long.
    pub(super) async fn wait_for_database(&self, away_since: Instant, pause: Duration) -> Result<(), Interrupted> {
        if away_since.elapsed() > Duration::from_millis(self.settings.pause_after_ms) {
            return Err(Interrupted::DatabaseAway);
        }
        tokio::select! {
            () = self.stop.cancelled() => Err(Interrupted::Stopping),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}

/// Consumes until the process stops.
pub async fn consume(context: Context, amqp: AmqpSettings, settler: Arc<dyn Settler>) {
    let mut backoff = Backoff::new(Duration::from_secs(2));
    while !context.stop.is_cancelled() {
        match live_once(&context, &amqp, settler.as_ref()).await {
            Ok(End::Stopped) => break,
            Ok(End::DatabaseAway) => {
                context.health.set(&context.consumer, State::Paused);
                wait_until_database_answers(&context).await;
                backoff = Backoff::new(Duration::from_secs(2));
            }
            Ok(End::Lost { why, served }) => {
                context.health.set(&context.consumer, State::Unsubscribed);
                tracing::warn!(consumer = context.consumer, why, "the subscription was lost");
                if served {
                    backoff = Backoff::new(Duration::from_secs(2));
                }
            }
            Err(why) => {
                context.health.set(&context.consumer, State::BrokerAway);
                tracing::warn!(consumer = context.consumer, why, "the broker cannot be reached");
            }
        }
        tokio::select! {
            () = context.stop.cancelled() => {}
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

enum End {
    Stopped,
    DatabaseAway,
    Lost { why: String, served: bool },
}

/// One connection: subscribe, then settle until something ends.
async fn live_once(context: &Context, amqp: &AmqpSettings, settler: &dyn Settler) -> Result<End, String> {
    let connection = open(amqp).await.map_err(|error| format!("{error:?}"))?;
    // What a batch owes could not leave otherwise: whoever waits for it would not be told, and it would come again.
    let connected = tokio::select! {
        () = context.stop.cancelled() => return Ok(End::Stopped),
        connected = context.publisher.wait_connected(amqp.connect_timeout) => connected,
    };
    if !connected {
        return Ok(End::Lost { why: "the broker answers, but nothing can be published".into(), served: false });
    }
    let subscribed = tokio::time::timeout(amqp.connect_timeout, subscribe(context, &connection)).await;
    let (channel, mut consumer) = match subscribed {
        Ok(Ok(subscription)) => subscription,
        Ok(Err(error)) => {
            return Ok(End::Lost { why: error.to_string(), served: false });
        }
        Err(_) => {
            return Ok(End::Lost { why: "subscribing took too long".into(), served: false });
        }
    };
    context.health.set(&context.consumer, State::Idle);
    tracing::info!(consumer = context.consumer, queue = context.queue, "consuming");
    let (finished, batches) = mpsc::channel(2);
    let mut finisher = tokio::spawn(finish_all(context.clone(), channel.clone(), batches));
    let end = tokio::select! {
        end = serve(context, settler, &channel, &mut consumer, &finished) => end,
        result = &mut finisher => End::Lost { why: format!("the finisher ended: {result:?}"), served: true },
    };
    drop(finished);
    if matches!(end, End::Stopped) {
        // Cancelling would make the next consumer of a partition active while deliveries are still held here, and it would
        // overtake them; closing the channel gives them back first.
        if !context.single_active {
            let _ = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await;
        }
        let drained = tokio::time::timeout(Duration::from_millis(context.settings.drain_ms), &mut finisher).await;
        tracing::info!(consumer = context.consumer, drained = matches!(drained, Ok(Ok(Ok(())))), "stopped consuming");
    }
    finisher.abort();
    let _ = tokio::time::timeout(Duration::from_secs(2), connection.close(200, "bye".into())).await;
    Ok(end)
}

async fn subscribe(context: &Context, connection: &lapin::Connection) -> lapin::Result<(Channel, Consumer)> {
    let channel = connection.create_channel().await?;
    topology::declare(&channel, context.partitions).await?;
    channel.basic_qos(context.prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let tag = context.consumer.as_str();
    let consumer =
        channel.basic_consume(context.queue.as_str().into(), tag.into(), options, FieldTable::default()).await?;
    Ok((channel, consumer))
}

async fn serve(
    context: &Context,
    settler: &dyn Settler,
    channel: &Channel,
    consumer: &mut Consumer,
    finished: &mpsc::Sender<Finish>,
) -> End {
    // The broker gives a partition's deliveries to one consumer until that is gone: whoever got one is the one.
    let mut active = !context.single_active;
    loop {
        context.health.set(&context.consumer, State::Idle);
        let deliveries = match next_deliveries(context, channel, consumer, active).await {
            Ok(deliveries) => deliveries,
            Err(Stop::Cancelled) => return End::Stopped,
            Err(Stop::Lost(why)) => return End::Lost { why, served: true },
        };
        active = true;
        context.health.set(&context.consumer, State::Busy);
        let last_tag = deliveries.last_tag;
        metrics::histogram!("batch_events", "pool" => context.pool_name).record(deliveries.events.len() as f64);
        context.array_size.learn(deliveries.events.len(), deliveries.deliveries);
        let started = Instant::now();
        let outbound = match settler.settle(context, deliveries).await {
            Ok(outbound) => outbound,
            Err(Interrupted::Stopping) => return End::Stopped,
            Err(Interrupted::DatabaseAway) => return End::DatabaseAway,
        };
        context.stage("settle_batch", started);
        if finished.send(Finish { outbound, last_tag }).await.is_err() {
            return End::Lost { why: "the channel ended before the ack".into(), served: true };
        }
    }
}

async fn wait_until_database_answers(context: &Context) {
    let mut backoff = Backoff::new(Duration::from_secs(2));
    tracing::warn!(consumer = context.consumer, "paused until the database answers");
    while !context.stop.is_cancelled() {
        if sqlx::query("SELECT 1").execute(&context.database).await.is_ok() {
            return;
        }
        tokio::select! {
            () = context.stop.cancelled() => {}
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}
