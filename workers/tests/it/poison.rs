//! Poison harms nobody but itself: neighbours are settled, the culprit is parked, its client is told, and it can be
//! replayed after a fix.

use contracts::{NewEvent, messages::SubmitPayment};
use serde_json::{Value, json};
use testkit::{Sandbox, eventually, fixtures, fixtures::NewCourseBatch};
use uuid::Uuid;

use crate::support::{SETTLED_LIMIT, Workers, count, event, publisher, settled, student, take_events};

/// So many valid payments, each for a held registration of a student of its own.
async fn payments(sandbox: &Sandbox, number: usize) -> Vec<NewEvent> {
    let batch = NewCourseBatch::of(i32::try_from(number).expect("a few hundred")).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "poison", number).await;
    let ids: Vec<Uuid> = students.iter().map(|student| student.id).collect();
    let registrations = fixtures::registrations(&sandbox.db, &batch, &ids, "seat_held").await;
    ids.iter()
        .zip(registrations)
        .enumerate()
        .map(|(number, (student_id, registration_id))| {
            let command = SubmitPayment {
                registration_id,
                student_id: *student_id,
                transaction_id: format!("UTR-POISON-{number:04}"),
                amount: batch.amount_due,
                currency: batch.currency.to_owned(),
                ..<SubmitPayment as contracts::Command>::example()
            };
            event(student(*student_id), &command)
        })
        .collect()
}

/// The same event with other data: what an older or broken gateway might have let in.
fn with_data(mut new: NewEvent, change: impl FnOnce(&mut Value)) -> NewEvent {
    let mut json: Value = serde_json::from_slice(&new.bytes).expect("an event");
    change(&mut json["data"]);
    new.bytes = serde_json::to_vec(&json).expect("an event").into();
    new
}

#[tokio::test]
async fn one_among_255_is_parked_and_replayed_after_a_fix() {
    let sandbox = Sandbox::new("poison").await;
    let mut events = payments(&sandbox, 256).await;
    let good_data: Value = serde_json::from_slice::<Value>(&events[100].bytes).expect("an event")["data"].take();
    events[100] = with_data(events[100].clone(), |data| data["amount"] = json!("a lot"));
    let culprit = events[100].id;
    let others: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let publisher = publisher(&sandbox).await;
    publisher.publish_all(events).await.expect("the broker is up");
    let workers = Workers::of(&sandbox);
    let mut process = workers.start("payments,dead-letters").await;

    let (state, outcome) = settled(&sandbox, culprit).await;
    assert_eq!((state.as_str(), outcome["problem"]["type"].as_str()), ("failed", Some("/problems/operation-failed")));
    for id in others.iter().filter(|id| **id != culprit) {
        assert_eq!(settled(&sandbox, *id).await.0, "succeeded");
    }
    assert_eq!(count(&sandbox, "SELECT count(*) FROM payments").await, 255);
    let (letter, operation, class): (Uuid, Uuid, String) =
        sqlx::query_as("SELECT id, operation_id, error_class FROM dead_letters")
            .fetch_one(&sandbox.db)
            .await
            .expect("exactly one dead letter");
    assert_eq!((operation, class.as_str()), (culprit, "poison"));

    let fixed = std::env::temp_dir().join(format!("{}.json", sandbox.vhost));
    std::fs::write(&fixed, good_data.to_string()).expect("the temporary folder is writable");
    let file = fixed.to_str().expect("a plain path");
    workers.command(&["dead", "replay", &letter.to_string(), "--edit", file, "--yes"]).await;
    eventually("the replay replaces the failure", SETTLED_LIMIT, || async {
        settled(&sandbox, culprit).await.0 == "succeeded"
    })
    .await;
    assert_eq!(count(&sandbox, "SELECT count(*) FROM payments").await, 256);
    assert_eq!(count(&sandbox, "SELECT count(*) FROM dead_letters WHERE state = 'replayed'").await, 1);
    assert!(process.terminate().await.success());
    for queue in ["notifications", "email"] {
        assert_eq!(take_events(&sandbox, queue).await.len(), 256, "{queue}");
    }
    std::fs::remove_file(fixed).ok();
    sandbox.close().await;
}

#[tokio::test]
async fn what_is_no_event_is_parked_as_it_came() {
    let sandbox = Sandbox::new("undecodable").await;
    let publisher = publisher(&sandbox).await;
    let good = payments(&sandbox, 1).await.remove(0);
    let id = good.id;
    let mixed = format!(r#"[{{"specversion":"0.3"}},{},{{"type":7}}]"#, String::from_utf8_lossy(&good.bytes));
    sandbox.publish_raw("commands", "payments", mixed.as_bytes()).await;
    sandbox.publish_raw("commands", "payments", b"\x00 not json \xff").await;
    let unknown = with_data(good.clone(), |_| {});
    let unknown = String::from_utf8_lossy(&unknown.bytes).replace("payment.submit.v1", "payment.submit.v9");
    let unknown = unknown.replace(&id.to_string(), &Uuid::now_v7().to_string());
    sandbox.publish_raw("commands", "payments", format!("[{unknown}]").as_bytes()).await;
    let mut process = Workers::of(&sandbox).start("payments,dead-letters").await;
    assert_eq!(settled(&sandbox, id).await.0, "succeeded");
    eventually("four dead letters", SETTLED_LIMIT, || async {
        count(&sandbox, "SELECT count(*) FROM dead_letters").await == 4
    })
    .await;
    let classes: Vec<String> = sqlx::query_scalar("SELECT error_class FROM dead_letters ORDER BY error_class")
        .fetch_all(&sandbox.db)
        .await
        .expect("dead letters can be read");
    assert_eq!(classes, ["undecodable", "undecodable", "undecodable", "unknown_kind"]);
    drop(publisher);
    assert!(process.terminate().await.success());
    take_events(&sandbox, "notifications").await;
    take_events(&sandbox, "email").await;
    sandbox.close().await;
}

#[tokio::test]
async fn an_event_that_kills_its_process_ends_alone_in_the_dead_letters() {
    let sandbox = Sandbox::new("killer").await;
    let mut events = payments(&sandbox, 20).await;
    events[7] = with_data(events[7].clone(), |data| data["payer_name"] = json!("kill-this-process"));
    let killer = events[7].id;
    let innocents: Vec<Uuid> = events.iter().map(|event| event.id).filter(|id| *id != killer).collect();
    publisher(&sandbox).await.publish_all(events).await.expect("the broker is up");
    let workers = Workers::of(&sandbox);
    let plant = [("REGISTRAR__PLANTED", "kill_on_marker")];
    let mut deaths = 0;
    let (mut process, _) = workers.spawn("payments,dead-letters", &plant);
    loop {
        let parked = eventually("the process dies, or the killer is parked", SETTLED_LIMIT, || {
            let died = process.has_ended();
            let sandbox = &sandbox;
            async move {
                let parked = count(sandbox, "SELECT count(*) FROM dead_letters").await > 0;
                (died || parked).then_some(parked)
            }
        })
        .await;
        if parked {
            break;
        }
        deaths += 1;
        assert!(deaths < 20, "the killer is never parked");
        process = workers.spawn("payments,dead-letters", &plant).0;
    }
    for id in innocents {
        assert_eq!(settled(&sandbox, id).await.0, "succeeded");
    }
    assert_eq!(settled(&sandbox, killer).await.0, "failed");
    let letters: Vec<(Option<Uuid>, String)> = sqlx::query_as("SELECT operation_id, error_class FROM dead_letters")
        .fetch_all(&sandbox.db)
        .await
        .expect("dead letters can be read");
    assert_eq!(letters, [(Some(killer), "process_death".to_owned())]);
    assert_eq!(count(&sandbox, "SELECT count(*) FROM payments").await, 19);
    assert!(process.terminate().await.success());
    take_events(&sandbox, "notifications").await;
    take_events(&sandbox, "email").await;
    sandbox.close().await;
}
