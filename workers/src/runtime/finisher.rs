//! The end of a batch, in order: tell the live exchange, publish follow-ups and forwards until the broker confirmed
//! them, then ack everything up to the batch's last delivery. One task a subscription, so that acks advance only over
//! the contiguous prefix, while the next batch is being settled.

use std::time::{Duration, Instant};

use contracts::amqp::{Backoff, Publisher};
use lapin::{Channel, options::BasicAckOptions};
use tokio::sync::mpsc;

use super::{consumer::Context, fate::Dues};

/// Events that are published at once; more wait for the confirms of those before.
const PUBLISH_CHUNK: usize = 2_048;

/// A settled batch that is still to be acked.
pub struct Finish {
    pub dues: Dues,
    pub last_tag: u64,
}

/// Finishes batches until the sender is dropped (then all was acked) or the channel ends.
///
/// # Errors
/// Why the channel ended; what was not acked comes again.
pub async fn finish_all(context: Context, channel: Channel, mut batches: mpsc::Receiver<Finish>) -> Result<(), String> {
    while let Some(Finish { dues, last_tag }) = batches.recv().await {
        if !dues.live.is_empty() {
            context.publisher.publish_live(dues.live);
        }
        #[cfg(feature = "planted-bugs")]
        if super::planted::ack_before_follow_ups() {
            ack(&channel, last_tag).await?;
            super::planted::reach(super::planted::Point::BetweenFollowUps).await;
            publish_all(&context, &channel, dues.publish).await?;
            continue;
        }
        let started = Instant::now();
        publish_all(&context, &channel, dues.publish).await?;
        context.stage("follow_ups", started);
        #[cfg(feature = "planted-bugs")]
        super::planted::reach(super::planted::Point::BeforeAck).await;
        let started = Instant::now();
        ack(&channel, last_tag).await?;
        context.stage("ack", started);
    }
    Ok(())
}

async fn publish_all(
    context: &Context,
    channel: &Channel,
    events: Vec<(contracts::amqp::Target, bytes::Bytes)>,
) -> Result<(), String> {
    for chunk in events.chunks(PUBLISH_CHUNK) {
        #[cfg(feature = "planted-bugs")]
        if let [first, rest @ ..] = chunk
            && super::planted::holds_at(super::planted::Point::BetweenFollowUps)
        {
            publish(&context.publisher, channel, std::slice::from_ref(first)).await?;
            super::planted::reach(super::planted::Point::BetweenFollowUps).await;
            publish(&context.publisher, channel, rest).await?;
            continue;
        }
        publish(&context.publisher, channel, chunk).await?;
    }
    Ok(())
}

/// Publishes until confirmed. What is unknown is sent again: the same ids, absorbed by the next inbox.
async fn publish(
    publisher: &Publisher,
    channel: &Channel,
    chunk: &[(contracts::amqp::Target, bytes::Bytes)],
) -> Result<(), String> {
    let mut backoff = Backoff::new(Duration::from_secs(1));
    loop {
        match publisher.publish_to(chunk.iter().cloned()).await {
            Ok(()) => return Ok(()),
            Err(error) if channel.status().connected() => {
                tracing::warn!(%error, events = chunk.len(), "follow-ups wait for the broker");
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(error) => return Err(format!("the channel ended while follow-ups waited: {error}")),
        }
    }
}

async fn ack(channel: &Channel, tag: u64) -> Result<(), String> {
    channel.basic_ack(tag, BasicAckOptions { multiple: true }).await.map_err(|error| error.to_string())
}
