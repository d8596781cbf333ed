//! Liveness proves consumption: a process whose subscription is gone, while the broker answers, must be restarted.

use std::time::{Duration, Instant};

use contracts::{
    Command,
    amqp::{AmqpSettings, LiveMessage, Publisher},
    messages::SubmitPayment,
};
use testkit::{Sandbox, TableLock, eventually};
use uuid::Uuid;

use crate::support::{PATIENT, SETTLED_LIMIT, Workers, count, event, publisher, student};

#[tokio::test]
async fn a_consumer_that_lost_its_queue_fails_liveness() {
    let sandbox = Sandbox::new("liveness").await;
    drop(publisher(&sandbox).await);
    let workers = Workers::of(&sandbox);
    let (mut process, port) = workers.spawn("payments", &[]);
    let address = |path: &str| format!("http://127.0.0.1:{port}/health/{path}");
    process.wait_ready(&address("ready")).await;
    process.wait_ready(&address("live")).await;
    // Another queue under the same name: the consumer is cancelled by the broker, and cannot subscribe again.
    sandbox.replace_with_classic_queue("payments").await;
    let http = reqwest::Client::new();
    let failed = eventually("liveness fails", SETTLED_LIMIT, || async {
        http.get(address("live")).send().await.ok().filter(|answer| answer.status() == 503)
    })
    .await;
    assert!(failed.text().await.expect("a text").contains("payments"), "the consumer is named");
    process.kill9();
    sandbox.close().await;
}

#[tokio::test]
async fn an_idle_process_stays_alive_and_ends_within_the_grace_period() {
    let sandbox = Sandbox::new("drain").await;
    let workers = Workers::of(&sandbox);
    let mut process = workers.start("all").await;
    let asked = Instant::now();
    assert!(process.terminate().await.success(), "exit 0 on SIGTERM");
    assert!(asked.elapsed() < Duration::from_secs(25), "within the kill time-out");
    sandbox.close().await;
}

/// It is asked to stop while a lock holds its first deliveries up, so that the backlog is there whatever its speed.
#[tokio::test]
async fn a_backlog_does_not_keep_a_process_from_ending() {
    const PAYMENTS: i64 = 4_000;
    const CONSUMERS: i64 = 2;
    let sandbox = Sandbox::new("backlog_end").await;
    let publisher = publisher(&sandbox).await;
    let payer = student(Uuid::now_v7());
    let unknown = SubmitPayment::example();
    publisher.publish_all((0..PAYMENTS).map(|_| event(payer, &unknown))).await.expect("confirmed");
    let workers = Workers::of(&sandbox);
    let consumers = CONSUMERS.to_string();
    // With one thread nothing happens between what it says and its stopping.
    let single = [
        ("REGISTRAR__RUNTIME__THREADS", "1"),
        ("REGISTRAR__RUNTIME__CONSUMERS", consumers.as_str()),
        ("REGISTRAR__RUNTIME__BATCH_MAX", "1"),
        ("REGISTRAR__RUNTIME__PREFETCH", "1000"),
    ];
    let lock = TableLock::acquire(&sandbox.db, "operations").await;
    let mut process = workers.start_with("payments", &[&single[..], &PATIENT].concat()).await;
    lock.waiter().await;
    process.signal("TERM");
    process.wait_for_output("asked to stop").await;
    lock.release().await;
    assert!(process.wait().await.success(), "exit 0 on SIGTERM");
    let settled = || count(&sandbox, "SELECT count(*) FROM operations");
    let in_flight = settled().await;
    // Deliveries are arrays of up to 64 payments, and each is settled alone.
    assert!((1..=CONSUMERS * 64).contains(&in_flight), "{in_flight}: what was in flight, and nothing of the backlog");
    let mut other = workers.start("payments").await;
    eventually("the rest is settled", SETTLED_LIMIT, || async { settled().await == PAYMENTS }).await;
    assert!(other.terminate().await.success());
    sandbox.close().await;
}

#[tokio::test]
async fn a_publisher_of_many_live_messages_connects_nevertheless() {
    let sandbox = Sandbox::new("telling").await;
    let publisher = Publisher::start(AmqpSettings::new(sandbox.amqp_url(), "test"));
    let update = LiveMessage { notified: vec![Uuid::now_v7()], ..LiveMessage::default() };
    // The first ones come before it can be connected: its task has not run yet on this single thread.
    (0..100).for_each(|_| publisher.publish_live(update.clone()));
    let mut every_ms = tokio::time::interval(Duration::from_millis(1));
    let publishing = async {
        loop {
            every_ms.tick().await;
            publisher.publish_live(update.clone());
        }
    };
    let connected = tokio::select! {
        connected = publisher.wait_connected(SETTLED_LIMIT) => connected,
        () = publishing => false,
    };
    assert!(connected, "what is refused meanwhile does not keep the connection from being made");
    sandbox.close().await;
}
