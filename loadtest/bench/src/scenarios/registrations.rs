//! `POST /v1/registrations` on twelve course batches: by signed-in students, each once in each course batch, or by
//! visitors with new addresses. With `--seats` seats and waitlists run out, and the remaining registrations must be
//! rejected, never oversold.

use contracts::{Queue, Role, validation::normalise_email};
use uuid::Uuid;

use crate::{
    database::{self, Student},
    record::Check,
    request::{Post, Requests, student_scope},
    scenario::{Scenario, Stock, dead_letters, unsettled},
    services::Services,
    settled,
};

const PATH: &str = "/v1/registrations";
const COURSE_BATCHES: usize = 12;
const SEATS_FOR_ALL: i32 = 10_000_000;

/// Kind of the people who register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegistrantKind {
    /// Signed-in students.
    Known,
    /// Visitors with new addresses.
    New,
}

/// Registrations of one kind of people.
pub(crate) struct RegistrationsScenario {
    registrants: RegistrantKind,
    /// Seats of each course batch, and as many waitlist places; none: enough for all.
    seats: Option<i32>,
    course_batches: Vec<Uuid>,
    seat_requests: Stock<SeatRequest>,
}

#[derive(Debug)]
struct SeatRequest {
    batch_id: Uuid,
    /// None for a visitor.
    student: Option<Student>,
}

impl RegistrationsScenario {
    /// Registrations of this kind of people.
    pub(crate) fn new(registrants: RegistrantKind, seats: Option<i32>) -> Self {
        Self { registrants, seats, course_batches: Vec::new(), seat_requests: Stock::default() }
    }

    async fn stock_up(&mut self, services: &Services, missing: usize) -> anyhow::Result<()> {
        if self.course_batches.is_empty() {
            let (seats, waitlist) = self.seats.map_or((SEATS_FOR_ALL, 0), |seats| (seats, seats));
            self.course_batches =
                database::insert_course_batches(&services.database, COURSE_BATCHES, seats, waitlist).await?;
        }
        let course_batch = |n: usize| self.course_batches[n % COURSE_BATCHES];
        if self.registrants == RegistrantKind::New {
            let visitors = (0..missing).map(|n| SeatRequest { batch_id: course_batch(n), student: None });
            self.seat_requests.items.extend(visitors);
            return Ok(());
        }
        let students = database::insert_students(&services.database, missing.div_ceil(COURSE_BATCHES)).await?;
        // One seat request of each student in each round, so that those of one student are far apart.
        for round in 0..COURSE_BATCHES {
            let of_round = students.iter().enumerate().map(|(n, student)| {
                let batch_id = course_batch(n + round);
                SeatRequest { batch_id, student: Some(*student) }
            });
            self.seat_requests.items.extend(of_round);
        }
        Ok(())
    }
}

impl Scenario for RegistrationsScenario {
    fn name(&self) -> &'static str {
        match (self.registrants, self.seats) {
            (RegistrantKind::Known, None) => "registrations-known",
            (RegistrantKind::Known, Some(_)) => "registrations-known-few-seats",
            (RegistrantKind::New, None) => "registrations-new",
            (RegistrantKind::New, Some(_)) => "registrations-new-few-seats",
        }
    }

    fn pool(&self) -> &'static str {
        Queue::Registrations.name()
    }

    async fn make(&mut self, services: &Services, count: usize) -> anyhow::Result<Requests> {
        let missing = self.seat_requests.missing(count);
        if missing > 0 {
            self.stock_up(services, missing).await?;
        }
        let mut requests = Requests::default();
        for SeatRequest { batch_id, student } in self.seat_requests.next(count) {
            let key = Uuid::now_v7().simple().to_string();
            if let Some(student) = student {
                let token = services.signer.token(student.id, Role::Student)?;
                let body = format!(r#"{{"batch_id":"{batch_id}"}}"#);
                let (token, scope) = (Some(token.as_str()), student_scope(student.id));
                requests.push(&Post { path: PATH, key: &key, token, scope: &scope, headers: "", body: &body });
            } else {
                let email = format!("visitor-{key}@load.example.org");
                let body = format!(r#"{{"batch_id":"{batch_id}","email":"{email}","full_name":"Visitor {key}"}}"#);
                let scope = normalise_email(&email);
                requests.push(&Post { path: PATH, key: &key, token: None, scope: &scope, headers: "", body: &body });
            }
        }
        Ok(requests)
    }

    fn sent(&mut self, count: usize) {
        self.seat_requests.used += count;
    }

    async fn pending(&self, services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
        let (made, notified) = (registrations(services, operations).await?, notifications(services, operations).await?);
        Ok(unsettled(services, operations).await? + made - notified)
    }

    async fn check(&self, services: &Services, operations: &[Uuid], mails: usize) -> anyhow::Result<Vec<Check>> {
        let wanted = i64::try_from(operations.len())?;
        let state = |sql| settled::count(&services.database, sql, operations);
        let succeeded = state("SELECT count(*) FROM operations WHERE id = ANY($1) AND state = 'succeeded'").await?;
        let full = state(
            "SELECT count(*) FROM operations WHERE id = ANY($1) AND state = 'rejected' AND outcome::text LIKE '%batch-full%'",
        );
        let oversold: i64 = sqlx::query_scalar(
            "SELECT count(*)
               FROM batches
               LEFT JOIN (SELECT batch_id, count(*) FILTER (WHERE status = 'seat_held') AS taken,
                                 count(*) FILTER (WHERE status = 'waitlisted') AS waiting
                            FROM student_registrations GROUP BY batch_id) AS rows ON rows.batch_id = batches.id
              WHERE coalesce(taken, 0) > capacity OR coalesce(waiting, 0) > waitlist_capacity
                 OR coalesce(taken, 0) <> seats_taken OR coalesce(waiting, 0) <> waitlist_taken
                 OR (taken < capacity AND waiting > 0)",
        )
        .fetch_one(&services.database)
        .await?;
        let mut checks = vec![
            Check::new(
                "each key that was answered has succeeded or found its course batch full",
                wanted,
                succeeded + full.await?,
            ),
            Check::new("each success has one registration", succeeded, registrations(services, operations).await?),
            Check::new("no course batch is oversold, and its counters match its rows", 0, oversold),
            Check::new("each success has one notification", succeeded, notifications(services, operations).await?),
            Check::new("each success has one e-mail event", succeeded, i64::try_from(mails)?),
            dead_letters(services).await?,
        ];
        if self.seats.is_none() {
            checks.push(Check::new("no registration is rejected", wanted, succeeded));
        }
        Ok(checks)
    }

    async fn last_effect_us(&self, services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
        settled::count(
            &services.database,
            "SELECT coalesce(max((extract(epoch FROM pg_xact_commit_timestamp(n.xmin)) * 1000000)::bigint), 0)
               FROM student_registrations AS r
               JOIN notifications AS n ON n.user_id = r.student_id AND n.dedupe_key = 'registration_received:' || r.id
              WHERE r.operation_id = ANY($1)",
            operations,
        )
        .await
    }
}

async fn registrations(services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM student_registrations WHERE operation_id = ANY($1)";
    settled::count(&services.database, sql, operations).await
}

async fn notifications(services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
    settled::count(
        &services.database,
        "SELECT count(*)
           FROM student_registrations AS r
           JOIN notifications AS n ON n.user_id = r.student_id AND n.dedupe_key = 'registration_received:' || r.id
          WHERE r.operation_id = ANY($1)",
        operations,
    )
    .await
}
