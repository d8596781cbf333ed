//! The connection pool, with the limits on every statement, lock and idle transaction that keep one bad query from
//! holding everybody up.

use std::{str::FromStr, time::Duration};

use secrecy::ExposeSecret;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::config;

/// A pool that connects when it is first used, so that a process can start while Postgres is away.
///
/// # Errors
/// Where the URL is none.
pub fn pool(settings: &config::Database, application_name: &str) -> sqlx::Result<PgPool> {
    let options = PgConnectOptions::from_str(settings.url.expose_secret())?
        .application_name(&application_name.chars().take(60).collect::<String>())
        .options([
            ("statement_timeout", settings.statement_timeout_ms.to_string()),
            ("lock_timeout", settings.lock_timeout_ms.to_string()),
            ("idle_in_transaction_session_timeout", settings.idle_in_transaction_ms.to_string()),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(settings.pool_max)
        .acquire_timeout(Duration::from_millis(settings.acquire_timeout_ms))
        .test_before_acquire(false)
        .connect_lazy_with(options))
}
