//! Seats: nobody is oversold, overtaken or counted twice, whatever arrives in one batch.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use contracts::{
    Outcome, Principal, ProblemType, Role, TraceParent, Verdict, ids,
    messages::{
        CancelRegistration, ConfirmRegistration, Registrant, RegistrationDecision, ReviewRegistration,
        SubmitRegistration,
    },
};
use sqlx::PgPool;
use testkit::{
    Sandbox, Statements,
    fixtures::{self, NewCourseBatch},
};
use uuid::Uuid;
use workers::{
    registrations::{
        CancelRegistrationHandler, ConfirmRegistrationHandler, RegistrationStatus, ReviewRegistrationHandler,
        SubmitRegistrationHandler,
    },
    runtime::{Delivery, Failure, Handler},
};

use crate::payments::somebody_waits;

/// A delivery of this command, accepted now.
pub fn delivery<C>(principal: Principal, command: C) -> Delivery<C> {
    Delivery { id: ids::new_id(), command, principal, accepted_at: Utc::now(), trace: TraceParent::new(), attempt: 0 }
}

/// Settles deliveries together and commits.
pub async fn settle<H: Handler>(
    db: &PgPool,
    handler: &H,
    deliveries: &[Delivery<H::Command>],
) -> Vec<Outcome<H::Result, H::Memo>> {
    let mut tx = db.begin().await.unwrap();
    let outcomes = handler.apply(&mut tx, deliveries).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(outcomes.len(), deliveries.len());
    outcomes
}

/// What was done.
pub fn done<R: std::fmt::Debug, M>(outcome: &Outcome<R, M>) -> &R {
    match &outcome.verdict {
        Verdict::Succeeded(result) => result,
        Verdict::Rejected(problem) => panic!("rejected: {problem:?}"),
    }
}

/// Whether it was refused with this problem.
pub fn refused<R, M>(outcome: &Outcome<R, M>, problem_type: ProblemType) -> bool {
    matches!(&outcome.verdict, Verdict::Rejected(problem) if problem.is(problem_type))
}

fn student(id: Uuid) -> Principal {
    Principal::User { id, role: Role::Student }
}

fn by_student(batch_id: Uuid, student_id: Uuid) -> Delivery<SubmitRegistration> {
    let registrant = Registrant::Student { student_id };
    delivery(student(student_id), SubmitRegistration { batch_id, registrant, answers: None })
}

fn by_visitor(batch_id: Uuid, email: &str) -> Delivery<SubmitRegistration> {
    let registrant = Registrant::Visitor { email: email.into(), full_name: "Asha Rao".into(), phone: None };
    delivery(Principal::Anonymous, SubmitRegistration { batch_id, registrant, answers: None })
}

fn cancel(principal: Principal, registration_id: Uuid) -> Delivery<CancelRegistration> {
    delivery(principal, CancelRegistration { registration_id, reason: None })
}

/// Counters, then the ids that hold seats and those that wait, each in the order of the waitlist's numbers.
async fn ledger(db: &PgPool, batch_id: Uuid) -> ((i32, i32), Vec<Uuid>, Vec<(Uuid, i64)>) {
    let counters = sqlx::query!("SELECT seats_taken, waitlist_taken FROM batches WHERE id = $1", batch_id);
    let counters = counters.fetch_one(db).await.unwrap();
    let rows = sqlx::query!(
        "SELECT id, status, waitlist_seq FROM student_registrations WHERE batch_id = $1 ORDER BY waitlist_seq, id",
        batch_id,
    );
    let rows = rows.fetch_all(db).await.unwrap();
    let seated = rows.iter().filter(|r| ["seat_held", "payment_submitted", "confirmed"].contains(&r.status.as_str()));
    let waiting = rows.iter().filter(|r| r.status == "waitlisted");
    (
        (counters.seats_taken, counters.waitlist_taken),
        seated.map(|r| r.id).collect(),
        waiting.map(|r| (r.id, r.waitlist_seq.unwrap())).collect(),
    )
}

#[tokio::test]
async fn two_hundred_for_five_seats_and_three_places_are_seated_in_order() {
    let sandbox = Sandbox::new("two_hundred_for_five_seats").await;
    let batch = NewCourseBatch::of(5).waitlist(3).insert(&sandbox.db).await;
    let mut outcomes = Vec::new();
    for part in 0..3 {
        let asked: Vec<_> = (part * 67..((part + 1) * 67).min(200))
            .map(|n| by_visitor(batch.id, &format!("visitor{n}@example.org")))
            .collect();
        outcomes.extend(settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await);
    }
    assert_eq!(outcomes.len(), 200);
    assert!(outcomes[..5].iter().all(|o| done(o).status == RegistrationStatus::SeatHeld));
    let positions: Vec<_> = outcomes[5..8].iter().map(|o| done(o).waitlist_position).collect();
    assert_eq!(positions, [Some(1), Some(2), Some(3)]);
    assert!(outcomes[8..].iter().all(|o| refused(o, ProblemType::BatchFull)));
    let (counters, seated, waiting) = ledger(&sandbox.db, batch.id).await;
    assert_eq!((counters, seated.len()), ((5, 3), 5));
    assert_eq!(waiting.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(done(&outcomes[0]).amount_due, batch.amount_due);
    let accounts = sqlx::query_scalar!(r#"SELECT count(*) AS "n!" FROM users WHERE role = 'student'"#);
    assert_eq!(accounts.fetch_one(&sandbox.db).await.unwrap(), 8, "nobody who was refused leaves an account");
    sandbox.close().await;
}

/// A seat can be free while people wait: an admin has raised the capacity. It is theirs, not the newcomer's.
#[tokio::test]
async fn nobody_overtakes_those_who_wait() {
    let sandbox = Sandbox::new("overtaking").await;
    let batch = NewCourseBatch::of(1).waitlist(3).insert(&sandbox.db).await;
    let asked = [by_visitor(batch.id, "seated@example.org"), by_visitor(batch.id, "waits@example.org")];
    let first = settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await;
    sqlx::query("UPDATE batches SET capacity = 2 WHERE id = $1").bind(batch.id).execute(&sandbox.db).await.unwrap();
    let late = [by_visitor(batch.id, "late@example.org")];
    let late = settle(&sandbox.db, &SubmitRegistrationHandler, &late).await;
    let (_, seated, waiting) = ledger(&sandbox.db, batch.id).await;
    let late = done(&late[0]).registration_id;
    assert!(!seated.contains(&late), "whoever came last has a seat while somebody waits");
    assert_eq!(seated[..1], [done(&first[0]).registration_id]);
    assert_eq!(waiting.last().map(|(id, _)| *id), Some(late));
    sandbox.close().await;
}

#[tokio::test]
async fn a_visitor_who_registers_twice_gets_the_same_answer_as_a_new_one_and_holds_one_seat() {
    let sandbox = Sandbox::new("visitor_twice").await;
    let batch = NewCourseBatch::of(5).insert(&sandbox.db).await;
    let asked = [by_visitor(batch.id, "twice@example.org"), by_visitor(batch.id, "Twice@Example.org")];
    let mut outcomes = settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await;
    let again = [by_visitor(batch.id, "twice@example.org")];
    outcomes.extend(settle(&sandbox.db, &SubmitRegistrationHandler, &again).await);
    let told: BTreeSet<_> = outcomes.iter().map(|o| (done(o).status.name(), done(o).amount_due)).collect();
    assert_eq!(told.len(), 1);
    let numbers: BTreeSet<_> = outcomes.iter().map(|o| done(o).request_no.clone()).collect();
    assert!(numbers.len() == 3 && numbers.iter().all(|number| number.len() == 12), "{numbers:?}");
    let (counters, seated, _) = ledger(&sandbox.db, batch.id).await;
    assert_eq!((counters, seated.clone()), ((1, 0), vec![done(&outcomes[0]).registration_id]));
    for outcome in &outcomes {
        let notice = outcome.memo.notice.as_ref().unwrap();
        assert_eq!(notice.registration_id, seated[0], "the mailbox is told the truth");
        assert!(notice.token_id.is_some() && !notice.request_no.is_empty());
    }
    let stored = serde_json::to_value(&outcomes[2]).unwrap();
    assert_eq!(serde_json::from_value::<Outcome<_, _>>(stored).unwrap(), outcomes[2]);
    sandbox.close().await;
}

#[tokio::test]
async fn a_visitor_of_two_batches_at_once_gets_one_account() {
    let sandbox = Sandbox::new("visitor_meanwhile").await;
    let (batch, another) =
        (NewCourseBatch::of(5).insert(&sandbox.db).await, NewCourseBatch::of(5).insert(&sandbox.db).await);
    let (here, there) = ([by_visitor(batch.id, "Here@example.org")], [by_visitor(another.id, "here@Example.org")]);
    let (mut first, mut second) = (sandbox.db.begin().await.unwrap(), sandbox.db.begin().await.unwrap());
    SubmitRegistrationHandler.apply(&mut first, &here).await.unwrap();
    let (asked, ()) = tokio::join!(SubmitRegistrationHandler.apply(&mut second, &there), async {
        somebody_waits(&sandbox.db).await;
        first.commit().await.unwrap();
    });
    assert!(matches!(asked, Err(Failure::Race)), "{asked:?}");
    second.rollback().await.unwrap();
    let outcomes = settle(&sandbox.db, &SubmitRegistrationHandler, &there).await;
    assert_eq!(done(&outcomes[0]).status, RegistrationStatus::SeatHeld);
    let accounts: Vec<String> = sqlx::query_scalar("SELECT email::text FROM users WHERE role = 'student'")
        .fetch_all(&sandbox.db)
        .await
        .unwrap();
    assert_eq!(accounts, ["here@example.org"]);

    for (address, constraint) in
        [("Here@example.org", "users_email_lower_check"), ("here@example.org", "users_email_key")]
    {
        let by_hand = "INSERT INTO users (id, email, role, status) VALUES (gen_random_uuid(), $1::text::citext, 'student', 'invited')";
        let error = sqlx::query(by_hand).bind(address).execute(&sandbox.db).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().constraint(), Some(constraint));
    }
    sandbox.close().await;
}

#[tokio::test]
async fn a_student_who_asks_twice_is_registered_once() {
    let sandbox = Sandbox::new("student_twice").await;
    let batch = NewCourseBatch::of(5).insert(&sandbox.db).await;
    let closed = NewCourseBatch { status: "closed", ..NewCourseBatch::of(5) }.insert(&sandbox.db).await;
    let someone = fixtures::user(&sandbox.db, "student@example.org", Role::Student).await;
    let asked = [
        by_student(batch.id, someone.id),
        by_student(batch.id, someone.id),
        by_visitor(batch.id, "student@example.org"),
        by_student(closed.id, someone.id),
        by_student(ids::new_id(), someone.id),
    ];
    let outcomes = settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await;
    assert_eq!(done(&outcomes[0]).status, RegistrationStatus::SeatHeld);
    assert!(refused(&outcomes[1], ProblemType::AlreadyRegistered));
    assert_eq!(done(&outcomes[2]).status, RegistrationStatus::SeatHeld);
    assert!(refused(&outcomes[3], ProblemType::BatchClosed));
    assert!(refused(&outcomes[4], ProblemType::UnknownBatch));
    assert_eq!(ledger(&sandbox.db, batch.id).await.0, (1, 0));
    sandbox.close().await;
}

#[tokio::test]
async fn seats_that_are_given_up_go_to_the_waitlist_in_its_order() {
    let sandbox = Sandbox::new("promotion_in_order").await;
    let batch = NewCourseBatch::of(3).waitlist(5).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "s", 8).await;
    let asked: Vec<_> = students.iter().map(|s| by_student(batch.id, s.id)).collect();
    let outcomes = settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await;
    let ids: Vec<Uuid> = outcomes.iter().map(|o| done(o).registration_id).collect();
    let given_up = [
        cancel(student(students[0].id), ids[0]),
        cancel(student(students[0].id), ids[0]),
        cancel(student(students[3].id), ids[3]),
        cancel(student(students[7].id), ids[1]),
        cancel(Principal::User { id: ids::new_id(), role: Role::Admin }, ids[1]),
    ];
    let outcomes = settle(&sandbox.db, &CancelRegistrationHandler, &given_up).await;
    assert_eq!(done(&outcomes[0]).status, RegistrationStatus::Cancelled);
    assert!(refused(&outcomes[1], ProblemType::AlreadyDecided));
    assert!(refused(&outcomes[3], ProblemType::RegistrationNotFound));
    let promoted: Vec<Uuid> = outcomes[0].memo.promoted.iter().map(|notice| notice.registration_id).collect();
    assert_eq!(promoted, ids[4..6], "the first who wait, and not the one who left");
    assert_eq!(CancelRegistrationHandler.follow_ups(&given_up[0], &outcomes[0]).len(), 6);
    let (counters, seated, waiting) = ledger(&sandbox.db, batch.id).await;
    assert_eq!((counters, seated.len()), ((3, 2), 3));
    assert_eq!(waiting.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[6..]);
    let audited =
        sqlx::query_scalar!(r#"SELECT count(*) AS "n!" FROM audit_logs WHERE action = 'registration.cancel'"#);
    assert_eq!(audited.fetch_one(&sandbox.db).await.unwrap(), 3);
    sandbox.close().await;
}

#[tokio::test]
async fn a_mailed_link_makes_the_hold_a_real_one_once_and_not_after_its_end() {
    let sandbox = Sandbox::new("confirm_by_mail").await;
    let batch = NewCourseBatch::of(5).insert(&sandbox.db).await;
    let asked = [by_visitor(batch.id, "a@example.org"), by_visitor(batch.id, "b@example.org")];
    let outcomes = settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await;
    let link = |n: usize| {
        let notice = outcomes[n].memo.notice.as_ref().unwrap();
        let (registration_id, student_id) = (notice.registration_id, notice.user_id);
        delivery(student(student_id), ConfirmRegistration { registration_id, student_id })
    };
    let late = Delivery { accepted_at: Utc::now() + TimeDelta::minutes(31), ..link(1) };
    let stranger =
        Delivery { command: ConfirmRegistration { student_id: ids::new_id(), ..link(0).command }, ..link(0) };
    let opened = [link(0), link(0), late, stranger];
    let confirmed = settle(&sandbox.db, &ConfirmRegistrationHandler, &opened).await;
    assert_eq!(done(&confirmed[0]), done(&confirmed[1]));
    assert!(refused(&confirmed[2], ProblemType::HoldExpired));
    assert!(refused(&confirmed[3], ProblemType::RegistrationNotFound));
    let provisional_end: DateTime<Utc> = done(&outcomes[0]).hold_expires_at.unwrap();
    assert!(done(&confirmed[0]).hold_expires_at.unwrap() > provisional_end);
    let statuses = sqlx::query_scalar!("SELECT status FROM users WHERE role = 'student' ORDER BY email");
    assert_eq!(statuses.fetch_all(&sandbox.db).await.unwrap(), ["active", "invited"]);
    sandbox.close().await;
}

#[tokio::test]
async fn an_applicant_is_reviewed_once_and_takes_a_seat_only_then() {
    let sandbox = Sandbox::new("review").await;
    let batch = NewCourseBatch { requires_review: true, ..NewCourseBatch::of(1) }.insert(&sandbox.db).await;
    let admin = fixtures::user(&sandbox.db, "admin@example.org", Role::Admin).await;
    let admin = Principal::User { id: admin.id, role: Role::Admin };
    let asked: Vec<_> = ["a@example.org", "b@example.org", "c@example.org"].map(|e| by_visitor(batch.id, e)).into();
    let outcomes = settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await;
    assert!(outcomes.iter().all(|o| done(o).status == RegistrationStatus::UnderReview));
    let review = |n: usize, decision| {
        let registration_id = done(&outcomes[n]).registration_id;
        delivery(admin, ReviewRegistration { registration_id, decision })
    };
    let reviews = [
        review(0, RegistrationDecision::Approve),
        review(0, RegistrationDecision::Reject { reason: "No.".into() }),
        review(1, RegistrationDecision::Approve),
        review(2, RegistrationDecision::Reject { reason: "No degree.".into() }),
    ];
    let reviewed = settle(&sandbox.db, &ReviewRegistrationHandler, &reviews).await;
    assert_eq!(done(&reviewed[0]).status, RegistrationStatus::SeatHeld);
    assert!(reviewed[0].memo.as_ref().unwrap().token_id.is_some());
    assert!(refused(&reviewed[1], ProblemType::AlreadyDecided));
    assert!(refused(&reviewed[2], ProblemType::BatchFull));
    assert_eq!(done(&reviewed[3]).status, RegistrationStatus::Rejected);
    assert_eq!(ledger(&sandbox.db, batch.id).await.0, (1, 0));
    sandbox.close().await;
}

#[tokio::test]
async fn the_number_of_statements_does_not_depend_on_the_number_of_deliveries() {
    let sandbox = Sandbox::new("statements_of_registrations").await;
    let batch = NewCourseBatch::of(400).waitlist(200).insert(&sandbox.db).await;
    let statements = Statements::record();
    let mut counts = Vec::new();
    for size in [2, 256] {
        let asked: Vec<_> = (0..size).map(|n| by_visitor(batch.id, &format!("v{size}.{n}@example.org"))).collect();
        settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await;
        counts.push(statements.take().len());
    }
    assert_eq!(counts[0], counts[1]);
    assert!(counts[0] <= 9, "{counts:?}");
    sandbox.close().await;
}
