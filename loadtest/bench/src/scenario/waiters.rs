//! 20,000 clients that wait at once on two gateways, half of them listening to `GET /v1/events`, half on long polls of
//! their operation. While nothing happens they must cost memory, not queries; then the workers begin, everything
//! settles, and it counts how soon each is told.

use std::time::Duration;

use uuid::Uuid;

use super::{
    Check,
    crowd::{Crowd, Wait},
    dead_letters,
    stampede::{GATEWAYS, await_settled, plans, push_gateway_memory, registrations},
};
use crate::{
    args::Args,
    config::Installation,
    database,
    processes::{Layout, System},
    record::Record,
    world::World,
};

/// Within which all post, and within which all begin to wait.
const SPREAD: Duration = Duration::from_secs(4);
/// Until idle backends of Postgres have reported what they did before.
const QUIET: Duration = Duration::from_secs(11);
/// Ends before the first long poll does.
const WINDOW: Duration = Duration::from_secs(12);
const MEMORY_TARGET_MIB: f64 = 600.0;
/// What the clock, the sweeps and this benchmark itself may ask.
const QUERIES_TARGET_PER_SECOND: f64 = 50.0;

/// Runs it as often as the command line says, each time on fresh processes and an empty database.
///
/// # Errors
/// Where a process or a server fails, or somebody is never told.
pub async fn run(args: &Args, installation: &Installation) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for index in 1..=args.repeats {
        eprintln!("bench: waiters, run {index} of {}", args.repeats);
        records.push(once(args, installation).await?);
    }
    Ok(records)
}

async fn once(args: &Args, installation: &Installation) -> anyhow::Result<Record> {
    let clients = args.clients();
    database::make_anew(installation).await?;
    let world = World::connect(installation).await?;
    world.broker.purge().await?;
    let batch = database::make_batches(&world.database, 1, i32::try_from(clients)?, 0).await?[0];
    let wait = |index: usize, token| Some(if listens(index) { Wait::Listen(token) } else { Wait::Poll(token) });
    let (requests, plans_clients) = registrations(&world, batch, clients, wait).await?;
    let operations = requests.operations(0..requests.len()).to_vec();
    database::settle_down(&world.database).await?;
    let layout = Layout::of(args);
    let gateways = Layout { gateways: GATEWAYS, workers: Vec::new(), ..layout.clone() };
    let gateways = System::start(installation, &gateways).await?;

    let mut record = Record::of("waiters", format!("{clients} clients on {GATEWAYS} gateways"));
    push_gateway_memory(&mut record, "before", &gateways);
    let mut crowd = Crowd::gather(&plans(&gateways, plans_clients)).await?;
    push_gateway_memory(&mut record, "all connected and idle", &gateways);
    crowd.post(SPREAD).await?;
    push_gateway_memory(&mut record, "all answered", &gateways);
    crowd.wait(SPREAD).await?;
    let waiting_mib = push_gateway_memory(&mut record, "all waiting", &gateways);
    tokio::time::sleep(QUIET).await;
    let (before, cpu) = (transactions(&world).await?, gateways.snapshot().await?);
    tokio::time::sleep(WINDOW).await;
    let queries = (transactions(&world).await? - before) as f64 / WINDOW.as_secs_f64();
    record.push("queries while all wait", "/s", queries);
    for (group, seconds) in gateways.snapshot().await?.usage.since(&cpu.usage) {
        record.push(format!("cores while all wait, {group}"), "", seconds / WINDOW.as_secs_f64());
    }

    let workers = System::start(installation, &Layout { gateways: 0, ..layout }).await?;
    await_settled(&world, &operations).await?;
    let told = crowd.told().await?;
    let told_mib = push_gateway_memory(&mut record, "all told", &gateways);
    push_delays(&mut record, &world, &operations, &told).await?;
    let told: usize = told.iter().map(Vec::len).sum();
    record.checks = vec![
        Check::new("everybody was told", i64::try_from(clients)?, i64::try_from(told)?),
        Check::new("all gateways hold at most 600 MiB", 1, (waiting_mib.max(told_mib) <= MEMORY_TARGET_MIB).into()),
        Check::new("waiting costs at most 50 queries a second", 1, (queries <= QUERIES_TARGET_PER_SECOND).into()),
        dead_letters(&world).await?,
    ];
    workers.stop().await?;
    gateways.stop().await?;
    Ok(record)
}

/// In pairs, as the gateways take turns: each has as many of one kind as of the other.
fn listens(index: usize) -> bool {
    (index / 2).is_multiple_of(2)
}

/// All of the database so far; a backend reports what it did at most a second later, or ten where it idles.
async fn transactions(world: &World) -> anyhow::Result<i64> {
    let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    Ok(sqlx::query_scalar(sql).fetch_one(&world.database).await?)
}

/// From the true time of the commit to the client's ear.
async fn push_delays(record: &mut Record, world: &World, operations: &[Uuid], told: &[Vec<i64>]) -> anyhow::Result<()> {
    let committed: Vec<i64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM pg_xact_commit_timestamp(operations.xmin)) * 1000000)::bigint
           FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, n)
           JOIN operations USING (id)
          ORDER BY n",
    )
    .bind(operations)
    .fetch_all(&world.database)
    .await?;
    let drivers = told.len();
    let (mut by_stream, mut by_poll) = (Vec::new(), Vec::new());
    for (index, committed_us) in committed.iter().enumerate() {
        let delay_ms = (told[index % drivers][index / drivers] - committed_us) as f64 / 1e3;
        if listens(index) { by_stream.push(delay_ms) } else { by_poll.push(delay_ms) }
    }
    record.push_quantiles("commit → told, by the stream of events", by_stream);
    record.push_quantiles("commit → told, by a long poll", by_poll);
    let (first, last) = (committed.iter().min(), committed.iter().max());
    let (first, last) = (first.copied().unwrap_or_default(), last.copied().unwrap_or_default());
    let last_told = told.iter().flatten().max().copied().unwrap_or_default();
    record.push("first commit to last commit", "ms", (last - first) as f64 / 1e3);
    record.push("last commit until everybody was told", "ms", (last_told - last) as f64 / 1e3);
    Ok(())
}
