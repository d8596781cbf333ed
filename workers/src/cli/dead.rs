//! `workers dead`: events that were given up on. Looked at, replayed once their cause is mended, or discarded. Every
//! act leaves its author on the row and an audit row beside it; an act on many says how many first and wants `--yes`.

mod discard;
mod list;
mod replay;
mod selection;
mod show;

use anyhow::Context as _;
use clap::Subcommand;

use crate::{config::WorkerSettings, database};

/// What to do with them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters, grouped by failure first.
    List(list::Args),
    /// Show one, with its event.
    Show(show::Args),
    /// Publish events again, under the same ids; only what failed is settled anew.
    Replay(replay::Args),
    /// Give events up for good; their operations stay failed.
    Discard(discard::Args),
}

/// Does it.
///
/// # Errors
/// A dead letter that is not there or decided already, a broker or a database that does not answer.
pub async fn run(args: Args, settings: WorkerSettings) -> anyhow::Result<()> {
    let database = database::pool(&settings.database, "workers dead").context("database.url")?;
    match args.command {
        Command::List(args) => list::run(&args, &database).await,
        Command::Show(args) => show::run(&args, &database).await,
        Command::Replay(args) => replay::run(&args, &settings, &database).await,
        Command::Discard(args) => discard::run(&args, &database).await,
    }
}
