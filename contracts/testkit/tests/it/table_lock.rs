//! A lock that holds transactions up, and cuts one of them off.

use sqlx::{
    PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use testkit::{Sandbox, TableLock};

const WRITE: &str = "INSERT INTO locked (n) VALUES (1)";

#[tokio::test]
async fn writes_wait_for_the_lock_until_they_are_cut_or_it_is_released() {
    let sandbox = Sandbox::new("table_lock").await;
    for statement in ["CREATE TABLE locked (n int)", "GRANT INSERT ON locked TO registrar_workers"] {
        sqlx::query(statement).execute(&sandbox.db).await.expect("the owner may");
    }
    let options: PgConnectOptions = sandbox.workers_url().parse().expect("a URL");
    let writers = PgPoolOptions::new().connect_lazy_with(options.application_name("writer"));
    let lock = TableLock::acquire(&sandbox.db, "locked").await;
    assert!(lock.waiters().await.is_empty());
    let (cut, waiter) =
        tokio::join!(sqlx::query(WRITE).execute(&writers), async { lock.cut_waiter(&writers).await.application });
    assert!(cut.is_err() && waiter == "writer", "{cut:?} {waiter}");
    let (written, ()) = tokio::join!(sqlx::query(WRITE).execute(&writers), async {
        lock.waiter().await;
        assert_eq!(rows(&sandbox.db).await, 0, "reads go on");
        lock.release().await;
    });
    assert_eq!((written.expect("released").rows_affected(), rows(&sandbox.db).await), (1, 1));
    writers.close().await;
    sandbox.close().await;
}

async fn rows(db: &PgPool) -> i64 {
    sqlx::query("SELECT count(*) FROM locked").fetch_one(db).await.expect("reads go on").get(0)
}
