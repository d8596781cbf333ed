//! 20,000 students, with a connection each, open and idle, send one registration each within two seconds, for one
//! course batch with seats for 15 % of them. Two gateways and two driver processes. A client that gets a 503 repeats
//! the request after its Retry-After under the same key, so that in the end every client gets a 202.

use std::time::{Duration, Instant};

use anyhow::ensure;
use contracts::Role;
use uuid::Uuid;

use super::crowd::{Client, Crowd, Plan, PostResult, Wait};
use crate::{
    args::Args,
    config::Installation,
    database,
    processes::{Layout, RunningSystem},
    quantiles::Quantiles,
    record::{Check, Record},
    request::{Post, Requests, student_scope},
    scenario::{dead_letters, unsettled},
    services::Services,
    settled,
};

const PATH: &str = "/v1/registrations";
pub(crate) const GATEWAYS: u8 = 2;
const SPREAD: Duration = Duration::from_secs(2);
/// Shares of the clients: 3,000 seats and 2,000 waitlist places for 20,000.
const SEATS_SHARE: f64 = 0.15;
const WAITLIST_SHARE: f64 = 0.10;
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Limit of the time from the last 202 to the last commit.
const SETTLED_WITHIN_TARGET_MS: f64 = 6_000.0;
const POLL: Duration = Duration::from_millis(100);

/// Measures all runs, each on new processes and an empty database.
///
/// # Errors
/// Where a process or a server fails, or a client's request is rejected.
pub(crate) async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for index in 1..=args.repeats {
        eprintln!("bench: stampede, run {index} of {}", args.repeats);
        records.push(once(args, installation).await?);
    }
    Ok(records)
}

async fn once(args: &Args, installation: &Installation) -> anyhow::Result<Record> {
    let clients = args.clients();
    let share = |share: f64| (clients as f64 * share).ceil() as i32;
    database::recreate(installation).await?;
    let services = Services::connect(installation).await?;
    services.broker.purge().await?;
    let (capacity, waitlist) = (share(SEATS_SHARE), share(WAITLIST_SHARE));
    let course_batch = database::insert_course_batches(&services.database, 1, capacity, waitlist).await?[0];
    let (requests, clients_of_plans) = registrations(&services, course_batch, clients, |_, _| None).await?;
    database::vacuum_and_checkpoint(&services.database).await?;
    let system = RunningSystem::start(installation, &Layout { gateways: GATEWAYS, ..Layout::of(args) }).await?;

    let mut record = Record::of("stampede", format!("{clients} connections on {GATEWAYS} gateways, within {SPREAD:?}"));
    push_gateway_memory(&mut record, "before", &system);
    let mut crowd = Crowd::connect(&plans(&system, clients_of_plans)).await?;
    push_gateway_memory(&mut record, "all connected and idle", &system);
    let before = system.snapshot().await?;
    let (began_us, posted) = crowd.post(SPREAD).await?;
    push_gateway_memory(&mut record, "all answered", &system);
    let posted: Vec<PostResult> = posted.into_iter().flatten().collect();
    let operations = requests.operations(0..requests.len()).to_vec();
    await_settled(&services, &operations).await?;
    let used = system.snapshot().await?.usage.since(&before.usage);

    push_answers(&mut record, began_us, &posted);
    let last_accepted_us = posted.iter().map(|posted| posted.accepted_us).max().unwrap_or_default();
    let settled = settled::operations(&services.database, &operations).await?;
    let last_commit_us = settled.iter().map(|settled| settled.committed_us).max().unwrap_or_default();
    let drained_ms = (last_commit_us - last_accepted_us).max(0) as f64 / 1e3;
    record.push("all settled after the last 202", "ms", drained_ms);
    let latencies = settled.iter().map(|s| (s.committed_us - s.accepted_us) as f64 / 1e3).collect();
    record.push_quantiles("accept → settled", latencies);
    for (group, seconds) in &used {
        record.push(format!("CPU a registration, {group}"), "µs", seconds * 1e6 / clients as f64);
    }
    record.checks = vec![
        Check::new("every client was answered 202", clients as i64, posted.len() as i64),
        Check::new("every 202 has its operation", clients as i64, settled.len() as i64),
        Check::new("all are settled within 6 s of the last 202", 1, (drained_ms <= SETTLED_WITHIN_TARGET_MS).into()),
    ];
    record.checks.extend(seats(&services, course_batch, capacity, waitlist, &operations).await?);
    record.checks.push(dead_letters(&services).await?);
    system.stop().await?;
    Ok(record)
}

/// Inserts students and renders one registration for each on one course batch; `wait` maps the client's number and
/// access token to how the client waits for its result.
pub(crate) async fn registrations(
    services: &Services,
    course_batch: Uuid,
    count: usize,
    wait: impl Fn(usize, String) -> Option<Wait>,
) -> anyhow::Result<(Requests, Vec<Client>)> {
    let students = database::insert_students(&services.database, count).await?;
    let (mut requests, mut clients) = (Requests::default(), Vec::new());
    for (index, student) in students.iter().enumerate() {
        let token = services.signer.token(student.id, Role::Student)?;
        let (key, scope) = (student.id.simple().to_string(), student_scope(student.id));
        let body = format!(r#"{{"batch_id":"{course_batch}"}}"#);
        requests.push(&Post { path: PATH, key: &key, token: Some(&token), scope: &scope, headers: "", body: &body });
        let post = String::from_utf8(requests.bytes(index).to_vec())?;
        clients.push(Client { post, wait: wait(index, token) });
    }
    Ok((requests, clients))
}

/// Spreads the clients over the gateways in turn; one plan, and so one driver, for each gateway.
pub(crate) fn plans(system: &RunningSystem, clients: Vec<Client>) -> Vec<Plan> {
    let mut plans: Vec<Plan> =
        system.gateways.iter().map(|gateway| Plan { gateway: *gateway, clients: Vec::new() }).collect();
    let count = plans.len();
    for (index, client) in clients.into_iter().enumerate() {
        plans[index % count].clients.push(client);
    }
    plans
}

/// Adds the memory of all gateways together, MiB, and returns it.
pub(crate) fn push_gateway_memory(record: &mut Record, when: &str, system: &RunningSystem) -> f64 {
    let memory = system.memory_mib();
    let mib = memory.iter().filter(|(group, _)| group.starts_with("gateway")).map(|(_, mib)| mib).sum();
    record.push(format!("memory of all gateways, {when}"), "MiB", mib);
    mib
}

/// Waits until no operation is unsettled. RabbitMQ is asked first, which costs Postgres nothing.
pub(crate) async fn await_settled(services: &Services, operations: &[Uuid]) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let waiting = services.broker.waiting().await?;
        if waiting == 0 && unsettled(services, operations).await? == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < SETTLED_WITHIN, "not settled after {SETTLED_WITHIN:?}; {waiting} messages wait");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until these operations are settled, even if queues are not empty.
///
/// # Errors
/// Where they are not settled within [`SETTLED_WITHIN`].
pub(crate) async fn await_operations(services: &Services, operations: &[Uuid]) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let unsettled = unsettled(services, operations).await?;
        if unsettled == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < SETTLED_WITHIN, "{unsettled} operations are not settled after {SETTLED_WITHIN:?}");
        tokio::time::sleep(POLL).await;
    }
}

fn push_answers(record: &mut Record, began_us: i64, posted: &[PostResult]) {
    let first: Vec<f64> = posted.iter().map(|posted| posted.first_answer_us as f64 / 1e3).collect();
    record.push_quantiles("first response", first);
    let at_first = posted.iter().filter(|posted| matches!(posted.first_status, 200 | 202)).count();
    record.push("answered 202 at the first attempt", "", at_first as f64);
    record.push("answered 503, then 202", "", posted.iter().filter(|posted| posted.shed > 0).count() as f64);
    record.push("answers 503", "", posted.iter().map(|posted| f64::from(posted.shed)).sum());
    record.push("broken connections", "", posted.iter().map(|posted| f64::from(posted.broken)).sum());
    let after = posted.iter().map(|posted| (posted.accepted_us - began_us) as f64 / 1e3).collect();
    let Quantiles { p50, max, .. } = Quantiles::of(after);
    record.push("accepted after the start, half", "ms", p50);
    record.push("accepted after the start, all", "ms", max);
    for result in posted {
        *record.statuses.entry(result.first_status).or_default() += 1;
    }
}

/// Rules: seats and waitlist are exactly full, and the waitlist's numbers are 1 to its length.
async fn seats(
    services: &Services,
    course_batch: Uuid,
    capacity: i32,
    waitlist: i32,
    operations: &[Uuid],
) -> anyhow::Result<Vec<Check>> {
    let (taken, waiting, held, waitlisted, first, last): (i64, i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT seats_taken::bigint, waitlist_taken::bigint, held, waitlisted, coalesce(first, 1), coalesce(last, 0)
           FROM batches,
                LATERAL (SELECT count(*) FILTER (WHERE status = 'seat_held') AS held,
                                count(DISTINCT waitlist_seq) FILTER (WHERE status = 'waitlisted') AS waitlisted,
                                min(waitlist_seq) AS first, max(waitlist_seq) AS last
                           FROM student_registrations WHERE batch_id = batches.id) AS rows
          WHERE id = $1",
    )
    .bind(course_batch)
    .fetch_one(&services.database)
    .await?;
    let full = settled::count(
        &services.database,
        "SELECT count(*) FROM operations WHERE id = ANY($1) AND state = 'rejected' AND outcome::text LIKE '%batch-full%'",
        operations,
    );
    let (capacity, waitlist) = (i64::from(capacity), i64::from(waitlist));
    let rejected = operations.len() as i64 - capacity - waitlist;
    Ok(vec![
        Check::new("the seats are exactly full, by the counter", capacity, taken),
        Check::new("the seats are exactly full, by the rows", capacity, held),
        Check::new("the waitlist is exactly full, by the counter", waitlist, waiting),
        Check::new("the waitlist is exactly full, by the rows, with distinct places", waitlist, waitlisted),
        Check::new("the waitlist has no gap", waitlist, last - first + 1),
        Check::new("all others were rejected as full", rejected, full.await?),
    ])
}
