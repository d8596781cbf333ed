//! Something is away: what the gateway refuses, it refuses at once and honestly; what it can still do, it does; what it
//! has accepted is settled when the rest is back.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use contracts::Role;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::{
    Proxy, Sandbox, TableLock, eventually,
    fixtures::{self, InsertedCourseBatch, NewCourseBatch},
};
use tokio::{net::TcpStream, sync::watch};
use uuid::Uuid;

use crate::{
    own_broker::OwnBroker,
    system::{Answer, Gateway, LIMIT, PATIENT, PATIENT_WORKERS, System, answer, token},
};

const AT_ONCE: Duration = Duration::from_secs(1);

/// Students with a seat each, and one batch.
async fn payers(sandbox: &Sandbox, number: usize) -> (InsertedCourseBatch, Vec<(Uuid, Uuid)>) {
    let batch = NewCourseBatch::of(i32::try_from(number).expect("a few hundred")).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "payer", number).await;
    let ids: Vec<Uuid> = students.iter().map(|student| student.id).collect();
    let registrations = fixtures::registrations(&sandbox.db, &batch, &ids, "seat_held").await;
    (batch, ids.into_iter().zip(registrations).collect())
}

fn payment(batch: &InsertedCourseBatch, registration: Uuid) -> Value {
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
    eventually("the operation is settled", LIMIT, || async {
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
    eventually("readiness is red", LIMIT, || async { status(&gateway, "/health/ready").await == 503 }).await;
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
    eventually("readiness is green again", LIMIT, || async { status(&gateway, "/health/ready").await == 200 }).await;
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
    eventually("payments are settled", LIMIT, || async { broker.messages("payments").await == 0 }).await;
    eventually("notifications wait", LIMIT, || async { broker.messages("notifications").await > 0 }).await;

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
    eventually("consumers ack", LIMIT, || async { broker.messages("notifications").await == 0 }).await;
    refused_at_once(&post().await);

    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    let accepted = eventually("commands are accepted again", LIMIT, || async {
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

/// Waits until it takes no connection any more.
async fn refuses_connections(gateway: &Gateway) {
    let address = gateway.url.trim_start_matches("http://");
    eventually("it takes no connection", LIMIT, || async { TcpStream::connect(address).await.is_err() }).await;
}

/// The restarts come while a proxy holds the confirms of one gateway, and a lock the transactions of the workers: requests
/// and commands are in flight however quick the machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_restarted_under_load_loses_no_accepted_work() {
    const PAYMENTS: usize = 600;
    /// Posted before the restarts begin.
    const BEFORE: usize = 100;
    const AT_ONCE: usize = 32;
    /// Everything, in words of its own, which its connections are named after.
    const OLD_POOLS: &str = "all,clock";
    let sandbox = Sandbox::new("rolling restart").await;
    let (batch, payers) = payers(&sandbox, PAYMENTS).await;
    let proxy = Proxy::start(&sandbox.amqp_url()).await;
    let behind = proxy.url(&sandbox.amqp_url());
    let system = System::of(&sandbox);
    let proxied = [&PATIENT[..], &[("REGISTRAR__AMQP__URL", behind.as_str())]].concat();
    let (mut leaving, mut staying) = tokio::join!(system.gateway(&proxied), system.gateway(&[]));
    let mut old = system.workers_with(OLD_POOLS, &PATIENT_WORKERS).await;
    let (first, second) = (format!("{}/v1/payments", leaving.url), format!("{}/v1/payments", staying.url));
    let (restarts_begin, _) = watch::channel(false);
    let answered = AtomicUsize::new(0);
    let load = stream::iter(payers.iter().enumerate())
        .map(|(number, (student, registration))| {
            let (system, first, second, answered) = (&system, &first, &second, &answered);
            let (token, body) = (token(*student, Role::Student), payment(&batch, *registration));
            let mut restarts_begin = restarts_begin.subscribe();
            async move {
                if number >= BEFORE {
                    restarts_begin.wait_for(|begin| *begin).await.expect("the restarts come");
                }
                // What a load balancer does: whoever is not served here is served there, under the same key.
                let accepted = match system.post(first, Some(&token), "the key", &body).await {
                    Ok(answer) if answer.status() == 202 => {
                        let body: Value = answer.json().await.expect("a 202 has a JSON body");
                        (body["id"].as_str().expect("an id").to_owned(), token, true)
                    }
                    _ => {
                        let accepted = system.post_until_accepted(second, Some(&token), "the key", &body).await;
                        (accepted.operation, token, false)
                    }
                };
                answered.fetch_add(1, Ordering::SeqCst);
                accepted
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>();
    let restarts = async {
        eventually("the first are answered and settled", LIMIT, || async {
            answered.load(Ordering::SeqCst) == BEFORE && usize::try_from(payments_of(&sandbox).await) == Ok(BEFORE)
        })
        .await;
        let lock = TableLock::acquire(&sandbox.db, "payments").await;
        proxy.hold_server_to_client();
        restarts_begin.send_replace(true);
        let of_old = format!("workers {OLD_POOLS}");
        eventually("a payment is being settled by the old process", LIMIT, || async {
            lock.waiters().await.iter().any(|waiter| waiter.application == of_old)
        })
        .await;
        // Its successor comes only now: before, it could have been given everything that is in flight.
        let new = system.workers_with("all", &PATIENT_WORKERS).await;
        let asked = Instant::now();
        leaving.process.signal("TERM");
        old.signal("TERM");
        refuses_connections(&leaving).await;
        old.wait_for_output("asked to stop").await;
        lock.release().await;
        proxy.release();
        let (gateway, workers) = tokio::join!(leaving.process.wait(), old.wait());
        assert!(gateway.success() && workers.success(), "{gateway} {workers}");
        assert!(asked.elapsed() < Duration::from_secs(25), "they end within the supervisor's patience");
        new
    };
    let (accepted, mut new) = tokio::join!(load, restarts);
    let here = accepted.iter().filter(|(_, _, here)| *here).count();
    // Some of those who were in flight when it was asked to stop, and nobody who came later.
    assert!((BEFORE + 1..=BEFORE + AT_ONCE).contains(&here), "{here} were served by the gateway that left");
    let expected = i64::try_from(PAYMENTS).expect("fits");
    eventually("every mail is sent", LIMIT * 2, || async {
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
