//! The decision on `registration.submit.v1`: a seat, a place on the waitlist, or neither. The course batches' locks
//! serialise all who want the same seats, so the decision is made in memory, in the deliveries' order; only admitted
//! registrations leave a row.

use std::collections::HashMap;

use contracts::{
    Outcome, Principal, Problem, ProblemType, Role, Verdict,
    messages::{Registrant, SubmitRegistration},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Notice, Place, RegistrationStatus, Seats,
    active_registrations::ActiveRegistrations,
    admission::{Admission, Admissions, SubmittedRegistration},
    magic_links,
    registrants::{Account, Registrants},
    seats::CourseBatchSeats,
};
use crate::runtime::{Delivery, Failure};

/// The part of the outcome that only the follow-ups need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubmitMemo {
    /// The registrant's notice; absent where the registration was rejected.
    pub notice: Option<Notice>,
    /// True where the visitor was registered already: only the owner of the mailbox learns of it.
    pub repeated: bool,
}

/// The outcome of `registration.submit.v1`.
pub type SubmitOutcome = Outcome<SubmittedRegistration, SubmitMemo>;

/// All that is known while deliveries are decided in order: what the database says, and the decisions before.
#[derive(Debug, Default)]
pub struct RegistrationState {
    registrants: Registrants,
    seats: Seats,
    active: ActiveRegistrations,
    admissions: Admissions,
}

/// Ids that only the database can give, by registration.
#[derive(Debug)]
pub struct AssignedIds {
    request_nos: HashMap<Uuid, String>,
    token_ids: HashMap<Uuid, Uuid>,
}

impl RegistrationState {
    /// Reads the accounts of the registrants, then locks the course batches.
    ///
    /// # Errors
    /// The database's.
    pub async fn load(tx: &mut PgConnection, deliveries: &[Delivery<SubmitRegistration>]) -> Result<Self, Failure> {
        let registrants = Registrants::find(tx, deliveries).await?;
        let seats = Seats::lock(tx, deliveries.iter().map(|d| d.command.batch_id)).await?;
        let active = ActiveRegistrations::find(tx, deliveries, &registrants).await?;
        Ok(Self { registrants, seats, active, ..Self::default() })
    }

    /// Admits one registration, or rejects it.
    pub fn decide(&mut self, delivery: &Delivery<SubmitRegistration>) -> SubmitOutcome {
        let batch_id = delivery.command.batch_id;
        let Some(course_batch) = self.seats.get(batch_id).filter(|course_batch| course_batch.published).cloned() else {
            return Outcome::rejected(ProblemType::UnknownBatch);
        };
        let in_window = (course_batch.opens_at..course_batch.closes_at).contains(&delivery.accepted_at);
        if !course_batch.open || !in_window {
            return Outcome::rejected(ProblemType::BatchClosed);
        }
        match &delivery.command.registrant {
            Registrant::Student { student_id } => self.decide_student(delivery, &course_batch, *student_id),
            Registrant::Visitor { email, .. } => match self.active_of_visitor(email, batch_id) {
                Some((account, notice)) => self.repeat_visitor(&course_batch, &account, notice),
                None => self.decide_visitor(delivery, &course_batch),
            },
        }
    }

    /// Writes accounts, registrations, seats and magic links; returns the ids that belong into the outcomes.
    ///
    /// # Errors
    /// [`Failure::Race`] where another transaction made one of the accounts meanwhile; else the database's.
    pub async fn save(&self, tx: &mut PgConnection) -> Result<AssignedIds, Failure> {
        self.registrants.save(tx).await?;
        let request_nos = self.admissions.save(tx).await?;
        self.seats.save(tx).await?;
        let token_ids = magic_links::create(tx, self.admissions.links()).await?;
        Ok(AssignedIds { request_nos, token_ids })
    }

    fn decide_student(
        &mut self,
        delivery: &Delivery<SubmitRegistration>,
        course_batch: &CourseBatchSeats,
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
        if let Some(notice) = self.active.get(account.id, course_batch.id) {
            let id = notice.registration_id.to_string();
            return Outcome::rejected(Problem::new(ProblemType::AlreadyRegistered).member("registration_id", id));
        }
        self.admit(delivery, course_batch, &account)
    }

    fn decide_visitor(
        &mut self,
        delivery: &Delivery<SubmitRegistration>,
        course_batch: &CourseBatchSeats,
    ) -> SubmitOutcome {
        let Registrant::Visitor { email, full_name, phone } = &delivery.command.registrant else {
            return Outcome::rejected(ProblemType::Forbidden);
        };
        if !course_batch.requires_review && course_batch.next_place() == Place::Full {
            return Outcome::rejected(ProblemType::BatchFull);
        }
        let account = self.registrants.find_or_plan(email, full_name, phone.as_deref(), delivery.id);
        self.admit(delivery, course_batch, &account)
    }

    fn active_of_visitor(&self, email: &str, batch_id: Uuid) -> Option<(Account, Notice)> {
        let account = self.registrants.of_email(email)?;
        let notice = self.active.get(account.id, batch_id)?;
        Some((account.clone(), notice.clone()))
    }

    /// Answers as if the visitor were new, with an unused id and request number; only the mail tells the truth.
    fn repeat_visitor(&mut self, course_batch: &CourseBatchSeats, account: &Account, notice: Notice) -> SubmitOutcome {
        let decoy = Admission::decoy(course_batch);
        let result = decoy.result(course_batch);
        self.admissions.repeat(decoy, account, &notice);
        let deadline = notice.deadline.filter(|_| notice.status == RegistrationStatus::SeatHeld);
        let notice = Notice { deadline, ..notice };
        Outcome::succeeded(result).memo(SubmitMemo { notice: Some(notice), repeated: true })
    }

    fn admit(
        &mut self,
        delivery: &Delivery<SubmitRegistration>,
        course_batch: &CourseBatchSeats,
        account: &Account,
    ) -> SubmitOutcome {
        let Some(admission) = Admission::new(&mut self.seats, course_batch, account, delivery) else {
            return Outcome::rejected(ProblemType::BatchFull);
        };
        let result = admission.result(course_batch);
        let notice = admission.notice(course_batch, account);
        self.active.insert(account.id, course_batch.id, notice.clone());
        self.admissions.add(admission, account);
        Outcome::succeeded(result).memo(SubmitMemo { notice: Some(notice), repeated: false })
    }
}

impl AssignedIds {
    /// Fills in the request numbers, and the token ids of the magic links.
    pub fn complete(&self, outcome: &mut SubmitOutcome) {
        if let Verdict::Succeeded(result) = &mut outcome.verdict
            && let Some(request_no) = self.request_nos.get(&result.registration_id)
        {
            result.request_no.clone_from(request_no);
        }
        if let Some(notice) = &mut outcome.memo.notice {
            if let Some(request_no) = self.request_nos.get(&notice.registration_id) {
                notice.request_no.clone_from(request_no);
            }
            notice.token_id = self.token_ids.get(&notice.registration_id).copied();
        }
    }
}
