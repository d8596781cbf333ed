//! The instance as described by the environment that `loadtest/bench/run` sets: addresses, settings of the programs,
//! pids of the servers. No other file reads the environment.

use std::{env, path::PathBuf};

use anyhow::Context as _;
use contracts::Partitions;

/// The instance that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// Folder with the release builds of the programs.
    pub programs: PathBuf,
    /// Settings of the gateway, as `deploy/local/lib.sh` makes them.
    pub gateway_settings: Vec<(String, String)>,
    /// Settings of the workers.
    pub workers_settings: Vec<(String, String)>,
    /// Settings of `workers migrate` and `workers seed`, which run as the owner of the database.
    pub owner_settings: Vec<(String, String)>,
    /// Database URL of the owner.
    pub database_url: String,
    /// AMQP URL.
    pub amqp_url: String,
    /// Partitioned queues according to the settings.
    pub partitions: Partitions,
    /// First of 30 ports for the listeners of the programs.
    pub port_base: u16,
    /// Pid of the postmaster, where it runs on this machine.
    pub postgres_pid: Option<u32>,
    /// Pid of the Erlang node, where it runs on this machine.
    pub rabbitmq_pid: Option<u32>,
    /// Path of Postfix's smtp-sink, where it is installed.
    pub smtp_sink: Option<PathBuf>,
    /// Folder for the logs of the programs.
    pub logs: PathBuf,
}

/// The setting that partitions the queue `payments`.
pub(crate) const PARTITIONS: &str = "REGISTRAR__PARTITIONS__PAYMENTS";

impl Installation {
    /// Reads the `BENCH_...` variables; `more` are the settings from the command line.
    ///
    /// # Errors
    /// Where a variable is missing: this program is started by `loadtest/bench/run`.
    pub(crate) fn from_env(more: &[(String, String)]) -> anyhow::Result<Self> {
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

    /// Returns the HS256 secret that signs access tokens.
    ///
    /// # Errors
    /// Where the gateway's settings have none.
    pub(crate) fn jwt_secret(&self) -> anyhow::Result<&str> {
        let name = "REGISTRAR__SECRETS__JWT_HS256";
        let found = self.gateway_settings.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("{name} is not among the gateway's settings"))
    }

    /// Returns one of the workers' settings.
    ///
    /// # Errors
    /// Where it is not set.
    pub(crate) fn workers_setting(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.workers_settings.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("{name} is not among the workers' settings"))
    }
}

/// Reads the partitions; the last of several settings counts, as in the environment of the programs.
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

/// Parses `KEY=VALUE` lines.
fn settings(lines: &str) -> Vec<(String, String)> {
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
