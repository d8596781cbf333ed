//! `registration.confirm.v1`: whoever opens the mailed link owns the mailbox, so a visitor's provisional hold becomes a
//! real one, once. Only the registration's own student can confirm it.

use chrono::{DateTime, Utc};
use contracts::{Outcome, Problem, ProblemType, messages::ConfirmRegistration};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Notice, Registration, RegistrationStatus, Registrations};
use crate::runtime::{Delivery, Failure, FollowUp, Handler};

/// Settles `registration.confirm.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfirmRegistrationHandler;

/// What the client is told: where the registration stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfirmedRegistration {
    /// The registration.
    pub registration_id: Uuid,
    /// Where it stands.
    pub status: RegistrationStatus,
    /// Until when a payment has to be submitted, while a seat is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_expires_at: Option<DateTime<Utc>>,
}

/// Whom to tell, where it was confirmed just now.
pub type ConfirmMemo = Option<Notice>;

impl Handler for ConfirmRegistrationHandler {
    type Command = ConfirmRegistration;
    type Result = ConfirmedRegistration;
    type Memo = ConfirmMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        batch: &[Delivery<ConfirmRegistration>],
    ) -> Result<Vec<Outcome<ConfirmedRegistration, ConfirmMemo>>, Failure> {
        let mut registrations = Registrations::lock(tx, batch.iter().map(|d| d.command.registration_id)).await?;
        let mut verified = Vec::new();
        let outcomes = batch
            .iter()
            .map(|delivery| {
                let outcome = confirm(&mut registrations, delivery);
                if outcome.memo.is_some() {
                    verified.push(delivery.command.student_id);
                }
                outcome
            })
            .collect();
        registrations.save(tx).await?;
        verify_mailboxes(tx, &verified).await?;
        Ok(outcomes)
    }

    fn follow_ups(
        &self,
        _: &Delivery<ConfirmRegistration>,
        outcome: &Outcome<ConfirmedRegistration, ConfirmMemo>,
    ) -> Vec<FollowUp> {
        let Some(notice) = &outcome.memo else { return Vec::new() };
        let place = format!("{}, {}", notice.course, notice.batch);
        let body = match notice.deadline {
            Some(end) => format!("Your seat in {place} is held until {}.", end.format("%Y-%m-%d %H:%M UTC")),
            None => format!("Your registration for {place} is confirmed by mail."),
        };
        let subject = notice.registration_id.to_string();
        vec![notice.notification("registration_confirmed", "Your address is confirmed", body, &subject)]
    }
}

/// A link that was opened before the hold's end is in time, however late it is settled.
fn confirm(
    registrations: &mut Registrations,
    delivery: &Delivery<ConfirmRegistration>,
) -> Outcome<ConfirmedRegistration, ConfirmMemo> {
    let id = delivery.command.registration_id;
    let Some(registration) = registrations.get(id).filter(|r| r.student_id == delivery.command.student_id) else {
        return Outcome::rejected(ProblemType::RegistrationNotFound);
    };
    match registration.status {
        RegistrationStatus::Expired => return Outcome::rejected(ProblemType::HoldExpired),
        RegistrationStatus::Cancelled | RegistrationStatus::Rejected => {
            let problem =
                Problem::new(ProblemType::AlreadyDecided).member("registration_status", registration.status.name());
            return Outcome::rejected(problem);
        }
        _ if !registration.provisional => return Outcome::succeeded(result(registration)),
        RegistrationStatus::SeatHeld if registration.hold_expires_at.is_some_and(|end| delivery.accepted_at > end) => {
            return Outcome::rejected(ProblemType::HoldExpired);
        }
        _ => {}
    }
    let registration = registrations.change(id).expect("it was found above");
    registration.provisional = false;
    registration.confirmed_by_mail_at = Some(registration.now);
    if registration.status == RegistrationStatus::SeatHeld {
        registration.hold_expires_at = registration.hold_expires_at.max(Some(registration.hold_end()));
    }
    Outcome::succeeded(result(registration)).memo(Some(registration.notice()))
}

fn result(registration: &Registration) -> ConfirmedRegistration {
    ConfirmedRegistration {
        registration_id: registration.id,
        status: registration.status,
        hold_expires_at: registration.notice().deadline,
    }
}

/// An invited student becomes an active one; nobody else's standing changes.
async fn verify_mailboxes(tx: &mut PgConnection, student_ids: &[Uuid]) -> Result<(), Failure> {
    if student_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        UPDATE users u
        SET email_verified_at = COALESCE(u.email_verified_at, now()),
            status            = CASE u.status WHEN 'invited' THEN 'active' ELSE u.status END,
            updated_at        = now()
        WHERE u.id IN (
            SELECT id
            FROM users
            WHERE id = ANY($1) AND deleted_at IS NULL AND (email_verified_at IS NULL OR status = 'invited')
            ORDER BY id
            FOR NO KEY UPDATE
        )
        "#,
        student_ids,
    )
    .execute(tx)
    .await?;
    Ok(())
}
