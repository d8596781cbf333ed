//! What `loadtest/bench/run` tells of the instance: addresses, the programs' settings, and the pids of its servers. This is
//! the only file that reads the environment.

use std::{env, path::PathBuf};

use anyhow::Context as _;
use contracts::Partitions;

/// The instance that is measured.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Where the release builds of the two programs lie.
    pub programs: PathBuf,
    /// The gateway's settings, as `lib.sh` makes them.
    pub gateway_settings: Vec<(String, String)>,
    /// The workers' settings.
    pub workers_settings: Vec<(String, String)>,
    /// The settings of `workers migrate` and `workers seed`: the owner's.
    pub owner_settings: Vec<(String, String)>,
    /// The owner's URL of the database.
    pub database_url: String,
    /// The broker.
    pub amqp_url: String,
    /// Which queues are split, as the programs' settings say.
    pub partitions: Partitions,
    /// The first of 30 ports for the programs' listeners.
    pub port_base: u16,
    /// The postmaster, where it runs here.
    pub postgres_pid: Option<u32>,
    /// The Erlang node, where it runs here.
    pub rabbitmq_pid: Option<u32>,
    /// Postfix's smtp-sink, where it is installed.
    pub smtp_sink: Option<PathBuf>,
    /// Where the programs' logs go.
    pub logs: PathBuf,
}

/// The setting that splits the queue of payments.
pub const PARTITIONS: &str = "REGISTRAR__PARTITIONS__PAYMENTS";

impl Installation {
    /// Reads the `BENCH_...` variables; `more` are the settings of all programs from the command line.
    ///
    /// # Errors
    /// Where one is missing: this program is started by `loadtest/bench/run`.
    pub fn from_env(more: &[(String, String)]) -> anyhow::Result<Self> {
        let gateway_settings = settings(&variable("BENCH_GATEWAY_SETTINGS")?);
        Ok(Self {
            partitions: partitions(gateway_settings.iter().chain(more))?,
            gateway_settings,
            programs: variable("BENCH_PROGRAMS")?.into(),
            workers_settings: settings(&variable("BENCH_WORKERS_SETTINGS")?),
            owner_settings: settings(&variable("BENCH_OWNER_SETTINGS")?),
            database_url: variable("BENCH_DATABASE_URL")?,
            amqp_url: variable("BENCH_AMQP_URL")?,
            port_base: variable("BENCH_PORT_BASE")?.parse().context("BENCH_PORT_BASE")?,
            postgres_pid: pid("BENCH_POSTGRES_PID"),
            rabbitmq_pid: pid("BENCH_RABBITMQ_PID"),
            smtp_sink: env::var_os("BENCH_SMTP_SINK").map(PathBuf::from).filter(|path| path.exists()),
            logs: variable("BENCH_LOGS")?.into(),
        })
    }

    /// The key that signs access tokens.
    ///
    /// # Errors
    /// Where the gateway has none.
    pub fn jwt_secret(&self) -> anyhow::Result<&str> {
        let name = "REGISTRAR__SECRETS__JWT_HS256";
        let found = self.gateway_settings.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("{name} is not among the gateway's settings"))
    }

    /// One of the workers' settings.
    ///
    /// # Errors
    /// Where they do not have it.
    pub fn workers_setting(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.workers_settings.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("{name} is not among the workers' settings"))
    }
}

/// The last one wins, as in the programs' environment.
fn partitions<'a>(settings: impl Iterator<Item = &'a (String, String)>) -> anyhow::Result<Partitions> {
    let Some((_, payments)) = settings.filter(|(key, _)| key == PARTITIONS).last() else {
        return Ok(Partitions::default());
    };
    payments.parse().ok().and_then(Partitions::of_payments).with_context(|| format!("{PARTITIONS}={payments}"))
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: start this through loadtest/bench/run"))
}

fn pid(name: &str) -> Option<u32> {
    env::var(name).ok()?.parse().ok()
}

/// `KEY=VALUE`, one a line.
fn settings(lines: &str) -> Vec<(String, String)> {
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
