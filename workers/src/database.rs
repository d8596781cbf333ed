//! The connection pools, with time limits on every statement, lock and idle transaction, so that one bad query cannot block
//! the others.

use std::{str::FromStr, time::Duration};

use secrecy::ExposeSecret;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::config::WorkerDatabase;

/// Planner settings of the pools' connections: one generic plan a connection, always by an index. Each statement looks
/// rows up by the keys of its deliveries; a plan that was made while a table was empty, or on old statistics, would scan
/// the table once it has grown.
const PLANNED_BY_KEY: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    ("jit", "off"),
];

/// Returns the pool of a process that settles events; see [`pool`].
///
/// # Errors
/// A malformed URL.
pub fn settling_pool(settings: &WorkerDatabase, application_name: &str) -> sqlx::Result<PgPool> {
    let options = options(settings, application_name)?.options(PLANNED_BY_KEY);
    Ok(pool_options(settings).connect_lazy_with(options))
}

/// Returns a pool that connects when it is first used, so that a process can start while Postgres is away.
///
/// # Errors
/// A malformed URL.
pub fn pool(settings: &WorkerDatabase, application_name: &str) -> sqlx::Result<PgPool> {
    Ok(pool_options(settings).connect_lazy_with(options(settings, application_name)?))
}

fn options(settings: &WorkerDatabase, application_name: &str) -> sqlx::Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(settings.url.expose_secret())?
        .application_name(&application_name.chars().take(60).collect::<String>())
        .options([
            ("statement_timeout", settings.statement_timeout_ms.to_string()),
            ("lock_timeout", settings.lock_timeout_ms.to_string()),
            ("idle_in_transaction_session_timeout", settings.idle_in_transaction_ms.to_string()),
        ]))
}

fn pool_options(settings: &WorkerDatabase) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(settings.pool_max)
        .acquire_timeout(Duration::from_millis(settings.acquire_timeout_ms))
        .test_before_acquire(false)
}
