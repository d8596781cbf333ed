//! The collecting of deliveries to settle together: whole ones that are ready, up to `batch_max` rows, and under load a
//! moment's wait for more. No added latency when idle, full transactions under load. While it waits it asks the broker,
//! so that a subscription that went silent is noticed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use lapin::{Channel, Consumer, message::Delivery, options::QueueDeclareOptions, types::FieldTable};

use super::spec::SubscriptionSpec;
use crate::runtime::settling::{Deliveries, decode_body};

/// Time between two questions of a waiting consumer to the broker.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Number of times in a row that messages may be ready while none is delivered.
const PROBES_MISSED_MAX: u32 = 3;

/// Deliveries that were collected, in order.
#[derive(Default)]
pub struct Collected {
    pub deliveries: Deliveries,
    /// Number of deliveries, each an array of events.
    pub len: usize,
    /// Rows that they write, by weight.
    pub rows: usize,
    /// The delivery tag of the last one, up to which to ack.
    pub last_tag: u64,
}

/// The reason why nothing was collected.
#[derive(Debug)]
pub enum Stop {
    /// The process stops.
    Cancelled,
    /// The subscription is gone, for this reason.
    Lost(String),
}

/// Waits for deliveries. `active`: whether the broker delivers to this consumer what is ready, and not to another.
///
/// # Errors
/// [`Stop`]; what was collected so far is not lost, as it was not acked.
pub async fn collect(
    spec: &SubscriptionSpec,
    channel: &Channel,
    consumer: &mut Consumer,
    active: bool,
) -> Result<Collected, Stop> {
    let shared = &spec.pool.shared;
    // A backlog must not keep a process that was asked to stop: with it there is always a delivery ready.
    if shared.stop.is_cancelled() {
        return Err(Stop::Cancelled);
    }
    // A consumer that had to wait for the first delivery is idle, and lingering would only delay that one.
    let (first, linger_ms) = match consumer.next().now_or_never() {
        Some(first) => (open(first)?, shared.settings.linger_ms),
        None => (first_delivery(spec, channel, consumer, active).await?, 0),
    };
    let mut collected = Collected::default();
    add(spec, &mut collected, first);
    let lingering = tokio::time::sleep(Duration::from_millis(linger_ms));
    tokio::pin!(lingering);
    let (rows_max, deliveries_max) = (spec.role.rows_max(&shared.settings), spec.role.deliveries_max());
    while collected.rows < rows_max && collected.len < deliveries_max {
        // What is there already costs no wait.
        if let Some(next) = consumer.next().now_or_never() {
            add(spec, &mut collected, open(next)?);
            continue;
        }
        tokio::select! {
            biased;
            next = consumer.next() => add(spec, &mut collected, open(next)?),
            () = &mut lingering => break,
        }
    }
    Ok(collected)
}

async fn first_delivery(
    spec: &SubscriptionSpec,
    channel: &Channel,
    consumer: &mut Consumer,
    active: bool,
) -> Result<Delivery, Stop> {
    let mut missed = 0;
    loop {
        tokio::select! {
            biased;
            () = spec.pool.shared.stop.cancelled() => return Err(Stop::Cancelled),
            delivery = consumer.next() => return open(delivery),
            () = tokio::time::sleep(PROBE_EVERY) => {
                let (ready, consumers) = probe(spec, channel).await?;
                // Where another consumer is active it is right that nothing comes, as long as there is one.
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

/// Asks the broker for the queue's numbers of ready messages and of consumers.
async fn probe(spec: &SubscriptionSpec, channel: &Channel) -> Result<(u32, u32), Stop> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let declared = channel.queue_declare(spec.queue.as_str().into(), options, FieldTable::default());
    let queue = tokio::time::timeout(PROBE_EVERY, declared)
        .await
        .map_err(|_| Stop::Lost("the broker does not answer on the channel".into()))?
        .map_err(|error| Stop::Lost(error.to_string()))?;
    Ok((queue.message_count(), queue.consumer_count()))
}

/// Decodes a delivery and adds its events.
fn add(spec: &SubscriptionSpec, collected: &mut Collected, delivery: Delivery) {
    let received = Instant::now();
    collected.last_tag = delivery.delivery_tag;
    collected.len += 1;
    for element in decode_body(Bytes::from(delivery.data)) {
        match element {
            Ok(event) => {
                collected.rows += spec.settler.weight(&event.kind);
                collected.deliveries.events.push(event);
            }
            Err(undecodable) => collected.deliveries.undecodable.push(undecodable),
        }
    }
    spec.pool.stage("decode", received);
}
