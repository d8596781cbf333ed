//! `payment.decide.v1`: an accountant's verdict. A payment is decided once; of two at once, one wins and the other is
//! told. Enough money confirms the seat and enrolls the student in the same transaction; the invoice follows.

use contracts::{
    Outcome,
    messages::{DecidePayment, EmailTemplate, IssueInvoice, PaymentDecision},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{PaymentStatus, decision::Bench};
use crate::{
    registrations::{Notice, RegistrationStatus, audit, enrollment},
    runtime::{Delivery, Failure, FollowUp, Handler},
};

/// Settles `payment.decide.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecidePaymentHandler;

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecidedPayment {
    /// The payment.
    pub payment_id: Uuid,
    /// `approved` or `rejected`.
    pub status: PaymentStatus,
    /// What was paid for.
    pub registration_id: Uuid,
    /// Where that stands now.
    pub registration_status: RegistrationStatus,
    /// Approved so far.
    pub amount_paid: Decimal,
    /// In all.
    pub amount_due: Decimal,
    /// The enrollment, where this confirmed the seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment_id: Option<Uuid>,
    /// The money bought no seat: the student may have it back.
    pub refund_offered: bool,
}

/// Whom to tell, and of what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DecideMemo {
    /// The payer.
    pub notice: Option<Notice>,
    /// The bank's reference, as typed.
    pub transaction_id: String,
    /// Gross.
    pub amount: Decimal,
    /// Whether this confirmed the seat.
    pub newly_confirmed: bool,
}

type DecisionOutcome = Outcome<DecidedPayment, DecideMemo>;

impl Handler for DecidePaymentHandler {
    type Command = DecidePayment;
    type Result = DecidedPayment;
    type Memo = DecideMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        batch: &[Delivery<DecidePayment>],
    ) -> Result<Vec<DecisionOutcome>, Failure> {
        let payment_ids: Vec<Uuid> = batch.iter().map(|d| d.command.payment_id).collect();
        let mut bench = Bench::lock(tx, &payment_ids).await?;
        let mut outcomes: Vec<DecisionOutcome> = batch.iter().map(|delivery| bench.settle(delivery)).collect();
        bench.payments.save(tx).await?;
        bench.registrations.save(tx).await?;
        bench.seats.save(tx).await?;
        let enrollments = enrollment::enroll(tx, &bench.confirmed).await?;
        audit::record(tx, &bench.entries).await?;
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.memo.newly_confirmed) {
            if let contracts::Verdict::Succeeded(result) = &mut outcome.verdict {
                result.enrollment_id = enrollments.get(&result.registration_id).copied();
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
