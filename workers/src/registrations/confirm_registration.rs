//! `registration.confirm.v1`: opening the mailed link proves that the visitor owns the mailbox, so the provisional hold
//! becomes a real one, once. Only the registration's own student can confirm it.

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

/// The result that the client gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfirmedRegistration {
    /// `student_registrations.id`.
    pub registration_id: Uuid,
    /// Its status now.
    pub status: RegistrationStatus,
    /// The end of the hold, while a seat is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_expires_at: Option<DateTime<Utc>>,
}

/// The part of the outcome that only the follow-ups need: the student's notice, where this confirmed the registration.
pub type ConfirmMemo = Option<Notice>;

type ConfirmOutcome = Outcome<ConfirmedRegistration, ConfirmMemo>;

impl Handler for ConfirmRegistrationHandler {
    type Command = ConfirmRegistration;
    type Result = ConfirmedRegistration;
    type Memo = ConfirmMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<ConfirmRegistration>],
    ) -> Result<Vec<ConfirmOutcome>, Failure> {
        let mut state = ConfirmationState::load(tx, deliveries).await?;
        let outcomes = deliveries.iter().map(|delivery| state.decide(delivery)).collect();
        state.save(tx).await?;
        Ok(outcomes)
    }

    fn follow_ups(&self, _: &Delivery<ConfirmRegistration>, outcome: &ConfirmOutcome) -> Vec<FollowUp> {
        let Some(notice) = &outcome.memo else { return Vec::new() };
        let place = format!("{}, {}", notice.course, notice.course_batch);
        let body = match notice.deadline {
            Some(end) => format!("Your seat in {place} is held until {}.", end.format("%Y-%m-%d %H:%M UTC")),
            None => format!("Your registration for {place} is confirmed by mail."),
        };
        let subject = notice.registration_id.to_string();
        vec![notice.notification("registration_confirmed", "Your address is confirmed", body, &subject)]
    }
}

/// All that is known while deliveries are decided in order.
struct ConfirmationState {
    registrations: Registrations,
    /// The students whose mailboxes were verified just now.
    verified: Vec<Uuid>,
}

impl ConfirmationState {
    async fn load(tx: &mut PgConnection, deliveries: &[Delivery<ConfirmRegistration>]) -> Result<Self, Failure> {
        let registrations = Registrations::lock(tx, deliveries.iter().map(|d| d.command.registration_id)).await?;
        Ok(Self { registrations, verified: Vec::new() })
    }

    /// Confirms a registration, or rejects it. A link that was opened before the end of the hold is in time, however late
    /// it is settled.
    fn decide(&mut self, delivery: &Delivery<ConfirmRegistration>) -> ConfirmOutcome {
        let id = delivery.command.registration_id;
        let Some(registration) = self.registrations.get(id).filter(|r| r.student_id == delivery.command.student_id)
        else {
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
            RegistrationStatus::SeatHeld
                if registration.hold_expires_at.is_some_and(|end| delivery.accepted_at > end) =>
            {
                return Outcome::rejected(ProblemType::HoldExpired);
            }
            _ => {}
        }
        let registration = self.registrations.change(id).expect("it was found above");
        registration.provisional = false;
        registration.confirmed_by_mail_at = Some(registration.now);
        if registration.status == RegistrationStatus::SeatHeld {
            registration.hold_expires_at = registration.hold_expires_at.max(Some(registration.hold_end()));
        }
        self.verified.push(registration.student_id);
        Outcome::succeeded(result(registration)).memo(Some(registration.notice()))
    }

    async fn save(&self, tx: &mut PgConnection) -> Result<(), Failure> {
        self.registrations.save(tx).await?;
        verify_mailboxes(tx, &self.verified).await
    }
}

fn result(registration: &Registration) -> ConfirmedRegistration {
    ConfirmedRegistration {
        registration_id: registration.id,
        status: registration.status,
        hold_expires_at: registration.notice().deadline,
    }
}

/// Marks the mailboxes as verified; an invited student becomes active, any other status stays.
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
