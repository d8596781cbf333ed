//! Opening connections, bounded in time, without lapin's own recovery: that hides state, confirms hang and stale
//! delivery tags come back. The owner of a connection rebuilds it as a whole.

use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use rand::RngExt;

use super::AmqpSettings;

/// The reason why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The broker refused, or cannot be reached.
    #[error("the broker cannot be reached")]
    Refused(#[source] lapin::Error),
    /// No answer within the time limit.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
}

/// Opens a connection.
///
/// # Errors
/// [`ConnectError`] at the latest after `connect_timeout`.
pub async fn open(settings: &AmqpSettings) -> Result<Connection, ConnectError> {
    let properties = ConnectionProperties::default().with_connection_name(settings.connection_name.as_str().into());
    tokio::time::timeout(settings.connect_timeout, Connection::connect(&settings.url, properties))
        .await
        .map_err(|_| ConnectError::Timeout(settings.connect_timeout))?
        .map_err(ConnectError::Refused)
}

/// Exponential backoff with full jitter, from 50 ms to a bound.
#[derive(Debug)]
pub struct Backoff {
    next_ms: u64,
    max_ms: u64,
}

impl Backoff {
    /// Starts at 50 ms and doubles up to `max`.
    pub fn new(max: Duration) -> Self {
        Self { next_ms: 50, max_ms: u64::try_from(max.as_millis()).unwrap_or(u64::MAX) }
    }

    /// The time to wait before the next attempt: random, between half of the bound and the bound, which then doubles.
    pub fn next_delay(&mut self) -> Duration {
        let delay = rand::rng().random_range(self.next_ms / 2..=self.next_ms);
        self.next_ms = (self.next_ms * 2).min(self.max_ms);
        Duration::from_millis(delay)
    }
}
