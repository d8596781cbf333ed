//! `/metrics`, on the private listener: requests, confirm latency, what is in hand, what was shed and why.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context;
use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::{health, state::App};

/// From a cached read to a request that waited for the broker's confirm.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder of the process; there is one, however many gateways a test starts.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, if it is not there yet.
///
/// # Errors
/// Where another recorder was installed before.
pub fn install() -> anyhow::Result<()> {
    if RECORDER.get().is_some() {
        return Ok(());
    }
    let recorder = PrometheusBuilder::new().set_buckets(SECONDS)?.build_recorder();
    let handle = recorder.handle();
    if RECORDER.set(handle.clone()).is_ok() {
        ::metrics::set_global_recorder(recorder).ok().context("a metrics recorder is installed already")?;
        describe();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_INTERVAL).await;
                handle.run_upkeep();
            }
        });
    }
    Ok(())
}

/// The routes of the private listener.
pub fn private_router(app: App) -> Router {
    Router::new().route("/metrics", get(render)).merge(health::private_routes()).with_state(app)
}

async fn render(State(app): State<App>) -> impl IntoResponse {
    let in_hand = app.settings.limits.requests_in_flight_max - app.places.available_permits();
    ::metrics::gauge!("gateway_requests_in_flight").set(in_hand as f64);
    ::metrics::gauge!("gateway_ready").set(f64::from(u8::from(app.publisher.is_ready() && !app.is_draining())));
    ::metrics::gauge!("gateway_database_connections").set(f64::from(app.db.size()));
    let text = RECORDER.get().map(PrometheusHandle::render).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

fn describe() {
    use ::metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("gateway_requests_total", "Requests, by method, route and status.");
    describe_counter!("gateway_shed_total", "Requests refused to protect the others, by reason.");
    describe_counter!("gateway_replays_total", "Requests answered again from the memory of recent idempotency keys.");
    describe_histogram!("gateway_request_seconds", "From the first byte of a request to its answer.");
    describe_histogram!("gateway_confirm_seconds", "From publishing to the broker's confirm.");
    describe_gauge!("gateway_requests_in_flight", "Requests in hand; those that only wait not counted.");
    describe_gauge!("gateway_waiters", "Clients waiting for an operation to settle.");
    describe_gauge!("gateway_live_connected", "1 where live messages are heard; without them sweeps tell, later.");
    describe_gauge!("gateway_streams", "Clients listening to events.");
    describe_counter!("gateway_waits_told_total", "Waits that ended with a result: woken by a live message, or swept.");
    describe_counter!("gateway_events_total", "Events sent to those who listen, by event.");
    describe_counter!("gateway_live_queries_total", "Queries for those who wait or listen, by what was read.");
    describe_gauge!("gateway_connections", "Open connections.");
    describe_gauge!("gateway_database_connections", "Connections of the pool.");
    describe_gauge!("gateway_ready", "1 where requests can be made safe.");
}
