//! Deliveries are settled together by a number of statements that does not depend on how many they are: for the handlers
//! whose own files do not show it.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use chrono::{TimeDelta, Utc};
use contracts::{
    Principal, Role,
    messages::{
        CancelRegistration, ConfirmRegistration, ExpireHold, Registrant, RegistrationDecision, ReviewRegistration,
        SubmitRegistration,
    },
};
use testkit::{
    Sandbox, Statements,
    fixtures::{self, NewCourseBatch},
};
use uuid::Uuid;
use workers::{
    payments::ExpireHoldHandler,
    registrations::{
        CancelRegistrationHandler, ConfirmRegistrationHandler, ReviewRegistrationHandler, SubmitRegistrationHandler,
    },
    runtime::{Delivery, Handler},
};

use crate::{
    registrations::{delivery, done, settle},
    support::student,
};

/// Settles the first two, then the other 256; answers how many statements each took.
async fn statements_of<H: Handler>(
    sandbox: &Sandbox,
    handler: &H,
    deliveries: &[Delivery<H::Command>],
) -> (usize, usize) {
    assert_eq!(deliveries.len(), 258);
    let statements = Statements::record();
    settle(&sandbox.db, handler, &deliveries[..2]).await;
    let few = statements.take().len();
    settle(&sandbox.db, handler, &deliveries[2..]).await;
    (few, statements.take().len())
}

async fn visitors(sandbox: &Sandbox, batch_id: Uuid) -> Vec<(Uuid, Uuid)> {
    let asked = |n: i32| {
        let registrant =
            Registrant::Visitor { email: format!("v{n}@example.org"), full_name: "Asha Rao".into(), phone: None };
        delivery(Principal::Anonymous, SubmitRegistration { batch_id, registrant, answers: None })
    };
    let asked: Vec<_> = (0..258).map(asked).collect();
    let outcomes = settle(&sandbox.db, &SubmitRegistrationHandler, &asked).await;
    for outcome in &outcomes {
        done(outcome);
    }
    let registrations = "SELECT id, student_id FROM student_registrations WHERE batch_id = $1";
    let registrations = sqlx::query_as(registrations).bind(batch_id).fetch_all(&sandbox.db).await.unwrap();
    assert_eq!(registrations.len(), 258);
    registrations
}

#[tokio::test]
async fn confirm_registration() {
    let sandbox = Sandbox::new("statements_of_confirm").await;
    let batch = NewCourseBatch::of(258).insert(&sandbox.db).await;
    let confirm = |(registration_id, student_id): (Uuid, Uuid)| {
        delivery(student(student_id), ConfirmRegistration { registration_id, student_id })
    };
    let links: Vec<_> = visitors(&sandbox, batch.id).await.into_iter().map(confirm).collect();
    let (few, many) = statements_of(&sandbox, &ConfirmRegistrationHandler, &links).await;
    assert_eq!(few, many);
    sandbox.close().await;
}

#[tokio::test]
async fn review_registration() {
    let sandbox = Sandbox::new("statements_of_review").await;
    let batch = NewCourseBatch { requires_review: true, ..NewCourseBatch::of(258) };
    let batch = batch.insert(&sandbox.db).await;
    let admin = fixtures::user(&sandbox.db, "admin@example.org", Role::Admin).await;
    let admin = Principal::User { id: admin.id, role: Role::Admin };
    let review = |(n, (registration_id, _)): (usize, (Uuid, Uuid))| {
        let decision = if n % 2 == 0 {
            RegistrationDecision::Approve
        } else {
            RegistrationDecision::Reject { reason: "No.".into() }
        };
        delivery(admin, ReviewRegistration { registration_id, decision })
    };
    let reviews: Vec<_> = visitors(&sandbox, batch.id).await.into_iter().enumerate().map(review).collect();
    let (few, many) = statements_of(&sandbox, &ReviewRegistrationHandler, &reviews).await;
    assert_eq!(few, many);
    sandbox.close().await;
}

/// Seats of 258 and as many who wait: every one that is given up promotes somebody.
async fn held_with_a_waitlist(sandbox: &Sandbox) -> Vec<(Uuid, Uuid)> {
    let batch = NewCourseBatch::of(258).waitlist(258).insert(&sandbox.db).await;
    let students: Vec<Uuid> = fixtures::students(&sandbox.db, "s", 516).await.iter().map(|s| s.id).collect();
    let held = fixtures::registrations(&sandbox.db, &batch, &students[..258], "seat_held").await;
    fixtures::registrations(&sandbox.db, &batch, &students[258..], "waitlisted").await;
    held.into_iter().zip(students).collect()
}

async fn assert_all_moved_up(sandbox: &Sandbox) {
    let counters = "SELECT seats_taken, waitlist_taken FROM batches";
    let counters: (i32, i32) = sqlx::query_as(counters).fetch_one(&sandbox.db).await.unwrap();
    assert_eq!(counters, (258, 0));
}

#[tokio::test]
async fn cancel_registration() {
    let sandbox = Sandbox::new("statements_of_cancel").await;
    let cancel = |(registration_id, student_id): (Uuid, Uuid)| {
        delivery(student(student_id), CancelRegistration { registration_id, reason: None })
    };
    let given_up: Vec<_> = held_with_a_waitlist(&sandbox).await.into_iter().map(cancel).collect();
    let (few, many) = statements_of(&sandbox, &CancelRegistrationHandler, &given_up).await;
    assert_eq!(few, many);
    assert_all_moved_up(&sandbox).await;
    sandbox.close().await;
}

#[tokio::test]
async fn expire_hold() {
    let sandbox = Sandbox::new("statements_of_expire").await;
    let held = held_with_a_waitlist(&sandbox).await;
    let ids: Vec<Uuid> = held.iter().map(|(id, _)| *id).collect();
    let ended = "UPDATE student_registrations SET hold_expires_at = $2 WHERE id = ANY ($1) RETURNING hold_expires_at";
    let ended = sqlx::query_scalar(ended).bind(&ids).bind(Utc::now() - TimeDelta::hours(1));
    let end = ended.fetch_all(&sandbox.db).await.unwrap()[0];
    let expire = |registration_id: Uuid| {
        delivery(Principal::System, ExpireHold { registration_id, hold_expires_at: end, student_id: None })
    };
    let ends: Vec<_> = ids.into_iter().map(expire).collect();
    let (few, many) = statements_of(&sandbox, &ExpireHoldHandler, &ends).await;
    assert_eq!(few, many);
    assert_all_moved_up(&sandbox).await;
    sandbox.close().await;
}
