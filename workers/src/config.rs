//! The workers' settings: built-in defaults, then an optional TOML file, then `REGISTRAR__…` of the environment; the later
//! wins. Only this file reads them. Unknown keys are refused, secrets never appear in `Debug`, and [`Settings::check`]
//! refuses values that do not fit each other, naming the key and the fix.

use std::{net::SocketAddr, path::PathBuf};

use contracts::Partitions;
use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use rust_decimal::Decimal;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

mod bad_settings;
mod complaints;
mod threads;
mod time_zone;

pub use bad_settings::BadSettings;
use complaints::Complaints;
pub use time_zone::TimeZone;

/// What holds where neither file nor environment says otherwise. What has no sensible default is not here, and then
/// loading fails with its name.
const DEFAULTS: &str = include_str!("config/defaults.toml");

/// The supplier of the samples; production refuses to issue invoices in its name.
const SAMPLE_LEGAL_NAME: &str = "Sample Institute Pvt. Ltd.";

/// A process must have drained before the 25 s after which it is killed.
const KILL_AFTER_MS: u64 = 25_000;

/// Everything that a worker process is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether development's conveniences are allowed.
    pub environment: Environment,
    /// Where people reach the gateway; links in mails start with it.
    pub public_url: Url,
    /// The private listener of metrics and health.
    pub metrics_listen: SocketAddr,
    /// Postgres.
    pub database: Database,
    /// RabbitMQ.
    pub amqp: Amqp,
    /// Which queues are split; the same as the gateways'.
    pub partitions: Partitions,
    /// The mail server.
    pub smtp: Smtp,
    /// The file store.
    pub files: Files,
    /// Keys shared with the gateways.
    pub secrets: Secrets,
    /// How pools consume.
    pub runtime: Runtime,
    /// What becomes due with time.
    pub clock: Clock,
    /// Who issues the invoices, and how.
    pub institute: Institute,
    /// Logs.
    pub log: Log,
    /// A fault planted on purpose, to prove that the tests bite.
    #[cfg(feature = "planted-bugs")]
    #[serde(default)]
    pub planted: Option<crate::fault_injection::Fault>,
}

/// Where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// A developer's machine or CI.
    Development,
    /// Anywhere that real people use. The default, so that forgetting it is safe.
    Production,
}

/// Postgres.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://user:password@host/database`.
    pub url: SecretString,
    /// Connections that this process keeps open between mails, at most; `concurrency` bounds those in use.
    pub pool_max: u32,
    /// `statement_timeout` of every connection.
    pub statement_timeout_ms: u64,
    /// `lock_timeout` of every connection.
    pub lock_timeout_ms: u64,
    /// `idle_in_transaction_session_timeout` of every connection.
    pub idle_in_transaction_ms: u64,
    /// How long to wait for a free connection.
    pub acquire_timeout_ms: u64,
}

/// RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amqp {
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
    /// Mails under way at once in this process.
    pub concurrency: usize,
}

/// The file store.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// `file:///a/folder`, the same for gateways and workers.
    pub url: Url,
}

/// Keys shared with the gateways.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// Of the single-use links in mails.
    pub tokens: SecretString,
    /// Of access tokens; used by `workers tokens`, in development only.
    pub jwt_hs256: SecretString,
    /// The `kid` of that key.
    pub jwt_kid: String,
}

/// How pools consume.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// Threads of this process; 0: half of the cores, at least one.
    pub threads: usize,
    /// Consumers a pool.
    pub consumers: u32,
    /// The same for invoicing and for notifications, which write what follows from the others.
    pub follow_up_consumers: u32,
    /// Deliveries (arrays of up to 64 events) a consumer may hold.
    pub prefetch: u16,
    /// Rows that one transaction settles at most.
    pub batch_max: usize,
    /// How long a batch waits for more once its first event is there.
    pub linger_ms: u64,
    /// After how many attempts an event is parked.
    pub attempts_max: u16,
    /// After how long without Postgres a pool gives its deliveries back.
    pub pause_after_ms: u64,
    /// How long SIGTERM waits for what is in hand.
    pub drain_ms: u64,
}

/// What becomes due with time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// How often it looks.
    pub tick_ms: u64,
    /// How long after its end a hold is given up: longer than the oldest event in `payments` may be.
    pub hold_grace_ms: u64,
    /// How long before its end a held seat is reminded of.
    pub reminder_before_minutes: u32,
    /// How often old rows are pruned.
    pub prune_every_ms: u64,
    /// Rows that one prune deletes of each table at most.
    pub prune_batch: u32,
    /// How long a settled operation is kept; longer than any retry.
    pub operations_keep_days: u32,
    /// How long an expired session or mailed token is kept.
    pub expired_keep_days: u32,
}

/// Who issues the invoices, and how. Snapshotted into each.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Institute {
    /// What students call it.
    pub name: String,
    /// What the law calls it.
    pub legal_name: String,
    /// Line by line.
    pub address: Vec<String>,
    /// Its tax number.
    pub tax_id: String,
    /// Where to pay to; lines, shown in mails and invoices.
    pub bank_details: Vec<String>,
    /// Days and financial years begin here.
    pub time_zone: TimeZone,
    /// 1 to 12.
    pub financial_year_start_month: u32,
    /// Of invoice numbers.
    pub invoice_prefix: String,
    /// Of credit note numbers.
    pub credit_note_prefix: String,
    /// With `{prefix}`, `{year}` and `{seq}`, or `{seq:5}` for five digits at least.
    pub number_format: String,
    /// The tax of an instalment is rounded to a multiple of this; the last instalment takes what remains.
    pub rounding_step: Decimal,
    /// What the tax is called.
    pub tax_label: String,
    /// ISO 4217, of what the seed creates.
    pub currency: String,
    /// A folder with a template of one's own, `invoice.typ`, beside which its images may lie.
    #[serde(default)]
    pub templates_dir: Option<PathBuf>,
}

/// Logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// As `RUST_LOG`.
    pub filter: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For machines.
    Json,
    /// For people.
    Pretty,
}

impl Settings {
    /// Defaults, then the file, then the environment; checked.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a missing or malformed value, or [`BadSettings`].
    pub fn load(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = path {
            figment = figment.merge(Toml::file_exact(path));
        }
        let settings: Self = figment.merge(Env::prefixed("REGISTRAR__").split("__")).extract()?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether the values fit each other.
    ///
    /// # Errors
    /// All that is wrong, each with its key and the fix.
    pub fn check(&self) -> Result<(), BadSettings> {
        let mut complaints = Complaints(Vec::new());
        self.check_addresses(&mut complaints);
        self.check_limits(&mut complaints);
        self.check_institute(&mut complaints);
        if self.environment == Environment::Production {
            self.check_production(&mut complaints);
        }
        if complaints.0.is_empty() { Ok(()) } else { Err(BadSettings(complaints.0)) }
    }

    fn check_addresses(&self, complaints: &mut Complaints) {
        let scheme_is = |url: &SecretString, schemes: &[&str]| {
            Url::parse(url.expose_secret()).is_ok_and(|url| schemes.contains(&url.scheme()))
        };
        complaints.unless(
            scheme_is(&self.database.url, &["postgres", "postgresql"]),
            "database.url is no Postgres address; write postgres://user:password@host/database",
        );
        complaints.unless(
            scheme_is(&self.amqp.url, &["amqp", "amqps"]),
            "amqp.url is no RabbitMQ address; write amqp://user:password@host/vhost?heartbeat=10",
        );
        complaints.unless(
            scheme_is(&self.smtp.url, &["smtp", "smtps"]),
            "smtp.url is no mail server's address; write smtp://host:port or smtps://user:password@host",
        );
        complaints.unless(
            self.smtp.from.parse::<lettre::message::Mailbox>().is_ok(),
            "smtp.from is no sender; write `Name <address@example.org>`",
        );
        complaints.unless(
            matches!(self.public_url.scheme(), "http" | "https"),
            "public_url must start with http:// or https://",
        );
        complaints.unless(
            self.files.url.scheme() == "file" && self.files.url.to_file_path().is_ok(),
            "files.url must be a local folder for now; write file:///var/lib/registrar/files",
        );
    }

    fn check_limits(&self, complaints: &mut Complaints) {
        let (database, runtime, clock, smtp) = (&self.database, &self.runtime, &self.clock, &self.smtp);
        let positive = [
            ("runtime.consumers", u64::from(runtime.consumers)),
            ("runtime.follow_up_consumers", u64::from(runtime.follow_up_consumers)),
            ("runtime.prefetch", u64::from(runtime.prefetch)),
            ("runtime.batch_max", runtime.batch_max as u64),
            ("runtime.attempts_max", u64::from(runtime.attempts_max)),
            ("smtp.pool_max", u64::from(smtp.pool_max)),
            ("smtp.timeout_ms", smtp.timeout_ms),
            ("smtp.concurrency", smtp.concurrency as u64),
            ("clock.tick_ms", clock.tick_ms),
            ("clock.prune_every_ms", clock.prune_every_ms),
            ("clock.prune_batch", u64::from(clock.prune_batch)),
            ("database.acquire_timeout_ms", database.acquire_timeout_ms),
        ];
        for (key, value) in positive {
            complaints.unless(value > 0, &format!("{key} is 0; give it at least 1"));
        }
        complaints.unless(
            database.pool_max >= runtime.consumers.max(runtime.follow_up_consumers),
            "database.pool_max is below runtime.consumers; each consumer needs a connection, raise pool_max",
        );
        complaints.unless(
            runtime.drain_ms < KILL_AFTER_MS,
            "runtime.drain_ms must be below 25000, after which the process is killed; lower it",
        );
        complaints.unless(
            database.lock_timeout_ms < database.statement_timeout_ms,
            "database.lock_timeout_ms must be below database.statement_timeout_ms, or it never strikes; lower it",
        );
        complaints.unless(
            runtime.linger_ms <= 1_000,
            "runtime.linger_ms is above 1000; every idle event would wait so long, lower it",
        );
        complaints.unless(
            smtp.concurrency >= smtp.pool_max as usize,
            "smtp.pool_max is above smtp.concurrency; the connections beyond would never be used, lower it",
        );
        complaints.unless(
            clock.operations_keep_days >= 2,
            "clock.operations_keep_days is below 2; a retried event could no longer find its operation, raise it",
        );
    }

    fn check_institute(&self, complaints: &mut Complaints) {
        let institute = &self.institute;
        complaints.unless(
            (1..=12).contains(&institute.financial_year_start_month),
            "institute.financial_year_start_month must be 1 to 12",
        );
        complaints.unless(
            institute.invoice_prefix != institute.credit_note_prefix,
            "institute.invoice_prefix and institute.credit_note_prefix are the same; invoices and credit notes need numbers apart",
        );
        complaints.unless(
            crate::invoicing::number::NumberFormat::parse(&institute.number_format).is_some(),
            "institute.number_format must hold {prefix}, {year} and {seq} (or {seq:5}), each once; write `{prefix}-{year}-{seq:5}`",
        );
        complaints.unless(
            institute.rounding_step >= Decimal::new(1, 2) && institute.rounding_step.normalize().scale() <= 2,
            "institute.rounding_step must be at least 0.01 and have at most two decimals",
        );
        complaints.unless(
            contracts::validation::is_currency(&institute.currency),
            "institute.currency is no currency that the platform takes; write an ISO 4217 code such as INR",
        );
    }

    fn check_production(&self, complaints: &mut Complaints) {
        for (key, secret) in [("secrets.tokens", &self.secrets.tokens), ("secrets.jwt_hs256", &self.secrets.jwt_hs256)]
        {
            let secret = secret.expose_secret();
            complaints.unless(
                secret.len() >= 32 && !secret.starts_with("development"),
                &format!("{key} is too short or a development secret; set one from `openssl rand -hex 32`"),
            );
        }
        complaints.unless(
            self.secrets.tokens.expose_secret() != self.secrets.jwt_hs256.expose_secret(),
            "secrets.tokens and secrets.jwt_hs256 are the same; give each a secret of its own",
        );
        complaints.unless(
            self.institute.legal_name != SAMPLE_LEGAL_NAME,
            "institute.legal_name is the sample's; set the institute.* keys before invoices are issued in its name",
        );
    }
}

#[cfg(test)]
mod tests;
