//! Reads for many clients at once: operations by id, and what a stream missed since a moment. Requests that arrive while
//! a query runs become the next query, so that a storm of clients is a few queries on a few connections.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use contracts::Problem;
use sqlx::PgPool;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use uuid::Uuid;

use super::{Mark, notifications::Notification, operations::SettledOperation};
use crate::http::ApiError;

/// Ids a query.
pub const IDS_MAX: usize = 1_000;
/// Rows of each kind in one answer; as many rows tell that there may be more.
pub const PAGE_ROWS: usize = 50;

/// Queries by id at once, of the pool's connections.
const QUERIES_MAX: usize = 2;
/// Streams that catch up, a query.
const MISSED_MAX: usize = 250;
/// The time for which the first of them waits for others: where a client waits for it, and where it is a mere sweep.
const LINGER_URGENT: Duration = Duration::from_millis(5);
const LINGER_SWEEP: Duration = Duration::from_millis(250);
/// Requests in the queue; further ones wait to be queued.
const REQUESTS_MAX: usize = 4_096;
/// The time for which the clocks of this process and of the database are taken to run alike.
const CLOCK_VALID: Duration = Duration::from_secs(60);

/// A request for what a user may have missed.
#[derive(Clone, Debug)]
pub struct Missed {
    /// `operations.principal`.
    pub principal: String,
    /// `notifications.user_id`.
    pub user_id: Uuid,
    /// Operations after this, if at all.
    pub operations: Option<Mark>,
    /// Notifications after this, if at all.
    pub notifications: Option<Mark>,
    /// A client waits for it.
    pub urgent: bool,
}

/// The rows that a user missed, each kind in the order of time, at most [`PAGE_ROWS`] of each.
#[derive(Debug, Default)]
pub struct Found {
    /// The database's time of the read: everything committed until then was seen.
    pub read_at: DateTime<Utc>,
    /// SettledOperation operations.
    pub operations: Vec<SettledOperation>,
    /// Notifications.
    pub notifications: Vec<Notification>,
}

type Reply<T> = oneshot::Sender<Result<T, Problem>>;
type IdsRequest = (Vec<Uuid>, Reply<Vec<SettledOperation>>);
type MissedRequest = (Missed, Reply<Found>);

/// A handle to the reading tasks; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    ids: mpsc::Sender<IdsRequest>,
    missed: mpsc::Sender<MissedRequest>,
    clock: DatabaseClock,
}

impl Reader {
    /// Starts the tasks; they end with the last handle.
    pub fn start(db: PgPool) -> Self {
        let (ids, ids_requests) = mpsc::channel(REQUESTS_MAX);
        let (missed, missed_requests) = mpsc::channel(REQUESTS_MAX);
        let clock = DatabaseClock { db: db.clone(), anchor: Arc::default() };
        tokio::spawn(read_ids(db.clone(), ids_requests));
        tokio::spawn(read_missed(db, clock.clone(), missed_requests));
        Self { ids, missed, clock }
    }

    /// Reads those of these operations that are settled, at most [`IDS_MAX`], in any order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn operations(&self, ids: Vec<Uuid>) -> Result<Vec<SettledOperation>, Problem> {
        ask(&self.ids, |reply| (ids, reply)).await
    }

    /// Reads one operation, if it is settled.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn operation(&self, id: Uuid) -> Result<Option<SettledOperation>, Problem> {
        Ok(self.operations(vec![id]).await?.pop())
    }

    /// Reads a page of what a user missed.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn missed(&self, missed: Missed) -> Result<Found, Problem> {
        ask(&self.missed, |reply| (missed, reply)).await
    }

    /// Returns the database's time, never ahead of it.
    ///
    /// # Errors
    /// It is not known yet and the database does not answer.
    pub async fn now(&self) -> Result<DateTime<Utc>, Problem> {
        self.clock.now().await.map_err(problem)
    }
}

async fn ask<R, T>(queue: &mpsc::Sender<R>, request: impl FnOnce(Reply<T>) -> R) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    let gone = || Problem::new(contracts::ProblemType::DatabaseUnavailable);
    queue.send(request(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn problem(error: sqlx::Error) -> Problem {
    ApiError::from(error).problem().clone()
}

async fn read_ids(db: PgPool, mut requests: mpsc::Receiver<IdsRequest>) {
    let permits = Arc::new(Semaphore::new(QUERIES_MAX));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Some(first) = requests.recv().await else { return };
        // Clients woken by the same message ask before the query leaves.
        tokio::task::yield_now().await;
        let mut count = first.0.len();
        let mut gathered = vec![first];
        while count < IDS_MAX
            && let Ok(next) = requests.try_recv()
        {
            count += next.0.len();
            gathered.push(next);
        }
        let db = db.clone();
        tokio::spawn(async move {
            answer_ids(&db, gathered).await;
            drop(permit);
        });
    }
}

async fn answer_ids(db: &PgPool, requests: Vec<IdsRequest>) {
    let mut ids: Vec<Uuid> = requests.iter().flat_map(|(ids, _)| ids).copied().collect();
    ids.sort_unstable();
    ids.dedup();
    metrics::counter!("gateway_live_queries_total", "read" => "ids").increment(1);
    match SettledOperation::read_all(db, &ids).await {
        Ok(rows) => {
            let rows: HashMap<Uuid, SettledOperation> = rows.into_iter().map(|row| (row.id, row)).collect();
            for (ids, reply) in requests {
                // The client may have left; so below.
                let _ = reply.send(Ok(ids.iter().filter_map(|id| rows.get(id).cloned()).collect()));
            }
        }
        Err(error) => refuse(requests, error),
    }
}

async fn read_missed(db: PgPool, clock: DatabaseClock, mut requests: mpsc::Receiver<MissedRequest>) {
    while let Some(first) = requests.recv().await {
        let since = tokio::time::Instant::now();
        let linger = |urgent| since + if urgent { LINGER_URGENT } else { LINGER_SWEEP };
        let mut until = linger(first.0.urgent);
        let mut gathered = vec![first];
        while gathered.len() < MISSED_MAX
            && let Ok(Some(next)) = tokio::time::timeout_at(until, requests.recv()).await
        {
            until = until.min(linger(next.0.urgent));
            gathered.push(next);
        }
        answer_missed(&db, &clock, gathered).await;
    }
}

async fn answer_missed(db: &PgPool, clock: &DatabaseClock, requests: Vec<MissedRequest>) {
    match found(db, clock, &requests).await {
        Ok(found) => requests.into_iter().zip(found).for_each(|((_, reply), found)| {
            let _ = reply.send(Ok(found));
        }),
        Err(error) => refuse(requests, error),
    }
}

/// Reads what each request missed: a query for all operations, one for all notifications.
async fn found(db: &PgPool, clock: &DatabaseClock, requests: &[MissedRequest]) -> sqlx::Result<Vec<Found>> {
    // Taken before the queries: what is committed after it may or may not be among the rows.
    let read_at = clock.now().await?;
    let mut found: Vec<Found> = requests.iter().map(|_| Found { read_at, ..Found::default() }).collect();
    let positions = 0..requests.len();
    let of_principals: Vec<_> = positions
        .clone()
        .filter_map(|n| requests[n].0.operations.map(|mark| (n, requests[n].0.principal.as_str(), mark)))
        .collect();
    if !of_principals.is_empty() {
        metrics::counter!("gateway_live_queries_total", "read" => "missed_operations").increment(1);
        for (n, row) in SettledOperation::read_missed(db, &of_principals, PAGE_ROWS).await? {
            found[n].operations.push(row);
        }
    }
    let of_users: Vec<_> =
        positions.filter_map(|n| requests[n].0.notifications.map(|mark| (n, requests[n].0.user_id, mark))).collect();
    if !of_users.is_empty() {
        metrics::counter!("gateway_live_queries_total", "read" => "missed_notifications").increment(1);
        for (n, row) in Notification::read_missed(db, &of_users, PAGE_ROWS).await? {
            found[n].notifications.push(row);
        }
    }
    Ok(found)
}

fn refuse<R, T>(requests: Vec<(R, Reply<T>)>, error: sqlx::Error) {
    let problem = problem(error);
    for (_, reply) in requests {
        let _ = reply.send(Err(problem.clone()));
    }
}

/// A moment of this process and the database's time at it.
type Anchor = (Instant, DateTime<Utc>);

/// The database's clock, read once a minute at most: rows bear its time, and no gateway's clock need agree with it.
#[derive(Clone)]
struct DatabaseClock {
    db: PgPool,
    anchor: Arc<Mutex<Option<Anchor>>>,
}

impl DatabaseClock {
    async fn now(&self) -> sqlx::Result<DateTime<Utc>> {
        let mut anchor = self.anchor.lock().await;
        if let Some((at, time)) = *anchor
            && at.elapsed() < CLOCK_VALID
        {
            return Ok(time + TimeDelta::from_std(at.elapsed()).unwrap_or_default());
        }
        let time = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.db).await?;
        // The time when the answer came: the clock so made is behind, by the answer's way.
        *anchor = Some((Instant::now(), time));
        Ok(time)
    }
}
