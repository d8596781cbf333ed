//! Admitted registrations: the place of each, its price as of now and the end of its hold, and the one statement that
//! inserts their rows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::{
    ids,
    messages::{Registrant, SubmitRegistration},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Notice, Place, RegistrationStatus, Seats, registrants::Account, seats::CourseBatchSeats};
use crate::runtime::{Delivery, Failure};

/// The result that the client gets. A visitor whose address is registered already gets the same as a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmittedRegistration {
    /// `student_registrations.id`.
    pub registration_id: Uuid,
    /// The number that people quote.
    pub request_no: String,
    /// The course batch.
    pub batch_id: Uuid,
    /// `seat_held`, `waitlisted` or `under_review`.
    pub status: RegistrationStatus,
    /// Gross: fee less discount, plus tax.
    pub amount_due: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// The end of the hold, while a seat is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// Registrations that wait, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waitlist_position: Option<i32>,
}

/// An admitted registration.
#[derive(Clone, Debug)]
pub struct Admission {
    id: Uuid,
    student_id: Uuid,
    batch_id: Uuid,
    status: RegistrationStatus,
    provisional: bool,
    fee: Decimal,
    tax_rate: Decimal,
    tax: Decimal,
    deposit: Option<Decimal>,
    currency: String,
    hold_expires_at: Option<DateTime<Utc>>,
    waitlist_seq: Option<i64>,
    position: Option<i32>,
    answers: Option<Value>,
    operation_id: Uuid,
}

/// The admitted registrations of one transaction, the magic links that they need, and the decoys of visitors who were
/// registered already.
#[derive(Debug, Default)]
pub struct Admissions {
    rows: Vec<Admission>,
    decoys: Vec<Uuid>,
    links: HashMap<Uuid, (Uuid, Option<DateTime<Utc>>)>,
}

impl Admission {
    /// Takes a place in the course batch; `None` where it is full.
    pub fn new(
        seats: &mut Seats,
        course_batch: &CourseBatchSeats,
        account: &Account,
        delivery: &Delivery<SubmitRegistration>,
    ) -> Option<Self> {
        let provisional = matches!(delivery.command.registrant, Registrant::Visitor { .. });
        let place = (!course_batch.requires_review).then(|| seats.take(course_batch.id));
        if place == Some(Place::Full) {
            return None;
        }
        let answers = delivery.command.answers.as_ref().map(|answers| serde_json::json!(answers));
        Some(Self {
            id: ids::new_id(),
            student_id: account.id,
            answers,
            operation_id: delivery.id,
            ..Self::at(course_batch, place, provisional)
        })
    }

    /// The admission that a new visitor would get; it takes no place and is not stored. Where even the waitlist is full, a
    /// new visitor would be refused, but a registered one who asks again must not be, so this is the waitlist's end.
    pub fn decoy(course_batch: &CourseBatchSeats) -> Self {
        let place = match course_batch.next_place() {
            Place::Full => {
                Place::Waitlist { seq: course_batch.next_waitlist_seq, position: course_batch.waitlist_taken }
            }
            place => place,
        };
        Self::at(course_batch, (!course_batch.requires_review).then_some(place), true)
    }

    /// Returns the result for the client; the request number is filled in later.
    pub fn result(&self, course_batch: &CourseBatchSeats) -> SubmittedRegistration {
        SubmittedRegistration {
            registration_id: self.id,
            request_no: String::new(),
            batch_id: course_batch.id,
            status: self.status,
            amount_due: self.fee + self.tax,
            currency: self.currency.clone(),
            hold_expires_at: self.hold_expires_at,
            waitlist_position: self.position,
        }
    }

    /// Returns the notice of the admission; the request number is filled in later.
    pub fn notice(&self, course_batch: &CourseBatchSeats, account: &Account) -> Notice {
        Notice {
            user_id: account.id,
            email: account.email.clone(),
            name: account.name.clone(),
            locale: account.locale.clone(),
            registration_id: self.id,
            request_no: String::new(),
            status: self.status,
            course: course_batch.course.clone(),
            course_batch: course_batch.name.clone(),
            amount_due: self.fee + self.tax,
            currency: self.currency.clone(),
            deposit: self.deposit,
            deadline: self.hold_expires_at,
            position: self.position,
            token_id: None,
        }
    }

    fn at(course_batch: &CourseBatchSeats, place: Option<Place>, provisional: bool) -> Self {
        let tax = course_batch.tax();
        let hold_end = if provisional { course_batch.confirm_end() } else { course_batch.hold_end() };
        let (status, hold_expires_at, waitlist) = match place {
            None => (RegistrationStatus::UnderReview, None, None),
            Some(Place::Waitlist { seq, position }) => (RegistrationStatus::Waitlisted, None, Some((seq, position))),
            Some(_) => (RegistrationStatus::SeatHeld, Some(hold_end), None),
        };
        Self {
            id: ids::new_id(),
            student_id: Uuid::nil(),
            batch_id: course_batch.id,
            status,
            provisional,
            fee: course_batch.fee,
            tax_rate: course_batch.tax_rate,
            tax,
            deposit: course_batch.deposit.map(|deposit| deposit.min(course_batch.fee + tax)),
            currency: course_batch.currency.clone(),
            hold_expires_at,
            waitlist_seq: waitlist.map(|(seq, _)| seq),
            position: waitlist.map(|(_, position)| position),
            answers: None,
            operation_id: Uuid::nil(),
        }
    }
}

impl Admissions {
    /// Adds an admission. A visitor gets a magic link, unless the account is one that a mailed link must not open.
    pub fn add(&mut self, admission: Admission, account: &Account) {
        if admission.provisional && account.may_register {
            self.links.insert(admission.id, (account.id, admission.hold_expires_at));
        }
        self.rows.push(admission);
    }

    /// Adds the decoy of a visitor who is registered already, with a fresh link for the owner of the mailbox.
    pub fn repeat(&mut self, decoy: Admission, account: &Account, notice: &Notice) {
        if account.may_register {
            self.links.entry(notice.registration_id).or_insert((account.id, notice.deadline));
        }
        self.decoys.push(decoy.id);
    }

    /// Returns the links to create: student, registration, end of the hold.
    pub fn links(&self) -> impl Iterator<Item = (Uuid, Uuid, Option<DateTime<Utc>>)> {
        self.links.iter().map(|(registration_id, (student_id, end))| (*student_id, *registration_id, *end))
    }

    /// Inserts the rows; returns the request numbers of rows and decoys, by registration. A decoy uses up a number, so
    /// that a visitor cannot tell it from a row.
    ///
    /// # Errors
    /// The database's.
    pub async fn save(&self, tx: &mut PgConnection) -> Result<HashMap<Uuid, String>, Failure> {
        let mut request_nos = self.insert(tx).await?;
        if !self.decoys.is_empty() {
            let decoys = sqlx::query!(
                r#"
                SELECT id AS "id!", 'R-' || lpad(nextval('registration_request_no_seq')::text, 10, '0') AS "request_no!"
                FROM UNNEST($1::uuid[]) AS n (id)
                "#,
                &self.decoys,
            )
            .fetch_all(tx)
            .await?;
            request_nos.extend(decoys.into_iter().map(|row| (row.id, row.request_no)));
        }
        Ok(request_nos)
    }

    async fn insert(&self, tx: &mut PgConnection) -> Result<HashMap<Uuid, String>, Failure> {
        if self.rows.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = &self.rows;
        let inserted = sqlx::query!(
            r#"
            INSERT INTO student_registrations
                   (id, student_id, batch_id, status, provisional, fee, tax_rate, tax, amount_due, deposit, currency,
                    hold_expires_at, waitlist_seq, answers, operation_id)
            SELECT id, student_id, batch_id, status, provisional, fee, tax_rate, tax, fee + tax, deposit, currency,
                   hold_expires_at, waitlist_seq, answers, operation_id
            FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bool[], $6::numeric[], $7::numeric[],
                        $8::numeric[], $9::numeric[], $10::text[], $11::timestamptz[], $12::int8[], $13::jsonb[],
                        $14::uuid[])
                 AS n (id, student_id, batch_id, status, provisional, fee, tax_rate, tax, deposit, currency,
                       hold_expires_at, waitlist_seq, answers, operation_id)
            RETURNING id, request_no
            "#,
            &rows.iter().map(|r| r.id).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.student_id).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.batch_id).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.status.name().to_owned()).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.provisional).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.fee).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.tax_rate).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.tax).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.deposit).collect::<Vec<_>>() as &[Option<Decimal>],
            &rows.iter().map(|r| r.currency.clone()).collect::<Vec<_>>(),
            &rows.iter().map(|r| r.hold_expires_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
            &rows.iter().map(|r| r.waitlist_seq).collect::<Vec<_>>() as &[Option<i64>],
            &rows.iter().map(|r| r.answers.clone()).collect::<Vec<_>>() as &[Option<Value>],
            &rows.iter().map(|r| r.operation_id).collect::<Vec<_>>(),
        )
        .fetch_all(tx)
        .await?;
        Ok(inserted.into_iter().map(|row| (row.id, row.request_no)).collect())
    }
}
