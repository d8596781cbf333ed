//! `payment.submit.v1`: a student claims to have sent money for a registration.

use contracts::{
    Role,
    messages::{CreateNotification, EmailTemplate, SubmitPayment, create_notification::NotificationTarget},
};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::payment_state::{PaymentOutcome, PaymentState, SubmitPaymentMemo, SubmittedPayment};
use crate::runtime::{Delivery, Failure, FollowUp, Handler};

/// Settles `payment.submit.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmitPaymentHandler;

impl Handler for SubmitPaymentHandler {
    type Command = SubmitPayment;
    type Result = SubmittedPayment;
    type Memo = SubmitPaymentMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<SubmitPayment>],
    ) -> Result<Vec<PaymentOutcome>, Failure> {
        let mut state = PaymentState::load(tx, deliveries).await?;
        let outcomes = deliveries.iter().map(|delivery| state.decide(delivery)).collect();
        state.save(tx).await?;
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<SubmitPayment>, outcome: &PaymentOutcome) -> Vec<FollowUp> {
        let command = &delivery.command;
        if let Some(payment_id) = outcome.memo.claimed_from {
            return vec![duplicate_alert(command, payment_id)];
        }
        let (contracts::Verdict::Succeeded(result), Some(notice)) = (&outcome.verdict, &outcome.memo.notice) else {
            return Vec::new();
        };
        let subject = result.payment_id.to_string();
        let extra = ReceivedPayment { amount: result.amount, transaction_id: &command.transaction_id };
        let body = format!("{} {}, reference {}.", result.amount, result.currency, command.transaction_id);
        vec![
            notice.mail(EmailTemplate::PaymentReceived, format!("payment_received:{subject}"), &extra),
            notice.notification("payment_received", "We have your payment", body, &subject),
        ]
    }
}

/// The payment in the mail's context.
#[derive(Serialize)]
struct ReceivedPayment<'a> {
    amount: Decimal,
    transaction_id: &'a str,
}

fn duplicate_alert(command: &SubmitPayment, payment_id: Uuid) -> FollowUp {
    let reference = command.transaction_ref();
    let notification = CreateNotification {
        to: NotificationTarget::Role(Role::Accountant),
        notification_type: "duplicate_reference".into(),
        title: "A transaction reference is claimed twice".into(),
        body: format!("Reference {reference} belongs to a payment of another student already."),
        data: json!({
            "transaction_ref": reference,
            "payment_id": payment_id,
            "claimed_by": command.student_id,
            "registration_id": command.registration_id,
        })
        .into(),
        dedupe_key: format!("duplicate_reference:{reference}"),
    };
    FollowUp::new("duplicate_reference", notification)
}
