//! Time: ended holds are given up once, reminders go out once, and pruning takes only what nobody needs, a little at once.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use chrono::{DateTime, TimeDelta, Utc};
use contracts::{Command, Principal, messages::ExpireHold};
use testkit::{
    Sandbox, eventually,
    fixtures::{self, NewCourseBatch},
};
use uuid::Uuid;

use crate::support::{SETTLED_LIMIT, Workers, count, event, publisher, settled, take_events};

const FAST: [(&str, &str); 2] = [("REGISTRAR__CLOCK__TICK_MS", "50"), ("REGISTRAR__CLOCK__HOLD_GRACE_MS", "1000")];

/// Moves the end of these holds; answers it as the database keeps it.
async fn end_holds(sandbox: &Sandbox, registration_ids: &[Uuid], end: DateTime<Utc>) -> DateTime<Utc> {
    let ends = sqlx::query_scalar::<_, DateTime<Utc>>(
        "UPDATE student_registrations SET hold_expires_at = $2, updated_at = now() - interval '1 day'
          WHERE id = ANY ($1) RETURNING hold_expires_at",
    );
    let ends = ends.bind(registration_ids).bind(end).fetch_all(&sandbox.db).await.unwrap();
    assert_eq!(ends.len(), registration_ids.len());
    ends[0]
}

async fn status(sandbox: &Sandbox, registration_id: Uuid) -> String {
    sqlx::query_scalar("SELECT status FROM student_registrations WHERE id = $1")
        .bind(registration_id)
        .fetch_one(&sandbox.db)
        .await
        .unwrap()
}

#[tokio::test]
async fn two_clocks_give_an_ended_hold_up_once_and_the_waitlist_moves() {
    let sandbox = Sandbox::new("clock_expires").await;
    let batch = NewCourseBatch::of(2).waitlist(2).insert(&sandbox.db).await;
    let students: Vec<Uuid> = fixtures::students(&sandbox.db, "s", 4).await.iter().map(|s| s.id).collect();
    let held = fixtures::registrations(&sandbox.db, &batch, &students[..2], "seat_held").await;
    let waiting = fixtures::registrations(&sandbox.db, &batch, &students[2..], "waitlisted").await;
    end_holds(&sandbox, &held[..1], Utc::now() - TimeDelta::hours(1)).await;
    let renewed_from = Utc::now() - TimeDelta::hours(1);
    let publisher = publisher(&sandbox).await;

    let workers = Workers::of(&sandbox);
    let mut one = workers.start_with("clock,payments", &FAST).await;
    let mut other = workers.start_with("clock,payments", &FAST).await;
    eventually("the head of the waitlist has the seat", SETTLED_LIMIT, || async {
        status(&sandbox, waiting[0]).await == "seat_held"
    })
    .await;
    let stale = ExpireHold { registration_id: held[1], hold_expires_at: renewed_from, student_id: None };
    let stale = event(Principal::System, &stale);
    let stale_id = stale.id;
    publisher.publish(stale).await.unwrap();
    let (_, outcome) = settled(&sandbox, stale_id).await;
    assert_eq!(outcome["result"]["expired"], false, "{outcome}");
    eventually("every delivery is acked", SETTLED_LIMIT, || async { sandbox.queue_depth("payments").await == 0 }).await;
    assert!(one.terminate().await.success() && other.terminate().await.success());

    let statuses =
        [status(&sandbox, held[0]).await, status(&sandbox, held[1]).await, status(&sandbox, waiting[1]).await];
    assert_eq!(statuses, ["expired", "seat_held", "waitlisted"]);
    let ended = "SELECT count(*) FROM operations
                  WHERE kind = 'registration.expire_hold.v1' AND outcome #>> '{result,expired}' = 'true'";
    assert_eq!(count(&sandbox, ended).await, 1);
    assert_eq!(count(&sandbox, "SELECT count(*) FROM audit_logs WHERE action = 'registration.expire'").await, 1);
    assert_eq!(count(&sandbox, "SELECT seats_taken::bigint FROM batches").await, 2);
    for told in ["email", "notifications"] {
        assert_eq!(take_events(&sandbox, told).await.len(), 2, "who lost the seat and who has it now: {told}");
    }
    sandbox.close().await;
}

/// More holds end than one tick publishes, and nobody settles the first ones: the others must not wait behind them.
#[tokio::test]
async fn ended_holds_beyond_one_tick_are_published_while_the_first_still_wait() {
    let sandbox = Sandbox::new("clock_beyond_a_tick").await;
    let batch = NewCourseBatch::of(700).insert(&sandbox.db).await;
    let students: Vec<Uuid> = fixtures::students(&sandbox.db, "s", 700).await.iter().map(|s| s.id).collect();
    let held = fixtures::registrations(&sandbox.db, &batch, &students, "seat_held").await;
    let end = end_holds(&sandbox, &held, Utc::now() - TimeDelta::hours(1)).await;
    drop(publisher(&sandbox).await);
    let settings = [FAST[0], FAST[1], ("REGISTRAR__LOG__FORMAT", "json")];
    let mut clock = Workers::of(&sandbox).start_with("clock", &settings).await;
    clock.wait_for_output("\"count\":188").await;
    assert!(clock.terminate().await.success());
    let published = clock.output().matches("published what is due").count();
    assert_eq!(published, 2, "nothing is published twice");
    let due = |id: &Uuid| contracts::ids::due_id(ExpireHold::KIND, &id.to_string(), end);
    let mut expected: Vec<_> = held.iter().map(due).collect();
    expected.sort();
    let events: Vec<Uuid> = take_events(&sandbox, "payments").await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(events, expected);
    sandbox.close().await;
}

#[tokio::test]
async fn a_hold_that_ends_soon_is_reminded_of_once() {
    let sandbox = Sandbox::new("clock_reminds").await;
    let batch = NewCourseBatch::of(5).insert(&sandbox.db).await;
    let students: Vec<Uuid> = fixtures::students(&sandbox.db, "s", 2).await.iter().map(|s| s.id).collect();
    let held = fixtures::registrations(&sandbox.db, &batch, &students, "seat_held").await;
    end_holds(&sandbox, &held[..1], Utc::now() + TimeDelta::minutes(30)).await;
    end_holds(&sandbox, &held[1..], Utc::now() + TimeDelta::hours(30)).await;
    drop(publisher(&sandbox).await);
    let workers = Workers::of(&sandbox);
    // A second clock, after the first one's end, remembers nothing, and must make the same command of it.
    for _ in 0..2 {
        let mut clock = workers.start_with("clock", &FAST).await;
        clock.wait_for_output("published what is due").await;
        assert!(clock.terminate().await.success());
    }
    let reminders = take_events(&sandbox, "email").await;
    assert_eq!(reminders.len(), 1, "{reminders:?}");
    sandbox.close().await;
}

/// Four old operations, of which one has a parked dead letter, and a recent one.
const OPERATIONS: &str = "
    INSERT INTO operations (id, kind, fingerprint, state, outcome, accepted_at, settled_at)
    SELECT ('00000000-0000-7000-8000-00000000000' || n)::uuid, 'payment.submit.v1', '', 'failed', '{}',
           now() - interval '40 days', now() - CASE n WHEN 5 THEN interval '1 day' ELSE interval '40 days' END
      FROM generate_series(1, 9) AS n
     WHERE n <= 5;
    INSERT INTO dead_letters (id, operation_id, pool, event, error_class, error_text, attempts, first_failed_at,
                              last_failed_at, dedupe_key, state, decided_by, decided_at)
    SELECT gen_random_uuid(), ('00000000-0000-7000-8000-00000000000' || n)::uuid, 'payments', '', 'data', 'why', 1, now(),
           now(), n::text, CASE n WHEN 1 THEN 'parked' ELSE 'discarded' END,
           CASE n WHEN 2 THEN 'ops' END, CASE n WHEN 2 THEN now() END
      FROM generate_series(1, 2) AS n;
    CREATE TABLE prunings (deleted bigint);
    CREATE FUNCTION note_pruning() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO prunings SELECT count(*) FROM gone;
        RETURN NULL;
    END $$;
    CREATE TRIGGER operations_noted AFTER DELETE ON operations REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION note_pruning();";

#[tokio::test]
async fn pruning_takes_old_operations_without_a_parked_dead_letter_a_few_at_once() {
    let sandbox = Sandbox::new("clock_prunes").await;
    sqlx::raw_sql(OPERATIONS).execute(&sandbox.db).await.unwrap();
    let user = fixtures::user(&sandbox.db, "asha@example.org", contracts::Role::Student).await;
    let expired = "INSERT INTO user_tokens (id, user_id, purpose, expires_at)
                   SELECT gen_random_uuid(), $1, 'magic_link', now() - make_interval(days => n)
                     FROM UNNEST(ARRAY[1, 20, 30, 40]) AS n";
    sqlx::query(expired).bind(user.id).execute(&sandbox.db).await.unwrap();
    // What is beyond one delete does not wait for the interval: that is longer than the test.
    let settings = [("REGISTRAR__CLOCK__PRUNE_BATCH", "2"), ("REGISTRAR__CLOCK__PRUNE_EVERY_MS", "3600000"), FAST[0]];
    let mut clock = Workers::of(&sandbox).start_with("clock", &settings).await;
    eventually("the old ones are gone", SETTLED_LIMIT, || async {
        count(&sandbox, "SELECT count(*) FROM operations").await == 2
            && count(&sandbox, "SELECT count(*) FROM user_tokens").await == 1
    })
    .await;
    assert!(clock.terminate().await.success());
    let kept: Vec<String> = sqlx::query_scalar("SELECT right(id::text, 1) FROM operations ORDER BY id")
        .fetch_all(&sandbox.db)
        .await
        .unwrap();
    assert_eq!(kept, ["1", "5"], "the one with a parked dead letter, and the recent one");
    assert_eq!(count(&sandbox, "SELECT max(deleted) FROM prunings").await, 2);
    sandbox.close().await;
}
