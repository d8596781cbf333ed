//! The catalogue: courses, course batches and seats, for visitors and for the check of a registration before it is
//! published. One snapshot of all courses and course batches is kept, also while Postgres is away; a course batch that it
//! does not have, or has as closed, is looked up anew before anybody is refused. Seats are read at most once a second.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use chrono::{DateTime, NaiveDate, Utc};
use contracts::ProblemType;
use moka::future::Cache;
use redis::{AsyncCommands, aio::ConnectionManager};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::{ApiError, ApiResult};

/// The age of a snapshot at most, for reading.
const SNAPSHOT_AGE: Duration = Duration::from_secs(5);
/// The age of a snapshot at most, for refusing a registration.
const REFUSAL_AGE: Duration = Duration::from_secs(1);
const SEATS_AGE: Duration = Duration::from_secs(1);
const COURSE_BATCHES_MAX: u64 = 10_000;

/// A published course.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Course {
    /// `courses.id`.
    pub id: Uuid,
    /// Unique, short.
    pub code: String,
    /// Unique, for addresses.
    pub slug: String,
    /// Its name.
    pub title: String,
    /// The contents.
    pub description: String,
    /// The kind of course.
    pub category: Option<String>,
    /// The length of the course.
    pub duration_weeks: i32,
    /// Before tax, where a batch names no fee of its own.
    #[schema(value_type = String)]
    pub base_fee: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// Per cent.
    #[schema(value_type = String)]
    pub tax_rate: Decimal,
}

/// A course batch of a published course.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Batch)]
pub struct CourseBatch {
    /// `batches.id`.
    pub id: Uuid,
    /// Its course.
    pub course_id: Uuid,
    /// The course's name.
    pub course_title: String,
    /// Unique within its course.
    pub code: String,
    /// Its name.
    pub name: String,
    /// `classroom`, `online` or `hybrid`.
    pub mode: String,
    /// Seats.
    pub capacity: i32,
    /// Places on the waitlist.
    pub waitlist_capacity: i32,
    /// The first day.
    pub start_date: NaiveDate,
    /// The last day.
    pub end_date: NaiveDate,
    /// Registrations are taken from then on.
    pub opens_at: DateTime<Utc>,
    /// Until then.
    pub closes_at: DateTime<Utc>,
    /// Before tax.
    #[schema(value_type = String)]
    pub fee: Decimal,
    /// The amount that confirms the seat; absent: all of it.
    #[schema(value_type = Option<String>)]
    pub deposit: Option<Decimal>,
    /// ISO 4217.
    pub currency: String,
    /// Per cent.
    #[schema(value_type = String)]
    pub tax_rate: Decimal,
    /// `true` where an admin reviews applicants.
    pub requires_review: bool,
    /// The times of classes.
    #[schema(value_type = Object)]
    pub schedule: Value,
    /// `open`, `closed` or `completed`.
    pub status: String,
}

/// The seats of a batch, at most a second old.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Availability {
    /// The batch.
    pub batch_id: Uuid,
    /// Seats.
    pub capacity: i32,
    /// Seats that nobody holds.
    pub seats_left: i32,
    /// Places on the waitlist that are free.
    pub waitlist_left: i32,
    /// The end of the registration window.
    pub closes_at: DateTime<Utc>,
}

/// All courses and course batches on offer at one moment.
pub struct CatalogueSnapshot {
    /// By code.
    pub courses: Vec<Course>,
    /// By start.
    pub course_batches: Vec<CourseBatch>,
    by_id: HashMap<Uuid, usize>,
    database_time: DateTime<Utc>,
    read_at: Instant,
}

impl CatalogueSnapshot {
    /// Returns the course batch, if it is on offer.
    pub fn course_batch(&self, id: Uuid) -> Option<&CourseBatch> {
        self.by_id.get(&id).map(|index| &self.course_batches[*index])
    }

    /// The time by the database's clock, which alone counts.
    fn now(&self) -> DateTime<Utc> {
        self.database_time + self.read_at.elapsed()
    }

    fn takes_registrations(&self, course_batch: &CourseBatch) -> bool {
        course_batch.status == "open" && (course_batch.opens_at..course_batch.closes_at).contains(&self.now())
    }
}

/// The catalogue, cached; one for the process.
pub struct Catalogue {
    db: PgPool,
    snapshot: RwLock<Option<Arc<CatalogueSnapshot>>>,
    refreshing: tokio::sync::Mutex<()>,
    seats: Cache<Uuid, Option<Availability>>,
    redis: Option<ConnectionManager>,
    redis_timeout: Duration,
}

impl Catalogue {
    /// An empty cache.
    pub fn new(db: PgPool, redis: Option<ConnectionManager>, redis_timeout: Duration) -> Self {
        let seats = Cache::builder().max_capacity(COURSE_BATCHES_MAX).time_to_live(SEATS_AGE).build();
        Self { db, snapshot: RwLock::default(), refreshing: tokio::sync::Mutex::default(), seats, redis, redis_timeout }
    }

    /// Returns everything on offer, at most five seconds old.
    ///
    /// # Errors
    /// 503 where Postgres does not answer and nothing that fresh is known.
    pub async fn snapshot(&self) -> ApiResult<Arc<CatalogueSnapshot>> {
        Ok(self.no_older_than(SNAPSHOT_AGE).await?)
    }

    /// Checks that the course batch takes registrations now, as far as is known. With Postgres away and nothing known it
    /// passes: the workers decide.
    ///
    /// # Errors
    /// 422 `unknown-batch` or `batch-closed`, with the field.
    pub async fn check_open(&self, batch_id: Uuid) -> ApiResult<()> {
        let known = self.last_known();
        if known.is_some_and(|known| known.course_batch(batch_id).is_some_and(|found| known.takes_registrations(found)))
        {
            return Ok(());
        }
        let snapshot = match self.no_older_than(REFUSAL_AGE).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(%error, "the catalogue cannot be read; the workers decide");
                return Ok(());
            }
        };
        let Some(course_batch) = snapshot.course_batch(batch_id) else {
            return Err(ApiError::field(ProblemType::UnknownBatch, "batch_id", "unknown", "There is no such batch."));
        };
        if snapshot.takes_registrations(course_batch) {
            return Ok(());
        }
        let message = format!(
            "The batch takes registrations from {} to {}.",
            course_batch.opens_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            course_batch.closes_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        );
        Err(ApiError::field(ProblemType::BatchClosed, "batch_id", "closed", &message))
    }

    /// Returns the seats of a course batch, at most a second old (two, where gateways share a cache); `None` where there is no such
    /// batch.
    ///
    /// # Errors
    /// 503 where Postgres does not answer.
    pub async fn availability(&self, batch_id: Uuid) -> ApiResult<Option<Availability>> {
        let seats = self.seats.try_get_with(batch_id, self.read_seats(batch_id)).await;
        seats.map_err(|error: Arc<sqlx::Error>| {
            tracing::warn!(%error, "seats cannot be read");
            ApiError::from(ProblemType::DatabaseUnavailable)
        })
    }

    fn last_known(&self) -> Option<Arc<CatalogueSnapshot>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn no_older_than(&self, age: Duration) -> sqlx::Result<Arc<CatalogueSnapshot>> {
        let fresh = || self.last_known().filter(|known| known.read_at.elapsed() < age);
        if let Some(known) = fresh() {
            return Ok(known);
        }
        // One reads, the others wait for it.
        let _refreshing = self.refreshing.lock().await;
        if let Some(known) = fresh() {
            return Ok(known);
        }
        let snapshot = Arc::new(read(&self.db).await?);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    async fn read_seats(&self, batch_id: Uuid) -> sqlx::Result<Option<Availability>> {
        let key = format!("registrar:seats:{batch_id}");
        if let Some(shared) = self.shared(&key).await {
            return Ok(Some(shared));
        }
        let seats = sqlx::query_as!(
            Availability,
            r#"SELECT b.id                                   AS batch_id,
                      b.capacity,
                      b.capacity          - b.seats_taken    AS "seats_left!",
                      b.waitlist_capacity - b.waitlist_taken AS "waitlist_left!",
                      b.closes_at
               FROM   batches b JOIN courses c ON c.id = b.course_id
               WHERE  b.id = $1 AND b.status IN ('open', 'closed', 'completed') AND b.deleted_at IS NULL
                      AND c.status = 'published' AND c.deleted_at IS NULL"#,
            batch_id
        )
        .fetch_optional(&self.db)
        .await?;
        if let Some(seats) = &seats {
            self.share(key, seats);
        }
        Ok(seats)
    }

    async fn shared(&self, key: &str) -> Option<Availability> {
        let mut redis = self.redis.clone()?;
        let read = redis.get::<_, Option<Vec<u8>>>(key);
        let bytes = tokio::time::timeout(self.redis_timeout, read).await.ok()?.ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// In the background: nobody waits for it, and its failure only means slower reads elsewhere.
    fn share(&self, key: String, seats: &Availability) {
        let (Some(mut redis), Ok(bytes)) = (self.redis.clone(), serde_json::to_vec(seats)) else {
            return;
        };
        let timeout = self.redis_timeout;
        tokio::spawn(async move {
            let age_ms = SEATS_AGE.as_millis() as u64;
            let write = redis.pset_ex::<_, _, ()>(key, bytes, age_ms);
            let _ = tokio::time::timeout(timeout, write).await;
        });
    }
}

async fn read(db: &PgPool) -> sqlx::Result<CatalogueSnapshot> {
    let courses = sqlx::query_as!(
        Course,
        "SELECT   id, code, slug, title, description, category, duration_weeks, base_fee, currency, tax_rate
         FROM     courses
         WHERE    status = 'published' AND deleted_at IS NULL
         ORDER BY code"
    )
    .fetch_all(db)
    .await?;
    let course_batches = sqlx::query_as!(
        CourseBatch,
        r#"SELECT   b.id, b.course_id, c.title AS course_title, b.code, b.name, b.mode, b.capacity, b.waitlist_capacity,
                    b.start_date, b.end_date, b.opens_at, b.closes_at, coalesce(b.fee, c.base_fee) AS "fee!", b.deposit,
                    c.currency, c.tax_rate, b.requires_review, b.schedule, b.status
           FROM     batches b JOIN courses c ON c.id = b.course_id
           WHERE    b.status IN ('open', 'closed', 'completed') AND b.deleted_at IS NULL
                    AND c.status = 'published' AND c.deleted_at IS NULL
           ORDER BY b.start_date, b.code, b.id"#
    )
    .fetch_all(db)
    .await?;
    let database_time = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(db).await?;
    let by_id = course_batches.iter().enumerate().map(|(index, course_batch)| (course_batch.id, index)).collect();
    Ok(CatalogueSnapshot { courses, course_batches, by_id, database_time, read_at: Instant::now() })
}
