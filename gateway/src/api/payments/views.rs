//! Payments on the wire.

use chrono::{DateTime, Utc};
use contracts::{
    FieldError,
    messages::{DecidePayment, PaymentDecision, PaymentMethod},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::{Age, Listing};

/// Decisions a request.
const DECISIONS_MAX: usize = 500;

/// A payment that a student made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    /// The registration that it is for.
    pub registration_id: Uuid,
    /// `bank_transfer`, `upi`, `card`, `cash` or `cheque`.
    #[schema(value_type = String, example = "upi")]
    pub method: PaymentMethod,
    /// The bank's reference, as typed.
    pub transaction_id: String,
    /// Gross, at most two decimals.
    #[serde(deserialize_with = "decimal_text")]
    #[schema(value_type = String, example = "11800.00")]
    pub amount: Decimal,
    /// ISO 4217, such as `INR`.
    pub currency: String,
    /// The time of the payment.
    pub paid_at: Option<DateTime<Utc>>,
    /// The owner of the account it came from, where not the student.
    pub payer_name: Option<String>,
    /// An uploaded proof.
    pub proof_file_id: Option<Uuid>,
}

/// The approval of a payment: the money has arrived.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentApproval {
    /// For the file; at most 1,000 characters.
    pub note: Option<String>,
}

/// The rejection of a payment: the money has not arrived, or not as claimed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentRejection {
    /// Sent to the student: `not_received`, `wrong_amount`, ….
    pub rejection_code: String,
    /// For the file; at most 1,000 characters.
    pub note: Option<String>,
}

/// Many decisions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decisions {
    /// 1 to 500, each payment once.
    pub items: Vec<Decision>,
}

/// One of many decisions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The payment.
    pub payment_id: Uuid,
    /// The decision.
    pub verdict: VerdictWord,
    /// With `reject` only.
    pub rejection_code: Option<String>,
    /// For the file; at most 1,000 characters.
    pub note: Option<String>,
}

/// `approve` or `reject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictWord {
    /// The money has arrived.
    Approve,
    /// It has not, or not as claimed.
    Reject,
}

impl Decisions {
    /// Checks the list: its length, that no payment is repeated, and that approvals have no rejection code.
    ///
    /// # Errors
    /// Every bad field.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let items = &self.items;
        if items.is_empty() || items.len() > DECISIONS_MAX {
            let message = format!("must have 1 to {DECISIONS_MAX} entries");
            let code = if items.is_empty() { "too_few" } else { "too_many" };
            return Err(vec![FieldError::new("items", code, message)]);
        }
        let mut seen = std::collections::HashSet::new();
        let mut errors = Vec::new();
        for (n, item) in items.iter().enumerate() {
            if !seen.insert(item.payment_id) {
                let field = format!("items[{n}].payment_id");
                errors.push(FieldError::new(field, "repeated", "must not stand in the list twice"));
            }
            if item.verdict == VerdictWord::Approve && item.rejection_code.is_some() {
                let field = format!("items[{n}].rejection_code");
                errors.push(FieldError::new(field, "not_allowed", "must not be sent with an approval"));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

impl From<Decision> for DecidePayment {
    fn from(item: Decision) -> Self {
        let decision = match item.verdict {
            VerdictWord::Approve => PaymentDecision::Approve,
            VerdictWord::Reject => PaymentDecision::Reject { code: item.rejection_code.unwrap_or_default() },
        };
        Self { payment_id: item.payment_id, decision, note: item.note }
    }
}

/// A payment.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentView {
    /// `payments.id`.
    pub id: Uuid,
    /// The registration that it is for.
    pub registration_id: Uuid,
    /// The payer.
    pub student_id: Uuid,
    /// `bank_transfer`, `upi`, `card`, `cash` or `cheque`.
    pub method: String,
    /// The bank's reference, as typed.
    pub transaction_id: String,
    /// Gross.
    #[schema(value_type = String)]
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// The time of the payment.
    pub paid_at: Option<DateTime<Utc>>,
    /// The owner of the account it came from, where not the student.
    pub payer_name: Option<String>,
    /// `submitted`, `approved`, `rejected`, `refund_pending`, `refunded` or `cancelled`.
    pub status: String,
    /// Seen by staff only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk_flags: Option<Vec<String>>,
    /// The time of the decision.
    pub reviewed_at: Option<DateTime<Utc>>,
    /// The reason of a rejection.
    pub rejection_code: Option<String>,
    /// The part that was paid back.
    #[schema(value_type = String)]
    pub refunded: Decimal,
    /// The time of creation.
    pub created_at: DateTime<Utc>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
}

/// The states of a payment that a list can be filtered by.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum PaymentStatusFilter {
    /// With the accountants.
    Submitted,
    /// The money has arrived.
    Approved,
    /// The money has not arrived, or not as claimed.
    Rejected,
    /// A refund was requested.
    RefundPending,
    /// Paid back.
    Refunded,
    /// Withdrawn.
    Cancelled,
}

/// Filters of the list of payments.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PaymentFilter {
    /// In this state only.
    #[param(inline)]
    pub status: Option<PaymentStatusFilter>,
    /// Of this registration only.
    pub registration_id: Option<Uuid>,
}

impl Listing for PaymentFilter {
    const NAME: &'static str = "payments";
    type Key = Uuid;
    type Sort = Age;
}

/// Reads money from text: a JSON number may have lost a cent before it came here.
fn decimal_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    struct DecimalText;

    impl de::Visitor<'_> for DecimalText {
        type Value = Decimal;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a decimal in a JSON string, such as \"1180.00\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
            Decimal::from_str_exact(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_str(DecimalText)
}
