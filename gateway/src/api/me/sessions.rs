//! The caller's own sign-ins: listed, and ended by their id.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{Auth, Caller},
    commands::sign_out::sign_out,
    extract::{ClientAddress, Id},
    http::{ApiError, ApiResult, Representation},
};

/// A sign-in that is alive.
#[derive(Serialize, ToSchema)]
pub struct SessionView {
    /// For `DELETE /v1/me/sessions/{id}`.
    id: Uuid,
    /// `true` for the sign-in of this request.
    current: bool,
    /// The address of its last use.
    ip: Option<String>,
    /// The client of its last use.
    user_agent: Option<String>,
    /// The time of its last refresh.
    last_used_at: DateTime<Utc>,
    /// Its end, unless it is refreshed.
    expires_at: DateTime<Utc>,
}

/// Every sign-in that is alive.
#[derive(Serialize, ToSchema)]
pub struct Sessions {
    /// The last used first.
    items: Vec<SessionView>,
}

/// My sign-ins
#[utoipa::path(get, path = "/v1/me/sessions",
    responses((status = 200, description = "Sign-ins that are alive.", body = Sessions)), security(("bearer" = [])))]
pub async fn list(State(db): State<PgPool>, caller: Caller) -> ApiResult<Representation<Sessions>> {
    let items = sqlx::query_as!(
        SessionView,
        r#"SELECT   family_id AS id,
                    family_id = $2 AS "current!",
                    host(ip) AS ip,
                    user_agent,
                    created_at AS last_used_at,
                    expires_at
           FROM     sessions
           WHERE    user_id = $1 AND rotated_at IS NULL AND revoked_at IS NULL AND expires_at > now()
           ORDER BY created_at DESC
           LIMIT    100"#,
        caller.user_id,
        caller.sid
    )
    .fetch_all(&db)
    .await?;
    Ok(Representation::new(Sessions { items }))
}

/// End one of my sign-ins
#[utoipa::path(delete, path = "/v1/me/sessions/{id}",
    params(("id" = Uuid, Path, description = "As the list gives it.")),
    responses((status = 204, description = "Ended: its tokens are refused from now on.")), security(("bearer" = [])))]
pub async fn end_one(
    State(db): State<PgPool>,
    State(auth): State<Arc<Auth>>,
    address: ClientAddress,
    caller: Caller,
    Id(id): Id,
) -> ApiResult<StatusCode> {
    if sign_out(&db, &auth, caller, id, address).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found())
    }
}
