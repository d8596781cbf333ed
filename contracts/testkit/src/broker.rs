//! A vhost per test, created and deleted through the management API. Messages are published and taken over AMQP, whose
//! counts are exact, while those of the management API may be five seconds old.

use bytes::Bytes;
use contracts::envelope::CONTENT_TYPE;
use futures::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::environment;

/// Refused channels that are tolerated in a row: each refusal belongs to one closed channel.
const REFUSALS_MAX: usize = 3;
/// Persistent, in AMQP's numbering.
const PERSISTENT: u8 = 2;

/// A test's vhost.
#[derive(Debug)]
pub(crate) struct Vhost {
    pub(crate) name: String,
    pub(crate) amqp_url: Url,
    management: Url,
    http: reqwest::Client,
}

/// The management API's view of a queue; its numbers lag, its names do not.
#[derive(Debug, Deserialize)]
pub(crate) struct QueueInfo {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) messages: Option<u64>,
    #[serde(default)]
    pub(crate) exclusive: bool,
}

/// Exact counts, from a passive declaration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) ready: u32,
    pub(crate) consumers: u32,
}

impl Vhost {
    /// Creates it, and gives our user every permission in it.
    pub(crate) async fn create(name: &str) -> Self {
        let amqp_url = environment::with_path(&environment::url("AMQP_URL"), name);
        let vhost = Self {
            name: name.to_owned(),
            management: environment::url("AMQP_MANAGEMENT_URL"),
            http: reqwest::Client::new(),
            amqp_url,
        };
        vhost.put(&format!("/api/vhosts/{name}"), &json!({})).await;
        let user = vhost.amqp_url.username().to_owned();
        let permissions = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        vhost.put(&format!("/api/permissions/{name}/{user}"), &permissions).await;
        vhost
    }

    /// Deletes it with everything in it.
    pub(crate) async fn discard(name: &str) -> Result<(), reqwest::Error> {
        let url = environment::with_path(&environment::url("AMQP_MANAGEMENT_URL"), &format!("/api/vhosts/{name}"));
        let answer = reqwest::Client::new().delete(url).send().await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND { Ok(()) } else { answer.error_for_status().map(|_| ()) }
    }

    /// Every queue of the vhost.
    pub(crate) async fn queues(&self) -> Vec<QueueInfo> {
        let mut url = environment::with_path(&self.management, &format!("/api/queues/{}", self.name));
        url.set_query(Some("columns=name,messages,exclusive"));
        let answer = self.http.get(url).send().await.expect("the management API answers");
        let answer = answer.error_for_status().expect("our user may list the queues");
        answer.json().await.expect("the management API lists queues as JSON")
    }

    /// A connection of the test's own.
    pub(crate) async fn connect(&self) -> Connection {
        let properties = ConnectionProperties::default().with_connection_name("testkit".into());
        Connection::connect(self.amqp_url.as_str(), properties)
            .await
            .expect("RabbitMQ accepts connections: are the services up?")
    }

    /// Declares a durable quorum queue.
    pub(crate) async fn declare(connection: &Connection, queue: &str) {
        let channel = channel(connection).await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, arguments).await.expect("the queue is not there yet");
        close(&channel).await;
    }

    /// Deletes a queue under its consumers and declares a classic one instead, which our programs cannot redeclare.
    pub(crate) async fn replace_with_classic(connection: &Connection, queue: &str) {
        let channel = channel(connection).await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("the queue is ours to delete");
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, FieldTable::default()).await.expect("the name is free now");
        close(&channel).await;
    }

    /// Exact counts; `None` where there is no such queue, or it is exclusive to another connection.
    pub(crate) async fn counts(connection: &Connection, queue: &str) -> Option<Counts> {
        // A refused declaration closes the channel, so each has its own.
        let channel = channel(connection).await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
        let counts = Counts { ready: queue.message_count(), consumers: queue.consumer_count() };
        close(&channel).await;
        Some(counts)
    }

    /// Publishes any bytes, persistent, and awaits the confirm.
    pub(crate) async fn publish(connection: &Connection, exchange: &str, routing_key: &str, body: &[u8]) {
        let channel = channel(connection).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("a fresh channel takes confirm.select");
        let properties =
            BasicProperties::default().with_delivery_mode(PERSISTENT).with_content_type(CONTENT_TYPE.into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await;
        let confirm = confirm.expect("the channel takes a message").await;
        let confirm = confirm.unwrap_or_else(|error| panic!("publishing to `{exchange}`/`{routing_key}`: {error}"));
        assert!(matches!(confirm, Confirmation::Ack(None)), "`{exchange}`/`{routing_key}` leads nowhere: {confirm:?}");
        close(&channel).await;
    }

    /// Takes and acks one message.
    pub(crate) async fn get(connection: &Connection, queue: &str) -> Option<Bytes> {
        let channel = channel(connection).await;
        let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        let got = got.unwrap_or_else(|error| panic!("getting from `{queue}`: {error}"))?;
        got.acker.ack(BasicAckOptions::default()).await.expect("the channel is open");
        let body = Bytes::from(got.delivery.data);
        close(&channel).await;
        Some(body)
    }

    /// Takes and acks every ready message, in order, through a consumer: the queue of a single active consumer does not
    /// allow `basic.get`.
    pub(crate) async fn take_all(connection: &Connection, queue: &str) -> Vec<Bytes> {
        let Some(counts) = Self::counts(connection, queue).await else {
            return Vec::new();
        };
        let channel = channel(connection).await;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.into(), "take-all".into(), options, FieldTable::default()).await;
        let ready = counts.ready.try_into().expect("a few messages");
        let mut deliveries = consumer.expect("nobody else consumes it").take(ready);
        let mut bodies = Vec::new();
        while let Some(delivery) = deliveries.next().await {
            let delivery = delivery.unwrap_or_else(|error| panic!("taking from `{queue}`: {error}"));
            delivery.acker.ack(BasicAckOptions::default()).await.expect("the channel is open");
            bodies.push(Bytes::from(delivery.data));
        }
        close(&channel).await;
        bodies
    }

    /// Deletes every ready message of a queue.
    pub(crate) async fn purge(connection: &Connection, queue: &str) {
        let channel = channel(connection).await;
        let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await;
        purged.unwrap_or_else(|error| panic!("purging `{queue}`: {error}"));
        close(&channel).await;
    }

    async fn put(&self, path: &str, body: &serde_json::Value) {
        let url = environment::with_path(&self.management, path);
        let answer = self.http.put(url).json(body).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("RabbitMQ's management API does not answer: {error}"));
        answer.error_for_status().unwrap_or_else(|error| panic!("RabbitMQ refused to create the vhost: {error}"));
    }
}

async fn channel(connection: &Connection) -> Channel {
    // lapin can pass the refusal that closed a channel to the next one of its number: such a channel is opened again.
    for _ in 0..REFUSALS_MAX {
        if let Ok(channel) = connection.create_channel().await {
            return channel;
        }
    }
    connection.create_channel().await.expect("the test's connection is open")
}

async fn close(channel: &Channel) {
    channel.close(200, "done".into()).await.expect("the channel is open");
}
