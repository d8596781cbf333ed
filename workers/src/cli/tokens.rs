//! `workers tokens`: mints access tokens for load tests, so that thousands of students need not sign in first. They are
//! signed with the gateways' own key, so this is refused outside development.

use anyhow::{Context as _, ensure};
use chrono::{TimeDelta, Utc};
use contracts::{
    Role,
    access_token::{self, AccessClaims},
    ids,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    config::{WorkerEnvironment, WorkerSettings},
    database,
};

/// The users who get tokens.
#[derive(Debug, clap::Args)]
pub struct TokensArgs {
    /// The N students who were created last.
    #[arg(long, value_name = "N", required_unless_present_any = ["users", "roles"])]
    pub students: Option<i64>,

    /// A user; may be repeated.
    #[arg(long = "user", value_name = "ID")]
    pub users: Vec<Uuid>,

    /// All users of a role; may be repeated.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<Role>,

    /// Their lifetime.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=1440))]
    pub minutes: i64,
}

#[derive(Serialize)]
struct Line<'a> {
    user_id: Uuid,
    role: Role,
    email: &'a str,
    access_token: String,
    expires_at: chrono::DateTime<Utc>,
}

/// Prints a JSON object for each user.
///
/// # Errors
/// Any environment but development, or a database that does not answer.
pub async fn run(args: TokensArgs, settings: WorkerSettings) -> anyhow::Result<()> {
    ensure!(
        settings.environment == WorkerEnvironment::Development,
        "tokens are minted in development only; in production people sign in (environment = \"development\" is not set)"
    );
    let secret = settings.secrets.jwt_hs256.expose_secret().as_bytes();
    let key = EncodingKey::from_secret(secret);
    let header = Header { kid: Some(access_token::kid("HS256", secret)), ..Header::new(Algorithm::HS256) };
    let database = database::pool(&settings.database, "workers tokens").context("database.url")?;
    let roles: Vec<String> = args.roles.iter().map(|role| role.name().to_owned()).collect();
    let users = sqlx::query!(
        r#"
        SELECT id, email::text AS "email!", role
          FROM users
         WHERE deleted_at IS NULL
           AND status <> 'suspended'
           AND (   id = ANY($1)
                OR role = ANY($2)
                OR id IN (SELECT id
                            FROM users
                           WHERE role = 'student' AND deleted_at IS NULL AND status <> 'suspended'
                           ORDER BY created_at DESC, id DESC
                           LIMIT $3))
         ORDER BY id
        "#,
        &args.users,
        &roles,
        args.students.unwrap_or(0),
    )
    .fetch_all(&database)
    .await
    .context("the users could not be read")?;
    let now = Utc::now();
    let lifetime = TimeDelta::minutes(args.minutes);
    let mut lines = String::new();
    for user in &users {
        let role: Role = user.role.parse()?;
        // A fresh session id: gateways only look up whether it was revoked.
        let claims = AccessClaims::new(user.id, role, ids::new_id(), now, lifetime.num_seconds());
        let line = Line {
            user_id: user.id,
            role,
            email: &user.email,
            access_token: jsonwebtoken::encode(&header, &claims, &key)?,
            expires_at: now + lifetime,
        };
        lines.push_str(&serde_json::to_string(&line)?);
        lines.push('\n');
    }
    print!("{lines}");
    let missing = args.users.iter().filter(|id| !users.iter().any(|user| user.id == **id)).count();
    ensure!(missing == 0, "{missing} of the named users are unknown, deleted or suspended");
    Ok(())
}
