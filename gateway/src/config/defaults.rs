//! The defaults of every setting, as `deploy/gateway.sample.toml` shows them.

use std::net::SocketAddr;

use contracts::Partitions;
use secrecy::SecretString;
use url::Url;

use super::AuthSettings;
use super::{
    Cors, GatewayAmqp, GatewayDatabase, GatewayEnvironment, GatewayFiles, GatewayLog, GatewayLogFormat, GatewaySecrets,
    GatewaySettings, Limits, LiveSettings, Redis,
};

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            environment: GatewayEnvironment::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 9100)),
            threads: 0,
            public_url: Url::parse("http://127.0.0.1:8080").expect("a literal URL"),
            database: GatewayDatabase::default(),
            amqp: GatewayAmqp::default(),
            partitions: Partitions::default(),
            redis: Redis::default(),
            files: GatewayFiles::default(),
            secrets: GatewaySecrets::default(),
            limits: Limits::default(),
            live: LiveSettings::default(),
            auth: AuthSettings::default(),
            cors: Cors::default(),
            log: GatewayLog::default(),
            #[cfg(feature = "fault-injection")]
            planted_bug: String::new(),
        }
    }
}

impl Default for GatewayDatabase {
    fn default() -> Self {
        Self {
            url: SecretString::default(),
            pool_max: 16,
            acquire_ms: 2_000,
            statement_ms: 5_000,
            lock_ms: 2_000,
            idle_in_transaction_ms: 10_000,
        }
    }
}

impl Default for GatewayAmqp {
    fn default() -> Self {
        Self { url: SecretString::default(), in_flight_max: 8_192, window: 4, confirm_timeout_ms: 5_000 }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self { url: SecretString::default(), timeout_ms: 50 }
    }
}

impl Default for GatewayFiles {
    fn default() -> Self {
        Self { url: "file:///var/lib/registrar/files".to_owned() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 25_000,
            backlog: 8_192,
            requests_in_flight_max: 8_192,
            waiters_max: 20_000,
            body_bytes: 64 * 1024,
            headers_max: 64,
            header_bytes: 16 * 1024,
            header_read_ms: 5_000,
            idle_ms: 75_000,
            request_ms: 10_000,
            drain_ms: 22_000,
            idempotency_keys: 100_000,
            idempotency_seconds: 3_600,
        }
    }
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self { waiter_sweep_ms: 5_000, stream_sweep_ms: 60_000, heartbeat_ms: 15_000 }
    }
}

impl Default for GatewayLog {
    fn default() -> Self {
        Self { format: GatewayLogFormat::Json, filter: "info".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format, Toml};

    use super::*;

    /// The sample with its commented settings (`#key = value`) taken in too.
    fn sample(with_commented: bool) -> GatewaySettings {
        let text = include_str!("../../../deploy/gateway.sample.toml");
        let lines =
            text.lines().map(|line| if with_commented { line.strip_prefix("#:").unwrap_or(line) } else { line });
        let text: Vec<_> = lines.collect();
        figment::Figment::from(Toml::string(&text.join("\n"))).extract().expect("the sample parses")
    }

    #[test]
    fn the_sample_shows_the_defaults() {
        assert_eq!(format!("{:?}", sample(false)), format!("{:?}", GatewaySettings::default()));
    }

    #[test]
    fn the_sample_with_its_secrets_filled_in_holds_together() {
        sample(true).check().expect("consistent");
    }

    #[test]
    fn every_setting_stands_in_the_sample() {
        let text = include_str!("../../../deploy/gateway.sample.toml");
        let shown = format!("{:?}", GatewaySettings::default());
        // A URL shows its own parts, which are no settings.
        let (before, url) = shown.split_once("Url {").expect("public_url");
        let shown = format!("{before}{}", url.split_once('}').expect("its end").1);
        let mut before_colons: Vec<_> = shown.split(": ").collect();
        before_colons.pop();
        let names =
            before_colons.iter().filter_map(|text| text.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next());
        for name in names.filter(|name| *name != "planted_bug") {
            let there = text.lines().any(|line| {
                let line = line.trim_start_matches("#:").trim();
                line == format!("[{name}]") || line.split('=').next().is_some_and(|key| key.trim() == name)
            });
            assert!(there, "`{name}` is missing");
        }
    }

    #[test]
    fn secrets_are_not_shown_and_their_lack_is_named() {
        let mut settings = GatewaySettings::default();
        settings.secrets.tokens = SecretString::from("sesame".repeat(8));
        assert!(!format!("{settings:?}").contains("sesame"));
        let error = settings.check().expect_err("no URLs, no keys").to_string();
        for name in ["database.url", "amqp.url", "secrets.operation_id", "secrets.jwt_hs256"] {
            assert!(error.contains(name), "{error}");
        }
        assert!(!error.contains("secrets.tokens"), "{error}");
    }
}
