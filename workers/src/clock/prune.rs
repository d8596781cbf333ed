//! Deletes what has had its time, a little at once, so that no delete holds locks for long or bloats a table.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::config::Clock;

/// A round through the tables, the oldest rows of each first. Each small delete goes on where the one before it ended:
/// from the beginning, it would walk over all that was deleted since the last vacuum.
#[derive(Debug, Default)]
pub(super) struct Round {
    operations: Progress,
    sessions: Progress,
    tokens: Progress,
}

/// How far a round has come in a table.
#[derive(Debug, Default)]
struct Progress {
    deleted: i64,
    reached: Option<DateTime<Utc>>,
    done: bool,
}

/// What one small delete took.
struct Deleted {
    count: i64,
    reached: Option<DateTime<Utc>>,
}

impl Round {
    /// One small delete of each table that may have more to delete; answers whether one of them still may.
    pub(super) async fn delete_some(&mut self, pool: &PgPool, settings: &Clock) -> sqlx::Result<bool> {
        let limit = i64::from(settings.prune_batch);
        let operations_keep_days = i32::try_from(settings.operations_keep_days).unwrap_or(i32::MAX);
        let expired_keep_days = i32::try_from(settings.expired_keep_days).unwrap_or(i32::MAX);
        // By `ctid`, which is safe within one statement: rows that grew old together lie together, and their ids do not.
        // (Of sessions the workers' role may read no more than what is named here.)
        if !self.operations.done {
            let deleted = sqlx::query_as!(
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
                operations_keep_days,
                limit,
                self.operations.reached,
            );
            self.operations.advance(deleted.fetch_one(pool).await?, limit);
        }
        if !self.sessions.done {
            let deleted = sqlx::query_as!(
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
                expired_keep_days,
                limit,
                self.sessions.reached,
            );
            self.sessions.advance(deleted.fetch_one(pool).await?, limit);
        }
        if !self.tokens.done {
            let deleted = sqlx::query_as!(
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
                expired_keep_days,
                limit,
                self.tokens.reached,
            );
            self.tokens.advance(deleted.fetch_one(pool).await?, limit);
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
