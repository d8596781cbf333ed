//! Latency of registrations at a steady rate: alone, beside 20,000 decisions on payments posted in bulk, beside a mail
//! server that takes two seconds a mail, and beside a mail outage. All pools run, in the processes of
//! `deploy/local/app`. The 99th percentile from 202 to settled may at most double.

mod smtp;

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use contracts::Role;
use serde_json::json;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};
use uuid::Uuid;

use super::{RegistrantKind, RegistrationsScenario, stampede::await_operations};
use crate::{
    args::Args,
    config::Installation,
    database,
    load::{self, Load, Model},
    processes::{Layout, RunningSystem},
    record::{Check, Record},
    scenario::{Scenario, dead_letters},
    services::Services,
    settled,
};

pub(crate) use smtp::serve as serve_smtp;

/// Worker processes and their pools, as in `deploy/local/lib.sh`.
const WORKERS: [&str; 4] =
    ["registrations", "payments,invoicing,notifications,dead-letters,clock", "email", "documents"];
const RATE: u32 = 200;
const CONNECTIONS: usize = 64;
const DECISIONS: usize = 20_000;
/// Limit of the gateway.
const DECISIONS_A_REQUEST: usize = 500;
/// Delay of the decisions after the registrations begin.
const HEAD_START: Duration = Duration::from_secs(2);
const RATIO_TARGET: f64 = 2.0;
/// Difference of two 99th percentiles that is allowed in any case, since short ones differ by chance.
const SLACK_MS: f64 = 10.0;
const P99: &str = "accept → settled, p99";
/// Offset of the mail server's port: the last of the instance's.
const SMTP_PORT_OFFSET: u16 = 29;
const SLOW: Duration = Duration::from_secs(2);

/// The other load or fault during the registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    None,
    Decisions,
    SlowMailServer,
    MailOutage,
}

/// Measures each disturbance, on processes and a database of its own.
///
/// # Errors
/// Where a process or a server fails, or effects are missing.
pub(crate) async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    for disturbance in [Disturbance::None, Disturbance::Decisions, Disturbance::SlowMailServer, Disturbance::MailOutage]
    {
        eprintln!("bench: fairness, {}", disturbance.name());
        let mut record = measure(args, installation, disturbance).await.with_context(|| disturbance.name())?;
        let alone = records.first().unwrap_or(&record).figure(P99).context("every run has a p99")?;
        let p99 = record.figure(P99).context("every run has a p99")?;
        record.push("p99 ÷ p99 alone", "", p99 / alone);
        let fair = p99 <= alone * RATIO_TARGET + SLACK_MS;
        record.checks.push(Check::new("the p99 is within twice that of registrations alone", 1, fair.into()));
        records.push(record);
    }
    Ok(records)
}

async fn measure(args: &Args, installation: &Installation, disturbance: Disturbance) -> anyhow::Result<Record> {
    database::recreate(installation).await?;
    let services = Services::connect(installation).await?;
    services.broker.purge().await?;
    let decisions = if disturbance == Disturbance::Decisions {
        payments(&services, args.scaled(DECISIONS)).await?
    } else {
        Vec::new()
    };
    let mut registrations = RegistrationsScenario::new(RegistrantKind::Known, None);
    let seconds = args.warm_up() + args.duration();
    let ready = (seconds.as_secs_f64() * f64::from(RATE) * 1.2) as usize + 100;
    let requests = Arc::new(registrations.make(&services, ready).await?);
    database::vacuum_and_checkpoint(&services.database).await?;
    let port = SocketAddr::from(([127, 0, 0, 1], installation.port_base + SMTP_PORT_OFFSET));
    let _mail_server = disturbance.mail_server(port).await?;
    let mut layout = Layout { workers: WORKERS.map(str::to_owned).to_vec(), ..Layout::of(args) };
    layout.workers_env.push(("REGISTRAR__SMTP__URL".to_owned(), format!("smtp://{port}")));
    let system = RunningSystem::start(installation, &layout).await?;

    let mut load = Load {
        range: 0..requests.len(),
        requests,
        gateways: system.gateways.clone(),
        connections: CONNECTIONS,
        threads: 1,
        model: Model::Open(RATE),
        duration: args.warm_up(),
        duplicates_percent: 0,
    };
    let warm = load::run(load.clone()).await?.sent;
    await_operations(&services, load.requests.operations(warm.clone())).await?;
    (load.range, load.duration) = (warm.end..load.requests.len(), args.duration());
    let before = system.snapshot().await?;
    let bulk = decide(&services, &system, &decisions);
    let (outcome, posted) = tokio::join!(load::run(load.clone()), bulk);
    let (outcome, posted) = (outcome?, posted?);
    let operations = load.requests.operations(outcome.sent.clone());
    await_operations(&services, operations).await?;

    let mut record = Record::of("fairness", format!("{RATE} registrations a second, {}", disturbance.name()));
    for sample in &outcome.samples {
        *record.statuses.entry(sample.status).or_default() += 1;
    }
    record.push_quantiles("accept", outcome.samples.iter().map(|sample| sample.took_us as f64 / 1e3).collect());
    let settled = settled::operations(&services.database, operations).await?;
    let latencies = settled.iter().map(|s| (s.committed_us - s.accepted_us) as f64 / 1e3).collect();
    record.push_quantiles("accept → settled", latencies);
    record.push("decisions posted disturbance them", "", decisions.len() as f64);
    record.push("time to post them", "s", posted.as_secs_f64());
    for (group, seconds) in system.snapshot().await?.usage.since(&before.usage) {
        record.push(format!("cores, {group}"), "", seconds / args.duration().as_secs_f64());
    }
    let succeeded = settled.iter().filter(|settled| settled.succeeded).count();
    record.checks = vec![
        Check::new("each registration has succeeded", i64::try_from(operations.len())?, i64::try_from(succeeded)?),
        decided(&services, &decisions).await?,
        dead_letters(&services).await?,
    ];
    system.stop().await?;
    Ok(record)
}

/// Waits until all payments are approved, at most a minute, and counts them.
async fn decided(services: &Services, payments: &[Uuid]) -> anyhow::Result<Check> {
    let (wanted, began) = (i64::try_from(payments.len())?, Instant::now());
    loop {
        let sql = "SELECT count(*) FROM payments WHERE id = ANY($1) AND status = 'approved'";
        let found = settled::count(&services.database, sql, payments).await?;
        if found == wanted || began.elapsed() > Duration::from_secs(60) {
            return Ok(Check::new("each decision is taken", wanted, found));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Inserts submitted payments with seats.
async fn payments(services: &Services, count: usize) -> anyhow::Result<Vec<Uuid>> {
    let students = database::insert_students(&services.database, count).await?;
    let course_batches = database::insert_course_batches(&services.database, 12, i32::try_from(count)?, 0).await?;
    let registrations = database::hold_seats(&services.database, &students, &course_batches).await?;
    let mut transaction = services.database.begin().await?;
    sqlx::query(
        "UPDATE student_registrations SET status = 'payment_submitted', hold_expires_at = NULL WHERE id = ANY($1)",
    )
    .bind(&registrations)
    .execute(&mut *transaction)
    .await?;
    let payments = sqlx::query_scalar(
        "INSERT INTO payments (id, registration_id, student_id, method, transaction_id, transaction_ref, amount, currency,
                               status, operation_id)
         SELECT id, id, student_id, 'bank_transfer', 'FAIR-' || id, 'FAIR' || upper(replace(id::text, '-', '')), amount_due,
                currency, 'submitted', gen_random_uuid()
           FROM student_registrations
          WHERE id = ANY($1)
         RETURNING id",
    )
    .bind(&registrations)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(payments)
}

/// Posts the approvals of all payments, in bulk; returns how long posting took.
async fn decide(services: &Services, system: &RunningSystem, payments: &[Uuid]) -> anyhow::Result<Duration> {
    if payments.is_empty() {
        return Ok(Duration::ZERO);
    }
    tokio::time::sleep(HEAD_START).await;
    let accountant: Uuid = sqlx::query_scalar("SELECT id FROM users WHERE role = 'accountant' ORDER BY id LIMIT 1")
        .fetch_one(&services.database)
        .await?;
    let token = services.signer.token(accountant, Role::Accountant)?;
    let url = format!("http://{}/v1/payments/decisions", system.gateways[0]);
    let (client, began) = (reqwest::Client::new(), Instant::now());
    for (index, chunk) in payments.chunks(DECISIONS_A_REQUEST).enumerate() {
        let items: Vec<_> = chunk.iter().map(|id| json!({ "payment_id": id, "verdict": "approve" })).collect();
        let body = serde_json::to_vec(&json!({ "items": items }))?;
        loop {
            let request = client.post(&url).bearer_auth(&token).header("idempotency-key", format!("fairness-{index}"));
            let response = request.header("content-type", "application/json").body(body.clone()).send().await?;
            if response.status() == reqwest::StatusCode::SERVICE_UNAVAILABLE {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            ensure!(response.status() == reqwest::StatusCode::ACCEPTED, "decisions: {}", response.text().await?);
            break;
        }
    }
    Ok(began.elapsed())
}

impl Disturbance {
    fn name(self) -> &'static str {
        match self {
            Self::None => "alone",
            Self::Decisions => "with decisions in bulk",
            Self::SlowMailServer => "with a slow mail server",
            Self::MailOutage => "with a mail outage",
        }
    }

    /// Starts the mail server, a process that is killed when dropped; none for an outage, where connections are
    /// refused.
    async fn mail_server(self, listen: SocketAddr) -> anyhow::Result<Option<Child>> {
        let delay = match self {
            Self::MailOutage => return Ok(None),
            Self::SlowMailServer => SLOW,
            Self::None | Self::Decisions => Duration::ZERO,
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["slow-smtp", &listen.to_string(), &delay.as_millis().to_string()]);
        let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().context("the mail server")?;
        let began = Instant::now();
        while TcpStream::connect(listen).await.is_err() {
            ensure!(began.elapsed() < Duration::from_secs(5), "the mail server does not listen on {listen}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(child))
    }
}
