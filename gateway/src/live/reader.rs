//! Reads for many at once. Whoever wants operations by id, or what they missed since a moment, asks here; all that is
//! asked while a query runs becomes the next one, so that a storm of clients is a few queries on a few connections.

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

use crate::{notifications::Notification, operations::Settled, problem_response::ApiError};

/// Ids a query.
pub const IDS_MAX: usize = 1_000;
/// Rows of each kind that one reader is given at a time; as many say that there may be more.
pub const PAGE_ROWS: usize = 50;

/// Queries by id at once, of the pool's connections.
const QUERIES_MAX: usize = 2;
/// Who missed something, a query.
const MISSED_MAX: usize = 250;
/// How long the first of them waits for others: where somebody waits for it, and where it is a mere sweep.
const LINGER_URGENT: Duration = Duration::from_millis(5);
const LINGER_SWEEP: Duration = Duration::from_millis(250);
/// Requests that wait for their turn; further ones wait to be taken in.
const ASKED_MAX: usize = 4_096;
/// For so long the clocks of this process and of the database are taken to run alike.
const CLOCK_VALID: Duration = Duration::from_secs(60);

/// A place in a user's rows: those after it are settled or written later, or at the same time with a greater id.
pub type Mark = (DateTime<Utc>, Uuid);

/// What a user may have missed.
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
    /// Whether somebody waits for it.
    pub urgent: bool,
}

/// What was found, each in the order of time, at most [`PAGE_ROWS`] of each.
#[derive(Debug, Default)]
pub struct Found {
    /// By the database's clock: what was committed until then was seen.
    pub read_at: DateTime<Utc>,
    /// Settled operations.
    pub operations: Vec<Settled>,
    /// Notifications.
    pub notifications: Vec<Notification>,
}

type Reply<T> = oneshot::Sender<Result<T, Problem>>;
type AskedIds = (Vec<Uuid>, Reply<Vec<Settled>>);
type AskedMissed = (Missed, Reply<Found>);

/// Takes requests; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    ids: mpsc::Sender<AskedIds>,
    missed: mpsc::Sender<AskedMissed>,
    clock: DatabaseClock,
}

impl Reader {
    /// Starts its tasks; they end with the last handle.
    pub fn start(db: PgPool) -> Self {
        let (ids, asked_ids) = mpsc::channel(ASKED_MAX);
        let (missed, asked_missed) = mpsc::channel(ASKED_MAX);
        let clock = DatabaseClock { db: db.clone(), anchor: Arc::default() };
        tokio::spawn(read_ids(db.clone(), asked_ids));
        tokio::spawn(read_missed(db, clock.clone(), asked_missed));
        Self { ids, missed, clock }
    }

    /// Those that are settled among these, at most [`IDS_MAX`], in any order.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn operations(&self, ids: Vec<Uuid>) -> Result<Vec<Settled>, Problem> {
        ask(&self.ids, |reply| (ids, reply)).await
    }

    /// One operation, if it is settled.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn operation(&self, id: Uuid) -> Result<Option<Settled>, Problem> {
        Ok(self.operations(vec![id]).await?.pop())
    }

    /// A page of what a user missed.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn missed(&self, missed: Missed) -> Result<Found, Problem> {
        ask(&self.missed, |reply| (missed, reply)).await
    }

    /// The database's clock, never ahead of it.
    ///
    /// # Errors
    /// Where it is not known yet and the database cannot be asked.
    pub async fn now(&self) -> Result<DateTime<Utc>, Problem> {
        self.clock.now().await.map_err(problem)
    }
}

async fn ask<A, T>(queue: &mpsc::Sender<A>, asked: impl FnOnce(Reply<T>) -> A) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    let gone = || Problem::new(contracts::ProblemType::DatabaseUnavailable);
    queue.send(asked(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn problem(error: sqlx::Error) -> Problem {
    ApiError::from(error).problem().clone()
}

async fn read_ids(db: PgPool, mut asked: mpsc::Receiver<AskedIds>) {
    let places = Arc::new(Semaphore::new(QUERIES_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Some(first) = asked.recv().await else { return };
        // Whoever was woken by the same message asks before the query leaves.
        tokio::task::yield_now().await;
        let mut count = first.0.len();
        let mut batch = vec![first];
        while count < IDS_MAX
            && let Ok(next) = asked.try_recv()
        {
            count += next.0.len();
            batch.push(next);
        }
        let db = db.clone();
        tokio::spawn(async move {
            answer_ids(&db, batch).await;
            drop(place);
        });
    }
}

async fn answer_ids(db: &PgPool, batch: Vec<AskedIds>) {
    let mut ids: Vec<Uuid> = batch.iter().flat_map(|(ids, _)| ids).copied().collect();
    ids.sort_unstable();
    ids.dedup();
    metrics::counter!("gateway_live_queries_total", "read" => "ids").increment(1);
    match Settled::read_all(db, &ids).await {
        Ok(rows) => {
            let rows: HashMap<Uuid, Settled> = rows.into_iter().map(|row| (row.id, row)).collect();
            for (ids, reply) in batch {
                // Whoever asked and left needs no answer; so below.
                let _ = reply.send(Ok(ids.iter().filter_map(|id| rows.get(id).cloned()).collect()));
            }
        }
        Err(error) => refuse(batch, error),
    }
}

async fn read_missed(db: PgPool, clock: DatabaseClock, mut asked: mpsc::Receiver<AskedMissed>) {
    while let Some(first) = asked.recv().await {
        let since = tokio::time::Instant::now();
        let linger = |urgent| since + if urgent { LINGER_URGENT } else { LINGER_SWEEP };
        let mut until = linger(first.0.urgent);
        let mut batch = vec![first];
        while batch.len() < MISSED_MAX
            && let Ok(Some(next)) = tokio::time::timeout_at(until, asked.recv()).await
        {
            until = until.min(linger(next.0.urgent));
            batch.push(next);
        }
        answer_missed(&db, &clock, batch).await;
    }
}

async fn answer_missed(db: &PgPool, clock: &DatabaseClock, batch: Vec<AskedMissed>) {
    match found(db, clock, &batch).await {
        Ok(found) => batch.into_iter().zip(found).for_each(|((_, reply), found)| {
            let _ = reply.send(Ok(found));
        }),
        Err(error) => refuse(batch, error),
    }
}

/// What each of a batch missed: a query for all operations, one for all notifications.
async fn found(db: &PgPool, clock: &DatabaseClock, batch: &[AskedMissed]) -> sqlx::Result<Vec<Found>> {
    // Taken before the queries: what is committed after it may or may not be among the rows.
    let read_at = clock.now().await?;
    let mut found: Vec<Found> = batch.iter().map(|_| Found { read_at, ..Found::default() }).collect();
    let positions = 0..batch.len();
    let of_principals: Vec<_> = positions
        .clone()
        .filter_map(|n| batch[n].0.operations.map(|mark| (n, batch[n].0.principal.as_str(), mark)))
        .collect();
    if !of_principals.is_empty() {
        metrics::counter!("gateway_live_queries_total", "read" => "missed_operations").increment(1);
        for (n, row) in Settled::read_missed(db, &of_principals, PAGE_ROWS).await? {
            found[n].operations.push(row);
        }
    }
    let of_users: Vec<_> =
        positions.filter_map(|n| batch[n].0.notifications.map(|mark| (n, batch[n].0.user_id, mark))).collect();
    if !of_users.is_empty() {
        metrics::counter!("gateway_live_queries_total", "read" => "missed_notifications").increment(1);
        for (n, row) in Notification::read_missed(db, &of_users, PAGE_ROWS).await? {
            found[n].notifications.push(row);
        }
    }
    Ok(found)
}

fn refuse<A, T>(batch: Vec<(A, Reply<T>)>, error: sqlx::Error) {
    let problem = problem(error);
    for (_, reply) in batch {
        let _ = reply.send(Err(problem.clone()));
    }
}

/// When the database was asked for the time, and what it said.
type Anchor = (Instant, DateTime<Utc>);

/// The database's clock, asked once a minute at most: rows bear its time, and no gateway's clock need agree with it.
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
