//! Enrollments: which student belongs to which batch. A student sees their own, staff everybody's.

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::Caller,
    page::{self, Page},
    problem_response::ApiResult,
    query::Query,
    state::App,
};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list))
}

/// A student in a batch.
#[derive(Serialize, ToSchema)]
struct Enrollment {
    id: Uuid,
    student_id: Uuid,
    batch_id: Uuid,
    registration_id: Option<Uuid>,
    /// `active`, `suspended`, `completed`, `withdrawn` or `transferred`.
    status: String,
    enrolled_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    end_reason: Option<String>,
    batch_name: String,
    course_title: String,
}

/// Which enrollments.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of the page before.
    cursor: Option<Uuid>,
    /// 1 to 100.
    limit: Option<u16>,
    /// `active`, `suspended`, `completed`, `withdrawn` or `transferred`.
    status: Option<String>,
    /// Of one batch.
    batch_id: Option<Uuid>,
    /// Whose; accountants and admins only.
    student_id: Option<Uuid>,
}

/// Enrollments, the newest first: my own, or everybody's for accountants and admins.
#[utoipa::path(
    get,
    path = "/v1/enrollments",
    tag = "enrollments",
    params(Filter),
    responses((status = 200, description = "A page", body = Page<Enrollment>), (status = 304, description = "Unchanged")),
    security(("bearer" = []))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(filter): Query<Filter>,
) -> ApiResult<Response> {
    let limit = page::limit(filter.limit)?;
    let enrollments = sqlx::query_as!(
        Enrollment,
        "SELECT   enrollments.id, enrollments.student_id, enrollments.batch_id, enrollments.registration_id,
                  enrollments.status, enrollments.enrolled_at, enrollments.ended_at, enrollments.end_reason,
                  batches.name AS batch_name, courses.title AS course_title
         FROM     enrollments
         JOIN     batches ON batches.id = enrollments.batch_id
         JOIN     courses ON courses.id = batches.course_id
         WHERE    ($1::uuid IS NULL OR enrollments.student_id = $1)
           AND    ($2::uuid IS NULL OR enrollments.student_id = $2)
           AND    ($3::uuid IS NULL OR enrollments.batch_id = $3)
           AND    ($4::text IS NULL OR enrollments.status = $4)
           AND    ($5::uuid IS NULL OR enrollments.id < $5)
         ORDER BY enrollments.id DESC
         LIMIT    $6",
        caller.own_rows_only(),
        filter.student_id,
        filter.batch_id,
        filter.status,
        filter.cursor,
        limit + 1
    )
    .fetch_all(&app.db)
    .await?;
    Ok(page::respond(&headers, &Page::of(enrollments, limit, |enrollment| enrollment.id)))
}
