//! The end of deliveries that were settled together, in order: send the live updates, publish follow-ups and forwards
//! until the broker has confirmed them, then ack everything up to the last delivery. One task a subscription, so that
//! acks advance only over the contiguous prefix, while the next deliveries are being settled and theirs published.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contracts::amqp::{Backoff, Publisher, Target};
use futures::{StreamExt, stream::FuturesOrdered};
use lapin::{Channel, options::BasicAckOptions};
use tokio::sync::mpsc;

use crate::{
    fault_injection::{self, Point},
    runtime::{settling::Outbound, shared::PoolContext},
};

/// Maximum of events that are published at once; more wait for the confirms of those before.
const PUBLISH_CHUNK: usize = 2_048;
/// Maximum of settled groups of deliveries whose follow-ups are not confirmed yet; beyond it settling waits.
const UNCONFIRMED_MAX: usize = 4;

/// Deliveries that are settled, and still to be acked.
pub struct Settled {
    pub outbound: Outbound,
    /// The delivery tag of the last one.
    pub last_tag: u64,
}

/// Publishes and acks until the sender is dropped (then all was acked) or the channel ends. The follow-ups of several
/// groups of deliveries may be in flight at once; their acks keep the order in which they were settled.
///
/// # Errors
/// The reason why the channel ended; what was not acked is delivered again.
pub async fn acknowledge_all(
    pool: Arc<PoolContext>,
    channel: Channel,
    mut settled: mpsc::Receiver<Settled>,
) -> Result<(), String> {
    let mut published = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(last_tag) = published.next() => acknowledge(&pool, &channel, last_tag?).await?,
            next = settled.recv(), if published.len() < UNCONFIRMED_MAX => match next {
                Some(next) => published.push_back(publish_outbound(&pool, &channel, next)),
                None => break,
            },
        }
    }
    while let Some(last_tag) = published.next().await {
        acknowledge(&pool, &channel, last_tag?).await?;
    }
    Ok(())
}

/// Sends live updates, publishes the rest; returns the tag that may then be acked.
async fn publish_outbound(pool: &PoolContext, channel: &Channel, settled: Settled) -> Result<u64, String> {
    let Settled { outbound, last_tag } = settled;
    if !outbound.live.is_empty() {
        pool.shared.publisher.publish_live(outbound.live);
    }
    // A process with this bug is held right here, and killed.
    if fault_injection::acks_before_follow_ups() {
        ack(channel, last_tag).await?;
        fault_injection::reach(Point::BetweenFollowUps).await;
    }
    let started = Instant::now();
    publish_all(&pool.shared.publisher, channel, &outbound.publish).await?;
    pool.stage("follow_ups", started);
    Ok(last_tag)
}

async fn acknowledge(pool: &PoolContext, channel: &Channel, last_tag: u64) -> Result<(), String> {
    fault_injection::reach(Point::BeforeAck).await;
    let started = Instant::now();
    ack(channel, last_tag).await?;
    pool.stage("ack", started);
    Ok(())
}

async fn publish_all(publisher: &Publisher, channel: &Channel, events: &[(Target, Bytes)]) -> Result<(), String> {
    // A process that is to be held between follow-ups publishes the first one by itself.
    let chunk_size = if fault_injection::holds_at(Point::BetweenFollowUps) { 1 } else { PUBLISH_CHUNK };
    for chunk in events.chunks(chunk_size) {
        publish(publisher, channel, chunk).await?;
        fault_injection::reach(Point::BetweenFollowUps).await;
    }
    Ok(())
}

/// Publishes until confirmed. What is not known to be confirmed is sent again: the same ids, which the next inbox
/// drops.
async fn publish(publisher: &Publisher, channel: &Channel, chunk: &[(Target, Bytes)]) -> Result<(), String> {
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
