//! GatewayLog lines: JSON for machines or pretty for people, filtered by `tracing` directives.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{GatewayLog, GatewayLogFormat};

/// Starts logging to standard error.
///
/// # Errors
/// A filter that is none, or a second call.
pub fn start(log: &GatewayLog) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).context("log.filter")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        GatewayLogFormat::Json => lines.json().flatten_event(true).try_init(),
        GatewayLogFormat::Pretty => lines.try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging was started before: {error}"))
}
