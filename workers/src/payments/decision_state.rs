//! The decision on `payment.decide.v1`: what an accountant's verdict makes of a payment, its registration and its seat,
//! decided in memory in the deliveries' order while all of them are locked. A payment is decided once: of two verdicts at
//! once, the first wins and the second is rejected.

use std::collections::{HashMap, HashSet};

use contracts::{
    Outcome, Principal, Problem, ProblemType, Role,
    messages::{DecidePayment, PaymentDecision},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Payment, PaymentStatus, Payments};
use crate::{
    audit::{self, Actor, AuditEntry},
    registrations::{
        Notice, Registration, RegistrationStatus, Registrations, Seats, enrollment, registration::SubmittedPayments,
    },
    runtime::{Delivery, Failure},
};

/// The result that the client gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecidedPayment {
    /// `payments.id`.
    pub payment_id: Uuid,
    /// `approved` or `rejected`.
    pub status: PaymentStatus,
    /// `student_registrations.id` of what was paid for.
    pub registration_id: Uuid,
    /// The registration's status now.
    pub registration_status: RegistrationStatus,
    /// The sum of the approved payments.
    pub amount_paid: Decimal,
    /// The price in all.
    pub amount_due: Decimal,
    /// The enrollment, where this confirmed the seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment_id: Option<Uuid>,
    /// True where the money bought no seat: the student may have it back.
    pub refund_offered: bool,
}

/// The part of the outcome that only the follow-ups need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DecideMemo {
    /// The payer's notice.
    pub notice: Option<Notice>,
    /// The bank's reference, as typed.
    pub transaction_id: String,
    /// Gross.
    pub amount: Decimal,
    /// True where this confirmed the seat.
    pub newly_confirmed: bool,
}

/// The outcome of `payment.decide.v1`.
pub type DecisionOutcome = Outcome<DecidedPayment, DecideMemo>;

/// All that is known while deliveries are decided in order.
#[derive(Debug, Default)]
pub struct DecisionState {
    seats: Seats,
    registrations: Registrations,
    payments: Payments,
    submitted: HashMap<Uuid, SubmittedPayments>,
    /// Students and course batches with an active registration: an expired one of theirs cannot come back.
    active: HashSet<(Uuid, Uuid)>,
    audit_entries: Vec<AuditEntry>,
    /// Registrations that were confirmed just now, with the operation that did it.
    confirmed: Vec<(Uuid, Registration)>,
}

impl DecisionState {
    /// Locks course batches, registrations and payments, in this order.
    ///
    /// # Errors
    /// [`Failure::Race`] where a registration lost its seat meanwhile; else the database's.
    pub async fn load(tx: &mut PgConnection, deliveries: &[Delivery<DecidePayment>]) -> Result<Self, Failure> {
        let payment_ids: Vec<Uuid> = deliveries.iter().map(|d| d.command.payment_id).collect();
        let registration_ids = Payments::registrations(tx, &payment_ids).await?;
        let seats = Seats::lock_of_seatless(tx, &registration_ids).await?;
        let registrations = Registrations::lock(tx, registration_ids).await?;
        if !registrations.iter().all(|registration| seats.covers(registration)) {
            return Err(Failure::Race);
        }
        let payments = Payments::lock(tx, &payment_ids).await?;
        let submitted = registrations.submitted_payments(tx).await?;
        let active = active_registrations(tx, &registrations).await?;
        Ok(Self { seats, registrations, payments, submitted, active, ..Self::default() })
    }

    /// Approves or rejects one payment, or rejects the command.
    pub fn decide(&mut self, delivery: &Delivery<DecidePayment>) -> DecisionOutcome {
        let Principal::User { id: reviewer_id, role: Role::Accountant | Role::Admin } = delivery.principal else {
            return Outcome::rejected(ProblemType::Forbidden);
        };
        let Some(before) = self.payments.get(delivery.command.payment_id).cloned() else {
            return Outcome::rejected(ProblemType::PaymentNotFound);
        };
        let registration = self.registrations.get(before.registration_id);
        let registration = registration.expect("a payment's registration is locked before it").clone();
        let approve = delivery.command.decision == PaymentDecision::Approve;
        if let Some(problem) = rejection_reason(&before, &registration, reviewer_id, approve) {
            return Outcome::rejected(problem);
        }
        let payment = self.payments.change(before.id).expect("it was found above");
        payment.reviewed_by = Some(reviewer_id);
        payment.reviewed_at = Some(registration.now);
        payment.note.clone_from(&delivery.command.note);
        let action = match &delivery.command.decision {
            PaymentDecision::Approve => {
                payment.status = PaymentStatus::Approved;
                "payment.approve"
            }
            PaymentDecision::Reject { code } => {
                payment.status = PaymentStatus::Rejected;
                payment.rejection_code = Some(code.clone());
                "payment.reject"
            }
        };
        let after = payment.clone();
        self.audit_entries.push(AuditEntry {
            actor: Actor::Principal(delivery.principal),
            action,
            entity_type: "payment",
            entity_id: before.id,
            before: Some(before.snapshot()),
            after: Some(after.snapshot()),
            operation_id: Some(delivery.id),
        });
        let open = self.close(&before);
        let refund_offered = approve && self.credit(delivery.id, &before);
        if !approve {
            self.renew(before.registration_id, open);
        }
        self.outcome(&after, &registration, refund_offered)
    }

    /// Writes what changed; returns the ids of the new enrollments, by registration.
    ///
    /// # Errors
    /// The database's.
    pub async fn save(&self, tx: &mut PgConnection) -> Result<HashMap<Uuid, Uuid>, Failure> {
        self.payments.save(tx).await?;
        self.registrations.save(tx).await?;
        self.seats.save(tx).await?;
        let enrollment_ids = enrollment::enroll(tx, &self.confirmed).await?;
        audit::record(tx, &self.audit_entries).await?;
        Ok(enrollment_ids)
    }

    /// Takes a payment out of the undecided ones; returns how many of its registration remain.
    fn close(&mut self, payment: &Payment) -> i64 {
        let submitted = self.submitted.entry(payment.registration_id).or_default();
        submitted.count -= 1;
        submitted.amount -= payment.amount;
        submitted.count
    }

    /// Adds the money to the registration and confirms or renews the seat; returns true where it buys no seat.
    fn credit(&mut self, operation_id: Uuid, payment: &Payment) -> bool {
        let open = self.submitted.get(&payment.registration_id).map_or(0, |submitted| submitted.count);
        let registration = self.registrations.change(payment.registration_id).expect("it was found above");
        registration.amount_paid += payment.amount;
        let key = (registration.student_id, registration.batch_id);
        if registration.status == RegistrationStatus::Expired
            && !self.active.contains(&key)
            && self.seats.take_seat(registration.batch_id)
        {
            self.active.insert(key);
            registration.status = RegistrationStatus::PaymentSubmitted;
        }
        match registration.status {
            RegistrationStatus::SeatHeld | RegistrationStatus::PaymentSubmitted if registration.is_paid() => {
                registration.status = RegistrationStatus::Confirmed;
                registration.provisional = false;
                self.confirmed.push((operation_id, registration.clone()));
                false
            }
            RegistrationStatus::SeatHeld | RegistrationStatus::PaymentSubmitted => {
                self.renew(payment.registration_id, open);
                false
            }
            RegistrationStatus::Confirmed => false,
            _ => true,
        }
    }

    /// Holds the seat for another term, where its last undecided payment was decided without confirming it.
    fn renew(&mut self, registration_id: Uuid, open_payments: i64) {
        let Some(registration) = self.registrations.get(registration_id) else {
            return;
        };
        let held = registration.status == RegistrationStatus::PaymentSubmitted && open_payments == 0;
        if held && let Some(registration) = self.registrations.change(registration_id) {
            registration.status = RegistrationStatus::SeatHeld;
            registration.hold_expires_at = Some(registration.hold_end());
        }
    }

    fn outcome(&self, payment: &Payment, before: &Registration, refund_offered: bool) -> DecisionOutcome {
        let registration = self.registrations.get(payment.registration_id).expect("it was found above");
        let newly_confirmed =
            registration.status == RegistrationStatus::Confirmed && before.status != RegistrationStatus::Confirmed;
        let memo = DecideMemo {
            notice: Some(registration.notice()),
            transaction_id: payment.transaction_id.clone(),
            amount: payment.amount,
            newly_confirmed,
        };
        Outcome::succeeded(DecidedPayment {
            payment_id: payment.id,
            status: payment.status,
            registration_id: registration.id,
            registration_status: registration.status,
            amount_paid: registration.amount_paid,
            amount_due: registration.amount_due,
            enrollment_id: None,
            refund_offered,
        })
        .memo(memo)
    }
}

fn rejection_reason(
    payment: &Payment,
    registration: &Registration,
    reviewer_id: Uuid,
    approve: bool,
) -> Option<Problem> {
    let remaining: Decimal = registration.amount_due - registration.amount_paid;
    if payment.status != PaymentStatus::Submitted {
        let reviewed_at = serde_json::json!(payment.reviewed_at);
        let problem = Problem::new(ProblemType::AlreadyDecided).member("reviewed_at", reviewed_at);
        // Not `status`: a member of that name is RFC 9457's own, the HTTP status.
        Some(problem.member("payment_status", payment.status.name()))
    } else if payment.student_id == reviewer_id {
        Some(ProblemType::OwnPayment.into())
    } else if approve && payment.amount > remaining {
        Some(Problem::new(ProblemType::Overpayment).member("amount_due", remaining.to_string()))
    } else {
        None
    }
}

/// Returns the students and course batches of the expired registrations that have an active registration as well. A
/// statement of its own, so that it sees what was committed while the locks were waited for.
async fn active_registrations(
    tx: &mut PgConnection,
    registrations: &Registrations,
) -> Result<HashSet<(Uuid, Uuid)>, Failure> {
    let expired = registrations.iter().filter(|r| r.status == RegistrationStatus::Expired);
    let (students, course_batches): (Vec<Uuid>, Vec<Uuid>) = expired.map(|r| (r.student_id, r.batch_id)).unzip();
    if students.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = sqlx::query!(
        r#"
        SELECT r.student_id, r.batch_id
        FROM (SELECT DISTINCT * FROM UNNEST($1::uuid[], $2::uuid[])) AS asked (student_id, batch_id)
        CROSS JOIN LATERAL (
            SELECT student_id, batch_id
            FROM student_registrations r
            WHERE r.student_id = asked.student_id AND r.batch_id = asked.batch_id
              AND r.phase IN ('submitted', 'under_review', 'held', 'waitlisted', 'confirmed')
            OFFSET 0  -- by its own index for each, whatever the statistics say
        ) r
        "#,
        &students,
        &course_batches,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.student_id, row.batch_id)).collect())
}
