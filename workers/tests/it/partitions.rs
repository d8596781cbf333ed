//! A queue split by partition key: each student's events in one partition, in their order, whoever serves it and dies of
//! it; and nothing is stranded where the number of partitions was changed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use contracts::{
    Command, Event, KeyHash, NewEvent, Partitions, Principal, Queue,
    amqp::{AmqpSettings, Publisher, Target},
    envelope::join_events,
    messages::{ExpireHold, SubmitPayment},
};
use rust_decimal::Decimal;
use testkit::{Process, Sandbox, TableLock, eventually, fixtures, fixtures::NewCourseBatch};
use uuid::Uuid;

use crate::support::{PATIENT, SETTLED_LIMIT, Workers, count, event, put_off, settled, student, take_events};

const FOUR: (&str, &str) = ("REGISTRAR__PARTITIONS__PAYMENTS", "4");
/// One delivery settled at a time, so that a process can be ended in the middle; and fewer held than there are, so that
/// somebody who took over too early would get later ones.
const ONE_DELIVERY_EACH: [(&str, &str); 3] =
    [FOUR, ("REGISTRAR__RUNTIME__BATCH_MAX", "1"), ("REGISTRAR__RUNTIME__PREFETCH", "10")];

fn split(payments: u16) -> Partitions {
    Partitions::of_payments(payments).expect("not too many")
}

async fn publisher(sandbox: &Sandbox, payments: u16) -> Publisher {
    let publisher = Publisher::start(AmqpSettings::new(sandbox.amqp_url(), "test").split(split(payments)));
    assert!(publisher.wait_connected(SETTLED_LIMIT).await, "the broker is up");
    publisher
}

/// Students with a held seat each.
struct Held {
    due: Decimal,
    /// Student and registration.
    seats: Vec<(Uuid, Uuid)>,
}

impl Held {
    async fn seats(sandbox: &Sandbox, number: usize) -> Self {
        let batch = NewCourseBatch::of(i32::try_from(number).expect("a few")).insert(&sandbox.db).await;
        let students = fixtures::students(&sandbox.db, "payer", number).await;
        let ids: Vec<Uuid> = students.iter().map(|student| student.id).collect();
        let registrations = fixtures::registrations(&sandbox.db, &batch, &ids, "seat_held").await;
        Self { due: batch.amount_due, seats: ids.into_iter().zip(registrations).collect() }
    }

    /// The n-th instalment of each student, of 10.00.
    fn instalments(&self, round: usize) -> Vec<NewEvent> {
        self.seats.iter().map(|seat| payment(*seat, round)).collect()
    }
}

fn payment((student_id, registration_id): (Uuid, Uuid), round: usize) -> NewEvent {
    let command = SubmitPayment {
        registration_id,
        student_id,
        transaction_id: format!("UTR-{}-{round}", student_id.simple()),
        amount: Decimal::TEN,
        ..SubmitPayment::example()
    };
    event(student(student_id), &command)
}

async fn end_of(sandbox: &Sandbox, registration_id: Uuid) -> DateTime<Utc> {
    sqlx::query_scalar("SELECT hold_expires_at FROM student_registrations WHERE id = $1")
        .bind(registration_id)
        .fetch_one(&sandbox.db)
        .await
        .expect("a held seat")
}

async fn settled_number(sandbox: &Sandbox) -> i64 {
    count(sandbox, "SELECT count(*) FROM operations").await
}

/// What a test forgets in a queue fails it.
async fn take_follow_ups(sandbox: &Sandbox) -> usize {
    take_events(sandbox, "notifications").await.len() + take_events(sandbox, "email").await.len()
}

#[tokio::test]
async fn a_partition_holds_the_events_of_its_students_and_nothing_else() {
    let sandbox = Sandbox::new("partition_contents").await;
    let publisher = publisher(&sandbox, 4).await;
    let seats: Vec<(Uuid, Uuid)> = (0..40).map(|_| (Uuid::now_v7(), Uuid::now_v7())).collect();
    let end = |(student_id, registration_id): (Uuid, Uuid)| ExpireHold {
        registration_id,
        hold_expires_at: Utc::now(),
        student_id: Some(student_id),
    };
    for round in 0..3 {
        publisher.publish_all(seats.iter().map(|seat| payment(*seat, round))).await.expect("confirmed");
    }
    publisher.publish_all(seats.iter().map(|seat| event(Principal::System, &end(*seat)))).await.expect("confirmed");
    assert_eq!(sandbox.ready("payments").await, 0, "nothing goes to the whole queue");
    let mut of_student: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in split(4).queues(Queue::Payments) {
        let mut events = 0;
        for body in sandbox.take_all(&partition.to_string()).await {
            for element in Event::decode_message(&body).expect("a message") {
                let event = element.expect("an event");
                let key = KeyHash::of(&event.subject);
                assert_eq!(split(4).work_queue(Queue::Payments, key), partition, "{}", event.subject);
                of_student.entry(event.subject.into_owned()).or_default().push(event.kind.into_owned());
                events += 1;
            }
        }
        assert!(events > 0, "{partition} has some of forty students");
    }
    let in_order = [SubmitPayment::KIND, SubmitPayment::KIND, SubmitPayment::KIND, ExpireHold::KIND];
    assert_eq!(of_student.len(), 40);
    assert!(of_student.values().all(|kinds| *kinds == in_order), "each hold's end stands behind its payments");
    sandbox.close().await;
}

/// Two processes at every partition, one active: it is killed, then the next one is asked to stop, each while a lock holds
/// its payments up and more stand in the queue than it may hold. What is left to pay after each instalment tells the order
/// in which they were settled.
#[tokio::test]
async fn the_order_of_each_student_holds_though_processes_die_and_stop() {
    const ROUNDS: usize = 150;
    let sandbox = Sandbox::new("partition_order").await;
    let held = Held::seats(&sandbox, 40).await;
    let publisher = publisher(&sandbox, 4).await;
    let mut rounds = Vec::new();
    // Publishes until there were so many instalments of each student; answers how many that is of all.
    let mut publish_until = async |number: usize| {
        for round in rounds.len()..number {
            let events = held.instalments(round);
            rounds.push(events.iter().map(|event| event.id).collect::<Vec<Uuid>>());
            publisher.publish_all(events).await.expect("confirmed");
        }
        i64::try_from(number * held.seats.len()).expect("thousands")
    };
    let all_settled = async |number: i64| {
        eventually("all are settled", SETTLED_LIMIT, || async { settled_number(&sandbox).await == number }).await;
    };
    let workers = Workers::of(&sandbox);
    let settings = [&ONE_DELIVERY_EACH[..], &PATIENT].concat();
    let mut killed = workers.start_with("payments", &settings).await;
    let mut stopped = workers.start_with("payments.0,payments.1,payments.2,payments.3", &settings).await;
    all_settled(publish_until(ROUNDS / 8).await).await;

    let lock = TableLock::acquire(&sandbox.db, "payments").await;
    let published = publish_until(ROUNDS / 3).await;
    lock.waiter().await;
    killed.kill9();
    lock.release().await;
    let mut last = workers.start_with("payments", &settings).await;
    all_settled(published).await;

    let lock = TableLock::acquire(&sandbox.db, "payments").await;
    let published = publish_until(ROUNDS).await;
    lock.waiter().await;
    stopped.signal("TERM");
    stopped.wait_for_output("asked to stop").await;
    lock.release().await;
    assert!(stopped.wait().await.success());
    all_settled(published).await;

    let rows: Vec<(Uuid, String, Option<String>)> =
        sqlx::query_as("SELECT id, state, outcome->'result'->>'amount_remaining' FROM operations")
            .fetch_all(&sandbox.db)
            .await
            .expect("operations can be read");
    let outcomes: BTreeMap<Uuid, (String, Option<String>)> =
        rows.into_iter().map(|(id, state, remaining)| (id, (state, remaining))).collect();
    for (round, events) in rounds.iter().enumerate() {
        let left = held.due - Decimal::TEN * Decimal::from(round + 1);
        for (id, (student_id, _)) in events.iter().zip(&held.seats) {
            let (state, remaining) = &outcomes[id];
            let remaining = remaining.as_ref().and_then(|text| text.parse::<Decimal>().ok());
            assert_eq!((state.as_str(), remaining), ("succeeded", Some(left)), "round {round} of {student_id}");
        }
    }
    assert!(last.terminate().await.success());
    assert_eq!(take_follow_ups(&sandbox).await, 2 * ROUNDS * held.seats.len());
    sandbox.close().await;
}

/// Both have the same pools; only one gets deliveries, and the other is ready, alive and takes over.
#[tokio::test]
async fn who_waits_for_its_turn_at_a_partition_is_alive() {
    let sandbox = Sandbox::new("partition_standby").await;
    let held = Held::seats(&sandbox, 1).await;
    let publisher = publisher(&sandbox, 4).await;
    let workers = Workers::of(&sandbox);
    let pool = split(4).work_queue(Queue::Payments, KeyHash::of(&held.seats[0].0.to_string())).to_string();
    // Holds its first delivery for ever, so that more are ready, and none for the other one.
    let hold = [FOUR, ("REGISTRAR__PLANTED", "hold_before_commit"), ("REGISTRAR__RUNTIME__PREFETCH", "1")];
    let (mut active, _) = workers.spawn(&pool, &hold);
    publisher.publish(payment(held.seats[0], 0)).await.expect("confirmed");
    active.wait_for_output("holding").await;
    let (mut standby, port) = workers.spawn(&pool, &[FOUR]);
    standby.wait_ready(&format!("http://127.0.0.1:{port}/health/ready")).await;
    publisher.publish(payment(held.seats[0], 1)).await.expect("confirmed");
    eventually("one is ready", SETTLED_LIMIT, || async { sandbox.ready(&pool).await == 1 }).await;
    // Longer than it takes to call a silent subscription lost.
    let since = Instant::now();
    eventually("it has waited long enough", Duration::from_secs(30), || async { since.elapsed().as_secs() >= 18 })
        .await;
    assert!(!standby.output().contains("the subscription was lost"), "{}", standby.output());
    standby.wait_ready(&format!("http://127.0.0.1:{port}/health/live")).await;
    assert_eq!(settled_number(&sandbox).await, 0);
    active.kill9();
    eventually("the other one takes over", SETTLED_LIMIT, || async { settled_number(&sandbox).await == 2 }).await;
    assert!(standby.terminate().await.success());
    take_follow_ups(&sandbox).await;
    sandbox.close().await;
}

#[tokio::test]
async fn what_is_put_off_comes_back_to_its_partition() {
    let sandbox = Sandbox::new("partition_retry").await;
    let held = Held::seats(&sandbox, 1).await;
    let publisher = publisher(&sandbox, 4).await;
    let pool = split(4).work_queue(Queue::Payments, KeyHash::of(&held.seats[0].0.to_string())).to_string();
    let refuse = "ALTER TABLE payments ADD CONSTRAINT refused CHECK (amount > 10)";
    sqlx::query(refuse).execute(&sandbox.db).await.expect("the table is the owner's");
    let workers = Workers::of(&sandbox);
    let mut process = workers.start_with("payments", &[FOUR]).await;
    let paid = payment(held.seats[0], 0);
    let id = paid.id;
    publisher.publish(paid).await.expect("confirmed");
    eventually("it is put off", SETTLED_LIMIT, || async { put_off(&sandbox).await == 1 }).await;
    assert!(process.terminate().await.success());
    eventually("it is back", SETTLED_LIMIT, || async { sandbox.ready(&pool).await == 1 }).await;
    assert_eq!(sandbox.ready("payments").await, 0);
    let mend = "ALTER TABLE payments DROP CONSTRAINT refused";
    sqlx::query(mend).execute(&sandbox.db).await.expect("the table is the owner's");
    let mut process = workers.start_with(&pool, &[FOUR]).await;
    assert_eq!(settled(&sandbox, id).await.0, "succeeded");
    assert!(process.terminate().await.success());
    take_follow_ups(&sandbox).await;
    sandbox.close().await;
}

#[tokio::test]
async fn a_dead_letter_is_replayed_into_its_partition_and_a_suspect_settled_from_the_quarantine() {
    let sandbox = Sandbox::new("partition_replay").await;
    let held = Held::seats(&sandbox, 2).await;
    let publisher = publisher(&sandbox, 4).await;
    let pool = split(4).work_queue(Queue::Payments, KeyHash::of(&held.seats[0].0.to_string())).to_string();
    let workers = Workers::of(&sandbox);
    let mut process = workers.start_with("payments,dead-letters", &[FOUR]).await;
    let (parked, suspect) = (payment(held.seats[0], 0), payment(held.seats[1], 0));
    let letters = [(Target::Dead, parked.bytes.clone()), (Target::Quarantine(Queue::Payments), suspect.bytes.clone())];
    publisher.publish_to(letters).await.expect("confirmed");
    assert_eq!(settled(&sandbox, parked.id).await.0, "failed");
    assert_eq!(settled(&sandbox, suspect.id).await.0, "succeeded");
    assert!(process.terminate().await.success());
    let letter: Uuid =
        sqlx::query_scalar("SELECT id FROM dead_letters").fetch_one(&sandbox.db).await.expect("one dead letter");
    workers.command_with(&["dead", "replay", &letter.to_string(), "--yes"], &[FOUR]).await;
    assert_eq!((sandbox.ready(&pool).await, sandbox.ready("payments").await), (1, 0));
    let mut process = workers.start_with(&pool, &[FOUR]).await;
    eventually("the replay settles it", SETTLED_LIMIT, || async {
        settled(&sandbox, parked.id).await.0 == "succeeded"
    })
    .await;
    assert!(process.terminate().await.success());
    take_follow_ups(&sandbox).await;
    sandbox.close().await;
}

/// From whole to four, from four to two, and back to whole, with events in the queues each time.
#[tokio::test]
async fn what_another_number_of_partitions_has_left_is_settled_with_a_warning() {
    const WARNING: &str = "another number of partitions";
    let sandbox = Sandbox::new("partition_leftovers").await;
    let held = Held::seats(&sandbox, 20).await;
    let workers = Workers::of(&sandbox);
    let mut published = 0;
    for (round, (before, after)) in [(1, "4"), (4, "2"), (2, "1")].into_iter().enumerate() {
        let events = held.instalments(round);
        published += i64::try_from(events.len()).expect("a few");
        publisher(&sandbox, before).await.publish_all(events).await.expect("confirmed");
        let setting = (FOUR.0, after);
        // One partition is enough to see to it.
        let pool = if after == "4" { "payments.3" } else { "payments" };
        let mut process = workers.start_with(pool, &[setting]).await;
        eventually("all are settled", SETTLED_LIMIT, || async { settled_number(&sandbox).await == published }).await;
        process.wait_for_output(WARNING).await;
        assert!(process.terminate().await.success());
        assert!(!process.output().contains("ERROR"), "{}", process.output());
    }
    take_follow_ups(&sandbox).await;
    sandbox.close().await;
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_refused_at_the_start() {
    let sandbox = Sandbox::new("partition_refused").await;
    let workers = Workers::of(&sandbox);
    let refused = async |pools: &str, settings: &[(&str, &str)]| {
        let (mut process, _): (Process, u16) = workers.spawn(pools, settings);
        assert!(!process.wait().await.success());
        process.output().to_lowercase()
    };
    let output = refused("payments.4", &[FOUR]).await;
    assert!(output.contains("there are payments.0 to payments.3"), "{output}");
    let output = refused("payments.0", &[]).await;
    assert!(output.contains("partitions.payments splits it"), "{output}");
    let output = refused("payments", &[(FOUR.0, "33")]).await;
    assert!(output.contains("partitions.payments") && output.contains("at most 32"), "{output}");
    let output = refused("payments", &[("REGISTRAR__PARTITIONS__EMAIL", "4")]).await;
    assert!(output.contains("partitions.email"), "{output}");
    let output = refused("payments", &[FOUR, ("REGISTRAR__DATABASE__POOL_MAX", "3")]).await;
    assert!(output.contains("database.pool_max is below the 4 partitions"), "{output}");
    sandbox.close().await;
}

/// Settled together: the end of another hold, a payment that came in time, and the end of the hold that it beat.
#[tokio::test]
async fn the_end_of_a_hold_does_not_overtake_a_payment_settled_with_it() {
    let sandbox = Sandbox::new("partition_together").await;
    let held = Held::seats(&sandbox, 2).await;
    drop(publisher(&sandbox, 1).await);
    // Accepted before the holds end, however long the rest takes.
    let paid = payment(held.seats[1], 0);
    sqlx::query("UPDATE student_registrations SET hold_expires_at = now() + interval '1 second'")
        .execute(&sandbox.db)
        .await
        .expect("the table is the owner's");
    let mut events = Vec::new();
    for (student_id, registration_id) in &held.seats {
        let hold_expires_at = end_of(&sandbox, *registration_id).await;
        let end = ExpireHold { registration_id: *registration_id, hold_expires_at, student_id: Some(*student_id) };
        events.push(event(Principal::System, &end));
    }
    events.insert(1, paid);
    sandbox.publish_raw("commands", "payments", &join_events(events.iter().map(|event| &event.bytes))).await;
    eventually("both holds are over", SETTLED_LIMIT, || async {
        count(&sandbox, "SELECT count(*) FROM student_registrations WHERE hold_expires_at < now()").await == 2
    })
    .await;
    let mut process = Workers::of(&sandbox).start("payments").await;
    for event in &events {
        settled(&sandbox, event.id).await;
    }
    let statuses: Vec<String> = sqlx::query_scalar("SELECT status FROM student_registrations ORDER BY id")
        .fetch_all(&sandbox.db)
        .await
        .expect("registrations can be read");
    assert_eq!(statuses, ["expired", "payment_submitted"]);
    assert!(process.terminate().await.success());
    take_follow_ups(&sandbox).await;
    sandbox.close().await;
}
