//! `POST /v1/auth/login`: e-mail and password. Whether an account exists shows neither in the answer nor in the time it
//! takes; guessing is slowed by address and by account.

use axum::{Json as Answer, extract::State, http::HeaderMap};
use contracts::{Problem, ProblemType, Role, validation::normalise_email};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ClientIp, attempts, audit,
    sessions::{Device, SignedIn, Tokens},
};
use crate::{
    json_body::Json,
    problem_response::{ApiError, ApiResult},
    state::App,
};

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
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

/// Sign in with e-mail and password.
#[utoipa::path(
    post,
    path = "/v1/auth/login",
    tag = "auth",
    request_body = Login,
    responses((status = 200, description = "Signed in", body = Tokens)),
    security(())
)]
pub(super) async fn login(
    State(app): State<App>,
    ip: ClientIp,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> ApiResult<Answer<Tokens>> {
    app.auth.attempts.admit(ip)?;
    let email = normalise_email(&login.email);
    let Some(account) = find(&app, &email).await? else {
        app.auth.attempts.admit_unknown(&email)?;
        app.auth.passwords.verify(&login.password, None).await?;
        app.auth.attempts.unknown_failed(&email);
        return Err(wrong());
    };
    if let Some(left) = account.locked_secs {
        return Err(attempts::locked(left.ceil() as u64));
    }
    if !app.auth.passwords.verify(&login.password, account.password_hash.as_deref()).await? {
        remember_failure(&app, account.id).await?;
        return Err(wrong());
    }
    if account.status != "active" {
        return Err(Problem::new(ProblemType::Forbidden).detail("This account is not active.").into());
    }
    let user =
        SignedIn { id: account.id, email: account.email, role: role(&account.role)?, full_name: account.full_name };
    enter(&app, user, &Device::new(ip, &headers)).await.map(Answer)
}

/// The role as the database has it.
pub(super) fn role(name: &str) -> ApiResult<Role> {
    name.parse().map_err(|error| {
        tracing::error!(%error, "a role in the database that the contracts do not know");
        ProblemType::Internal.into()
    })
}

fn wrong() -> ApiError {
    ApiError::from(ProblemType::InvalidCredentials).www_authenticate("Bearer")
}

async fn find(app: &App, email: &str) -> ApiResult<Option<Account>> {
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
    .fetch_optional(&app.db)
    .await?;
    Ok(account)
}

async fn remember_failure(app: &App, user_id: Uuid) -> ApiResult<()> {
    let failures = sqlx::query_scalar!(
        "UPDATE users SET failed_logins = failed_logins + 1 WHERE id = $1 RETURNING failed_logins",
        user_id
    )
    .fetch_one(&app.db)
    .await?;
    let delay_secs = attempts::delay_secs(failures.unsigned_abs());
    if delay_secs > 0 {
        sqlx::query!(
            "UPDATE users SET locked_until = now() + make_interval(secs => $2) WHERE id = $1",
            user_id,
            delay_secs as f64
        )
        .execute(&app.db)
        .await?;
    }
    Ok(())
}

async fn enter(app: &App, user: SignedIn, device: &Device<'_>) -> ApiResult<Tokens> {
    let mut tx = app.db.begin().await?;
    sqlx::query!(
        "UPDATE users SET failed_logins = 0, locked_until = NULL, last_login_at = now() WHERE id = $1",
        user.id
    )
    .execute(&mut *tx)
    .await?;
    let grant = app.auth.open_session(&mut tx, &user, device).await?;
    let entry = audit::Entry {
        actor: (user.id, user.role),
        action: "auth.login",
        entity_type: "session",
        entity_id: grant.family_id,
        ip: device.ip,
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(app.auth.tokens(user, grant))
}
