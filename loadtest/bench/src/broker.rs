//! Connection to RabbitMQ that reads queue depths, purges queues, and takes events out of queues without a consumer to
//! count them: those of mails and PDFs, whose pools do not run in most scenarios.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, bail};
use contracts::{
    Partitions, Queue,
    amqp::{self, AmqpSettings, topology},
};
use futures::StreamExt as _;
use lapin::{
    Channel, Connection,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions,
        QueuePurgeOptions,
    },
    types::FieldTable,
};
use serde::Deserialize;

const PREFETCH: u16 = 200;
const SILENCE: Duration = Duration::from_millis(500);

/// An AMQP connection of the benchmark's own.
pub(crate) struct Broker {
    channel: Channel,
    connection: Connection,
    partitions: Partitions,
}

/// Counts of what was taken out of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventCounts {
    /// AMQP messages.
    pub messages: usize,
    /// Events in these messages.
    pub events: usize,
    /// Distinct event ids.
    pub distinct: usize,
}

#[derive(Deserialize)]
struct Event<'a> {
    id: &'a str,
}

impl Broker {
    /// Connects and declares the topology.
    ///
    /// # Errors
    /// Where the broker cannot be reached.
    pub(crate) async fn connect(url: &str, partitions: Partitions) -> anyhow::Result<Self> {
        let connection = amqp::open(&AmqpSettings::new(url, "bench")).await?;
        let channel = connection.create_channel().await?;
        topology::declare(&channel, partitions).await?;
        Ok(Self { channel, connection, partitions })
    }

    /// Returns the number of ready AMQP messages in all queues that have a consumer.
    ///
    /// # Errors
    /// Where the channel ends.
    pub(crate) async fn waiting(&self) -> anyhow::Result<u64> {
        let depths = topology::depths(&self.channel, self.partitions).await?;
        Ok(depths.iter().filter(|depth| depth.consumers > 0).map(|depth| u64::from(depth.messages)).sum())
    }

    /// Purges all queues, since messages of an earlier run refer to a database that no longer exists, and deletes the
    /// partitions of an earlier run with more partitions, which would be consumed otherwise.
    ///
    /// # Errors
    /// Where the channel ends.
    pub(crate) async fn purge(&self) -> anyhow::Result<()> {
        for queue in topology::queue_names(self.partitions) {
            self.channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await.context(queue)?;
        }
        for queue in Queue::ALL {
            let left = topology::orphaned_queues(&self.connection, queue, self.partitions).await?;
            for (partition, _) in left.into_iter().filter(|(left, _)| left.is_partition()) {
                let name = partition.to_string();
                self.channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.context(name)?;
            }
        }
        Ok(())
    }

    /// Takes all events out of a queue, or none where it has a consumer.
    ///
    /// # Errors
    /// Where the channel ends, or a message is not an array of events.
    pub(crate) async fn take_unconsumed(&self, queue: Queue) -> anyhow::Result<EventCounts> {
        let depths = topology::depths(&self.channel, self.partitions).await?;
        match depths.iter().any(|depth| depth.queue == queue.name() && depth.consumers > 0) {
            true => Ok(EventCounts::default()),
            false => self.take_all(queue).await,
        }
    }

    /// Takes all events out of a queue.
    ///
    /// # Errors
    /// Where the queue has a consumer, the channel ends, or a message is not an array of events.
    pub(crate) async fn take_all(&self, queue: Queue) -> anyhow::Result<EventCounts> {
        let depths = topology::depths(&self.channel, self.partitions).await?;
        let depth = depths.iter().find(|depth| depth.queue == queue.name()).context("the queue is declared")?;
        if depth.consumers > 0 {
            bail!("`{}` has a consumer, so its events cannot be counted", queue.name());
        }
        let (mut taken, mut ids) = (EventCounts::default(), HashSet::new());
        self.channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (name, tag) = (queue.name().into(), "bench".into());
        let options = BasicConsumeOptions::default();
        let mut consumer = self.channel.basic_consume(name, tag, options, FieldTable::default()).await?;
        while let Ok(Some(delivery)) = tokio::time::timeout(SILENCE, consumer.next()).await {
            let delivery = delivery?;
            let events: Vec<Event<'_>> = serde_json::from_slice(&delivery.data).context("not an array of events")?;
            taken.messages += 1;
            taken.events += events.len();
            ids.extend(events.iter().map(|event| event.id.to_owned()));
            if taken.messages % usize::from(PREFETCH / 2) == 0 {
                delivery.acker.ack(BasicAckOptions { multiple: true }).await?;
            }
        }
        // Delivery tag 0 with `multiple` acknowledges all deliveries so far.
        self.channel.basic_ack(0, BasicAckOptions { multiple: true }).await?;
        self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
        taken.distinct = ids.len();
        Ok(taken)
    }
}
