//! The seats and waitlists of some course batches, locked. A seat is given only while nobody waits, and a command that
//! frees one promotes the waitlist's head in the same transaction: so nobody is oversold or overtaken, by construction.
//! All decisions are made here in memory, between the lock and one write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Notice, Registration, RegistrationStatus, Registrations, enrollment, magic_links};
use crate::runtime::Failure;

/// A locked course batch with its counters.
#[derive(Clone, Debug)]
pub struct CourseBatchSeats {
    /// `batches.id`.
    pub id: Uuid,
    /// The name of the course batch.
    pub name: String,
    /// The course's title.
    pub course: String,
    /// True where the public may see the course batch.
    pub published: bool,
    /// True where registrations are taken inside the window.
    pub open: bool,
    /// The start of the registration window.
    pub opens_at: DateTime<Utc>,
    /// The end of the registration window.
    pub closes_at: DateTime<Utc>,
    /// Seats in all.
    pub capacity: i32,
    /// Seats held or confirmed.
    pub seats_taken: i32,
    /// Places on the waitlist in all.
    pub waitlist_capacity: i32,
    /// Registrations that wait.
    pub waitlist_taken: i32,
    /// The number of the next place on the waitlist; never used twice.
    pub next_waitlist_seq: i64,
    /// The length of a provisional hold.
    pub confirm_minutes: i32,
    /// The length of a hold.
    pub hold_minutes: i32,
    /// The fee before tax: the course batch's own, or the course's.
    pub fee: Decimal,
    /// Tax in per cent, on top of the fee.
    pub tax_rate: Decimal,
    /// The sum that confirms the seat, where that is less than everything.
    pub deposit: Option<Decimal>,
    /// ISO 4217.
    pub currency: String,
    /// True where an admin reviews every applicant.
    pub requires_review: bool,
    /// The database's time of this transaction.
    pub now: DateTime<Utc>,
}

/// The place that a registration gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A seat.
    Seat,
    /// A place on the waitlist.
    Waitlist {
        /// `student_registrations.waitlist_seq`.
        seq: i64,
        /// Registrations that wait, this one included.
        position: i32,
    },
    /// None: seats and waitlist are full.
    Full,
}

/// Some course batches, locked until the transaction ends.
#[derive(Debug, Default)]
pub struct Seats {
    course_batches: BTreeMap<Uuid, CourseBatchSeats>,
    changed: BTreeSet<Uuid>,
    /// Course batches where a place became free, with the first operation that freed one: its follow-ups notify the
    /// promoted.
    freed: BTreeMap<Uuid, Uuid>,
}

impl CourseBatchSeats {
    /// Returns the tax on the fee, rounded to two decimals.
    pub fn tax(&self) -> Decimal {
        let mut tax = (self.fee * self.tax_rate / Decimal::ONE_HUNDRED)
            .round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
        tax.rescale(2);
        tax
    }

    /// Returns the end of a hold that begins now.
    pub fn hold_end(&self) -> DateTime<Utc> {
        self.now + TimeDelta::minutes(self.hold_minutes.into())
    }

    /// Returns the end of a provisional hold that begins now.
    pub fn confirm_end(&self) -> DateTime<Utc> {
        self.now + TimeDelta::minutes(self.confirm_minutes.into())
    }

    /// Returns the place that the next registration would get.
    pub fn next_place(&self) -> Place {
        if self.waitlist_taken == 0 && self.seats_taken < self.capacity {
            Place::Seat
        } else if self.waitlist_taken < self.waitlist_capacity {
            Place::Waitlist { seq: self.next_waitlist_seq, position: self.waitlist_taken + 1 }
        } else {
            Place::Full
        }
    }

    /// Returns how many of those on the waitlist can be seated now.
    fn promotable(&self) -> i64 {
        (self.capacity - self.seats_taken).min(self.waitlist_taken).into()
    }
}

impl Seats {
    /// Locks these course batches, in id order; those that do not exist are absent.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock(tx: &mut PgConnection, batch_ids: impl IntoIterator<Item = Uuid>) -> Result<Self, Failure> {
        let ids: Vec<Uuid> = batch_ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let course_batches = sqlx::query_as!(
            CourseBatchSeats,
            r#"
            SELECT b.id, b.name, c.title                                                 AS course,
                   (b.deleted_at IS NULL AND c.deleted_at IS NULL AND b.status <> 'draft') AS "published!",
                   (b.status = 'open' AND c.status = 'published')                        AS "open!",
                   b.opens_at, b.closes_at, b.capacity, b.seats_taken, b.waitlist_capacity, b.waitlist_taken,
                   b.next_waitlist_seq, b.confirm_minutes, b.hold_minutes,
                   COALESCE(b.fee, c.base_fee)                                           AS "fee!",
                   c.tax_rate, b.deposit, c.currency, b.requires_review,
                   now()                                                                 AS "now!"
            FROM batches b
            JOIN courses c ON c.id = b.course_id
            WHERE b.id = ANY($1)
            ORDER BY b.id
            FOR NO KEY UPDATE OF b
            "#,
            &ids,
        )
        .fetch_all(tx)
        .await?;
        let course_batches = course_batches.into_iter().map(|course_batch| (course_batch.id, course_batch)).collect();
        Ok(Self { course_batches, ..Self::default() })
    }

    /// Locks the course batches of these registrations. A registration never changes its course batch, so they can be
    /// looked up first.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock_of_registrations(tx: &mut PgConnection, registration_ids: &[Uuid]) -> Result<Self, Failure> {
        let batch_ids = sqlx::query_scalar!(
            "SELECT DISTINCT batch_id FROM student_registrations WHERE id = ANY($1)",
            registration_ids,
        )
        .fetch_all(&mut *tx)
        .await?;
        Self::lock(tx, batch_ids).await
    }

    /// Locks the course batches of those registrations that neither hold a seat nor were confirmed: a decision about the
    /// others changes no counter and nobody's place, so it need not wait for commands that do. A registration may have
    /// lost its seat by the time it is locked; see [`Self::covers`].
    ///
    /// # Errors
    /// The database's.
    pub async fn lock_of_seatless(tx: &mut PgConnection, registration_ids: &[Uuid]) -> Result<Self, Failure> {
        let batch_ids = sqlx::query_scalar!(
            "SELECT DISTINCT batch_id FROM student_registrations WHERE id = ANY($1) AND phase NOT IN ('held', 'confirmed')",
            registration_ids,
        )
        .fetch_all(&mut *tx)
        .await?;
        if batch_ids.is_empty() { Ok(Self::default()) } else { Self::lock(tx, batch_ids).await }
    }

    /// Returns true where the course batch of this locked registration is locked, or need not be.
    pub fn covers(&self, registration: &Registration) -> bool {
        registration.status.has_seat() || self.course_batches.contains_key(&registration.batch_id)
    }

    /// Returns a course batch, if it exists.
    pub fn get(&self, batch_id: Uuid) -> Option<&CourseBatchSeats> {
        self.course_batches.get(&batch_id)
    }

    /// Returns the course batch of a locked registration.
    pub fn of(&self, batch_id: Uuid) -> &CourseBatchSeats {
        self.course_batches.get(&batch_id).expect("the course batch was locked before its registration")
    }

    /// Takes a seat, or a place on the waitlist, in a locked course batch.
    pub fn take(&mut self, batch_id: Uuid) -> Place {
        let place = self.of(batch_id).next_place();
        let course_batch = self.change(batch_id);
        match place {
            Place::Seat => course_batch.seats_taken += 1,
            Place::Waitlist { .. } => {
                course_batch.waitlist_taken += 1;
                course_batch.next_waitlist_seq += 1;
            }
            Place::Full => {}
        }
        place
    }

    /// Takes a seat where one is free and nobody waits, never a place on the waitlist; returns true where it did.
    pub fn take_seat(&mut self, batch_id: Uuid) -> bool {
        let free = self.of(batch_id).next_place() == Place::Seat;
        if free {
            self.change(batch_id).seats_taken += 1;
        }
        free
    }

    /// Gives back the seat or waitlist place of a registration with this status, on behalf of an operation.
    pub fn give_back(&mut self, batch_id: Uuid, status: RegistrationStatus, operation_id: Uuid) {
        let course_batch = self.change(batch_id);
        if status.has_seat() {
            course_batch.seats_taken -= 1;
        } else if status == RegistrationStatus::Waitlisted {
            course_batch.waitlist_taken -= 1;
        } else {
            return;
        }
        self.freed.entry(batch_id).or_insert(operation_id);
    }

    /// Promotes the heads of the waitlists where a place was given back, in the order of `waitlist_seq`; returns their
    /// notices by the operation that freed the first place. Call it after the registrations that left have been saved.
    /// A student who has paid already is confirmed at once; one whose payment is under review keeps the seat until it is
    /// decided.
    ///
    /// # Errors
    /// The database's.
    pub async fn promote(&mut self, tx: &mut PgConnection) -> Result<HashMap<Uuid, Vec<Notice>>, Failure> {
        let heads = self.heads(tx).await?;
        if heads.is_empty() {
            return Ok(HashMap::new());
        }
        let mut promoted = Registrations::lock(tx, heads.iter().copied()).await?;
        let submitted = promoted.submitted_payments(tx).await?;
        let mut enrolled = Vec::new();
        for id in &heads {
            let Some(registration) = promoted.change(*id) else {
                continue;
            };
            let course_batch = self.change(registration.batch_id);
            course_batch.seats_taken += 1;
            course_batch.waitlist_taken -= 1;
            registration.hold_expires_at = Some(course_batch.hold_end());
            registration.status = if registration.is_paid() {
                enrolled.push((self.freed[&registration.batch_id], registration.clone()));
                RegistrationStatus::Confirmed
            } else if submitted.contains_key(id) {
                RegistrationStatus::PaymentSubmitted
            } else {
                RegistrationStatus::SeatHeld
            };
        }
        promoted.save(tx).await?;
        enrollment::enroll(tx, &enrolled).await?;
        let links = promoted.iter().filter(|r| r.needs_link).map(|r| (r.student_id, r.id, r.hold_expires_at));
        let tokens = magic_links::create(tx, links).await?;
        let mut notices: HashMap<Uuid, Vec<Notice>> = HashMap::new();
        for id in &heads {
            let Some(registration) = promoted.get(*id) else {
                continue;
            };
            let notice = registration.notice().token(tokens.get(id).copied());
            notices.entry(self.freed[&registration.batch_id]).or_default().push(notice);
        }
        Ok(notices)
    }

    /// Writes the counters that changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn save(&self, tx: &mut PgConnection) -> Result<(), Failure> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let changed: Vec<&CourseBatchSeats> = self.changed.iter().map(|id| self.of(*id)).collect();
        sqlx::query!(
            r#"
            UPDATE batches b
            SET seats_taken       = n.seats_taken,
                waitlist_taken    = n.waitlist_taken,
                next_waitlist_seq = n.next_waitlist_seq,
                updated_at        = now()
            FROM UNNEST($1::uuid[], $2::int4[], $3::int4[], $4::int8[])
                 AS n (id, seats_taken, waitlist_taken, next_waitlist_seq)
            WHERE b.id = n.id
            "#,
            &changed.iter().map(|b| b.id).collect::<Vec<_>>(),
            &changed.iter().map(|b| b.seats_taken).collect::<Vec<_>>(),
            &changed.iter().map(|b| b.waitlist_taken).collect::<Vec<_>>(),
            &changed.iter().map(|b| b.next_waitlist_seq).collect::<Vec<_>>(),
        )
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Returns the registrations to promote, by course batch and waitlist number. Only the holder of the course batch's
    /// lock changes its waitlist, so this needs no other lock.
    async fn heads(&self, tx: &mut PgConnection) -> Result<Vec<Uuid>, Failure> {
        let free: Vec<(Uuid, i64)> =
            self.freed.keys().map(|id| (*id, self.of(*id).promotable())).filter(|(_, seats)| *seats > 0).collect();
        if free.is_empty() {
            return Ok(Vec::new());
        }
        let heads = sqlx::query_scalar!(
            r#"
            SELECT head.id AS "id!"
            FROM UNNEST($1::uuid[], $2::int8[]) AS free (batch_id, seats)
            CROSS JOIN LATERAL (
                SELECT r.id, r.waitlist_seq
                FROM student_registrations r
                WHERE r.batch_id = free.batch_id AND r.phase = 'waitlisted'
                ORDER BY r.waitlist_seq
                LIMIT free.seats
            ) AS head
            ORDER BY free.batch_id, head.waitlist_seq
            "#,
            &free.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            &free.iter().map(|(_, seats)| *seats).collect::<Vec<_>>(),
        )
        .fetch_all(tx)
        .await?;
        Ok(heads)
    }

    fn change(&mut self, batch_id: Uuid) -> &mut CourseBatchSeats {
        self.changed.insert(batch_id);
        self.course_batches.get_mut(&batch_id).expect("the course batch was locked before its registration")
    }
}
