//! Logs, metrics, and the private listener that shows metrics and health.

use std::{net::SocketAddr, sync::OnceLock};

use anyhow::Context as _;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{WorkerLog, WorkerLogFormat},
    runtime::Health,
};

/// Bucket bounds in seconds: from a fast statement to events that are minutes old.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Bucket bounds in events.
const EVENTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Silences lapin's own log of channel errors, such as a missing queue: it returns them as well, and the caller logs what
/// they mean. A configured filter that names the target wins.
const WITHOUT_CHANNEL_ERRORS: &str = "lapin::channel=off";

/// Starts logging to stderr: with the configured filter for `workers run`, warnings only for other commands.
pub fn init(log: &WorkerLog, running: bool) {
    let filter = if running { log.filter.as_str() } else { "warn" };
    let filter = EnvFilter::try_new(format!("{WITHOUT_CHANNEL_ERRORS},{filter}"))
        .unwrap_or_else(|_| EnvFilter::new(format!("{WITHOUT_CHANNEL_ERRORS},info")));
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        WorkerLogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).init()
        }
        WorkerLogFormat::Pretty => registry.with(fmt::layer().with_writer(std::io::stderr)).init(),
    }
}

/// Serves `/metrics`, `/health/live` and `/health/ready` on the private address.
///
/// # Errors
/// An address that is in use or not of this machine.
pub async fn serve(listen: SocketAddr, health: Health) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("metrics_listen: {listen} cannot be listened on; choose a free port"))?;
    let metrics = recorder()?;
    let router = Router::new()
        .route("/metrics", get(move || std::future::ready(metrics.render())))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(health);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

fn recorder() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_events".into()), EVENTS)?
        .install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    Ok(HANDLE.get_or_init(|| handle).clone())
}

async fn live(State(health): State<Health>) -> (StatusCode, String) {
    response(health.live())
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    response(health.ready())
}

fn response(checked: Result<(), Vec<String>>) -> (StatusCode, String) {
    match checked {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(errors) => (StatusCode::SERVICE_UNAVAILABLE, errors.join("\n") + "\n"),
    }
}
