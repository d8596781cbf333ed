//! What visitors read of courses, batches and seats.

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    catalogue::{Availability, Batch, Course},
    page,
    problem_response::{ApiError, ApiResult},
    query::{Id, Query},
    state::App,
};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_courses))
        .routes(routes!(list_batches))
        .routes(routes!(show_batch))
        .routes(routes!(show_availability))
}

/// Everything on offer; there is one page.
#[derive(Debug, Serialize, ToSchema)]
struct All<T> {
    items: Vec<T>,
}

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

/// Parameters of [`list_batches`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BatchQuery {
    /// Of this course only.
    course_id: Option<Uuid>,
    /// `open`, `closed` or `completed`.
    status: Option<String>,
}

/// Courses on offer
#[utoipa::path(get, path = "/v1/courses", tag = "catalogue",
    responses((status = 200, description = "All of them.", body = All<Course>)), security(()))]
async fn list_courses(
    State(app): State<App>,
    headers: HeaderMap,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Response> {
    let items = app.catalogue.snapshot().await?.courses.clone();
    Ok(page::respond(&headers, &All { items }))
}

/// Batches on offer
#[utoipa::path(get, path = "/v1/batches", tag = "catalogue", params(BatchQuery),
    responses((status = 200, description = "All of them.", body = All<Batch>)), security(()))]
async fn list_batches(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<BatchQuery>,
) -> ApiResult<Response> {
    let snapshot = app.catalogue.snapshot().await?;
    let asked = |batch: &&Batch| {
        query.course_id.is_none_or(|course| course == batch.course_id)
            && query.status.as_ref().is_none_or(|status| *status == batch.status)
    };
    let items = snapshot.batches.iter().filter(asked).cloned().collect();
    Ok(page::respond(&headers, &All::<Batch> { items }))
}

/// One batch
#[utoipa::path(get, path = "/v1/batches/{id}", tag = "catalogue", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The batch.", body = Batch)), security(()))]
async fn show_batch(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> ApiResult<Response> {
    let snapshot = app.catalogue.snapshot().await?;
    Ok(page::respond(&headers, snapshot.batch(id).ok_or_else(ApiError::not_found)?))
}

/// The seats of a batch
#[utoipa::path(get, path = "/v1/batches/{id}/availability", tag = "catalogue", params(("id" = Uuid, Path)),
    responses((status = 200, description = "At most a second old.", body = Availability)), security(()))]
async fn show_availability(State(app): State<App>, Id(id): Id, headers: HeaderMap) -> ApiResult<Response> {
    let seats = app.catalogue.availability(id).await?.ok_or_else(ApiError::not_found)?;
    Ok(page::respond(&headers, &seats))
}
