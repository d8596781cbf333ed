//! The broker is killed and restarted under load: callers are refused fast and honestly, and every 202 is settled once.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use contracts::Role;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::{Proxy, Sandbox, eventually, fixtures, fixtures::NewCourseBatch};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    own_broker::OwnBroker,
    system::{LIMIT, System, token},
};

const PAYMENTS: usize = 1_200;
/// Posted before the fault; the others wait for it, so that it meets requests in flight however quick the machine is.
const BEFORE: usize = PAYMENTS / 2;
/// So often callers are refused before the broker comes back.
const REFUSALS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_202_is_settled_once_and_refusals_are_fast() {
    let sandbox = Sandbox::new("broker_restart").await;
    let broker = OwnBroker::start("test-broker-restart").await;
    let batch = NewCourseBatch::of(i32::try_from(PAYMENTS).expect("fits")).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "payer", PAYMENTS).await;
    let ids: Vec<Uuid> = students.iter().map(|student| student.id).collect();
    let registrations = fixtures::registrations(&sandbox.db, &batch, &ids, "seat_held").await;
    let system = System::with_broker(&sandbox, broker.url());
    let proxy = Proxy::start(&broker.url()).await;
    let behind = proxy.url(&broker.url());
    let mut gateway = system.gateway(&[("REGISTRAR__AMQP__URL", behind.as_str())]).await;
    let mut workers = system.workers("payments,notifications").await;
    broker.remember_queues().await;
    let url = format!("{}/v1/payments", gateway.url);
    let (fault_begins, _) = watch::channel(false);
    let answered = AtomicUsize::new(0);

    let load = stream::iter(ids.iter().zip(&registrations).enumerate())
        .map(|(number, (student, registration))| {
            let (system, url, answered) = (&system, &url, &answered);
            let mut fault_begins = fault_begins.subscribe();
            let body = json!({
                "registration_id": registration,
                "method": "bank_transfer",
                "transaction_id": format!("UTR-RESTART-{number:05}"),
                "amount": batch.amount_due.to_string(),
                "currency": batch.currency,
            });
            async move {
                if number >= BEFORE {
                    fault_begins.wait_for(|begins| *begins).await.expect("the fault comes");
                }
                let token = token(*student, Role::Student);
                let accepted = system.post_until_accepted(url, Some(&token), &format!("key-{number}"), &body).await;
                answered.fetch_add(1, Ordering::SeqCst);
                accepted
            }
        })
        .buffered(16)
        .collect::<Vec<_>>();
    let fault = async {
        eventually("the load is under way", LIMIT, || async { payments(&sandbox).await > 100 }).await;
        // Killed with its confirms on the way: there are payments whose callers do not know that they were accepted.
        proxy.hold_server_to_client();
        fault_begins.send_replace(true);
        eventually("callers wait for what is settled", LIMIT, || async {
            let answered = answered.load(Ordering::SeqCst);
            payments(&sandbox).await > i64::try_from(answered).expect("fits")
        })
        .await;
        broker.kill().await;
        proxy.sever();
        proxy.release();
        eventually("callers are refused", LIMIT, || async { system.refused.load(Ordering::SeqCst) >= REFUSALS }).await;
        broker.restart().await;
    };
    let (accepted, ()) = tokio::join!(load, fault);

    let refusals: Vec<_> = accepted.iter().flat_map(|accepted| &accepted.refusals).collect();
    assert!(refusals.len() >= REFUSALS, "the fault was felt");
    let slow = refusals.iter().filter(|(status, after)| *status == 503 && *after > Duration::from_secs(6)).count();
    assert_eq!(slow, 0, "nobody hangs: {refusals:?}");
    let quick = refusals.iter().filter(|(status, after)| *status == 503 && *after < Duration::from_secs(1)).count();
    assert!(quick * 2 > refusals.len(), "once the broker is known to be away, 503 comes within a second");
    eventually("every 202 is settled", LIMIT, || async {
        payments(&sandbox).await == i64::try_from(PAYMENTS).expect("fits")
    })
    .await;
    every_operation_says_succeeded(&system, &gateway.url, &accepted, &ids).await;
    assert!(workers.terminate().await.success());
    assert!(gateway.process.terminate().await.success());
    drop(system);
    sandbox.close().await;
}

async fn payments(sandbox: &Sandbox) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(&sandbox.db).await.expect("payments can be counted")
}

/// As the clients see it, each asking for its own.
async fn every_operation_says_succeeded(
    system: &System,
    gateway: &str,
    accepted: &[crate::system::Accepted],
    students: &[Uuid],
) {
    for (accepted, student) in accepted.iter().zip(students) {
        let url = format!("{gateway}/v1/operations/{}", accepted.operation);
        let answer = system.http.get(&url).bearer_auth(token(*student, Role::Student)).send().await;
        let answer: Value = answer.expect("the gateway answers").json().await.expect("an operation is JSON");
        assert_eq!(answer["state"], "succeeded", "{answer}");
    }
}
