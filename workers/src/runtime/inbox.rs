//! The table `operations`: inbox, result and outbox in one. Settling is one statement, and another for what is replayed;
//! where it meets a row that was not there before, or no longer as it was, another worker settled the same event, and the
//! whole transaction starts again.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::Outcome;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{failure::Failure, handler::Delivery, raw_event::RawEvent};

/// A settled operation, as far as the inbox cares.
pub struct SettledRow {
    pub state: String,
    pub outcome: Value,
    pub memo: Option<Vec<u8>>,
    pub fingerprint: Vec<u8>,
}

impl SettledRow {
    /// What was decided, with what the follow-ups need.
    ///
    /// # Errors
    /// Where the row holds another shape than the kind has.
    pub fn decided<R: DeserializeOwned, M: DeserializeOwned + Default>(&self) -> serde_json::Result<Outcome<R, M>> {
        match &self.memo {
            Some(memo) => {
                let verdict = serde_json::from_value(self.outcome.clone())?;
                Ok(Outcome { verdict, memo: serde_json::from_slice(memo)? })
            }
            None => serde_json::from_value(self.outcome.clone()),
        }
    }
}

/// The operations among these ids that are settled.
///
/// # Errors
/// Whatever Postgres says.
pub async fn settled(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, SettledRow>> {
    let rows = sqlx::query!("SELECT id, state, outcome, memo, fingerprint FROM operations WHERE id = ANY($1)", ids)
        .fetch_all(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let (id, state, outcome, memo, fingerprint) = (row.id, row.state, row.outcome, row.memo, row.fingerprint);
            (id, SettledRow { state, outcome, memo, fingerprint })
        })
        .collect())
}

/// Rows to settle.
#[derive(Default)]
pub struct NewRows {
    new: Columns,
    /// Of operations that had failed, and were replayed by an operator.
    replayed: Columns,
}

/// Column by column, as UNNEST takes them.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    kinds: Vec<String>,
    parents: Vec<Option<Uuid>>,
    principals: Vec<Option<String>>,
    fingerprints: Vec<Vec<u8>>,
    states: Vec<String>,
    outcomes: Vec<String>,
    memos: Vec<Option<Vec<u8>>>,
    subjects: Vec<String>,
    accepted: Vec<DateTime<Utc>>,
}

impl NewRows {
    /// Adds the outcome of one event, and which row it has already, if any: one that failed.
    ///
    /// # Errors
    /// [`Failure::Data`] where the outcome does not serialise.
    pub fn push<C, R: Serialize, M: Serialize>(
        &mut self,
        event: &RawEvent,
        delivery: &Delivery<C>,
        outcome: &Outcome<R, M>,
        failed: Option<&SettledRow>,
    ) -> Result<(), Failure> {
        let unfit = |error: serde_json::Error| Failure::Data(Box::new(error));
        let memo = serde_json::to_vec(&outcome.memo).map_err(unfit)?;
        let rows = if failed.is_some() { &mut self.replayed } else { &mut self.new };
        rows.ids.push(event.id);
        rows.kinds.push(event.kind.to_string());
        rows.parents.push(event.parent);
        rows.principals.push(delivery.principal.user_id().map(|_| delivery.principal.to_string()));
        rows.fingerprints.push(event.fingerprint.as_bytes().to_vec());
        rows.states.push(outcome.state().to_owned());
        rows.outcomes.push(serde_json::to_string(&outcome.verdict).map_err(unfit)?);
        rows.memos.push((memo != b"null").then_some(memo));
        rows.subjects.push(event.subject.clone());
        rows.accepted.push(delivery.accepted_at);
        Ok(())
    }

    /// Writes all rows, in id order: transactions that settle some of the same events never wait for each other in a ring.
    ///
    /// # Errors
    /// [`Failure::Race`] where another worker settled one of them meanwhile.
    pub async fn settle(self, conn: &mut PgConnection) -> Result<(), Failure> {
        let new = self.new;
        #[cfg(feature = "planted-bugs")]
        let new = if super::fault_injection::inbox_off() {
            let written = settled(conn, &new.ids).await?;
            new.but(&written)
        } else {
            new
        };
        new.insert(conn).await?;
        self.replayed.replace(conn).await
    }
}

impl Columns {
    async fn insert(&self, conn: &mut PgConnection) -> Result<(), Failure> {
        if self.ids.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            r#"
            INSERT INTO operations
                  (id, kind, parent_id, principal, fingerprint, state, outcome, memo, subject, accepted_at)
            SELECT id, kind, parent_id, principal, fingerprint, state, outcome::jsonb, memo, subject, accepted_at
              FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bytea[], $6::text[], $7::text[],
                          $8::bytea[], $9::text[], $10::timestamptz[])
                AS new (id, kind, parent_id, principal, fingerprint, state, outcome, memo, subject, accepted_at)
             ORDER BY id
            "#,
            &self.ids,
            &self.kinds,
            &self.parents as &[Option<Uuid>],
            &self.principals as &[Option<String>],
            &self.fingerprints,
            &self.states,
            &self.outcomes,
            &self.memos as &[Option<Vec<u8>>],
            &self.subjects,
            &self.accepted,
        )
        .execute(conn)
        .await
        .map_err(Failure::race_on("operations_pkey"))?;
        Ok(())
    }

    async fn replace(&self, conn: &mut PgConnection) -> Result<(), Failure> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let replaced = sqlx::query!(
            r#"
            UPDATE operations o
               SET state = new.state, outcome = new.outcome::jsonb, memo = new.memo, settled_at = now()
              FROM (SELECT *
                      FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bytea[]) AS new (id, state, outcome, memo)
                     ORDER BY id) AS new
             WHERE o.id = new.id AND o.state = 'failed'
            "#,
            &self.ids,
            &self.states,
            &self.outcomes,
            &self.memos as &[Option<Vec<u8>>],
        )
        .execute(conn)
        .await?
        .rows_affected();
        if replaced == self.ids.len() as u64 { Ok(()) } else { Err(Failure::Race) }
    }

    /// Leaves out what is written already: the first outcome stays, as before a replay.
    #[cfg(feature = "planted-bugs")]
    fn but(mut self, written: &HashMap<Uuid, SettledRow>) -> Self {
        for index in
            (0..self.ids.len()).rev().filter(|index| written.contains_key(&self.ids[*index])).collect::<Vec<_>>()
        {
            self.ids.remove(index);
            self.kinds.remove(index);
            self.parents.remove(index);
            self.principals.remove(index);
            self.fingerprints.remove(index);
            self.states.remove(index);
            self.outcomes.remove(index);
            self.memos.remove(index);
            self.subjects.remove(index);
            self.accepted.remove(index);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_memo_is_read_from_where_its_row_has_it() {
        let row = |outcome, memo: Option<&str>| SettledRow {
            state: "succeeded".into(),
            outcome,
            memo: memo.map(|memo| memo.as_bytes().to_vec()),
            fingerprint: Vec::new(),
        };
        let wanted = Outcome::<i32, Vec<i32>>::succeeded(7).memo(vec![1, 2]);
        let apart = row(json!({ "result": 7 }), Some("[1,2]"));
        let of_before = row(json!({ "result": 7, "memo": [1, 2] }), None);
        for row in [apart, of_before] {
            assert_eq!(row.decided::<i32, Vec<i32>>().expect("of this shape"), wanted);
        }
        let without = row(json!({ "result": 7 }), None).decided::<i32, ()>();
        assert_eq!(without.expect("of this shape"), Outcome::succeeded(7));
    }
}
