//! Sign-ins and what ends them leave a row in `audit_logs`, in the transaction of the change itself.

use contracts::Role;
use sqlx::PgConnection;
use uuid::Uuid;

use super::ClientIp;

/// Who did what.
pub(super) struct Entry<'a> {
    pub(super) actor: (Uuid, Role),
    pub(super) action: &'a str,
    pub(super) entity_type: &'a str,
    pub(super) entity_id: Uuid,
    pub(super) ip: ClientIp,
}

/// Writes one row.
pub(super) async fn record(tx: &mut PgConnection, entry: Entry<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO audit_logs (id, actor_id, actor_role, action, entity_type, entity_id, ip)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::inet)",
        contracts::ids::new_id(),
        entry.actor.0,
        entry.actor.1.name(),
        entry.action,
        entry.entity_type,
        entry.entity_id,
        entry.ip.text()
    )
    .execute(tx)
    .await?;
    Ok(())
}
