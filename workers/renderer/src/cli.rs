//! The command line: `renderer run`, with the settings of `workers`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use contracts::Queue;
use workers::{
    config::WorkerSettings,
    process::{self, WorkerProcess},
    telemetry,
};

use crate::registry;

/// Runs Registrar's pool `documents`: issued invoices become PDFs.
#[derive(Debug, Parser)]
#[command(name = "renderer", version, about)]
pub struct RendererCli {
    /// A TOML file with settings; the environment (`REGISTRAR__SECTION__KEY`) overrides it.
    #[arg(long, env = "REGISTRAR_CONFIG", global = true)]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consume the queue `documents` until SIGTERM.
    Run(Args),
}

/// The options of `renderer run`.
#[derive(Debug, clap::Args)]
struct Args {
    /// Consumers of the pool; overrides `runtime.consumers`.
    #[arg(long)]
    consumers: Option<u32>,
}

/// Runs the pool.
///
/// # Errors
/// Settings that cannot be used, or a metrics port that is taken. A broker or database that is away is waited for.
pub fn main(cli: RendererCli) -> anyhow::Result<()> {
    let settings = WorkerSettings::load(cli.config)?;
    telemetry::init(&settings.log, true);
    let Command::Run(args) = cli.command;
    let process = WorkerProcess {
        name: "renderer documents".to_owned(),
        queues: settings.partitions.queues(Queue::Documents),
        dead_letters: false,
        clock: false,
        consumers: args.consumers,
        registry: registry::registry,
    };
    process::threads(&settings)?.block_on(process::run(process, settings))
}
