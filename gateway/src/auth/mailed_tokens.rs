//! Mailed links: each is good once, until it expires. A link is spent in the transaction of the change that it allows.

use contracts::{ProblemType, Role};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Auth, sessions::SignedIn, stored_role};
use crate::http::{ApiError, ApiResult};

/// A mailed link that can still be used.
pub struct MailedLink {
    /// `user_tokens.id`.
    pub token_id: Uuid,
    /// The registration that it was mailed for, if any.
    pub registration_id: Option<Uuid>,
    /// The owner of the mailbox.
    pub user: SignedIn,
}

struct Row {
    registration_id: Option<Uuid>,
    user_id: Uuid,
    email: String,
    role: String,
    full_name: Option<String>,
}

/// Reads a link without using it.
///
/// # Errors
/// The same 401 whether the link was forged, spent or has expired, or its user may not sign in.
pub async fn find(auth: &Auth, db: &PgPool, token: &SecretString, purpose: &str) -> ApiResult<MailedLink> {
    let token_id = auth.mail_tokens.decode(token.expose_secret()).ok_or_else(refused)?;
    let row = sqlx::query_as!(
        Row,
        r#"SELECT    user_tokens.registration_id,
                     users.id AS user_id,
                     users.email::text AS "email!",
                     users.role,
                     user_profiles.full_name AS "full_name?"
           FROM      user_tokens
           JOIN      users         ON users.id = user_tokens.user_id
           LEFT JOIN user_profiles ON user_profiles.user_id = users.id
           WHERE     user_tokens.id = $1
             AND     user_tokens.purpose = $2
             AND     user_tokens.used_at IS NULL
             AND     user_tokens.expires_at > now()
             AND     users.status <> 'suspended'
             AND     users.deleted_at IS NULL"#,
        token_id,
        purpose
    )
    .fetch_optional(db)
    .await?
    .ok_or_else(refused)?;
    let role: Role = stored_role(&row.role)?;
    let user = SignedIn { id: row.user_id, email: row.email, role, full_name: row.full_name };
    Ok(MailedLink { token_id, registration_id: row.registration_id, user })
}

/// Spends a link, which proves the address: an invited user becomes active.
///
/// # Errors
/// 401 where the link was spent meanwhile.
pub async fn spend(tx: &mut PgConnection, mailed: &MailedLink) -> ApiResult<()> {
    let spent = sqlx::query!(
        "WITH spent AS (
             UPDATE user_tokens SET used_at = now() WHERE id = $1 AND used_at IS NULL AND expires_at > now() RETURNING user_id
         )
         UPDATE users
         SET    email_verified_at = coalesce(email_verified_at, now()),
                status            = CASE status WHEN 'invited' THEN 'active' ELSE status END
         FROM   spent
         WHERE  users.id = spent.user_id AND users.status <> 'suspended' AND users.deleted_at IS NULL",
        mailed.token_id
    )
    .execute(tx)
    .await?;
    if spent.rows_affected() == 1 { Ok(()) } else { Err(refused()) }
}

fn refused() -> ApiError {
    ApiError::from(ProblemType::InvalidToken).www_authenticate("Bearer")
}
