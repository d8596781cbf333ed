//! The application's state, assembled once. Each room takes its part of it by `FromRef`. Nothing here fails or waits because
//! a service is away: the gateway starts without Postgres, RabbitMQ or Redis, and says so in its readiness.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use axum::extract::FromRef;
use contracts::{
    amqp::{AmqpSettings, Publisher},
    ids::OperationIds,
};
use object_store::{ObjectStore, local::LocalFileSystem};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use secrecy::ExposeSecret;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Auth,
    catalogue::Catalogue,
    commands::Commands,
    config::{GatewayDatabase, GatewaySettings, Redis},
    extract::BodyLimits,
    http::middleware::RequestLimits,
    live::Live,
};

/// The state of the application; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts that [`App`] gives away.
struct Parts {
    settings: GatewaySettings,
    db: PgPool,
    publisher: Publisher,
    auth: Arc<Auth>,
    commands: Commands,
    catalogue: Arc<Catalogue>,
    live: Arc<Live>,
    store: Arc<dyn ObjectStore>,
    body_limits: BodyLimits,
    request_limits: RequestLimits,
    draining: CancellationToken,
}

impl App {
    /// Assembles it. Connections are made when they are needed.
    ///
    /// # Errors
    /// Settings that cannot be used: a malformed URL or key, a folder that cannot be made.
    pub fn build(settings: GatewaySettings) -> anyhow::Result<Self> {
        let db = pool(&settings.database)?;
        let redis = redis(&settings.redis)?;
        let publisher = Publisher::start(publisher_settings(&settings));
        let draining = CancellationToken::new();
        let live = Arc::new(Live::new(&settings.live, &settings.limits, db.clone(), draining.clone()));
        let ids = OperationIds::new(settings.secrets.operation_id.expose_secret().as_bytes());
        let redis_timeout = Duration::from_millis(settings.redis.timeout_ms);
        Ok(Self(Arc::new(Parts {
            auth: Arc::new(Auth::new(&settings.auth, &settings.secrets, publisher.clone())?),
            commands: Commands::new(&settings, publisher.clone(), ids, live.clone()),
            catalogue: Arc::new(Catalogue::new(db.clone(), redis, redis_timeout)),
            store: store(&settings.files.url)?,
            body_limits: BodyLimits::new(&settings.limits),
            request_limits: RequestLimits::new(&settings),
            live,
            draining,
            publisher,
            db,
            settings,
        })))
    }

    /// Returns the settings.
    pub fn settings(&self) -> &GatewaySettings {
        &self.0.settings
    }

    /// Returns the publisher of events.
    pub fn publisher(&self) -> &Publisher {
        &self.0.publisher
    }

    /// Returns the pool of connections to Postgres.
    pub fn db(&self) -> &PgPool {
        &self.0.db
    }

    /// Returns authentication.
    pub fn auth(&self) -> &Arc<Auth> {
        &self.0.auth
    }

    /// Returns long polls and streams.
    pub fn live(&self) -> &Arc<Live> {
        &self.0.live
    }

    /// Returns the limits that every request passes.
    pub fn request_limits(&self) -> &RequestLimits {
        &self.0.request_limits
    }

    /// Turns readiness red and answers those who wait with what is known; requests are still served.
    pub fn drain(&self) {
        self.0.draining.cancel();
        self.0.live.streams.close();
    }

    /// Tells whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Makes settings for another connection to the broker.
    pub fn amqp_settings(&self, name: &str) -> AmqpSettings {
        AmqpSettings::new(self.0.settings.amqp.url.expose_secret(), name).split(self.0.settings.partitions)
    }
}

impl FromRef<App> for PgPool {
    fn from_ref(app: &App) -> Self {
        app.0.db.clone()
    }
}

impl FromRef<App> for Arc<Auth> {
    fn from_ref(app: &App) -> Self {
        app.0.auth.clone()
    }
}

impl FromRef<App> for Commands {
    fn from_ref(app: &App) -> Self {
        app.0.commands.clone()
    }
}

impl FromRef<App> for Arc<Catalogue> {
    fn from_ref(app: &App) -> Self {
        app.0.catalogue.clone()
    }
}

impl FromRef<App> for Arc<Live> {
    fn from_ref(app: &App) -> Self {
        app.0.live.clone()
    }
}

impl FromRef<App> for Arc<dyn ObjectStore> {
    fn from_ref(app: &App) -> Self {
        app.0.store.clone()
    }
}

impl FromRef<App> for BodyLimits {
    fn from_ref(app: &App) -> Self {
        app.0.body_limits
    }
}

fn publisher_settings(settings: &GatewaySettings) -> AmqpSettings {
    let mut amqp = AmqpSettings::new(settings.amqp.url.expose_secret(), "gateway").split(settings.partitions);
    amqp.in_flight_max = settings.amqp.in_flight_max;
    amqp.window = settings.amqp.window;
    amqp.confirm_timeout = Duration::from_millis(settings.amqp.confirm_timeout_ms);
    amqp
}

fn pool(settings: &GatewayDatabase) -> anyhow::Result<PgPool> {
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
