//! The seat ledger of some course batches, locked. A seat is given only while nobody waits, and whoever frees one
//! promotes the waitlist's head in the same transaction: so nobody is oversold or overtaken, by construction. All
//! decisions are made here in memory, between the lock and one write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Notice, Registration, RegistrationStatus, Registrations, enrollment, magic_links};
use crate::runtime::Failure;

/// One course batch, as locked.
#[derive(Clone, Debug)]
pub struct BatchSeats {
    /// `batches.id`.
    pub id: Uuid,
    /// The batch's name.
    pub name: String,
    /// The course's title.
    pub course: String,
    /// Whether the public may know of it.
    pub published: bool,
    /// Whether it takes registrations inside its window.
    pub open: bool,
    /// Start of the window.
    pub opens_at: DateTime<Utc>,
    /// End of the window.
    pub closes_at: DateTime<Utc>,
    /// Seats in all.
    pub capacity: i32,
    /// Seats held or confirmed.
    pub seats_taken: i32,
    /// Places on the waitlist in all.
    pub waitlist_capacity: i32,
    /// Who waits.
    pub waitlist_taken: i32,
    /// The next place's number; never used twice.
    pub next_waitlist_seq: i64,
    /// A provisional hold's life.
    pub confirm_minutes: i32,
    /// A hold's life.
    pub hold_minutes: i32,
    /// Before tax: the batch's own, or the course's.
    pub fee: Decimal,
    /// Per cent, on top of the fee.
    pub tax_rate: Decimal,
    /// What confirms the seat, where that is less than everything.
    pub deposit: Option<Decimal>,
    /// ISO 4217.
    pub currency: String,
    /// Whether an admin looks at every applicant.
    pub requires_review: bool,
    /// The database's time of this transaction.
    pub now: DateTime<Utc>,
}

/// Where somebody who asks for a seat ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a seat.
    Seat,
    /// On the waitlist.
    Waitlist {
        /// `student_registrations.waitlist_seq`.
        seq: i64,
        /// How many wait, this one included.
        position: i32,
    },
    /// Nowhere.
    Full,
}

/// Some course batches, locked until the transaction ends.
#[derive(Debug, Default)]
pub struct Seats {
    batches: BTreeMap<Uuid, BatchSeats>,
    changed: BTreeSet<Uuid>,
    /// Batches where a place became free, with the first operation that freed one: its follow-ups tell the promoted.
    freed: BTreeMap<Uuid, Uuid>,
}

impl BatchSeats {
    /// Tax on the fee, to two decimals.
    pub fn tax(&self) -> Decimal {
        let mut tax = (self.fee * self.tax_rate / Decimal::ONE_HUNDRED)
            .round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
        tax.rescale(2);
        tax
    }

    /// The end of a hold that begins now.
    pub fn hold_end(&self) -> DateTime<Utc> {
        self.now + TimeDelta::minutes(self.hold_minutes.into())
    }

    /// The end of a provisional hold that begins now.
    pub fn confirm_end(&self) -> DateTime<Utc> {
        self.now + TimeDelta::minutes(self.confirm_minutes.into())
    }

    /// Where the next one would end up.
    pub fn next_place(&self) -> Place {
        if self.waitlist_taken == 0 && self.seats_taken < self.capacity {
            Place::Seat
        } else if self.waitlist_taken < self.waitlist_capacity {
            Place::Waitlist { seq: self.next_waitlist_seq, position: self.waitlist_taken + 1 }
        } else {
            Place::Full
        }
    }
}

impl Seats {
    /// Locks these batches, in id order; those that do not exist are absent.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock(tx: &mut PgConnection, batch_ids: impl IntoIterator<Item = Uuid>) -> Result<Self, Failure> {
        let ids: Vec<Uuid> = batch_ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let batches = sqlx::query_as!(
            BatchSeats,
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
        let batches = batches.into_iter().map(|batch| (batch.id, batch)).collect();
        Ok(Self { batches, ..Self::default() })
    }

    /// Locks the batches of these registrations. A registration never changes its batch, so they can be looked up first.
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

    /// Locks the batches of those registrations that neither hold a seat nor were confirmed: a decision about the others
    /// changes no counter and nobody's place, so it need not wait for those who do. Which they are may have changed when the
    /// registrations are locked; see [`Self::covers`].
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

    /// Whether the batch of this locked registration is locked, or need not be.
    pub fn covers(&self, registration: &Registration) -> bool {
        registration.status.has_seat() || self.batches.contains_key(&registration.batch_id)
    }

    /// A batch, if it exists.
    pub fn get(&self, batch_id: Uuid) -> Option<&BatchSeats> {
        self.batches.get(&batch_id)
    }

    /// The batch of a locked registration.
    pub fn of(&self, batch_id: Uuid) -> &BatchSeats {
        self.batches.get(&batch_id).expect("the batch was locked before its registration")
    }

    /// Takes a seat, or a place on the waitlist, in a batch that was locked.
    pub fn take(&mut self, batch_id: Uuid) -> Place {
        let place = self.of(batch_id).next_place();
        let batch = self.change(batch_id);
        match place {
            Place::Seat => batch.seats_taken += 1,
            Place::Waitlist { .. } => {
                batch.waitlist_taken += 1;
                batch.next_waitlist_seq += 1;
            }
            Place::Full => {}
        }
        place
    }

    /// Takes a seat where one is free and nobody waits; never a place on the waitlist.
    pub fn take_seat(&mut self, batch_id: Uuid) -> bool {
        let free = self.of(batch_id).next_place() == Place::Seat;
        if free {
            self.change(batch_id).seats_taken += 1;
        }
        free
    }

    /// Gives back what a registration in this state holds, on behalf of an operation.
    pub fn give_back(&mut self, batch_id: Uuid, status: RegistrationStatus, operation_id: Uuid) {
        let batch = self.change(batch_id);
        if status.has_seat() {
            batch.seats_taken -= 1;
        } else if status == RegistrationStatus::Waitlisted {
            batch.waitlist_taken -= 1;
        } else {
            return;
        }
        self.freed.entry(batch_id).or_insert(operation_id);
    }

    /// Promotes the heads of the waitlists where a place was given back, in the order of `waitlist_seq`, and tells whom,
    /// by the operation that freed the first place. To be called after the registrations that left have been saved.
    /// Somebody who has paid already is confirmed at once; somebody whose payment is being looked at keeps the seat
    /// until it is decided.
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
            let batch = self.change(registration.batch_id);
            batch.seats_taken += 1;
            batch.waitlist_taken -= 1;
            registration.hold_expires_at = Some(batch.hold_end());
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
        let changed: Vec<&BatchSeats> = self.changed.iter().map(|id| self.of(*id)).collect();
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

    /// Who is next, batch by batch. Only the batch's lock lets anyone join or leave its waitlist, so this needs no other.
    async fn heads(&self, tx: &mut PgConnection) -> Result<Vec<Uuid>, Failure> {
        let free: Vec<(Uuid, i64)> = self
            .freed
            .keys()
            .map(|id| self.of(*id))
            .map(|batch| (batch.id, i64::from((batch.capacity - batch.seats_taken).min(batch.waitlist_taken))))
            .filter(|(_, seats)| *seats > 0)
            .collect();
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

    fn change(&mut self, batch_id: Uuid) -> &mut BatchSeats {
        self.changed.insert(batch_id);
        self.batches.get_mut(&batch_id).expect("the batch was locked before its registration")
    }
}
