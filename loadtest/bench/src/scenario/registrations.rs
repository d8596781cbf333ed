//! `POST /v1/registrations` on twelve batches: by students who are signed in, each once a batch, or by visitors whom nobody
//! knows yet. With `--seats` the batches and their waitlists run out, and the rest must be refused, never oversold.

use contracts::{Queue, Role, validation::normalise_email};
use uuid::Uuid;

use super::{Check, Scenario, Stock, dead_letters, unsettled};
use crate::{
    database::{self, Student},
    request::{Post, Requests, student_scope},
    settled,
    world::World,
};

const PATH: &str = "/v1/registrations";
const BATCHES: usize = 12;
const SEATS_FOR_ALL: i32 = 10_000_000;

/// Who registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registrants {
    /// Students who are signed in.
    Known,
    /// Visitors with addresses that were never seen.
    New,
}

/// Registrations that nobody has asked for yet.
pub struct Registrations {
    registrants: Registrants,
    /// Of each batch, and as many places on its waitlist; none: more than enough.
    seats: Option<i32>,
    batches: Vec<Uuid>,
    wishes: Stock<Wish>,
}

#[derive(Debug)]
struct Wish {
    batch_id: Uuid,
    /// None: a visitor.
    student: Option<Student>,
}

impl Registrations {
    /// Of these people.
    pub fn of(registrants: Registrants, seats: Option<i32>) -> Self {
        Self { registrants, seats, batches: Vec::new(), wishes: Stock::default() }
    }

    async fn stock_up(&mut self, world: &World, missing: usize) -> anyhow::Result<()> {
        if self.batches.is_empty() {
            let (seats, waitlist) = self.seats.map_or((SEATS_FOR_ALL, 0), |seats| (seats, seats));
            self.batches = database::make_batches(&world.database, BATCHES, seats, waitlist).await?;
        }
        let batch = |n: usize| self.batches[n % BATCHES];
        if self.registrants == Registrants::New {
            let visitors = (0..missing).map(|n| Wish { batch_id: batch(n), student: None });
            self.wishes.items.extend(visitors);
            return Ok(());
        }
        let students = database::make_students(&world.database, missing.div_ceil(BATCHES)).await?;
        // All students once, then all once more, so that nobody's wishes are neighbours.
        for round in 0..BATCHES {
            let wishes = students.iter().enumerate();
            self.wishes
                .items
                .extend(wishes.map(|(n, student)| Wish { batch_id: batch(n + round), student: Some(*student) }));
        }
        Ok(())
    }
}

impl Scenario for Registrations {
    fn name(&self) -> &'static str {
        match (self.registrants, self.seats) {
            (Registrants::Known, None) => "registrations-known",
            (Registrants::Known, Some(_)) => "registrations-known-few-seats",
            (Registrants::New, None) => "registrations-new",
            (Registrants::New, Some(_)) => "registrations-new-few-seats",
        }
    }

    fn pool(&self) -> &'static str {
        Queue::Registrations.name()
    }

    async fn make(&mut self, world: &World, count: usize) -> anyhow::Result<Requests> {
        let missing = self.wishes.missing(count);
        if missing > 0 {
            self.stock_up(world, missing).await?;
        }
        let mut requests = Requests::default();
        for Wish { batch_id, student } in self.wishes.next(count) {
            let key = Uuid::now_v7().simple().to_string();
            if let Some(student) = student {
                let token = world.mint.token(student.id, Role::Student)?;
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
        self.wishes.used += count;
    }

    async fn pending(&self, world: &World, operations: &[Uuid]) -> anyhow::Result<i64> {
        let (made, told) = (registrations(world, operations).await?, notifications(world, operations).await?);
        Ok(unsettled(world, operations).await? + made - told)
    }

    async fn check(&self, world: &World, operations: &[Uuid], mails: usize) -> anyhow::Result<Vec<Check>> {
        let wanted = i64::try_from(operations.len())?;
        let state = |sql| settled::number(&world.database, sql, operations);
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
        .fetch_one(&world.database)
        .await?;
        let mut checks = vec![
            Check::new(
                "each key that was answered has succeeded or found its batch full",
                wanted,
                succeeded + full.await?,
            ),
            Check::new("each success has one registration", succeeded, registrations(world, operations).await?),
            Check::new("no batch is oversold, and its counters are its rows", 0, oversold),
            Check::new("each success has one notification", succeeded, notifications(world, operations).await?),
            Check::new("each success has one e-mail event", succeeded, i64::try_from(mails)?),
            dead_letters(world).await?,
        ];
        if self.seats.is_none() {
            checks.push(Check::new("nobody is refused", wanted, succeeded));
        }
        Ok(checks)
    }

    async fn last_effect_us(&self, world: &World, operations: &[Uuid]) -> anyhow::Result<i64> {
        settled::number(
            &world.database,
            "SELECT coalesce(max((extract(epoch FROM pg_xact_commit_timestamp(n.xmin)) * 1000000)::bigint), 0)
               FROM student_registrations AS r
               JOIN notifications AS n ON n.user_id = r.student_id AND n.dedupe_key = 'registration_received:' || r.id
              WHERE r.operation_id = ANY($1)",
            operations,
        )
        .await
    }
}

async fn registrations(world: &World, operations: &[Uuid]) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM student_registrations WHERE operation_id = ANY($1)";
    settled::number(&world.database, sql, operations).await
}

async fn notifications(world: &World, operations: &[Uuid]) -> anyhow::Result<i64> {
    settled::number(
        &world.database,
        "SELECT count(*)
           FROM student_registrations AS r
           JOIN notifications AS n ON n.user_id = r.student_id AND n.dedupe_key = 'registration_received:' || r.id
          WHERE r.operation_id = ANY($1)",
        operations,
    )
    .await
}
