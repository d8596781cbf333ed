//! `registration.expire_hold.v1`: the clock's word that a hold has ended. The database's own time decides, and only the
//! very hold that is meant: one that was renewed, paid or given up since stays as it is. The seat goes to whoever waits.

use contracts::{
    Outcome, Principal,
    messages::{EmailTemplate, ExpireHold},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    registrations::{
        Notice, RegistrationStatus, Registrations, Seats,
        audit::{self, AuditEntry},
        notice::Nothing,
    },
    runtime::{Delivery, Failure, FollowUp, Handler},
};

/// Settles `registration.expire_hold.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpireHoldHandler;

/// What became of the hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpiredHold {
    /// The registration.
    pub registration_id: Uuid,
    /// Whether it was this that ended it.
    pub expired: bool,
}

/// Whom to tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExpireMemo {
    /// The student whose hold it was.
    pub notice: Option<Notice>,
    /// Who came off the waitlist.
    pub promoted: Vec<Notice>,
}

impl Handler for ExpireHoldHandler {
    type Command = ExpireHold;
    type Result = ExpiredHold;
    type Memo = ExpireMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        batch: &[Delivery<ExpireHold>],
    ) -> Result<Vec<Outcome<ExpiredHold, ExpireMemo>>, Failure> {
        let ids: Vec<Uuid> = batch.iter().map(|d| d.command.registration_id).collect();
        let mut seats = Seats::lock_of_registrations(tx, &ids).await?;
        let mut registrations = Registrations::lock(tx, ids).await?;
        let mut entries = Vec::new();
        let mut outcomes: Vec<_> =
            batch.iter().map(|delivery| expire(&mut seats, &mut registrations, &mut entries, delivery)).collect();
        registrations.save(tx).await?;
        let mut promoted = seats.promote(tx).await?;
        seats.save(tx).await?;
        audit::record(tx, &entries).await?;
        for (delivery, outcome) in batch.iter().zip(&mut outcomes) {
            outcome.memo.promoted = promoted.remove(&delivery.id).unwrap_or_default();
        }
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<ExpireHold>, outcome: &Outcome<ExpiredHold, ExpireMemo>) -> Vec<FollowUp> {
        let mut follow_ups: Vec<FollowUp> = outcome.memo.promoted.iter().flat_map(Notice::promoted).collect();
        if let Some(notice) = &outcome.memo.notice {
            let end = delivery.command.hold_expires_at.timestamp_micros();
            let subject = format!("{}:{end}", notice.registration_id);
            let body = format!("Your seat in {}, {} has been given up.", notice.course, notice.batch);
            follow_ups.push(notice.mail(EmailTemplate::HoldExpired, format!("hold_expired:{subject}"), &Nothing {}));
            follow_ups.push(notice.notification("hold_expired", "Your hold has ended", body, &subject));
        }
        follow_ups
    }
}

fn expire(
    seats: &mut Seats,
    registrations: &mut Registrations,
    entries: &mut Vec<AuditEntry>,
    delivery: &Delivery<ExpireHold>,
) -> Outcome<ExpiredHold, ExpireMemo> {
    let registration_id = delivery.command.registration_id;
    // The wire and the clock's query may differ below the microsecond, which is all that Postgres keeps.
    let meant = delivery.command.hold_expires_at.timestamp_micros();
    let due = registrations.get(registration_id).filter(|r| {
        r.status == RegistrationStatus::SeatHeld
            && r.hold_expires_at.is_some_and(|end| end.timestamp_micros() == meant && r.now > end)
    });
    let Some(before) = due.cloned() else {
        return Outcome::succeeded(ExpiredHold { registration_id, expired: false });
    };
    seats.give_back(before.batch_id, before.status, delivery.id);
    let registration = registrations.change(registration_id).expect("it was found above");
    registration.status = RegistrationStatus::Expired;
    entries.push(AuditEntry {
        principal: Principal::System,
        action: "registration.expire",
        entity_type: "registration",
        entity_id: registration_id,
        before: before.snapshot(),
        after: registration.snapshot(),
        operation_id: delivery.id,
    });
    let memo = ExpireMemo { notice: Some(registration.notice()), promoted: Vec::new() };
    Outcome::succeeded(ExpiredHold { registration_id, expired: true }).memo(memo)
}
