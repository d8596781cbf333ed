//! A 202 is a promise: it comes after the broker's confirm, or not at all, and a retry under the same key is the same
//! operation, also on another gateway.

use contracts::Role;
use serde_json::{Value, json};
use testkit::{Proxy, Sandbox, eventually, fixtures, fixtures::NewCourseBatch};
use uuid::Uuid;

use crate::system::{LIMIT, PATIENT, System, token};

/// A student with a held registration, and the payment for it.
async fn payer(sandbox: &Sandbox) -> (Uuid, Value) {
    let batch = NewCourseBatch::of(5).insert(&sandbox.db).await;
    let student = fixtures::user(&sandbox.db, &sandbox.email("asha"), Role::Student).await;
    let registration = fixtures::registration(&sandbox.db, &batch, student.id, "seat_held").await;
    let body = json!({
        "registration_id": registration,
        "method": "upi",
        "transaction_id": "UTR-CONFIRM-1",
        "amount": batch.amount_due.to_string(),
        "currency": batch.currency,
    });
    (student.id, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_before_the_confirm_leaves_one_effect() {
    let sandbox = Sandbox::new("killed_gateway").await;
    let (student, body) = payer(&sandbox).await;
    let token = token(student, Role::Student);
    let proxy = Proxy::start(&sandbox.amqp_url()).await;
    let behind = System::with_broker(&sandbox, proxy.url(&sandbox.amqp_url()));
    let mut doomed = behind.gateway(&PATIENT).await;
    proxy.hold_server_to_client();
    let url = format!("{}/v1/payments", doomed.url);
    let asked = behind.post(&url, Some(&token), "one-key", &body);
    let killed = async {
        eventually("the event is durable", LIMIT, || async { sandbox.ready("payments").await == 1 }).await;
        doomed.process.kill9();
    };
    let (answer, ()) = tokio::join!(asked, killed);
    assert!(answer.is_err(), "no answer, so the client must ask again");

    let system = System::of(&sandbox);
    let mut gateway = system.gateway(&[]).await;
    let url = format!("{}/v1/payments", gateway.url);
    let first = system.post_until_accepted(&url, Some(&token), "one-key", &body).await;
    let again = system.post_until_accepted(&url, Some(&token), "one-key", &body).await;
    assert_eq!(first.operation, again.operation);
    let mut workers = system.workers("all").await;
    let operation: Value = eventually("the operation is settled", LIMIT, || async {
        let url = format!("{}/v1/operations/{}?wait=5", gateway.url, first.operation);
        let answer = system.http.get(url).bearer_auth(&token).send().await.expect("the gateway answers");
        let operation: Value = answer.json().await.expect("an operation is JSON");
        (operation["state"] != "pending").then_some(operation)
    })
    .await;
    assert_eq!(operation["state"], "succeeded");
    sandbox.assert_drained().await;
    assert_eq!(payments(&sandbox).await, 1);
    assert!(workers.terminate().await.success() && gateway.process.terminate().await.success());
    sandbox.close().await;
}

/// A broker that takes nothing: what is the client told? Answers the status and whether the promise was kept.
async fn promise(test: &str, settings: &[(&str, &str)]) -> (u16, bool) {
    let sandbox = Sandbox::new(test).await;
    let (student, body) = payer(&sandbox).await;
    let proxy = Proxy::start(&sandbox.amqp_url()).await;
    let behind = System::with_broker(&sandbox, proxy.url(&sandbox.amqp_url()));
    let mut gateway = behind.gateway(settings).await;
    // From here on the gateway's bytes reach nobody, and it cannot know yet.
    proxy.hold_client_to_server();
    let url = format!("{}/v1/payments", gateway.url);
    let token = token(student, Role::Student);
    let answer = behind.post(&url, Some(&token), "one-key", &body).await.expect("an answer within its time limits");
    let status = answer.status().as_u16();
    gateway.process.kill9();
    proxy.sever();
    let mut workers = System::of(&sandbox).workers("payments").await;
    sandbox.assert_drained().await;
    let kept = status != 202 || payments(&sandbox).await == 1;
    assert!(workers.terminate().await.success());
    sandbox.close().await;
    (status, kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_confirm_there_is_no_202() {
    assert_eq!(promise("no_confirm", &[]).await, (503, true));
}

/// The test above bites: with the 202 before the confirm a promise is broken, and it would be red.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bug_early_202_is_noticed() {
    assert_eq!(promise("bug_early_202", &[("REGISTRAR__PLANTED_BUG", "early_202")]).await, (202, false));
}

async fn payments(sandbox: &Sandbox) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(&sandbox.db).await.expect("payments can be counted")
}
