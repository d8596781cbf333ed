//! `POST /v1/payments/decisions`: two accountants approve submitted payments with seats, 500 a request. An approval is
//! settled when the payment is decided, its invoice issued, the student enrolled and notified, and the events of PDF
//! and mail are in their queues.

use std::collections::HashMap;

use anyhow::ensure;
use contracts::{Principal, Queue, Role, ids};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    args::Args,
    database,
    record::Check,
    request::{Post, Requests},
    scenario::{Scenario, dead_letters, unsettled},
    services::Services,
    settled,
};

const PATH: &str = "/v1/payments/decisions";
/// Limit of the gateway.
const ITEMS_A_REQUEST: usize = 500;
const WARM_UP_REQUESTS: usize = 2;
const COURSE_BATCHES: usize = 12;
/// `payment_approved` and `enrollment_confirmed`.
const NOTIFICATIONS_EACH: i64 = 2;

/// Approvals of submitted payments.
pub(crate) struct ApprovalsScenario {
    items_a_request: usize,
    requests: usize,
    /// Payments by the operation that approves them.
    payments: HashMap<Uuid, Uuid>,
}

impl ApprovalsScenario {
    /// Approvals of `items` payments, rounded up to whole requests.
    pub(crate) fn new(items: usize) -> Self {
        let items_a_request = items.min(ITEMS_A_REQUEST);
        Self { items_a_request, requests: items.div_ceil(items_a_request), payments: HashMap::new() }
    }

    /// Returns the payments that these operations approve.
    pub(crate) fn payments(&self, operations: &[Uuid]) -> Vec<Uuid> {
        operations.iter().filter_map(|operation| self.payments.get(operation).copied()).collect()
    }
}

impl Scenario for ApprovalsScenario {
    fn name(&self) -> &'static str {
        "approvals"
    }

    fn requests(&self) -> Option<(usize, usize)> {
        Some((WARM_UP_REQUESTS, self.requests))
    }

    fn adapt(&self, args: Args) -> Args {
        Args { connections: 2, driver_threads: 1, rate_wanted: None, duplicates_percent: 0, ..args }
    }

    async fn make(&mut self, services: &Services, count: usize) -> anyhow::Result<Requests> {
        let database = &services.database;
        let students = database::insert_students(database, count * self.items_a_request).await?;
        let course_batches =
            database::insert_course_batches(database, COURSE_BATCHES, i32::try_from(students.len())?, 0).await?;
        let registrations = database::hold_seats(database, &students, &course_batches).await?;
        let payments = database::insert_submitted_payments(database, &registrations).await?;
        let accountants = accountants(database).await?;
        let mut requests = Requests::default();
        for (n, payments) in payments.chunks(self.items_a_request).enumerate() {
            let accountant = accountants[n % accountants.len()];
            let token = services.signer.token(accountant, Role::Accountant)?;
            let scope = Principal::User { id: accountant, role: Role::Accountant }.to_string();
            let key = Uuid::now_v7().simple().to_string();
            let items: Vec<String> =
                payments.iter().map(|id| format!(r#"{{"payment_id":"{id}","verdict":"approve"}}"#)).collect();
            let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
            let operation = |payment| ids::keyed_id(&scope, &format!("POST {PATH}/{payment}"), &key);
            let post = Post { path: PATH, key: &key, token: Some(&token), scope: &scope, headers: "", body: &body };
            requests.push_bulk(&post, payments.iter().map(operation));
            self.payments.extend(payments.iter().map(|payment| (operation(payment), *payment)));
        }
        Ok(requests)
    }

    fn sent(&mut self, _: usize) {}

    async fn pending(&self, services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
        let (wanted, payments) = (i64::try_from(operations.len())?, self.payments(operations));
        let invoices = wanted - invoices(&services.database, &payments).await?;
        let notified = NOTIFICATIONS_EACH * wanted - notifications(&services.database, &payments).await?;
        Ok(unsettled(services, operations).await? + invoices + notified)
    }

    async fn check(&self, services: &Services, operations: &[Uuid], mails: usize) -> anyhow::Result<Vec<Check>> {
        let (database, payments) = (&services.database, self.payments(operations));
        let wanted = i64::try_from(operations.len())?;
        let one = |sql| settled::count(database, sql, &payments);
        let approved = one("SELECT count(*) FROM payments WHERE id = ANY($1) AND status = 'approved'").await?;
        let enrolled = one("SELECT count(*) FROM enrollments AS e JOIN payments AS p USING (registration_id)
                             WHERE p.id = ANY($1) AND e.status = 'active'");
        let gaps: i64 = sqlx::query_scalar(
            "SELECT count(*)
               FROM invoice_series AS s
              WHERE next_seq - 1 <> (SELECT count(*) FROM invoices WHERE series_id = s.id)
                 OR next_seq - 1 <> (SELECT coalesce(max(seq), 0) FROM invoices WHERE series_id = s.id)",
        )
        .fetch_one(database)
        .await?;
        let mut checks = vec![
            Check::new("each payment is approved", wanted, approved),
            Check::new("each student is enrolled", wanted, enrolled.await?),
            Check::new("each payment has one invoice", wanted, invoices(database, &payments).await?),
            Check::new("no series of invoices has a gap", 0, gaps),
            Check::new("each has two notifications", 2 * wanted, notifications(database, &payments).await?),
            Check::new("each has one e-mail event", wanted, i64::try_from(mails)?),
            dead_letters(services).await?,
        ];
        let pdfs = services.broker.take_unconsumed(Queue::Documents).await?;
        checks.push(Check::new("each has one event of its PDF", wanted, i64::try_from(pdfs.distinct)?));
        Ok(checks)
    }

    async fn last_effect_us(&self, services: &Services, operations: &[Uuid]) -> anyhow::Result<i64> {
        let sql = "SELECT coalesce(max((extract(epoch FROM committed) * 1000000)::bigint), 0)
                     FROM (SELECT pg_xact_commit_timestamp(xmin) AS committed FROM invoices WHERE payment_id = ANY($1)
                            UNION ALL
                           SELECT pg_xact_commit_timestamp(n.xmin)
                             FROM payments AS p JOIN notifications AS n ON n.user_id = p.student_id
                            WHERE p.id = ANY($1)) AS effects";
        settled::count(&services.database, sql, &self.payments(operations)).await
    }
}

async fn accountants(database: &PgPool) -> anyhow::Result<Vec<Uuid>> {
    let sql = "SELECT id FROM users WHERE role = 'accountant' AND status = 'active' ORDER BY id LIMIT 2";
    let accountants: Vec<Uuid> = sqlx::query_scalar(sql).fetch_all(database).await?;
    ensure!(accountants.len() == 2, "the two accountants of the sample institute are missing");
    Ok(accountants)
}

async fn invoices(database: &PgPool, payments: &[Uuid]) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM invoices WHERE payment_id = ANY($1) AND kind = 'invoice'";
    settled::count(database, sql, payments).await
}

async fn notifications(database: &PgPool, payments: &[Uuid]) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM payments AS p JOIN notifications AS n ON n.user_id = p.student_id
                WHERE p.id = ANY($1)";
    settled::count(database, sql, payments).await
}
