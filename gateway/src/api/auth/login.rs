//! `POST /v1/auth/login`: e-mail and password. Whether an account exists shows neither in the answer nor in the time it
//! takes; guessing is slowed by address and by account.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap};
use contracts::{Problem, ProblemType, validation::normalise_email};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{
        Auth, attempts,
        sessions::{Device, SignedIn, Tokens},
        stored_role,
    },
    commands::audit::{self, AuditRecord},
    extract::{ClientAddress, Json},
    http::{ApiError, ApiResult},
};

/// The credentials of an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The address of the account; its case does not matter.
    #[schema(example = "asha.rao@example.org")]
    email: String,
    /// At most 72 bytes.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

struct Account {
    id: Uuid,
    email: String,
    role: String,
    status: String,
    password_hash: Option<String>,
    locked_secs: Option<f64>,
    full_name: Option<String>,
}

/// Sign in with e-mail and password
#[utoipa::path(post, path = "/v1/auth/login", request_body = Login,
    responses((status = 200, description = "Signed in.", body = Tokens)), security(()))]
pub async fn login(
    State(db): State<PgPool>,
    State(auth): State<Arc<Auth>>,
    address: ClientAddress,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> ApiResult<axum::Json<Tokens>> {
    auth.attempts.admit(address)?;
    let email = normalise_email(&login.email);
    let Some(account) = find(&db, &email).await? else {
        auth.attempts.admit_unknown(&email)?;
        auth.passwords.verify(&login.password, None).await?;
        auth.attempts.unknown_failed(&email);
        return Err(wrong());
    };
    if let Some(left) = account.locked_secs {
        return Err(attempts::locked(left.ceil() as u64));
    }
    if !auth.passwords.verify(&login.password, account.password_hash.as_deref()).await? {
        remember_failure(&db, account.id).await?;
        return Err(wrong());
    }
    if account.status != "active" {
        return Err(Problem::new(ProblemType::Forbidden).detail("This account is not active.").into());
    }
    let role = stored_role(&account.role)?;
    let user = SignedIn { id: account.id, email: account.email, role, full_name: account.full_name };
    enter(&db, &auth, user, &Device::new(address, &headers)).await.map(axum::Json)
}

fn wrong() -> ApiError {
    ApiError::from(ProblemType::InvalidCredentials).www_authenticate("Bearer")
}

async fn find(db: &PgPool, email: &str) -> ApiResult<Option<Account>> {
    // A NUL cannot stand in Postgres text, so nobody has such an address.
    if email.contains('\0') {
        return Ok(None);
    }
    let account = sqlx::query_as!(
        Account,
        r#"SELECT    users.id,
                     users.email::text AS "email!",
                     users.role,
                     users.status,
                     users.password_hash,
                     CASE WHEN users.locked_until > now()
                          THEN extract(epoch FROM users.locked_until - now())::float8 END AS locked_secs,
                     user_profiles.full_name AS "full_name?"
           FROM      users
           LEFT JOIN user_profiles ON user_profiles.user_id = users.id
           WHERE     users.email::text = $1::text COLLATE "C" AND users.deleted_at IS NULL"#,
        email
    )
    .fetch_optional(db)
    .await?;
    Ok(account)
}

async fn remember_failure(db: &PgPool, user_id: Uuid) -> ApiResult<()> {
    let failures = sqlx::query_scalar!(
        "UPDATE users SET failed_logins = failed_logins + 1 WHERE id = $1 RETURNING failed_logins",
        user_id
    )
    .fetch_one(db)
    .await?;
    let delay_secs = attempts::delay_secs(failures.unsigned_abs());
    if delay_secs > 0 {
        sqlx::query!(
            "UPDATE users SET locked_until = now() + make_interval(secs => $2) WHERE id = $1",
            user_id,
            delay_secs as f64
        )
        .execute(db)
        .await?;
    }
    Ok(())
}

async fn enter(db: &PgPool, auth: &Auth, user: SignedIn, device: &Device<'_>) -> ApiResult<Tokens> {
    let mut tx = db.begin().await?;
    sqlx::query!(
        "UPDATE users SET failed_logins = 0, locked_until = NULL, last_login_at = now() WHERE id = $1",
        user.id
    )
    .execute(&mut *tx)
    .await?;
    let grant = auth.open_session(&mut tx, &user, device).await?;
    let entry = AuditRecord {
        actor: (user.id, user.role),
        action: "auth.login",
        entity_type: "session",
        entity_id: grant.family_id,
        change: None,
        address: device.address,
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(auth.tokens(user, grant))
}
