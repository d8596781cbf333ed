//! The caller's notifications. Ids are not in the order of time here, so the cursor holds both.

use axum::extract::State;
use chrono::{DateTime, Utc};
use contracts::FieldError;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    auth::Caller,
    extract::{Json, List, Listing, Newest, NewestFirst, Page},
    http::{ApiError, ApiResult, Representation},
    live::notifications::Notification,
};

/// Notifications named one by one in a request, at most.
const IDS_MAX: usize = 500;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(mark_read))
}

/// Filters of the list of notifications.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NotificationFilter {
    /// Only those that were not read.
    #[serde(default)]
    unread: bool,
}

impl Listing for NotificationFilter {
    const NAME: &'static str = "notifications";
    type Key = Newest;
    type Sort = NewestFirst;
}

/// Either `ids` or `before`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MarkRead {
    /// At most 500.
    #[serde(default)]
    ids: Option<Vec<Uuid>>,
    /// Every notification until this time.
    #[serde(default)]
    before: Option<DateTime<Utc>>,
}

/// The number of notifications that became read.
#[derive(Serialize, ToSchema)]
struct MarkedRead {
    marked: u64,
}

/// My notifications
///
/// The newest first.
#[utoipa::path(get, path = "/v1/notifications", params(List<NotificationFilter>),
    responses((status = 200, description = "A page.", body = Page<Notification>)), security(("bearer" = [])))]
async fn list(
    State(db): State<PgPool>,
    caller: Caller,
    list: List<NotificationFilter>,
) -> ApiResult<Representation<Page<Notification>>> {
    let (unread, rows) = (list.filter.unread, list.rows());
    let rows = Notification::read_page(&db, caller.user_id, unread, list.after, rows).await?;
    Ok(Representation::new(list.page(rows, Notification::mark)))
}

/// Mark my notifications as read
#[utoipa::path(post, path = "/v1/notifications/read", request_body = MarkRead,
    responses((status = 200, description = "They are read; others' and unknown ids are passed over.", body = MarkedRead)),
    security(("bearer" = [])))]
async fn mark_read(
    State(db): State<PgPool>,
    caller: Caller,
    Json(which): Json<MarkRead>,
) -> ApiResult<axum::Json<MarkedRead>> {
    which.check()?;
    let marked = sqlx::query!(
        "UPDATE notifications
         SET    read_at = now(), updated_at = now()
         WHERE  user_id = $1 AND read_at IS NULL AND (id = ANY($2::uuid[]) OR created_at <= $3)",
        caller.user_id,
        which.ids.as_deref().unwrap_or_default(),
        which.before
    )
    .execute(&db)
    .await?;
    Ok(axum::Json(MarkedRead { marked: marked.rows_affected() }))
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
