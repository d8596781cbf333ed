//! Money: one effect a reference, one verdict a payment, one end a hold, whatever is settled together.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use chrono::{TimeDelta, Utc};
use contracts::{
    Principal, ProblemType, Role, ids,
    messages::{CancelRegistration, DecidePayment, ExpireHold, PaymentDecision, PaymentMethod, SubmitPayment},
};
use rust_decimal::Decimal;
use sqlx::PgPool;
use testkit::{
    Sandbox, Statements,
    fixtures::{self, NewCourseBatch},
};
use uuid::Uuid;
use workers::{
    payments::{DecidePaymentHandler, ExpireHoldHandler, PaymentStatus, SubmitPaymentHandler},
    registrations::{CancelRegistrationHandler, RegistrationStatus},
    runtime::{Delivery, Failure, Handler},
};

use crate::{
    registrations::{delivery, done, refused, settle},
    support::SETTLED_LIMIT,
};

fn submit(student_id: Uuid, registration_id: Uuid, reference: &str, amount: Decimal) -> Delivery<SubmitPayment> {
    delivery(
        Principal::User { id: student_id, role: Role::Student },
        SubmitPayment {
            registration_id,
            student_id,
            method: PaymentMethod::Upi,
            transaction_id: reference.into(),
            amount,
            currency: "INR".into(),
            paid_at: None,
            payer_name: None,
            proof_file_id: None,
        },
    )
}

fn decide(reviewer_id: Uuid, payment_id: Uuid, decision: PaymentDecision) -> Delivery<DecidePayment> {
    let principal = Principal::User { id: reviewer_id, role: Role::Accountant };
    delivery(principal, DecidePayment { payment_id, decision, note: None })
}

fn reject() -> PaymentDecision {
    PaymentDecision::Reject { code: "not_received".into() }
}

async fn status(db: &PgPool, registration_id: Uuid) -> String {
    let status = sqlx::query_scalar!("SELECT status FROM student_registrations WHERE id = $1", registration_id);
    status.fetch_one(db).await.unwrap()
}

#[tokio::test]
async fn a_live_reference_belongs_to_whoever_came_first_however_it_is_typed() {
    let sandbox = Sandbox::new("live_reference").await;
    let batch = NewCourseBatch::of(5).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "payer", 2).await;
    let (a, b) = (students[0].id, students[1].id);
    let registrations = fixtures::registrations(&sandbox.db, &batch, &[a, b], "seat_held").await;
    let (of_a, of_b) = (registrations[0], registrations[1]);
    let part = Decimal::new(500_000, 2);
    let payments = [
        submit(a, of_a, "UTR-0001", part),
        submit(a, of_a, "utr 0001", part),
        submit(b, of_b, "UTR.0001", part),
        submit(b, of_a, "UTR-0002", part),
        submit(a, of_a, "UTR-0003", batch.amount_due),
    ];
    let outcomes = settle(&sandbox.db, &SubmitPaymentHandler, &payments).await;
    let first = done(&outcomes[0]);
    assert_eq!((first.status, first.amount_remaining), (PaymentStatus::Submitted, batch.amount_due - part));
    assert!(refused(&outcomes[1], ProblemType::DuplicateReference) && outcomes[1].memo.claimed_from.is_none());
    assert!(refused(&outcomes[2], ProblemType::DuplicateReference));
    assert_eq!(outcomes[2].memo.claimed_from, Some(first.payment_id));
    assert_eq!(SubmitPaymentHandler.follow_ups(&payments[2], &outcomes[2]).len(), 1, "the accountants are told");
    assert!(refused(&outcomes[3], ProblemType::RegistrationNotFound));
    assert!(refused(&outcomes[4], ProblemType::Overpayment));
    let again = [submit(b, of_b, "UTR 0001", part)];
    let outcomes = settle(&sandbox.db, &SubmitPaymentHandler, &again).await;
    assert!(refused(&outcomes[0], ProblemType::DuplicateReference) && outcomes[0].memo.claimed_from.is_some());
    assert_eq!(status(&sandbox.db, of_a).await, "payment_submitted");
    assert_eq!(status(&sandbox.db, of_b).await, "seat_held");
    sandbox.close().await;
}

#[tokio::test]
async fn a_payment_is_decided_once_and_enough_of_it_enrolls() {
    let sandbox = Sandbox::new("decided_once").await;
    let batch =
        NewCourseBatch { deposit: Some(Decimal::new(200_000, 2)), ..NewCourseBatch::of(5) }.insert(&sandbox.db).await;
    let accountant = fixtures::user(&sandbox.db, "accountant@example.org", Role::Accountant).await.id;
    let students = fixtures::students(&sandbox.db, "payer", 2).await;
    let student_ids = [students[0].id, students[1].id];
    let registrations = fixtures::registrations(&sandbox.db, &batch, &student_ids, "seat_held").await;
    let claims = [(registrations[0], "UTR-1".to_owned()), (registrations[1], "UTR-2".to_owned())];
    let payments = fixtures::payments(&sandbox.db, &claims, Decimal::new(500_000, 2)).await;
    let verdicts = [
        decide(accountant, payments[0], PaymentDecision::Approve),
        decide(accountant, payments[0], reject()),
        decide(student_ids[1], payments[1], PaymentDecision::Approve),
        decide(accountant, payments[1], reject()),
        decide(accountant, ids::new_id(), reject()),
    ];
    let outcomes = settle(&sandbox.db, &DecidePaymentHandler, &verdicts).await;
    let approved = done(&outcomes[0]);
    assert_eq!(approved.registration_status, RegistrationStatus::Confirmed);
    assert!(approved.enrollment_id.is_some() && !approved.refund_offered);
    assert_eq!(DecidePaymentHandler.follow_ups(&verdicts[0], &outcomes[0]).len(), 4);
    assert!(refused(&outcomes[1], ProblemType::AlreadyDecided));
    assert!(refused(&outcomes[2], ProblemType::OwnPayment));
    assert_eq!(done(&outcomes[3]).registration_status, RegistrationStatus::SeatHeld);
    assert!(refused(&outcomes[4], ProblemType::PaymentNotFound));
    let stored = serde_json::to_string(&outcomes[1]).unwrap();
    assert_eq!(serde_json::from_str::<contracts::Outcome<_, _>>(&stored).unwrap(), outcomes[1]);
    let audited = sqlx::query_scalar!(r#"SELECT count(*) AS "n!" FROM audit_logs WHERE entity_type = 'payment'"#);
    assert_eq!(audited.fetch_one(&sandbox.db).await.unwrap(), 2);
    sandbox.close().await;
}

#[tokio::test]
async fn a_decision_about_a_held_seat_does_not_wait_for_the_batch() {
    let sandbox = Sandbox::new("decision_beside_batch").await;
    let batch = NewCourseBatch::of(5).insert(&sandbox.db).await;
    let accountant = fixtures::user(&sandbox.db, "accountant@example.org", Role::Accountant).await.id;
    let student = fixtures::students(&sandbox.db, "payer", 1).await[0].id;
    let registration = fixtures::registrations(&sandbox.db, &batch, &[student], "payment_submitted").await[0];
    let claims = [(registration, "UTR-1".to_owned())];
    let payment = fixtures::payments(&sandbox.db, &claims, batch.amount_due).await[0];
    let mut registering = sandbox.db.begin().await.unwrap();
    sqlx::query("SELECT FROM batches FOR NO KEY UPDATE").execute(&mut *registering).await.unwrap();
    let verdict = [decide(accountant, payment, PaymentDecision::Approve)];
    let decided = settle(&sandbox.db, &DecidePaymentHandler, &verdict);
    let outcomes = tokio::time::timeout(SETTLED_LIMIT, decided).await.expect("it waits for the course batch");
    assert_eq!(done(&outcomes[0]).registration_status, RegistrationStatus::Confirmed);
    registering.rollback().await.unwrap();
    sandbox.close().await;
}

/// Until some transaction waits for another's row.
pub async fn somebody_waits(db: &PgPool) {
    testkit::eventually("a transaction waits for a lock", SETTLED_LIMIT, || async {
        let waiting = sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
        );
        waiting.fetch_one(db).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_lost_its_seat_meanwhile_is_decided_anew() {
    let sandbox = Sandbox::new("lost_its_seat").await;
    let batch = NewCourseBatch::of(1).insert(&sandbox.db).await;
    let accountant = fixtures::user(&sandbox.db, "accountant@example.org", Role::Accountant).await.id;
    let student = fixtures::students(&sandbox.db, "payer", 1).await[0].id;
    let registration = fixtures::registrations(&sandbox.db, &batch, &[student], "payment_submitted").await[0];
    let payment = fixtures::payments(&sandbox.db, &[(registration, "UTR-1".to_owned())], batch.amount_due).await[0];
    let verdict = [decide(accountant, payment, PaymentDecision::Approve)];
    let mut expiring = sandbox.db.begin().await.unwrap();
    sqlx::query("UPDATE student_registrations SET status = 'expired'").execute(&mut *expiring).await.unwrap();
    sqlx::query("UPDATE batches SET seats_taken = 0").execute(&mut *expiring).await.unwrap();
    let mut deciding = sandbox.db.begin().await.unwrap();
    let (decided, ()) = tokio::join!(DecidePaymentHandler.apply(&mut deciding, &verdict), async {
        somebody_waits(&sandbox.db).await;
        expiring.commit().await.unwrap();
    });
    assert!(matches!(decided, Err(Failure::Race)), "{decided:?}");
    deciding.rollback().await.unwrap();
    let outcomes = settle(&sandbox.db, &DecidePaymentHandler, &verdict).await;
    assert_eq!(done(&outcomes[0]).registration_status, RegistrationStatus::Confirmed);
    sandbox.close().await;
}

#[tokio::test]
async fn a_reference_that_was_taken_meanwhile_is_decided_anew() {
    let sandbox = Sandbox::new("reference_meanwhile").await;
    let batch = NewCourseBatch::of(2).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "payer", 2).await;
    let (a, b) = (students[0].id, students[1].id);
    let registrations = fixtures::registrations(&sandbox.db, &batch, &[a, b], "seat_held").await;
    let claim = |student, registration| [submit(student, registration, "UTR-1", batch.amount_due)];
    let (of_a, of_b) = (claim(a, registrations[0]), claim(b, registrations[1]));
    let (mut first, mut second) = (sandbox.db.begin().await.unwrap(), sandbox.db.begin().await.unwrap());
    SubmitPaymentHandler.apply(&mut first, &of_a).await.unwrap();
    let (claimed, ()) = tokio::join!(SubmitPaymentHandler.apply(&mut second, &of_b), async {
        somebody_waits(&sandbox.db).await;
        first.commit().await.unwrap();
    });
    assert!(matches!(claimed, Err(Failure::Race)), "{claimed:?}");
    second.rollback().await.unwrap();
    let outcomes = settle(&sandbox.db, &SubmitPaymentHandler, &of_b).await;
    assert!(refused(&outcomes[0], ProblemType::DuplicateReference) && outcomes[0].memo.claimed_from.is_some());
    sandbox.close().await;
}

#[tokio::test]
async fn money_without_a_seat_takes_a_free_one_or_is_offered_back() {
    let sandbox = Sandbox::new("money_without_a_seat").await;
    let batch = NewCourseBatch::of(1).insert(&sandbox.db).await;
    let accountant = fixtures::user(&sandbox.db, "accountant@example.org", Role::Accountant).await.id;
    let students = fixtures::students(&sandbox.db, "late", 2).await;
    let student_ids = [students[0].id, students[1].id];
    let registrations = fixtures::registrations(&sandbox.db, &batch, &student_ids, "expired").await;
    let claims = [(registrations[0], "UTR-1".to_owned()), (registrations[1], "UTR-2".to_owned())];
    let payments = fixtures::payments(&sandbox.db, &claims, batch.amount_due).await;
    let verdicts: Vec<_> = payments.iter().map(|id| decide(accountant, *id, PaymentDecision::Approve)).collect();
    let outcomes = settle(&sandbox.db, &DecidePaymentHandler, &verdicts).await;
    assert_eq!(done(&outcomes[0]).registration_status, RegistrationStatus::Confirmed);
    assert_eq!(done(&outcomes[1]).registration_status, RegistrationStatus::Expired);
    assert!(done(&outcomes[1]).refund_offered);
    sandbox.close().await;
}

#[tokio::test]
async fn a_hold_ends_once_after_its_time_and_a_payment_in_time_beats_it() {
    let sandbox = Sandbox::new("hold_ends_once").await;
    let batch = NewCourseBatch::of(2).waitlist(2).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, "holder", 4).await;
    let student_ids: Vec<Uuid> = students.iter().map(|s| s.id).collect();
    let held = fixtures::registrations(&sandbox.db, &batch, &student_ids[..2], "seat_held").await;
    let waiting = fixtures::registrations(&sandbox.db, &batch, &student_ids[2..], "waitlisted").await;
    let end = Utc::now() - TimeDelta::minutes(5);
    let ended = sqlx::query_scalar!(
        "UPDATE student_registrations SET hold_expires_at = $2 WHERE id = ANY($1) RETURNING hold_expires_at",
        &held,
        end,
    );
    let end = ended.fetch_all(&sandbox.db).await.unwrap()[0].unwrap();
    let in_time = Delivery {
        accepted_at: end - TimeDelta::seconds(1),
        ..submit(student_ids[1], held[1], "UTR-1", batch.amount_due)
    };
    settle(&sandbox.db, &SubmitPaymentHandler, &[in_time]).await;
    let expire = |registration_id, hold_expires_at| {
        delivery(Principal::System, ExpireHold { registration_id, hold_expires_at, student_id: None })
    };
    let another = end + TimeDelta::seconds(1);
    let ends = [expire(held[0], another), expire(held[0], end), expire(held[0], end), expire(held[1], end)];
    let outcomes = settle(&sandbox.db, &ExpireHoldHandler, &ends).await;
    let expired: Vec<bool> = outcomes.iter().map(|o| done(o).expired).collect();
    assert_eq!(expired, [false, true, false, false]);
    assert_eq!(outcomes[1].memo.promoted[0].registration_id, waiting[0]);
    assert_eq!(status(&sandbox.db, waiting[0]).await, "seat_held");
    let gone = delivery(
        Principal::User { id: student_ids[0], role: Role::Student },
        CancelRegistration { registration_id: held[0], reason: None },
    );
    let outcomes = settle(&sandbox.db, &CancelRegistrationHandler, &[gone]).await;
    assert!(refused(&outcomes[0], ProblemType::AlreadyDecided));
    let seats = sqlx::query!("SELECT seats_taken, waitlist_taken FROM batches WHERE id = $1", batch.id);
    let seats = seats.fetch_one(&sandbox.db).await.unwrap();
    assert_eq!((seats.seats_taken, seats.waitlist_taken), (2, 1));
    sandbox.close().await;
}

#[tokio::test]
async fn the_number_of_statements_does_not_depend_on_the_number_of_deliveries() {
    let sandbox = Sandbox::new("statements_of_payments").await;
    let batch = NewCourseBatch::of(300).insert(&sandbox.db).await;
    let accountant = fixtures::user(&sandbox.db, "accountant@example.org", Role::Accountant).await.id;
    let students = fixtures::students(&sandbox.db, "payer", 258).await;
    let student_ids: Vec<Uuid> = students.iter().map(|s| s.id).collect();
    let registrations = fixtures::registrations(&sandbox.db, &batch, &student_ids, "seat_held").await;
    let statements = Statements::record();
    let mut counts = Vec::new();
    for range in [0..2, 2..258] {
        statements.take();
        let payments: Vec<_> =
            range.map(|n| submit(student_ids[n], registrations[n], &format!("UTR-{n:06}"), batch.amount_due)).collect();
        let outcomes = settle(&sandbox.db, &SubmitPaymentHandler, &payments).await;
        let submitted = statements.take().len();
        let verdicts: Vec<_> =
            outcomes.iter().map(|o| decide(accountant, done(o).payment_id, PaymentDecision::Approve)).collect();
        settle(&sandbox.db, &DecidePaymentHandler, &verdicts).await;
        counts.push((submitted, statements.take().len()));
    }
    assert_eq!(counts[0], counts[1]);
    sandbox.close().await;
}
