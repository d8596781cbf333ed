//! A backlog of events without a consumer, in arrays of 64 as gateways and workers publish them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use chrono::Utc;
use contracts::{
    Command as _, NewEvent, Principal, Queue, TraceParent,
    amqp::{self, AmqpSettings, Publisher, topology},
    envelope::Origin,
    ids,
    messages::SubmitRegistration,
};

/// The queue of the backlog; no process runs its pool.
pub(crate) const QUEUE: Queue = Queue::Registrations;
/// Events published before the next are rendered, well within the publisher's limit of unconfirmed events.
const CHUNK: usize = 4_096;

/// Publishes this many events.
///
/// # Errors
/// Where RabbitMQ does not confirm them.
pub(crate) async fn publish(installation: &crate::config::Installation, events: usize) -> anyhow::Result<()> {
    let publisher = Publisher::start(AmqpSettings::new(&installation.amqp_url, "bench backlog"));
    ensure!(publisher.wait_connected(Duration::from_secs(10)).await, "the broker cannot be reached");
    let origin = Origin {
        source: "/gateway",
        principal: Principal::System,
        accepted_at: Utc::now(),
        trace: TraceParent::new(),
        parent: None,
    };
    let command = SubmitRegistration::example();
    let event = |_| NewEvent::new(ids::new_id(), &command, &origin);
    for first in (0..events).step_by(CHUNK) {
        let chunk: Vec<NewEvent> = (first..events.min(first + CHUNK)).map(event).collect();
        publisher.publish_all(chunk).await.context("the backlog")?;
    }
    Ok(())
}

/// Returns the number of AMQP messages in the queue of the backlog.
///
/// # Errors
/// Where the broker cannot be reached.
pub(crate) async fn waiting(installation: &crate::config::Installation) -> anyhow::Result<u32> {
    let connection = amqp::open(&AmqpSettings::new(&installation.amqp_url, "bench backlog")).await?;
    let depths = topology::depths(&connection.create_channel().await?, installation.partitions).await?;
    let depth = depths.iter().find(|depth| depth.queue == QUEUE.name()).context("the queue is declared")?;
    Ok(depth.messages)
}
