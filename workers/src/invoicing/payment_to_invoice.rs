//! Payments with all that their invoices need: the registration's price, the sums invoiced before, the recipient and the
//! description; or the invoice that a payment has already.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::messages::IssueInvoice;
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    issued_invoice::IssuedInvoice,
    money::{Invoiced, Price},
};
use crate::runtime::{Delivery, Failure};

/// Payments by id.
pub(super) type PaymentsToInvoice = HashMap<Uuid, PaymentToInvoice>;

/// A payment, its registration and its invoice, as read under the lock of the series.
#[derive(Debug)]
pub(super) struct PaymentToInvoice {
    pub id: Uuid,
    pub registration_id: Uuid,
    pub student_id: Uuid,
    pub amount: Decimal,
    pub currency: String,
    pub was_approved: bool,
    pub fee: Decimal,
    pub discount: Decimal,
    pub tax_rate: Decimal,
    pub tax: Decimal,
    pub amount_due: Decimal,
    pub description: String,
    pub recipient: Value,
    invoiced_discount: Decimal,
    invoiced_tax: Decimal,
    invoiced_rounding: Decimal,
    invoiced_total: Decimal,
    invoice_id: Option<Uuid>,
    invoice_number: Option<String>,
    invoice_total: Option<Decimal>,
    invoice_tax: Option<Decimal>,
    pub now: DateTime<Utc>,
}

impl PaymentToInvoice {
    /// Returns true where the payment is approved and has no invoice.
    pub fn is_due(&self) -> bool {
        self.was_approved && self.invoice_id.is_none()
    }

    /// Returns the registration's price.
    pub fn price(&self) -> Price {
        Price {
            fee: self.fee,
            discount: self.discount,
            tax_rate: self.tax_rate,
            tax: self.tax,
            amount_due: self.amount_due,
        }
    }

    /// Returns the sums of the registration's invoices before this one.
    pub fn invoiced(&self) -> Invoiced {
        Invoiced {
            discount: self.invoiced_discount,
            tax: self.invoiced_tax,
            rounding: self.invoiced_rounding,
            total: self.invoiced_total,
        }
    }

    /// Returns the invoice that the payment has already.
    pub fn existing(&self) -> Option<IssuedInvoice> {
        Some(IssuedInvoice {
            invoice_id: self.invoice_id?,
            number: self.invoice_number.clone()?,
            total: self.invoice_total?,
            tax: self.invoice_tax?,
            currency: self.currency.clone(),
        })
    }
}

/// Reads the deliveries' payments. The series must be locked: then invoices of other transactions are seen, and what is
/// read stays true until the commit.
pub(super) async fn select_payments(
    tx: &mut PgConnection,
    deliveries: &[Delivery<IssueInvoice>],
) -> Result<PaymentsToInvoice, Failure> {
    let wanted: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.command.payment_id).collect();
    let payments = sqlx::query_as!(
        PaymentToInvoice,
        r#"SELECT p.id, p.registration_id, p.student_id, p.amount, p.currency,
                  p.status IN ('approved', 'refund_pending', 'refunded') AS "was_approved!",
                  r.fee, r.discount, r.tax_rate, r.tax, r.amount_due,
                  c.title || ', ' || b.name || CASE WHEN p.amount < r.amount_due THEN ' (part payment)' ELSE '' END
                                                  AS "description!",
                  jsonb_build_object('name', coalesce(up.full_name, u.email::text), 'email', u.email::text,
                                     'address', up.address, 'country', up.country, 'tax_id', up.tax_id,
                                     'request_no', r.request_no) AS "recipient!",
                  coalesce(so_far.discount, 0)    AS "invoiced_discount!",
                  coalesce(so_far.tax, 0)         AS "invoiced_tax!",
                  coalesce(so_far.rounding, 0)    AS "invoiced_rounding!",
                  coalesce(so_far.total, 0)       AS "invoiced_total!",
                  i.id     AS "invoice_id?",
                  i.number AS "invoice_number?",
                  i.total  AS "invoice_total?",
                  i.tax    AS "invoice_tax?",
                  clock_timestamp() AS "now!"
             FROM payments p
             JOIN student_registrations r ON r.id = p.registration_id
             JOIN batches b               ON b.id = r.batch_id
             JOIN courses c               ON c.id = b.course_id
             JOIN users u                 ON u.id = p.student_id
             LEFT JOIN user_profiles up   ON up.user_id = u.id
             LEFT JOIN LATERAL (
                    SELECT id, number, total, tax
                      FROM invoices
                     WHERE payment_id = p.id AND kind = 'invoice'
                    OFFSET 0  -- by its own index for each, whatever the statistics say
                  ) AS i ON true
             LEFT JOIN LATERAL (
                    SELECT sum(sign * discount) AS discount, sum(sign * tax) AS tax,
                           sum(sign * rounding) AS rounding, sum(sign * total) AS total
                      FROM (SELECT *, CASE kind WHEN 'invoice' THEN 1 ELSE -1 END AS sign
                              FROM invoices
                             WHERE registration_id = r.id) AS signed) AS so_far ON true
            WHERE p.id = ANY ($1)"#,
        &wanted,
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(payments.into_iter().map(|payment| (payment.id, payment)).collect())
}
