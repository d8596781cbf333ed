//! The recorder of Prometheus metrics, and `/metrics` as text.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context;
use axum::{http::header, response::IntoResponse};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// From a cached read to a request that waited for the broker's confirm.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder of the process; there is one, however many gateways a test starts.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once a process.
///
/// # Errors
/// Another recorder was installed before.
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

/// Answers with all metrics as Prometheus text (exposition format 0.0.4).
pub fn render() -> impl IntoResponse {
    let text = RECORDER.get().map(PrometheusHandle::render).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

fn describe() {
    use ::metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("gateway_requests_total", "Requests, by method, route and status.");
    describe_counter!("gateway_shed_total", "Requests refused to protect the others, by reason.");
    describe_counter!("gateway_replays_total", "Requests answered from the cache of recent idempotency keys.");
    describe_histogram!("gateway_request_seconds", "From the first byte of a request to its answer.");
    describe_histogram!("gateway_confirm_seconds", "From publishing to the broker's confirm.");
    describe_gauge!("gateway_requests_in_flight", "Requests in flight, without those that only wait.");
    describe_gauge!("gateway_waiters", "Clients waiting for an operation to settle.");
    describe_gauge!("gateway_live_connected", "1 while live messages are received; without them sweeps notify, later.");
    describe_gauge!("gateway_streams", "Open event streams.");
    describe_counter!("gateway_waits_told_total", "Waits that ended with a result: woken by a live message, or swept.");
    describe_counter!("gateway_events_total", "Events sent on streams, by event.");
    describe_counter!("gateway_live_queries_total", "Queries for long polls and streams, by what is read.");
    describe_gauge!("gateway_connections", "Open connections.");
    describe_gauge!("gateway_database_connections", "Connections of the pool.");
    describe_gauge!("gateway_ready", "1 where requests can be made safe.");
}
