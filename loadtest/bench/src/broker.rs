//! The broker, asked for what still waits, and for the mails that nobody sends while the e-mail pool is stopped: they are
//! taken out and counted one by one, as each message is an array of them.

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

/// A connection of our own to the broker.
pub struct Broker {
    channel: Channel,
    connection: Connection,
    partitions: Partitions,
}

/// The events of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// AMQP messages.
    pub messages: usize,
    /// Events in them.
    pub events: usize,
    /// Events with an id of their own.
    pub distinct: usize,
}

#[derive(Deserialize)]
struct Event<'a> {
    id: &'a str,
}

impl Broker {
    /// Connects.
    ///
    /// # Errors
    /// Where the broker cannot be reached.
    pub async fn connect(url: &str, partitions: Partitions) -> anyhow::Result<Self> {
        let connection = amqp::open(&AmqpSettings::new(url, "bench")).await?;
        let channel = connection.create_channel().await?;
        topology::declare(&channel, partitions).await?;
        Ok(Self { channel, connection, partitions })
    }

    /// Messages that are ready in all queues that somebody consumes.
    ///
    /// # Errors
    /// Where the channel ends.
    pub async fn waiting(&self) -> anyhow::Result<u64> {
        let depths = topology::depths(&self.channel, self.partitions).await?;
        Ok(depths.iter().filter(|depth| depth.consumers > 0).map(|depth| u64::from(depth.messages)).sum())
    }

    /// Empties all queues: what an earlier run left belongs to a database that is gone. Its partitions, where it had more
    /// of them, go as a whole, or they would be consumed.
    ///
    /// # Errors
    /// Where the channel ends.
    pub async fn purge(&self) -> anyhow::Result<()> {
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

    /// Takes everything out of a queue that nobody consumes; of one that somebody does, nothing.
    ///
    /// # Errors
    /// Where the channel ends, or a message is no array of events.
    pub async fn take_unconsumed(&self, queue: Queue) -> anyhow::Result<Taken> {
        let depths = topology::depths(&self.channel, self.partitions).await?;
        match depths.iter().any(|depth| depth.queue == queue.name() && depth.consumers > 0) {
            true => Ok(Taken::default()),
            false => self.take_all(queue).await,
        }
    }

    /// Takes everything out of a queue.
    ///
    /// # Errors
    /// Where somebody else consumes it, the channel ends, or a message is no array of events.
    pub async fn take_all(&self, queue: Queue) -> anyhow::Result<Taken> {
        let depths = topology::depths(&self.channel, self.partitions).await?;
        let depth = depths.iter().find(|depth| depth.queue == queue.name()).context("the queue is declared")?;
        if depth.consumers > 0 {
            bail!("`{}` has a consumer, so its events cannot be counted", queue.name());
        }
        let (mut taken, mut ids) = (Taken::default(), HashSet::new());
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
        // Tag 0 is everything so far.
        self.channel.basic_ack(0, BasicAckOptions { multiple: true }).await?;
        self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
        taken.distinct = ids.len();
        Ok(taken)
    }
}
