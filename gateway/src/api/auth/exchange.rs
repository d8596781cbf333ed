//! `POST /v1/auth/exchange`: a mailed link signs in, once. Where it was mailed for a registration, opening it confirms that
//! registration: the command is published before the link is spent, under an id derived from the link, so a refusal of
//! the broker leaves the link good and a repetition confirms nothing twice.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap};
use contracts::{Principal, messages::ConfirmRegistration};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{
        Auth,
        mailed_tokens::{self, MailedLink},
        sessions::{Device, Tokens},
    },
    commands::{
        Commands,
        audit::{self, AuditRecord},
    },
    extract::{ClientAddress, Json},
    http::ApiResult,
};

/// A mailed token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// As it stands in the mailed link.
    #[schema(value_type = String)]
    token: SecretString,
}

/// Signed in by a mailed link.
#[derive(Serialize, ToSchema)]
pub struct Exchanged {
    /// As at any sign-in.
    #[serde(flatten)]
    tokens: Tokens,
    /// The registration that the link confirms, where it was mailed for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<Confirmation>,
}

/// A registration on its way to being confirmed.
#[derive(Serialize, ToSchema)]
pub struct Confirmation {
    /// The registration.
    registration_id: Uuid,
    /// Its operation, for `GET /v1/operations/{id}`.
    #[schema(example = "op_0000000000000000000000000000000000000000")]
    operation_id: String,
}

/// Trade a mailed link for a sign-in
#[utoipa::path(post, path = "/v1/auth/exchange", request_body = Exchange,
    responses((status = 200, description = "Signed in; the link is spent.", body = Exchanged)), security(()))]
pub async fn exchange(
    State(db): State<PgPool>,
    State(auth): State<Arc<Auth>>,
    State(commands): State<Commands>,
    address: ClientAddress,
    headers: HeaderMap,
    Json(exchange): Json<Exchange>,
) -> ApiResult<axum::Json<Exchanged>> {
    auth.attempts.admit(address)?;
    let link = mailed_tokens::find(&auth, &db, &exchange.token, "magic_link").await?;
    let confirmation = match link.registration_id {
        Some(registration_id) => Some(confirm(&commands, &link, registration_id).await?),
        None => None,
    };
    let mut tx = db.begin().await?;
    mailed_tokens::spend(&mut tx, &link).await?;
    sqlx::query!("UPDATE users SET last_login_at = now() WHERE id = $1", link.user.id).execute(&mut *tx).await?;
    let grant = auth.open_session(&mut tx, &link.user, &Device::new(address, &headers)).await?;
    let entry = AuditRecord {
        actor: (link.user.id, link.user.role),
        action: "auth.magic_link",
        entity_type: "session",
        entity_id: grant.family_id,
        change: None,
        address,
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(axum::Json(Exchanged { tokens: auth.tokens(link.user, grant), confirmation }))
}

async fn confirm(commands: &Commands, link: &MailedLink, registration_id: Uuid) -> ApiResult<Confirmation> {
    let command = ConfirmRegistration { registration_id, student_id: link.user.id };
    let principal = Principal::User { id: link.user.id, role: link.user.role };
    let key = link.token_id.to_string();
    let operation_id = commands.publish_derived(principal, ("user_token", &key), &command).await?;
    Ok(Confirmation { registration_id, operation_id })
}
