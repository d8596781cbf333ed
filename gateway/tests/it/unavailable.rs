//! Something is away: what the gateway refuses, it refuses at once and honestly; what it can still do, it does; what it
//! has accepted is settled when the rest is back.

use std::time::Duration;

use contracts::Role;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::{
    Proxy, Sandbox, eventually,
    fixtures::{self, CourseBatch, NewCourseBatch},
};
use uuid::Uuid;

use crate::{
    own_broker::OwnBroker,
    system::{Answer, Gateway, System, answer, token},
};

const AT_ONCE: Duration = Duration::from_secs(1);

/// Students with a seat each, and one batch.
async fn payers(sandbox: &Sandbox, number: usize) -> (CourseBatch, Vec<(Uuid, Uuid)>) {
    let batch = NewCourseBatch::of(i32::try_from(number).expect("a few hundred")).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "payer", number).await;
    let ids: Vec<Uuid> = students.iter().map(|student| student.id).collect();
    let registrations = fixtures::registrations(&sandbox.db, &batch, &ids, "seat_held").await;
    (batch, ids.into_iter().zip(registrations).collect())
}

fn payment(batch: &CourseBatch, registration: Uuid) -> Value {
    json!({
        "registration_id": registration,
        "method": "upi",
        "transaction_id": format!("UTR-{}", registration.simple()),
        "amount": batch.amount_due.to_string(),
        "currency": batch.currency,
    })
}

fn refused_at_once(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.body["type"], "/problems/broker-unavailable", "{}", answer.body);
    assert_eq!(answer.body["retryable"], true);
    let retry_after: u64 = answer.header("retry-after").expect("when to come again").parse().expect("seconds");
    assert!((1..=5).contains(&retry_after));
    assert!(answer.after < AT_ONCE, "after {:?}", answer.after);
}

async fn status(gateway: &Gateway, path: &str) -> u16 {
    answer(gateway.get(path)).await.status
}

async fn settled(gateway: &Gateway, operation: &str, token: &str) -> Value {
    let path = format!("/v1/operations/{operation}?wait=5");
    eventually("the operation is settled", Duration::from_secs(25), || async {
        let operation = answer(gateway.get(&path).bearer_auth(token)).await.body;
        matches!(operation["state"].as_str(), Some("succeeded" | "rejected" | "failed")).then_some(operation)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_broker_away_commands_are_refused_at_once_and_reads_go_on() {
    let sandbox = Sandbox::new("broker away").await;
    let (batch, payers) = payers(&sandbox, 1).await;
    let (student, registration) = payers[0];
    let token = token(student, Role::Student);
    let proxy = Proxy::start(&sandbox.amqp_url()).await;
    let mut gateway = System::with_broker(&sandbox, proxy.url(&sandbox.amqp_url())).gateway(&[]).await;
    proxy.refuse_new(true);
    proxy.sever();
    eventually("readiness is red", Duration::from_secs(5), || async { status(&gateway, "/health/ready").await == 503 })
        .await;
    let post = || {
        let request = gateway.post("/v1/payments").bearer_auth(&token).header("Idempotency-Key", "away");
        answer(request.json(&payment(&batch, registration)))
    };
    refused_at_once(&post().await);
    let visitor = json!({ "batch_id": batch.id, "email": sandbox.email("visitor"), "full_name": "A visitor" });
    refused_at_once(&answer(gateway.post("/v1/registrations").json(&visitor)).await);
    assert_eq!(status(&gateway, "/health/live").await, 200);
    assert_eq!(status(&gateway, "/v1/batches").await, 200);
    for path in ["/v1/me", "/v1/registrations", "/v1/payments", "/v1/notifications"] {
        assert_eq!(answer(gateway.get(path).bearer_auth(&token)).await.status, 200, "{path}");
    }

    proxy.refuse_new(false);
    eventually("readiness is green again", Duration::from_secs(10), || async {
        status(&gateway, "/health/ready").await == 200
    })
    .await;
    let accepted = post().await.expect(202);
    let mut workers = System::of(&sandbox).workers("all").await;
    assert_eq!(settled(&gateway, accepted["id"].as_str().expect("an id"), &token).await["state"], "succeeded");
    sandbox.assert_drained().await;
    assert!(workers.terminate().await.success() && gateway.process.terminate().await.success());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_blocks_publishers_still_takes_acks() {
    let sandbox = Sandbox::new("broker blocked").await;
    let broker = OwnBroker::start("test-broker-blocked").await;
    let (batch, payers) = payers(&sandbox, 20).await;
    let system = System::with_broker(&sandbox, broker.url());
    let mut gateway = system.gateway(&[]).await;
    let (mut payments, mut notifications) = tokio::join!(system.workers("payments"), system.workers("notifications"));
    // Held still, so that what its queue holds is acked while the broker blocks, or never.
    notifications.signal("STOP");
    let url = format!("{}/v1/payments", gateway.url);
    for (student, registration) in &payers[1..] {
        let token = token(*student, Role::Student);
        let body = payment(&batch, *registration);
        system.post_until_accepted(&url, Some(&token), "one", &body).await;
    }
    eventually("payments are settled", Duration::from_secs(10), || async { broker.messages("payments").await == 0 })
        .await;
    eventually("notifications wait", Duration::from_secs(10), || async { broker.messages("notifications").await > 0 })
        .await;

    broker.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let (student, registration) = payers[0];
    let token = token(student, Role::Student);
    let post = || {
        let request = gateway.post("/v1/payments").bearer_auth(&token).header("Idempotency-Key", "blocked");
        answer(request.json(&payment(&batch, registration)))
    };
    for _ in 0..3 {
        refused_at_once(&post().await);
    }
    assert_eq!(status(&gateway, "/health/ready").await, 503);
    assert_eq!(status(&gateway, "/health/live").await, 200);
    notifications.signal("CONT");
    eventually("consumers ack", Duration::from_secs(10), || async { broker.messages("notifications").await == 0 })
        .await;
    refused_at_once(&post().await);

    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    let accepted = eventually("commands are accepted again", Duration::from_secs(10), || async {
        let answer = post().await;
        (answer.status == 202).then_some(answer.body)
    })
    .await;
    assert_eq!(settled(&gateway, accepted["id"].as_str().expect("an id"), &token).await["state"], "succeeded");
    assert_eq!(payments_of(&sandbox).await, 20);
    for process in [&mut payments, &mut notifications, &mut gateway.process] {
        assert!(process.terminate().await.success());
    }
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_postgres_away_commands_are_accepted_and_reads_say_503() {
    let sandbox = Sandbox::new("postgres away").await;
    let (batch, payers) = payers(&sandbox, 1).await;
    let (student, registration) = payers[0];
    let token = token(student, Role::Student);
    let proxy = Proxy::start(&sandbox.gateway_url()).await;
    let system = System::of(&sandbox).with_gateway_database(proxy.url(&sandbox.gateway_url()));
    let mut gateway = system.gateway(&[]).await;
    proxy.refuse_new(true);
    proxy.sever();
    let health = answer(gateway.get("/health/ready")).await.expect(200);
    assert_eq!((health["status"].as_str(), health["broker"].as_bool()), (Some("degraded"), Some(true)));
    let body = payment(&batch, registration);
    let paid = answer(gateway.post("/v1/payments").bearer_auth(&token).json(&body)).await;
    assert!(paid.after < AT_ONCE, "after {:?}", paid.after);
    let paid = paid.expect(202);
    let visitor = json!({ "batch_id": batch.id, "email": sandbox.email("visitor"), "full_name": "A visitor" });
    answer(gateway.post("/v1/registrations").json(&visitor)).await.expect(202);
    let operation = format!("/v1/operations/{}", paid["id"].as_str().expect("an id"));
    for path in ["/v1/me", "/v1/payments", "/v1/batches", operation.as_str()] {
        let read = answer(gateway.get(path).bearer_auth(&token)).await;
        assert_eq!(read.body["type"], "/problems/database-unavailable", "{path}: {}", read.body);
        assert!(read.status == 503 && read.header("retry-after").is_some(), "{path}");
    }

    let mut workers = system.workers("all").await;
    sandbox.assert_drained().await;
    proxy.refuse_new(false);
    assert_eq!(settled(&gateway, paid["id"].as_str().expect("an id"), &token).await["state"], "succeeded");
    assert!(workers.terminate().await.success() && gateway.process.terminate().await.success());
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_restarted_under_load_loses_no_accepted_work() {
    const PAYMENTS: usize = 600;
    let sandbox = Sandbox::new("rolling restart").await;
    let (batch, payers) = payers(&sandbox, PAYMENTS).await;
    let system = System::of(&sandbox);
    let (mut leaving, mut staying) = tokio::join!(system.gateway(&[]), system.gateway(&[]));
    let (mut old, mut new) = tokio::join!(system.workers("all"), system.workers("all"));
    let (first, second) = (format!("{}/v1/payments", leaving.url), format!("{}/v1/payments", staying.url));
    let load = stream::iter(&payers)
        .map(|(student, registration)| {
            let (system, first, second) = (&system, &first, &second);
            let (token, body) = (token(*student, Role::Student), payment(&batch, *registration));
            async move {
                // What a load balancer does: whoever is not served here is served there, under the same key.
                match system.post(first, Some(&token), "the key", &body).await {
                    Ok(answer) if answer.status() == 202 => {
                        let body: Value = answer.json().await.expect("a 202 has a JSON body");
                        (body["id"].as_str().expect("an id").to_owned(), token, true)
                    }
                    _ => {
                        let accepted = system.post_until_accepted(second, Some(&token), "the key", &body).await;
                        (accepted.operation, token, false)
                    }
                }
            }
        })
        .buffer_unordered(32)
        .collect::<Vec<_>>();
    let restarts = async {
        eventually("the load is under way", Duration::from_secs(10), || async { payments_of(&sandbox).await > 50 })
            .await;
        let asked = std::time::Instant::now();
        let (gateway, workers) = tokio::join!(leaving.process.terminate(), old.terminate());
        assert!(gateway.success() && workers.success(), "{gateway} {workers}");
        assert!(asked.elapsed() < Duration::from_secs(25), "they end within the supervisor's patience");
    };
    let (accepted, ()) = tokio::join!(load, restarts);
    let here = accepted.iter().filter(|(_, _, here)| *here).count();
    assert!((50..PAYMENTS).contains(&here), "the restart was felt: {here} were served before");
    let expected = i64::try_from(PAYMENTS).expect("fits");
    eventually("every mail is sent", Duration::from_secs(60), || async {
        let sent: i64 = sqlx::query_scalar("SELECT count(*) FROM email_logs WHERE status = 'sent'")
            .fetch_one(&sandbox.db)
            .await
            .expect("mails can be counted");
        sent == expected
    })
    .await;
    sandbox.assert_drained().await;
    assert_eq!(payments_of(&sandbox).await, expected);
    for (operation, token, _) in &accepted {
        let operation =
            answer(staying.get(&format!("/v1/operations/{operation}")).bearer_auth(token)).await.expect(200);
        assert_eq!(operation["state"], "succeeded", "{operation}");
    }
    assert!(new.terminate().await.success() && staying.process.terminate().await.success());
    sandbox.close().await;
}

async fn payments_of(sandbox: &Sandbox) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(&sandbox.db).await.expect("payments can be counted")
}
