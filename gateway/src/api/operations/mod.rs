//! Operations: the results of commands. An id that bears our MAC and has no row yet is `pending`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::{Caller, MaybeCaller},
    commands::Commands,
    extract::{List, Listing, Newest, NewestFirst, Page, Query},
    http::{ApiError, ApiResult, Representation, prefer::WAIT_SECONDS_MAX},
    live::{
        Live,
        operations::{OperationView, SettledOperation},
    },
};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(list))
}

/// Parameters of [`show`].
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ShowQuery {
    /// Wait up to so many seconds (at most 30) for it to be settled.
    wait: Option<u64>,
}

/// The list of operations has no filters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OperationFilter {}

impl Listing for OperationFilter {
    const NAME: &'static str = "operations";
    type Key = Newest;
    type Sort = NewestFirst;
}

/// The result of a command
#[utoipa::path(get, path = "/v1/operations/{id}", params(("id" = String, Path), ShowQuery),
    responses((status = 200, description = "Its state, and its result once it is settled.", body = OperationView)),
    security((), ("bearer" = [])))]
async fn show(
    State(live): State<Arc<Live>>,
    State(commands): State<Commands>,
    caller: MaybeCaller,
    Path(text): Path<String>,
    Query(query): Query<ShowQuery>,
) -> ApiResult<Response> {
    let held = commands.ids().decode(&text).ok_or_else(ApiError::not_found)?;
    if query.wait.is_some_and(|seconds| seconds > WAIT_SECONDS_MAX) {
        return Err(ApiError::invalid_request(format!("`wait` must be 0 to {WAIT_SECONDS_MAX}.")));
    }
    let wait = Duration::from_secs(query.wait.unwrap_or(0));
    let waiter = if wait.is_zero() { None } else { live.waiters.register(held.id) };
    let mut settled = live.reader.operation(held.id).await?;
    if let (None, Some(waiter)) = (&settled, waiter) {
        settled = waiter.settled(wait).await;
    }
    let Some(settled) = settled else {
        let pending = Representation::new(OperationView::pending(text, None, None));
        return Ok(([(header::RETRY_AFTER, HeaderValue::from_static("1"))], pending).into_response());
    };
    if !settled.may_be_seen_by(caller.0.as_ref()) {
        return Err(ApiError::not_found());
    }
    Ok(Representation::new(settled.view(text, Some(held))).into_response())
}

/// My operations, those that are settled
///
/// The newest first.
#[utoipa::path(get, path = "/v1/operations", params(List<OperationFilter>),
    responses((status = 200, description = "A page.", body = Page<OperationView>)), security(("bearer" = [])))]
async fn list(
    State(db): State<PgPool>,
    State(commands): State<Commands>,
    caller: Caller,
    list: List<OperationFilter>,
) -> ApiResult<Representation<Page<OperationView>>> {
    let principal = caller.principal().to_string();
    let rows = SettledOperation::read_page(&db, &principal, list.after, list.rows()).await?;
    let Page { items, next_cursor } = list.page(rows, SettledOperation::mark);
    let items = items.into_iter().filter_map(|row| row.listed(commands.ids())).collect();
    Ok(Representation::new(Page { items, next_cursor }))
}
