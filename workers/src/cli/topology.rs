//! `workers topology`: declares what every gateway and worker declares when it connects, and shows every queue.

use anyhow::Context as _;
use contracts::{
    Queue,
    amqp::{AmqpSettings, open, topology},
};
use secrecy::ExposeSecret;

use crate::config::WorkerSettings;

/// No options: `amqp.url` names the broker.
#[derive(Debug, clap::Args)]
pub struct TopologyArgs {}

/// Declares the topology, then prints each queue with its ready messages and its consumers. A message is an array of up to
/// 64 events. Orphaned partitions, left by a larger number of partitions, come last.
///
/// # Errors
/// A broker that does not answer, or a queue that exists with other arguments.
pub async fn run(_args: TopologyArgs, settings: WorkerSettings) -> anyhow::Result<()> {
    let amqp = AmqpSettings::new(settings.amqp.url.expose_secret(), "workers topology").split(settings.partitions);
    let connection = open(&amqp).await.context("amqp.url")?;
    let channel = connection.create_channel().await?;
    topology::declare(&channel, amqp.partitions).await.context(
        "the topology could not be declared; a queue that exists with other arguments must be drained and deleted first",
    )?;
    let mut lines = format!("{:<26} {:>9} {:>10}\n", "queue", "messages", "consumers");
    let mut depths = topology::depths(&channel, amqp.partitions).await?;
    for pool in Queue::ALL {
        let left = topology::orphaned_queues(&connection, pool, amqp.partitions).await?;
        depths.extend(left.into_iter().filter(|(left, _)| left.is_partition()).map(|(_, depth)| depth));
    }
    for topology::Depth { queue, messages, consumers } in depths {
        lines.push_str(&format!("{queue:<26} {messages:>9} {consumers:>10}\n"));
    }
    print!("{lines}");
    connection.close(200, "bye".into()).await?;
    Ok(())
}
