//! `registration.submit.v1`: a visitor or student asks for a seat in a course batch.

use contracts::messages::{EmailTemplate, SubmitRegistration};
use sqlx::PgConnection;

use super::{
    RegistrationStatus,
    admission::SubmittedRegistration,
    notice::NoExtra,
    registration_state::{RegistrationState, SubmitMemo, SubmitOutcome},
};
use crate::runtime::{Delivery, Failure, FollowUp, Handler};

/// Settles `registration.submit.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmitRegistrationHandler;

impl Handler for SubmitRegistrationHandler {
    type Command = SubmitRegistration;
    type Result = SubmittedRegistration;
    type Memo = SubmitMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<SubmitRegistration>],
    ) -> Result<Vec<SubmitOutcome>, Failure> {
        let mut state = RegistrationState::load(tx, deliveries).await?;
        let mut outcomes: Vec<SubmitOutcome> = deliveries.iter().map(|delivery| state.decide(delivery)).collect();
        let assigned = state.save(tx).await?;
        outcomes.iter_mut().for_each(|outcome| assigned.complete(outcome));
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<SubmitRegistration>, outcome: &SubmitOutcome) -> Vec<FollowUp> {
        let Some(notice) = &outcome.memo.notice else {
            return Vec::new();
        };
        let (template, title) = match notice.status {
            RegistrationStatus::SeatHeld => (EmailTemplate::SeatHeld, "A seat is held for you"),
            RegistrationStatus::Waitlisted => (EmailTemplate::Waitlisted, "You are on the waitlist"),
            RegistrationStatus::UnderReview | RegistrationStatus::Submitted => {
                (EmailTemplate::RegistrationReceived, "Your registration is being looked at")
            }
            _ => (EmailTemplate::MagicLink, "You are registered already"),
        };
        let mut subject = notice.registration_id.to_string();
        if outcome.memo.repeated {
            subject = format!("{subject}:{}", delivery.id);
        }
        let mut follow_ups = vec![notice.mail(template, format!("{}:{subject}", template.name()), &NoExtra {})];
        if !outcome.memo.repeated {
            let body = format!("{}, {} ({})", notice.course, notice.course_batch, notice.request_no);
            follow_ups.push(notice.notification("registration_received", title, body, &subject));
        }
        follow_ups
    }
}
