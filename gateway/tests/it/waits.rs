//! Waiting for an operation costs no query until it is told; one message wakes many with one query; and where the live
//! exchange is broken unnoticed, a sweep answers.

use std::time::Duration;

use contracts::Role;
use futures::future::join_all;
use serde_json::json;
use testkit::{
    Sandbox, eventually,
    fixtures::{self, NewCourseBatch},
};

use crate::system::{Gateway, LIMIT, System, answer, token};

const WAITERS: usize = 60;
/// Less than the clients wait for.
const SOON: Duration = Duration::from_secs(20);
/// No sweep while the test lasts.
const NO_SWEEPS: [(&str, &str); 1] = [("REGISTRAR__LIVE__WAITER_SWEEP_MS", "3600000")];

async fn queries(gateway: &Gateway) -> f64 {
    gateway.metric("gateway_live_queries_total{read=\"ids\"}").await
}

async fn told(gateway: &Gateway, how: &str) -> f64 {
    gateway.metric(&format!("gateway_waits_told_total{{how=\"{how}\"}}")).await
}

/// Waits until so many wait.
async fn all_wait(gateway: &Gateway, number: usize) {
    eventually("all wait", LIMIT, || async { gateway.metric("gateway_waiters").await == number as f64 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_wait_for_nothing_and_are_woken_by_few_queries_on_two_gateways() {
    let sandbox = Sandbox::new("waits").await;
    let batch = NewCourseBatch::of(100).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "waiter", WAITERS).await;
    let system = System::of(&sandbox);
    let (mut first, mut second) = tokio::join!(system.gateway(&NO_SWEEPS), system.gateway(&NO_SWEEPS));
    tokio::join!(first.listens(), second.listens());
    // Long enough for a slow machine to settle all in a few transactions.
    let mut workers = system.workers_with("all", &[("REGISTRAR__RUNTIME__LINGER_MS", "1000")]).await;
    workers.signal("STOP");
    let post = |n: usize| {
        let request = first.post("/v1/registrations").bearer_auth(token(students[n].id, Role::Student));
        let request = request.header("Prefer", "wait=30").header("Idempotency-Key", "once");
        answer(request.json(&json!({ "batch_id": batch.id })))
    };
    let posts = join_all((0..WAITERS).map(post));
    let second_ref = &second;
    let elsewhere = async {
        all_wait(&first, WAITERS).await;
        assert_eq!(queries(&first).await, 0.0, "who has just published has nothing to read");
        // The same keys at another gateway are the same operations: accepted again, and awaited there.
        let again = |n: usize| {
            let request = second_ref.post("/v1/registrations").bearer_auth(token(students[n].id, Role::Student));
            let request = request.header("Prefer", "wait=30").header("Idempotency-Key", "once");
            answer(request.json(&json!({ "batch_id": batch.id })))
        };
        let others = join_all((0..WAITERS).map(again));
        let go = async {
            all_wait(second_ref, WAITERS).await;
            assert_eq!(queries(second_ref).await, 0.0);
            workers.signal("CONT");
        };
        tokio::join!(others, go).0
    };
    let (here, there) = tokio::join!(posts, elsewhere);
    for told in here.into_iter().chain(there) {
        assert_eq!(told.expect(200)["state"], "succeeded");
    }
    for gateway in [&first, &second] {
        assert_eq!(told(gateway, "woken").await, WAITERS as f64);
        let queries = queries(gateway).await;
        assert!((1.0..=10.0).contains(&queries), "{queries} queries for {WAITERS}");
    }
    // Settled long ago, under the same key: at the gateway that remembers it, and where only the workers know.
    let mut cold = system.gateway(&NO_SWEEPS).await;
    cold.listens().await;
    for gateway in [&first, &cold] {
        let request = gateway.post("/v1/registrations").bearer_auth(token(students[0].id, Role::Student));
        let request = request.header("Prefer", "wait=30").header("Idempotency-Key", "once");
        let again = answer(request.json(&json!({ "batch_id": batch.id }))).await;
        assert!(again.after < SOON, "after {:?}", again.after);
        assert_eq!(again.expect(200)["state"], "succeeded");
    }
    sandbox.assert_drained().await;
    for process in [&mut first.process, &mut second.process, &mut cold.process, &mut workers] {
        assert!(process.terminate().await.success());
    }
    sandbox.close().await;
}

/// The exchange goes, and comes back without whoever listened to it: nobody hears anything any more, and nobody notices.
async fn unbind_live(sandbox: &Sandbox) {
    let url = format!("{}/api/exchanges/{}/live", testkit::setting("AMQP_MANAGEMENT_URL"), sandbox.vhost);
    let deleted = reqwest::Client::new().delete(url).send().await.expect("the management API answers");
    assert!(deleted.status().is_success(), "{deleted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_hears_the_live_exchange_a_sweep_answers() {
    let sandbox = Sandbox::new("waits swept").await;
    let batch = NewCourseBatch::of(10).insert(&sandbox.db).await;
    let system = System::of(&sandbox);
    let settings = [("REGISTRAR__LIVE__WAITER_SWEEP_MS", "500")];
    let (mut gateway, mut workers) = tokio::join!(system.gateway(&settings), system.workers("all"));
    gateway.listens().await;
    unbind_live(&sandbox).await;
    let request = gateway.post("/v1/registrations").header("Prefer", "wait=30");
    let visitor = json!({ "batch_id": batch.id, "email": sandbox.email("visitor"), "full_name": "A visitor" });
    let waited = answer(request.json(&visitor)).await;
    assert!(waited.after < SOON, "after {:?}", waited.after);
    assert_eq!(waited.expect(200)["state"], "succeeded");
    assert_eq!((told(&gateway, "woken").await, told(&gateway, "swept").await), (0.0, 1.0));
    sandbox.assert_drained().await;
    assert!(workers.terminate().await.success() && gateway.process.terminate().await.success());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_command_waits_for_all_its_operations_and_reports_each() {
    let sandbox = Sandbox::new("waits bulk").await;
    let db = &sandbox.db;
    let course_batch = NewCourseBatch::of(10).insert(db).await;
    let students: Vec<_> = fixtures::students(db, "bulk", 3).await.into_iter().map(|student| student.id).collect();
    let registrations = fixtures::registrations(db, &course_batch, &students, "payment_submitted").await;
    let claims: Vec<_> = registrations.iter().enumerate().map(|(n, id)| (*id, format!("UTR-BULK-{n}"))).collect();
    let payments = fixtures::payments(db, &claims, course_batch.amount_due).await;
    let accountant = fixtures::user(db, &sandbox.email("accountant"), Role::Accountant).await;
    let system = System::of(&sandbox);
    let (mut gateway, mut workers) = tokio::join!(system.gateway(&NO_SWEEPS), system.workers("all"));
    gateway.listens().await;
    let items: Vec<_> = payments
        .iter()
        .map(|id| json!({ "payment_id": id, "verdict": "reject", "rejection_code": "not_received" }))
        .collect();
    let decide = |prefer: &'static str| {
        let request = gateway.post("/v1/payments/decisions").bearer_auth(token(accountant.id, Role::Accountant));
        let request = request.header("Prefer", prefer).header("Idempotency-Key", "bulk");
        answer(request.json(&json!({ "items": &items })))
    };
    let waited = decide("wait=30").await;
    assert_eq!(waited.header("preference-applied"), Some("wait"));
    let settled = waited.expect(200);
    let settled = settled["items"].as_array().expect("items");
    assert_eq!(settled.len(), 3);
    for (operation, payment) in settled.iter().zip(&payments) {
        assert_eq!(operation["state"], "succeeded");
        assert_eq!(operation["result"]["payment_id"], payment.to_string());
    }
    // Without the wish to wait the same key names the same operations, accepted again.
    let again = decide("return=minimal").await.expect(202);
    let ids = |items: &serde_json::Value| {
        let items = items.as_array().expect("items").iter();
        items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        ids(&again["items"]),
        settled.iter().map(|item| item["id"].as_str().expect("an id")).collect::<Vec<_>>()
    );
    sandbox.assert_drained().await;
    assert!(workers.terminate().await.success() && gateway.process.terminate().await.success());
    sandbox.close().await;
}
