//! SettledOperation operations: rows of `operations`, and how clients see them. An id that bears our MAC and has no row yet is
//! `pending`; a settled one is shown to its owner, without the memo that only follow-ups need.

use chrono::{DateTime, Utc};
use contracts::{
    Fingerprint, Principal, Problem, ProblemType, Role,
    ids::{OperationId, OperationIds},
};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Mark;
use crate::auth::Caller;

/// An operation as clients see it. `state` only ever goes from `pending` to one of the others.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OperationView {
    /// Opaque; for an anonymous request it is the capability to read the result.
    pub id: String,
    /// The command's kind, such as `payment.submit.v1`; absent while pending and read by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `pending`, `succeeded`, `rejected` or `failed`.
    pub state: String,
    /// When the gateway accepted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<DateTime<Utc>>,
    /// When the workers settled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<DateTime<Utc>>,
    /// The result, where it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The problem, where it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub problem: Option<Problem>,
    /// Related addresses.
    pub links: OperationLinks,
}

/// Addresses of an operation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OperationLinks {
    /// The operation.
    #[serde(rename = "self")]
    pub this: String,
}

/// A row of `operations`.
#[derive(Clone, Debug)]
pub struct SettledOperation {
    /// The event's id.
    pub id: Uuid,
    kind: String,
    principal: Option<String>,
    fingerprint: Vec<u8>,
    state: String,
    outcome: Value,
    accepted_at: DateTime<Utc>,
    settled_at: DateTime<Utc>,
}

impl SettledOperation {
    /// Reads what was settled for each of these principals after a mark: with the number of the request, in the order of
    /// time, at most `rows_max` rows each.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn read_missed(
        db: &PgPool,
        requests: &[(usize, &str, Mark)],
        rows_max: usize,
    ) -> sqlx::Result<Vec<(usize, Self)>> {
        let rows = sqlx::query!(
            r#"SELECT asked.n AS "n!", missed.*
               FROM   UNNEST($1::bigint[], $2::text[], $3::timestamptz[], $4::uuid[]) AS asked (n, principal, time, id),
                      LATERAL (SELECT   id, kind, principal, fingerprint, state, outcome, accepted_at, settled_at
                               FROM     operations
                               WHERE    principal = asked.principal AND (settled_at, id) > (asked.time, asked.id)
                               ORDER BY settled_at, id
                               LIMIT    $5) AS missed"#,
            &requests.iter().map(|(n, ..)| *n as i64).collect::<Vec<_>>(),
            &requests.iter().map(|(_, principal, _)| (*principal).to_owned()).collect::<Vec<_>>(),
            &requests.iter().map(|(_, _, (time, _))| *time).collect::<Vec<_>>(),
            &requests.iter().map(|(_, _, (_, id))| *id).collect::<Vec<_>>(),
            rows_max as i64
        )
        .fetch_all(db)
        .await?;
        let settled = rows.into_iter().map(|row| {
            let settled = SettledOperation {
                id: row.id,
                kind: row.kind,
                principal: row.principal,
                fingerprint: row.fingerprint,
                state: row.state,
                outcome: row.outcome,
                accepted_at: row.accepted_at,
                settled_at: row.settled_at,
            };
            (row.n as usize, settled)
        });
        Ok(settled.collect())
    }

    /// Reads those of these operations that are settled, in any order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn read_all(db: &PgPool, ids: &[Uuid]) -> sqlx::Result<Vec<Self>> {
        sqlx::query_as!(
            SettledOperation,
            "SELECT id, kind, principal, fingerprint, state, outcome, accepted_at, settled_at
             FROM   operations
             WHERE  id = ANY($1)",
            ids
        )
        .fetch_all(db)
        .await
    }

    /// Reads a page of a principal's operations, newest first, after a mark.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn read_page(db: &PgPool, principal: &str, after: Option<Mark>, rows: i64) -> sqlx::Result<Vec<Self>> {
        let (time, id) = after.unzip();
        sqlx::query_as!(
            SettledOperation,
            "SELECT   id, kind, principal, fingerprint, state, outcome, accepted_at, settled_at
             FROM     operations
             WHERE    principal = $1
               AND    ($2::timestamptz IS NULL OR (settled_at, id) < ($2, $3))
             ORDER BY settled_at DESC, id DESC
             LIMIT    $4",
            principal,
            time,
            id,
            rows
        )
        .fetch_all(db)
        .await
    }

    /// Returns the view for the holder of this id: another payload's result is not shown.
    pub fn view(mut self, text: String, held: Option<OperationId>) -> OperationView {
        let is_reused = held.is_some_and(|held| !self.fingerprint.starts_with(&held.fingerprint_prefix));
        let (state, result, problem) = if is_reused {
            ("rejected".to_owned(), None, Some(Problem::new(ProblemType::IdempotencyKeyReused)))
        } else {
            let result = self.outcome.get_mut("result").map(Value::take);
            let problem =
                self.outcome.get_mut("problem").and_then(|problem| serde_json::from_value(problem.take()).ok());
            let failed = || (self.state == "failed").then(|| Problem::new(ProblemType::OperationFailed));
            (self.state.clone(), result, problem.or_else(failed))
        };
        OperationView {
            kind: (!is_reused).then_some(self.kind),
            state,
            accepted_at: (!is_reused).then_some(self.accepted_at),
            settled_at: (!is_reused).then_some(self.settled_at),
            result,
            problem,
            links: OperationLinks { this: location(&text) },
            id: text,
        }
    }

    /// Returns the view for its owner, with the id as it was handed out.
    pub fn listed(self, ids: &OperationIds) -> Option<OperationView> {
        let text = ids.encode(self.id, &self.fingerprint()?);
        Some(self.view(text, None))
    }

    /// Returns the user whose command it was, where it was a user's.
    pub fn owner(&self) -> Option<Uuid> {
        self.principal.as_deref()?.parse::<Principal>().ok()?.user_id()
    }

    /// Returns its place among its owner's operations.
    pub fn mark(&self) -> Mark {
        (self.settled_at, self.id)
    }

    /// Tells whether the caller may see it: an anonymous request's id is the capability; a user's operation is that
    /// user's alone, and an admin's.
    pub fn may_be_seen_by(&self, caller: Option<&Caller>) -> bool {
        let owner = self.principal.as_deref().map(str::parse::<Principal>);
        match owner {
            None | Some(Ok(Principal::Anonymous)) => true,
            Some(Ok(Principal::User { id, .. })) => {
                caller.is_some_and(|caller| caller.user_id == id || caller.role == Role::Admin)
            }
            Some(Ok(Principal::System) | Err(_)) => caller.is_some_and(|caller| caller.role == Role::Admin),
        }
    }

    /// The fingerprint, which is part of the id that was handed out.
    fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect::<String>().parse().ok()
    }
}

impl OperationView {
    /// Returns the view of an operation that is not settled yet; its kind and time are known to whoever accepted it.
    pub fn pending(id: String, kind: Option<&str>, accepted_at: Option<DateTime<Utc>>) -> Self {
        Self {
            links: OperationLinks { this: location(&id) },
            id,
            kind: kind.map(str::to_owned),
            state: "pending".to_owned(),
            accepted_at,
            settled_at: None,
            result: None,
            problem: None,
        }
    }
}

/// Returns the address of an operation.
pub fn location(text: &str) -> String {
    format!("/v1/operations/{text}")
}
