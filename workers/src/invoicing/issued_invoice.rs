//! The result of `invoice.issue.v1`: an invoice that was issued now or before.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The result that the client gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IssuedInvoice {
    /// `invoices.id`.
    pub invoice_id: Uuid,
    /// The invoice's number.
    pub number: String,
    /// Gross: the payment's amount.
    pub total: Decimal,
    /// Contained in the total.
    pub tax: Decimal,
    /// ISO 4217.
    pub currency: String,
}
