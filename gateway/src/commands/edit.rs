//! Edits: synchronous writes that change only their own rows. One transaction locks the resource, checks `If-Match`
//! against its version, writes, and records the members that changed in the audit log; the answer is the changed resource
//! with its new entity tag.

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequestParts},
    http::request::Parts,
};
use contracts::{FieldError, Problem, ProblemType};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::audit::{self, AuditRecord};
use crate::{
    auth::{Auth, Caller},
    extract::{ClientAddress, IfMatch},
    http::{ApiError, ApiResult, Representation},
};

/// A resource that is edited. Its version is raised by edits alone, and is no member of its JSON.
pub trait Versioned: Serialize + Send + Sync {
    /// Returns the version of the row.
    fn version(&self) -> i64;
}

/// One change of one resource.
pub trait Edit: Send + Sync {
    /// The resource, as the client sees it.
    type View: Versioned;

    /// The audit action: a stable word such as `profile.edit`.
    const ACTION: &'static str;
    /// The audit entity: the table's singular.
    const ENTITY_TYPE: &'static str;
    /// `false` only where clients from before versions must go on.
    const IF_MATCH_REQUIRED: bool = true;

    /// Returns the audit entity's id.
    fn entity_id(&self) -> Uuid;

    /// Reads the resource and locks its row; `None` where there is none, or the caller may not see it.
    fn lock(&self, tx: &mut PgConnection) -> impl Future<Output = sqlx::Result<Option<Self::View>>> + Send;

    /// Writes the change and raises the version.
    fn write(&self, tx: &mut PgConnection) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Names the field that a violated unique constraint is about: the answer is then a 409.
    fn conflict(_constraint: &str) -> Option<FieldError> {
        None
    }
}

/// The request of an edit: who makes it, from where, and under which versions.
pub struct EditRequest {
    /// The caller.
    pub caller: Caller,
    address: ClientAddress,
    if_match: IfMatch,
}

impl EditRequest {
    /// Makes the change.
    ///
    /// # Errors
    /// 404 where there is no such resource; 412 where it has another version; 428 where `If-Match` is missing; 409 where
    /// a unique value is taken.
    pub async fn apply<E: Edit>(self, db: &PgPool, edit: &E) -> ApiResult<Representation<E::View>> {
        let mut tx = db.begin().await?;
        let before = edit.lock(&mut tx).await?.ok_or_else(ApiError::not_found)?;
        self.if_match.check(before.version(), E::IF_MATCH_REQUIRED)?;
        edit.write(&mut tx).await.map_err(conflict::<E>)?;
        let after = edit.lock(&mut tx).await?.ok_or_else(ApiError::not_found)?;
        let Some(change) = difference(&before, &after) else {
            // Nothing differs: the version stays, and there is nothing to record.
            tx.rollback().await?;
            return Ok(Representation::versioned(before.version(), before));
        };
        let entry = AuditRecord {
            actor: (self.caller.user_id, self.caller.role),
            action: E::ACTION,
            entity_type: E::ENTITY_TYPE,
            entity_id: edit.entity_id(),
            change: Some(change),
            address: self.address,
        };
        audit::record(&mut tx, entry).await?;
        tx.commit().await?;
        Ok(Representation::versioned(after.version(), after))
    }
}

fn conflict<E: Edit>(error: sqlx::Error) -> ApiError {
    let constraint = error.as_database_error().filter(|error| error.is_unique_violation());
    match constraint.and_then(|error| E::conflict(error.constraint()?)) {
        Some(field) => Problem::new(ProblemType::Conflict).detail(field.message.clone()).errors(vec![field]).into(),
        None => error.into(),
    }
}

/// The members that differ, before and after; `None` where none does.
fn difference(before: &impl Serialize, after: &impl Serialize) -> Option<(Value, Value)> {
    let members = |view: Result<Value, serde_json::Error>| match view {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    };
    let (mut before, mut after) = (members(serde_json::to_value(before)), members(serde_json::to_value(after)));
    let same: Vec<String> =
        before.iter().filter(|(name, value)| after.get(*name) == Some(value)).map(|(name, _)| name.clone()).collect();
    for name in same {
        before.remove(&name);
        after.remove(&name);
    }
    (!before.is_empty() || !after.is_empty()).then_some((before.into(), after.into()))
}

impl<S> FromRequestParts<S> for EditRequest
where
    S: Send + Sync,
    Arc<Auth>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let Ok(address) = ClientAddress::from_request_parts(parts, state).await;
        let if_match = IfMatch::from_request_parts(parts, state).await?;
        Ok(Self { caller, address, if_match })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_members_that_differ_are_recorded() {
        let (before, after) = (json!({ "a": 1, "b": null, "c": [1] }), json!({ "a": 1, "b": "x", "c": [1] }));
        assert_eq!(difference(&before, &after), Some((json!({ "b": null }), json!({ "b": "x" }))));
        assert_eq!(difference(&before, &before), None);
    }
}
