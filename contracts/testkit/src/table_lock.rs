//! A table locked by a test: whoever writes to it stops in the middle of its transaction, until the test lets go. So a
//! test interrupts work that is provably in flight, on a quick machine as on a slow one.

use std::time::Duration;

use sqlx::{PgPool, Postgres, Transaction};

use crate::eventually;

/// Longer than any transaction takes.
const WAITER_LIMIT: Duration = Duration::from_secs(60);

/// A lock on one table: reads go on, writes and row locks wait. Ends with [`TableLock::release`], or with its drop.
pub struct TableLock {
    transaction: Transaction<'static, Postgres>,
    db: PgPool,
    table: &'static str,
}

/// A transaction that waits for the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWaiter {
    /// The process id of its Postgres backend.
    pub pid: i32,
    /// The `application_name` of its connection; empty where this role may not see it.
    pub application: String,
}

impl TableLock {
    /// Locks the table, after the transactions that write to it now.
    ///
    /// # Panics
    /// Where there is no such table.
    pub async fn acquire(db: &PgPool, table: &'static str) -> Self {
        let mut transaction = db.begin().await.expect("the database is up");
        let lock = format!("LOCK TABLE {table} IN EXCLUSIVE MODE");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *transaction).await.expect("the table is the owner's");
        Self { transaction, db: db.clone(), table }
    }

    /// The transactions that wait for it now.
    pub async fn waiters(&self) -> Vec<LockWaiter> {
        let waiting: Vec<(i32, Option<String>)> = sqlx::query_as(
            "SELECT waiting.pid, activity.application_name
               FROM pg_locks AS waiting JOIN pg_stat_activity AS activity ON activity.pid = waiting.pid
              WHERE NOT waiting.granted
                AND waiting.locktype = 'relation'
                AND waiting.relation = to_regclass($1)
                AND activity.datname = current_database()
              ORDER BY waiting.waitstart, waiting.pid",
        )
        .bind(self.table)
        .fetch_all(&self.db)
        .await
        .expect("anybody may read pg_locks");
        waiting.into_iter().map(|(pid, name)| LockWaiter { pid, application: name.unwrap_or_default() }).collect()
    }

    /// Waits until a transaction waits for it: there is work in flight.
    ///
    /// # Panics
    /// Where none does within a minute.
    pub async fn waiter(&self) -> LockWaiter {
        let awaited = format!("a transaction waits for the lock on {}", self.table);
        eventually(&awaited, WAITER_LIMIT, || async { self.waiters().await.into_iter().next() }).await
    }

    /// Ends the connection of the first that waits, and with it its transaction, as an administrator or a failover does;
    /// returns when it is gone. `role` is a pool of the waiting role, which may end its own.
    pub async fn cut_waiter(&self, role: &PgPool) -> LockWaiter {
        let waiter = self.waiter().await;
        sqlx::query("SELECT pg_terminate_backend($1)")
            .bind(waiter.pid)
            .execute(role)
            .await
            .expect("it is the role's own");
        eventually("the connection is cut", WAITER_LIMIT, || async { !self.waiters().await.contains(&waiter) }).await;
        waiter
    }

    /// Lets everybody go on.
    pub async fn release(self) {
        self.transaction.rollback().await.expect("the database is up");
    }
}
