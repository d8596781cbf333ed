//! `registration.cancel.v1`: a registration is cancelled before its confirmation, and its seat goes to the waitlist's head
//! in the same transaction. To a student, another student's registration does not exist.

use std::collections::HashMap;

use contracts::{
    Outcome, Principal, Problem, ProblemType, Role,
    messages::{CancelRegistration, EmailTemplate},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Notice, Registration, RegistrationStatus, Registrations, Seats};
use crate::{
    audit::{self, Actor, AuditEntry},
    runtime::{Delivery, Failure, FollowUp, Handler},
};

/// Settles `registration.cancel.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CancelRegistrationHandler;

/// The result that the client gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelledRegistration {
    /// `student_registrations.id`.
    pub registration_id: Uuid,
    /// Its status: `cancelled`.
    pub status: RegistrationStatus,
}

/// The part of the outcome that only the follow-ups need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CancelMemo {
    /// The notice of the student who cancelled.
    pub notice: Option<Notice>,
    /// The notices of those promoted from the waitlist.
    pub promoted: Vec<Notice>,
}

type CancelOutcome = Outcome<CancelledRegistration, CancelMemo>;

impl Handler for CancelRegistrationHandler {
    type Command = CancelRegistration;
    type Result = CancelledRegistration;
    type Memo = CancelMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<CancelRegistration>],
    ) -> Result<Vec<CancelOutcome>, Failure> {
        let mut state = CancellationState::load(tx, deliveries).await?;
        let mut outcomes: Vec<CancelOutcome> = deliveries.iter().map(|delivery| state.decide(delivery)).collect();
        let mut promoted = state.save(tx).await?;
        for (delivery, outcome) in deliveries.iter().zip(&mut outcomes) {
            outcome.memo.promoted = promoted.remove(&delivery.id).unwrap_or_default();
        }
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<CancelRegistration>, outcome: &CancelOutcome) -> Vec<FollowUp> {
        let mut follow_ups: Vec<FollowUp> = outcome.memo.promoted.iter().flat_map(Notice::promoted).collect();
        if let Some(notice) = &outcome.memo.notice {
            let id = notice.registration_id;
            let extra = json!({ "reason": delivery.command.reason });
            let body = format!("Your registration for {}, {} is cancelled.", notice.course, notice.course_batch);
            follow_ups.push(notice.mail(
                EmailTemplate::RegistrationCancelled,
                format!("registration_cancelled:{id}"),
                &extra,
            ));
            follow_ups.push(notice.notification(
                "registration_cancelled",
                "Registration cancelled",
                body,
                &id.to_string(),
            ));
        }
        follow_ups
    }
}

/// All that is known while deliveries are decided in order.
struct CancellationState {
    seats: Seats,
    registrations: Registrations,
    audit_entries: Vec<AuditEntry>,
}

impl CancellationState {
    async fn load(tx: &mut PgConnection, deliveries: &[Delivery<CancelRegistration>]) -> Result<Self, Failure> {
        let ids: Vec<Uuid> = deliveries.iter().map(|d| d.command.registration_id).collect();
        let seats = Seats::lock_of_registrations(tx, &ids).await?;
        let registrations = Registrations::lock(tx, ids).await?;
        Ok(Self { seats, registrations, audit_entries: Vec::new() })
    }

    fn decide(&mut self, delivery: &Delivery<CancelRegistration>) -> CancelOutcome {
        let id = delivery.command.registration_id;
        let Some(before) = self.registrations.get(id).filter(|r| may_cancel(delivery.principal, r)).cloned() else {
            return Outcome::rejected(ProblemType::RegistrationNotFound);
        };
        if let Some(reason) = rejection_reason(before.status) {
            let problem = Problem::new(ProblemType::AlreadyDecided)
                .detail(reason)
                .member("registration_status", before.status.name());
            return Outcome::rejected(problem);
        }
        self.seats.give_back(before.batch_id, before.status, delivery.id);
        let registration = self.registrations.change(id).expect("it was found above");
        registration.status = RegistrationStatus::Cancelled;
        registration.reason.clone_from(&delivery.command.reason);
        self.audit_entries.push(AuditEntry {
            actor: Actor::Principal(delivery.principal),
            action: "registration.cancel",
            entity_type: "registration",
            entity_id: id,
            before: Some(before.snapshot()),
            after: Some(registration.snapshot()),
            operation_id: Some(delivery.id),
        });
        let memo = CancelMemo { notice: Some(registration.notice()), promoted: Vec::new() };
        Outcome::succeeded(CancelledRegistration { registration_id: id, status: registration.status }).memo(memo)
    }

    /// Writes what changed; returns the notices of the promoted, by the operation that freed their course batch's first
    /// place.
    async fn save(&mut self, tx: &mut PgConnection) -> Result<HashMap<Uuid, Vec<Notice>>, Failure> {
        self.registrations.save(tx).await?;
        let promoted = self.seats.promote(tx).await?;
        self.seats.save(tx).await?;
        audit::record(tx, &self.audit_entries).await?;
        Ok(promoted)
    }
}

fn may_cancel(principal: Principal, registration: &Registration) -> bool {
    match principal {
        Principal::User { role: Role::Admin, .. } => true,
        Principal::User { id, role: Role::Student } => id == registration.student_id,
        _ => false,
    }
}

const fn rejection_reason(status: RegistrationStatus) -> Option<&'static str> {
    match status {
        RegistrationStatus::Confirmed => Some("The seat is confirmed; ask the institute to withdraw you."),
        RegistrationStatus::Expired => Some("The hold has ended; there is nothing left to cancel."),
        RegistrationStatus::Cancelled => Some("It is cancelled already."),
        RegistrationStatus::Rejected => Some("The registration was not admitted."),
        _ => None,
    }
}
