//! Account recovery: `forgot` mails a link, `reset` sets a new password with it, `verify` proves an address. `forgot`
//! answers the same, after the same time, whether the account exists or not.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode};
use contracts::{
    Principal, ids,
    messages::{EmailTemplate, SendEmail},
    validation::{is_email, normalise_email},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{Auth, mailed_tokens, passwords},
    commands::{
        Commands,
        audit::{self, AuditRecord},
    },
    extract::{ClientAddress, Json},
    http::ApiResult,
};

/// Longer than writing a row and publishing a mail usually takes.
const FORGOT_TAKES: Duration = Duration::from_millis(150);
/// Links mailed to one account within [`LINKS_WINDOW_SECS`], so that nobody's mailbox can be flooded.
const LINKS_MAX: i64 = 3;
const LINKS_WINDOW_SECS: f64 = 900.0;

/// The link to mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryLink {
    /// To set a new password.
    #[default]
    Reset,
    /// To sign in without one.
    SignIn,
}

/// The account that cannot sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Forgot {
    /// The address of the account.
    #[schema(example = "asha.rao@example.org")]
    email: String,
    /// The link to mail.
    #[serde(default)]
    link: RecoveryLink,
}

/// The answer, always the same.
#[derive(Serialize, ToSchema)]
pub struct Forgotten {
    /// The next step, for a person.
    detail: &'static str,
}

/// A mailed token and the password to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// As it stands in the mailed link.
    #[schema(value_type = String)]
    token: SecretString,
    /// At least 10 characters, at most 72 bytes.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// A mailed token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// As it stands in the mailed link.
    #[schema(value_type = String)]
    token: SecretString,
}

struct Addressee {
    token_id: Uuid,
    user_id: Uuid,
    email: String,
    full_name: Option<String>,
    locale: Option<String>,
}

/// Mail me a link
#[utoipa::path(post, path = "/v1/auth/forgot", request_body = Forgot,
    responses((status = 202, description = "The same whether there is such an account or not.", body = Forgotten)),
    security(()))]
pub async fn forgot(
    State(db): State<PgPool>,
    State(auth): State<Arc<Auth>>,
    State(commands): State<Commands>,
    address: ClientAddress,
    Json(forgot): Json<Forgot>,
) -> ApiResult<(StatusCode, axum::Json<Forgotten>)> {
    auth.attempts.admit(address)?;
    let email = normalise_email(&forgot.email);
    let mail =
        async { if is_email(&email) { mail_link(&db, &auth, &commands, &email, forgot.link).await } else { Ok(()) } };
    let (mailed, ()) = tokio::join!(mail, tokio::time::sleep(FORGOT_TAKES));
    mailed?;
    let detail = "If there is an account with this address, a link is on its way to it.";
    Ok((StatusCode::ACCEPTED, axum::Json(Forgotten { detail })))
}

/// Set a new password
#[utoipa::path(post, path = "/v1/auth/reset", request_body = Reset,
    responses((status = 204, description = "Set; every sign-in of the user is ended.")), security(()))]
pub async fn reset(
    State(db): State<PgPool>,
    State(auth): State<Arc<Auth>>,
    address: ClientAddress,
    Json(reset): Json<Reset>,
) -> ApiResult<StatusCode> {
    auth.attempts.admit(address)?;
    passwords::check(&reset.password)?;
    let link = mailed_tokens::find(&auth, &db, &reset.token, "reset").await?;
    let hash = auth.passwords.hash(&reset.password).await?;
    let mut tx = db.begin().await?;
    mailed_tokens::spend(&mut tx, &link).await?;
    sqlx::query!(
        "UPDATE users SET password_hash = $2, failed_logins = 0, locked_until = NULL WHERE id = $1",
        link.user.id,
        hash
    )
    .execute(&mut *tx)
    .await?;
    let families = sqlx::query_scalar!(
        "WITH alive AS (
             SELECT id FROM sessions WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id FOR UPDATE
         )
         UPDATE sessions SET revoked_at = now() FROM alive WHERE sessions.id = alive.id RETURNING sessions.family_id",
        link.user.id
    )
    .fetch_all(&mut *tx)
    .await?;
    let entry = AuditRecord {
        actor: (link.user.id, link.user.role),
        action: "auth.password_reset",
        entity_type: "user",
        entity_id: link.user.id,
        change: None,
        address,
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await?;
    auth.announce_revoked(families);
    Ok(StatusCode::NO_CONTENT)
}

/// Prove an address
#[utoipa::path(post, path = "/v1/auth/verify", request_body = Verify,
    responses((status = 204, description = "The address is proven.")), security(()))]
pub async fn verify(
    State(db): State<PgPool>,
    State(auth): State<Arc<Auth>>,
    address: ClientAddress,
    Json(verify): Json<Verify>,
) -> ApiResult<StatusCode> {
    auth.attempts.admit(address)?;
    let link = mailed_tokens::find(&auth, &db, &verify.token, "verify").await?;
    let mut tx = db.begin().await?;
    mailed_tokens::spend(&mut tx, &link).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn mail_link(db: &PgPool, auth: &Auth, commands: &Commands, email: &str, link: RecoveryLink) -> ApiResult<()> {
    let (purpose, template, minutes) = match link {
        RecoveryLink::Reset => ("reset", EmailTemplate::PasswordReset, auth.settings.reset_link_minutes),
        RecoveryLink::SignIn => ("magic_link", EmailTemplate::MagicLink, auth.settings.magic_link_minutes),
    };
    let Some(addressee) = issue_token(db, email, purpose, minutes).await? else {
        return Ok(());
    };
    let command = SendEmail {
        to_email: addressee.email,
        to_name: addressee.full_name.clone(),
        user_id: Some(addressee.user_id),
        template,
        locale: addressee.locale.unwrap_or_else(|| "en".to_owned()),
        context: serde_json::json!({ "name": addressee.full_name, "expires_minutes": minutes }).into(),
        token_id: Some(addressee.token_id),
        attachment_file_id: None,
        dedupe_key: format!("{}:{}", template.name(), addressee.token_id),
    };
    let key = addressee.token_id.to_string();
    commands.publish_derived(Principal::System, ("user_token", &key), &command).await?;
    Ok(())
}

/// Writes the token's row for a user who may sign in and was not mailed too often of late.
async fn issue_token(db: &PgPool, email: &str, purpose: &str, minutes: u32) -> sqlx::Result<Option<Addressee>> {
    sqlx::query_as!(
        Addressee,
        r#"WITH addressee AS (
               SELECT    users.id, users.email, user_profiles.full_name, user_profiles.locale
               FROM      users
               LEFT JOIN user_profiles ON user_profiles.user_id = users.id
               WHERE     users.email::text = $1::text COLLATE "C" AND users.deleted_at IS NULL AND users.status <> 'suspended'
                 AND     (SELECT count(*)
                          FROM   user_tokens
                          WHERE  user_tokens.user_id = users.id
                            AND  user_tokens.purpose = $3
                            AND  user_tokens.created_at > now() - make_interval(secs => $5)) < $6
           ), issued AS (
               INSERT INTO user_tokens (id, user_id, purpose, expires_at)
               SELECT $2, id, $3, now() + make_interval(mins => $4) FROM addressee
               RETURNING id, user_id
           )
           SELECT issued.id AS token_id,
                  issued.user_id,
                  addressee.email::text AS "email!",
                  addressee.full_name AS "full_name?",
                  addressee.locale AS "locale?"
           FROM   issued
           JOIN   addressee ON addressee.id = issued.user_id"#,
        email,
        ids::new_id(),
        purpose,
        i32::try_from(minutes).unwrap_or(i32::MAX),
        LINKS_WINDOW_SECS,
        LINKS_MAX
    )
    .fetch_optional(db)
    .await
}
