//! `POST /v1/payments`: each student pays for one held seat. A payment is settled when it, its operation and its
//! notification are committed and the event of its mail is in its queue.

use contracts::Role;
use uuid::Uuid;

use crate::{
    args::Args,
    database::{self, Student},
    record::Check,
    request::{Post, Requests, student_scope},
    scenario::{Scenario, Stock, dead_letters, unsettled},
    services::Services,
    settled,
};

const PATH: &str = "/v1/payments";
/// Fee and tax of the sample institute.
const AMOUNT_DUE: &str = "11800.00";
const COURSE_BATCHES: usize = 12;
/// Commands to render for each second; one connection sends fewer one after the other.
const UNLOADED_PER_SECOND: u32 = 500;

/// Payments of students with held seats.
pub(crate) struct PaymentsScenario {
    payers: Stock<(Student, Uuid)>,
    unloaded: bool,
}

impl PaymentsScenario {
    /// Payments at the load that the command line asks for.
    pub(crate) fn under_load() -> Self {
        Self { payers: Stock::default(), unloaded: false }
    }

    /// Payments one after the other, each awaiting its result.
    pub(crate) fn unloaded() -> Self {
        Self { payers: Stock::default(), unloaded: true }
    }
}

impl Scenario for PaymentsScenario {
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

    async fn make(&mut self, services: &Services, count: usize) -> anyhow::Result<Requests> {
        let missing = self.payers.missing(count);
        if missing > 0 {
            let students = database::insert_students(&services.database, missing).await?;
            let course_batches =
                database::insert_course_batches(&services.database, COURSE_BATCHES, i32::try_from(missing)?, 0).await?;
            let registrations = database::hold_seats(&services.database, &students, &course_batches).await?;
            self.payers.items.extend(students.into_iter().zip(registrations));
        }
        let headers = if self.unloaded { "prefer: wait=10\r\n" } else { "" };
        let mut requests = Requests::default();
        for (student, registration_id) in self.payers.next(count) {
            let token = services.signer.token(student.id, Role::Student)?;
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

    async fn pending(&self, services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
        let notified = notifications(services, operations).await?;
        Ok(unsettled(services, operations).await? + i64::try_from(operations.len())? - notified)
    }

    async fn check(&self, services: &Services, operations: &[Uuid], mails: usize) -> anyhow::Result<Vec<Check>> {
        let wanted = i64::try_from(operations.len())?;
        let succeeded = settled::count(
            &services.database,
            "SELECT count(*) FROM operations WHERE id = ANY($1) AND state = 'succeeded'",
            operations,
        );
        let paid_once = settled::count(
            &services.database,
            "SELECT count(*) FROM (SELECT operation_id FROM payments WHERE operation_id = ANY($1)
              GROUP BY operation_id HAVING count(*) = 1) AS once",
            operations,
        );
        let paid_twice = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT registration_id FROM payments GROUP BY registration_id HAVING count(*) > 1) AS twice",
        )
        .fetch_one(&services.database);
        Ok(vec![
            Check::new("each key that was answered has succeeded", wanted, succeeded.await?),
            Check::new("each has exactly one payment", wanted, paid_once.await?),
            Check::new("no registration is paid twice", 0, paid_twice.await?),
            Check::new("each has one notification", wanted, notifications(services, operations).await?),
            Check::new("each has one e-mail event", wanted, i64::try_from(mails)?),
            dead_letters(services).await?,
        ])
    }

    async fn last_effect_us(&self, services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
        settled::count(
            &services.database,
            "SELECT coalesce(max((extract(epoch FROM pg_xact_commit_timestamp(n.xmin)) * 1000000)::bigint), 0)
               FROM payments AS p
               JOIN notifications AS n ON n.user_id = p.student_id
              WHERE p.operation_id = ANY($1)",
            operations,
        )
        .await
    }
}

async fn notifications(services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
    settled::count(
        &services.database,
        "SELECT count(*)
           FROM payments AS p
           JOIN notifications AS n ON n.user_id = p.student_id
          WHERE p.operation_id = ANY($1) AND n.type = 'payment_received'",
        operations,
    )
    .await
}
