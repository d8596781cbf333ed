//! Queues that another partitioning has left behind. The number of partitions is meant to be changed only when they are
//! drained; where it was changed all the same, or the retry ladder brings an event back under an old name, nothing is
//! stranded: such a queue is consumed like any other, beside the partitions of now, so only the order between the two
//! is lost.

use std::time::Duration;

use contracts::{
    Queue, WorkQueue,
    amqp::{AmqpSettings, Backoff, open, topology},
};
use futures::future::join_all;

use super::pool::Pool;
use crate::runtime::{shared::Shared, subscription::consume};

/// Consumes the orphaned queues of this pool until the process stops.
pub async fn serve(pool: Pool) {
    let orphaned = find(pool.shared(), pool.queue).await;
    join_all(orphaned.into_iter().map(|queue| consume(pool.work(queue, 0)))).await;
}

/// Asks the broker for the orphaned queues, as soon as it can be reached.
async fn find(shared: &Shared, queue: Queue) -> Vec<WorkQueue> {
    let mut backoff = Backoff::new(Duration::from_secs(2));
    while !shared.stop.is_cancelled() {
        match look_up(&shared.amqp, queue).await {
            Ok(orphaned) => return orphaned,
            Err(error) => tracing::debug!(error, "orphaned queues are not known yet"),
        }
        shared.sleep_or_stop(backoff.next_delay()).await;
    }
    Vec::new()
}

async fn look_up(amqp: &AmqpSettings, queue: Queue) -> Result<Vec<WorkQueue>, String> {
    let connection = open(amqp).await.map_err(|error| error.to_string())?;
    let answer = async {
        let channel = connection.create_channel().await?;
        topology::declare(&channel, amqp.partitions).await?;
        topology::orphaned_queues(&connection, queue, amqp.partitions).await
    };
    let found = tokio::time::timeout(amqp.connect_timeout, answer)
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.close(200, "bye".into())).await;
    for (orphaned, depth) in &found {
        warn(amqp, queue, *orphaned, depth);
    }
    Ok(found.into_iter().map(|(orphaned, _)| orphaned).collect())
}

fn warn(amqp: &AmqpSettings, queue: Queue, orphaned: WorkQueue, depth: &topology::Depth) {
    if depth.messages > 0 {
        tracing::warn!(
            queue = %orphaned,
            deliveries = depth.messages,
            partitions = amqp.partitions.count(queue),
            "events are left from another number of partitions; they are settled beside newer ones, out of order. \
             Drain all queues of a pool before its partitions are changed"
        );
    } else if orphaned.is_partition() {
        let pool = queue.name();
        tracing::warn!(queue = %orphaned, "a partition beyond `partitions.{pool}` is empty and can be deleted");
    }
}
