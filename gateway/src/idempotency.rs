//! Recent idempotency keys of this process. An entry is made only after the broker's confirm, so a replayed 202 is as
//! durable as the first. It is a hint: without it the workers absorb the duplicate.

use std::{sync::Arc, time::Duration};

use contracts::Fingerprint;
use moka::sync::Cache;
use uuid::Uuid;

use crate::{config::Limits, operations::OperationView};

/// What was answered before under a key, by the operation's id, which stands for scope, route and key.
pub struct RecentKeys {
    answers: Cache<Uuid, Arc<Answered>>,
}

/// A 202 that was given.
#[derive(Debug)]
pub struct Answered {
    /// Of the payload that it was given for.
    pub fingerprint: Fingerprint,
    /// Its body.
    pub operation: OperationView,
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
    pub fn get(&self, id: Uuid) -> Option<Arc<Answered>> {
        self.answers.get(&id)
    }

    /// Remembers an answer; only after the confirm.
    pub fn insert(&self, id: Uuid, fingerprint: Fingerprint, operation: OperationView) {
        self.answers.insert(id, Arc::new(Answered { fingerprint, operation }));
    }
}
