//! The signed-in user: account, profile, and sign-ins.

mod queries;
mod sessions;
mod views;

use axum::extract::State;
use sqlx::PgPool;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::Caller,
    commands::EditRequest,
    extract::Json,
    http::{ApiError, ApiResult, Representation},
};
use queries::ProfileEdit;
use views::{Me, ProfileChange};

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show, change))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::end_one))
}

/// My account and profile
#[utoipa::path(get, path = "/v1/me",
    responses((status = 200, description = "Account and profile.", body = Me)), security(("bearer" = [])))]
async fn show(State(db): State<PgPool>, caller: Caller) -> ApiResult<Representation<Me>> {
    let me = queries::show(&db, caller.user_id).await?.ok_or_else(ApiError::not_found)?;
    Ok(Representation::versioned(me.version, me))
}

/// Change my profile
///
/// With `If-Match`, only the version that it names is changed; without it, whichever there is.
#[utoipa::path(patch, path = "/v1/me", request_body = ProfileChange,
    params(("If-Match" = Option<String>, Header, description = "The `ETag` of `GET /v1/me`.")),
    responses((status = 200, description = "Account and profile, as they are now.", body = Me)),
    security(("bearer" = [])))]
async fn change(
    State(db): State<PgPool>,
    request: EditRequest,
    Json(change): Json<ProfileChange>,
) -> ApiResult<Representation<Me>> {
    change.check()?;
    let edit = ProfileEdit { user_id: request.caller.user_id, change };
    request.apply(&db, &edit).await
}
