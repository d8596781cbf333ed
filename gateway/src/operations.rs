//! What became of a request. An id that bears our MAC and has no row yet is `pending`; a settled one is shown to whoever
//! may see it, without the memo that only follow-ups need.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use contracts::{
    Fingerprint, Principal, Problem, ProblemType, Role,
    ids::{OperationId, OperationIds},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::{Caller, MaybeCaller},
    live::Mark,
    page::{self, Page, PageQuery},
    problem_response::{ApiError, ApiResult},
    query::Query,
    state::App,
};

/// The longest that a client may ask to wait, in seconds.
pub const WAIT_SECONDS_MAX: u64 = 30;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(list))
}

/// An operation as clients see it. `state` only ever goes from `pending` to one of the others.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OperationView {
    /// Opaque; for an anonymous request it is the only key to the result.
    pub id: String,
    /// What was asked, such as `payment.submit.v1`; absent while pending and asked for by id.
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
    /// What came of it, where it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why not, where it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub problem: Option<Problem>,
    /// Where to look next.
    pub links: Links,
}

/// Where to look next.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Links {
    /// The operation.
    #[serde(rename = "self")]
    pub this: String,
}

/// A row of `operations`.
#[derive(Clone, Debug)]
pub struct Settled {
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

impl Settled {
    /// What was settled for each of these principals after a mark: with the asker's number, in the order of time, at most
    /// so many rows each.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn read_missed(
        db: &PgPool,
        asked: &[(usize, &str, Mark)],
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
            &asked.iter().map(|(n, ..)| *n as i64).collect::<Vec<_>>(),
            &asked.iter().map(|(_, principal, _)| (*principal).to_owned()).collect::<Vec<_>>(),
            &asked.iter().map(|(_, _, (time, _))| *time).collect::<Vec<_>>(),
            &asked.iter().map(|(_, _, (_, id))| *id).collect::<Vec<_>>(),
            rows_max as i64
        )
        .fetch_all(db)
        .await?;
        let settled = rows.into_iter().map(|row| {
            let settled = Settled {
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

    /// Those that are settled, in any order.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn read_all(db: &PgPool, ids: &[Uuid]) -> sqlx::Result<Vec<Self>> {
        sqlx::query_as!(
            Settled,
            "SELECT id, kind, principal, fingerprint, state, outcome, accepted_at, settled_at
             FROM   operations
             WHERE  id = ANY($1)",
            ids
        )
        .fetch_all(db)
        .await
    }

    /// As the holder of this id sees it: another payload's result is not shown.
    pub fn view(mut self, text: String, held: Option<OperationId>) -> OperationView {
        let reused = held.is_some_and(|held| !self.fingerprint.starts_with(&held.fingerprint_prefix));
        let (state, result, problem) = if reused {
            ("rejected".to_owned(), None, Some(Problem::new(ProblemType::IdempotencyKeyReused)))
        } else {
            let result = self.outcome.get_mut("result").map(Value::take);
            let problem =
                self.outcome.get_mut("problem").and_then(|problem| serde_json::from_value(problem.take()).ok());
            let failed = || (self.state == "failed").then(|| Problem::new(ProblemType::OperationFailed));
            (self.state.clone(), result, problem.or_else(failed))
        };
        OperationView {
            kind: (!reused).then_some(self.kind),
            state,
            accepted_at: (!reused).then_some(self.accepted_at),
            settled_at: (!reused).then_some(self.settled_at),
            result,
            problem,
            links: Links { this: location(&text) },
            id: text,
        }
    }

    /// As its owner sees it who was not given an id.
    pub fn listed(self, ids: &OperationIds) -> Option<OperationView> {
        let text = ids.encode(self.id, &self.fingerprint()?);
        Some(self.view(text, None))
    }

    /// The user who asked for it, where a user did.
    pub fn owner(&self) -> Option<Uuid> {
        self.principal.as_deref()?.parse::<Principal>().ok()?.user_id()
    }

    /// Its place among its owner's.
    pub fn mark(&self) -> Mark {
        (self.settled_at, self.id)
    }

    /// An anonymous request's id is the capability; a user's is that user's alone, and an admin's.
    fn may_be_seen_by(&self, caller: Option<&Caller>) -> bool {
        let owner = self.principal.as_deref().map(str::parse::<Principal>);
        match owner {
            None | Some(Ok(Principal::Anonymous)) => true,
            Some(Ok(Principal::User { id, .. })) => {
                caller.is_some_and(|caller| caller.user_id == id || caller.role == Role::Admin)
            }
            Some(Ok(Principal::System) | Err(_)) => caller.is_some_and(|caller| caller.role == Role::Admin),
        }
    }

    /// The fingerprint, for making the id that was handed out.
    fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect::<String>().parse().ok()
    }
}

/// The address of an operation.
pub fn location(text: &str) -> String {
    format!("/v1/operations/{text}")
}

/// Parameters of [`show`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ShowQuery {
    /// Wait up to so many seconds (at most 30) for it to be settled.
    wait: Option<u64>,
}

/// What became of a request
#[utoipa::path(get, path = "/v1/operations/{id}", tag = "operations", params(("id" = String, Path), ShowQuery),
    responses((status = 200, description = "Its state, and what came of it.", body = OperationView)), security((), ("bearer" = [])))]
async fn show(
    State(app): State<App>,
    caller: MaybeCaller,
    Path(text): Path<String>,
    Query(query): Query<ShowQuery>,
) -> ApiResult<Response> {
    let held = app.ids.decode(&text).ok_or_else(ApiError::not_found)?;
    if query.wait.is_some_and(|seconds| seconds > WAIT_SECONDS_MAX) {
        return Err(ApiError::invalid_request(format!("`wait` must be 0 to {WAIT_SECONDS_MAX}.")));
    }
    let wait = Duration::from_secs(query.wait.unwrap_or(0));
    let waiter = if wait.is_zero() { None } else { app.waiters.register(held.id) };
    let mut settled = app.reader.operation(held.id).await?;
    if let (None, Some(waiter)) = (&settled, waiter) {
        settled = waiter.settled(wait).await;
    }
    let Some(settled) = settled else {
        return Ok(pending(text));
    };
    if !settled.may_be_seen_by(caller.0.as_ref()) {
        return Err(ApiError::not_found());
    }
    Ok(axum::Json(settled.view(text, Some(held))).into_response())
}

fn pending(text: String) -> Response {
    let view = OperationView {
        links: Links { this: location(&text) },
        id: text,
        kind: None,
        state: "pending".to_owned(),
        accepted_at: None,
        settled_at: None,
        result: None,
        problem: None,
    };
    ([(header::RETRY_AFTER, HeaderValue::from_static("1"))], axum::Json(view)).into_response()
}

/// My operations, those that are settled
#[utoipa::path(get, path = "/v1/operations", tag = "operations", params(PageQuery),
    responses((status = 200, description = "A page.", body = Page<OperationView>)), security(("bearer" = [])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
) -> ApiResult<Response> {
    let limit = page::limit(query.limit)?;
    // Ids made from keys tell no time, so the cursor's row says where the page begins.
    let rows = sqlx::query_as!(
        Settled,
        "SELECT   id, kind, principal, fingerprint, state, outcome, accepted_at, settled_at
         FROM     operations
         WHERE    principal = $1
           AND    ($2::uuid IS NULL
                   OR (settled_at, id) < (SELECT seen.settled_at, seen.id
                                          FROM   operations AS seen
                                          WHERE  seen.id = $2 AND seen.principal = $1))
         ORDER BY settled_at DESC, id DESC
         LIMIT    $3",
        caller.principal().to_string(),
        query.cursor,
        limit + 1
    )
    .fetch_all(&app.db)
    .await?;
    let Page { items, next_cursor } = Page::of(rows, limit, |row| row.id);
    let items = items.into_iter().filter_map(|row| row.listed(&app.ids)).collect();
    Ok(page::respond(&headers, &Page { items, next_cursor }))
}
