//! `registration.review.v1`: an admin admits or rejects an applicant, where the course batch requires a review. An
//! admitted applicant gets a seat as of now, or a place on the waitlist; where both are full, the applicant stays under
//! review.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::{
    Outcome, Principal, Problem, ProblemType, Role,
    messages::{EmailTemplate, RegistrationDecision, ReviewRegistration},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Notice, Place, Registration, RegistrationStatus, Registrations, Seats, magic_links};
use crate::{
    audit::{self, Actor, AuditEntry},
    runtime::{Delivery, Failure, FollowUp, Handler},
};

/// Settles `registration.review.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReviewRegistrationHandler;

/// The result that the client gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReviewedRegistration {
    /// `student_registrations.id`.
    pub registration_id: Uuid,
    /// `seat_held`, `waitlisted` or `rejected`.
    pub status: RegistrationStatus,
    /// The end of the hold, while a seat is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// Registrations that wait, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waitlist_position: Option<i32>,
}

/// The part of the outcome that only the follow-ups need: the applicant's notice, where there was a decision.
pub type ReviewMemo = Option<Notice>;

type ReviewOutcome = Outcome<ReviewedRegistration, ReviewMemo>;

impl Handler for ReviewRegistrationHandler {
    type Command = ReviewRegistration;
    type Result = ReviewedRegistration;
    type Memo = ReviewMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<ReviewRegistration>],
    ) -> Result<Vec<ReviewOutcome>, Failure> {
        let mut state = ReviewState::load(tx, deliveries).await?;
        let mut outcomes: Vec<ReviewOutcome> = deliveries.iter().map(|delivery| state.decide(delivery)).collect();
        let token_ids = state.save(tx).await?;
        for notice in outcomes.iter_mut().filter_map(|outcome| outcome.memo.as_mut()) {
            notice.token_id = token_ids.get(&notice.registration_id).copied();
        }
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<ReviewRegistration>, outcome: &ReviewOutcome) -> Vec<FollowUp> {
        let Some(notice) = &outcome.memo else { return Vec::new() };
        let subject = format!("{}:{}", notice.registration_id, delivery.id);
        let place = format!("{}, {}", notice.course, notice.course_batch);
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

/// All that is known while deliveries are decided in order.
struct ReviewState {
    seats: Seats,
    registrations: Registrations,
    audit_entries: Vec<AuditEntry>,
}

impl ReviewState {
    async fn load(tx: &mut PgConnection, deliveries: &[Delivery<ReviewRegistration>]) -> Result<Self, Failure> {
        let ids: Vec<Uuid> = deliveries.iter().map(|d| d.command.registration_id).collect();
        let seats = Seats::lock_of_registrations(tx, &ids).await?;
        let registrations = Registrations::lock(tx, ids).await?;
        Ok(Self { seats, registrations, audit_entries: Vec::new() })
    }

    fn decide(&mut self, delivery: &Delivery<ReviewRegistration>) -> ReviewOutcome {
        let Principal::User { id: admin_id, role: Role::Admin } = delivery.principal else {
            return Outcome::rejected(ProblemType::Forbidden);
        };
        let id = delivery.command.registration_id;
        let Some(before) = self.registrations.get(id).cloned() else {
            return Outcome::rejected(ProblemType::RegistrationNotFound);
        };
        if before.status != RegistrationStatus::UnderReview {
            return Outcome::rejected(
                Problem::new(ProblemType::AlreadyDecided).member("registration_status", before.status.name()),
            );
        }
        let place = match &delivery.command.decision {
            RegistrationDecision::Approve => Some(self.seats.take(before.batch_id)),
            RegistrationDecision::Reject { .. } => None,
        };
        if place == Some(Place::Full) {
            return Outcome::rejected(ProblemType::BatchFull);
        }
        let registration = self.registrations.change(id).expect("it was found above");
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
        self.audit_entries.push(AuditEntry {
            actor: Actor::Principal(delivery.principal),
            action,
            entity_type: "registration",
            entity_id: id,
            before: Some(before.snapshot()),
            after: Some(registration.snapshot()),
            operation_id: Some(delivery.id),
        });
        outcome(registration, position)
    }

    /// Writes what changed; returns the token ids of the admitted students' magic links, by registration.
    async fn save(&self, tx: &mut PgConnection) -> Result<HashMap<Uuid, Uuid>, Failure> {
        self.registrations.save(tx).await?;
        self.seats.save(tx).await?;
        audit::record(tx, &self.audit_entries).await?;
        let admitted: Vec<_> = self
            .audit_entries
            .iter()
            .filter_map(|entry| self.registrations.get(entry.entity_id))
            .filter(|r| r.needs_link && r.status != RegistrationStatus::Rejected)
            .map(|r| (r.student_id, r.id, r.hold_expires_at))
            .collect();
        magic_links::create(tx, admitted).await
    }
}

fn outcome(registration: &Registration, position: Option<i32>) -> ReviewOutcome {
    let notice = Notice { position, ..registration.notice() };
    Outcome::succeeded(ReviewedRegistration {
        registration_id: registration.id,
        status: registration.status,
        hold_expires_at: notice.deadline,
        waitlist_position: position,
    })
    .memo(Some(notice))
}
