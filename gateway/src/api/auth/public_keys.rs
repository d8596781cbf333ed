//! `GET /.well-known/jwks.json`: the public keys of access tokens (RFC 7517), for an institute's other services.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{auth::Auth, http::Representation};

/// Public keys that verify access tokens; none while only a shared secret signs them
#[utoipa::path(get, path = "/.well-known/jwks.json",
    responses((status = 200, description = "A JSON Web Key Set (RFC 7517 §5).", body = serde_json::Value)),
    security(()))]
pub async fn public_keys(State(auth): State<Arc<Auth>>) -> Response {
    let keys = Representation::new(auth.public_keys());
    ([(header::CACHE_CONTROL, "public, max-age=300")], keys).into_response()
}
