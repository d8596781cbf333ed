//! The connection pools, with the limits on every statement, lock and idle transaction that keep one bad query from
//! holding everybody up.

use std::{str::FromStr, time::Duration};

use secrecy::ExposeSecret;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::config;

/// How the pools' statements are planned: once a connection, and always by the index. Each of them looks rows up by the
/// keys of one batch; a plan that was made while a table was empty, or on old statistics, would scan it once it has grown.
const PLANNED_BY_KEY: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    ("jit", "off"),
];

/// The pool of a process that settles events; see [`pool`].
///
/// # Errors
/// Where the URL is none.
pub fn settling_pool(settings: &config::Database, application_name: &str) -> sqlx::Result<PgPool> {
    let options = options(settings, application_name)?.options(PLANNED_BY_KEY);
    Ok(pool_options(settings).connect_lazy_with(options))
}

/// A pool that connects when it is first used, so that a process can start while Postgres is away.
///
/// # Errors
/// Where the URL is none.
pub fn pool(settings: &config::Database, application_name: &str) -> sqlx::Result<PgPool> {
    Ok(pool_options(settings).connect_lazy_with(options(settings, application_name)?))
}

fn options(settings: &config::Database, application_name: &str) -> sqlx::Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(settings.url.expose_secret())?
        .application_name(&application_name.chars().take(60).collect::<String>())
        .options([
            ("statement_timeout", settings.statement_timeout_ms.to_string()),
            ("lock_timeout", settings.lock_timeout_ms.to_string()),
            ("idle_in_transaction_session_timeout", settings.idle_in_transaction_ms.to_string()),
        ]))
}

fn pool_options(settings: &config::Database) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(settings.pool_max)
        .acquire_timeout(Duration::from_millis(settings.acquire_timeout_ms))
        .test_before_acquire(false)
}
