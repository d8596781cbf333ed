//! Ending sign-ins: this one (`POST /v1/auth/logout`), or any of one's own by its id. Its access tokens are refused on
//! every gateway within five seconds, its refresh tokens at once.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Caller, ClientIp, audit, revocations, sessions};
use crate::{
    page,
    problem_response::{ApiError, ApiResult},
    query::Id,
    state::App,
};

/// A sign-in that is alive.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    /// For `DELETE /v1/me/sessions/{id}`.
    id: Uuid,
    /// Whether it is the one that asks.
    current: bool,
    /// Where it was used last.
    ip: Option<String>,
    /// What it was used with last.
    user_agent: Option<String>,
    /// When it was refreshed last.
    last_used_at: DateTime<Utc>,
    /// When it ends unless it is refreshed.
    expires_at: DateTime<Utc>,
}

/// Every sign-in that is alive.
#[derive(Serialize, ToSchema)]
pub(super) struct Sessions {
    /// The last used first.
    items: Vec<Session>,
}

/// End this sign-in.
#[utoipa::path(
    post,
    path = "/v1/auth/logout",
    tag = "auth",
    responses((status = 204, description = "Ended: its tokens are refused from now on")),
    security(("bearer" = []))
)]
pub(super) async fn logout(State(app): State<App>, ip: ClientIp, caller: Caller) -> ApiResult<StatusCode> {
    end(&app, caller, caller.sid, ip).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// My sign-ins.
#[utoipa::path(
    get,
    path = "/v1/me/sessions",
    tag = "me",
    responses((status = 200, description = "Sign-ins that are alive", body = Sessions)),
    security(("bearer" = []))
)]
pub(super) async fn list(State(app): State<App>, caller: Caller, headers: HeaderMap) -> ApiResult<Response> {
    let items = sqlx::query_as!(
        Session,
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
    .fetch_all(&app.db)
    .await?;
    Ok(page::respond(&headers, &Sessions { items }))
}

/// End one of my sign-ins.
#[utoipa::path(
    delete,
    path = "/v1/me/sessions/{id}",
    tag = "me",
    params(("id" = Uuid, Path, description = "As the list gives it")),
    responses((status = 204, description = "Ended: its tokens are refused from now on")),
    security(("bearer" = []))
)]
pub(super) async fn end_one(State(app): State<App>, ip: ClientIp, caller: Caller, Id(id): Id) -> ApiResult<StatusCode> {
    if end(&app, caller, id, ip).await? { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::not_found()) }
}

async fn end(app: &App, caller: Caller, sid: Uuid, ip: ClientIp) -> ApiResult<bool> {
    let mut tx = app.db.begin().await?;
    let revoked = sessions::revoke_family(&mut tx, caller.user_id, sid).await?;
    if revoked {
        let entry = audit::Entry {
            actor: (caller.user_id, caller.role),
            action: "auth.logout",
            entity_type: "session",
            entity_id: sid,
            ip,
        };
        audit::record(&mut tx, entry).await?;
    }
    tx.commit().await?;
    // Also a token that came without a session (load tests mint such) ends with its logout.
    if revoked || sid == caller.sid {
        revocations::announce(app, vec![sid]);
    }
    Ok(revoked)
}
