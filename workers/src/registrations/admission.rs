//! What a registration becomes when it is let in: its place, its price as of now, the end of its hold; and the rows that
//! come of a whole batch of them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::{
    ids,
    messages::{Registrant, SubmitRegistration},
};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Notice, Place, RegistrationStatus, Seats,
    registrants::{Account, Registrants},
    seats::BatchSeats,
    submit_registration::SubmittedRegistration,
};
use crate::runtime::{Delivery, Failure};

/// One registration that is let in.
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

/// Everybody of a batch who is let in, the links that they need, and the decoys of those who were in already.
#[derive(Debug, Default)]
pub struct Admissions {
    rows: Vec<Admission>,
    decoys: Vec<Uuid>,
    links: HashMap<Uuid, (Uuid, Option<DateTime<Utc>>)>,
}

/// The active registrations of a batch's registrants, by student and course batch: of before, and of this batch so far.
#[derive(Debug, Default)]
pub struct Existing {
    notices: HashMap<(Uuid, Uuid), Notice>,
}

impl Admission {
    /// Takes a place, if there is one.
    pub fn new(
        seats: &mut Seats,
        batch: &BatchSeats,
        account: &Account,
        delivery: &Delivery<SubmitRegistration>,
    ) -> Option<Self> {
        let provisional = matches!(delivery.command.registrant, Registrant::Visitor { .. });
        let place = (!batch.requires_review).then(|| seats.take(batch.id));
        if place == Some(Place::Full) {
            return None;
        }
        let answers = delivery.command.answers.as_ref().map(|answers| serde_json::json!(answers));
        Some(Self {
            id: ids::new_id(),
            student_id: account.id,
            answers,
            operation_id: delivery.id,
            ..Self::at(batch, place, provisional)
        })
    }

    /// What a new visitor would be told: nothing is taken and nothing is kept. Where even the waitlist is full, a new
    /// visitor would be refused, but an owner who asks twice must not be, so the answer is the waitlist's end.
    pub fn decoy(batch: &BatchSeats) -> Self {
        let place = match batch.next_place() {
            Place::Full => Place::Waitlist { seq: batch.next_waitlist_seq, position: batch.waitlist_taken },
            place => place,
        };
        Self::at(batch, (!batch.requires_review).then_some(place), true)
    }

    /// What the client is told; the number is filled in later.
    pub fn result(&self, batch: &BatchSeats) -> SubmittedRegistration {
        SubmittedRegistration {
            registration_id: self.id,
            request_no: String::new(),
            batch_id: batch.id,
            status: self.status,
            amount_due: self.fee + self.tax,
            currency: self.currency.clone(),
            hold_expires_at: self.hold_expires_at,
            waitlist_position: self.position,
        }
    }

    /// What a message about it has to say; the number is filled in later.
    pub fn notice(&self, batch: &BatchSeats, account: &Account) -> Notice {
        Notice {
            user_id: account.id,
            email: account.email.clone(),
            name: account.name.clone(),
            locale: account.locale.clone(),
            registration_id: self.id,
            request_no: String::new(),
            status: self.status,
            course: batch.course.clone(),
            batch: batch.name.clone(),
            amount_due: self.fee + self.tax,
            currency: self.currency.clone(),
            deposit: self.deposit,
            deadline: self.hold_expires_at,
            position: self.position,
            token_id: None,
        }
    }

    fn at(batch: &BatchSeats, place: Option<Place>, provisional: bool) -> Self {
        let tax = batch.tax();
        let hold_end = if provisional { batch.confirm_end() } else { batch.hold_end() };
        let (status, hold_expires_at, waitlist) = match place {
            None => (RegistrationStatus::UnderReview, None, None),
            Some(Place::Waitlist { seq, position }) => (RegistrationStatus::Waitlisted, None, Some((seq, position))),
            Some(_) => (RegistrationStatus::SeatHeld, Some(hold_end), None),
        };
        Self {
            id: ids::new_id(),
            student_id: Uuid::nil(),
            batch_id: batch.id,
            status,
            provisional,
            fee: batch.fee,
            tax_rate: batch.tax_rate,
            tax,
            deposit: batch.deposit.map(|deposit| deposit.min(batch.fee + tax)),
            currency: batch.currency.clone(),
            hold_expires_at,
            waitlist_seq: waitlist.map(|(seq, _)| seq),
            position: waitlist.map(|(_, position)| position),
            answers: None,
            operation_id: Uuid::nil(),
        }
    }
}

impl Admissions {
    /// Adds one. A visitor gets a link, unless the account is one that a mailed link must not open.
    pub fn add(&mut self, admission: Admission, account: &Account) {
        if admission.provisional && account.may_register {
            self.links.insert(admission.id, (account.id, admission.hold_expires_at));
        }
        self.rows.push(admission);
    }

    /// Adds a visitor who is in already, with a fresh link for the owner of the mailbox.
    pub fn repeat(&mut self, decoy: Admission, account: &Account, notice: &Notice) {
        if account.may_register {
            self.links.entry(notice.registration_id).or_insert((account.id, notice.deadline));
        }
        self.decoys.push(decoy.id);
    }

    /// The links to make: student, registration, end of the hold.
    pub fn links(&self) -> impl Iterator<Item = (Uuid, Uuid, Option<DateTime<Utc>>)> {
        self.links.iter().map(|(registration_id, (student_id, end))| (*student_id, *registration_id, *end))
    }

    /// Writes the rows; returns the numbers of rows and decoys, by registration. A decoy uses up a number, so that
    /// a visitor cannot tell it from a row.
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

impl Existing {
    /// Looks up the active registrations of these registrants in these course batches. The batches are locked, so no
    /// other can appear before the transaction ends.
    ///
    /// # Errors
    /// The database's.
    pub async fn find(
        tx: &mut PgConnection,
        batch: &[Delivery<SubmitRegistration>],
        registrants: &Registrants,
    ) -> Result<Self, Failure> {
        let account = |delivery: &Delivery<SubmitRegistration>| match &delivery.command.registrant {
            Registrant::Student { student_id } => registrants.student(*student_id).map(|account| account.id),
            Registrant::Visitor { email, .. } => registrants.of_email(email).map(|account| account.id),
        };
        let (students, batches): (Vec<Uuid>, Vec<Uuid>) =
            batch.iter().filter_map(|delivery| Some((account(delivery)?, delivery.command.batch_id))).unzip();
        if students.is_empty() {
            return Ok(Self::default());
        }
        let rows = sqlx::query!(
            r#"
            SELECT r.id, r.student_id, r.batch_id, r.request_no, r.status AS "status: RegistrationStatus",
                   r.amount_due, r.currency, r.deposit, r.hold_expires_at,
                   c.title AS course, b.name AS batch, u.email::text AS "email!",
                   COALESCE(p.full_name, u.email::text) AS "name!", COALESCE(p.locale, 'en') AS "locale!"
            FROM (SELECT DISTINCT * FROM UNNEST($1::uuid[], $2::uuid[])) AS asked (student_id, batch_id)
            CROSS JOIN LATERAL (
                SELECT *
                FROM student_registrations r
                WHERE r.student_id = asked.student_id AND r.batch_id = asked.batch_id
                  AND r.phase IN ('submitted', 'under_review', 'held', 'waitlisted', 'confirmed')
                OFFSET 0  -- by its own index for each, whatever the statistics say
            ) r
            JOIN batches b            ON b.id = r.batch_id
            JOIN courses c            ON c.id = b.course_id
            JOIN users u              ON u.id = r.student_id
            LEFT JOIN user_profiles p ON p.user_id = r.student_id
            "#,
            &students,
            &batches,
        )
        .fetch_all(tx)
        .await?;
        let notices = rows.into_iter().map(|row| {
            let notice = Notice {
                user_id: row.student_id,
                email: row.email,
                name: row.name,
                locale: row.locale,
                registration_id: row.id,
                request_no: row.request_no,
                status: row.status,
                course: row.course,
                batch: row.batch,
                amount_due: row.amount_due,
                currency: row.currency,
                deposit: row.deposit,
                deadline: row.hold_expires_at.filter(|_| row.status == RegistrationStatus::SeatHeld),
                position: None,
                token_id: None,
            };
            ((row.student_id, row.batch_id), notice)
        });
        Ok(Self { notices: notices.collect() })
    }

    /// The active registration of a student in a course batch.
    pub fn get(&self, student_id: Uuid, batch_id: Uuid) -> Option<&Notice> {
        self.notices.get(&(student_id, batch_id))
    }

    /// Remembers one that was let in just now.
    pub fn insert(&mut self, student_id: Uuid, batch_id: Uuid, notice: Notice) {
        self.notices.insert((student_id, batch_id), notice);
    }
}
