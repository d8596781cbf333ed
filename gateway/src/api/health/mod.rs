//! Liveness and readiness. Accepting needs the broker alone: with Postgres away the gateway stays ready, and reports that it
//! is degraded.

use std::time::Duration;

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// The routes of this resource, on the public listener.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready))
}

/// The same routes, for the private listener.
pub fn private_routes() -> Router<App> {
    Router::new().route("/health/live", get(live)).route("/health/ready", get(ready))
}

/// The state of the gateway.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ready`, `degraded`, `draining` or `unavailable`.
    status: &'static str,
    /// `true` while requests can be made durable.
    broker: bool,
    /// `true` while reads are answered.
    database: bool,
}

/// Liveness of the process
#[utoipa::path(get, path = "/health/live", responses((status = 200, description = "It does.")), security(()))]
async fn live() -> StatusCode {
    StatusCode::OK
}

/// Readiness for requests
#[utoipa::path(get, path = "/health/ready",
    responses((status = 200, description = "They can; `degraded` where reads cannot.", body = Health),
              (status = 503, description = "They cannot.", body = Health)), security(()))]
async fn ready(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let probe = sqlx::query_scalar!("SELECT 1").fetch_one(app.db());
    let database = matches!(tokio::time::timeout(PROBE_TIMEOUT, probe).await, Ok(Ok(_)));
    let broker = app.publisher().is_ready();
    let (code, status) = match (app.is_draining(), broker, database) {
        (true, _, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        (false, true, false) => (StatusCode::OK, "degraded"),
        (false, true, true) => (StatusCode::OK, "ready"),
    };
    (code, Json(Health { status, broker, database }))
}
