//! Rows that tests start from, inserted directly as the database's owner, with every invariant that the platform keeps
//! (counters of a course batch, statuses, amounts). Set-based: thousands of rows are one statement.

use chrono::{DateTime, Duration, Utc};
use contracts::{Role, ids::new_id, validation::normalise_reference};
use rust_decimal::Decimal;
use sqlx::PgPool;
use uuid::Uuid;

/// The password of every user created here.
pub const PASSWORD: &str = "correct horse battery staple";
/// The lowest that bcrypt allows: tests sign in often.
const BCRYPT_COST: u32 = 4;

/// A user who can sign in with [`PASSWORD`].
#[derive(Clone, Debug)]
pub struct User {
    /// `users.id`.
    pub id: Uuid,
    /// `users.email`.
    pub email: String,
    /// `users.role`.
    pub role: Role,
}

/// A course batch to be inserted, with a course of its own. The default: ten seats, no waitlist, open, 10,000.00 INR and
/// 18 % tax, so 11,800.00 due.
#[derive(Clone, Debug)]
pub struct NewCourseBatch {
    /// Seats.
    pub capacity: i32,
    /// Waitlist places.
    pub waitlist_capacity: i32,
    /// Net fee, in INR.
    pub fee: Decimal,
    /// Per cent.
    pub tax_rate: Decimal,
    /// Gross amount that confirms a registration; absent: the whole amount due.
    pub deposit: Option<Decimal>,
    /// True if an admin reviews registrations first.
    pub requires_review: bool,
    /// `open`, `closed`, `draft`, …
    pub status: &'static str,
    /// Start of the registration window.
    pub opens_at: DateTime<Utc>,
    /// End of the registration window.
    pub closes_at: DateTime<Utc>,
    /// Duration of a visitor's provisional hold, minutes.
    pub confirm_minutes: i32,
    /// Duration of a hold, minutes.
    pub hold_minutes: i32,
}

/// A course batch in the database.
#[derive(Clone, Debug)]
pub struct InsertedCourseBatch {
    /// `batches.id`.
    pub id: Uuid,
    /// `courses.id`.
    pub course_id: Uuid,
    /// Net fee.
    pub fee: Decimal,
    /// Per cent.
    pub tax_rate: Decimal,
    /// Gross amount that a registration owes.
    pub amount_due: Decimal,
    /// Currency code (ISO 4217).
    pub currency: &'static str,
}

impl Default for NewCourseBatch {
    fn default() -> Self {
        Self {
            capacity: 10,
            waitlist_capacity: 0,
            fee: Decimal::new(1_000_000, 2),
            tax_rate: Decimal::from(18),
            deposit: None,
            requires_review: false,
            status: "open",
            opens_at: Utc::now() - Duration::days(1),
            closes_at: Utc::now() + Duration::days(30),
            confirm_minutes: 30,
            hold_minutes: 60,
        }
    }
}

impl NewCourseBatch {
    /// The default with this many seats.
    pub fn of(capacity: i32) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Sets the number of waitlist places.
    #[must_use]
    pub fn waitlist(self, waitlist_capacity: i32) -> Self {
        Self { waitlist_capacity, ..self }
    }

    /// Inserts it with a course of its own, whose creator is a new admin.
    pub async fn insert(self, db: &PgPool) -> InsertedCourseBatch {
        let course_id = course(db, self.fee, self.tax_rate).await;
        let id = new_id();
        let start = (self.closes_at + Duration::days(7)).date_naive();
        sqlx::query!(
            "INSERT INTO batches (id, course_id, code, name, mode, capacity, waitlist_capacity, start_date, end_date, opens_at,
                                  closes_at, confirm_minutes, hold_minutes, fee, deposit, requires_review, status)
             VALUES ($1, $2, $3, 'Morning batch', 'online', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            id,
            course_id,
            code("B", id),
            self.capacity,
            self.waitlist_capacity,
            start,
            start + Duration::days(90),
            self.opens_at,
            self.closes_at,
            self.confirm_minutes,
            self.hold_minutes,
            self.fee,
            self.deposit,
            self.requires_review,
            self.status
        )
        .execute(db)
        .await
        .expect("the course batch satisfies the table's checks");
        let tax = tax_of(self.fee, self.tax_rate);
        InsertedCourseBatch {
            id,
            course_id,
            fee: self.fee,
            tax_rate: self.tax_rate,
            amount_due: self.fee + tax,
            currency: "INR",
        }
    }
}

/// Inserts a published course, whose creator is a new admin.
pub async fn course(db: &PgPool, fee: Decimal, tax_rate: Decimal) -> Uuid {
    let id = new_id();
    let admin = user(db, &format!("admin.{}@example.org", code("c", id)), Role::Admin).await;
    sqlx::query!(
        "INSERT INTO courses (id, code, slug, title, description, duration_weeks, base_fee, currency, tax_rate, status, created_by)
         VALUES ($1, $2, lower($2), 'Data engineering', 'Pipelines, queues and tables.', 12, $3, 'INR', $4, 'published', $5)",
        id,
        code("C", id),
        fee,
        tax_rate,
        admin.id
    )
    .execute(db)
    .await
    .expect("the course satisfies the table's checks");
    id
}

/// Inserts an active user with a profile and the password [`PASSWORD`].
pub async fn user(db: &PgPool, email: &str, role: Role) -> User {
    users(db, &[email.to_owned()], role).await.remove(0)
}

/// Inserts active users with profiles and the password [`PASSWORD`], in the order of the addresses.
pub async fn users(db: &PgPool, emails: &[String], role: Role) -> Vec<User> {
    let ids: Vec<Uuid> = emails.iter().map(|_| new_id()).collect();
    let hash = bcrypt::hash(PASSWORD, BCRYPT_COST).expect("the password and the cost are within bcrypt's bounds");
    sqlx::query!(
        "WITH added AS (
             INSERT INTO users (id, email, password_hash, role, status, email_verified_at)
             SELECT id, email::citext, $3, $4, 'active', now()
               FROM UNNEST($1::uuid[], $2::text[]) AS new (id, email)
             RETURNING id, email
         )
         INSERT INTO user_profiles (id, user_id, full_name)
         SELECT gen_random_uuid(), id, 'Asha ' || initcap(split_part(email::text, '.', 1)) FROM added",
        &ids,
        emails,
        hash,
        role.name()
    )
    .execute(db)
    .await
    .expect("the addresses are valid and new");
    ids.into_iter().zip(emails).map(|(id, email)| User { id, email: email.clone(), role }).collect()
}

/// Inserts this many students: `<prefix>0@…`, `<prefix>1@…`, in that order.
pub async fn students(db: &PgPool, prefix: &str, count: usize) -> Vec<User> {
    let emails: Vec<String> = (0..count).map(|n| format!("{prefix}{n}@example.org")).collect();
    users(db, &emails, Role::Student).await
}

/// Inserts a registration of the student, in this status.
pub async fn registration(db: &PgPool, course_batch: &InsertedCourseBatch, student_id: Uuid, status: &str) -> Uuid {
    registrations(db, course_batch, &[student_id], status).await.remove(0)
}

/// Inserts a registration per student, in this status and the order of the students, with the course batch's counters
/// and waitlist numbers.
pub async fn registrations(
    db: &PgPool,
    course_batch: &InsertedCourseBatch,
    student_ids: &[Uuid],
    status: &str,
) -> Vec<Uuid> {
    let ids: Vec<Uuid> = student_ids.iter().map(|_| new_id()).collect();
    sqlx::query!(
        "WITH batch AS (
             UPDATE batches
                SET seats_taken       = seats_taken       + CASE WHEN $4 IN ('seat_held', 'payment_submitted', 'confirmed')
                                                                 THEN cardinality($1::uuid[]) ELSE 0 END,
                    waitlist_taken    = waitlist_taken    + CASE WHEN $4 = 'waitlisted' THEN cardinality($1::uuid[]) ELSE 0 END,
                    next_waitlist_seq = next_waitlist_seq + CASE WHEN $4 = 'waitlisted' THEN cardinality($1::uuid[]) ELSE 0 END
              WHERE id = $3
             RETURNING id, next_waitlist_seq, hold_minutes, deposit
         )
         INSERT INTO student_registrations (id, student_id, batch_id, status, fee, tax_rate, tax, amount_due, deposit, amount_paid,
                                            currency, confirmed_by_mail_at, hold_expires_at, waitlist_seq, operation_id)
         SELECT new.id, new.student_id, batch.id, $4, $5, $6, $7, $8::numeric, batch.deposit,
                CASE WHEN $4 = 'confirmed' THEN $8::numeric ELSE 0 END, $9, now(),
                CASE WHEN $4 IN ('seat_held', 'expired') THEN now() + make_interval(mins => batch.hold_minutes) END,
                CASE WHEN $4 = 'waitlisted' THEN batch.next_waitlist_seq - cardinality($1::uuid[]) + new.n - 1 END,
                gen_random_uuid()
           FROM batch, UNNEST($1::uuid[], $2::uuid[]) WITH ORDINALITY AS new (id, student_id, n)",
        &ids,
        student_ids,
        course_batch.id,
        status,
        course_batch.fee,
        course_batch.tax_rate,
        tax_of(course_batch.fee, course_batch.tax_rate),
        course_batch.amount_due,
        course_batch.currency
    )
    .execute(db)
    .await
    .expect("the course batch has room and the students are not registered");
    ids
}

/// Inserts a submitted payment of this amount, under this reference; the registration becomes `payment_submitted`.
pub async fn payment(db: &PgPool, registration_id: Uuid, reference: &str, amount: Decimal) -> Uuid {
    payments(db, &[(registration_id, reference.to_owned())], amount).await.remove(0)
}

/// Inserts a submitted payment per registration, in order; a registration becomes `payment_submitted` where its seat is
/// held.
pub async fn payments(db: &PgPool, registrations: &[(Uuid, String)], amount: Decimal) -> Vec<Uuid> {
    let ids: Vec<Uuid> = registrations.iter().map(|_| new_id()).collect();
    let (registration_ids, typed): (Vec<Uuid>, Vec<String>) = registrations.iter().cloned().unzip();
    let references: Vec<String> = typed.iter().map(|typed| normalise_reference(typed)).collect();
    sqlx::query!(
        "WITH new AS (
             SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS new (id, registration_id, typed, reference)
         ), submitted AS (
             UPDATE student_registrations
                SET status = 'payment_submitted', hold_expires_at = NULL
              WHERE id = ANY($2) AND status = 'seat_held'
         )
         INSERT INTO payments (id, registration_id, student_id, method, transaction_id, transaction_ref, amount, currency, paid_at,
                               status, operation_id)
         SELECT new.id, registration.id, registration.student_id, 'bank_transfer', new.typed, new.reference, $5,
                registration.currency, now(), 'submitted', gen_random_uuid()
           FROM new JOIN student_registrations AS registration ON registration.id = new.registration_id",
        &ids,
        &registration_ids,
        &typed,
        &references,
        amount
    )
    .execute(db)
    .await
    .expect("the references are not taken");
    ids
}

fn tax_of(fee: Decimal, tax_rate: Decimal) -> Decimal {
    (fee * tax_rate / Decimal::ONE_HUNDRED).round_dp(2)
}

/// A unique code, from the random end of an id.
fn code(prefix: &str, id: Uuid) -> String {
    format!("{prefix}{}", &id.simple().to_string()[20..])
}
