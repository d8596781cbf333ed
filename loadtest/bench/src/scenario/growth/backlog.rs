//! Events that nobody consumes, in arrays of 64 as gateways and workers publish them.

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

/// Its pool is left out.
pub const QUEUE: Queue = Queue::Registrations;
/// Published before the next are rendered; well within what may wait for its confirm.
const CHUNK: usize = 4_096;

/// Publishes so many.
///
/// # Errors
/// Where the broker does not take them.
pub async fn publish(installation: &crate::config::Installation, events: usize) -> anyhow::Result<()> {
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

/// AMQP messages that wait in it.
///
/// # Errors
/// Where the broker cannot be reached.
pub async fn waiting(installation: &crate::config::Installation) -> anyhow::Result<u32> {
    let connection = amqp::open(&AmqpSettings::new(&installation.amqp_url, "bench backlog")).await?;
    let depths = topology::depths(&connection.create_channel().await?, installation.partitions).await?;
    let depth = depths.iter().find(|depth| depth.queue == QUEUE.name()).context("the queue is declared")?;
    Ok(depth.messages)
}
