//! What every handler can reach, built once. Nothing here fails or waits because a service is away: the gateway starts
//! without Postgres, RabbitMQ or Redis, and says so in its readiness.

use std::{ops::Deref, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use contracts::{
    amqp::{AmqpSettings, Publisher},
    ids::OperationIds,
    tokens::MailTokens,
};
use object_store::{ObjectStore, local::LocalFileSystem};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use secrecy::ExposeSecret;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Auth,
    catalogue::Catalogue,
    config::{Database, Redis, Settings},
    idempotency::RecentKeys,
    live::{Reader, Streams, Waiters},
};

/// The state of the application; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What [`App`] gives access to.
pub struct Parts {
    /// The settings.
    pub settings: Settings,
    /// Postgres, as the gateway's role.
    pub db: PgPool,
    /// The way to the workers.
    pub publisher: Publisher,
    /// Makes and reads operation ids.
    pub ids: OperationIds,
    /// Makes and reads mailed tokens.
    pub mail_tokens: MailTokens,
    /// Who is calling.
    pub auth: Arc<Auth>,
    /// Courses, batches and seats, cached.
    pub catalogue: Catalogue,
    /// Who waits for which operation.
    pub waiters: Waiters,
    /// Who listens to events.
    pub streams: Streams,
    /// Reads what they all wait for.
    pub reader: Reader,
    /// Recent idempotency keys.
    pub recent_keys: RecentKeys,
    /// Where files lie.
    pub store: Arc<dyn ObjectStore>,
    /// The cache that gateways share, if there is one.
    pub redis: Option<ConnectionManager>,
    /// Places for requests in hand.
    pub places: Arc<Semaphore>,
    draining: CancellationToken,
}

impl App {
    /// Builds it. Connections are made when they are needed.
    ///
    /// # Errors
    /// Settings that cannot be used: a URL that is none, a key that is none, a folder that cannot be made.
    pub fn build(settings: Settings) -> anyhow::Result<Self> {
        let db = pool(&settings.database)?;
        let redis = redis(&settings.redis)?;
        let mut amqp = AmqpSettings::new(settings.amqp.url.expose_secret(), "gateway").split(settings.partitions);
        amqp.in_flight_max = settings.amqp.in_flight_max;
        amqp.window = settings.amqp.window;
        amqp.confirm_timeout = Duration::from_millis(settings.amqp.confirm_timeout_ms);
        let draining = CancellationToken::new();
        Ok(Self(Arc::new(Parts {
            publisher: Publisher::start(amqp),
            ids: OperationIds::new(settings.secrets.operation_id.expose_secret().as_bytes()),
            mail_tokens: MailTokens::new(settings.secrets.tokens.expose_secret().as_bytes()),
            auth: Arc::new(Auth::new(&settings.auth, &settings.secrets)?),
            catalogue: Catalogue::new(db.clone(), redis.clone(), Duration::from_millis(settings.redis.timeout_ms)),
            waiters: Waiters::new(
                settings.limits.waiters_max,
                Duration::from_millis(settings.live.waiter_sweep_ms),
                draining.clone(),
            ),
            streams: Streams::new(settings.limits.waiters_max),
            reader: Reader::start(db.clone()),
            recent_keys: RecentKeys::new(&settings.limits),
            store: store(&settings.files.url)?,
            places: Arc::new(Semaphore::new(settings.limits.requests_in_flight_max)),
            draining,
            db,
            redis,
            settings,
        })))
    }

    /// Turns readiness red and sends those who wait away with what is known; requests are still served.
    pub fn drain(&self) {
        self.draining.cancel();
        self.streams.close();
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Settings for a connection of one's own to the broker.
    pub fn amqp_settings(&self, name: &str) -> AmqpSettings {
        AmqpSettings::new(self.settings.amqp.url.expose_secret(), name).split(self.settings.partitions)
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

fn pool(settings: &Database) -> anyhow::Result<PgPool> {
    let options: PgConnectOptions = settings.url.expose_secret().parse().context("database.url is no Postgres URL")?;
    let options = options.application_name("gateway").options([
        ("statement_timeout", settings.statement_ms.to_string()),
        ("lock_timeout", settings.lock_ms.to_string()),
        ("idle_in_transaction_session_timeout", settings.idle_in_transaction_ms.to_string()),
    ]);
    Ok(PgPoolOptions::new()
        .max_connections(settings.pool_max)
        .acquire_timeout(Duration::from_millis(settings.acquire_ms))
        // A ping before every statement would double the round trips; a dead connection costs one failed request.
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

fn redis(settings: &Redis) -> anyhow::Result<Option<ConnectionManager>> {
    let url = settings.url.expose_secret();
    if url.is_empty() {
        return Ok(None);
    }
    let client = redis::Client::open(url).context("redis.url is no Redis URL")?;
    let timeout = Duration::from_millis(settings.timeout_ms);
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(timeout)).set_number_of_retries(1);
    Ok(Some(ConnectionManager::new_lazy_with_config(client, config).context("redis.url")?))
}

fn store(url: &str) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let folder =
        url.strip_prefix("file://").map(PathBuf::from).context("files.url must be file:///an/absolute/folder")?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("files.url: the folder {} cannot be made", folder.display()))?;
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder)?))
}
