//! `registration.cancel.v1`: a registration is given up before its confirmation, and what it held goes to the waitlist's
//! head in the same transaction. Somebody else's registration is one that does not exist.

use contracts::{
    Outcome, Principal, Problem, ProblemType, Role,
    messages::{CancelRegistration, EmailTemplate},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Notice, Registration, RegistrationStatus, Registrations, Seats,
    audit::{self, AuditEntry},
};
use crate::runtime::{Delivery, Failure, FollowUp, Handler};

/// Settles `registration.cancel.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CancelRegistrationHandler;

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelledRegistration {
    /// The registration.
    pub registration_id: Uuid,
    /// Where it stands: `cancelled`.
    pub status: RegistrationStatus,
}

/// Whom to tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CancelMemo {
    /// The student whose registration it was.
    pub notice: Option<Notice>,
    /// Who came off the waitlist.
    pub promoted: Vec<Notice>,
}

impl Handler for CancelRegistrationHandler {
    type Command = CancelRegistration;
    type Result = CancelledRegistration;
    type Memo = CancelMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        batch: &[Delivery<CancelRegistration>],
    ) -> Result<Vec<Outcome<CancelledRegistration, CancelMemo>>, Failure> {
        let ids: Vec<Uuid> = batch.iter().map(|d| d.command.registration_id).collect();
        let mut seats = Seats::lock_of_registrations(tx, &ids).await?;
        let mut registrations = Registrations::lock(tx, ids).await?;
        let mut entries = Vec::new();
        let mut outcomes: Vec<_> =
            batch.iter().map(|delivery| cancel(&mut seats, &mut registrations, &mut entries, delivery)).collect();
        registrations.save(tx).await?;
        let mut promoted = seats.promote(tx).await?;
        seats.save(tx).await?;
        audit::record(tx, &entries).await?;
        for (delivery, outcome) in batch.iter().zip(&mut outcomes) {
            outcome.memo.promoted = promoted.remove(&delivery.id).unwrap_or_default();
        }
        Ok(outcomes)
    }

    fn follow_ups(
        &self,
        delivery: &Delivery<CancelRegistration>,
        outcome: &Outcome<CancelledRegistration, CancelMemo>,
    ) -> Vec<FollowUp> {
        let mut follow_ups: Vec<FollowUp> = outcome.memo.promoted.iter().flat_map(Notice::promoted).collect();
        if let Some(notice) = &outcome.memo.notice {
            let id = notice.registration_id;
            let extra = json!({ "reason": delivery.command.reason });
            let body = format!("Your registration for {}, {} is cancelled.", notice.course, notice.batch);
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

fn cancel(
    seats: &mut Seats,
    registrations: &mut Registrations,
    entries: &mut Vec<AuditEntry>,
    delivery: &Delivery<CancelRegistration>,
) -> Outcome<CancelledRegistration, CancelMemo> {
    let id = delivery.command.registration_id;
    let Some(before) = registrations.get(id).filter(|r| may_cancel(delivery.principal, r)).cloned() else {
        return Outcome::rejected(ProblemType::RegistrationNotFound);
    };
    if let Some(why) = refusal(before.status) {
        let problem =
            Problem::new(ProblemType::AlreadyDecided).detail(why).member("registration_status", before.status.name());
        return Outcome::rejected(problem);
    }
    seats.give_back(before.batch_id, before.status, delivery.id);
    let registration = registrations.change(id).expect("it was found above");
    registration.status = RegistrationStatus::Cancelled;
    registration.reason.clone_from(&delivery.command.reason);
    entries.push(AuditEntry {
        principal: delivery.principal,
        action: "registration.cancel",
        entity_type: "registration",
        entity_id: id,
        before: before.snapshot(),
        after: registration.snapshot(),
        operation_id: delivery.id,
    });
    let memo = CancelMemo { notice: Some(registration.notice()), promoted: Vec::new() };
    Outcome::succeeded(CancelledRegistration { registration_id: id, status: registration.status }).memo(memo)
}

fn may_cancel(principal: Principal, registration: &Registration) -> bool {
    match principal {
        Principal::User { role: Role::Admin, .. } => true,
        Principal::User { id, role: Role::Student } => id == registration.student_id,
        _ => false,
    }
}

const fn refusal(status: RegistrationStatus) -> Option<&'static str> {
    match status {
        RegistrationStatus::Confirmed => Some("The seat is confirmed; ask the institute to withdraw you."),
        RegistrationStatus::Expired => Some("The hold has ended; there is nothing left to cancel."),
        RegistrationStatus::Cancelled => Some("It is cancelled already."),
        RegistrationStatus::Rejected => Some("The registration was not admitted."),
        _ => None,
    }
}
