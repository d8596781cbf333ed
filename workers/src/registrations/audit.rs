//! One audit row for each critical change, in the transaction that makes it: who did what to which row, before and after.

use contracts::{Principal, ids};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::runtime::Failure;

/// One row of `audit_logs`.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// Who did it; the clock has no id.
    pub principal: Principal,
    /// A stable word: `payment.approve`, `registration.expire`, ….
    pub action: &'static str,
    /// The table's singular: `payment`, `registration`.
    pub entity_type: &'static str,
    /// Its row.
    pub entity_id: Uuid,
    /// What changed, before.
    pub before: Value,
    /// What changed, after.
    pub after: Value,
    /// The operation that did it.
    pub operation_id: Uuid,
}

/// Writes the entries, in one statement.
///
/// # Errors
/// The database's.
pub async fn record(tx: &mut PgConnection, entries: &[AuditEntry]) -> Result<(), Failure> {
    if entries.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        INSERT INTO audit_logs (id, actor_id, actor_role, action, entity_type, entity_id, before, after, operation_id)
        SELECT *
        FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::jsonb[], $8::jsonb[],
                    $9::uuid[])
        "#,
        &entries.iter().map(|_| ids::new_id()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.principal.user_id()).collect::<Vec<_>>() as &[Option<Uuid>],
        &entries.iter().map(|e| e.principal.role().map(|role| role.name().to_owned())).collect::<Vec<_>>()
            as &[Option<String>],
        &entries.iter().map(|e| e.action.to_owned()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.entity_type.to_owned()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.entity_id).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.before.clone()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.after.clone()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.operation_id).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
