//! The command line. Every command reads the same settings; `--help` describes the options.

pub mod create_user;
pub mod dead;
pub mod migrate;
pub mod run;
pub mod seed;
pub mod tokens;
pub mod topology;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{config::WorkerSettings, process, telemetry};

/// Runs Registrar's worker pools, and what ops need beside them.
#[derive(Debug, Parser)]
#[command(name = "workers", version, about)]
pub struct Cli {
    /// A TOML file with settings; the environment (`REGISTRAR__SECTION__KEY`) overrides it.
    #[arg(long, env = "REGISTRAR_CONFIG", global = true)]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consume the queues of the named pools until SIGTERM.
    Run(run::RunArgs),
    /// Bring the database to the newest schema. Needs the owner's database URL.
    Migrate(migrate::MigrateArgs),
    /// Fill a development database with an institute. Needs the owner's database URL.
    Seed(seed::SeedArgs),
    /// Mint access tokens for load tests, as JSON lines. Refused outside development.
    Tokens(tokens::TokensArgs),
    /// Declare exchanges and queues, and print them with their depths.
    Topology(topology::TopologyArgs),
    /// Create a user who can sign in with a password. Needs the owner's database URL.
    CreateUser(create_user::CreateUserArgs),
    /// Look at dead letters, replay or discard them.
    Dead(dead::DeadArgs),
}

/// Runs one command.
///
/// # Errors
/// The command's failure, with its causes.
pub fn main(cli: Cli) -> anyhow::Result<()> {
    let settings = WorkerSettings::load(cli.config)?;
    telemetry::init(&settings.log, matches!(cli.command, Command::Run(_)));
    process::threads(&settings)?.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args, settings).await,
            Command::Migrate(args) => migrate::run(args, settings).await,
            Command::Seed(args) => seed::run(args, settings).await,
            Command::Tokens(args) => tokens::run(args, settings).await,
            Command::Topology(args) => topology::run(args, settings).await,
            Command::CreateUser(args) => create_user::run(args, settings).await,
            Command::Dead(args) => dead::run(args, settings).await,
        }
    })
}
