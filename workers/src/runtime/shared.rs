//! Settings and connections that all subscriptions of a process share, and those of one pool. Both are made once, at
//! the start, and never change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contracts::{
    Partitions,
    amqp::{AmqpSettings, Publisher},
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::watch::Health;
use crate::config;

/// Settings and connections that all subscriptions share; one a process.
pub struct Shared {
    /// Limits and times.
    pub settings: config::Runtime,
    /// The broker that subscriptions connect to.
    pub amqp: AmqpSettings,
    /// Postgres.
    pub database: PgPool,
    /// Sends follow-ups, forwards and live updates.
    pub publisher: Publisher,
    /// Takes the state of each consumer.
    pub health: Health,
    /// Cancelled when the process is to stop.
    pub stop: CancellationToken,
}

impl Shared {
    /// Returns which queues are split.
    pub fn partitions(&self) -> Partitions {
        self.amqp.partitions
    }

    /// Waits so long, or until the process stops.
    pub async fn sleep_or_stop(&self, duration: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}

/// One pool of a process, as settling its deliveries needs it.
pub struct PoolContext {
    /// The pool's name, for metrics.
    pub name: &'static str,
    /// CloudEvents `source` of its follow-ups.
    pub source: String,
    /// Settings and connections, shared with the other pools.
    pub shared: Arc<Shared>,
}

/// The reason why deliveries were left unsettled; none of them may be acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The process stops.
    Stopping,
    /// Postgres has been away for too long: the deliveries are given back.
    DatabaseAway,
}

impl PoolContext {
    /// Returns the context of a pool.
    pub fn new(name: &'static str, shared: Arc<Shared>) -> Self {
        Self { name, source: format!("/workers/{name}"), shared }
    }

    /// Records how long a stage took, in seconds.
    pub fn stage(&self, stage: &'static str, since: Instant) {
        metrics::histogram!("stage_seconds", "pool" => self.name, "stage" => stage)
            .record(since.elapsed().as_secs_f64());
    }

    /// Waits a moment for Postgres.
    ///
    /// # Errors
    /// [`Interrupted`] where the process stops meanwhile, or Postgres has been away for longer than `pause_after_ms`.
    pub async fn wait_for_database(&self, away_since: Instant, pause: Duration) -> Result<(), Interrupted> {
        if away_since.elapsed() > Duration::from_millis(self.shared.settings.pause_after_ms) {
            return Err(Interrupted::DatabaseAway);
        }
        tokio::select! {
            () = self.shared.stop.cancelled() => Err(Interrupted::Stopping),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
