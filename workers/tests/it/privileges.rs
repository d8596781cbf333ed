//! Least privilege: what a database role must not be able to do, whatever a program gets wrong.

use sqlx::PgPool;
use testkit::Sandbox;

/// `insufficient_privilege`.
const DENIED: &str = "42501";

async fn denied(role: &str, db: &PgPool, statement: &'static str) {
    let error = sqlx::query(statement).execute(db).await.expect_err(statement);
    let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
    assert_eq!(code.as_deref(), Some(DENIED), "{role}: {statement}: {error}");
}

#[tokio::test]
async fn the_gateway_cannot_touch_money_seats_or_results() {
    let sandbox = Sandbox::new("gateway_role").await;
    let gateway = PgPool::connect(&sandbox.gateway_url()).await.expect("the role can connect");
    for statement in [
        "UPDATE payments SET status = 'approved'",
        "INSERT INTO payments (id) VALUES (gen_random_uuid())",
        "DELETE FROM payments",
        "UPDATE student_registrations SET status = 'confirmed'",
        "UPDATE batches SET seats_taken = 0",
        "UPDATE invoices SET status = 'credited'",
        "UPDATE invoice_series SET next_seq = 1",
        "INSERT INTO enrollments (id) VALUES (gen_random_uuid())",
        "INSERT INTO operations (id) VALUES (gen_random_uuid())",
        "UPDATE operations SET state = 'succeeded'",
        "DELETE FROM operations",
        "UPDATE audit_logs SET action = 'nothing'",
        "DELETE FROM audit_logs",
        "SELECT event FROM dead_letters",
        "DROP TABLE payments",
        "CREATE TABLE mine (id int)",
    ] {
        denied("gateway", &gateway, statement).await;
    }
    sqlx::query("SELECT count(*) FROM payments").execute(&gateway).await.expect("it reads them");
    gateway.close().await;
    sandbox.close().await;
}

#[tokio::test]
async fn the_workers_cannot_rewrite_history_or_read_secrets() {
    let sandbox = Sandbox::new("workers_role").await;
    let workers = PgPool::connect(&sandbox.workers_url()).await.expect("the role can connect");
    for statement in [
        "UPDATE audit_logs SET action = 'nothing'",
        "DELETE FROM audit_logs",
        "TRUNCATE audit_logs",
        "SELECT password_hash FROM users",
        "SELECT refresh_hash FROM sessions",
        "DROP TABLE payments",
        "CREATE TABLE mine (id int)",
    ] {
        denied("workers", &workers, statement).await;
    }
    sqlx::query("SELECT count(*) FROM operations").execute(&workers).await.expect("they read them");
    workers.close().await;
    sandbox.close().await;
}
