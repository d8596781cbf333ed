//! Recent idempotency keys of this process. An entry is made only after the broker's confirm, so a replayed 202 is as
//! durable as the first. It is a hint: without it the workers absorb the duplicate.

use chrono::{DateTime, TimeDelta, Utc};
use contracts::Fingerprint;
use quick_cache::sync::Cache;
use uuid::Uuid;

use crate::config::Limits;

/// Recent 202s by the operation's id, which stands for scope, route and key. Bounded in entries; an entry that is too old
/// is not found.
pub struct RecentKeys {
    answers: Cache<Uuid, Answered>,
    age_max: TimeDelta,
}

/// A 202 that was given; everything else in it follows from the operation's id.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// The fingerprint of the payload that it was given for.
    pub fingerprint: Fingerprint,
    /// When it was given.
    pub accepted_at: DateTime<Utc>,
}

impl RecentKeys {
    /// An empty cache of the configured size and age.
    pub fn new(limits: &Limits) -> Self {
        Self {
            answers: Cache::new(limits.idempotency_keys),
            age_max: TimeDelta::seconds(limits.idempotency_seconds.into()),
        }
    }

    /// Returns the answer given for this operation, if it is recent.
    pub fn get(&self, id: Uuid) -> Option<Answered> {
        self.answers.get(&id).filter(|answered| Utc::now() - answered.accepted_at <= self.age_max)
    }

    /// Remembers an answer; only after the confirm.
    pub fn insert(&self, id: Uuid, answered: Answered) {
        self.answers.insert(id, answered);
    }
}

#[cfg(test)]
mod tests {
    use contracts::ids;

    use super::*;
    use crate::config::GatewaySettings;

    #[test]
    fn an_answer_is_remembered_until_it_is_too_old() {
        let limits = GatewaySettings::default().limits;
        let recent = RecentKeys::new(&limits);
        let given = |seconds_ago: u32| Answered {
            fingerprint: Fingerprint::of("kind", b"data"),
            accepted_at: Utc::now() - TimeDelta::seconds(seconds_ago.into()),
        };
        let (young, old) = (ids::new_id(), ids::new_id());
        recent.insert(young, given(limits.idempotency_seconds - 60));
        recent.insert(old, given(limits.idempotency_seconds + 1));
        assert!(recent.get(young).is_some_and(|answered| answered.fingerprint == Fingerprint::of("kind", b"data")));
        assert!(recent.get(old).is_none());
        assert!(recent.get(ids::new_id()).is_none());
    }

    #[test]
    fn a_cache_without_room_remembers_nothing() {
        let recent = RecentKeys::new(&Limits { idempotency_keys: 0, ..GatewaySettings::default().limits });
        let (id, fingerprint) = (ids::new_id(), Fingerprint::of("kind", b"data"));
        recent.insert(id, Answered { fingerprint, accepted_at: Utc::now() });
        assert!(recent.get(id).is_none());
    }
}
