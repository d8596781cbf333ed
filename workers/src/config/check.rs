//! The relations between settings that the types cannot express.

use contracts::validation;
use rust_decimal::Decimal;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{NumberFormat, WorkerConfigError, WorkerEnvironment, WorkerSettings};

/// The supplier of the samples; production refuses to issue invoices in its name.
const SAMPLE_LEGAL_NAME: &str = "Sample Institute Pvt. Ltd.";

/// The time after SIGTERM after which a process is killed; it must have drained before.
const KILL_AFTER_MS: u64 = 25_000;

impl WorkerSettings {
    /// Checks that the values fit each other.
    ///
    /// # Errors
    /// All errors at once, each with its key and the fix.
    pub fn check(&self) -> Result<(), WorkerConfigError> {
        let mut errors = WorkerConfigError::default();
        self.check_addresses(&mut errors);
        self.check_limits(&mut errors);
        self.check_institute(&mut errors);
        if self.environment == WorkerEnvironment::Production {
            self.check_production(&mut errors);
        }
        errors.into_result()
    }

    fn check_addresses(&self, errors: &mut WorkerConfigError) {
        let scheme_is = |url: &SecretString, schemes: &[&str]| {
            Url::parse(url.expose_secret()).is_ok_and(|url| schemes.contains(&url.scheme()))
        };
        errors.require(
            scheme_is(&self.database.url, &["postgres", "postgresql"]),
            "database.url is no Postgres address; write postgres://user:password@host/database",
        );
        errors.require(
            scheme_is(&self.amqp.url, &["amqp", "amqps"]),
            "amqp.url is no RabbitMQ address; write amqp://user:password@host/vhost?heartbeat=10",
        );
        errors.require(
            scheme_is(&self.smtp.url, &["smtp", "smtps"]),
            "smtp.url is no mail server's address; write smtp://host:port or smtps://user:password@host",
        );
        errors.require(
            self.smtp.from.parse::<lettre::message::Mailbox>().is_ok(),
            "smtp.from is no sender; write `Name <address@example.org>`",
        );
        errors.require(
            matches!(self.public_url.scheme(), "http" | "https"),
            "public_url must start with http:// or https://",
        );
        errors.require(
            self.files.url.scheme() == "file" && self.files.url.to_file_path().is_ok(),
            "files.url must be a local folder for now; write file:///var/lib/registrar/files",
        );
    }

    fn check_limits(&self, errors: &mut WorkerConfigError) {
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
            errors.require(value > 0, &format!("{key} is 0; give it at least 1"));
        }
        errors.require(
            database.pool_max >= runtime.consumers.max(runtime.follow_up_consumers),
            "database.pool_max is below runtime.consumers; each consumer needs a connection, raise pool_max",
        );
        errors.require(
            runtime.drain_ms < KILL_AFTER_MS,
            "runtime.drain_ms must be below 25000, after which the process is killed; lower it",
        );
        errors.require(
            database.lock_timeout_ms < database.statement_timeout_ms,
            "database.lock_timeout_ms must be below database.statement_timeout_ms, or it never strikes; lower it",
        );
        errors.require(
            runtime.linger_ms <= 1_000,
            "runtime.linger_ms is above 1000; every idle event would wait so long, lower it",
        );
        errors.require(
            smtp.concurrency >= smtp.pool_max as usize,
            "smtp.pool_max is above smtp.concurrency; the connections beyond would never be used, lower it",
        );
        errors.require(
            clock.operations_keep_days >= 2,
            "clock.operations_keep_days is below 2; a retried event could no longer find its operation, raise it",
        );
    }

    fn check_institute(&self, errors: &mut WorkerConfigError) {
        let institute = &self.institute;
        errors.require(
            (1..=12).contains(&institute.financial_year_start_month),
            "institute.financial_year_start_month must be 1 to 12",
        );
        errors.require(
            institute.invoice_prefix != institute.credit_note_prefix,
            "institute.invoice_prefix and institute.credit_note_prefix are the same; invoices and credit notes need numbers apart",
        );
        errors.require(
            NumberFormat::parse(&institute.number_format).is_some(),
            "institute.number_format must hold {prefix}, {year} and {seq} (or {seq:5}), each once; write `{prefix}-{year}-{seq:5}`",
        );
        errors.require(
            institute.rounding_step >= Decimal::new(1, 2) && institute.rounding_step.normalize().scale() <= 2,
            "institute.rounding_step must be at least 0.01 and have at most two decimals",
        );
        errors.require(
            validation::is_currency(&institute.currency),
            "institute.currency is no currency that the platform takes; write an ISO 4217 code such as INR",
        );
    }

    fn check_production(&self, errors: &mut WorkerConfigError) {
        for (key, secret) in [("secrets.tokens", &self.secrets.tokens), ("secrets.jwt_hs256", &self.secrets.jwt_hs256)]
        {
            let secret = secret.expose_secret();
            errors.require(
                secret.len() >= 32 && !secret.starts_with("development"),
                &format!("{key} is too short or a development secret; set one from `openssl rand -hex 32`"),
            );
        }
        errors.require(
            self.secrets.tokens.expose_secret() != self.secrets.jwt_hs256.expose_secret(),
            "secrets.tokens and secrets.jwt_hs256 are the same; give each a secret of its own",
        );
        errors.require(
            self.institute.legal_name != SAMPLE_LEGAL_NAME,
            "institute.legal_name is the sample's; set the institute.* keys before invoices are issued in its name",
        );
    }
}
