//! Queues that another partitioning has left. The number of partitions is meant to be changed only when they are drained;
//! where it was changed all the same, or the retry ladder brings an event back under an old name, nothing is stranded:
//! such a queue is consumed like any other, beside the partitions of now, so only the order between the two is lost.

use std::{sync::Arc, time::Duration};

use contracts::{
    Queue, WorkQueue,
    amqp::{AmqpSettings, Backoff, open, topology},
};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{
    consumer::{Settler, consume},
    pool::Pools,
    queue_depths::ArraySize,
};

/// Consumes what is left of this queue until the process stops.
pub(super) async fn serve(
    pools: Pools,
    queue: Queue,
    size: ArraySize,
    settler: Arc<dyn Settler>,
    stop: CancellationToken,
) {
    let left = find(&pools.amqp, queue, &stop).await;
    let consumers = left.into_iter().map(|left| {
        let context = pools.context(left, 0, false, size.clone(), &stop);
        consume(context, pools.amqp.clone(), Arc::clone(&settler))
    });
    join_all(consumers).await;
}

/// Asks the broker, as soon as it can be reached.
async fn find(amqp: &AmqpSettings, queue: Queue, stop: &CancellationToken) -> Vec<WorkQueue> {
    let mut backoff = Backoff::new(Duration::from_secs(2));
    while !stop.is_cancelled() {
        match look(amqp, queue).await {
            Ok(left) => return left,
            Err(error) => tracing::debug!(error, "what another partitioning has left is not known yet"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
    Vec::new()
}

async fn look(amqp: &AmqpSettings, queue: Queue) -> Result<Vec<WorkQueue>, String> {
    let connection = open(amqp).await.map_err(|error| error.to_string())?;
    let looked = async {
        let channel = connection.create_channel().await?;
        topology::declare(&channel, amqp.partitions).await?;
        topology::leftovers(&connection, queue, amqp.partitions).await
    };
    let found = tokio::time::timeout(amqp.connect_timeout, looked)
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.close(200, "bye".into())).await;
    for (left, depth) in &found {
        if depth.messages > 0 {
            tracing::warn!(
                queue = %left,
                deliveries = depth.messages,
                partitions = amqp.partitions.count(queue),
                "events are left from another number of partitions; they are settled beside newer ones, out of order. \
                 Drain all queues of a pool before its partitions are changed"
            );
        } else if left.is_partition() {
            tracing::warn!(queue = %left, "a partition beyond `partitions.{}` is empty and can be deleted", queue.name());
        }
    }
    Ok(found.into_iter().map(|(left, _)| left).collect())
}
