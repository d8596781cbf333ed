//! The end of a batch, in order: tell the live exchange, publish follow-ups and forwards until the broker confirmed
//! them, then ack everything up to the batch's last delivery. One task a subscription, so that acks advance only over
//! the contiguous prefix, while the next batches are being settled and theirs published.

use std::time::{Duration, Instant};

use contracts::amqp::{Backoff, Publisher};
use futures::{StreamExt, stream::FuturesOrdered};
use lapin::{Channel, options::BasicAckOptions};
use tokio::sync::mpsc;

use super::{consumer::Context, disposition::Outbound};

/// Events that are published at once; more wait for the confirms of those before.
const PUBLISH_CHUNK: usize = 2_048;
/// Settled batches whose follow-ups are not confirmed yet; beyond them settling waits.
const OUTBOUND_IN_FLIGHT_MAX: usize = 4;
/// In place of a tag: acked already. Tags begin at 1.
#[cfg(feature = "planted-bugs")]
const ACKED: u64 = 0;

/// A settled batch that is still to be acked.
pub struct Finish {
    pub outbound: Outbound,
    pub last_tag: u64,
}

/// Finishes batches until the sender is dropped (then all was acked) or the channel ends. The follow-ups of several
/// batches may be under way at once; their acks keep the batches' order.
///
/// # Errors
/// Why the channel ended; what was not acked comes again.
pub async fn finish_all(context: Context, channel: Channel, mut settled: mpsc::Receiver<Finish>) -> Result<(), String> {
    let mut published = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(last_tag) = published.next() => acknowledge(&context, &channel, last_tag?).await?,
            finish = settled.recv(), if published.len() < OUTBOUND_IN_FLIGHT_MAX => match finish {
                Some(finish) => published.push_back(publish_outbound(&context, &channel, finish)),
                None => break,
            },
        }
    }
    while let Some(last_tag) = published.next().await {
        acknowledge(&context, &channel, last_tag?).await?;
    }
    Ok(())
}

/// Tells and publishes what a batch owes; answers the tag that may then be acked.
async fn publish_outbound(context: &Context, channel: &Channel, finish: Finish) -> Result<u64, String> {
    let Finish { outbound, last_tag } = finish;
    if !outbound.live.is_empty() {
        context.publisher.publish_live(outbound.live);
    }
    #[cfg(feature = "planted-bugs")]
    if super::fault_injection::ack_before_follow_ups() {
        ack(channel, last_tag).await?;
        super::fault_injection::reach(super::fault_injection::Point::BetweenFollowUps).await;
        publish_all(context, channel, outbound.publish).await?;
        return Ok(ACKED);
    }
    let started = Instant::now();
    publish_all(context, channel, outbound.publish).await?;
    context.stage("follow_ups", started);
    Ok(last_tag)
}

async fn acknowledge(context: &Context, channel: &Channel, last_tag: u64) -> Result<(), String> {
    #[cfg(feature = "planted-bugs")]
    {
        if last_tag == ACKED {
            return Ok(());
        }
        super::fault_injection::reach(super::fault_injection::Point::BeforeAck).await;
    }
    let started = Instant::now();
    ack(channel, last_tag).await?;
    context.stage("ack", started);
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
            && super::fault_injection::holds_at(super::fault_injection::Point::BetweenFollowUps)
        {
            publish(&context.publisher, channel, std::slice::from_ref(first)).await?;
            super::fault_injection::reach(super::fault_injection::Point::BetweenFollowUps).await;
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
