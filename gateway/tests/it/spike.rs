//! The day a batch opens: 2,000 visitors for 50 seats and 100 places, no seat sold twice, the waitlist without a gap, and
//! promotions in its order.

use contracts::Role;
use futures::{StreamExt, stream};
use serde_json::json;
use testkit::{Sandbox, eventually, fixtures, fixtures::NewCourseBatch};
use uuid::Uuid;

use crate::system::{LIMIT, System, token};

const VISITORS: usize = 2_000;
const CONNECTIONS: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_for_fifty_seats() {
    let sandbox = Sandbox::new("spike").await;
    let batch = NewCourseBatch::of(50).waitlist(100).insert(&sandbox.db).await;
    let system = System::of(&sandbox);
    let mut gateway = system.gateway(&[]).await;
    let mut workers = [system.workers("registrations").await, system.workers("registrations").await];
    let url = format!("{}/v1/registrations", gateway.url);

    let accepted = stream::iter(0..VISITORS)
        .map(|number| {
            let (system, url, sandbox) = (&system, &url, &sandbox);
            async move {
                let body = json!({
                    "batch_id": batch.id,
                    "email": sandbox.email(&format!("visitor{number}")),
                    "full_name": format!("Visitor {number}"),
                });
                system.post_until_accepted(url, None, &format!("key-{number}"), &body).await.operation
            }
        })
        .buffer_unordered(CONNECTIONS)
        .collect::<Vec<_>>()
        .await;
    let distinct: std::collections::BTreeSet<_> = accepted.iter().collect();
    assert_eq!(distinct.len(), VISITORS, "an operation each");
    all_settled(&sandbox, VISITORS).await;

    let counts: Vec<(String, i64)> =
        sqlx::query_as("SELECT status, count(*) FROM student_registrations GROUP BY status ORDER BY status")
            .fetch_all(&sandbox.db)
            .await
            .expect("registrations can be counted");
    assert_eq!(counts, [("seat_held".to_owned(), 50), ("waitlisted".to_owned(), 100)]);
    let full: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM operations WHERE outcome -> 'problem' ->> 'type' = '/problems/batch-full'",
    )
    .fetch_one(&sandbox.db)
    .await
    .expect("operations can be counted");
    assert_eq!(full, 1_850, "everybody else is told that it is full");
    let taken: (i32, i32) = sqlx::query_as("SELECT seats_taken, waitlist_taken FROM batches WHERE id = $1")
        .bind(batch.id)
        .fetch_one(&sandbox.db)
        .await
        .expect("the batch is there");
    assert_eq!(taken, (50, 100));
    let sequence: Vec<i64> = sqlx::query_scalar(
        "SELECT waitlist_seq FROM student_registrations WHERE status = 'waitlisted' ORDER BY waitlist_seq",
    )
    .fetch_all(&sandbox.db)
    .await
    .expect("the waitlist can be read");
    assert_eq!(sequence, (1..=100).collect::<Vec<i64>>(), "dense");

    promotions_follow_the_waitlist(&sandbox, &system, &gateway.url).await;
    for process in &mut workers {
        assert!(process.terminate().await.success());
    }
    assert!(gateway.process.terminate().await.success());
    for queue in ["email", "notifications"] {
        sandbox.purge(queue).await;
    }
    sandbox.close().await;
}

/// Twenty cancel; the first twenty of the waitlist are seated, nobody else.
async fn promotions_follow_the_waitlist(sandbox: &Sandbox, system: &System, gateway: &str) {
    let admin = fixtures::user(&sandbox.db, &sandbox.email("admin"), Role::Admin).await;
    let token = token(admin.id, Role::Admin);
    let seated: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM student_registrations WHERE status = 'seat_held' LIMIT 20")
            .fetch_all(&sandbox.db)
            .await
            .expect("registrations can be read");
    stream::iter(seated)
        .for_each_concurrent(20, |id| {
            let (url, token) = (format!("{gateway}/v1/registrations/{id}/cancel"), &token);
            async move {
                system.post_until_accepted(&url, Some(token), &id.to_string(), &json!({})).await;
            }
        })
        .await;
    all_settled(sandbox, VISITORS + 20).await;
    let promoted: Vec<i64> = sqlx::query_scalar(
        "SELECT waitlist_seq FROM student_registrations WHERE status = 'seat_held' AND waitlist_seq IS NOT NULL
          ORDER BY waitlist_seq",
    )
    .fetch_all(&sandbox.db)
    .await
    .expect("registrations can be read");
    assert_eq!(promoted, (1..=20).collect::<Vec<i64>>(), "in the order of the waitlist");
}

async fn all_settled(sandbox: &Sandbox, number: usize) {
    let expected = i64::try_from(number).expect("a few thousand");
    eventually("every 202 is settled", LIMIT * 2, || async {
        let settled: i64 = sqlx::query_scalar("SELECT count(*) FROM operations WHERE parent_id IS NULL")
            .fetch_one(&sandbox.db)
            .await
            .expect("operations can be counted");
        settled == expected
    })
    .await;
}
