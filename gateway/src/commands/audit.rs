//! Audit rows of synchronous writes: each in the transaction of the change itself.

use contracts::{Role, ids};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::extract::ClientAddress;

/// One row of `audit_logs`.
pub struct AuditRecord<'a> {
    /// The user who made the change, and their role at the time.
    pub actor: (Uuid, Role),
    /// A stable word: `auth.login`, `profile.edit`.
    pub action: &'a str,
    /// The table's singular: `session`, `user`.
    pub entity_type: &'a str,
    /// The changed row.
    pub entity_id: Uuid,
    /// The changed members before and after, where there is more to tell than the action.
    pub change: Option<(Value, Value)>,
    /// The address that the request came from.
    pub address: ClientAddress,
}

/// Writes one row.
///
/// # Errors
/// The database's.
pub async fn record(tx: &mut PgConnection, entry: AuditRecord<'_>) -> sqlx::Result<()> {
    let (before, after) = entry.change.unzip();
    sqlx::query!(
        "INSERT INTO audit_logs (id, actor_id, actor_role, action, entity_type, entity_id, before, after, ip)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::inet)",
        ids::new_id(),
        entry.actor.0,
        entry.actor.1.name(),
        entry.action,
        entry.entity_type,
        entry.entity_id,
        before,
        after,
        entry.address.text()
    )
    .execute(tx)
    .await?;
    Ok(())
}
