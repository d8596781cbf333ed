//! Locked payments: read once, decided in memory, written once. They are locked after their course batches and
//! registrations.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::runtime::Failure;

/// `payments.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum PaymentStatus {
    /// An accountant has to decide.
    Submitted,
    /// The money has arrived.
    Approved,
    /// The money has not arrived, or not as claimed.
    Rejected,
    /// One accountant has requested a refund.
    RefundPending,
    /// Another accountant has paid it back.
    Refunded,
    /// Withdrawn by the student.
    Cancelled,
}

impl PaymentStatus {
    /// Returns the name in the database and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::RefundPending => "refund_pending",
            Self::Refunded => "refunded",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A payment.
#[derive(Clone, Debug)]
pub struct Payment {
    /// `payments.id`.
    pub id: Uuid,
    /// `student_registrations.id` of what was paid for.
    pub registration_id: Uuid,
    /// `users.id` of the payer.
    pub student_id: Uuid,
    /// The bank's reference, as typed.
    pub transaction_id: String,
    /// Gross.
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// Its status.
    pub status: PaymentStatus,
    /// `users.id` of the accountant who decided.
    pub reviewed_by: Option<Uuid>,
    /// The time of the decision.
    pub reviewed_at: Option<DateTime<Utc>>,
    /// The reason of a rejection, as a code.
    pub rejection_code: Option<String>,
    /// The accountant's note.
    pub note: Option<String>,
}

/// Payments that are locked until the transaction ends.
#[derive(Debug, Default)]
pub struct Payments {
    rows: BTreeMap<Uuid, Payment>,
    changed: BTreeSet<Uuid>,
}

impl Payment {
    /// Returns what an audit row records of it.
    pub fn snapshot(&self) -> Value {
        json!({
            "status": self.status,
            "amount": self.amount,
            "rejection_code": self.rejection_code,
            "note": self.note,
        })
    }
}

impl Payments {
    /// Returns the registrations of these payments. A payment never changes its registration, so they can be looked up
    /// first.
    ///
    /// # Errors
    /// The database's.
    pub async fn registrations(tx: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Uuid>, Failure> {
        let rows = sqlx::query_scalar!("SELECT DISTINCT registration_id FROM payments WHERE id = ANY($1)", ids);
        Ok(rows.fetch_all(tx).await?)
    }

    /// Locks these payments, in id order; those that do not exist are absent.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock(tx: &mut PgConnection, ids: &[Uuid]) -> Result<Self, Failure> {
        let rows = sqlx::query_as!(
            Payment,
            r#"
            SELECT id, registration_id, student_id, transaction_id, amount, currency,
                   status AS "status: PaymentStatus", reviewed_by, reviewed_at, rejection_code, note
            FROM payments
            WHERE id = ANY($1)
            ORDER BY id
            FOR NO KEY UPDATE
            "#,
            ids,
        )
        .fetch_all(tx)
        .await?;
        Ok(Self { rows: rows.into_iter().map(|row| (row.id, row)).collect(), changed: BTreeSet::new() })
    }

    /// Returns a payment, if it exists.
    pub fn get(&self, id: Uuid) -> Option<&Payment> {
        self.rows.get(&id)
    }

    /// Returns a payment to change, which [`Self::save`] will write.
    pub fn change(&mut self, id: Uuid) -> Option<&mut Payment> {
        let row = self.rows.get_mut(&id)?;
        self.changed.insert(id);
        Some(row)
    }

    /// Writes those that changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn save(&self, tx: &mut PgConnection) -> Result<(), Failure> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let rows: Vec<&Payment> = self.changed.iter().filter_map(|id| self.rows.get(id)).collect();
        sqlx::query!(
            r#"
            UPDATE payments p
            SET status         = n.status,
                reviewed_by    = n.reviewed_by,
                reviewed_at    = n.reviewed_at,
                rejection_code = n.rejection_code,
                note           = n.note,
                updated_at     = now()
            FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::text[], $6::text[])
                 AS n (id, status, reviewed_by, reviewed_at, rejection_code, note)
            WHERE p.id = n.id
            "#,
            &rows.iter().map(|p| p.id).collect::<Vec<_>>(),
            &rows.iter().map(|p| p.status.name().to_owned()).collect::<Vec<_>>(),
            &rows.iter().map(|p| p.reviewed_by).collect::<Vec<_>>() as &[Option<Uuid>],
            &rows.iter().map(|p| p.reviewed_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
            &rows.iter().map(|p| p.rejection_code.clone()).collect::<Vec<_>>() as &[Option<String>],
            &rows.iter().map(|p| p.note.clone()).collect::<Vec<_>>() as &[Option<String>],
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}
