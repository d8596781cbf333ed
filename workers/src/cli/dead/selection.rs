//! The selection of dead letters: some by id, or a cohort by filter. A cohort is frozen when the command begins: letters
//! that are parked later, perhaps by the replay itself, are not in it.

use anyhow::{bail, ensure};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::audit::{self, Actor, AuditEntry};

/// The common properties of a cohort.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Only of this pool.
    #[arg(long)]
    pub pool: Option<String>,

    /// Only of this kind: `payment.submit.v1`.
    #[arg(long)]
    pub kind: Option<String>,

    /// Only of this error class: `poison`, `data`, `process_death`, …
    #[arg(long)]
    pub class: Option<String>,
}

/// The letters to decide on; only parked ones.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Their ids, as listed.
    #[arg(value_name = "ID", required_unless_present = "cohort", conflicts_with = "cohort")]
    pub ids: Vec<Uuid>,

    /// All that are parked and pass the filters.
    #[arg(long)]
    pub cohort: bool,

    #[command(flatten)]
    filter: Filter,

    /// Do it; without it a decision on more than one only prints their number.
    #[arg(long)]
    pub yes: bool,

    /// Your name, for the row and the audit log.
    #[arg(long = "as", value_name = "NAME", env = "USER", default_value = "operator")]
    pub decided_by: String,
}

impl Selection {
    /// Returns the selected ids, oldest first; they stay the same for the rest of the command.
    pub(super) async fn freeze(&self, database: &PgPool) -> anyhow::Result<Vec<Uuid>> {
        let ids = sqlx::query_scalar!(
            r#"
            SELECT id
              FROM dead_letters
             WHERE state = 'parked'
               AND CASE WHEN $1 THEN ($2::text IS NULL OR pool = $2)
                                 AND ($3::text IS NULL OR kind = $3)
                                 AND ($4::text IS NULL OR error_class = $4)
                        ELSE id = ANY($5) END
             ORDER BY id
            "#,
            self.cohort,
            self.filter.pool,
            self.filter.kind,
            self.filter.class,
            &self.ids,
        )
        .fetch_all(database)
        .await?;
        if let Some(absent) = self.ids.iter().find(|id| !ids.contains(id)) {
            bail!("{absent} is no parked dead letter: it does not exist, or somebody has decided on it already");
        }
        Ok(ids)
    }

    /// Prints the number of selected letters; refuses more than one without `--yes`.
    pub(super) fn confirm(&self, act: &str, count: usize) -> anyhow::Result<()> {
        println!("{count} dead {} to {act}", if count == 1 { "letter" } else { "letters" });
        ensure!(count < 2 || self.yes, "nothing was done; repeat the command with --yes to {act} all {count}");
        Ok(())
    }
}

/// A parked letter, locked until the transaction ends, so that two people cannot decide on it at once.
pub(super) struct Parked {
    pub event: Vec<u8>,
    pub operation_id: Option<Uuid>,
}

/// Locks a letter; `None` where it is decided, or locked by another operator.
pub(super) async fn lock(tx: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Parked>> {
    sqlx::query_as!(
        Parked,
        "SELECT event, operation_id FROM dead_letters WHERE id = $1 AND state = 'parked' FOR UPDATE SKIP LOCKED",
        id
    )
    .fetch_optional(tx)
    .await
}

/// The decision on a letter.
pub(super) struct Decision<'a> {
    /// `replayed` or `discarded`.
    pub state: &'static str,
    /// The action in the audit log.
    pub action: &'static str,
    pub decided_by: &'a str,
    pub reason: Option<&'a str>,
    /// The event that was replayed, where it differs from the parked one.
    pub edited_event: Option<&'a [u8]>,
}

/// Writes the decision and its audit row.
pub(super) async fn decide(
    tx: &mut PgConnection,
    id: Uuid,
    parked: &Parked,
    decision: &Decision<'_>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE dead_letters SET state = $2, decided_by = $3, decided_at = now(), edited_event = $4 WHERE id = $1",
        id,
        decision.state,
        decision.decided_by,
        decision.edited_event,
    )
    .execute(&mut *tx)
    .await?;
    let edited = decision.edited_event.is_some();
    let entry = AuditEntry {
        actor: Actor::Operator(decision.decided_by.to_owned()),
        action: decision.action,
        entity_type: "dead_letter",
        entity_id: id,
        before: Some(json!({ "state": "parked" })),
        after: Some(json!({ "state": decision.state, "reason": decision.reason, "edited": edited })),
        operation_id: parked.operation_id,
    };
    audit::record(tx, &[entry]).await
}
