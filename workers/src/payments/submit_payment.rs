//! `payment.submit.v1`: a claim that money was sent. What is due, and what is claimed already, is read under the
//! registration's lock; a reference that is live belongs to whoever came first, and the second is never told to whom.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::{
    Outcome, Problem, ProblemType, Role, ids,
    messages::{CreateNotification, EmailTemplate, SubmitPayment, create_notification::NotificationTarget},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::PaymentStatus;
use crate::{
    registrations::{Notice, Registration, RegistrationStatus, Registrations, registration::SubmittedPayments},
    runtime::{Delivery, Failure, FollowUp, Handler},
};

/// Settles `payment.submit.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmitPaymentHandler;

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmittedPayment {
    /// The payment.
    pub payment_id: Uuid,
    /// What was paid for.
    pub registration_id: Uuid,
    /// `submitted`.
    pub status: PaymentStatus,
    /// Gross.
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// What is still to be paid, should this and all that is submitted be approved.
    pub amount_remaining: Decimal,
}

/// Whom to tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubmitPaymentMemo {
    /// The payer.
    pub notice: Option<Notice>,
    /// The live payment of another student that bears the same reference: the accountants are told.
    pub claimed_from: Option<Uuid>,
}

type PaymentOutcome = Outcome<SubmittedPayment, SubmitPaymentMemo>;

impl Handler for SubmitPaymentHandler {
    type Command = SubmitPayment;
    type Result = SubmittedPayment;
    type Memo = SubmitPaymentMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        batch: &[Delivery<SubmitPayment>],
    ) -> Result<Vec<PaymentOutcome>, Failure> {
        let registrations = Registrations::lock(tx, batch.iter().map(|d| d.command.registration_id)).await?;
        let mut ledger = Ledger {
            submitted: registrations.submitted_payments(tx).await?,
            live: live_references(tx, batch).await?,
            proofs: known_proofs(tx, batch).await?,
            registrations,
            accepted: Vec::new(),
        };
        let outcomes =
            batch.iter().map(|delivery| ledger.settle(delivery).unwrap_or_else(|refusal| *refusal)).collect();
        insert(tx, &ledger.accepted).await?;
        ledger.registrations.save(tx).await?;
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<SubmitPayment>, outcome: &PaymentOutcome) -> Vec<FollowUp> {
        let command = &delivery.command;
        if let Some(payment_id) = outcome.memo.claimed_from {
            return vec![duplicate_alert(command, payment_id)];
        }
        let (contracts::Verdict::Succeeded(result), Some(notice)) = (&outcome.verdict, &outcome.memo.notice) else {
            return Vec::new();
        };
        let subject = result.payment_id.to_string();
        let extra = ReceivedPayment { amount: result.amount, transaction_id: &command.transaction_id };
        let body = format!("{} {}, reference {}.", result.amount, result.currency, command.transaction_id);
        vec![
            notice.mail(EmailTemplate::PaymentReceived, format!("payment_received:{subject}"), &extra),
            notice.notification("payment_received", "We have your payment", body, &subject),
        ]
    }
}

/// What the mail says of the payment.
#[derive(Serialize)]
struct ReceivedPayment<'a> {
    amount: Decimal,
    transaction_id: &'a str,
}

fn duplicate_alert(command: &SubmitPayment, payment_id: Uuid) -> FollowUp {
    let reference = command.transaction_ref();
    let notification = CreateNotification {
        to: NotificationTarget::Role(Role::Accountant),
        notification_type: "duplicate_reference".into(),
        title: "A transaction reference is claimed twice".into(),
        body: format!("Reference {reference} belongs to a payment of another student already."),
        data: json!({
            "transaction_ref": reference,
            "payment_id": payment_id,
            "claimed_by": command.student_id,
            "registration_id": command.registration_id,
        })
        .into(),
        dedupe_key: format!("duplicate_reference:{reference}"),
    };
    FollowUp::new("duplicate_reference", notification)
}

/// A payment that is taken.
struct Accepted<'a> {
    id: Uuid,
    delivery: &'a Delivery<SubmitPayment>,
    amount: Decimal,
    without_seat: bool,
}

/// What is known while a batch is settled in its order.
struct Ledger<'a> {
    registrations: Registrations,
    submitted: HashMap<Uuid, SubmittedPayments>,
    /// Live references, with their payment and payer.
    live: HashMap<String, (Uuid, Uuid)>,
    /// Uploaded files and their owners.
    proofs: HashMap<Uuid, Uuid>,
    accepted: Vec<Accepted<'a>>,
}

impl<'a> Ledger<'a> {
    /// Takes the payment, or says why not.
    fn settle(&mut self, delivery: &'a Delivery<SubmitPayment>) -> Result<PaymentOutcome, Box<PaymentOutcome>> {
        let command = &delivery.command;
        let refuse = |problem: Problem| Box::new(PaymentOutcome::rejected(problem));
        let own = delivery.principal.user_id() == Some(command.student_id);
        let registration = self.registrations.get(command.registration_id);
        let Some(registration) = registration.filter(|r| own && r.student_id == command.student_id).cloned() else {
            return Err(refuse(ProblemType::RegistrationNotFound.into()));
        };
        let submitted = self.submitted.get(&registration.id).copied().unwrap_or_default();
        let remaining = registration.amount_due - registration.amount_paid - submitted.amount;
        if let Some(problem) = self.objection(command, &registration, remaining) {
            return Err(refuse(problem));
        }
        let reference = command.transaction_ref();
        if let Some((payment_id, student_id)) = self.live.get(&reference).copied() {
            let mut refusal = refuse(ProblemType::DuplicateReference.into());
            refusal.memo.claimed_from = (student_id != command.student_id).then_some(payment_id);
            return Err(refusal);
        }
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
        self.accepted.push(Accepted { id, delivery, amount, without_seat });
        let result = SubmittedPayment {
            payment_id: id,
            registration_id: registration.id,
            status: PaymentStatus::Submitted,
            amount,
            currency: registration.currency.clone(),
            amount_remaining: remaining - amount,
        };
        let memo =
            SubmitPaymentMemo { notice: Some(Registration { status, ..registration }.notice()), claimed_from: None };
        Ok(Outcome::succeeded(result).memo(memo))
    }

    fn objection(&self, command: &SubmitPayment, registration: &Registration, remaining: Decimal) -> Option<Problem> {
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

/// What a payment makes of its registration, and whether it came without a seat: late, or while waiting. What counts is
/// when the gateway accepted it, however late it is settled.
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
    batch: &[Delivery<SubmitPayment>],
) -> Result<HashMap<String, (Uuid, Uuid)>, Failure> {
    let rows = sqlx::query!(
        r#"
        SELECT transaction_ref, id, student_id
        FROM payments
        WHERE transaction_ref = ANY($1) AND status NOT IN ('rejected', 'cancelled')
        "#,
        &batch.iter().map(|d| d.command.transaction_ref()).collect::<Vec<_>>(),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.transaction_ref, (row.id, row.student_id))).collect())
}

async fn known_proofs(
    tx: &mut PgConnection,
    batch: &[Delivery<SubmitPayment>],
) -> Result<HashMap<Uuid, Uuid>, Failure> {
    let file_ids: Vec<Uuid> = batch.iter().filter_map(|d| d.command.proof_file_id).collect();
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
/// took one of them since it was looked up, everything is decided again, with that one known. (ON CONFLICT would say so
/// without an error, and costs every row a second descent of the index and a second WAL record.)
async fn insert(tx: &mut PgConnection, accepted: &[Accepted<'_>]) -> Result<(), Failure> {
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
