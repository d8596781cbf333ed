//! The testkit itself, on the real services: what other tests rely on must detect failures.

mod architecture;
mod table_lock;

use std::time::Duration;

use contracts::Role;
use sqlx::{Connection, PgConnection};
use testkit::{Mailbox, Proxy, Sandbox, Statements, eventually, fixtures, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_sandbox_has_the_migrations_and_each_role_may_sign_in() {
    let sandbox = Sandbox::new("roles").await;
    for (url, role) in [
        (sandbox.owner_url(), "registrar_owner"),
        (sandbox.gateway_url(), "registrar_gateway"),
        (sandbox.workers_url(), "registrar_workers"),
    ] {
        let mut connection = PgConnection::connect(&url).await.expect("the role may connect");
        let user: String =
            sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut connection).await.expect("a row");
        let read = sqlx::query("SELECT FROM operations").fetch_all(&mut connection).await;
        assert!(read.is_ok_and(|rows| rows.is_empty()));
        assert!(user == role || !url.contains(role));
        connection.close().await.expect("it closes");
    }
    sandbox.close().await;
}

#[tokio::test]
async fn fixtures_keep_the_counters() {
    let sandbox = Sandbox::new("fixtures").await;
    let course_batch = fixtures::NewCourseBatch::of(1_000).waitlist(3).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "many", 1_003).await;
    let ids: Vec<_> = students.iter().map(|student| student.id).collect();
    let seated = fixtures::registrations(&sandbox.db, &course_batch, &ids[..1_000], "seat_held").await;
    let waiting = fixtures::registrations(&sandbox.db, &course_batch, &ids[1_000..], "waitlisted").await;
    let claims: Vec<_> = seated.iter().enumerate().map(|(n, id)| (*id, format!("utr {n:06}"))).collect();
    assert_eq!(fixtures::payments(&sandbox.db, &claims, course_batch.amount_due).await.len(), 1_000);
    let taken: (i32, i32, i64) = sqlx::query_as("SELECT seats_taken, waitlist_taken, next_waitlist_seq FROM batches")
        .fetch_one(&sandbox.db)
        .await
        .expect("one course batch");
    assert_eq!(taken, (1_000, 3, 4));
    let order: Vec<uuid::Uuid> = sqlx::query_scalar(
        "SELECT id FROM student_registrations WHERE waitlist_seq BETWEEN 1 AND 3 ORDER BY waitlist_seq",
    )
    .fetch_all(&sandbox.db)
    .await
    .expect("three wait");
    assert_eq!(order, waiting);
    let hash: String = sqlx::query_scalar("SELECT password_hash FROM users WHERE id = $1")
        .bind(fixtures::user(&sandbox.db, &sandbox.email("teacher"), Role::Teacher).await.id)
        .fetch_one(&sandbox.db)
        .await
        .expect("the teacher");
    assert!(bcrypt::verify(fixtures::PASSWORD, &hash).expect("a bcrypt hash"));
    sandbox.close().await;
}

#[tokio::test]
async fn a_message_left_behind_fails_the_test() {
    let sandbox = Sandbox::new("left_behind").await;
    sandbox.declare("work").await;
    assert_eq!(sandbox.ready("work").await, 0);
    sandbox.publish_raw("", "work", b"one").await;
    assert_eq!((sandbox.ready("work").await, sandbox.consumers("work").await), (1, 0));
    assert_eq!(sandbox.left_behind().await, [("work".to_owned(), 1)]);
    assert_eq!(sandbox.get("work").await.as_deref(), Some(b"one".as_slice()));
    assert_eq!(sandbox.get("work").await, None);
    sandbox.close().await;
}

#[tokio::test]
async fn statements_are_counted_on_their_own_thread_only() {
    let sandbox = Sandbox::new("statements").await;
    let recorded = Statements::record();
    let mut tx = sandbox.db.begin().await.expect("a transaction");
    sqlx::query("SELECT 1").execute(&mut *tx).await.expect("it executes");
    sqlx::query("SELECT id FROM users WHERE email = 'nobody@example.org'")
        .execute(&mut *tx)
        .await
        .expect("it executes");
    tx.commit().await.expect("it commits");
    let elsewhere = std::thread::spawn(|| Statements::record().take()).join().expect("it ends");
    let statements = recorded.take();
    assert_eq!(statements, ["SELECT 1", "SELECT id FROM users WHERE email = 'nobody@example.org'"]);
    assert!(elsewhere.is_empty());
    drop(recorded);
    sandbox.close().await;
}

/// Reports a statement as sqlx does, from a callsite of its own.
fn report_statement() {
    tracing::debug!(target: "sqlx::query", summary = "SELECT 2", db.statement = "");
}

#[tokio::test]
async fn statements_are_recorded_whichever_thread_reported_the_first() {
    let sandbox = Sandbox::new("first").await;
    let recorded = Statements::record();
    std::thread::spawn(report_statement).join().expect("it ends");
    report_statement();
    assert_eq!(recorded.take(), ["SELECT 2"]);
    sandbox.close().await;
}

#[tokio::test]
async fn a_proxy_holds_releases_and_severs() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let upstream = format!("tcp://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = peer.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    let proxy = Proxy::start(&upstream).await;
    let mut client = tokio::net::TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let mut buffer = [0; 4];
    client.write_all(b"ping").await.expect("written");
    client.read_exact(&mut buffer).await.expect("echoed");
    proxy.hold_server_to_client();
    client.write_all(b"held").await.expect("written");
    eventually("the echo hangs in the proxy", SOON, || async { proxy.held_bytes() == 4 }).await;
    proxy.release();
    client.read_exact(&mut buffer).await.expect("released");
    assert_eq!(&buffer, b"held");
    proxy.sever();
    assert_eq!(client.read(&mut buffer).await.unwrap_or(0), 0);
    eventually("the connection is gone", SOON, || async { proxy.connections() == 0 }).await;
}

#[tokio::test]
async fn mails_are_found_by_address_and_subject() {
    let address = format!("asha.{}@example.org", free_port());
    let smtp = testkit::environment::url("SMTP_URL");
    let target = (smtp.host_str().expect("a host").to_owned(), smtp.port().expect("a port"));
    let mut stream = tokio::net::TcpStream::connect(target).await.expect("the mail catcher listens");
    let talk = format!(
        "HELO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<{address}>\r\nDATA\r\nFrom: a@example.org\r\nTo: {address}\r\n\
         Subject: Seat held\r\ntraceparent: abc\r\n\r\nOpen http://127.0.0.1/confirm?token=1.2 now\r\n.\r\nQUIT\r\n"
    );
    let mut said = [0; 512];
    for line in talk.split_inclusive("\r\n") {
        let answered = !matches!(line.split(':').next(), Some("From" | "To" | "Subject" | "traceparent" | "\r\n"));
        if answered && !line.starts_with("Open") && !line.starts_with('.') {
            let _greeting = stream.read(&mut said).await.expect("an answer");
        }
        stream.write_all(line.as_bytes()).await.expect("written");
    }
    let mailbox = Mailbox::new();
    let mail = mailbox.wait_for_mail(&address, "Seat").await;
    assert_eq!(mail.header("Traceparent"), Some("abc"));
    assert_eq!(mail.link("/confirm").as_deref(), Some("http://127.0.0.1/confirm?token=1.2"));
    assert!(mail.attachments.is_empty() && mailbox.source(&mail).await.starts_with(b"From:"));
}
