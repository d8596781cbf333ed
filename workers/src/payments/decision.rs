//! What an accountant's verdict makes of a payment, its registration and its seat, decided in memory in the batch's order
//! while all of them are locked.

use std::collections::{HashMap, HashSet};

use contracts::{
    Outcome, Principal, Problem, ProblemType, Role,
    messages::{DecidePayment, PaymentDecision},
};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Payment, PaymentStatus, Payments,
    decide_payment::{DecideMemo, DecidedPayment},
};
use crate::{
    registrations::{
        Registration, RegistrationStatus, Registrations, Seats, audit::AuditEntry, registration::SubmittedPayments,
    },
    runtime::{Delivery, Failure},
};

/// What is known while a batch is settled in its order.
#[derive(Debug, Default)]
pub struct Bench {
    /// The seats of the registrations' batches.
    pub seats: Seats,
    /// The registrations of the payments.
    pub registrations: Registrations,
    /// The payments.
    pub payments: Payments,
    /// One row a decision.
    pub entries: Vec<AuditEntry>,
    /// Registrations that were confirmed just now, with the operation that did it.
    pub confirmed: Vec<(Uuid, Registration)>,
    submitted: HashMap<Uuid, SubmittedPayments>,
    /// Students and batches with an active registration: an expired one of theirs cannot come back.
    active: HashSet<(Uuid, Uuid)>,
}

impl Bench {
    /// Locks what the payments touch, in the order batch, registration, payment.
    ///
    /// # Errors
    /// [`Failure::Race`] where a registration lost its seat meanwhile; the database's.
    pub async fn lock(tx: &mut PgConnection, payment_ids: &[Uuid]) -> Result<Self, Failure> {
        let registration_ids = Payments::registrations(tx, payment_ids).await?;
        let seats = Seats::lock_of_seatless(tx, &registration_ids).await?;
        let registrations = Registrations::lock(tx, registration_ids).await?;
        if !registrations.iter().all(|registration| seats.covers(registration)) {
            return Err(Failure::Race);
        }
        let payments = Payments::lock(tx, payment_ids).await?;
        let submitted = registrations.submitted_payments(tx).await?;
        let active = active_registrations(tx, &registrations).await?;
        Ok(Self { seats, registrations, payments, submitted, active, ..Self::default() })
    }

    /// Decides one payment, or says why not.
    pub fn settle(&mut self, delivery: &Delivery<DecidePayment>) -> Outcome<DecidedPayment, DecideMemo> {
        let Principal::User { id: reviewer_id, role: Role::Accountant | Role::Admin } = delivery.principal else {
            return Outcome::rejected(ProblemType::Forbidden);
        };
        let Some(before) = self.payments.get(delivery.command.payment_id).cloned() else {
            return Outcome::rejected(ProblemType::PaymentNotFound);
        };
        let registration = self.registrations.get(before.registration_id);
        let registration = registration.expect("a payment's registration is locked before it").clone();
        let approve = delivery.command.decision == PaymentDecision::Approve;
        if let Some(problem) = objection(&before, &registration, reviewer_id, approve) {
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
        self.entries.push(AuditEntry {
            principal: delivery.principal,
            action,
            entity_type: "payment",
            entity_id: before.id,
            before: before.snapshot(),
            after: after.snapshot(),
            operation_id: delivery.id,
        });
        let open = self.close(&before);
        let refund_offered = approve && self.credit(delivery.id, &before);
        if !approve {
            self.renew(before.registration_id, open);
        }
        self.outcome(&after, &registration, refund_offered)
    }

    /// Takes a payment out of those that nobody has decided yet; returns how many of its registration remain.
    fn close(&mut self, payment: &Payment) -> i64 {
        let submitted = self.submitted.entry(payment.registration_id).or_default();
        submitted.count -= 1;
        submitted.amount -= payment.amount;
        submitted.count
    }

    /// Adds the money to the registration and finds out what it buys; true where it buys no seat.
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

    /// A seat whose last payment has been looked at, without confirming it, is held for another while.
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

    fn outcome(
        &self,
        payment: &Payment,
        before: &Registration,
        refund_offered: bool,
    ) -> Outcome<DecidedPayment, DecideMemo> {
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

fn objection(payment: &Payment, registration: &Registration, reviewer_id: Uuid, approve: bool) -> Option<Problem> {
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

/// Only an expired registration needs to know; a statement of its own, so that what was committed while the locks were
/// waited for is seen.
async fn active_registrations(
    tx: &mut PgConnection,
    registrations: &Registrations,
) -> Result<HashSet<(Uuid, Uuid)>, Failure> {
    let expired = registrations.iter().filter(|r| r.status == RegistrationStatus::Expired);
    let (students, batches): (Vec<Uuid>, Vec<Uuid>) = expired.map(|r| (r.student_id, r.batch_id)).unzip();
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
        &batches,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.student_id, row.batch_id)).collect())
}
