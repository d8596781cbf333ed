//! `workers create-user`: creates a user who can sign in with a password, such as the first admin. The password comes from
//! the terminal or standard input, never from the command line, where everybody on the machine could read it.

use std::io::{BufRead, IsTerminal};

use anyhow::{Context as _, bail, ensure};
use contracts::{
    Role, ids,
    validation::{Checks, normalise_email},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    audit::{self, Actor, AuditEntry},
    config::WorkerSettings,
    database,
};

/// The longest password, in bytes: bcrypt reads no further.
const PASSWORD_BYTES_MAX: usize = 72;
/// The shortest password, in characters; the same as the gateway's.
const PASSWORD_CHARS_MIN: usize = 10;
const BCRYPT_COST: u32 = 12;

/// The user to create.
#[derive(Debug, clap::Args)]
pub struct CreateUserArgs {
    /// Their address; no other user may have it.
    #[arg(long)]
    pub email: String,

    /// student, teacher, accountant or admin.
    #[arg(long)]
    pub role: Role,

    /// Their name.
    #[arg(long)]
    pub full_name: String,

    /// Read the password from standard input, up to its first line break, instead of asking for it.
    #[arg(long)]
    pub password_stdin: bool,
}

/// Runs `workers create-user`: creates the user, the profile and the audit row.
///
/// # Errors
/// A field that is not acceptable, an address that is taken, or a role of the database that may not do it.
pub async fn run(args: CreateUserArgs, settings: WorkerSettings) -> anyhow::Result<()> {
    let email = normalise_email(&args.email);
    check(&email, &args.full_name)?;
    let password = read_password(args.password_stdin)?;
    let hash = hash_password(&password, BCRYPT_COST)?;
    let database = database::pool(&settings.database, "workers create-user").context("database.url")?;
    let id = ids::new_id();
    let created = create(&database, id, &email, &hash, &args)
        .await
        .context("the user could not be created; database.url must be the owner's")?;
    ensure!(created, "{email} is taken by another user");
    println!("created {} {email} with id {id}", args.role);
    Ok(())
}

/// Writes the user, the profile and the audit row; returns false where the address is taken.
async fn create(database: &PgPool, id: Uuid, email: &str, hash: &str, args: &CreateUserArgs) -> sqlx::Result<bool> {
    let mut tx = database.begin().await?;
    let created = sqlx::query!(
        r#"
        WITH created AS (
            INSERT INTO users (id, email, password_hash, role, status, email_verified_at)
            VALUES ($1, $2::text::citext, $3, $4, 'active', now())
                ON CONFLICT ((email::text) COLLATE "C") WHERE deleted_at IS NULL DO NOTHING
            RETURNING id
        )
        INSERT INTO user_profiles (id, user_id, full_name)
        SELECT $5, id, $6 FROM created
        "#,
        id,
        email,
        hash,
        args.role.name(),
        ids::new_id(),
        args.full_name.trim(),
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if created == 0 {
        return Ok(false);
    }
    let entry = AuditEntry {
        actor: Actor::Operator("command line".to_owned()),
        action: "user.create",
        entity_type: "user",
        entity_id: id,
        before: None,
        after: Some(json!({ "email": email, "role": args.role.name() })),
        operation_id: None,
    };
    audit::record(&mut tx, &[entry]).await?;
    tx.commit().await?;
    Ok(true)
}

/// Returns the bcrypt hash of an acceptable password.
///
/// # Errors
/// A password that is too short, or longer than bcrypt reads: it is refused, never truncated.
pub(super) fn hash_password(password: &SecretString, cost: u32) -> anyhow::Result<String> {
    let text = password.expose_secret();
    ensure!(
        text.chars().count() >= PASSWORD_CHARS_MIN,
        "the password is too short; it must have at least {PASSWORD_CHARS_MIN} characters"
    );
    ensure!(
        text.len() <= PASSWORD_BYTES_MAX,
        "the password has {} bytes in UTF-8; bcrypt reads only {PASSWORD_BYTES_MAX}, so choose one that is no longer",
        text.len()
    );
    ensure!(!text.contains('\0'), "the password must not contain NUL");
    bcrypt::hash(text, cost).context("bcrypt refused the password or the cost (4 to 31)")
}

fn check(email: &str, full_name: &str) -> anyhow::Result<()> {
    Checks::new().email("--email", email).line("--full-name", full_name, 200).finish().map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(|error| format!("{} {}", error.field, error.message)).collect();
        anyhow::anyhow!(lines.join("\n"))
    })
}

fn read_password(from_stdin: bool) -> anyhow::Result<SecretString> {
    if from_stdin {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("the password could not be read from standard input")?;
        return Ok(line.trim_end_matches(['\n', '\r']).into());
    }
    if !std::io::stdin().is_terminal() {
        bail!("standard input is no terminal to ask for the password at; use --password-stdin");
    }
    let first = rpassword::prompt_password("Password: ")?;
    ensure!(first == rpassword::prompt_password("Once more: ")?, "the two passwords differ");
    Ok(first.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_bcrypt_would_truncate_is_refused() {
        let refusal = hash_password(&"p".repeat(73).into(), 4).expect_err("73 bytes");
        assert!(refusal.to_string().contains("72"), "{refusal}");
        // 25 characters, 75 bytes: characters are not what counts.
        assert!(hash_password(&"€".repeat(25).into(), 4).is_err());
        assert!(hash_password(&"short".into(), 4).is_err());
        let hash = hash_password(&"p".repeat(72).into(), 4).expect("72 bytes fit");
        assert!(bcrypt::verify("p".repeat(72), &hash).expect("a hash"));
    }
}
