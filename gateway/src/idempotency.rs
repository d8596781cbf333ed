//! Recent idempotency keys of this process. An entry is made only after the broker's confirm, so a replayed 202 is as
//! durable as the first. It is a hint: without it the workers absorb the duplicate.

use std::time::Duration;

use chrono::{DateTime, Utc};
use contracts::Fingerprint;
use moka::sync::Cache;
use uuid::Uuid;

use crate::config::Limits;

/// What was answered before under a key, by the operation's id, which stands for scope, route and key.
pub struct RecentKeys {
    answers: Cache<Uuid, Answered>,
}

/// A 202 that was given; all else in it follows from the operation's id.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Of the payload that it was given for.
    pub fingerprint: Fingerprint,
    /// When it was given.
    pub accepted_at: DateTime<Utc>,
}

impl RecentKeys {
    /// Empty.
    pub fn new(limits: &Limits) -> Self {
        let answers = Cache::builder()
            .max_capacity(limits.idempotency_keys)
            .time_to_live(Duration::from_secs(limits.idempotency_seconds))
            .build();
        Self { answers }
    }

    /// What was answered.
    pub fn get(&self, id: Uuid) -> Option<Answered> {
        self.answers.get(&id)
    }

    /// Remembers an answer; only after the confirm.
    pub fn insert(&self, id: Uuid, answered: Answered) {
        self.answers.insert(id, answered);
    }
}
