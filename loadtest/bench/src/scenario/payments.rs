//! `POST /v1/payments`: each student pays for the one seat that is held for them. Settled is: the payment, its operation
//! and the notification are committed, and the event of the mail is with the broker.

use contracts::Role;
use uuid::Uuid;

use super::{Check, Scenario, Stock, dead_letters, unsettled};
use crate::{
    args::Args,
    database::{self, Student},
    request::{Post, Requests, student_scope},
    settled,
    world::World,
};

const PATH: &str = "/v1/payments";
/// The sample institute's fee and tax.
const AMOUNT_DUE: &str = "11800.00";
const BATCHES: usize = 12;
/// More than one connection can send in sequence.
const UNLOADED_PER_SECOND: u32 = 500;

/// Students with held seats who have not paid yet.
pub struct Payments {
    payers: Stock<(Student, Uuid)>,
    unloaded: bool,
}

impl Payments {
    /// As fast as the command line says.
    pub fn under_load() -> Self {
        Self { payers: Stock::default(), unloaded: false }
    }

    /// One after the other, each waiting until it is settled.
    pub fn unloaded() -> Self {
        Self { payers: Stock::default(), unloaded: true }
    }
}

impl Scenario for Payments {
    fn name(&self) -> &'static str {
        if self.unloaded { "unloaded" } else { "payments" }
    }

    fn adapt(&self, args: Args) -> Args {
        if !self.unloaded {
            return args;
        }
        let ready_per_second = UNLOADED_PER_SECOND;
        Args { connections: 1, driver_threads: 1, rate_wanted: None, duplicates_percent: 0, ready_per_second, ..args }
    }

    async fn make(&mut self, world: &World, count: usize) -> anyhow::Result<Requests> {
        let missing = self.payers.missing(count);
        if missing > 0 {
            let students = database::make_students(&world.database, missing).await?;
            let batches = database::make_batches(&world.database, BATCHES, i32::try_from(missing)?, 0).await?;
            let registrations = database::hold_seats(&world.database, &students, &batches).await?;
            self.payers.items.extend(students.into_iter().zip(registrations));
        }
        let headers = if self.unloaded { "prefer: wait=10\r\n" } else { "" };
        let mut requests = Requests::default();
        for (student, registration_id) in self.payers.next(count) {
            let token = world.mint.token(student.id, Role::Student)?;
            let key = registration_id.simple().to_string();
            let body = format!(
                r#"{{"registration_id":"{registration_id}","method":"bank_transfer","transaction_id":"UTR-{key}","amount":"{AMOUNT_DUE}","currency":"INR"}}"#
            );
            let scope = student_scope(student.id);
            requests.push(&Post { path: PATH, key: &key, token: Some(&token), scope: &scope, headers, body: &body });
        }
        Ok(requests)
    }

    fn sent(&mut self, count: usize) {
        self.payers.used += count;
    }

    async fn pending(&self, world: &World, operations: &[Uuid]) -> anyhow::Result<i64> {
        let told = notifications(world, operations).await?;
        Ok(unsettled(world, operations).await? + i64::try_from(operations.len())? - told)
    }

    async fn check(&self, world: &World, operations: &[Uuid], mails: usize) -> anyhow::Result<Vec<Check>> {
        let wanted = i64::try_from(operations.len())?;
        let succeeded = settled::number(
            &world.database,
            "SELECT count(*) FROM operations WHERE id = ANY($1) AND state = 'succeeded'",
            operations,
        );
        let paid_once = settled::number(
            &world.database,
            "SELECT count(*) FROM (SELECT operation_id FROM payments WHERE operation_id = ANY($1)
              GROUP BY operation_id HAVING count(*) = 1) AS once",
            operations,
        );
        let paid_twice = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT registration_id FROM payments GROUP BY registration_id HAVING count(*) > 1) AS twice",
        )
        .fetch_one(&world.database);
        Ok(vec![
            Check::new("each key that was answered has succeeded", wanted, succeeded.await?),
            Check::new("each has exactly one payment", wanted, paid_once.await?),
            Check::new("no registration is paid twice", 0, paid_twice.await?),
            Check::new("each has one notification", wanted, notifications(world, operations).await?),
            Check::new("each has one e-mail event", wanted, i64::try_from(mails)?),
            dead_letters(world).await?,
        ])
    }

    async fn last_effect_us(&self, world: &World, operations: &[Uuid]) -> anyhow::Result<i64> {
        settled::number(
            &world.database,
            "SELECT coalesce(max((extract(epoch FROM pg_xact_commit_timestamp(n.xmin)) * 1000000)::bigint), 0)
               FROM payments AS p
               JOIN notifications AS n ON n.user_id = p.student_id
              WHERE p.operation_id = ANY($1)",
            operations,
        )
        .await
    }
}

async fn notifications(world: &World, operations: &[Uuid]) -> anyhow::Result<i64> {
    settled::number(
        &world.database,
        "SELECT count(*)
           FROM payments AS p
           JOIN notifications AS n ON n.user_id = p.student_id
          WHERE p.operation_id = ANY($1) AND n.type = 'payment_received'",
        operations,
    )
    .await
}
