//! `POST /v1/auth/refresh`: a refresh token is good for one rotation. Shown again within a few seconds its answer was lost,
//! and the very same successor is given; shown later two parties hold it, and the whole family is revoked (RFC 9700 §4.14.2). A successor is derived from its parent, so a family never has two live tokens.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap};
use contracts::{ProblemType, Role};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{
        Auth,
        sessions::{self, Device, Grant, RefreshToken, SignedIn, Tokens},
        stored_role,
    },
    commands::audit::{self, AuditRecord},
    extract::{ClientAddress, Json},
    http::{ApiError, ApiResult},
};

/// The live refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// As the last answer gave it.
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

struct RefreshedSession {
    id: Uuid,
    user_id: Uuid,
    family_id: Uuid,
    email: String,
    role: String,
    full_name: Option<String>,
    /// Neither expired, nor revoked, nor anyone in its family, and the user may still sign in.
    alive: bool,
    rotated_secs_ago: Option<f64>,
}

enum Rotation {
    Granted(Box<SignedIn>, Grant),
    Refused,
    Reused { user_id: Uuid, role: Role, family_id: Uuid },
}

/// Trade a refresh token for a new pair
#[utoipa::path(post, path = "/v1/auth/refresh", request_body = Refresh,
    responses((status = 200, description = "A new pair; the refresh token sent is spent.", body = Tokens)),
    security(()))]
pub async fn refresh(
    State(db): State<PgPool>,
    State(auth): State<Arc<Auth>>,
    address: ClientAddress,
    headers: HeaderMap,
    Json(refresh): Json<Refresh>,
) -> ApiResult<axum::Json<Tokens>> {
    let token = RefreshToken::sent(refresh.refresh_token);
    let device = Device::new(address, &headers);
    let mut tx = db.begin().await?;
    match rotate(&auth, &mut tx, &token, &device).await? {
        Rotation::Granted(user, grant) => {
            tx.commit().await?;
            Ok(axum::Json(auth.tokens(*user, grant)))
        }
        Rotation::Refused => Err(refused()),
        Rotation::Reused { user_id, role, family_id } => {
            // In a transaction of its own: this one holds a row of the family already, out of order.
            tx.rollback().await?;
            revoke(&db, &auth, (user_id, role), family_id, address).await?;
            Err(refused())
        }
    }
}

async fn revoke(
    db: &PgPool,
    auth: &Auth,
    actor: (Uuid, Role),
    family_id: Uuid,
    address: ClientAddress,
) -> ApiResult<()> {
    let mut tx = db.begin().await?;
    if sessions::revoke_family(&mut tx, actor.0, family_id).await? {
        let action = "auth.refresh_token_reused";
        let entry = AuditRecord { actor, action, entity_type: "session", entity_id: family_id, change: None, address };
        audit::record(&mut tx, entry).await?;
    }
    tx.commit().await?;
    auth.announce_revoked(vec![family_id]);
    Ok(())
}

fn refused() -> ApiError {
    ApiError::from(ProblemType::InvalidToken).www_authenticate("Bearer")
}

async fn rotate(auth: &Auth, tx: &mut PgConnection, token: &RefreshToken, device: &Device<'_>) -> ApiResult<Rotation> {
    let Some(session) = lock(tx, token).await? else {
        return Ok(Rotation::Refused);
    };
    let role = stored_role(&session.role)?;
    if !session.alive {
        return Ok(Rotation::Refused);
    }
    let successor = token.successor(&auth.refresh_key);
    let (idle_secs, _) = auth.refresh_secs(role);
    let expires_in = match session.rotated_secs_ago {
        None => add_child(tx, &session, &successor, device, idle_secs).await?,
        Some(ago) if ago <= f64::from(auth.settings.refresh_grace_seconds) => unused_child(tx, session.id).await?,
        Some(_) => None,
    };
    let Some(expires_in) = expires_in else {
        return Ok(Rotation::Reused { user_id: session.user_id, role, family_id: session.family_id });
    };
    let user = SignedIn { id: session.user_id, email: session.email, role, full_name: session.full_name };
    let grant = Grant { family_id: session.family_id, refresh_token: successor, refresh_expires_in: expires_in as i64 };
    Ok(Rotation::Granted(Box::new(user), grant))
}

/// Finds the token's row and locks it, so that its rotations come one after the other.
async fn lock(tx: &mut PgConnection, token: &RefreshToken) -> sqlx::Result<Option<RefreshedSession>> {
    sqlx::query_as!(
        RefreshedSession,
        r#"SELECT    sessions.id,
                     sessions.user_id,
                     sessions.family_id,
                     users.email::text AS "email!",
                     users.role,
                     user_profiles.full_name AS "full_name?",
                     users.status = 'active' AND users.deleted_at IS NULL AND sessions.expires_at > clock_timestamp()
                         AND NOT EXISTS (SELECT FROM sessions AS relative
                                         WHERE  relative.family_id = sessions.family_id AND relative.revoked_at IS NOT NULL)
                         AS "alive!",
                     extract(epoch FROM clock_timestamp() - sessions.rotated_at)::float8 AS rotated_secs_ago
           FROM      sessions
           JOIN      users         ON users.id = sessions.user_id
           LEFT JOIN user_profiles ON user_profiles.user_id = users.id
           WHERE     sessions.refresh_hash = $1
           FOR UPDATE OF sessions"#,
        token.hash()
    )
    .fetch_optional(tx)
    .await
}

/// Spends the token and adds its successor; returns the life of that one if unused, seconds.
async fn add_child(
    tx: &mut PgConnection,
    parent: &RefreshedSession,
    successor: &RefreshToken,
    device: &Device<'_>,
    idle_secs: f64,
) -> sqlx::Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"WITH parent AS (
               UPDATE sessions SET rotated_at = clock_timestamp() WHERE id = $1 RETURNING *
           )
           INSERT INTO sessions (id, user_id, family_id, parent_id, refresh_hash, ip, user_agent, expires_at, absolute_expires_at)
           SELECT $2, user_id, family_id, id, $3, $4::text::inet, $5,
                  least(now() + make_interval(secs => $6), absolute_expires_at), absolute_expires_at
           FROM   parent
           RETURNING extract(epoch FROM expires_at - now())::float8 AS "secs!""#,
        parent.id,
        contracts::ids::new_id(),
        successor.hash(),
        device.address.text(),
        device.user_agent(),
        idle_secs
    )
    .fetch_optional(tx)
    .await
}

/// The successor that was given before, if nobody used it yet: its answer may have been lost.
async fn unused_child(tx: &mut PgConnection, parent_id: Uuid) -> sqlx::Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 AS "secs!"
           FROM   sessions
           WHERE  parent_id = $1 AND rotated_at IS NULL"#,
        parent_id
    )
    .fetch_optional(tx)
    .await
}
