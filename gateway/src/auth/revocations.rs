//! Sign-ins that were ended while an access token of theirs may still be valid. A gateway is notified on the `live`
//! exchange at once; it reads them from the database at start, and again every few seconds for what a broken connection
//! lost. So a logout holds on every gateway within five seconds, and no request costs a query.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use contracts::amqp::LiveMessage;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Auth, key_ring::LEEWAY_SECS};

/// Less than the five seconds promised, by more than a slow query.
const POLL_INTERVAL: Duration = Duration::from_secs(3);

/// Revoked sids, each until its last access token has expired.
#[derive(Default)]
pub(super) struct Revocations {
    forget_at: RwLock<HashMap<Uuid, DateTime<Utc>>>,
}

impl Revocations {
    /// Tells whether the sign-in was ended.
    pub(super) fn contains(&self, sid: Uuid) -> bool {
        let revoked = self.forget_at.read().unwrap_or_else(PoisonError::into_inner);
        !revoked.is_empty() && revoked.contains_key(&sid)
    }

    fn extend(&self, sids: impl IntoIterator<Item = Uuid>, forget_at: DateTime<Utc>) {
        let mut revoked = self.forget_at.write().unwrap_or_else(PoisonError::into_inner);
        revoked.extend(sids.into_iter().map(|sid| (sid, forget_at)));
    }

    fn forget_old(&self, now: DateTime<Utc>) {
        let mut revoked = self.forget_at.write().unwrap_or_else(PoisonError::into_inner);
        revoked.retain(|_, forget_at| *forget_at > now);
    }
}

impl Auth {
    /// Refuses these sign-ins from now on, in this process.
    pub fn revoke_sids(&self, sids: &[Uuid]) {
        if !sids.is_empty() {
            self.revocations.extend(sids.iter().copied(), Utc::now() + self.token_memory());
        }
    }

    /// Ends sign-ins in this process and notifies every other gateway. They must be revoked in the database already: a
    /// gateway that misses the message reads them there.
    pub fn announce_revoked(&self, sids: Vec<Uuid>) {
        if sids.is_empty() {
            return;
        }
        self.revoke_sids(&sids);
        self.publisher.publish_live(LiveMessage { revoked_sids: sids, ..LiveMessage::default() });
    }

    /// Reads the sign-ins that were revoked within the lifetime of an access token.
    ///
    /// # Errors
    /// Postgres does not answer; what was known before stays known.
    pub async fn load_revocations(&self, db: &PgPool) -> sqlx::Result<()> {
        let seconds = self.token_memory().num_seconds() as f64;
        let sids = sqlx::query_scalar!(
            "SELECT DISTINCT family_id
             FROM   sessions
             WHERE  revoked_at > now() - make_interval(secs => $1)",
            seconds
        )
        .fetch_all(db)
        .await?;
        // As long again at most: what is read every few seconds need not be timed to the second.
        self.revoke_sids(&sids);
        Ok(())
    }

    /// Reads revocations again and again, in case the `live` exchange was out of reach. Never ends.
    pub async fn follow_revocations(self: Arc<Self>, db: PgPool) {
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            interval.tick().await;
            let read = self.load_revocations(&db).await;
            match &read {
                Err(error) if !failing => {
                    tracing::warn!(%error, "revoked sign-ins cannot be read; live messages still count")
                }
                Ok(()) if failing => tracing::info!("revoked sign-ins are read again"),
                _ => {}
            }
            failing = read.is_err();
            self.revocations.forget_old(Utc::now());
        }
    }

    /// The time for which a revoked sid must be remembered.
    fn token_memory(&self) -> TimeDelta {
        TimeDelta::seconds(self.access_secs() + 2 * LEEWAY_SECS as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_sid_is_remembered_until_its_tokens_have_expired() {
        let (revocations, sid, now) = (Revocations::default(), Uuid::now_v7(), Utc::now());
        assert!(!revocations.contains(sid));
        revocations.extend([sid], now + TimeDelta::seconds(10));
        revocations.forget_old(now);
        assert!(revocations.contains(sid));
        revocations.forget_old(now + TimeDelta::seconds(10));
        assert!(!revocations.contains(sid));
    }
}
