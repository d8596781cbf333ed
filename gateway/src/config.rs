//! Every setting of the gateway, read once at start: defaults, then an optional TOML file, then environment variables
//! (`REGISTRAR__DATABASE__URL` is `database.url`). Unknown keys are refused, secrets never show in `Debug`, and what
//! must hold between settings is checked before anything listens. `deploy/gateway.sample.toml` shows them all.

use std::{net::SocketAddr, path::Path, time::Duration};

use contracts::Partitions;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

mod auth;
mod defaults;

pub use auth::AuthSettings;

const ENV_PREFIX: &str = "REGISTRAR__";
const SECRETS_ENV_PREFIX: &str = "REGISTRAR__SECRETS__";

/// Secrets shorter than this can be guessed, or leave HMAC-SHA256 less than its strength.
const SECRET_BYTES_MIN: usize = 32;

/// Everything.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// `production` or `development`.
    pub environment: GatewayEnvironment,
    /// The public listener.
    pub listen: SocketAddr,
    /// The private listener: `/metrics` and health.
    pub metrics_listen: SocketAddr,
    /// Threads that serve requests; 0: half of the cores, at least one.
    pub threads: usize,
    /// The gateway's address from outside, for links.
    #[serde(deserialize_with = "url")]
    pub public_url: Url,
    /// Postgres.
    pub database: GatewayDatabase,
    /// RabbitMQ.
    pub amqp: GatewayAmqp,
    /// Which queues are split; the same as the workers'.
    pub partitions: Partitions,
    /// Redis, which may be absent.
    pub redis: Redis,
    /// Where files lie.
    pub files: GatewayFiles,
    /// Keys.
    pub secrets: GatewaySecrets,
    /// The limits of clients on one gateway.
    pub limits: Limits,
    /// Live updates: long polls and event streams.
    pub live: LiveSettings,
    /// Signing in.
    pub auth: AuthSettings,
    /// Which web pages may call.
    pub cors: Cors,
    /// Logging.
    pub log: GatewayLog,
    /// `early_202`: answer before the broker's confirm. For proving that the tests bite.
    #[cfg(feature = "fault-injection")]
    pub planted_bug: String,
}

/// The kind of installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayEnvironment {
    /// Real people.
    #[default]
    Production,
    /// A developer's machine, or a test.
    Development,
}

/// Postgres, as the gateway's role.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayDatabase {
    /// `postgres://user:password@host/database`.
    pub url: SecretString,
    /// Connections at most.
    pub pool_max: u32,
    /// The longest time for which a request waits for a connection.
    pub acquire_ms: u64,
    /// `statement_timeout`.
    pub statement_ms: u64,
    /// `lock_timeout`.
    pub lock_ms: u64,
    /// `idle_in_transaction_session_timeout`.
    pub idle_in_transaction_ms: u64,
}

/// RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayAmqp {
    /// `amqp://user:password@host/vhost?heartbeat=10`.
    pub url: SecretString,
    /// Events published and not confirmed yet, at most; beyond it requests are shed.
    pub in_flight_max: usize,
    /// Messages sent and not confirmed yet, at most; requests that come meanwhile leave together, up to 64 a message.
    pub window: usize,
    /// The longest time for which a request waits for the broker's confirm.
    pub confirm_timeout_ms: u64,
}

/// Redis: a cache that gateways share. Empty URL: none.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://host:port`.
    pub url: SecretString,
    /// The longest time for which a read may take before it counts as a miss.
    pub timeout_ms: u64,
}

/// The object store.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayFiles {
    /// `file:///absolute/folder`, shared with the workers.
    pub url: String,
}

/// Keys, each at least 32 bytes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySecrets {
    /// Of operation ids; the same on all gateways.
    pub operation_id: SecretString,
    /// Of mailed tokens; the same as the workers'.
    pub tokens: SecretString,
    /// Of access tokens, HS256.
    pub jwt_hs256: SecretString,
    /// The one before a rotation: still verifies, signs no more.
    pub jwt_hs256_previous: Option<SecretString>,
    /// An Ed25519 private key (PKCS#8 PEM): then access tokens are signed with it, and `/.well-known/jwks.json` shows
    /// others how to verify them.
    pub jwt_eddsa_pem: Option<SecretString>,
}

/// The limits of clients on one gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections; further ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// The kernel's backlog (capped by `net.core.somaxconn`).
    pub backlog: u32,
    /// Requests being worked on; further ones are shed. Long polls count in `waiters_max` instead.
    pub requests_in_flight_max: usize,
    /// Clients waiting for an operation to settle, and as many that listen to events; further ones are answered at once.
    pub waiters_max: usize,
    /// A JSON body.
    pub body_bytes: usize,
    /// Headers, in number.
    pub headers_max: usize,
    /// Headers, in bytes.
    pub header_bytes: usize,
    /// The longest time for which a client may take to send them, from their first byte; and the body after them.
    pub header_read_ms: u64,
    /// The longest time for which a connection is kept between two requests.
    pub idle_ms: u64,
    /// The longest time for which a request may take, not counting what it asked to wait.
    pub request_ms: u64,
    /// The longest time for which SIGTERM lets requests finish.
    pub drain_ms: u64,
    /// Recent idempotency keys kept in memory.
    pub idempotency_keys: usize,
    /// For how long.
    pub idempotency_seconds: u32,
}

/// Live updates: long polls and event streams.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveSettings {
    /// The pause before an awaited operation without a live message is read; the next pause is twice as long, and so on.
    pub waiter_sweep_ms: u64,
    /// How often it is read what a stream of events may have missed.
    pub stream_sweep_ms: u64,
    /// How often a stream says something.
    pub heartbeat_ms: u64,
}

/// Which web pages may call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Exact origins, such as `https://students.example.org`.
    pub origins: Vec<String>,
}

/// Logging.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayLog {
    /// `json` or `pretty`.
    pub format: GatewayLogFormat,
    /// `tracing` directives.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayLogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Settings that cannot be used, each with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or variable that cannot be read as settings.
    #[error("{0}")]
    Unreadable(#[from] Box<figment::Error>),
    /// A relation that does not hold.
    #[error("settings: {}", .0.join("; "))]
    Inconsistent(Vec<String>),
}

impl GatewaySettings {
    /// Reads defaults ← file ← environment, and checks them.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, where it came from and what to do.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        figment = figment.merge(Env::prefixed(ENV_PREFIX).filter(|key| !key.starts_with("SECRETS__")).split("__"));
        // As text whatever they look like: `Env` would read a key made of digits as a number.
        for (key, value) in Env::prefixed(SECRETS_ENV_PREFIX).iter() {
            figment = figment.merge(Serialized::default(&format!("secrets.{key}"), value));
        }
        let settings: GatewaySettings = figment.extract().map_err(Box::new)?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks what must hold between settings.
    ///
    /// # Errors
    /// Every relation that does not hold.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut wrong = Vec::new();
        let mut ensure = |ok: bool, message: &str| {
            if !ok {
                wrong.push(message.to_owned());
            }
        };
        ensure(!self.database.url.expose_secret().is_empty(), "database.url is missing (REGISTRAR__DATABASE__URL)");
        ensure(!self.amqp.url.expose_secret().is_empty(), "amqp.url is missing (REGISTRAR__AMQP__URL)");
        for (name, secret) in [
            ("operation_id", &self.secrets.operation_id),
            ("tokens", &self.secrets.tokens),
            ("jwt_hs256", &self.secrets.jwt_hs256),
        ] {
            ensure(
                secret.expose_secret().len() >= SECRET_BYTES_MIN,
                &format!(
                    "secrets.{name} must have at least {SECRET_BYTES_MIN} bytes: `openssl rand -hex 32` makes one"
                ),
            );
        }
        let limits = &self.limits;
        ensure(self.database.pool_max >= 1, "database.pool_max must be at least 1");
        ensure(self.database.acquire_ms < limits.request_ms, "database.acquire_ms must be less than limits.request_ms");
        ensure(
            self.database.statement_ms < limits.request_ms,
            "database.statement_ms must be less than limits.request_ms",
        );
        ensure(
            self.amqp.confirm_timeout_ms < limits.request_ms,
            "amqp.confirm_timeout_ms must be less than limits.request_ms",
        );
        ensure(self.amqp.in_flight_max >= 1, "amqp.in_flight_max must be at least 1");
        ensure(self.amqp.window >= 1, "amqp.window must be at least 1");
        ensure(limits.connections_max >= 1, "limits.connections_max must be at least 1");
        ensure(
            limits.waiters_max <= limits.connections_max,
            "limits.waiters_max must not be more than limits.connections_max",
        );
        ensure(limits.drain_ms <= 25_000, "limits.drain_ms must be at most 25000: supervisors kill after 30 s");
        ensure(limits.header_bytes >= 8_192, "limits.header_bytes must be at least 8192");
        let live = &self.live;
        ensure(
            live.waiter_sweep_ms >= 1 && live.stream_sweep_ms >= 1 && live.heartbeat_ms >= 1,
            "live.*_ms must be at least 1",
        );
        for (holds, message) in self.auth.relations() {
            ensure(holds, message);
        }
        ensure(
            self.environment == GatewayEnvironment::Development || self.auth.bcrypt_cost >= 10,
            "auth.bcrypt_cost must be at least 10 in production",
        );
        if wrong.is_empty() { Ok(()) } else { Err(ConfigError::Inconsistent(wrong)) }
    }

    /// How many threads serve requests. By default half of the cores, at least one: the other half belongs to the broker
    /// and the database, and on two cores a second thread makes every request dearer (wake-ups, stolen tasks, cold caches).
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            threads => threads,
        }
    }

    /// The longest time for which a request may take, not counting what it asked to wait.
    pub const fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.request_ms)
    }
}

fn url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(|error| serde::de::Error::custom(format!("`{text}` is no URL: {error}")))
}
