//! Courses, batches and seats, for visitors: answered from the catalogue's snapshot.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    catalogue::{Availability, Catalogue, Course, CourseBatch},
    extract::{Id, Query},
    http::{ApiError, ApiResult, Representation},
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

/// The states of a batch that the list can be filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CourseBatchStatusFilter {
    /// Takes registrations within its window.
    Open,
    /// Takes none any more.
    Closed,
    /// Over.
    Completed,
}

impl CourseBatchStatusFilter {
    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Completed => "completed",
        }
    }
}

/// Parameters of [`list_batches`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CourseBatchFilter {
    /// Of this course only.
    course_id: Option<Uuid>,
    /// In this state only.
    #[param(inline)]
    status: Option<CourseBatchStatusFilter>,
}

/// Courses on offer
#[utoipa::path(get, path = "/v1/courses",
    responses((status = 200, description = "All of them.", body = All<Course>)), security(()))]
async fn list_courses(
    State(catalogue): State<Arc<Catalogue>>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Representation<All<Course>>> {
    let items = catalogue.snapshot().await?.courses.clone();
    Ok(Representation::new(All { items }))
}

/// Batches on offer
#[utoipa::path(get, path = "/v1/batches", params(CourseBatchFilter),
    responses((status = 200, description = "All of them.", body = All<CourseBatch>)), security(()))]
async fn list_batches(
    State(catalogue): State<Arc<Catalogue>>,
    Query(filter): Query<CourseBatchFilter>,
) -> ApiResult<Representation<All<CourseBatch>>> {
    let snapshot = catalogue.snapshot().await?;
    let matches = |course_batch: &&CourseBatch| {
        filter.course_id.is_none_or(|course| course == course_batch.course_id)
            && filter.status.is_none_or(|status| status.name() == course_batch.status)
    };
    let items = snapshot.course_batches.iter().filter(matches).cloned().collect();
    Ok(Representation::new(All { items }))
}

/// One batch
#[utoipa::path(get, path = "/v1/batches/{id}", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The batch.", body = CourseBatch)), security(()))]
async fn show_batch(State(catalogue): State<Arc<Catalogue>>, Id(id): Id) -> ApiResult<Representation<CourseBatch>> {
    let snapshot = catalogue.snapshot().await?;
    Ok(Representation::new(snapshot.course_batch(id).ok_or_else(ApiError::not_found)?.clone()))
}

/// The seats of a batch
#[utoipa::path(get, path = "/v1/batches/{id}/availability", params(("id" = Uuid, Path)),
    responses((status = 200, description = "At most a second old.", body = Availability)), security(()))]
async fn show_availability(
    State(catalogue): State<Arc<Catalogue>>,
    Id(id): Id,
) -> ApiResult<Representation<Availability>> {
    let seats = catalogue.availability(id).await?.ok_or_else(ApiError::not_found)?;
    Ok(Representation::new(seats))
}
