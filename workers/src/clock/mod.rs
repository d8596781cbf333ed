//! The pool `clock`: publishes commands when they become due, and prunes old rows. It changes no other data: it has no source
//! queue to be its outbox, so the ids of its commands derive from their subject and due time, and a command that is
//! published again is deduplicated.

mod due;
mod prune;

use std::time::Duration;

use contracts::{NewEvent, amqp::Publisher};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{config::Clock, runtime::chain};
use due::{Due, Unsettled};
use prune::Pruning;

/// The advisory lock of the active clock: "clock" in ASCII.
const LOCK: i64 = 0x63_6c6f_636b;

/// Ticks until the shutdown. Any number of clocks may run; one is active, the others stand by. Failures (the database or the
/// broker is away) are logged and retried at the next tick.
///
/// # Errors
/// None so far: only a shutdown ends it.
pub async fn run(
    pool: PgPool,
    publisher: Publisher,
    settings: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(settings.tick_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clock = Ticker {
        pool,
        publisher,
        settings,
        lock: None,
        expiries: Unsettled::default(),
        reminders: Unsettled::default(),
        pruning: None,
        pruned_at: None,
        shutdown: shutdown.clone(),
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if let Err(error) = clock.tick().await {
            tracing::warn!(error = chain(error.as_ref()), "the clock failed to tick; it retries at the next one");
        }
    }
    if let Some(lock) = clock.lock {
        // The lock ends with its connection, also where closing fails.
        lock.close().await.ok();
    }
    Ok(())
}

struct Ticker {
    pool: PgPool,
    publisher: Publisher,
    settings: Clock,
    /// Holds the advisory lock for as long as it is open.
    lock: Option<PgConnection>,
    expiries: Unsettled,
    reminders: Unsettled,
    /// The pruning in progress.
    pruning: Option<Pruning>,
    /// The end of the last pruning.
    pruned_at: Option<Instant>,
    shutdown: CancellationToken,
}

impl Ticker {
    async fn tick(&mut self) -> anyhow::Result<()> {
        if !self.is_active().await? {
            return Ok(());
        }
        let expired = due::expired(&self.pool, &self.settings, &mut self.expiries).await?;
        publish(&self.publisher, "expired holds", &expired).await?;
        self.expiries.remember(&expired);
        if self.settings.reminder_before_minutes > 0 {
            let reminders = due::reminders(&self.pool, &self.settings, &mut self.reminders).await?;
            publish(&self.publisher, "reminders", &reminders).await?;
            self.reminders.remember(&reminders);
        }
        self.prune().await
    }

    /// Prunes once per interval, by small deletes, each followed by a pause of its own length, so that it uses one
    /// connection half of the time, also where deletes become slow. What is left at the next tick continues there.
    async fn prune(&mut self) -> anyhow::Result<()> {
        let every = Duration::from_millis(self.settings.prune_every_ms);
        if self.pruning.is_none() && self.pruned_at.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        let (began, tick) = (Instant::now(), Duration::from_millis(self.settings.tick_ms));
        let pruning = self.pruning.get_or_insert_default();
        while began.elapsed() < tick && !self.shutdown.is_cancelled() {
            let delete_began = Instant::now();
            if !pruning.delete_some(&self.pool, &self.settings).await? {
                (self.pruning, self.pruned_at) = (None, Some(Instant::now()));
                break;
            }
            tokio::time::sleep(delete_began.elapsed()).await;
        }
        Ok(())
    }

    /// Takes the lock, or checks that its connection is alive and so still has it; returns true where this clock has it.
    async fn is_active(&mut self) -> sqlx::Result<bool> {
        if let Some(mut held) = self.lock.take() {
            held.ping().await?;
            self.lock = Some(held);
            return Ok(true);
        }
        let mut connection = self.pool.acquire().await?;
        let taken = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "taken!""#, LOCK)
            .fetch_one(&mut *connection)
            .await?;
        if taken {
            tracing::info!("this clock is the active one");
            self.lock = Some(connection.detach());
        }
        Ok(taken)
    }
}

async fn publish(publisher: &Publisher, what: &str, due: &[Due]) -> anyhow::Result<()> {
    if !due.is_empty() {
        let events: Vec<NewEvent> = due.iter().map(|due| due.event.clone()).collect();
        publisher.publish_all(events).await?;
        tracing::info!(what, count = due.len(), "published what is due");
    }
    Ok(())
}
