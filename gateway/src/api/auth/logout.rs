//! `POST /v1/auth/logout`: ends this sign-in.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use sqlx::PgPool;

use crate::{
    auth::{Auth, Caller},
    commands::sign_out::sign_out,
    extract::ClientAddress,
    http::ApiResult,
};

/// End this sign-in
#[utoipa::path(post, path = "/v1/auth/logout",
    responses((status = 204, description = "Ended: its tokens are refused from now on.")), security(("bearer" = [])))]
pub async fn logout(
    State(db): State<PgPool>,
    State(auth): State<Arc<Auth>>,
    address: ClientAddress,
    caller: Caller,
) -> ApiResult<StatusCode> {
    sign_out(&db, &auth, caller, caller.sid, address).await?;
    Ok(StatusCode::NO_CONTENT)
}
