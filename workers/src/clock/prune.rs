//! Deletes what has had its time, a little at once, so that no delete holds locks for long or bloats a table.

use sqlx::PgPool;

use crate::config::Clock;

/// One small delete of each table; answers whether one of them may have more to delete.
pub(super) async fn prune(pool: &PgPool, settings: &Clock) -> sqlx::Result<bool> {
    let limit = i64::from(settings.prune_batch);
    let operations_keep_days = i32::try_from(settings.operations_keep_days).unwrap_or(i32::MAX);
    let expired_keep_days = i32::try_from(settings.expired_keep_days).unwrap_or(i32::MAX);
    let operations = sqlx::query!(
        "DELETE FROM operations
          WHERE id IN (SELECT o.id
                         FROM operations o
                        WHERE o.settled_at < now() - make_interval(days => $1)
                          AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.operation_id = o.id AND d.state = 'parked')
                        ORDER BY o.settled_at
                        LIMIT $2)",
        operations_keep_days,
        limit,
    )
    .execute(pool)
    .await?;
    let sessions = sqlx::query!(
        "DELETE FROM sessions
          WHERE id IN (SELECT id
                         FROM sessions
                        WHERE expires_at < now() - make_interval(days => $1)
                        ORDER BY expires_at
                        LIMIT $2)",
        expired_keep_days,
        limit,
    )
    .execute(pool)
    .await?;
    let tokens = sqlx::query!(
        "DELETE FROM user_tokens
          WHERE id IN (SELECT id
                         FROM user_tokens
                        WHERE expires_at < now() - make_interval(days => $1)
                        ORDER BY expires_at
                        LIMIT $2)",
        expired_keep_days,
        limit,
    )
    .execute(pool)
    .await?;
    let [operations, sessions, tokens] = [operations, sessions, tokens].map(|deleted| deleted.rows_affected());
    if operations + sessions + tokens > 0 {
        tracing::info!(operations, sessions, tokens, "pruned");
    }
    let limit = u64::from(settings.prune_batch);
    Ok(operations >= limit || sessions >= limit || tokens >= limit)
}
