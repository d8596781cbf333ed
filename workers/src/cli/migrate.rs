//! `workers migrate`: brings the database to the schema that this program was built with. Safe to run again and by
//! several at once: a migration is applied once, under Postgres' advisory lock.

use std::{collections::HashSet, str::FromStr};

use anyhow::Context as _;
use secrecy::ExposeSecret;
use sqlx::{
    Connection, PgConnection,
    migrate::{Migrate, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgDatabaseError},
};

use crate::config::WorkerSettings;

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// sqlx's table of applied migrations.
const APPLIED_TABLE: &str = "_sqlx_migrations";

/// No options: `database.url` names the database and its owner.
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {}

/// Applies the missing migrations and prints a line for each.
///
/// # Errors
/// A database that does not answer, a role without the rights, or a migration that was changed after it was applied.
pub async fn run(_args: MigrateArgs, settings: WorkerSettings) -> anyhow::Result<()> {
    // No statement timeout: an index on a large table takes its time.
    let options = PgConnectOptions::from_str(settings.database.url.expose_secret())
        .context("database.url")?
        .application_name("workers migrate");
    let mut connection = PgConnection::connect_with(&options)
        .await
        .context("database.url: Postgres does not answer, or refuses its owner")?;
    connection.ensure_migrations_table(APPLIED_TABLE).await.map_err(explained)?;
    let applied: HashSet<i64> = connection
        .list_applied_migrations(APPLIED_TABLE)
        .await
        .map_err(explained)?
        .into_iter()
        .map(|migration| migration.version)
        .collect();
    let mut done = 0_usize;
    for migration in MIGRATOR.iter().filter(|migration| !applied.contains(&migration.version)) {
        MIGRATOR.run_to(migration.version, &mut connection).await.map_err(explained)?;
        println!("applied {:04} {}", migration.version, migration.description);
        done += 1;
    }
    // Also where nothing was missing: what was applied must not have been edited since.
    MIGRATOR.run(&mut connection).await.map_err(explained)?;
    let all = MIGRATOR.iter().count();
    match done {
        0 => println!("The schema is up to date: all {all} migrations were applied before."),
        done => println!("The schema is up to date: {done} of {all} migrations applied now."),
    }
    connection.close().await?;
    Ok(())
}

/// Adds Postgres' hint, which sqlx's message leaves out.
fn explained(error: MigrateError) -> anyhow::Error {
    let hint = match &error {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => cause
            .as_database_error()
            .and_then(|cause| cause.try_downcast_ref::<PgDatabaseError>())
            .and_then(PgDatabaseError::hint)
            .map(str::to_owned),
        MigrateError::VersionMismatch(_) => {
            Some("an applied migration must never be edited; restore its file and write a new one".to_owned())
        }
        MigrateError::VersionMissing(_) => {
            Some("the database is newer than this program; run the program that migrated it, or a newer one".to_owned())
        }
        _ => None,
    };
    match hint {
        Some(hint) => anyhow::Error::new(error).context(format!("the schema could not be brought up to date ({hint})")),
        None => anyhow::Error::new(error).context("the schema could not be brought up to date"),
    }
}
