//! Liveness proves consumption: a process whose subscription is gone, while the broker answers, must be restarted.

use std::time::Duration;

use contracts::{
    Command,
    amqp::{AmqpSettings, LiveMessage, Publisher},
    messages::SubmitPayment,
};
use testkit::{Sandbox, eventually};
use uuid::Uuid;

use crate::support::{Workers, count, event, publisher, student};

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
    eventually("liveness fails", Duration::from_secs(40), || async {
        http.get(address("live")).send().await.is_ok_and(|answer| answer.status() == 503)
    })
    .await;
    let answer = http.get(address("live")).send().await.expect("the listener is up");
    assert!(answer.text().await.expect("a text").contains("payments"), "the consumer is named");
    process.kill9();
    sandbox.close().await;
}

#[tokio::test]
async fn an_idle_process_stays_alive_and_ends_within_the_grace_period() {
    let sandbox = Sandbox::new("drain").await;
    let workers = Workers::of(&sandbox);
    let mut process = workers.start("all").await;
    let started = std::time::Instant::now();
    assert!(process.terminate().await.success(), "exit 0 on SIGTERM");
    assert!(started.elapsed() < Duration::from_secs(25), "within the kill time-out");
    sandbox.close().await;
}

#[tokio::test]
async fn a_backlog_does_not_keep_a_process_from_ending() {
    const PAYMENTS: i64 = 4_000;
    let sandbox = Sandbox::new("backlog_end").await;
    let publisher = publisher(&sandbox).await;
    let payer = student(Uuid::now_v7());
    let unknown = SubmitPayment::example();
    publisher.publish_all((0..PAYMENTS).map(|_| event(payer, &unknown))).await.expect("confirmed");
    let workers = Workers::of(&sandbox);
    let slow = [("REGISTRAR__RUNTIME__BATCH_MAX", "1"), ("REGISTRAR__RUNTIME__PREFETCH", "1000")];
    let mut process = workers.start_with("payments", &slow).await;
    let settled = || count(&sandbox, "SELECT count(*) FROM operations");
    eventually("something is settled", Duration::from_secs(20), || async { settled().await > 0 }).await;
    assert!(process.terminate().await.success(), "exit 0 on SIGTERM");
    assert!(settled().await < PAYMENTS, "it ended with deliveries ready, which another takes");
    let mut other = workers.start("payments").await;
    eventually("the rest is settled", Duration::from_secs(60), || async { settled().await == PAYMENTS }).await;
    assert!(other.terminate().await.success());
    sandbox.close().await;
}

#[tokio::test]
async fn whoever_tells_all_the_time_is_connected_nevertheless() {
    let sandbox = Sandbox::new("telling").await;
    let publisher = Publisher::start(AmqpSettings::new(sandbox.amqp_url(), "test"));
    let news = LiveMessage { notified: vec![Uuid::now_v7()], ..LiveMessage::default() };
    let telling = async {
        loop {
            publisher.publish_live(news.clone());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let connected = tokio::select! {
        connected = publisher.wait_connected(Duration::from_secs(10)) => connected,
        () = telling => false,
    };
    assert!(connected, "what is refused meanwhile does not keep the connection from being made");
    sandbox.close().await;
}
