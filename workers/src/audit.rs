//! Audit rows: one for each critical change, written in the transaction that makes it. `audit_logs` is append-only.

use contracts::{Principal, ids};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// The author of an audited change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The principal of a command. `Principal::System` (the clock, a follow-up) has neither id nor role.
    Principal(Principal),
    /// A person at the command line, by name. An operator has no user id: the name is stored as `by` in `after`.
    Operator(String),
}

/// One row of `audit_logs`.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// The author of the change.
    pub actor: Actor,
    /// A stable word: `payment.approve`, `registration.expire`, ….
    pub action: &'static str,
    /// The table's singular: `payment`, `registration`, ….
    pub entity_type: &'static str,
    /// The id of the changed row.
    pub entity_id: Uuid,
    /// The changed values, before; `None` where the row was created.
    pub before: Option<Value>,
    /// The changed values, after.
    pub after: Option<Value>,
    /// The operation that made the change, where there is one.
    pub operation_id: Option<Uuid>,
}

impl Actor {
    const fn principal(&self) -> Option<&Principal> {
        match self {
            Actor::Principal(principal) => Some(principal),
            Actor::Operator(_) => None,
        }
    }
}

impl AuditEntry {
    fn after_with_operator(&self) -> Option<Value> {
        let mut after = self.after.clone();
        if let (Actor::Operator(name), Some(Value::Object(members))) = (&self.actor, &mut after) {
            members.insert("by".to_owned(), Value::from(name.as_str()));
        }
        after
    }
}

/// Writes the entries, in one statement.
///
/// # Errors
/// The database's.
pub async fn record(tx: &mut PgConnection, entries: &[AuditEntry]) -> sqlx::Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let role =
        |entry: &AuditEntry| entry.actor.principal().and_then(Principal::role).map(|role| role.name().to_owned());
    sqlx::query!(
        r#"
        INSERT INTO audit_logs (id, actor_id, actor_role, action, entity_type, entity_id, before, after, operation_id)
        SELECT *
        FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::jsonb[], $8::jsonb[],
                    $9::uuid[])
        "#,
        &entries.iter().map(|_| ids::new_id()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.actor.principal().and_then(Principal::user_id)).collect::<Vec<_>>()
            as &[Option<Uuid>],
        &entries.iter().map(role).collect::<Vec<_>>() as &[Option<String>],
        &entries.iter().map(|e| e.action.to_owned()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.entity_type.to_owned()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.entity_id).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.before.clone()).collect::<Vec<_>>() as &[Option<Value>],
        &entries.iter().map(AuditEntry::after_with_operator).collect::<Vec<_>>() as &[Option<Value>],
        &entries.iter().map(|e| e.operation_id).collect::<Vec<_>>() as &[Option<Uuid>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_name_of_an_operator_is_stored_in_after() {
        let entry = AuditEntry {
            actor: Actor::Operator("asha".to_owned()),
            action: "dead_letter.discard",
            entity_type: "dead_letter",
            entity_id: Uuid::nil(),
            before: None,
            after: Some(json!({ "state": "discarded" })),
            operation_id: None,
        };
        assert_eq!(entry.after_with_operator(), Some(json!({ "state": "discarded", "by": "asha" })));
        let by_system = AuditEntry { actor: Actor::Principal(Principal::System), ..entry };
        assert_eq!(by_system.after_with_operator(), Some(json!({ "state": "discarded" })));
    }
}
