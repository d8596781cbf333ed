//! Liveness proves consumption: a process whose subscription is gone, while the broker answers, must be restarted.

use std::time::Duration;

use testkit::{Sandbox, eventually};

use crate::support::{Workers, publisher};

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
