//! `registration.submit.v1`: seat, waitlist, or neither. The batches' locks serialise everybody who wants the same seats,
//! so the decision is made in memory, in the order of arrival; only those who got a place leave a row.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use contracts::{
    Outcome, Principal, Problem, ProblemType, Role,
    messages::{EmailTemplate, Registrant, SubmitRegistration},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Notice, RegistrationStatus, Seats,
    admission::{Admission, Admissions, Existing},
    magic_links,
    notice::Nothing,
    registrants::{Account, Registrants},
    seats::BatchSeats,
};
use crate::runtime::{Delivery, Failure, FollowUp, Handler};

/// Settles `registration.submit.v1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmitRegistrationHandler;

/// What the client is told. A visitor whose address is registered already is told the same as a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmittedRegistration {
    /// The registration.
    pub registration_id: Uuid,
    /// The number to quote.
    pub request_no: String,
    /// The batch.
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
    /// How many wait, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waitlist_position: Option<i32>,
}

/// Whom to tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubmitMemo {
    /// The registrant; absent where there is nothing to tell.
    pub notice: Option<Notice>,
    /// The visitor was registered already: only the owner of the mailbox learns of it.
    pub repeated: bool,
}

type SubmitOutcome = Outcome<SubmittedRegistration, SubmitMemo>;

impl Handler for SubmitRegistrationHandler {
    type Command = SubmitRegistration;
    type Result = SubmittedRegistration;
    type Memo = SubmitMemo;

    async fn apply(
        &self,
        tx: &mut PgConnection,
        batch: &[Delivery<SubmitRegistration>],
    ) -> Result<Vec<SubmitOutcome>, Failure> {
        let registrants = Registrants::find(tx, batch).await?;
        let seats = Seats::lock(tx, batch.iter().map(|d| d.command.batch_id)).await?;
        let existing = Existing::find(tx, batch, &registrants).await?;
        let mut desk = Desk { registrants, seats, existing, admissions: Admissions::default() };
        let mut outcomes: Vec<SubmitOutcome> = batch.iter().map(|delivery| desk.settle(delivery)).collect();
        desk.registrants.save(tx).await?;
        let request_nos = desk.admissions.save(tx).await?;
        desk.seats.save(tx).await?;
        let tokens = magic_links::create(tx, desk.admissions.links()).await?;
        complete(&mut outcomes, &request_nos, &tokens);
        Ok(outcomes)
    }

    fn follow_ups(&self, delivery: &Delivery<SubmitRegistration>, outcome: &SubmitOutcome) -> Vec<FollowUp> {
        let Some(notice) = &outcome.memo.notice else {
            return Vec::new();
        };
        let (template, title) = match notice.status {
            RegistrationStatus::SeatHeld => (EmailTemplate::SeatHeld, "A seat is held for you"),
            RegistrationStatus::Waitlisted => (EmailTemplate::Waitlisted, "You are on the waitlist"),
            RegistrationStatus::UnderReview | RegistrationStatus::Submitted => {
                (EmailTemplate::RegistrationReceived, "Your registration is being looked at")
            }
            _ => (EmailTemplate::MagicLink, "You are registered already"),
        };
        let mut subject = notice.registration_id.to_string();
        if outcome.memo.repeated {
            subject = format!("{subject}:{}", delivery.id);
        }
        let mut follow_ups = vec![notice.mail(template, format!("{}:{subject}", template.name()), &Nothing {})];
        if !outcome.memo.repeated {
            let body = format!("{}, {} ({})", notice.course, notice.batch, notice.request_no);
            follow_ups.push(notice.notification("registration_received", title, body, &subject));
        }
        follow_ups
    }
}

/// What is known while a batch is settled in its order.
struct Desk {
    registrants: Registrants,
    seats: Seats,
    existing: Existing,
    admissions: Admissions,
}

impl Desk {
    fn settle(&mut self, delivery: &Delivery<SubmitRegistration>) -> SubmitOutcome {
        let batch_id = delivery.command.batch_id;
        let Some(batch) = self.seats.get(batch_id).filter(|batch| batch.published).cloned() else {
            return Outcome::rejected(ProblemType::UnknownBatch);
        };
        if !batch.open || !(batch.opens_at..batch.closes_at).contains(&delivery.accepted_at) {
            return Outcome::rejected(ProblemType::BatchClosed);
        }
        match &delivery.command.registrant {
            Registrant::Student { student_id } => self.settle_student(delivery, &batch, *student_id),
            Registrant::Visitor { email, .. } => match self.known(email, batch_id) {
                Some((account, notice)) => self.repeat_visitor(&batch, &account, notice),
                None => self.settle_visitor(delivery, &batch),
            },
        }
    }

    fn settle_student(
        &mut self,
        delivery: &Delivery<SubmitRegistration>,
        batch: &BatchSeats,
        student_id: Uuid,
    ) -> SubmitOutcome {
        let own = match delivery.principal {
            Principal::User { id, role: Role::Student } => id == student_id,
            principal => principal.role() == Some(Role::Admin),
        };
        let account = self.registrants.student(student_id).filter(|account| own && account.may_register).cloned();
        let Some(account) = account else {
            return Outcome::rejected(ProblemType::Forbidden);
        };
        if let Some(notice) = self.existing.get(account.id, batch.id) {
            let id = notice.registration_id.to_string();
            return Outcome::rejected(Problem::new(ProblemType::AlreadyRegistered).member("registration_id", id));
        }
        self.admit(delivery, batch, &account)
    }

    fn settle_visitor(&mut self, delivery: &Delivery<SubmitRegistration>, batch: &BatchSeats) -> SubmitOutcome {
        let Registrant::Visitor { email, full_name, phone } = &delivery.command.registrant else {
            return Outcome::rejected(ProblemType::Forbidden);
        };
        if !batch.requires_review && batch.next_place() == super::Place::Full {
            return Outcome::rejected(ProblemType::BatchFull);
        }
        let account = self.registrants.find_or_plan(email, full_name, phone.as_deref(), delivery.id);
        self.admit(delivery, batch, &account)
    }

    fn known(&self, email: &str, batch_id: Uuid) -> Option<(Account, Notice)> {
        let account = self.registrants.of_email(email)?;
        let notice = self.existing.get(account.id, batch_id)?;
        Some((account.clone(), notice.clone()))
    }

    /// Answers as if the visitor were new, with an id and a number that nobody has; the truth goes to the mailbox.
    fn repeat_visitor(&mut self, batch: &BatchSeats, account: &Account, notice: Notice) -> SubmitOutcome {
        let decoy = Admission::decoy(batch);
        let result = decoy.result(batch);
        self.admissions.repeat(decoy, account, &notice);
        let deadline = notice.deadline.filter(|_| notice.status == RegistrationStatus::SeatHeld);
        let notice = Notice { deadline, ..notice };
        Outcome::succeeded(result).memo(SubmitMemo { notice: Some(notice), repeated: true })
    }

    fn admit(
        &mut self,
        delivery: &Delivery<SubmitRegistration>,
        batch: &BatchSeats,
        account: &Account,
    ) -> SubmitOutcome {
        let Some(admission) = Admission::new(&mut self.seats, batch, account, delivery) else {
            return Outcome::rejected(ProblemType::BatchFull);
        };
        let result = admission.result(batch);
        let notice = admission.notice(batch, account);
        self.existing.insert(account.id, batch.id, notice.clone());
        self.admissions.add(admission, account);
        Outcome::succeeded(result).memo(SubmitMemo { notice: Some(notice), repeated: false })
    }
}

/// Fills in what only the database could give: numbers by registration, and the ids of links.
fn complete(outcomes: &mut [SubmitOutcome], request_nos: &HashMap<Uuid, String>, tokens: &HashMap<Uuid, Uuid>) {
    for outcome in outcomes {
        if let contracts::Verdict::Succeeded(result) = &mut outcome.verdict
            && let Some(request_no) = request_nos.get(&result.registration_id)
        {
            result.request_no.clone_from(request_no);
        }
        if let Some(notice) = &mut outcome.memo.notice {
            if let Some(request_no) = request_nos.get(&notice.registration_id) {
                notice.request_no.clone_from(request_no);
            }
            notice.token_id = tokens.get(&notice.registration_id).copied();
        }
    }
}
