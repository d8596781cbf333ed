//! Access to the broker: a supervised connection, a publisher that answers only when a message is durable, the
//! topology, and the live exchange. Besides the worker runtime this is the only code that knows AMQP.
//!
//! Invariant: a message for which [`Publisher`] returned `Ok` survives a broker crash.

mod confirms;
mod connection;
mod link_state;
pub mod live;
mod outgoing;
mod publish_error;
mod publisher;
mod target;
pub mod topology;

use std::time::Duration;

use crate::Partitions;

pub use connection::{Backoff, ConnectError, open};
pub use live::{LiveMessage, LiveOperation};
pub use publish_error::PublishError;
pub use publisher::Publisher;
pub use target::Target;

/// The broker's address, time limits, and limits on what is in flight.
#[derive(Clone)]
pub struct AmqpSettings {
    /// `amqp://user:password@host:port/vhost?heartbeat=10`.
    pub url: String,
    /// Shown in the management console.
    pub connection_name: String,
    /// Time limit of a connection attempt.
    pub connect_timeout: Duration,
    /// Time limit of a confirm; after it the outcome counts as unknown.
    pub confirm_timeout: Duration,
    /// Most events that wait for a confirm; beyond it publishing is refused as overloaded.
    pub in_flight_max: usize,
    /// Most AMQP messages that wait for a confirm; events published meanwhile are grouped into arrays.
    pub window: usize,
    /// The partitioning of the queues, the same for all programs.
    pub partitions: Partitions,
}

impl AmqpSettings {
    /// Settings for this broker, with defaults that suit one machine.
    pub fn new(url: impl Into<String>, connection_name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connection_name: connection_name.into(),
            connect_timeout: Duration::from_secs(5),
            confirm_timeout: Duration::from_secs(5),
            in_flight_max: 16_384,
            window: 8,
            partitions: Partitions::default(),
        }
    }

    /// The same settings with queues split.
    #[must_use]
    pub fn split(self, partitions: Partitions) -> Self {
        Self { partitions, ..self }
    }
}

impl std::fmt::Debug for AmqpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpSettings")
            .field("url", &"[redacted]")
            .field("connection_name", &self.connection_name)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("in_flight_max", &self.in_flight_max)
            .field("window", &self.window)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}
