//! A queue that is split: what a student posts stands in the student's own partition, behind whatever came before it.

use contracts::{Event, KeyHash, Partitions, Queue};
use reqwest::StatusCode;
use serde_json::json;
use testkit::fixtures;
use uuid::Uuid;

use crate::served::{Served, answer};

#[tokio::test]
async fn what_a_student_posts_stands_in_the_student_s_partition_in_order() {
    const STUDENTS: usize = 12;
    const PAYMENTS: usize = 3;
    let partitions = Partitions::of_payments(4).expect("not too many");
    let served = Served::start_with("partitions", |settings| settings.partitions = partitions).await;
    let students = fixtures::students(&served.sandbox.db, "payer", STUDENTS).await;
    for number in 0..PAYMENTS {
        for student in &students {
            let body = json!({
                "registration_id": Uuid::now_v7(), "method": "upi", "transaction_id": format!("UTR-{number}-{}", student.id),
                "amount": "10.00", "currency": "INR",
            });
            let request = served.post("/v1/payments").bearer_auth(served.token(student)).json(&body);
            assert_eq!(answer(request).await.0, StatusCode::ACCEPTED);
        }
    }
    let mut posted = Vec::new();
    for partition in partitions.queues(Queue::Payments) {
        for body in served.sandbox.take_all(&partition.to_string()).await {
            for element in Event::decode_message(&body).expect("a message") {
                let event = element.expect("an event");
                assert_eq!(partitions.work_queue(Queue::Payments, KeyHash::of(&event.subject)), partition);
                let data: serde_json::Value = serde_json::from_str(event.data.get()).expect("JSON");
                posted.push((event.subject.into_owned(), data["transaction_id"].as_str().expect("a text").to_owned()));
            }
        }
    }
    for student in &students {
        let of_student: Vec<&str> = posted
            .iter()
            .filter(|(key, _)| *key == student.id.to_string())
            .map(|(_, reference)| reference.as_str())
            .collect();
        let expected: Vec<String> = (0..PAYMENTS).map(|number| format!("UTR-{number}-{}", student.id)).collect();
        assert_eq!(of_student, expected);
    }
    assert_eq!(served.published().await, 0, "nothing goes to the whole queue");
    served.close().await;
}
