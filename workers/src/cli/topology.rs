//! `workers topology`: declares what every gateway and worker declares when it connects, and shows every queue.

use anyhow::Context as _;
use contracts::amqp::{AmqpSettings, open, topology};
use secrecy::ExposeSecret;

use crate::config::Settings;

/// It has no options: `amqp.url` names the broker.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Declares, then prints each queue with the messages that are ready and its consumers. A message is an array of up to
/// 64 events.
///
/// # Errors
/// A broker that does not answer, or a queue that exists with other arguments.
pub async fn run(_args: Args, settings: Settings) -> anyhow::Result<()> {
    let amqp = AmqpSettings::new(settings.amqp.url.expose_secret(), "workers topology");
    let connection = open(&amqp).await.context("amqp.url")?;
    let channel = connection.create_channel().await?;
    topology::declare(&channel).await.context(
        "the topology could not be declared; a queue that exists with other arguments must be drained and deleted first",
    )?;
    let mut lines = format!("{:<26} {:>9} {:>10}\n", "queue", "messages", "consumers");
    for topology::Depth { queue, messages, consumers } in topology::depths(&channel).await? {
        lines.push_str(&format!("{queue:<26} {messages:>9} {consumers:>10}\n"));
    }
    print!("{lines}");
    connection.close(200, "bye".into()).await?;
    Ok(())
}
