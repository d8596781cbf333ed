//! The live exchange: workers broadcast which operations were settled, which users were notified and which sessions
//! ended, and every gateway listens. Ids and names only: a gateway reads the rows that one of its clients waits for,
//! and drops the rest without a query. Transient: a missed message costs a slow poll, never correctness.

use std::time::Duration;

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::Role;

use super::{AmqpSettings, Backoff, ConnectError, open, topology};

/// One transaction's updates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveMessage {
    /// Settled operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<LiveOperation>,
    /// Users with a new notification.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notified: Vec<Uuid>,
    /// Roles of which every active user has a new notification.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notified_roles: Vec<Role>,
    /// Sessions that ended: their access tokens are no longer valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked_sids: Vec<Uuid>,
}

impl LiveMessage {
    /// Returns true if there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
            && self.notified.is_empty()
            && self.notified_roles.is_empty()
            && self.revoked_sids.is_empty()
    }
}

/// One settled operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveOperation {
    /// `operations.id`.
    pub id: Uuid,
    /// `succeeded`, `rejected` or `failed`; `duplicate` where it had been settled before.
    pub state: String,
    /// The user who submitted it; none for visitors and the platform itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Uuid>,
}

/// A received message, or a change of the connection after which messages may have been missed.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveEvent {
    /// A received message.
    Message(LiveMessage),
    /// Connected or reconnected: messages from before this moment were not received.
    Connected,
    /// The connection was lost: nothing is received until the next [`LiveEvent::Connected`].
    Disconnected,
}

/// Publishes a message to every gateway.
pub(super) async fn send(channel: &Channel, message: &LiveMessage) -> lapin::Result<()> {
    let body = serde_json::to_vec(message).expect("a live message holds only ids and strings");
    let properties = BasicProperties::default().with_delivery_mode(1).with_content_type("application/json".into());
    let options = BasicPublishOptions::default();
    // Awaited although it resolves at once: a dropped confirm would be remembered by lapin until the channel closes.
    channel.basic_publish(topology::LIVE.into(), "".into(), options, &body, properties).await?.await.map(|_| ())
}

/// Starts a task that listens on an exclusive queue of its own and reconnects for ever. It ends when the receiver is
/// dropped.
pub fn subscribe(settings: AmqpSettings) -> mpsc::Receiver<LiveEvent> {
    let (events, receiver) = mpsc::channel(1_024);
    tokio::spawn(async move {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        while !events.is_closed() {
            match listen(&settings).await {
                Ok((_connection, consumer)) => {
                    backoff = Backoff::new(Duration::from_secs(2));
                    forward(consumer, &events).await;
                    tracing::warn!("the live connection broke");
                    let _ = events.send(LiveEvent::Disconnected).await;
                }
                Err(error) => tracing::warn!(%error, "cannot subscribe to the live exchange yet"),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    });
    receiver
}

async fn listen(settings: &AmqpSettings) -> Result<(Connection, Consumer), ConnectError> {
    let connection = open(settings).await?;
    let build = async {
        let channel = connection.create_channel().await?;
        topology::declare(&channel, settings.partitions).await?;
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
        let name = queue.name().clone();
        channel
            .queue_bind(
                name.clone(),
                topology::LIVE.into(),
                "".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..Default::default() };
        channel.basic_consume(name, "live".into(), options, FieldTable::default()).await
    };
    let consumer = tokio::time::timeout(settings.connect_timeout, build)
        .await
        .map_err(|_| ConnectError::Timeout(settings.connect_timeout))?
        .map_err(ConnectError::Refused)?;
    Ok((connection, consumer))
}

async fn forward(mut consumer: Consumer, events: &mpsc::Sender<LiveEvent>) {
    if events.send(LiveEvent::Connected).await.is_err() {
        return;
    }
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            () = events.closed() => return,
        };
        let Some(Ok(delivery)) = delivery else { return };
        match serde_json::from_slice(&delivery.data) {
            Ok(message) => {
                if events.send(LiveEvent::Message(message)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "a live message cannot be decoded"),
        }
    }
}
