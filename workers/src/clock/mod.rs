//! The pool `clock`: publishes what time makes due, and prunes what has had its time. It changes no other data: it has no
//! source queue to be its outbox, so the ids of its commands come from what is due and when, and a command that is
//! published again is absorbed.

mod due;
mod prune;

use std::time::Duration;

use contracts::{NewEvent, amqp::Publisher};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{config::Clock, runtime::chain};
use due::{Due, Unsettled};
use prune::Round;

/// The advisory lock of the one clock that is active: "clock" in ASCII.
const LOCK: i64 = 0x63_6c6f_636b;

/// Ticks until the shutdown. Any number of clocks may run; one is active, the others wait for its end. Failures (the
/// database or the broker away) are logged, and tried again at the next tick.
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
        round: None,
        pruned: None,
        shutdown: shutdown.clone(),
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if let Err(error) = clock.tick().await {
            tracing::warn!(error = chain(error.as_ref()), "the clock could not tick; it tries again");
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
    /// The round of pruning that has begun.
    round: Option<Round>,
    /// When the last round ended.
    pruned: Option<Instant>,
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

    /// A round an interval: small deletes, each followed by a pause of its own length, so that what it takes of one
    /// connection is half, also where deletes become slow. A round that is not over by the next tick goes on there.
    async fn prune(&mut self) -> anyhow::Result<()> {
        let every = Duration::from_millis(self.settings.prune_every_ms);
        if self.round.is_none() && self.pruned.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        let (began, tick) = (Instant::now(), Duration::from_millis(self.settings.tick_ms));
        let round = self.round.get_or_insert_default();
        while began.elapsed() < tick && !self.shutdown.is_cancelled() {
            let delete_began = Instant::now();
            if !round.delete_some(&self.pool, &self.settings).await? {
                (self.round, self.pruned) = (None, Some(Instant::now()));
                break;
            }
            tokio::time::sleep(delete_began.elapsed()).await;
        }
        Ok(())
    }

    /// Takes the lock, or proves that it is still held: a connection that died has lost it.
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
