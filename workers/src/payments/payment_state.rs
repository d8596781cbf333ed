//! The decision on `payment.submit.v1`. The sums due and submitted are read under the registration's lock. A live
//! transaction reference belongs to the payment that came first; the second payer never learns whose it is.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::{Outcome, Problem, ProblemType, ids, messages::SubmitPayment};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::PaymentStatus;
use crate::{
    registrations::{Notice, Registration, RegistrationStatus, Registrations, registration::SubmittedPayments},
    runtime::{Delivery, Failure},
};

/// The result that the client gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmittedPayment {
    /// `payments.id`.
    pub payment_id: Uuid,
    /// `student_registrations.id` of what was paid for.
    pub registration_id: Uuid,
    /// `submitted`.
    pub status: PaymentStatus,
    /// Gross.
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// The sum still to be paid, should this and all other submitted payments be approved.
    pub amount_remaining: Decimal,
}

/// The part of the outcome that only the follow-ups need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubmitPaymentMemo {
    /// The payer's notice.
    pub notice: Option<Notice>,
    /// The live payment of another student with the same reference: the accountants are notified.
    pub claimed_from: Option<Uuid>,
}

/// The outcome of `payment.submit.v1`.
pub type PaymentOutcome = Outcome<SubmittedPayment, SubmitPaymentMemo>;

/// All that is known while deliveries are decided in order.
#[derive(Debug)]
pub struct PaymentState<'a> {
    registrations: Registrations,
    submitted: HashMap<Uuid, SubmittedPayments>,
    /// Payment and payer of each live reference.
    live: HashMap<String, (Uuid, Uuid)>,
    /// Owners of the uploaded files.
    proofs: HashMap<Uuid, Uuid>,
    accepted: Vec<AcceptedPayment<'a>>,
}

/// An accepted payment, to be inserted.
#[derive(Debug)]
struct AcceptedPayment<'a> {
    id: Uuid,
    delivery: &'a Delivery<SubmitPayment>,
    amount: Decimal,
    without_seat: bool,
}

impl<'a> PaymentState<'a> {
    /// Locks the registrations, then reads their payments, the references and the files.
    ///
    /// # Errors
    /// The database's.
    pub async fn load(tx: &mut PgConnection, deliveries: &[Delivery<SubmitPayment>]) -> Result<Self, Failure> {
        let registrations = Registrations::lock(tx, deliveries.iter().map(|d| d.command.registration_id)).await?;
        Ok(Self {
            submitted: registrations.submitted_payments(tx).await?,
            live: live_references(tx, deliveries).await?,
            proofs: known_proofs(tx, deliveries).await?,
            registrations,
            accepted: Vec::new(),
        })
    }

    /// Accepts one payment, or rejects it.
    pub fn decide(&mut self, delivery: &'a Delivery<SubmitPayment>) -> PaymentOutcome {
        let command = &delivery.command;
        let own = delivery.principal.user_id() == Some(command.student_id);
        let registration = self.registrations.get(command.registration_id);
        let Some(registration) = registration.filter(|r| own && r.student_id == command.student_id).cloned() else {
            return Outcome::rejected(ProblemType::RegistrationNotFound);
        };
        let submitted = self.submitted.get(&registration.id).copied().unwrap_or_default();
        let remaining = registration.amount_due - registration.amount_paid - submitted.amount;
        if let Some(problem) = self.rejection_reason(command, &registration, remaining) {
            return Outcome::rejected(problem);
        }
        let reference = command.transaction_ref();
        if let Some((payment_id, student_id)) = self.live.get(&reference).copied() {
            let claimed_from = (student_id != command.student_id).then_some(payment_id);
            let memo = SubmitPaymentMemo { notice: None, claimed_from };
            return Outcome::rejected(ProblemType::DuplicateReference).memo(memo);
        }
        self.accept(delivery, registration, reference, remaining)
    }

    /// Inserts the accepted payments and writes the changed registrations.
    ///
    /// # Errors
    /// [`Failure::Race`] where another transaction took one of the references meanwhile; else the database's.
    pub async fn save(&self, tx: &mut PgConnection) -> Result<(), Failure> {
        insert(tx, &self.accepted).await?;
        self.registrations.save(tx).await
    }

    fn accept(
        &mut self,
        delivery: &'a Delivery<SubmitPayment>,
        registration: Registration,
        reference: String,
        remaining: Decimal,
    ) -> PaymentOutcome {
        let command = &delivery.command;
        let mut amount = command.amount;
        amount.rescale(2);
        let id = ids::new_id();
        self.live.insert(reference, (id, command.student_id));
        let submitted = self.submitted.entry(registration.id).or_default();
        submitted.count += 1;
        submitted.amount += amount;
        let (status, without_seat) = seat_of(&registration, delivery.accepted_at);
        if status != registration.status
            && let Some(registration) = self.registrations.change(registration.id)
        {
            registration.status = status;
        }
        self.accepted.push(AcceptedPayment { id, delivery, amount, without_seat });
        let result = SubmittedPayment {
            payment_id: id,
            registration_id: registration.id,
            status: PaymentStatus::Submitted,
            amount,
            currency: registration.currency.clone(),
            amount_remaining: remaining - amount,
        };
        let notice = Registration { status, ..registration }.notice();
        Outcome::succeeded(result).memo(SubmitPaymentMemo { notice: Some(notice), claimed_from: None })
    }

    fn rejection_reason(
        &self,
        command: &SubmitPayment,
        registration: &Registration,
        remaining: Decimal,
    ) -> Option<Problem> {
        let payable = !matches!(
            registration.status,
            RegistrationStatus::Submitted
                | RegistrationStatus::UnderReview
                | RegistrationStatus::Cancelled
                | RegistrationStatus::Rejected
        );
        let proof_known = command
            .proof_file_id
            .is_none_or(|file_id| self.proofs.get(&file_id).is_some_and(|owner_id| *owner_id == command.student_id));
        if !payable {
            let status = registration.status.name();
            Some(Problem::new(ProblemType::RegistrationNotPayable).member("registration_status", status))
        } else if command.currency != registration.currency {
            let currency = registration.currency.clone();
            Some(Problem::new(ProblemType::CurrencyMismatch).member("currency", currency))
        } else if !proof_known {
            let problem = Problem::new(ProblemType::ValidationFailed);
            Some(problem.field("proof_file_id", "unknown_file", "must be a file that you uploaded"))
        } else if command.amount > remaining {
            Some(Problem::new(ProblemType::Overpayment).member("amount_due", remaining.to_string()))
        } else {
            None
        }
    }
}

/// Returns the registration's status after the payment, and true where the payment came without a seat: late, or from the
/// waitlist. The time that counts is when the gateway accepted it, however late it is settled.
fn seat_of(registration: &Registration, accepted_at: DateTime<Utc>) -> (RegistrationStatus, bool) {
    match registration.status {
        RegistrationStatus::SeatHeld if registration.hold_expires_at.is_some_and(|end| accepted_at <= end) => {
            (RegistrationStatus::PaymentSubmitted, false)
        }
        status @ (RegistrationStatus::PaymentSubmitted | RegistrationStatus::Confirmed) => (status, false),
        status => (status, true),
    }
}

async fn live_references(
    tx: &mut PgConnection,
    deliveries: &[Delivery<SubmitPayment>],
) -> Result<HashMap<String, (Uuid, Uuid)>, Failure> {
    let rows = sqlx::query!(
        r#"
        SELECT transaction_ref, id, student_id
        FROM payments
        WHERE transaction_ref = ANY($1) AND status NOT IN ('rejected', 'cancelled')
        "#,
        &deliveries.iter().map(|d| d.command.transaction_ref()).collect::<Vec<_>>(),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.transaction_ref, (row.id, row.student_id))).collect())
}

async fn known_proofs(
    tx: &mut PgConnection,
    deliveries: &[Delivery<SubmitPayment>],
) -> Result<HashMap<Uuid, Uuid>, Failure> {
    let file_ids: Vec<Uuid> = deliveries.iter().filter_map(|d| d.command.proof_file_id).collect();
    if file_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT id, owner_id AS "owner_id!" FROM files WHERE id = ANY($1) AND owner_id IS NOT NULL"#,
        &file_ids,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.owner_id)).collect())
}

/// Inserts in the order of the references, so that two transactions never wait for each other. Where another transaction
/// took a reference since it was looked up, everything is decided again, with that one known. (ON CONFLICT would say so
/// without an error, but costs every row a second descent of the index and a second WAL record.)
async fn insert(tx: &mut PgConnection, accepted: &[AcceptedPayment<'_>]) -> Result<(), Failure> {
    if accepted.is_empty() {
        return Ok(());
    }
    let commands: Vec<&SubmitPayment> = accepted.iter().map(|a| &a.delivery.command).collect();
    sqlx::query!(
        r#"
        INSERT INTO payments
               (id, registration_id, student_id, method, transaction_id, transaction_ref, amount, currency, paid_at,
                payer_name, proof_file_id, status, without_seat, operation_id)
        SELECT id, registration_id, student_id, method, transaction_id, transaction_ref, amount, currency, paid_at,
               payer_name, proof_file_id, 'submitted', without_seat, operation_id
        FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::numeric[], $8::text[],
                    $9::timestamptz[], $10::text[], $11::uuid[], $12::bool[], $13::uuid[])
             AS n (id, registration_id, student_id, method, transaction_id, transaction_ref, amount, currency, paid_at,
                   payer_name, proof_file_id, without_seat, operation_id)
        ORDER BY transaction_ref
        "#,
        &accepted.iter().map(|a| a.id).collect::<Vec<_>>(),
        &commands.iter().map(|c| c.registration_id).collect::<Vec<_>>(),
        &commands.iter().map(|c| c.student_id).collect::<Vec<_>>(),
        &commands.iter().map(|c| c.method.name()).collect::<Vec<_>>() as &[&str],
        &commands.iter().map(|c| c.transaction_id.as_str()).collect::<Vec<_>>() as &[&str],
        &commands.iter().map(|c| c.transaction_ref()).collect::<Vec<_>>(),
        &accepted.iter().map(|a| a.amount).collect::<Vec<_>>(),
        &commands.iter().map(|c| c.currency.as_str()).collect::<Vec<_>>() as &[&str],
        &commands.iter().map(|c| c.paid_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &commands.iter().map(|c| c.payer_name.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &commands.iter().map(|c| c.proof_file_id).collect::<Vec<_>>() as &[Option<Uuid>],
        &accepted.iter().map(|a| a.without_seat).collect::<Vec<_>>(),
        &accepted.iter().map(|a| a.delivery.id).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await
    .map_err(Failure::race_on("payments_live_reference_key"))?;
    Ok(())
}
