//! Pruning beside payments: the oldest twentieth of the history has just expired, the clock deletes it a little at a
//! time, and nobody may wait for a lock that it holds.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::watch;

use super::{super::Check, history, payments};
use crate::{args::Args, config::Installation, record::Record, world::World};

const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Measures one run of payments meanwhile.
///
/// # Errors
/// Where a process or a server fails, or the effects do not come.
pub async fn measure(args: &Args, installation: &Installation, world: &World) -> anyhow::Result<Vec<Record>> {
    let mut args = args.clone();
    let keep = ("REGISTRAR__CLOCK__OPERATIONS_KEEP_DAYS".to_owned(), history::KEEP_DAYS.to_string());
    args.workers_env.push(keep);
    let (stop, stopped) = watch::channel(false);
    let watcher = tokio::spawn(watch_locks(world.database.clone(), stopped));
    let (before, began) = (expired(&world.database).await?, Instant::now());
    let records = payments(&args, installation, world, "growth-pruning", 1).await;
    let (seconds, after) = (began.elapsed().as_secs_f64(), expired(&world.database).await?);
    // The watcher is there until it is told to stop, or has failed, which joining it shows.
    stop.send(true).ok();
    let (samples, waits) = watcher.await??;
    let mut records = records?;
    for record in &mut records {
        let (pruned, settled) = ((before - after) as f64 / seconds, record.figure("settled, end to end"));
        record.push("operations pruned", "", (before - after) as f64);
        record.push("pruned while payments ran, and before and after", "/s", pruned);
        record.push("operations yet to be pruned", "", after as f64);
        record.push("samples of lock waits", "", samples as f64);
        let keeps_up = after == 0 || settled.is_some_and(|settled| pruned >= settled);
        record.checks.push(Check::new("pruning is as fast as payments settle", 1, keeps_up.into()));
        record.checks.push(Check::new("nobody waits for a lock of pruning", 0, waits));
    }
    Ok(records)
}

async fn expired(database: &PgPool) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM operations WHERE settled_at < now() - make_interval(days => $1)";
    Ok(sqlx::query_scalar(sql).bind(history::KEEP_DAYS).fetch_one(database).await?)
}

/// How often it was looked, and how many backends waited for one that prunes.
async fn watch_locks(database: PgPool, mut stopped: watch::Receiver<bool>) -> anyhow::Result<(u64, i64)> {
    let (mut samples, mut waits) = (0, 0);
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*)
               FROM pg_stat_activity AS waiting, unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid)
               JOIN pg_stat_activity AS holder ON holder.pid = blocking.pid
              WHERE waiting.wait_event_type = 'Lock' AND holder.query LIKE '%DELETE FROM %'",
        )
        .fetch_one(&database)
        .await?;
        (samples, waits) = (samples + 1, waits + waiting);
        if tokio::time::timeout(SAMPLE_EVERY, stopped.changed()).await.is_ok() {
            return Ok((samples, waits));
        }
    }
}
