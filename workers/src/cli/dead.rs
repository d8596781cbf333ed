//! `workers dead`: lists parked events, replays them once their cause is mended, or discards them. Every decision is written
//! with its author to the row and to the audit log; a decision on many prints their number first and needs `--yes`.

mod discard;
mod list;
mod replay;
mod selection;
mod show;

use anyhow::Context as _;
use clap::Subcommand;

use crate::{config::WorkerSettings, database};

/// The command on dead letters.
#[derive(Debug, clap::Args)]
pub struct DeadArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters, grouped by failure first.
    List(list::DeadListArgs),
    /// Show one, with its event.
    Show(show::DeadShowArgs),
    /// Publish events again, under the same ids; only failed operations are settled anew.
    Replay(replay::DeadReplayArgs),
    /// Discard events for good; their operations stay failed.
    Discard(discard::DeadDiscardArgs),
}

/// Runs the command.
///
/// # Errors
/// A dead letter that does not exist or is decided already, a broker or a database that does not answer.
pub async fn run(args: DeadArgs, settings: WorkerSettings) -> anyhow::Result<()> {
    let database = database::pool(&settings.database, "workers dead").context("database.url")?;
    match args.command {
        Command::List(args) => list::run(&args, &database).await,
        Command::Show(args) => show::run(&args, &database).await,
        Command::Replay(args) => replay::run(&args, &settings, &database).await,
        Command::Discard(args) => discard::run(&args, &database).await,
    }
}
