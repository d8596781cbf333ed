//! Pruning during payments: the oldest twentieth of the operations has just expired, the clock deletes it in small
//! statements, and no statement may wait for a lock of pruning.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::watch;

use super::{history, payments};
use crate::{
    args::Args,
    config::Installation,
    record::{Check, Record},
    services::Services,
};

const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Measures one run of payments while the clock prunes.
///
/// # Errors
/// Where a process or a server fails, or effects are missing.
pub(crate) async fn measure(
    args: &Args,
    installation: &Installation,
    services: &Services,
) -> anyhow::Result<Vec<Record>> {
    let mut args = args.clone();
    let keep = ("REGISTRAR__CLOCK__OPERATIONS_KEEP_DAYS".to_owned(), history::KEEP_DAYS.to_string());
    args.workers_env.push(keep);
    let (stop, stopped) = watch::channel(false);
    let watcher = tokio::spawn(watch_locks(services.database.clone(), stopped));
    let (before, began) = (expired(&services.database).await?, Instant::now());
    let records = payments(&args, installation, services, "growth-pruning", 1).await;
    let (seconds, after) = (began.elapsed().as_secs_f64(), expired(&services.database).await?);
    // Sending fails only where the watcher has failed, which joining it reports.
    stop.send(true).ok();
    let (samples, waits) = watcher.await??;
    let mut records = records?;
    for record in &mut records {
        let (pruned, settled) = ((before - after) as f64 / seconds, record.figure("settled, end to end"));
        record.push("operations pruned", "", (before - after) as f64);
        record.push("pruned while payments ran, and before and after", "/s", pruned);
        record.push("expired operations left", "", after as f64);
        record.push("samples of lock waits", "", samples as f64);
        let keeps_up = after == 0 || settled.is_some_and(|settled| pruned >= settled);
        record.checks.push(Check::new("pruning is as fast as payments settle", 1, keeps_up.into()));
        record.checks.push(Check::new("no statement waits for a lock of pruning", 0, waits));
    }
    Ok(records)
}

async fn expired(database: &PgPool) -> anyhow::Result<i64> {
    let sql = "SELECT count(*) FROM operations WHERE settled_at < now() - make_interval(days => $1)";
    Ok(sqlx::query_scalar(sql).bind(history::KEEP_DAYS).fetch_one(database).await?)
}

/// Samples lock waits until stopped; returns the number of samples and of backends that waited for a pruning one.
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
