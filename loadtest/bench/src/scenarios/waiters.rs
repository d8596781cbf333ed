//! 20,000 clients that wait at the same time on two gateways, half of them on `GET /v1/events`, half by long polls of
//! their operation. Before the workers start, waiting must cost memory but no queries; then the workers settle
//! everything, and the time from each commit to the client's notification is measured.

use std::time::Duration;

use uuid::Uuid;

use super::{
    crowd::{Crowd, Wait},
    stampede::{GATEWAYS, await_settled, plans, push_gateway_memory, registrations},
};
use crate::{
    args::Args,
    config::Installation,
    database,
    processes::{Layout, RunningSystem},
    record::{Check, Record},
    scenario::dead_letters,
    services::Services,
};

/// Time over which the POSTs, and then the beginnings of waiting, are spread.
const SPREAD: Duration = Duration::from_secs(4);
/// Time after which idle backends of Postgres have reported their earlier transactions.
const QUIET: Duration = Duration::from_secs(11);
/// Length of the measurement; shorter than the first long poll.
const WINDOW: Duration = Duration::from_secs(12);
const MEMORY_TARGET_MIB: f64 = 600.0;
/// Queries a second allowed for the clock, the sweeps and this benchmark.
const QUERIES_TARGET_PER_SECOND: f64 = 50.0;

/// Measures all runs, each on new processes and an empty database.
///
/// # Errors
/// Where a process or a server fails, or a client is not notified.
pub(crate) async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for index in 1..=args.repeats {
        eprintln!("bench: waiters, run {index} of {}", args.repeats);
        records.push(once(args, installation).await?);
    }
    Ok(records)
}

async fn once(args: &Args, installation: &Installation) -> anyhow::Result<Record> {
    let clients = args.clients();
    database::recreate(installation).await?;
    let services = Services::connect(installation).await?;
    services.broker.purge().await?;
    let course_batch = database::insert_course_batches(&services.database, 1, i32::try_from(clients)?, 0).await?[0];
    let wait = |index: usize, token| Some(if listens(index) { Wait::Listen(token) } else { Wait::Poll(token) });
    let (requests, clients_of_plans) = registrations(&services, course_batch, clients, wait).await?;
    let operations = requests.operations(0..requests.len()).to_vec();
    database::vacuum_and_checkpoint(&services.database).await?;
    let layout = Layout::of(args);
    let gateways = Layout { gateways: GATEWAYS, workers: Vec::new(), ..layout.clone() };
    let gateways = RunningSystem::start(installation, &gateways).await?;

    let mut record = Record::of("waiters", format!("{clients} clients on {GATEWAYS} gateways"));
    push_gateway_memory(&mut record, "before", &gateways);
    let mut crowd = Crowd::connect(&plans(&gateways, clients_of_plans)).await?;
    push_gateway_memory(&mut record, "all connected and idle", &gateways);
    crowd.post(SPREAD).await?;
    push_gateway_memory(&mut record, "all answered", &gateways);
    crowd.wait(SPREAD).await?;
    let waiting_mib = push_gateway_memory(&mut record, "all waiting", &gateways);
    tokio::time::sleep(QUIET).await;
    let (before, cpu) = (transactions(&services).await?, gateways.snapshot().await?);
    tokio::time::sleep(WINDOW).await;
    let queries = (transactions(&services).await? - before) as f64 / WINDOW.as_secs_f64();
    record.push("queries while all wait", "/s", queries);
    for (group, seconds) in gateways.snapshot().await?.usage.since(&cpu.usage) {
        record.push(format!("cores while all wait, {group}"), "", seconds / WINDOW.as_secs_f64());
    }

    let workers = RunningSystem::start(installation, &Layout { gateways: 0, ..layout }).await?;
    await_settled(&services, &operations).await?;
    let notified = crowd.await_notified().await?;
    let notified_mib = push_gateway_memory(&mut record, "all notified", &gateways);
    push_delays(&mut record, &services, &operations, &notified).await?;
    let notified: usize = notified.iter().map(Vec::len).sum();
    record.checks = vec![
        Check::new("every client was notified", i64::try_from(clients)?, i64::try_from(notified)?),
        Check::new("all gateways hold at most 600 MiB", 1, (waiting_mib.max(notified_mib) <= MEMORY_TARGET_MIB).into()),
        Check::new("waiting costs at most 50 queries a second", 1, (queries <= QUERIES_TARGET_PER_SECOND).into()),
        dead_letters(&services).await?,
    ];
    workers.stop().await?;
    gateways.stop().await?;
    Ok(record)
}

/// Returns true for clients that use the event stream: pairs of neighbours do the same, so that each of two gateways
/// has as many of one kind as of the other.
fn listens(index: usize) -> bool {
    (index / 2).is_multiple_of(2)
}

/// Number of transactions of the database so far. A backend reports its own within a second, or within ten while idle.
async fn transactions(services: &Services) -> anyhow::Result<i64> {
    let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    Ok(sqlx::query_scalar(sql).fetch_one(&services.database).await?)
}

/// Adds the times from commit to notification.
async fn push_delays(
    record: &mut Record,
    services: &Services,
    operations: &[Uuid],
    notified: &[Vec<i64>],
) -> anyhow::Result<()> {
    let committed: Vec<i64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM pg_xact_commit_timestamp(operations.xmin)) * 1000000)::bigint
           FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (id, n)
           JOIN operations USING (id)
          ORDER BY n",
    )
    .bind(operations)
    .fetch_all(&services.database)
    .await?;
    let drivers = notified.len();
    let (mut by_stream, mut by_poll) = (Vec::new(), Vec::new());
    for (index, committed_us) in committed.iter().enumerate() {
        let delay_ms = (notified[index % drivers][index / drivers] - committed_us) as f64 / 1e3;
        if listens(index) { by_stream.push(delay_ms) } else { by_poll.push(delay_ms) }
    }
    record.push_quantiles("commit → notified, by the event stream", by_stream);
    record.push_quantiles("commit → notified, by a long poll", by_poll);
    let (first, last) = (committed.iter().min(), committed.iter().max());
    let (first, last) = (first.copied().unwrap_or_default(), last.copied().unwrap_or_default());
    let last_notified = notified.iter().flatten().max().copied().unwrap_or_default();
    record.push("first commit to last commit", "ms", (last - first) as f64 / 1e3);
    record.push("last commit → last notification", "ms", (last_notified - last) as f64 / 1e3);
    Ok(())
}
