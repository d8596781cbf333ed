//! `GET /.well-known/jwks.json`: the public keys of access tokens (RFC 7517), for an institute's other services.

use axum::{Json, extract::State, http::header, response::IntoResponse};

use crate::state::App;

/// Public keys that verify access tokens; none while only a shared secret signs them.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "auth",
    responses((status = 200, description = "A JSON Web Key Set (RFC 7517 §5)", body = serde_json::Value)),
    security(())
)]
pub(super) async fn public_keys(State(app): State<App>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(app.auth.keys.public_keys()))
}
