//! The workers' settings: built-in defaults, then an optional TOML file, then the environment variables `REGISTRAR__…`; the
//! later wins. Only this file reads them. Unknown keys are refused, secrets never appear in `Debug`, and
//! [`WorkerSettings::check`] refuses values that do not fit each other, naming the key and the fix.

use std::{net::SocketAddr, path::PathBuf};

use contracts::Partitions;
use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use rust_decimal::Decimal;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

mod check;
mod config_error;
mod number_format;
mod threads;
mod time_zone;

pub use config_error::WorkerConfigError;
pub use number_format::NumberFormat;
pub use time_zone::TimeZone;

/// The defaults. A setting without a sensible default is not here; where it is missing, loading fails with its name.
const DEFAULTS: &str = include_str!("config/defaults.toml");

/// All settings of a worker process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSettings {
    /// The environment; some conveniences are for development only.
    pub environment: WorkerEnvironment,
    /// The gateway's public address; links in mails start with it.
    pub public_url: Url,
    /// The private listener of metrics and health.
    pub metrics_listen: SocketAddr,
    /// Postgres.
    pub database: WorkerDatabase,
    /// RabbitMQ.
    pub amqp: WorkerAmqp,
    /// The partitions of queues; the same as the gateways'.
    pub partitions: Partitions,
    /// The mail server.
    pub smtp: Smtp,
    /// The file store.
    pub files: WorkerFiles,
    /// Keys shared with the gateways.
    pub secrets: WorkerSecrets,
    /// The pools' consumers.
    pub runtime: Runtime,
    /// The clock.
    pub clock: Clock,
    /// The institute that issues the invoices.
    pub institute: Institute,
    /// The log.
    pub log: WorkerLog,
    /// A fault to inject, to prove that the tests notice it.
    #[cfg(feature = "fault-injection")]
    #[serde(default)]
    pub planted: Option<crate::fault_injection::Fault>,
}

/// The environment that a process runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerEnvironment {
    /// A developer's machine or CI.
    Development,
    /// Anywhere that real people use. The default, so that forgetting it is safe.
    Production,
}

/// Postgres.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerDatabase {
    /// `postgres://user:password@host/database`.
    pub url: SecretString,
    /// Connections that this process opens at most.
    pub pool_max: u32,
    /// `statement_timeout` of every connection.
    pub statement_timeout_ms: u64,
    /// `lock_timeout` of every connection.
    pub lock_timeout_ms: u64,
    /// `idle_in_transaction_session_timeout` of every connection.
    pub idle_in_transaction_ms: u64,
    /// The longest wait for a free connection.
    pub acquire_timeout_ms: u64,
}

/// RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerAmqp {
    /// `amqp://user:password@host:port/vhost?heartbeat=10`.
    pub url: SecretString,
}

/// The mail server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// `smtp://` or, with TLS, `smtps://user:password@host:port`; `?tls=required` for STARTTLS.
    pub url: SecretString,
    /// The sender, `Name <address>`; its domain ends every Message-ID.
    pub from: String,
    /// Connections that this process keeps open between mails, at most; `concurrency` bounds those in use.
    pub pool_max: u32,
    /// The longest that one mail may take.
    pub timeout_ms: u64,
    /// Mails that this process sends at once.
    pub concurrency: usize,
}

/// The file store.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerFiles {
    /// `file:///a/folder`, the same for gateways and workers.
    pub url: Url,
}

/// Keys shared with the gateways.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSecrets {
    /// The key of the single-use links in mails.
    pub tokens: SecretString,
    /// The key of access tokens; used by `workers tokens`, in development only.
    pub jwt_hs256: SecretString,
    /// The `kid` of the key of access tokens.
    pub jwt_kid: String,
}

/// The pools' consumers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// Threads of this process; 0: half of the cores, at least one.
    pub threads: usize,
    /// Consumers a pool.
    pub consumers: u32,
    /// Consumers of `invoicing` and of `notifications`, which settle follow-ups of the other pools.
    pub follow_up_consumers: u32,
    /// Deliveries (arrays of up to 64 events) a consumer may hold.
    pub prefetch: u16,
    /// Rows that one transaction settles at most.
    pub batch_max: usize,
    /// The time to wait for more deliveries after the first.
    pub linger_ms: u64,
    /// The attempts after which an event is parked.
    pub attempts_max: u16,
    /// The time without Postgres after which a pool gives its deliveries back to the broker.
    pub pause_after_ms: u64,
    /// The longest that SIGTERM waits for in-flight deliveries.
    pub drain_ms: u64,
}

/// The clock, which publishes commands when they become due, and prunes old rows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// The interval of ticks.
    pub tick_ms: u64,
    /// The time from the end of a hold to its expiry: longer than the age of any event in `payments`.
    pub hold_grace_ms: u64,
    /// The time from the reminder to the end of a hold.
    pub reminder_before_minutes: u32,
    /// The interval of pruning.
    pub prune_every_ms: u64,
    /// Rows that one prune deletes of each table at most.
    pub prune_batch: u32,
    /// Days that a settled operation is kept; longer than any retry.
    pub operations_keep_days: u32,
    /// Days that an expired session or mailed token is kept.
    pub expired_keep_days: u32,
}

/// The institute that issues the invoices; its particulars are copied into each.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Institute {
    /// The name that students know.
    pub name: String,
    /// The legal name.
    pub legal_name: String,
    /// The postal address, line by line.
    pub address: Vec<String>,
    /// The tax number.
    pub tax_id: String,
    /// The bank account to pay to, line by line; shown in mails and invoices.
    pub bank_details: Vec<String>,
    /// The time zone in which days and financial years begin.
    pub time_zone: TimeZone,
    /// The first month of the financial year, 1 to 12.
    pub financial_year_start_month: u32,
    /// The prefix of invoice numbers.
    pub invoice_prefix: String,
    /// The prefix of credit note numbers.
    pub credit_note_prefix: String,
    /// The format of numbers, with `{prefix}`, `{year}` and `{seq}`, or `{seq:5}` for five digits at least.
    pub number_format: String,
    /// The tax of an instalment is rounded to a multiple of this; the last instalment takes what remains.
    pub rounding_step: Decimal,
    /// The name of the tax.
    pub tax_label: String,
    /// The currency of what the seed creates, ISO 4217.
    pub currency: String,
    /// A folder with the institute's own template `invoice.typ` and its images.
    #[serde(default)]
    pub templates_dir: Option<PathBuf>,
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerLog {
    /// The format of lines.
    pub format: WorkerLogFormat,
    /// The filter, in the syntax of `RUST_LOG`.
    pub filter: String,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerLogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Pretty,
}

impl WorkerSettings {
    /// Loads defaults, then the file, then the environment, and checks them.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a missing or malformed value, or [`WorkerConfigError`].
    pub fn load(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = path {
            figment = figment.merge(Toml::file_exact(path));
        }
        let settings: Self = figment.merge(Env::prefixed("REGISTRAR__").split("__")).extract()?;
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests;
