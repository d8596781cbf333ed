//! Settled operations with their commit times. `settled_at` is the beginning of the transaction, so latencies use
//! `pg_xact_commit_timestamp`.

use anyhow::Context as _;
use sqlx::PgPool;
use uuid::Uuid;

/// A settled operation.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(crate) struct SettledOperation {
    /// True if its state is `succeeded`.
    pub succeeded: bool,
    /// Time of acceptance by the gateway, microseconds since 1970.
    pub accepted_us: i64,
    /// Commit time of its result, microseconds since 1970.
    pub committed_us: i64,
}

/// Returns those of these operations that are settled.
///
/// # Errors
/// Where Postgres does not answer, or does not track commit timestamps.
pub(crate) async fn operations(database: &PgPool, ids: &[Uuid]) -> anyhow::Result<Vec<SettledOperation>> {
    sqlx::query_as(
        "SELECT state = 'succeeded' AS succeeded,
                (extract(epoch FROM accepted_at) * 1000000)::bigint AS accepted_us,
                (extract(epoch FROM pg_xact_commit_timestamp(operations.xmin)) * 1000000)::bigint AS committed_us
           FROM unnest($1::uuid[]) AS wanted (id)
           JOIN operations USING (id)",
    )
    .bind(ids)
    .fetch_all(database)
    .await
    .context("commit times cannot be read (track_commit_timestamp = on is needed)")
}

/// Returns the number that a statement counts; the operations' ids are its `$1`.
///
/// # Errors
/// Where Postgres rejects the statement.
pub(crate) async fn count(database: &PgPool, sql: &'static str, ids: &[Uuid]) -> anyhow::Result<i64> {
    let mut tx = database.begin().await?;
    // Tables that have just grown have no statistics yet, and a nested loop over them would take minutes.
    sqlx::query("SET LOCAL enable_nestloop = off").execute(&mut *tx).await?;
    let number = sqlx::query_scalar(sql).bind(ids).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(number)
}
