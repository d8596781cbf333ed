//! The writing of the table `operations`: inbox, result and outbox in one. Settling is one statement, and another for
//! what is replayed; where it meets a row that was not there before, or no longer as it was, another worker settled the
//! same event, and the whole transaction starts again.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::Outcome;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    inbox::{self, SettledRow},
    item::Item,
};
use crate::{fault_injection, runtime::failure::Failure};

/// The rows of events that are settled in one transaction.
#[derive(Default)]
pub struct NewRows {
    new: Columns,
    /// Rows of operations that had failed, and were replayed by an operator.
    replayed: Columns,
}

/// Rows column by column, as UNNEST takes them.
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
    /// Adds the outcome of one item; where it has a row already, that one failed and is replaced.
    ///
    /// # Errors
    /// [`Failure::Data`] where the outcome does not serialise.
    pub fn push<C, R: Serialize, M: Serialize>(
        &mut self,
        item: &Item<'_, C>,
        outcome: &Outcome<R, M>,
    ) -> Result<(), Failure> {
        let unfit = |error: serde_json::Error| Failure::Data(Box::new(error));
        let (event, delivery) = (item.event, item.delivery);
        let memo = serde_json::to_vec(&outcome.memo).map_err(unfit)?;
        let rows = if item.row.is_some() { &mut self.replayed } else { &mut self.new };
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

    /// Writes all rows, in id order: transactions that settle some of the same events never wait for each other in a
    /// ring.
    ///
    /// # Errors
    /// [`Failure::Race`] where another worker settled one of them meanwhile.
    pub async fn settle(self, conn: &mut PgConnection) -> Result<(), Failure> {
        let mut new = self.new;
        if fault_injection::inbox_is_off() {
            let written = inbox::settled(conn, &new.ids).await?;
            new = new.without(&written);
        }
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

    /// Leaves out the rows that are written already: the first outcome stays. Only for an inbox that is off.
    fn without(mut self, written: &HashMap<Uuid, SettledRow>) -> Self {
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
