//! The table `operations`: inbox, result and outbox in one. Settling is one statement; if it writes fewer rows than
//! events, another worker holds the same event, and the whole transaction starts again.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::Outcome;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{failure::Failure, handler::Delivery, raw_event::RawEvent};

/// A settled operation, as far as the inbox cares.
pub struct SettledRow {
    pub state: String,
    pub outcome: Value,
    pub fingerprint: Vec<u8>,
}

/// The operations among these ids that are settled.
///
/// # Errors
/// Whatever Postgres says.
pub async fn settled(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, SettledRow>> {
    let rows = sqlx::query!("SELECT id, state, outcome, fingerprint FROM operations WHERE id = ANY($1)", ids)
        .fetch_all(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, SettledRow { state: row.state, outcome: row.outcome, fingerprint: row.fingerprint }))
        .collect())
}

/// Rows to settle, column by column, as UNNEST takes them.
#[derive(Default)]
pub struct NewRows {
    ids: Vec<Uuid>,
    kinds: Vec<String>,
    parents: Vec<Option<Uuid>>,
    principals: Vec<Option<String>>,
    fingerprints: Vec<Vec<u8>>,
    states: Vec<String>,
    outcomes: Vec<String>,
    subjects: Vec<String>,
    accepted: Vec<DateTime<Utc>>,
}

impl NewRows {
    /// Adds the outcome of one event.
    ///
    /// # Errors
    /// [`Failure::Data`] where the outcome does not serialise.
    pub fn push<C, R: Serialize, M: Serialize>(
        &mut self,
        event: &RawEvent,
        delivery: &Delivery<C>,
        outcome: &Outcome<R, M>,
    ) -> Result<(), Failure> {
        self.ids.push(event.id);
        self.kinds.push(event.kind.to_string());
        self.parents.push(event.parent);
        self.principals.push(delivery.principal.user_id().map(|_| delivery.principal.to_string()));
        self.fingerprints.push(event.fingerprint.as_bytes().to_vec());
        self.states.push(outcome.state().to_owned());
        self.outcomes.push(serde_json::to_string(outcome).map_err(|error| Failure::Data(Box::new(error)))?);
        self.subjects.push(event.subject.clone());
        self.accepted.push(delivery.accepted_at);
        Ok(())
    }

    /// Writes all rows, in id order (unsorted overlapping batches deadlock, even with ON CONFLICT).
    ///
    /// # Errors
    /// [`Failure::Race`] where another worker settled one of them meanwhile.
    pub async fn settle(self, conn: &mut PgConnection) -> Result<(), Failure> {
        let expected = self.ids.len() as u64;
        if expected == 0 {
            return Ok(());
        }
        let written = sqlx::query!(
            r#"
            INSERT INTO operations
                  (id, kind, parent_id, principal, fingerprint, state, outcome, subject, accepted_at)
            SELECT id, kind, parent_id, principal, fingerprint, state, outcome::jsonb, subject, accepted_at
              FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bytea[], $6::text[], $7::text[],
                          $8::text[], $9::timestamptz[])
                AS new (id, kind, parent_id, principal, fingerprint, state, outcome, subject, accepted_at)
             ORDER BY id
                ON CONFLICT (id) DO UPDATE
               SET state = excluded.state, outcome = excluded.outcome, settled_at = now()
             WHERE operations.state = 'failed'
            "#,
            &self.ids,
            &self.kinds,
            &self.parents as &[Option<Uuid>],
            &self.principals as &[Option<String>],
            &self.fingerprints,
            &self.states,
            &self.outcomes,
            &self.subjects,
            &self.accepted,
        )
        .execute(conn)
        .await?
        .rows_affected();
        #[cfg(feature = "planted-bugs")]
        if super::planted::inbox_off() {
            return Ok(());
        }
        if written == expected { Ok(()) } else { Err(Failure::Race) }
    }
}
