//! How much waits: asked of the broker every few seconds, whether the pools are busy or not. A delivery holds up to 64
//! events, so events waiting are estimated from the size that a pool's deliveries had of late.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use contracts::{
    Queue, WorkQueue,
    amqp::{AmqpSettings, open, topology},
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

const ASK_EVERY: Duration = Duration::from_secs(5);
/// Weight of the newest batch in the moving average.
const NEWEST: f64 = 0.1;

/// Events a delivery, of late. Shared by a pool's consumers.
#[derive(Clone, Debug)]
pub struct ArraySize(Arc<AtomicU64>);

impl ArraySize {
    /// One, until deliveries tell.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1.0_f64.to_bits())))
    }

    /// Learns from a batch. Two consumers at once may lose one lesson, which an average bears.
    pub fn learn(&self, events: usize, deliveries: usize) {
        let seen = events as f64 / deliveries.max(1) as f64;
        let mean = self.mean() * (1.0 - NEWEST) + seen * NEWEST;
        self.0.store(mean.to_bits(), Ordering::Relaxed);
    }

    fn mean(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Shows depths and database connections until the process stops, through every reconnect.
pub async fn watch(amqp: AmqpSettings, sizes: Vec<(Queue, ArraySize)>, database: PgPool, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = show(&amqp, &sizes, &database, &stop).await {
            tracing::debug!(error, "queue depths cannot be asked for");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
}

async fn show(
    amqp: &AmqpSettings,
    sizes: &[(Queue, ArraySize)],
    database: &PgPool,
    stop: &CancellationToken,
) -> Result<(), String> {
    let connection = open(amqp).await.map_err(|error| error.to_string())?;
    let channel = connection.create_channel().await.map_err(|error| error.to_string())?;
    topology::declare(&channel, amqp.partitions).await.map_err(|error| error.to_string())?;
    while !stop.is_cancelled() {
        metrics::gauge!("database_connections", "state" => "open").set(f64::from(database.size()));
        metrics::gauge!("database_connections", "state" => "idle").set(database.num_idle() as f64);
        let asked = tokio::time::timeout(ASK_EVERY, topology::depths(&channel, amqp.partitions)).await;
        let depths = asked.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        for (pool, size) in sizes {
            let messages: u32 = depths.iter().filter(|depth| is_of(depth, *pool)).map(|depth| depth.messages).sum();
            metrics::gauge!("events_waiting", "pool" => pool.name()).set(f64::from(messages) * size.mean());
        }
        for topology::Depth { queue, messages, consumers } in depths {
            metrics::gauge!("queue_consumers", "queue" => queue.clone()).set(f64::from(consumers));
            metrics::gauge!("queue_deliveries_ready", "queue" => queue).set(f64::from(messages));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.close(200, "bye".into())).await;
    Ok(())
}

/// Whether it is the pool's queue, or a part of it.
fn is_of(depth: &topology::Depth, pool: Queue) -> bool {
    WorkQueue::from_name(&depth.queue).is_some_and(|queue| queue.queue() == pool)
}
