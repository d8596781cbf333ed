//! Gathering a batch: whole deliveries that are ready, up to `batch_max` rows, and under load a moment's wait for more. No
//! added latency when idle, full batches under load. While it waits it asks the broker, so that a subscription that went
//! silent is noticed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use lapin::{Channel, Consumer, message::Delivery, options::QueueDeclareOptions, types::FieldTable};

use super::{
    consumer::Context,
    raw_event::{RawEvent, Undecodable, decode_body},
};

/// How often a waiting consumer asks the broker.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How many times in a row messages may be ready while none comes.
const PROBES_MISSED_MAX: u32 = 3;

/// What was gathered, in order, and the tag up to which it acks.
#[derive(Default)]
pub struct Deliveries {
    pub events: Vec<RawEvent>,
    pub undecodable: Vec<Undecodable>,
    /// Rows, by weight.
    pub weight: usize,
    pub deliveries: usize,
    pub last_tag: u64,
}

/// Why nothing was gathered.
#[derive(Debug)]
pub enum Stop {
    /// The process stops, or the subscription was given up elsewhere.
    Cancelled,
    /// The subscription is gone.
    Lost(String),
}

/// Waits for the next batch. `active`: whether deliveries that are ready are this consumer's to get.
///
/// # Errors
/// [`Stop`]; what was gathered so far is not lost, it was not acked.
pub async fn next_deliveries(
    context: &Context,
    channel: &Channel,
    consumer: &mut Consumer,
    active: bool,
) -> Result<Deliveries, Stop> {
    let mut deliveries = Deliveries::default();
    // A backlog must not keep a process that was asked to stop: with it there is always a delivery ready.
    if context.stop.is_cancelled() {
        return Err(Stop::Cancelled);
    }
    // Whoever had to wait for the first delivery is idle, and lingering would only delay that one.
    let (first, linger_ms) = match consumer.next().now_or_never() {
        Some(first) => (open(first)?, context.settings.linger_ms),
        None => (first_delivery(context, channel, consumer, active).await?, 0),
    };
    add(context, &mut deliveries, first);
    let lingering = tokio::time::sleep(Duration::from_millis(linger_ms));
    tokio::pin!(lingering);
    while deliveries.weight < context.rows_max && deliveries.deliveries < context.deliveries_max {
        // What is there already costs no wait.
        if let Some(next) = consumer.next().now_or_never() {
            add(context, &mut deliveries, open(next)?);
            continue;
        }
        tokio::select! {
            biased;
            next = consumer.next() => add(context, &mut deliveries, open(next)?),
            () = &mut lingering => break,
        }
    }
    Ok(deliveries)
}

async fn first_delivery(
    context: &Context,
    channel: &Channel,
    consumer: &mut Consumer,
    active: bool,
) -> Result<Delivery, Stop> {
    let mut missed = 0;
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return Err(Stop::Cancelled),
            delivery = consumer.next() => return open(delivery),
            () = tokio::time::sleep(PROBE_EVERY) => {
                let (ready, consumers) = probe(context, channel).await?;
                // Where another one is active it is right that nothing comes, as long as there is one.
                let silent = if active { ready > 0 } else { consumers == 0 };
                missed = if silent { missed + 1 } else { 0 };
                if missed == PROBES_MISSED_MAX {
                    let why = format!("{ready} messages are ready for {consumers} consumers, and none is delivered");
                    return Err(Stop::Lost(why));
                }
            }
        }
    }
}

fn open(delivery: Option<lapin::Result<Delivery>>) -> Result<Delivery, Stop> {
    match delivery {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(error)) => Err(Stop::Lost(error.to_string())),
        None => Err(Stop::Lost("the broker cancelled the consumer".into())),
    }
}

/// Messages that are ready, and consumers.
async fn probe(context: &Context, channel: &Channel) -> Result<(u32, u32), Stop> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let asked = channel.queue_declare(context.queue.as_str().into(), options, FieldTable::default());
    let queue = tokio::time::timeout(PROBE_EVERY, asked)
        .await
        .map_err(|_| Stop::Lost("the broker does not answer on the channel".into()))?
        .map_err(|error| Stop::Lost(error.to_string()))?;
    Ok((queue.message_count(), queue.consumer_count()))
}

fn add(context: &Context, deliveries: &mut Deliveries, delivery: Delivery) {
    let received = Instant::now();
    deliveries.last_tag = delivery.delivery_tag;
    deliveries.deliveries += 1;
    for element in decode_body(Bytes::from(delivery.data)) {
        match element {
            Ok(event) => {
                deliveries.weight += context.weight(&event.kind);
                deliveries.events.push(event);
            }
            Err(undecodable) => deliveries.undecodable.push(undecodable),
        }
    }
    context.stage("decode", received);
}
