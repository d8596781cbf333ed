//! Gauges of how much waits, asked of the broker every few seconds, whether the pools are busy or not. A delivery holds
//! up to 64 events, so events waiting are estimated from the size that a pool's deliveries had of late.

use std::time::Duration;

use contracts::{
    Queue, WorkQueue,
    amqp::{AmqpSettings, open, topology},
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::array_size::ArraySize;

const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Reports depths and database connections as metrics until the process stops, reconnecting as often as needed.
pub async fn report(amqp: AmqpSettings, sizes: Vec<(Queue, ArraySize)>, database: PgPool, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = report_while_connected(&amqp, &sizes, &database, &stop).await {
            tracing::debug!(error, "queue depths cannot be read");
        }
        pause(&stop).await;
    }
}

async fn report_while_connected(
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
        let depths = tokio::time::timeout(REPORT_EVERY, topology::depths(&channel, amqp.partitions)).await;
        show(sizes, depths.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?);
        pause(stop).await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.close(200, "bye".into())).await;
    Ok(())
}

fn show(sizes: &[(Queue, ArraySize)], depths: Vec<topology::Depth>) {
    for (pool, size) in sizes {
        let messages: u32 = depths.iter().filter(|depth| belongs_to(depth, *pool)).map(|depth| depth.messages).sum();
        metrics::gauge!("events_waiting", "pool" => pool.name()).set(f64::from(messages) * size.mean());
    }
    for topology::Depth { queue, messages, consumers } in depths {
        metrics::gauge!("queue_consumers", "queue" => queue.clone()).set(f64::from(consumers));
        metrics::gauge!("queue_deliveries_ready", "queue" => queue).set(f64::from(messages));
    }
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(REPORT_EVERY) => {}
    }
}

/// Returns whether it is the pool's queue, or a partition of it.
fn belongs_to(depth: &topology::Depth, pool: Queue) -> bool {
    WorkQueue::from_name(&depth.queue).is_some_and(|queue| queue.queue() == pool)
}
