//! `payment.decide.v1`: an accountant approves or rejects a payment. Where it confirms the seat, the student is enrolled in
//! the same transaction; the invoice follows.

use contracts::messages::{DecidePayment, EmailTemplate, IssueInvoice, PaymentDecision};
use serde_json::json;
use sqlx::PgConnection;

use super::decision_state::{DecideMemo, DecidedPayment, DecisionOutcome, DecisionState};
use crate::runtime::{Delivery, Failure, FollowUp, Handler};

/// Settles `payment.decide.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecidePaymentHandler;

impl Handler for DecidePaymentHandler {
    type Command = DecidePayment;
    type Result = DecidedPayment;
    type Memo = DecideMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<DecidePayment>],
    ) -> Result<Vec<DecisionOutcome>, Failure> {
        let mut state = DecisionState::load(tx, deliveries).await?;
        let mut outcomes: Vec<DecisionOutcome> = deliveries.iter().map(|delivery| state.decide(delivery)).collect();
        let enrollment_ids = state.save(tx).await?;
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.memo.newly_confirmed) {
            if let contracts::Verdict::Succeeded(result) = &mut outcome.verdict {
                result.enrollment_id = enrollment_ids.get(&result.registration_id).copied();
            }
        }
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<DecidePayment>, outcome: &DecisionOutcome) -> Vec<FollowUp> {
        let (contracts::Verdict::Succeeded(result), Some(notice)) = (&outcome.verdict, &outcome.memo.notice) else {
            return Vec::new();
        };
        let memo = &outcome.memo;
        let subject = result.payment_id.to_string();
        let sum = format!("{} {}, reference {}", memo.amount, notice.currency, memo.transaction_id);
        match &delivery.command.decision {
            PaymentDecision::Approve => {
                let body = if result.refund_offered {
                    format!("{sum}. There is no seat for you now; you may ask for the money back.")
                } else {
                    format!("{sum}. The invoice follows.")
                };
                let mut follow_ups = vec![
                    FollowUp::new("invoice", IssueInvoice { payment_id: result.payment_id }),
                    notice.notification("payment_approved", "Your payment is approved", body, &subject),
                ];
                if memo.newly_confirmed {
                    follow_ups.extend(notice.enrolled());
                }
                follow_ups
            }
            PaymentDecision::Reject { code } => {
                let extra = json!({
                    "amount": memo.amount,
                    "transaction_id": memo.transaction_id,
                    "reason": code,
                });
                let body = format!("{sum}: {code}.");
                vec![
                    notice.mail(EmailTemplate::PaymentRejected, format!("payment_rejected:{subject}"), &extra),
                    notice.notification("payment_rejected", "Your payment was not accepted", body, &subject),
                ]
            }
        }
    }
}
