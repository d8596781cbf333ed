//! Registrations at a steady rate, alone and beside what must not slow them: 20,000 decisions on payments posted in
//! bulk, a mail server that takes two seconds a command, and none at all. All pools run, as `deploy/local/app` runs
//! them. The 99th percentile from 202 to settled may at most double.

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

use super::{Check, Registrants, Registrations, Scenario, dead_letters, stampede::await_operations};
use crate::{
    args::Args,
    config::Installation,
    database,
    load::{self, Load, Model},
    processes::{Layout, System},
    record::Record,
    settled,
    world::World,
};

pub use smtp::serve as serve_smtp;

/// As `deploy/local/lib.sh` lays the processes out.
const WORKERS: [&str; 4] =
    ["registrations", "payments,invoicing,notifications,dead-letters,clock", "email", "documents"];
const RATE: u32 = 200;
const CONNECTIONS: usize = 64;
const DECISIONS: usize = 20_000;
/// The gateway's limit.
const DECISIONS_A_REQUEST: usize = 500;
/// Before the decisions begin.
const HEAD_START: Duration = Duration::from_secs(2);
const RATIO_TARGET: f64 = 2.0;
/// Quantiles of little time differ by chance alone.
const SLACK_MS: f64 = 10.0;
const P99: &str = "accept → settled, p99";
/// The last of the instance's ports.
const SMTP_PORT_OFFSET: u16 = 29;
const SLOW: Duration = Duration::from_secs(2);

/// What goes on beside the registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    Decisions,
    SlowMail,
    NoMail,
}

/// Measures each, on processes and a database of its own.
///
/// # Errors
/// Where a process or a server fails, or the effects do not come.
pub async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    for beside in [Beside::Nothing, Beside::Decisions, Beside::SlowMail, Beside::NoMail] {
        eprintln!("bench: fairness, {}", beside.name());
        let mut record = measure(args, installation, beside).await.with_context(|| beside.name())?;
        let alone = records.first().unwrap_or(&record).figure(P99).context("every run has a p99")?;
        let p99 = record.figure(P99).context("every run has a p99")?;
        record.push("p99 ÷ p99 alone", "", p99 / alone);
        let fair = p99 <= alone * RATIO_TARGET + SLACK_MS;
        record.checks.push(Check::new("the p99 is within twice that of registrations alone", 1, fair.into()));
        records.push(record);
    }
    Ok(records)
}

async fn measure(args: &Args, installation: &Installation, beside: Beside) -> anyhow::Result<Record> {
    database::make_anew(installation).await?;
    let world = World::connect(installation).await?;
    world.broker.purge().await?;
    let decisions =
        if beside == Beside::Decisions { payments(&world, args.scaled(DECISIONS)).await? } else { Vec::new() };
    let mut registrations = Registrations::of(Registrants::Known, None);
    let seconds = args.warm_up() + args.duration();
    let ready = (seconds.as_secs_f64() * f64::from(RATE) * 1.2) as usize + 100;
    let requests = Arc::new(registrations.make(&world, ready).await?);
    database::settle_down(&world.database).await?;
    let port = SocketAddr::from(([127, 0, 0, 1], installation.port_base + SMTP_PORT_OFFSET));
    let _mail_server = beside.mail_server(port).await?;
    let mut layout = Layout { workers: WORKERS.map(str::to_owned).to_vec(), ..Layout::of(args) };
    layout.workers_env.push(("REGISTRAR__SMTP__URL".to_owned(), format!("smtp://{port}")));
    let system = System::start(installation, &layout).await?;

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
    await_operations(&world, load.requests.operations(warm.clone())).await?;
    (load.range, load.duration) = (warm.end..load.requests.len(), args.duration());
    let before = system.snapshot().await?;
    let bulk = decide(&world, &system, &decisions);
    let (outcome, posted) = tokio::join!(load::run(load.clone()), bulk);
    let (outcome, posted) = (outcome?, posted?);
    let operations = load.requests.operations(outcome.sent.clone());
    await_operations(&world, operations).await?;

    let mut record = Record::of("fairness", format!("{RATE} registrations a second, {}", beside.name()));
    for sample in &outcome.samples {
        *record.statuses.entry(sample.status).or_default() += 1;
    }
    record.push_quantiles("accept", outcome.samples.iter().map(|sample| sample.took_us as f64 / 1e3).collect());
    let settled = settled::operations(&world.database, operations).await?;
    let latencies = settled.iter().map(|s| (s.committed_us - s.accepted_us) as f64 / 1e3).collect();
    record.push_quantiles("accept → settled", latencies);
    record.push("decisions posted beside them", "", decisions.len() as f64);
    record.push("time to post them", "s", posted.as_secs_f64());
    for (group, seconds) in system.snapshot().await?.usage.since(&before.usage) {
        record.push(format!("cores, {group}"), "", seconds / args.duration().as_secs_f64());
    }
    let succeeded = settled.iter().filter(|settled| settled.succeeded).count();
    record.checks = vec![
        Check::new("each registration has succeeded", i64::try_from(operations.len())?, i64::try_from(succeeded)?),
        decided(&world, &decisions).await?,
        dead_letters(&world).await?,
    ];
    system.stop().await?;
    Ok(record)
}

/// All are decided in the end.
async fn decided(world: &World, payments: &[Uuid]) -> anyhow::Result<Check> {
    let (wanted, began) = (i64::try_from(payments.len())?, Instant::now());
    loop {
        let sql = "SELECT count(*) FROM payments WHERE id = ANY($1) AND status = 'approved'";
        let found = settled::number(&world.database, sql, payments).await?;
        if found == wanted || began.elapsed() > Duration::from_secs(60) {
            return Ok(Check::new("each decision is taken", wanted, found));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Payments that wait for a decision, each with its seat.
async fn payments(world: &World, count: usize) -> anyhow::Result<Vec<Uuid>> {
    let students = database::make_students(&world.database, count).await?;
    let batches = database::make_batches(&world.database, 12, i32::try_from(count)?, 0).await?;
    let registrations = database::hold_seats(&world.database, &students, &batches).await?;
    let mut transaction = world.database.begin().await?;
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

/// Approves all, in bulk; answers how long it took to post them.
async fn decide(world: &World, system: &System, payments: &[Uuid]) -> anyhow::Result<Duration> {
    if payments.is_empty() {
        return Ok(Duration::ZERO);
    }
    tokio::time::sleep(HEAD_START).await;
    let accountant: Uuid = sqlx::query_scalar("SELECT id FROM users WHERE role = 'accountant' ORDER BY id LIMIT 1")
        .fetch_one(&world.database)
        .await?;
    let token = world.mint.token(accountant, Role::Accountant)?;
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

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "alone",
            Self::Decisions => "with decisions in bulk",
            Self::SlowMail => "with a slow mail server",
            Self::NoMail => "with a mail outage",
        }
    }

    /// A process of its own, which ends when it is dropped; none: connections are refused.
    async fn mail_server(self, listen: SocketAddr) -> anyhow::Result<Option<Child>> {
        let delay = match self {
            Self::NoMail => return Ok(None),
            Self::SlowMail => SLOW,
            Self::Nothing | Self::Decisions => Duration::ZERO,
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
