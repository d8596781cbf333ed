//! Locked registrations: read once, changed in memory in the deliveries' order, written once. Because the rows are locked,
//! writing every mutable column back cannot undo another transaction's change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Notice, RegistrationStatus};
use crate::runtime::Failure;

/// A registration, with what its [`Notice`] needs.
#[derive(Clone, Debug)]
pub struct Registration {
    /// `student_registrations.id`.
    pub id: Uuid,
    /// `users.id` of the student.
    pub student_id: Uuid,
    /// `batches.id` of the course batch.
    pub batch_id: Uuid,
    /// The number that people quote.
    pub request_no: String,
    /// Its status.
    pub status: RegistrationStatus,
    /// True for a visitor's registration whose mailed link was not opened yet.
    pub provisional: bool,
    /// The price in all.
    pub amount_due: Decimal,
    /// The sum of the approved payments.
    pub amount_paid: Decimal,
    /// The sum that confirms the seat, where that is less than everything.
    pub deposit: Option<Decimal>,
    /// ISO 4217.
    pub currency: String,
    /// The time when the mailed link was opened.
    pub confirmed_by_mail_at: Option<DateTime<Utc>>,
    /// The end of the last hold.
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// The number of its place on the waitlist; kept after it is left.
    pub waitlist_seq: Option<i64>,
    /// `users.id` of the admin who admitted or rejected the applicant.
    pub reviewed_by: Option<Uuid>,
    /// The reason of a rejection or cancellation.
    pub reason: Option<String>,
    /// The length of a hold in the course batch.
    pub hold_minutes: i32,
    /// The name of the course batch.
    pub batch: String,
    /// The course's title.
    pub course: String,
    /// The student's mail address.
    pub email: String,
    /// The student's name.
    pub name: String,
    /// BCP 47.
    pub locale: String,
    /// True where the student can sign in only by a mailed link.
    pub needs_link: bool,
    /// The database's time of this transaction.
    pub now: DateTime<Utc>,
}

/// Registrations that are locked until the transaction ends.
#[derive(Debug, Default)]
pub struct Registrations {
    rows: BTreeMap<Uuid, Registration>,
    changed: BTreeSet<Uuid>,
}

/// The undecided payments of a registration.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmittedPayments {
    /// Their number.
    pub count: i64,
    /// Their sum.
    pub amount: Decimal,
}

impl Registration {
    /// Returns the sum that confirms the seat.
    pub fn threshold(&self) -> Decimal {
        self.deposit.unwrap_or(self.amount_due)
    }

    /// Returns true where enough was paid for the seat.
    pub fn is_paid(&self) -> bool {
        self.amount_paid > Decimal::ZERO && self.amount_paid >= self.threshold()
    }

    /// Returns the end of a hold that begins now.
    pub fn hold_end(&self) -> DateTime<Utc> {
        self.now + chrono::TimeDelta::minutes(self.hold_minutes.into())
    }

    /// Returns the content of messages about it.
    pub fn notice(&self) -> Notice {
        Notice {
            user_id: self.student_id,
            email: self.email.clone(),
            name: self.name.clone(),
            locale: self.locale.clone(),
            registration_id: self.id,
            request_no: self.request_no.clone(),
            status: self.status,
            course: self.course.clone(),
            course_batch: self.batch.clone(),
            amount_due: self.amount_due,
            currency: self.currency.clone(),
            deposit: self.deposit,
            deadline: self.hold_expires_at.filter(|_| self.status == RegistrationStatus::SeatHeld),
            position: None,
            token_id: None,
        }
    }

    /// Returns what an audit row records of it.
    pub fn snapshot(&self) -> Value {
        json!({
            "status": self.status,
            "amount_paid": self.amount_paid,
            "hold_expires_at": self.hold_expires_at,
            "reason": self.reason,
        })
    }
}

impl Registrations {
    /// Locks these registrations, in id order, after their course batches; those that do not exist are absent.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock(tx: &mut PgConnection, ids: impl IntoIterator<Item = Uuid>) -> Result<Self, Failure> {
        let ids: Vec<Uuid> = ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let rows = sqlx::query_as!(
            Registration,
            r#"
            SELECT r.id, r.student_id, r.batch_id, r.request_no,
                   r.status                                    AS "status: RegistrationStatus",
                   r.provisional, r.amount_due, r.amount_paid, r.deposit, r.currency, r.confirmed_by_mail_at,
                   r.hold_expires_at, r.waitlist_seq, r.reviewed_by, r.reason,
                   b.hold_minutes, b.name                      AS batch, c.title AS course,
                   u.email::text                               AS "email!",
                   COALESCE(p.full_name, u.email::text)        AS "name!",
                   COALESCE(p.locale, 'en')                    AS "locale!",
                   (u.role = 'student' AND u.deleted_at IS NULL
                    AND (u.status = 'invited' OR (u.status = 'active' AND r.provisional))) AS "needs_link!",
                   now()                                       AS "now!"
            FROM student_registrations r
            JOIN batches b            ON b.id = r.batch_id
            JOIN courses c            ON c.id = b.course_id
            JOIN users u              ON u.id = r.student_id
            LEFT JOIN user_profiles p ON p.user_id = r.student_id
            WHERE r.id = ANY($1)
            ORDER BY r.id
            FOR NO KEY UPDATE OF r
            "#,
            &ids,
        )
        .fetch_all(tx)
        .await?;
        Ok(Self { rows: rows.into_iter().map(|row| (row.id, row)).collect(), changed: BTreeSet::new() })
    }

    /// Returns a registration, if it exists.
    pub fn get(&self, id: Uuid) -> Option<&Registration> {
        self.rows.get(&id)
    }

    /// Returns a registration to change, which [`Self::save`] will write.
    pub fn change(&mut self, id: Uuid) -> Option<&mut Registration> {
        let row = self.rows.get_mut(&id)?;
        self.changed.insert(id);
        Some(row)
    }

    /// Iterates over all of them, in id order.
    pub fn iter(&self) -> impl Iterator<Item = &Registration> {
        self.rows.values()
    }

    /// Returns their undecided payments, by registration. A statement of its own: it must see what was committed while the
    /// locks were waited for, and payments come and go only under the registration's lock. The status is no condition of
    /// the scan: else the planner may choose the index of all submitted payments, and each transaction would read the
    /// backlog.
    ///
    /// # Errors
    /// The database's.
    pub async fn submitted_payments(&self, tx: &mut PgConnection) -> Result<HashMap<Uuid, SubmittedPayments>, Failure> {
        let rows = sqlx::query!(
            r#"
            SELECT registration_id,
                   count(*)    FILTER (WHERE status = 'submitted')               AS "count!",
                   COALESCE(sum(amount) FILTER (WHERE status = 'submitted'), 0)  AS "amount!"
            FROM payments
            WHERE registration_id = ANY($1)
            GROUP BY registration_id
            HAVING count(*) FILTER (WHERE status = 'submitted') > 0
            "#,
            &self.rows.keys().copied().collect::<Vec<_>>(),
        )
        .fetch_all(tx)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.registration_id, SubmittedPayments { count: row.count, amount: row.amount }))
            .collect())
    }

    /// Writes those that changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn save(&self, tx: &mut PgConnection) -> Result<(), Failure> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let rows: Vec<&Registration> = self.changed.iter().filter_map(|id| self.rows.get(id)).collect();
        sqlx::query!(
            r#"
            UPDATE student_registrations r
            SET status               = n.status,
                provisional          = n.provisional,
                amount_paid          = n.amount_paid,
                confirmed_by_mail_at = n.confirmed_by_mail_at,
                hold_expires_at      = n.hold_expires_at,
                waitlist_seq         = n.waitlist_seq,
                reviewed_by          = n.reviewed_by,
                reason               = n.reason,
                updated_at           = now()
            FROM UNNEST($1::uuid[], $2::text[], $3::bool[], $4::numeric[], $5::timestamptz[], $6::timestamptz[],
                        $7::int8[], $8::uuid[], $9::text[])
                 AS n (id, status, provisional, amount_paid, confirmed_by_mail_at, hold_expires_at, waitlist_seq,
                       reviewed_by, reason)
            WHERE r.id = n.id
            "#,
            &rows.iter().map(|r| r.id).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.status.name().to_owned()).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.provisional).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.amount_paid).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.confirmed_by_mail_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
            &rows.iter().map(|r| r.hold_expires_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
            &rows.iter().map(|r| r.waitlist_seq).collect::<Vec<_>>() as &[Option<i64>],
            &rows.iter().map(|r| r.reviewed_by).collect::<Vec<_>>() as &[Option<Uuid>],
            &rows.iter().map(|r| r.reason.clone()).collect::<Vec<_>>() as &[Option<String>],
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}
