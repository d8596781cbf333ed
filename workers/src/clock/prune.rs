//! Deletes old rows, a few at once, so that no delete holds locks for long or bloats a table.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::config::Clock;

/// One pass over the tables, the oldest rows of each first. Each small delete continues where the one before it ended: from
/// the beginning, it would scan all rows that were deleted since the last vacuum.
#[derive(Debug, Default)]
pub(super) struct Pruning {
    operations: Progress,
    sessions: Progress,
    tokens: Progress,
}

/// The progress in one table.
#[derive(Debug, Default)]
struct Progress {
    deleted: i64,
    reached: Option<DateTime<Utc>>,
    done: bool,
}

/// The rows of one small delete.
struct Deleted {
    count: i64,
    reached: Option<DateTime<Utc>>,
}

impl Pruning {
    /// Deletes a few rows of each table that may have more; returns true while one of them may have more.
    pub(super) async fn delete_some(&mut self, pool: &PgPool, settings: &Clock) -> sqlx::Result<bool> {
        let limit = i64::from(settings.prune_batch);
        if !self.operations.done {
            let days = i32::try_from(settings.operations_keep_days).unwrap_or(i32::MAX);
            let deleted = delete_operations(pool, days, limit, self.operations.reached).await?;
            self.operations.advance(deleted, limit);
        }
        let days = i32::try_from(settings.expired_keep_days).unwrap_or(i32::MAX);
        if !self.sessions.done {
            self.sessions.advance(delete_sessions(pool, days, limit, self.sessions.reached).await?, limit);
        }
        if !self.tokens.done {
            self.tokens.advance(delete_tokens(pool, days, limit, self.tokens.reached).await?, limit);
        }
        let more = !(self.operations.done && self.sessions.done && self.tokens.done);
        let [operations, sessions, tokens] =
            [&self.operations, &self.sessions, &self.tokens].map(|table| table.deleted);
        if !more && operations + sessions + tokens > 0 {
            tracing::info!(operations, sessions, tokens, "pruned");
        }
        Ok(more)
    }
}

impl Progress {
    fn advance(&mut self, deleted: Deleted, limit: i64) {
        self.deleted += deleted.count;
        self.reached = deleted.reached.or(self.reached);
        self.done = deleted.count < limit;
    }
}

/// Deletes the oldest operations that no parked dead letter names. By `ctid`, which is safe within one statement: rows that
/// grew old together lie together, and their ids do not.
async fn delete_operations(
    pool: &PgPool,
    days: i32,
    limit: i64,
    reached: Option<DateTime<Utc>>,
) -> sqlx::Result<Deleted> {
    sqlx::query_as!(
        Deleted,
        r#"
                WITH old AS MATERIALIZED (
                    SELECT o.ctid, o.settled_at
                      FROM operations o
                     WHERE o.settled_at >= COALESCE($3::timestamptz, '-infinity')
                       AND o.settled_at < now() - make_interval(days => $1)
                       AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.operation_id = o.id AND d.state = 'parked')
                     ORDER BY o.settled_at
                     LIMIT $2
                ), gone AS (
                    DELETE FROM operations WHERE ctid = ANY (ARRAY(SELECT ctid FROM old))
                )
                SELECT count(*) AS "count!", max(settled_at) AS reached FROM old
                "#,
        days,
        limit,
        reached,
    )
    .fetch_one(pool)
    .await
}

/// Deletes the sessions that expired first. By id: the workers' role may read no more of them than the columns named here.
async fn delete_sessions(
    pool: &PgPool,
    days: i32,
    limit: i64,
    reached: Option<DateTime<Utc>>,
) -> sqlx::Result<Deleted> {
    sqlx::query_as!(
        Deleted,
        r#"
                WITH old AS MATERIALIZED (
                    SELECT id, expires_at
                      FROM sessions
                     WHERE expires_at >= COALESCE($3::timestamptz, '-infinity')
                       AND expires_at < now() - make_interval(days => $1)
                     ORDER BY expires_at
                     LIMIT $2
                ), gone AS (
                    DELETE FROM sessions WHERE id = ANY (ARRAY(SELECT id FROM old))
                )
                SELECT count(*) AS "count!", max(expires_at) AS reached FROM old
                "#,
        days,
        limit,
        reached,
    )
    .fetch_one(pool)
    .await
}

/// Deletes the mailed tokens that expired first, by `ctid` as [`delete_operations`].
async fn delete_tokens(pool: &PgPool, days: i32, limit: i64, reached: Option<DateTime<Utc>>) -> sqlx::Result<Deleted> {
    sqlx::query_as!(
        Deleted,
        r#"
                WITH old AS MATERIALIZED (
                    SELECT ctid, expires_at
                      FROM user_tokens
                     WHERE expires_at >= COALESCE($3::timestamptz, '-infinity')
                       AND expires_at < now() - make_interval(days => $1)
                     ORDER BY expires_at
                     LIMIT $2
                ), gone AS (
                    DELETE FROM user_tokens WHERE ctid = ANY (ARRAY(SELECT ctid FROM old))
                )
                SELECT count(*) AS "count!", max(expires_at) AS reached FROM old
                "#,
        days,
        limit,
        reached,
    )
    .fetch_one(pool)
    .await
}
