//! Settling items whatever goes wrong: retried in place while Postgres is away, three times where transactions
//! conflict, and bisected down to the single culprit where the data is at fault.

use std::{
    future::Future,
    iter,
    ops::Range,
    time::{Duration, Instant},
};

use contracts::amqp::Backoff;
use rand::RngExt;

use crate::runtime::{
    failure::Failure,
    shared::{Interrupted, PoolContext},
};

/// Number of times that a conflicting transaction is tried before its items are bisected.
const CONFLICT_TRIES: u32 = 3;

/// Runs `transaction` over ranges of `0..len`, which returns a result for each item of its range; halves a range that
/// fails, and gives the failure of a single item to `single`. Returns the results in order, one an item.
///
/// # Errors
/// [`Interrupted`] when the process stops, or Postgres stays away: then nothing more may be acked.
pub async fn bisect<T, F, Fut>(
    pool: &PoolContext,
    len: usize,
    mut transaction: F,
    single: impl Fn(&Failure) -> T,
) -> Result<Vec<T>, Interrupted>
where
    F: FnMut(Range<usize>) -> Fut,
    Fut: Future<Output = Result<Vec<T>, Failure>>,
{
    let mut results = Vec::with_capacity(len);
    // A stack with the leftmost range on top.
    let mut pending: Vec<Range<usize>> = iter::once(0..len).collect();
    while let Some(range) = pending.pop() {
        if range.is_empty() {
            continue;
        }
        match retry_in_place(pool, || transaction(range.clone())).await? {
            Ok(done) => results.extend(done),
            Err(failure) if range.len() == 1 => results.push(single(&failure)),
            Err(failure) => {
                tracing::debug!(%failure, events = range.len(), "bisecting");
                let middle = range.start + range.len() / 2;
                pending.push(middle..range.end);
                pending.push(range.start..middle);
            }
        }
    }
    Ok(results)
}

/// Tries one transaction until it is done, or failed for a reason that lies in its events.
///
/// # Errors
/// [`Interrupted`], as [`bisect`].
pub async fn retry_in_place<T, F, Fut>(
    pool: &PoolContext,
    mut transaction: F,
) -> Result<Result<T, Failure>, Interrupted>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    let mut backoff = Backoff::new(Duration::from_secs(2));
    let mut conflicts = 0;
    let mut away_since = None;
    loop {
        match transaction().await {
            Err(Failure::Race) => {
                metrics::counter!("settle_races_total", "pool" => pool.name).increment(1);
                jitter().await;
            }
            Err(Failure::Conflict(error)) => {
                conflicts += 1;
                metrics::counter!("settle_conflicts_total", "pool" => pool.name).increment(1);
                if conflicts == CONFLICT_TRIES {
                    return Ok(Err(Failure::Conflict(error)));
                }
                jitter().await;
            }
            Err(Failure::Unavailable(error)) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                metrics::counter!("database_unavailable_total", "pool" => pool.name).increment(1);
                tracing::warn!(%error, pool = pool.name, "the database is away; the deliveries wait");
                pool.wait_for_database(since, backoff.next_delay()).await?;
            }
            done => return Ok(done),
        }
    }
}

async fn jitter() {
    let pause_ms = rand::rng().random_range(1..=20);
    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
}
