//! `registration.review.v1`: an admin lets an applicant in, or not, where the batch asks for a review. Letting in is
//! seating as of now: a seat, a place on the waitlist, or neither, and then the applicant stays under review.

use chrono::{DateTime, Utc};
use contracts::{
    Outcome, Principal, Problem, ProblemType, Role,
    messages::{EmailTemplate, RegistrationDecision, ReviewRegistration},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Notice, Place, Registration, RegistrationStatus, Registrations, Seats,
    audit::{self, AuditEntry},
    magic_links,
};
use crate::runtime::{Delivery, Failure, FollowUp, Handler};

/// Settles `registration.review.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReviewRegistrationHandler;

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReviewedRegistration {
    /// The registration.
    pub registration_id: Uuid,
    /// `seat_held`, `waitlisted` or `rejected`.
    pub status: RegistrationStatus,
    /// Until when a payment has to be submitted, while a seat is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// How many wait, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waitlist_position: Option<i32>,
}

/// Whom to tell.
pub type ReviewMemo = Option<Notice>;

impl Handler for ReviewRegistrationHandler {
    type Command = ReviewRegistration;
    type Result = ReviewedRegistration;
    type Memo = ReviewMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        batch: &[Delivery<ReviewRegistration>],
    ) -> Result<Vec<Outcome<ReviewedRegistration, ReviewMemo>>, Failure> {
        let ids: Vec<Uuid> = batch.iter().map(|d| d.command.registration_id).collect();
        let mut seats = Seats::lock_of_registrations(tx, &ids).await?;
        let mut registrations = Registrations::lock(tx, ids).await?;
        let mut entries = Vec::new();
        let mut outcomes: Vec<_> =
            batch.iter().map(|delivery| review(&mut seats, &mut registrations, &mut entries, delivery)).collect();
        registrations.save(tx).await?;
        seats.save(tx).await?;
        audit::record(tx, &entries).await?;
        let admitted: Vec<_> = entries
            .iter()
            .filter_map(|entry| registrations.get(entry.entity_id))
            .filter(|r| r.needs_link && r.status != RegistrationStatus::Rejected)
            .map(|r| (r.student_id, r.id, r.hold_expires_at))
            .collect();
        let tokens = magic_links::create(tx, admitted).await?;
        for notice in outcomes.iter_mut().filter_map(|outcome| outcome.memo.as_mut()) {
            notice.token_id = tokens.get(&notice.registration_id).copied();
        }
        Ok(outcomes)
    }

    fn follow_ups(
        &self,
        delivery: &Delivery<ReviewRegistration>,
        outcome: &Outcome<ReviewedRegistration, ReviewMemo>,
    ) -> Vec<FollowUp> {
        let Some(notice) = &outcome.memo else { return Vec::new() };
        let subject = format!("{}:{}", notice.registration_id, delivery.id);
        let place = format!("{}, {}", notice.course, notice.batch);
        let (template, title, body, extra) = match &delivery.command.decision {
            RegistrationDecision::Reject { reason } => (
                EmailTemplate::RegistrationRejected,
                "Not admitted",
                format!("Your registration for {place} was not admitted."),
                json!({ "reason": reason }),
            ),
            RegistrationDecision::Approve if notice.status == RegistrationStatus::Waitlisted => {
                (EmailTemplate::Waitlisted, "On the waitlist", format!("You wait for a seat in {place}."), json!({}))
            }
            RegistrationDecision::Approve => {
                (EmailTemplate::SeatHeld, "Admitted", format!("A seat in {place} is held for you."), json!({}))
            }
        };
        vec![
            notice.mail(template, format!("{}:{subject}", template.name()), &extra),
            notice.notification("registration_reviewed", title, body, &subject),
        ]
    }
}

fn review(
    seats: &mut Seats,
    registrations: &mut Registrations,
    entries: &mut Vec<AuditEntry>,
    delivery: &Delivery<ReviewRegistration>,
) -> Outcome<ReviewedRegistration, ReviewMemo> {
    let Principal::User { id: admin_id, role: Role::Admin } = delivery.principal else {
        return Outcome::rejected(ProblemType::Forbidden);
    };
    let id = delivery.command.registration_id;
    let Some(before) = registrations.get(id).cloned() else {
        return Outcome::rejected(ProblemType::RegistrationNotFound);
    };
    if before.status != RegistrationStatus::UnderReview {
        return Outcome::rejected(
            Problem::new(ProblemType::AlreadyDecided).member("registration_status", before.status.name()),
        );
    }
    let place = match &delivery.command.decision {
        RegistrationDecision::Approve => Some(seats.take(before.batch_id)),
        RegistrationDecision::Reject { .. } => None,
    };
    if place == Some(Place::Full) {
        return Outcome::rejected(ProblemType::BatchFull);
    }
    let registration = registrations.change(id).expect("it was found above");
    registration.reviewed_by = Some(admin_id);
    let mut position = None;
    let action = match (&delivery.command.decision, place) {
        (RegistrationDecision::Reject { reason }, _) => {
            registration.status = RegistrationStatus::Rejected;
            registration.reason = Some(reason.clone());
            "registration.reject"
        }
        (_, Some(Place::Waitlist { seq, position: waiting })) => {
            registration.status = RegistrationStatus::Waitlisted;
            registration.waitlist_seq = Some(seq);
            position = Some(waiting);
            "registration.approve"
        }
        _ => {
            registration.status = RegistrationStatus::SeatHeld;
            registration.hold_expires_at = Some(registration.hold_end());
            "registration.approve"
        }
    };
    entries.push(AuditEntry {
        principal: delivery.principal,
        action,
        entity_type: "registration",
        entity_id: id,
        before: before.snapshot(),
        after: registration.snapshot(),
        operation_id: delivery.id,
    });
    outcome(registration, position)
}

fn outcome(registration: &Registration, position: Option<i32>) -> Outcome<ReviewedRegistration, ReviewMemo> {
    let notice = Notice { position, ..registration.notice() };
    Outcome::succeeded(ReviewedRegistration {
        registration_id: registration.id,
        status: registration.status,
        hold_expires_at: notice.deadline,
        waitlist_position: position,
    })
    .memo(Some(notice))
}
