//! The caller's inbox in the application.

use axum::{Json as Answer, extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use contracts::FieldError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::Caller,
    json_body::Json,
    live::Mark,
    page::{self, Page},
    problem_response::{ApiError, ApiResult},
    query::Query,
    state::App,
};

/// Notifications named one by one in a request, at most.
const IDS_MAX: usize = 500;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(mark_read))
}

/// Something that the user was told.
#[derive(Debug, Serialize, ToSchema)]
pub struct Notification {
    id: Uuid,
    /// A stable word: `payment_approved`, …
    #[serde(rename = "type")]
    notification_type: String,
    title: String,
    body: String,
    /// What to link to.
    data: Value,
    read_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl Notification {
    /// What each of these users was told after a mark: with the asker's number, in the order of time, at most so many
    /// rows each.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn read_missed(
        db: &PgPool,
        asked: &[(usize, Uuid, Mark)],
        rows_max: usize,
    ) -> sqlx::Result<Vec<(usize, Self)>> {
        let rows = sqlx::query!(
            r#"SELECT asked.n AS "n!", missed.*
               FROM   UNNEST($1::bigint[], $2::uuid[], $3::timestamptz[], $4::uuid[]) AS asked (n, user_id, time, id),
                      LATERAL (SELECT   id, type AS notification_type, title, body, data, read_at, created_at
                               FROM     notifications
                               WHERE    user_id = asked.user_id AND (created_at, id) > (asked.time, asked.id)
                               ORDER BY created_at, id
                               LIMIT    $5) AS missed"#,
            &asked.iter().map(|(n, ..)| *n as i64).collect::<Vec<_>>(),
            &asked.iter().map(|(_, user_id, _)| *user_id).collect::<Vec<_>>(),
            &asked.iter().map(|(_, _, (time, _))| *time).collect::<Vec<_>>(),
            &asked.iter().map(|(_, _, (_, id))| *id).collect::<Vec<_>>(),
            rows_max as i64
        )
        .fetch_all(db)
        .await?;
        let notifications = rows.into_iter().map(|row| {
            let notification = Notification {
                id: row.id,
                notification_type: row.notification_type,
                title: row.title,
                body: row.body,
                data: row.data,
                read_at: row.read_at,
                created_at: row.created_at,
            };
            (row.n as usize, notification)
        });
        Ok(notifications.collect())
    }

    /// Its place among its user's.
    pub fn mark(&self) -> Mark {
        (self.created_at, self.id)
    }
}

/// Which notifications.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of the page before.
    cursor: Option<Uuid>,
    /// 1 to 100.
    limit: Option<u16>,
    /// Only those that were not read.
    #[serde(default)]
    unread: bool,
}

/// Either `ids` or `before`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MarkRead {
    /// At most 500.
    #[serde(default)]
    ids: Option<Vec<Uuid>>,
    /// All that came until then.
    #[serde(default)]
    before: Option<DateTime<Utc>>,
}

/// How many became read.
#[derive(Serialize, ToSchema)]
struct MarkedRead {
    marked: u64,
}

/// My notifications, the newest first.
#[utoipa::path(
    get,
    path = "/v1/notifications",
    tag = "notifications",
    params(Filter),
    responses((status = 200, description = "A page", body = Page<Notification>), (status = 304, description = "Unchanged")),
    security(("bearer" = []))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(filter): Query<Filter>,
) -> ApiResult<Response> {
    let limit = page::limit(filter.limit)?;
    // Ids are not in the order of time here, so the cursor's row says where the page begins.
    let notifications = sqlx::query_as!(
        Notification,
        r#"SELECT   id, type AS notification_type, title, body, data, read_at, created_at
           FROM     notifications
           WHERE    user_id = $1
             AND    (NOT $2 OR read_at IS NULL)
             AND    ($3::uuid IS NULL
                     OR (created_at, id) < (SELECT seen.created_at, seen.id
                                            FROM   notifications AS seen
                                            WHERE  seen.id = $3 AND seen.user_id = $1))
           ORDER BY created_at DESC, id DESC
           LIMIT    $4"#,
        caller.user_id,
        filter.unread,
        filter.cursor,
        limit + 1
    )
    .fetch_all(&app.db)
    .await?;
    Ok(page::respond(&headers, &Page::of(notifications, limit, |notification| notification.id)))
}

/// Mark notifications of mine as read.
#[utoipa::path(
    post,
    path = "/v1/notifications/read",
    tag = "notifications",
    request_body = MarkRead,
    responses((status = 200, description = "They are read; others' and unknown ids are passed over", body = MarkedRead)),
    security(("bearer" = []))
)]
async fn mark_read(
    State(app): State<App>,
    caller: Caller,
    Json(which): Json<MarkRead>,
) -> ApiResult<Answer<MarkedRead>> {
    which.check()?;
    let marked = sqlx::query!(
        "UPDATE notifications
         SET    read_at = now(), updated_at = now()
         WHERE  user_id = $1 AND read_at IS NULL AND (id = ANY($2::uuid[]) OR created_at <= $3)",
        caller.user_id,
        which.ids.as_deref().unwrap_or_default(),
        which.before
    )
    .execute(&app.db)
    .await?;
    Ok(Answer(MarkedRead { marked: marked.rows_affected() }))
}

impl MarkRead {
    fn check(&self) -> ApiResult<()> {
        let error = match (&self.ids, &self.before) {
            (Some(ids), None) if ids.len() > IDS_MAX => FieldError::new("ids", "too_many", "must name at most 500"),
            (Some(_), None) | (None, Some(_)) => return Ok(()),
            (Some(_), Some(_)) => FieldError::new("before", "unexpected", "must not come together with `ids`"),
            (None, None) => FieldError::new("ids", "required", "either `ids` or `before` is needed"),
        };
        Err(ApiError::validation(vec![error]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_ids_or_a_time() {
        let ids = |count: usize| Some(vec![Uuid::nil(); count]);
        let read = |ids, before| MarkRead { ids, before }.check().is_ok();
        assert!(read(ids(500), None) && read(None, Some(Utc::now())));
        assert!(!read(ids(501), None) && !read(None, None) && !read(ids(1), Some(Utc::now())));
    }
}
