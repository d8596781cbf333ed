//! `payment.submit.v1`: a student reports a payment, with the bank's reference.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{example_id, example_time};
use crate::{
    FieldError,
    command::{Command, Queue},
    named_enum::named_enum,
    validation::{Checks, normalise_reference},
};

/// Reports a payment for a registration. The amount is gross.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubmitPayment {
    /// The registration that is paid for.
    pub registration_id: Uuid,
    /// The payer: the signed-in student.
    pub student_id: Uuid,
    /// The method of payment.
    pub method: PaymentMethod,
    /// The bank's or gateway's reference, as typed; 4 to 64 characters, of which at least 4 letters or digits.
    pub transaction_id: String,
    /// Gross amount, a decimal in a string, at most two decimals.
    pub amount: Decimal,
    /// Currency code (ISO 4217).
    pub currency: String,
    /// Time of the payment, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<DateTime<Utc>>,
    /// Holder of the account it was paid from, where not the student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer_name: Option<String>,
    /// An uploaded proof: `files.id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_file_id: Option<Uuid>,
}

named_enum! {
    /// The method of a payment. The name is the value of `payments.method`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum PaymentMethod {
        /// A bank transfer.
        BankTransfer = "bank_transfer",
        /// UPI.
        Upi = "upi",
        /// A card, through a terminal or a gateway.
        Card = "card",
        /// Cash at the counter, against a receipt number.
        Cash = "cash",
        /// A cheque or demand draft.
        Cheque = "cheque",
    }
}

impl SubmitPayment {
    /// The normalised reference, the same however it was typed; payments are recognised by it.
    pub fn transaction_ref(&self) -> String {
        normalise_reference(&self.transaction_id)
    }
}

impl Command for SubmitPayment {
    const KIND: &'static str = "payment.submit.v1";
    const QUEUE: Queue = Queue::Payments;

    /// The student: a student's payments are settled in the order sent, and before an expiry of the hold that was due
    /// later.
    fn partition_key(&self) -> String {
        self.student_id.to_string()
    }

    fn validate(&self) -> Result<(), Vec<FieldError>> {
        let mut checks = Checks::new();
        checks
            .line("transaction_id", &self.transaction_id, 64)
            .ensure(
                self.transaction_ref().chars().count() >= 4,
                "transaction_id",
                "too_short",
                "must have at least 4 letters or digits",
            )
            .amount("amount", self.amount)
            .currency("currency", &self.currency);
        if let Some(payer_name) = &self.payer_name {
            checks.line("payer_name", payer_name, 200);
        }
        checks.finish()
    }

    fn example() -> Self {
        Self {
            registration_id: example_id(2),
            student_id: example_id(3),
            method: PaymentMethod::BankTransfer,
            transaction_id: "UTR-2026-000123".into(),
            amount: Decimal::new(1_180_000, 2),
            currency: "INR".into(),
            paid_at: Some(example_time()),
            payer_name: None,
            proof_file_id: None,
        }
    }
}
