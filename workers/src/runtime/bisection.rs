//! Settling a batch whatever goes wrong: in place while Postgres is away, three times where transactions conflict, and
//! in halves until the culprit is alone where the data is at fault.

use std::{collections::VecDeque, future::Future, ops::Range, time::Duration};

use contracts::amqp::Backoff;
use rand::RngExt;

use super::{
    consumer::{Context, Interrupted},
    failure::Failure,
};

/// How often a conflicting transaction is tried before the batch is divided.
const CONFLICT_TRIES: u32 = 3;

/// Runs `transaction` over the ranges of `0..len` until each is done or its single culprit was given to `single`.
///
/// # Errors
/// [`Interrupted`] when the process stops, or Postgres stays away: then nothing more may be acked.
pub async fn bisect<F, Fut>(
    context: &Context,
    len: usize,
    mut transaction: F,
    mut single: impl FnMut(usize, Failure),
) -> Result<(), Interrupted>
where
    F: FnMut(Range<usize>) -> Fut,
    Fut: Future<Output = Result<(), Failure>>,
{
    let mut work = VecDeque::new();
    work.push_back(0..len);
    while let Some(range) = work.pop_front() {
        if range.is_empty() {
            continue;
        }
        let Err(failure) = retry_in_place(context, || transaction(range.clone())).await? else {
            continue;
        };
        if range.len() == 1 {
            single(range.start, failure);
        } else {
            tracing::debug!(%failure, events = range.len(), "bisecting");
            let middle = range.start + range.len() / 2;
            work.push_front(middle..range.end);
            work.push_front(range.start..middle);
        }
    }
    Ok(())
}

/// Tries one transaction until it is done, or failed for a reason that lies in its events.
///
/// # Errors
/// [`Interrupted`], as [`bisect`].
pub async fn retry_in_place<T, F, Fut>(context: &Context, mut transaction: F) -> Result<Result<T, Failure>, Interrupted>
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
                metrics::counter!("settle_races_total", "pool" => context.pool_name).increment(1);
                jitter().await;
            }
            Err(Failure::Conflict(error)) => {
                conflicts += 1;
                metrics::counter!("settle_conflicts_total", "pool" => context.pool_name).increment(1);
                if conflicts == CONFLICT_TRIES {
                    return Ok(Err(Failure::Conflict(error)));
                }
                jitter().await;
            }
            Err(Failure::Unavailable(error)) => {
                let since = *away_since.get_or_insert_with(std::time::Instant::now);
                metrics::counter!("database_unavailable_total", "pool" => context.pool_name).increment(1);
                tracing::warn!(%error, pool = context.pool_name, "the database is away; the batch waits");
                context.wait_for_database(since, backoff.next_delay()).await?;
            }
            done => return Ok(done),
        }
    }
}

async fn jitter() {
    let pause_ms = rand::rng().random_range(1..=20);
    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
}
