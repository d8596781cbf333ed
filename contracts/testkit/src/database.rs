//! A database per test, cloned from a template that has the migrations applied. The template's name contains a hash of
//! the migrations; the first test of any process creates it, under an advisory lock.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, PgConnection, migrate::Migrator};
use url::Url;
use uuid::Uuid;

use crate::environment;

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
const TEMPLATE_PREFIX: &str = "registrar_template_";
/// Advisory lock held while the template is looked up and created, by all test processes of one server.
const TEMPLATE_LOCK: i64 = 0x7265_6769_7374_7261;

/// Clones the template.
pub(crate) async fn create(name: &str) {
    let owner = environment::url("DATABASE_URL");
    let mut admin = connect(&owner).await;
    let migrator = Migrator::new(Path::new(MIGRATIONS)).await.expect("the folder migrations/ holds valid migrations");
    let template = template_name(&migrator);
    lock(&mut admin).await;
    if !exists(&mut admin, &template).await {
        make_template(&mut admin, &owner, &migrator, &template).await;
    }
    let cloned = execute(&mut admin, format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#)).await;
    // Closing the connection also unlocks, but not before the server has noticed.
    execute(&mut admin, format!("SELECT pg_advisory_unlock({TEMPLATE_LOCK})")).await.expect("the lock is ours");
    cloned.unwrap_or_else(|error| panic!("cannot clone {template} (the owner needs CREATEDB): {error}"));
    admin.close().await.ok();
}

/// Drops a test's database, also while there are connections to it.
pub(crate) async fn discard(name: &str) -> Result<(), sqlx::Error> {
    let mut admin = PgConnection::connect(environment::url("DATABASE_URL").as_str()).await?;
    execute(&mut admin, format!(r#"DROP DATABASE IF EXISTS "{name}" WITH (FORCE)"#)).await?;
    admin.close().await
}

fn template_name(migrator: &Migrator) -> String {
    let checksums: Vec<u8> = migrator.iter().flat_map(|m| m.checksum.iter().copied()).collect();
    format!("{TEMPLATE_PREFIX}{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, &checksums).simple())
}

/// Creates the template under a temporary name first: a template that exists is complete, even if a test process was
/// killed meanwhile.
async fn make_template(admin: &mut PgConnection, owner: &Url, migrator: &Migrator, template: &str) {
    for stale in names_like(admin, TEMPLATE_PREFIX).await {
        // Fails while a test process with other migrations uses it; the next one drops it.
        execute(admin, format!(r#"DROP DATABASE IF EXISTS "{stale}""#)).await.ok();
    }
    let building = format!("{template}_new");
    execute(admin, format!(r#"CREATE DATABASE "{building}" TEMPLATE template0"#))
        .await
        .expect("the owner may create databases");
    let mut connection = connect(&environment::with_path(owner, &building)).await;
    migrator.run(&mut connection).await.unwrap_or_else(|error| panic!("the migrations do not apply: {error}"));
    connection.close().await.expect("the template closes: nobody else knows it");
    execute(admin, format!(r#"ALTER DATABASE "{building}" RENAME TO "{template}""#))
        .await
        .expect("nobody is connected");
}

async fn lock(admin: &mut PgConnection) {
    execute(admin, format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})")).await.expect("the lock comes free");
}

async fn connect(url: &Url) -> PgConnection {
    PgConnection::connect(url.as_str()).await.unwrap_or_else(|error| {
        let address = format!("{}:{}{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(5432), url.path());
        panic!("Postgres at {address} cannot be reached ({error}): are the services up?")
    })
}

async fn exists(admin: &mut PgConnection, name: &str) -> bool {
    names_like(admin, name).await.iter().any(|found| found == name)
}

async fn names_like(admin: &mut PgConnection, prefix: &str) -> Vec<String> {
    sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1)")
        .bind(prefix)
        .fetch_all(admin)
        .await
        .expect("anybody may read pg_database")
}

/// Executes a statement without parameters; names in it are created here, of letters, digits and underscores.
async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(|_| ())
}
