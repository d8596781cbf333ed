//! What came of operations, by the true times of their commits: `settled_at` is when the transaction began, so latencies
//! are taken from `pg_xact_commit_timestamp`.

use anyhow::Context as _;
use sqlx::PgPool;
use uuid::Uuid;

/// A settled operation.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Settled {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// When the gateway took it, microseconds since 1970.
    pub accepted_us: i64,
    /// When its result could be seen, microseconds since 1970.
    pub committed_us: i64,
}

/// Those of these operations that are settled.
///
/// # Errors
/// Where Postgres does not answer, or does not track commit timestamps.
pub async fn operations(database: &PgPool, ids: &[Uuid]) -> anyhow::Result<Vec<Settled>> {
    sqlx::query_as(
        "SELECT state = 'succeeded' AS succeeded,
                (extract(epoch FROM accepted_at) * 1000000)::bigint AS accepted_us,
                (extract(epoch FROM pg_xact_commit_timestamp(operations.xmin)) * 1000000)::bigint AS committed_us
           FROM unnest($1::uuid[]) AS asked (id)
           JOIN operations USING (id)",
    )
    .bind(ids)
    .fetch_all(database)
    .await
    .context("commit times cannot be read (track_commit_timestamp = on is needed)")
}

/// One number from one statement about these operations, `$1`.
///
/// # Errors
/// Where Postgres refuses.
pub async fn number(database: &PgPool, sql: &'static str, ids: &[Uuid]) -> anyhow::Result<i64> {
    let mut tx = database.begin().await?;
    // Tables that have just grown have no statistics yet, and nested loops over them would take minutes.
    sqlx::query("SET LOCAL enable_nestloop = off").execute(&mut *tx).await?;
    let number = sqlx::query_scalar(sql).bind(ids).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(number)
}
