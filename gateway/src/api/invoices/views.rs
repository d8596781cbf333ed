//! Invoices and credit notes on the wire.

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::extract::{Listing, NewestFirst};

/// One invoice or credit note in a list.
#[derive(Serialize, ToSchema)]
pub struct InvoiceView {
    /// `invoices.id`.
    pub id: Uuid,
    /// `invoice` or `credit_note`.
    pub kind: String,
    /// Gapless within its series.
    pub number: String,
    /// `issued` or `credited`.
    pub status: String,
    /// The day of issue, at the institute.
    pub issue_date: NaiveDate,
    /// The payment.
    pub payment_id: Uuid,
    /// The registration.
    pub registration_id: Uuid,
    /// The student.
    pub student_id: Uuid,
    /// ISO 4217.
    pub currency: String,
    /// Gross.
    #[schema(value_type = String, example = "11800.00")]
    pub total: Decimal,
    /// `true` once `GET /v1/invoices/{id}/pdf` has it.
    pub pdf_ready: bool,
}

/// One invoice or credit note, in full.
#[derive(Serialize, ToSchema)]
pub struct InvoiceDetail {
    /// `invoices.id`.
    pub id: Uuid,
    /// `invoice` or `credit_note`.
    pub kind: String,
    /// Gapless within its series.
    pub number: String,
    /// `issued` or `credited`.
    pub status: String,
    /// The day of issue, at the institute.
    pub issue_date: NaiveDate,
    /// The time of issue.
    pub issued_at: DateTime<Utc>,
    /// The payment.
    pub payment_id: Uuid,
    /// The registration.
    pub registration_id: Uuid,
    /// The student.
    pub student_id: Uuid,
    /// The invoice that a credit note corrects.
    pub original_id: Option<Uuid>,
    /// A snapshot, as it was at issue.
    pub supplier: Value,
    /// A snapshot, as it was at issue.
    pub recipient: Value,
    /// ISO 4217.
    pub currency: String,
    /// Before discount and tax.
    #[schema(value_type = String)]
    pub subtotal: Decimal,
    /// Off the subtotal.
    #[schema(value_type = String)]
    pub discount: Decimal,
    /// Contained in the total.
    #[schema(value_type = String)]
    pub tax: Decimal,
    /// The rounding of the price.
    #[schema(value_type = String)]
    pub rounding: Decimal,
    /// Subtotal − discount + tax + rounding.
    #[schema(value_type = String)]
    pub total: Decimal,
    /// `true` once `GET /v1/invoices/{id}/pdf` has it.
    pub pdf_ready: bool,
    /// In their order.
    #[schema(value_type = Vec<InvoiceLine>)]
    pub lines: Value,
}

/// One line of an invoice.
#[allow(dead_code)]
#[derive(ToSchema)]
pub struct InvoiceLine {
    /// From 1.
    pub position: i32,
    /// The course and batch.
    pub description: String,
    /// Units.
    pub quantity: String,
    /// Before tax.
    pub unit_price: String,
    /// Quantity times unit price.
    pub amount: String,
    /// Per cent.
    pub tax_rate: String,
    /// Contained in the total.
    pub tax: String,
}

/// The states of an invoice that a list can be filtered by.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum InvoiceStatusFilter {
    /// Issued.
    Issued,
    /// Corrected by a credit note.
    Credited,
}

/// Filters of the list of invoices.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InvoiceFilter {
    /// In this state only.
    #[param(inline)]
    pub status: Option<InvoiceStatusFilter>,
    /// Of this student only; for accountants and admins.
    pub student_id: Option<Uuid>,
}

impl Listing for InvoiceFilter {
    const NAME: &'static str = "invoices";
    type Key = Uuid;
    type Sort = NewestFirst;
}
