//! `registration.expire_hold.v1`: the clock reports that a hold has ended. The database's own time decides, and only about
//! the hold with exactly this end: one that was renewed, paid or cancelled since stays as it is. The seat goes to the
//! waitlist's head.

use std::collections::HashMap;

use contracts::{
    Outcome, Principal,
    messages::{EmailTemplate, ExpireHold},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    audit::{self, Actor, AuditEntry},
    registrations::{Notice, RegistrationStatus, Registrations, Seats, notice::NoExtra},
    runtime::{Delivery, Failure, FollowUp, Handler},
};

/// Settles `registration.expire_hold.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpireHoldHandler;

/// The result of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpiredHold {
    /// `student_registrations.id`.
    pub registration_id: Uuid,
    /// True where this command expired the hold.
    pub expired: bool,
}

/// The part of the outcome that only the follow-ups need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExpireMemo {
    /// The notice of the student whose hold expired.
    pub notice: Option<Notice>,
    /// The notices of those promoted from the waitlist.
    pub promoted: Vec<Notice>,
}

type ExpireOutcome = Outcome<ExpiredHold, ExpireMemo>;

impl Handler for ExpireHoldHandler {
    type Command = ExpireHold;
    type Result = ExpiredHold;
    type Memo = ExpireMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<ExpireHold>],
    ) -> Result<Vec<ExpireOutcome>, Failure> {
        let mut state = ExpiryState::load(tx, deliveries).await?;
        let mut outcomes: Vec<ExpireOutcome> = deliveries.iter().map(|delivery| state.decide(delivery)).collect();
        let mut promoted = state.save(tx).await?;
        for (delivery, outcome) in deliveries.iter().zip(&mut outcomes) {
            outcome.memo.promoted = promoted.remove(&delivery.id).unwrap_or_default();
        }
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<ExpireHold>, outcome: &ExpireOutcome) -> Vec<FollowUp> {
        let mut follow_ups: Vec<FollowUp> = outcome.memo.promoted.iter().flat_map(Notice::promoted).collect();
        if let Some(notice) = &outcome.memo.notice {
            let end = delivery.command.hold_expires_at.timestamp_micros();
            let subject = format!("{}:{end}", notice.registration_id);
            let body = format!("Your seat in {}, {} has been given up.", notice.course, notice.course_batch);
            follow_ups.push(notice.mail(EmailTemplate::HoldExpired, format!("hold_expired:{subject}"), &NoExtra {}));
            follow_ups.push(notice.notification("hold_expired", "Your hold has ended", body, &subject));
        }
        follow_ups
    }
}

/// All that is known while deliveries are decided in order.
struct ExpiryState {
    seats: Seats,
    registrations: Registrations,
    audit_entries: Vec<AuditEntry>,
}

impl ExpiryState {
    async fn load(tx: &mut PgConnection, deliveries: &[Delivery<ExpireHold>]) -> Result<Self, Failure> {
        let ids: Vec<Uuid> = deliveries.iter().map(|d| d.command.registration_id).collect();
        let seats = Seats::lock_of_registrations(tx, &ids).await?;
        let registrations = Registrations::lock(tx, ids).await?;
        Ok(Self { seats, registrations, audit_entries: Vec::new() })
    }

    fn decide(&mut self, delivery: &Delivery<ExpireHold>) -> ExpireOutcome {
        let registration_id = delivery.command.registration_id;
        // The wire and the clock's query may differ below the microsecond, which is all that Postgres keeps.
        let meant = delivery.command.hold_expires_at.timestamp_micros();
        let due = self.registrations.get(registration_id).filter(|r| {
            r.status == RegistrationStatus::SeatHeld
                && r.hold_expires_at.is_some_and(|end| end.timestamp_micros() == meant && r.now > end)
        });
        let Some(before) = due.cloned() else {
            return Outcome::succeeded(ExpiredHold { registration_id, expired: false });
        };
        self.seats.give_back(before.batch_id, before.status, delivery.id);
        let registration = self.registrations.change(registration_id).expect("it was found above");
        registration.status = RegistrationStatus::Expired;
        self.audit_entries.push(AuditEntry {
            actor: Actor::Principal(Principal::System),
            action: "registration.expire",
            entity_type: "registration",
            entity_id: registration_id,
            before: Some(before.snapshot()),
            after: Some(registration.snapshot()),
            operation_id: Some(delivery.id),
        });
        let memo = ExpireMemo { notice: Some(registration.notice()), promoted: Vec::new() };
        Outcome::succeeded(ExpiredHold { registration_id, expired: true }).memo(memo)
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
