//! `workers dead discard`: discards events for good. Their operations stay `failed`, as the clients were notified.

use anyhow::ensure;
use sqlx::PgPool;

use super::selection::{self, Decision, Selection};

/// The dead letters to discard, and the reason.
#[derive(Debug, clap::Args)]
pub struct DeadDiscardArgs {
    #[command(flatten)]
    selection: Selection,

    /// The reason, for the audit log.
    #[arg(long)]
    reason: String,
}

/// Discards the selected dead letters.
pub(super) async fn run(args: &DeadDiscardArgs, database: &PgPool) -> anyhow::Result<()> {
    ensure!(!args.reason.trim().is_empty(), "--reason must not be blank");
    let ids = args.selection.freeze(database).await?;
    args.selection.confirm("discard", ids.len())?;
    let decision = Decision {
        state: "discarded",
        action: "dead_letter.discard",
        decided_by: &args.selection.decided_by,
        reason: Some(&args.reason),
        edited_event: None,
    };
    for id in &ids {
        let mut tx = database.begin().await?;
        match selection::lock(&mut tx, *id).await? {
            Some(parked) => {
                selection::decide(&mut tx, *id, &parked, &decision).await?;
                tx.commit().await?;
                println!("{id} discarded");
            }
            None => println!("{id} skipped: somebody else has decided on it"),
        }
    }
    Ok(())
}
