//! `POST /v1/auth/exchange`: a mailed link signs in, once. Where it was mailed for a registration, opening it is what
//! confirms that registration: the command is published before the link is used, under an id derived from the link, so
//! a refusal of the broker leaves the link good and a repetition confirms nothing twice.

use axum::{Json as Answer, extract::State, http::HeaderMap};
use contracts::{Command, NewEvent, Principal, envelope::Origin, ids, messages::ConfirmRegistration};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ClientIp, audit,
    mailed_tokens::{self, Mailed},
    sessions::{Device, Tokens},
};
use crate::{json_body::Json, problem_response::ApiResult, request, state::App};

/// A mailed token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Exchange {
    /// As it stands in the mailed link.
    #[schema(value_type = String)]
    token: SecretString,
}

/// Signed in by a mailed link.
#[derive(Serialize, ToSchema)]
pub(super) struct Exchanged {
    /// As at any sign-in.
    #[serde(flatten)]
    tokens: Tokens,
    /// The registration that the link confirms, where it was mailed for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<Confirmation>,
}

/// A registration on its way to being confirmed.
#[derive(Serialize, ToSchema)]
pub(super) struct Confirmation {
    /// Which.
    registration_id: Uuid,
    /// Its operation, for `GET /v1/operations/{id}`.
    #[schema(example = "op_0000000000000000000000000000000000000000")]
    operation_id: String,
}

/// Trade a mailed link for a sign-in.
#[utoipa::path(
    post,
    path = "/v1/auth/exchange",
    tag = "auth",
    request_body = Exchange,
    responses((status = 200, description = "Signed in; the link is used", body = Exchanged)),
    security(())
)]
pub(super) async fn exchange(
    State(app): State<App>,
    ip: ClientIp,
    headers: HeaderMap,
    Json(exchange): Json<Exchange>,
) -> ApiResult<Answer<Exchanged>> {
    app.auth.attempts.admit(ip)?;
    let mailed = mailed_tokens::find(&app, &exchange.token, "magic_link").await?;
    let confirmation = match mailed.registration_id {
        Some(registration_id) => Some(confirm(&app, &mailed, registration_id).await?),
        None => None,
    };
    let mut tx = app.db.begin().await?;
    mailed_tokens::spend(&mut tx, &mailed).await?;
    sqlx::query!("UPDATE users SET last_login_at = now() WHERE id = $1", mailed.user.id).execute(&mut *tx).await?;
    let grant = app.auth.open_session(&mut tx, &mailed.user, &Device::new(ip, &headers)).await?;
    let entry = audit::Entry {
        actor: (mailed.user.id, mailed.user.role),
        action: "auth.magic_link",
        entity_type: "session",
        entity_id: grant.family_id,
        ip,
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(Answer(Exchanged { tokens: app.auth.tokens(mailed.user, grant), confirmation }))
}

async fn confirm(app: &App, mailed: &Mailed, registration_id: Uuid) -> ApiResult<Confirmation> {
    let command = ConfirmRegistration { registration_id, student_id: mailed.user.id };
    let origin = Origin {
        source: "/gateway",
        principal: Principal::User { id: mailed.user.id, role: mailed.user.role },
        accepted_at: chrono::Utc::now(),
        trace: request::trace().child(),
        parent: None,
    };
    let id = ids::keyed_id("user_token", ConfirmRegistration::KIND, &mailed.token_id.to_string());
    let event = NewEvent::new(id, &command, &origin);
    let operation_id = app.ids.encode(event.id, &event.fingerprint);
    app.publisher.publish(event).await?;
    Ok(Confirmation { registration_id, operation_id })
}
