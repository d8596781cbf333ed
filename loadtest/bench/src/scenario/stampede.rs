//! Everybody at once: a connection for each of 20,000 students, all open and idle, then within two seconds one
//! registration each, on one batch that has seats for one in seven. Two gateways, two driver processes. Who is told 503
//! comes back after its Retry-After under the same key, so that in the end everybody is answered 202.

use std::time::{Duration, Instant};

use anyhow::ensure;
use contracts::Role;
use uuid::Uuid;

use super::{
    Check,
    crowd::{Client, Crowd, Plan, Taken, Wait},
    dead_letters, unsettled,
};
use crate::{
    args::Args,
    config::Installation,
    database,
    processes::{Layout, System},
    quantiles::Quantiles,
    record::Record,
    request::{Post, Requests, student_scope},
    settled,
    world::World,
};

const PATH: &str = "/v1/registrations";
pub(super) const GATEWAYS: u8 = 2;
const SPREAD: Duration = Duration::from_secs(2);
/// Of the clients: 3,000 seats and 2,000 places on the waitlist for 20,000.
const SEATS_SHARE: f64 = 0.15;
const WAITLIST_SHARE: f64 = 0.10;
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// After the last 202.
const SETTLED_WITHIN_TARGET_MS: f64 = 6_000.0;
const POLL: Duration = Duration::from_millis(100);

/// Runs it as often as the command line says, each time on fresh processes and an empty database.
///
/// # Errors
/// Where a process or a server fails, or a client is refused for good.
pub async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
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
    database::make_anew(installation).await?;
    let world = World::connect(installation).await?;
    world.broker.purge().await?;
    let (capacity, waitlist) = (share(SEATS_SHARE), share(WAITLIST_SHARE));
    let batch = database::make_batches(&world.database, 1, capacity, waitlist).await?[0];
    let (requests, plans_clients) = registrations(&world, batch, clients, |_, _| None).await?;
    database::settle_down(&world.database).await?;
    let system = System::start(installation, &Layout { gateways: GATEWAYS, ..Layout::of(args) }).await?;

    let mut record = Record::of("stampede", format!("{clients} connections on {GATEWAYS} gateways, within {SPREAD:?}"));
    push_gateway_memory(&mut record, "before", &system);
    let mut crowd = Crowd::gather(&plans(&system, plans_clients)).await?;
    push_gateway_memory(&mut record, "all connected and idle", &system);
    let before = system.snapshot().await?;
    let (began_us, taken) = crowd.post(SPREAD).await?;
    push_gateway_memory(&mut record, "all answered", &system);
    let taken: Vec<Taken> = taken.into_iter().flatten().collect();
    let operations = requests.operations(0..requests.len()).to_vec();
    await_settled(&world, &operations).await?;
    let used = system.snapshot().await?.usage.since(&before.usage);

    push_answers(&mut record, began_us, &taken);
    let last_taken_us = taken.iter().map(|taken| taken.taken_us).max().unwrap_or_default();
    let settled = settled::operations(&world.database, &operations).await?;
    let last_commit_us = settled.iter().map(|settled| settled.committed_us).max().unwrap_or_default();
    let drained_ms = (last_commit_us - last_taken_us).max(0) as f64 / 1e3;
    record.push("all settled after the last 202", "ms", drained_ms);
    let latencies = settled.iter().map(|s| (s.committed_us - s.accepted_us) as f64 / 1e3).collect();
    record.push_quantiles("accept → settled", latencies);
    for (group, seconds) in &used {
        record.push(format!("CPU a registration, {group}"), "µs", seconds * 1e6 / clients as f64);
    }
    record.checks = vec![
        Check::new("every client was answered 202", clients as i64, taken.len() as i64),
        Check::new("every 202 has its operation", clients as i64, settled.len() as i64),
        Check::new("all are settled within 6 s of the last 202", 1, (drained_ms <= SETTLED_WITHIN_TARGET_MS).into()),
    ];
    record.checks.extend(seats(&world, batch, capacity, waitlist, &operations).await?);
    record.checks.push(dead_letters(&world).await?);
    system.stop().await?;
    Ok(record)
}

/// A registration each for so many new students on one batch, rendered; `wait` says how the client of this number and
/// access token waits for its result.
pub(super) async fn registrations(
    world: &World,
    batch: Uuid,
    count: usize,
    wait: impl Fn(usize, String) -> Option<Wait>,
) -> anyhow::Result<(Requests, Vec<Client>)> {
    let students = database::make_students(&world.database, count).await?;
    let (mut requests, mut clients) = (Requests::default(), Vec::new());
    for (index, student) in students.iter().enumerate() {
        let token = world.mint.token(student.id, Role::Student)?;
        let (key, scope) = (student.id.simple().to_string(), student_scope(student.id));
        let body = format!(r#"{{"batch_id":"{batch}"}}"#);
        requests.push(&Post { path: PATH, key: &key, token: Some(&token), scope: &scope, headers: "", body: &body });
        let post = String::from_utf8(requests.bytes(index).to_vec())?;
        clients.push(Client { post, wait: wait(index, token) });
    }
    Ok((requests, clients))
}

/// Client by client to one gateway after the other; one driver a gateway.
pub(super) fn plans(system: &System, clients: Vec<Client>) -> Vec<Plan> {
    let mut plans: Vec<Plan> =
        system.gateways.iter().map(|gateway| Plan { gateway: *gateway, clients: Vec::new() }).collect();
    let count = plans.len();
    for (index, client) in clients.into_iter().enumerate() {
        plans[index % count].clients.push(client);
    }
    plans
}

/// The memory of all gateways together, which is answered too.
pub(super) fn push_gateway_memory(record: &mut Record, when: &str, system: &System) -> f64 {
    let memory = system.memory_mib();
    let mib = memory.iter().filter(|(group, _)| group.starts_with("gateway")).map(|(_, mib)| mib).sum();
    record.push(format!("memory of all gateways, {when}"), "MiB", mib);
    mib
}

/// Waits until every operation has its row. The broker is asked first, as that costs Postgres nothing.
pub(super) async fn await_settled(world: &World, operations: &[Uuid]) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let waiting = world.broker.waiting().await?;
        if waiting == 0 && unsettled(world, operations).await? == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < SETTLED_WITHIN, "not settled after {SETTLED_WITHIN:?}; {waiting} messages wait");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until all of these are settled, whatever else is under way.
///
/// # Errors
/// Where they are not in time.
pub(super) async fn await_operations(world: &World, operations: &[Uuid]) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let unsettled = unsettled(world, operations).await?;
        if unsettled == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < SETTLED_WITHIN, "{unsettled} operations are not settled after {SETTLED_WITHIN:?}");
        tokio::time::sleep(POLL).await;
    }
}

fn push_answers(record: &mut Record, began_us: i64, taken: &[Taken]) {
    let first: Vec<f64> = taken.iter().map(|taken| taken.first_answer_us as f64 / 1e3).collect();
    record.push_quantiles("first answer", first);
    let at_first = taken.iter().filter(|taken| matches!(taken.first_status, 200 | 202)).count();
    record.push("answered 202 at first", "", at_first as f64);
    record.push("answered 503, then 202", "", taken.iter().filter(|taken| taken.refused > 0).count() as f64);
    record.push("answers 503", "", taken.iter().map(|taken| f64::from(taken.refused)).sum());
    record.push("broken connections", "", taken.iter().map(|taken| f64::from(taken.broken)).sum());
    let after = taken.iter().map(|taken| (taken.taken_us - began_us) as f64 / 1e3).collect();
    let Quantiles { p50, max, .. } = Quantiles::of(after);
    record.push("taken after T0, half", "ms", p50);
    record.push("taken after T0, all", "ms", max);
    for taken in taken {
        *record.statuses.entry(taken.first_status).or_default() += 1;
    }
}

/// Exactly full, never oversold, and the waitlist's numbers are 1 to its length.
async fn seats(
    world: &World,
    batch: Uuid,
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
    .bind(batch)
    .fetch_one(&world.database)
    .await?;
    let full = settled::number(
        &world.database,
        "SELECT count(*) FROM operations WHERE id = ANY($1) AND state = 'rejected' AND outcome::text LIKE '%batch-full%'",
        operations,
    );
    let (capacity, waitlist) = (i64::from(capacity), i64::from(waitlist));
    let turned_away = operations.len() as i64 - capacity - waitlist;
    Ok(vec![
        Check::new("the seats are exactly full, by the counter", capacity, taken),
        Check::new("the seats are exactly full, by the rows", capacity, held),
        Check::new("the waitlist is exactly full, by the counter", waitlist, waiting),
        Check::new("the waitlist is exactly full, by the rows, nobody shares a place", waitlist, waitlisted),
        Check::new("the waitlist has no gap", waitlist, last - first + 1),
        Check::new("all others were told that it is full", turned_away, full.await?),
    ])
}
