//! `payment.decide.v1`: an accountant approves or rejects a payment. Of two at once the first wins, the other
//! is rejected as already decided.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::example_id;
use crate::{
    FieldError,
    command::{Command, Queue},
    validation::Checks,
};

/// Decides a payment that is `submitted`. The event's principal is the accountant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecidePayment {
    /// The payment.
    pub payment_id: Uuid,
    /// The decision.
    pub decision: PaymentDecision,
    /// An internal note; at most 1,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// An accountant's decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum PaymentDecision {
    /// The money has arrived.
    Approve,
    /// The money has not arrived, or not as claimed.
    Reject {
        /// A code for the reason, shown to the student: `not_received`, `wrong_amount`, …; at most 50 characters.
        code: String,
    },
}

impl Command for DecidePayment {
    const KIND: &'static str = "payment.decide.v1";
    const QUEUE: Queue = Queue::Payments;

    /// The payment: of two decisions the first wins. They need no order relative to the student's own events: only a
    /// committed payment can be decided, so it is in no queue any more, and a hold that a rejection renews has another
    /// end than the one in an [`ExpireHold`](super::ExpireHold) that is still queued.
    fn partition_key(&self) -> String {
        self.payment_id.to_string()
    }

    fn weight(&self) -> usize {
        3
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        let mut checks = Checks::new();
        checks.optional_text("note", self.note.as_deref(), 1_000);
        if let PaymentDecision::Reject { code } = &self.decision {
            checks.line("rejection_code", code, 50);
        }
        checks.finish()
    }

    fn example() -> Self {
        Self {
            payment_id: example_id(4),
            decision: PaymentDecision::Approve,
            note: Some("Seen on the statement.".into()),
        }
    }
}
